"""The arithmetic of a forward pass from shapes alone: nothing is computed, every operator is counted.

The functions that make up nearly all of a network are answered from their shapes (`SHORTCUTS`) or known to count
nothing (`UNCOUNTED`); whatever else is called runs on meta tensors, and the ATen operators it arrives at are
counted. So the count is one of arithmetic, not of how the code is spelled.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from senet_bench.bench.operators import OperatorMode, OperatorTally, marked, scaled_elements
from senet_bench.core.formulas import CountedCall


class ShapeMode(TorchFunctionMode):
    """Answers the frequent functions from shapes; runs the others under `OperatorMode`.

    With `everything`, operators are also counted that no function calls: those of scripted and traced modules and of
    libraries. Where it `computes`, all of them run and none is answered. Tensors that come from the image are marked,
    so that a gate is told from a parameter.
    """

    def __init__(
        self, tally: OperatorTally, image: Tensor, *, everything: bool = False, computes: bool = False
    ) -> None:
        super().__init__()
        self.tally, self.shortcuts = tally, {} if computes else SHORTCUTS
        self.dispatch = OperatorMode(tally)
        self.everything = everything
        image.varies = True  # type: ignore[attr-defined]

    def __enter__(self) -> ShapeMode:
        if self.everything:
            self.dispatch.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        if self.everything:
            self.dispatch.__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        shortcut = self.shortcuts.get(func)
        answer = None if shortcut is None else shortcut(self.tally, *args, **kwargs)
        if answer is not None:
            if shortcut is _elementwise:
                self.tally.leave_out(func.__name__.strip("_"), CountedCall(args, kwargs, answer))
        else:
            quiet = self.everything or (shortcut is None and func in UNCOUNTED)
            with contextlib.nullcontext() if quiet else self.dispatch:
                answer = func(*args, **kwargs)
        return marked(answer, args, kwargs)


UNCOUNTED = {
    Tensor.numel,
    Tensor.size,
    Tensor.dim,
    Tensor.view,
    Tensor.reshape,
    Tensor.flatten,
    Tensor.transpose,
    Tensor.__getitem__,
    Tensor.expand,
    Tensor.expand_as,
    Tensor.stride,
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.flatten,
    torch.unflatten,
    F.pad,
}


def _like(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, device="meta", dtype=x.dtype)


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _conv2d(
    tally: OperatorTally,
    input: Tensor,  # noqa: A002 - the name of torch's own argument
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    if isinstance(padding, str) or input.dim() != 4:
        return None
    outputs, per_group, *kernel = weight.shape
    if per_group * groups != input.shape[1]:
        return None
    sides = [
        (size + 2 * pad - gap * (k - 1) - 1) // step + 1
        for size, k, step, pad, gap in zip(input.shape[2:], kernel, _two(stride), _two(padding), _two(dilation))
    ]
    if min(sides) < 1:
        return None
    tally.add("conv", input.shape[0] * outputs * math.prod(sides) * per_group * math.prod(kernel))
    return _like(input, input.shape[0], outputs, *sides)


def _linear(tally: OperatorTally, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:  # noqa: A002
    if input.shape[-1] != weight.shape[-1] or weight.dim() != 2:
        return None
    tally.add("linear", input.numel() * weight.shape[0])
    return _like(input, *input.shape[:-1], weight.shape[0])


def _batch_norm(
    tally: OperatorTally,
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    *rest: Any,
    **named: Any,
) -> Tensor | None:
    if running_mean is not None and running_mean.shape[0] != input.shape[1]:
        return None
    tally.add("bn", input.numel())
    return input


def _unchanged(tally: OperatorTally, input: Tensor, *rest: Any, **named: Any) -> Tensor:  # noqa: A002
    return input


def _mul(tally: OperatorTally, input: Tensor, other: Any, **named: Any) -> Tensor | None:  # noqa: A002
    answer = _elementwise(tally, input, other, **named)
    if answer is None or not isinstance(other, Tensor):
        return answer
    call = CountedCall((input, other), {}, answer)
    if scaled := scaled_elements(input, other, tally.rank):
        tally.scale(scaled, call)
    else:
        tally.leave_out("mul", call)
    return answer


def _einsum(tally: OperatorTally, equation: Any, *operands: Any) -> Tensor | None:
    """A product of two tensors, also where torch makes a multiplication of it because a side is 1."""
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands
    amount = einsum_products(equation, tensors)
    if not amount:
        return None
    sides = _sides(equation, tensors)
    result = equation.replace(" ", "").partition("->")[2]
    tally.add("linear", amount)
    return _like(tensors[0], *(sides[letter] for letter in result))


def _sides(equation: str, tensors: Any) -> dict[str, int]:
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    pairs = [pair for term, tensor in zip(terms, tensors) for pair in zip(term, tensor.shape)]
    return {letter: max(side for other, side in pairs if other == letter) for letter, _ in pairs}


def einsum_products(equation: Any, tensors: Any) -> int:
    """Multiply-adds of an einsum of two tensors that sums over a letter both have; 0 for any other, which is not one.

    A letter that only one of them has and the result has not is summed before.
    """
    if not isinstance(equation, str) or "->" not in equation or "." in equation or len(tensors) != 2:
        return 0
    left, _, result = equation.replace(" ", "").partition("->")
    one, other = left.split(",")
    if not (set(one) & set(other)) - set(result) or len(set(one)) < len(one) or len(set(other)) < len(other):
        return 0
    sides = _sides(equation, tensors)
    return math.prod(
        sides[letter] for letter in set(one + other) if letter in result or (letter in one and letter in other)
    )


def _elementwise(tally: OperatorTally, input: Tensor, other: Any, **named: Any) -> Tensor | None:  # noqa: A002
    if named or not isinstance(other, Tensor) or input.shape == other.shape:
        return None if named else input
    return _like(input, *np.broadcast_shapes(input.shape, other.shape))


def _cat(tally: OperatorTally, tensors: Any, dim: int = 0, **named: Any) -> Tensor | None:
    first, *rest = tensors
    dim %= first.dim()
    around = [tuple(x.shape[:dim]) + tuple(x.shape[dim + 1 :]) for x in tensors]
    if named or any(shape != around[0] for shape in around):
        return None
    return _like(first, *first.shape[:dim], first.shape[dim] + sum(x.shape[dim] for x in rest), *first.shape[dim + 1 :])


def _amax(tally: OperatorTally, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor | None:  # noqa: A002
    return _like(input, *input.shape[:2]) if input.dim() == 4 and dim == (2, 3) and not keepdim else None


def _mean(tally: OperatorTally, input: Tensor, dim: Any = None, keepdim: bool = False, **named: Any) -> Tensor | None:  # noqa: A002
    if input.dim() != 4 or not isinstance(dim, (tuple, list)) or sorted(d % 4 for d in dim) != [2, 3] or named:
        return None
    tally.add("global_pool", input.numel())
    return _like(input, *input.shape[:2], *((1, 1) if keepdim else ()))


def _max_pool2d(
    tally: OperatorTally,
    input: Tensor,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    if return_indices or input.dim() != 4 or _two(dilation) != (1, 1):
        return None
    sides = _pooled(input.shape[2:], kernel_size, stride, padding, ceil_mode)
    if min(sides) < 1:
        return None
    tally.add("max_pool", input.numel())
    return _like(input, *input.shape[:2], *sides)


def _avg_pool2d(
    tally: OperatorTally,
    input: Tensor,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *rest: Any,
    **named: Any,
) -> Tensor | None:
    if input.dim() != 4:
        return None
    sides = _pooled(input.shape[2:], kernel_size, stride, padding, ceil_mode)
    return _like(input, *input.shape[:2], *sides) if min(sides) >= 1 else None


def _adaptive_avg_pool2d(tally: OperatorTally, input: Tensor, output_size: Any) -> Tensor | None:  # noqa: A002
    if input.dim() != 4 or None in (sides := _two(output_size)):
        return None
    if sides == (1, 1):
        tally.add("global_pool", input.numel())
    return _like(input, *input.shape[:2], *sides)


def _pooled(size: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> list[int]:
    """Output sides of a pooling; with `ceil_mode` a last window must still begin inside the padded input."""
    sides = []
    for side, k, step, pad in zip(size, _two(kernel), _two(stride or kernel), _two(padding)):
        room = side + 2 * pad - k
        out = (room + (step - 1 if ceil_mode else 0)) // step + 1
        sides.append(out - 1 if ceil_mode and (out - 1) * step >= side + pad else out)
    return sides


SHORTCUTS: dict[Any, Callable[..., Tensor | None]] = {
    torch.conv2d: _conv2d,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.relu: _unchanged,
    torch.relu: _unchanged,
    F.dropout: _unchanged,
    torch.sigmoid: _unchanged,
    torch.tanh: _unchanged,
    F.hardtanh: _unchanged,
    F.hardswish: _unchanged,
    F.hardsigmoid: _unchanged,
    F.silu: _unchanged,
    torch.cat: _cat,
    Tensor.amax: _amax,
    Tensor.add: _elementwise,
    Tensor.add_: _elementwise,
    Tensor.mul: _mul,
    Tensor.mul_: _mul,
    Tensor.__rmul__: _mul,
    torch.mul: _mul,
    torch.einsum: _einsum,
    F.max_pool2d: _max_pool2d,
    F._max_pool2d: _max_pool2d,  # type: ignore[attr-defined]
    torch.max_pool2d: _max_pool2d,
    F.avg_pool2d: _avg_pool2d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    Tensor.mean: _mean,
    torch.mean: _mean,
}
