"""The arithmetic of a forward pass from shapes alone: nothing is computed, every operator is counted.

The functions that make up nearly all of a network are answered from their shapes (`SHORTCUTS`) or known to count
nothing (`UNCOUNTED`); whatever else is called runs on meta tensors, and the ATen operators it arrives at are
counted. So the count is one of arithmetic, not of how the code is spelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


class Tally(Protocol):
    """Where counts go."""

    def add(self, kind: str, amount: int) -> None:
        """Add operations of a kind: conv, linear, bn, max_pool or global_pool."""


class ShapeMode(TorchFunctionMode):
    """Answers the frequent functions from shapes; runs the others under `_DispatchMode`."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self.dispatch = _DispatchMode(tally)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        shortcut = SHORTCUTS.get(func)
        if shortcut is not None:
            answer = shortcut(self.tally, *args, **kwargs)
            if answer is not None:
                return answer
        elif func in UNCOUNTED:
            return func(*args, **kwargs)
        with self.dispatch:
            return func(*args, **kwargs)


class _DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts ATen operators: whatever a function is called, it arrives here."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tally = tally

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.linear.default or func is aten.matmul.default:
            return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in flop_registry:
            kind = "conv" if "convolution" in str(packet) else "linear"
            self.tally.add(kind, flop_registry[packet](*args, **kwargs, out_val=out) // 2)
        elif packet in BATCH_NORMS:
            self.tally.add("bn", out[0].numel())
        elif packet in MAX_POOLS:
            self.tally.add("max_pool", args[0].numel())
        elif packet in AVERAGES and is_global_pool(args[0], out):
            self.tally.add("global_pool", args[0].numel())
        return out


BATCH_NORMS = {aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm}
MAX_POOLS = {aten.max_pool2d_with_indices, aten.max_pool2d}
AVERAGES = {aten.mean, aten._adaptive_avg_pool2d, aten.adaptive_avg_pool2d}
UNCOUNTED = {
    Tensor.numel,
    Tensor.size,
    Tensor.dim,
    Tensor.view,
    Tensor.reshape,
    Tensor.flatten,
    Tensor.transpose,
    Tensor.__getitem__,
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.flatten,
    torch.unflatten,
    F.pad,
}


def is_global_pool(x: Tensor, out: Tensor) -> bool:
    """Whether a mean of x, (N, C, H, W), took its whole spatial extent."""
    return x.dim() == 4 and out.numel() == x.shape[0] * x.shape[1]


def _like(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, device="meta", dtype=x.dtype)


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _conv2d(
    tally: Tally,
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


def _linear(tally: Tally, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:  # noqa: A002
    if input.shape[-1] != weight.shape[-1] or weight.dim() != 2:
        return None
    tally.add("linear", input.numel() * weight.shape[0])
    return _like(input, *input.shape[:-1], weight.shape[0])


def _batch_norm(
    tally: Tally,
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    *rest: Any,
    **named: Any,
) -> Tensor | None:
    if running_mean is not None and running_mean.shape[0] != input.shape[1]:
        return None
    tally.add("bn", input.numel())
    return input


def _unchanged(tally: Tally, input: Tensor, *rest: Any, **named: Any) -> Tensor:  # noqa: A002
    return input


def _elementwise(tally: Tally, input: Tensor, other: Any, **named: Any) -> Tensor | None:  # noqa: A002
    if named or not isinstance(other, Tensor) or input.shape == other.shape:
        return None if named else input
    return _like(input, *np.broadcast_shapes(input.shape, other.shape))


def _cat(tally: Tally, tensors: Any, dim: int = 0, **named: Any) -> Tensor | None:
    first, *rest = tensors
    dim %= first.dim()
    around = [tuple(x.shape[:dim]) + tuple(x.shape[dim + 1 :]) for x in tensors]
    if named or any(shape != around[0] for shape in around):
        return None
    return _like(first, *first.shape[:dim], first.shape[dim] + sum(x.shape[dim] for x in rest), *first.shape[dim + 1 :])


def _amax(tally: Tally, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor | None:  # noqa: A002
    return _like(input, *input.shape[:2]) if input.dim() == 4 and dim == (2, 3) and not keepdim else None


def _mean(tally: Tally, input: Tensor, dim: Any = None, keepdim: bool = False, **named: Any) -> Tensor | None:  # noqa: A002
    if input.dim() != 4 or not isinstance(dim, (tuple, list)) or sorted(d % 4 for d in dim) != [2, 3] or named:
        return None
    tally.add("global_pool", input.numel())
    return _like(input, *input.shape[:2], *((1, 1) if keepdim else ()))


def _max_pool2d(
    tally: Tally,
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
    tally: Tally,
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


def _adaptive_avg_pool2d(tally: Tally, input: Tensor, output_size: Any) -> Tensor | None:  # noqa: A002
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
    Tensor.mul: _elementwise,
    Tensor.mul_: _elementwise,
    Tensor.__rmul__: _elementwise,
    F.max_pool2d: _max_pool2d,
    F._max_pool2d: _max_pool2d,  # type: ignore[attr-defined]
    torch.max_pool2d: _max_pool2d,
    F.avg_pool2d: _avg_pool2d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    Tensor.mean: _mean,
    torch.mean: _mean,
}
