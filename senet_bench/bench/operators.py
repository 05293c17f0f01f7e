"""The arithmetic of single operators: what ATen calls is counted from the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from senet_bench.core.formulas import CountedCall

aten = torch.ops.aten


class OperatorTally(Protocol):
    """Where counts go; `rank` is the number of dimensions of the image and of every map, 4 of (N, C, H, W)."""

    rank: int

    def add(self, kind: str, amount: int) -> None:
        """Add operations of a kind: conv, linear, bn, max_pool or global_pool."""

    def scale(self, elements: int, call: CountedCall) -> None:
        """Add the multiplication of a map of that many elements by a gate for each channel."""

    def leave_out(self, operator: str, call: CountedCall) -> None:
        """Note a call of an operator that is not counted."""


class OperatorMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts ATen operators: whatever a function is called, it arrives here."""

    _should_skip_dynamo = classmethod(lambda cls: False)  # else its first call imports the compiler

    def __init__(self, tally: OperatorTally) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tally = tally

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.linear.default or func is aten.matmul.default:
            return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        self._count(func, args, kwargs, out)
        return marked(out, args, kwargs)

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        from torch.utils.flop_counter import flop_registry  # which loads triton: networks of the catalog do without

        packet = func.overloadpacket
        formula = COUNTED_PRODUCTS.get(str(packet))
        if packet in flop_registry:
            kind = "conv" if "convolution" in str(packet) else "linear"
            self.tally.add(kind, flop_registry[packet](*args, **kwargs, out_val=out) // 2)
        elif formula is not None:
            self.tally.add("conv" if "deform" in str(packet) else "linear", formula(*args, out_val=out))
        elif packet in BATCH_NORMS:
            self.tally.add("bn", out[0].numel())
        elif packet in MAX_POOLS:
            self.tally.add("max_pool", args[0].numel())
        elif packet in AVERAGE_OPERATORS and is_global_pool(args[0], out, self.tally.rank):
            self.tally.add("global_pool", args[0].numel())
        elif packet in MULTIPLICATIONS and (scaled := scaled_elements(args[-2], args[-1], self.tally.rank)):
            self.tally.scale(scaled, CountedCall(args, kwargs, out))
        elif not func.is_view and packet not in SQUEEZES:
            name = str(packet).removeprefix("aten.").rstrip("_")
            arithmetic = torch.Tag.pointwise in func.tags and name not in MOVES
            self.tally.leave_out(name if arithmetic else f"*{name}", CountedCall(args, kwargs, out))


def marked(answer: Any, args: Any, kwargs: Any) -> Any:
    """The answer, marked as depending on the image if anything it was made from does."""
    if any(map(_varies, args)) or any(map(_varies, kwargs.values())):
        for value in (answer,) if isinstance(answer, Tensor) else _tensors((answer,)):
            value.varies = True  # type: ignore[attr-defined]
    return answer


def _varies(value: Any) -> bool:
    """Whether a tensor, or one in a tuple or list, depends on the image."""
    return any(map(_varies, value)) if isinstance(value, tuple | list) else getattr(value, "varies", False)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def largest(call: CountedCall) -> int:
    """The elements of the largest tensor that a call takes or gives."""
    return max((tensor.numel() for tensor in _tensors((*call.args, call.out))), default=0)


def scaled_elements(one: Any, other: Any, rank: int = 4) -> int:
    """The elements of the map if one operand is a map (N, C, H, W) and the other a gate for each of its channels."""
    for map_, gate in ((one, other), (other, one)):
        if _is_map(map_, rank) and _is_gate(gate, map_):
            return int(map_.numel())
    return 0


def _is_map(x: Any, rank: int) -> bool:
    """Whether x is (N, C, H, W) with values of its own at more than one place."""
    return isinstance(x, Tensor) and x.dim() == rank > 2 and math.prod(x.shape[2:]) > 1 and not _is_even(x)


def _is_gate(x: Any, map_: Tensor) -> bool:
    """Whether x depends on the image and is (N, C, 1, 1), or expanded from that to the size of the map."""
    known = isinstance(x, Tensor) and x.dim() == map_.dim() and x.shape[:2] == map_.shape[:2]
    return known and getattr(x, "varies", False) and _is_even(x)


def _is_even(x: Tensor) -> bool:
    """Whether a tensor has one value for all places of a channel."""
    return all(side == 1 or step == 0 for side, step in zip(x.shape[2:], x.stride()[2:]))


def _deformed(x: Tensor, weight: Tensor, *rest: Any, out_val: Tensor) -> int:
    return out_val.numel() * math.prod(weight.shape[1:])


COUNTED_PRODUCTS: dict[str, Callable[..., int]] = {
    "torchvision.deform_conv2d": _deformed,
    "aten.mv": lambda matrix, vector, out_val: matrix.numel(),
    "aten.addmv": lambda start, matrix, vector, out_val: matrix.numel(),
    "aten.dot": lambda one, other, out_val: one.numel(),
    "aten.vdot": lambda one, other, out_val: one.numel(),
    "aten.addbmm": lambda start, one, other, out_val: one.numel() * other.shape[2],
}
"""Multiply-adds of sums of products that torch's own registry does not know."""
MULTIPLICATIONS = {aten.mul, aten.mul_, aten.addcmul, aten.addcmul_}
SQUEEZES = {aten.mean, aten.amax, aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d, aten.sum}
"""What takes a map together: no arithmetic that the paper counts, and known of every block."""
MOVES = {"clone", "copy", "_to_copy", "fill", "zero", "where", "masked_fill", "detach", "detach_"}
"""Elementwise operators that compute nothing."""
BATCH_NORMS = {aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm}
MAX_POOLS = {aten.max_pool2d_with_indices, aten.max_pool2d}
AVERAGE_OPERATORS = {aten.mean, aten._adaptive_avg_pool2d, aten.adaptive_avg_pool2d, aten._adaptive_avg_pool3d}


def counted_operators() -> frozenset[str]:
    """The names of operators that have a count here, be it none."""
    from torch.utils.flop_counter import flop_registry

    packets = [*flop_registry, *SQUEEZES, *BATCH_NORMS, *MAX_POOLS, *AVERAGE_OPERATORS]
    names = [*map(str, packets), *COUNTED_PRODUCTS]
    return frozenset(name.removeprefix("aten.").strip("_") for name in names)


def is_global_pool(x: Tensor, out: Tensor, rank: int = 4) -> bool:
    """Whether a mean of x, (N, C, H, W), took its whole spatial extent."""
    return x.dim() == rank > 2 and out.numel() == x.shape[0] * x.shape[1]
