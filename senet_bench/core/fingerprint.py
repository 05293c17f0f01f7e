"""What a network computes, as a few numbers that another machine and another version of torch can judge.

`models/fingerprint.py` makes them; here is what they mean and when two of them are one function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

TOLERANCES = {"float64": 2e-8, "float32": 1e-4}
"""The difference, relative to the output's norm, up to which two functions are one, by precision.

On two instruction sets 30 families of timm and torchvision agree to 1e-11 in float64, NFNet to 7e-9, and to 1e-6 in
float32, which is at most 4e-6 from float64 over the catalog. A change of eps from 1e-5 to 1e-2 in every BatchNorm moves
the outputs by 5e-3 or more, one of a 3x3's dilation by 6e-6 (VGG-16) to 2e-1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A tensor that a network returned: where in its outputs, its shape, its norm and its projections.

    `odd` of its values are not finite; the numbers are of the others.
    """

    place: str
    shape: list[int]
    norm: float
    projections: list[float]
    odd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """What a network computes: its outputs on seeded images, in the precision it could run in.

    `modules` are the outputs of its leaves in the order of their first calls, by name, where they were asked for.
    """

    precision: str
    input_size: list[int]
    outputs: list[Output]
    modules: dict[str, list[Output]] = field(default_factory=dict)


def function_difference(first: Function, second: Function) -> float:
    """The largest difference of two functions' outputs, relative to the larger norm; infinite for other shapes."""
    if [(out.place, out.shape) for out in first.outputs] != [(out.place, out.shape) for out in second.outputs]:
        return math.inf
    return max((_difference(*pair) for pair in zip(first.outputs, second.outputs)), default=0.0)


def tolerance(first: Function, second: Function) -> float:
    """Up to which difference two functions are one."""
    return max(TOLERANCES.get(function.precision, math.inf) for function in (first, second))


def same(first: Function, second: Function) -> bool:
    """Whether two networks compute one function, as far as their projections tell."""
    return function_difference(first, second) <= tolerance(first, second)


def first_difference(first: Function, second: Function) -> str | None:
    """The name of the first module whose outputs differ, None where no module that both have does."""
    for name, outputs in first.modules.items():
        others = second.modules.get(name)
        if others is None:
            continue
        if len(outputs) != len(others):
            return name
        for pair in zip(outputs, others):
            if pair[0].shape != pair[1].shape or _difference(*pair) > tolerance(first, second):
                return name
    return None


def _difference(first: Output, second: Output) -> float:
    """The largest difference of projections relative to what the larger norm makes of one."""
    norm = max(first.norm, second.norm)
    pairs = [(first.norm, second.norm), *zip(first.projections, second.projections)]
    if first.odd != second.odd or len(first.projections) != len(second.projections):
        return math.inf
    if not all(map(math.isfinite, (value for pair in pairs for value in pair))):
        return math.inf
    return max(abs(one - other) for one, other in pairs) / norm if norm else 0.0
