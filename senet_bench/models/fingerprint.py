"""What a network computes, as a few numbers that another machine and another version of torch can judge.

The weights are filled from the tensors' names and shapes, the images from their size, both by a generator of raw bits
that is the same everywhere; the network runs in evaluation, in double precision where it can. What it returns is kept
as random projections. It imports nothing of the package: a worker loads this file beside another checkout's code.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

COUNT = 16
"""Projections of an output."""
DIGITS = 12
"""Significant digits that are kept."""
TOLERANCES = {"float64": 1e-7, "float32": 1e-4}
"""The difference, relative to the output's norm, up to which two functions are one, by precision.

On two instruction sets 30 families of timm and torchvision agree to 1e-11 in float64, NFNet to 7e-9, and to 1e-6 in
float32, which is at most 4e-6 from float64 over the catalog. A change of eps from 1e-5 to 1e-2 in every BatchNorm moves
the outputs by 5e-3 or more, one of a 3x3's dilation by 6e-6 (VGG-16) to 2e-1."""
SCALE_BOUNDS, BIASES = (0.6, 0.8), 0.1
"""Bounds of the scales of normalisations and of other vectors; the largest bias."""
MEANS, VARIANCES = 0.2, (0.5, 1.5)
"""The largest running mean, the bounds of running variances: never 0 and 1."""
IMAGES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A tensor that a network returned: where in its outputs, its shape, its norm and its projections."""

    place: str
    shape: list[int]
    norm: float
    projections: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """What a network computes: its outputs on seeded images, in the precision it could run in.

    `modules` are the outputs of its leaves in the order of their first calls, by name, where they were asked for.
    """

    precision: str
    input_size: list[int]
    outputs: list[Output]
    modules: dict[str, list[Output]] = field(default_factory=dict)


def function_of(network: nn.Module, input_size: tuple[int, ...], *, modules: bool = False) -> Function:
    """The function of a network for two images of `input_size` (C, H, W); the network is not changed.

    Raises what its forward pass raises.
    """
    try:
        return _function(network, input_size, torch.float64, modules=modules)
    except _LowPrecisionError:
        return _function(network, input_size, torch.float32, modules=modules)
    except (RuntimeError, TypeError):  # it makes tensors of its own precision
        return _function(network, input_size, torch.float32, modules=modules)


def function_difference(first: Function, second: Function) -> float:
    """The largest difference of two functions' outputs, relative to the larger norm; infinite for other shapes."""
    if [(out.place, out.shape) for out in first.outputs] != [(out.place, out.shape) for out in second.outputs]:
        return math.inf
    return max((_difference(*pair) for pair in zip(first.outputs, second.outputs)), default=0.0)


def tolerance(first: Function, second: Function) -> float:
    """Up to which difference two functions are one."""
    return max(TOLERANCES[first.precision], TOLERANCES[second.precision])


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


def filled(network: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A copy in evaluation whose parameters and BatchNorm statistics are functions of their names and shapes.

    Other buffers, which are constants of the function, stay as they are.
    """
    network = copy.deepcopy(network).eval().to(dtype)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            values = _values(name, tuple(tensor.shape), buffer=not isinstance(tensor, nn.Parameter))
            if values is not None and tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(values))
    return network


def _values(name: str, shape: tuple[int, ...], *, buffer: bool) -> Any:
    """What a tensor of that name is filled with; None for a buffer that is a constant."""
    leaf = name.rpartition(".")[2]
    unit = _uniform(f"{name} {list(shape)}", shape)
    if buffer:
        low, high = VARIANCES
        statistics = {"running_mean": MEANS * unit, "running_var": low + (high - low) * (unit + 1) / 2}
        return statistics.get(leaf)
    if leaf.endswith("bias"):
        return BIASES * unit
    if len(shape) < 2:
        return SCALE_BOUNDS[0] + (SCALE_BOUNDS[1] - SCALE_BOUNDS[0]) * (unit + 1) / 2
    return unit * math.sqrt(3 * 2 / max(1, math.prod(shape[1:])))


def _uniform(seed: str, shape: tuple[int, ...]) -> Any:
    """Values in -1..1, from the raw bits of a generator seeded by a text."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(seed.encode()))).random(shape) * 2 - 1


class _LowPrecisionError(Exception):
    """Part of a network ran in another precision than it was given."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where an operator returns floats of less precision than the network was given."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for _, tensor in _leaves(out):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64:
                raise _LowPrecisionError
        return out


def _function(network: nn.Module, input_size: tuple[int, ...], dtype: torch.dtype, *, modules: bool) -> Function:
    images = torch.from_numpy(math.sqrt(3) * _uniform("images", (IMAGES, *input_size))).to(dtype)
    network = filled(network, dtype)
    fixed = getattr(network, "with_fixed_proposals", None)  # which boxes a detector returns is a matter of rounding
    network = fixed(dense=True) if fixed else network
    seen: dict[str, list[Output]] = {}
    if modules:
        for name, module in network.named_modules():
            if not any(module.children()):
                module.register_forward_hook(lambda *call, name=name: seen.setdefault(name, []).extend(_kept(call[2])))
    with torch.no_grad():
        if dtype == torch.float64:
            with _Watch():  # type: ignore[no-untyped-call]
                out = network(images)
        else:
            out = network(images)
    return Function(
        precision=str(dtype).removeprefix("torch."), input_size=list(input_size), outputs=list(_kept(out)), modules=seen
    )


def _kept(outputs: Any) -> Iterator[Output]:
    """The tensors of an output, each as its projections."""
    for place, tensor in _leaves(outputs):
        if isinstance(tensor, Tensor):
            values = tensor.detach().double().flatten().numpy()
            norm = float(np.linalg.norm(values))
            projections = [float(values @ _uniform(f"{index}", values.shape)) for index in range(COUNT)]
            yield Output(
                place=place, shape=list(tensor.shape), norm=_short(norm), projections=[_short(p) for p in projections]
            )


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _leaves(outputs: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """What lies in nested outputs, each with its place."""
    if isinstance(outputs, Mapping):
        for name, value in outputs.items():
            yield from _leaves(value, f"{place}{name}: ")
    elif isinstance(outputs, list | tuple):
        for index, value in enumerate(outputs):
            yield from _leaves(value, f"{place}{index}: ")
    else:
        yield place, outputs


def _difference(first: Output, second: Output) -> float:
    """The largest difference of projections relative to what the larger norm makes of one."""
    norm = max(first.norm, second.norm)
    pairs = [(first.norm, second.norm), *zip(first.projections, second.projections)]
    if not all(map(math.isfinite, (value for pair in pairs for value in pair))):
        return 0.0 if first == second else math.inf
    return max(abs(one - other) for one, other in pairs) / norm if norm else 0.0
