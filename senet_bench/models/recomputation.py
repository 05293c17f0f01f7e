"""Squeeze and gate in training as autograd would have them, with less memory and fewer passes over the map.

The mean's gradient is the same for a whole map. Autograd spreads it out in the contiguous layout, so adding it to the
map's other gradient takes eight times as long where that is stored channels last; here it is spread out as the map is.

For the gate, autograd keeps, for the product u * gate, the map u beside the input z of the BatchNorm that made it. But
u = a z + b with one a and b per channel, so the gate's gradient, sum(grad * u) = a sum(grad * z) + b sum(grad), needs z
only, which BatchNorm keeps anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Gated(torch.autograd.Function):
    """u * gate for u = a z + b; gradients flow to u and the gate, z, a and b are only read."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, gate: Tensor, z: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(gate, z, a, b)
        return u * gate[:, :, None, None]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, z, a, b = ctx.saved_tensors
        to_u = grad * gate[:, :, None, None] if ctx.needs_input_grad[0] else None
        to_gate = None
        if ctx.needs_input_grad[1]:
            total = (grad * z).sum((2, 3), dtype=a.dtype)
            to_gate = (a * total + b * grad.sum((2, 3), dtype=a.dtype)).to(gate.dtype)
        return to_u, to_gate, None, None, None


class MapMean(torch.autograd.Function):
    """The mean of each map, of which only shape and memory format are kept."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C)."""
        last = u.is_contiguous(memory_format=torch.channels_last)
        ctx.shape, ctx.layout = u.shape, torch.channels_last if last else torch.contiguous_format
        return u.mean((2, 3))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """(N, C) to (N, C, H, W), in the memory format of the map."""
        share = (grad / (ctx.shape[2] * ctx.shape[3]))[:, :, None, None]
        return torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=ctx.layout).copy_(share)


def squeezed(u: Tensor) -> Tensor:
    """The mean of each map of `u`, (N, C, H, W) to (N, C); its gradient has the memory format of `u`.

    Where `u` is only traced, and under torch.compile, this is the plain mean.
    """
    plain = torch.compiler.is_compiling() or not isinstance(u, Tensor)
    mean: Tensor = u.mean((2, 3)) if plain else MapMean.apply(u)
    return mean


def gated(u: Tensor, gate: Tensor) -> Tensor:
    """`u` (N, C, H, W) times its gate (N, C), with exact gradients.

    Where `u` is the direct output of a BatchNorm in training, no copy of it is kept for the backward pass; where it
    is not, and under torch.compile, which recomputes what it likes, this is the plain product. The gradients can
    not be differentiated again.
    """
    made = None if torch.compiler.is_compiling() else _normalisation(u)
    if made is None:
        return u * gate[:, :, None, None]
    return _Gated.apply(u, gate, *made)  # type: ignore[no-any-return]


def _normalisation(u: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """z, a, b with u = a z + b, read from the BatchNorm in u's graph; None where there is none."""
    node: Any = u.grad_fn
    if node is None or "BatchNormBackward" not in type(node).__name__ or not getattr(node, "_saved_training", True):
        return None
    try:
        z, weight, mean, deviation = (
            getattr(node, f"_saved_{name}") for name in ("input", "weight", "result1", "result2")
        )
        bias = node.next_functions[2][0].variable
    except (AttributeError, IndexError, RuntimeError):
        return None
    if any(not isinstance(t, Tensor) for t in (z, weight, mean, deviation, bias)) or z.shape != u.shape:
        return None
    if mean.shape != bias.shape or deviation.shape != bias.shape:
        return None
    with torch.no_grad():
        a = weight.detach() * deviation
        return z.detach(), a, bias.detach() - mean * a
