"""Squeeze and scale in training: autograd's gradients, with less memory and in fewer passes over the map.

The gradient of the map u is grad * gate, plus each pixel's share of the mean's gradient. Autograd makes either as a map
of its own and then adds them. Here the scale hands `grad` and the gate back to the squeeze as they are; the squeeze's
backward, which comes last, makes the map's gradient of them in one pass.

For the gate's gradient, sum(grad * u), autograd keeps u beside the input z of the BatchNorm that made it. But
u = weight * (z - mean) * deviation + bias, with one of each per channel, so z is enough, which BatchNorm keeps anyway:
sum(grad * u) = weight * sum(grad * (z - mean) * deviation) + bias * sum(grad).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGE_BY_IMAGE = 1 << 15
"""From this many values of an image on, a call for every image costs less than a product that is stored."""
FEW_CHANNELS = 32
"""With fewer, and in the contiguous layout, a CPU is slower at one operator of three factors than at two of two."""


def recalibrated(u: Tensor, squeeze: Callable[[Tensor], Tensor], excitation: Callable[[Tensor], Tensor]) -> Tensor:
    """`u` (N, C, H, W) times the gate (N, C) that `excitation` makes of what `squeeze` gives, the mean of each map.

    The gradients are exact, and cannot be differentiated again. Where `u` is the direct output of a BatchNorm in
    training, no copy of it is kept for the backward pass. This is written in plain operators where `u` is only traced,
    under torch.compile, which recomputes what it likes, and where hooks keep what autograd saves, as those of
    `torch.utils.checkpoint` do: to look at what a BatchNorm saved would be to have all of it computed again.
    """
    if torch.compiler.is_compiling() or not isinstance(u, Tensor) or saves_through_hooks():
        return u * excitation(squeeze(u))[:, :, None, None]
    mean, handed_on, slot = _Squeeze.apply(u, squeeze)
    return _Scale.apply(handed_on, excitation(mean), slot, *_normalisation(u))  # type: ignore[no-any-return]


def saves_through_hooks() -> bool:
    """Whether what autograd saves is handed to hooks here: a checkpoint's, or such as keep it on the CPU."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def map_mean(u: Tensor) -> Tensor:
    """The mean of each map, (N, C, H, W) to (N, C).

    Channels last on a CPU it is a pooling: the mean sums more slowly there, and makes a float32 copy of a bfloat16 map.
    """
    plain = torch.compiler.is_compiling() or not isinstance(u, Tensor) or not _last_on_cpu(u)
    return u.mean((2, 3)) if plain else F.avg_pool2d(u, u.shape[2:]).flatten(1)


class _Squeeze(torch.autograd.Function):
    """The mean of each map, the map as it is, and a slot through which the scale's backward sends the gate."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, squeeze: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        ctx.pixels = u.shape[2:].numel()
        return squeeze(u), u.view_as(u), u.new_empty(u.shape[:2])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_mean: Tensor, grad: Tensor, gate: Tensor) -> tuple[Tensor, None]:
        share, gate = (to_mean / ctx.pixels)[:, :, None, None], gate[:, :, None, None]
        if grad.is_cpu and not (_last_on_cpu(grad) and grad.shape[1] >= FEW_CHANNELS):
            return (grad * gate).add_(share), None
        return torch.addcmul(share, grad, gate), None


class _Scale(torch.autograd.Function):
    """u * gate for u = weight * (z - mean) * deviation + bias; its backward leaves the gradient of u to the squeeze."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, gate: Tensor, slot: Tensor, *normalisation: Tensor) -> Tensor:
        ctx.save_for_backward(gate, *normalisation)
        return u * gate[:, :, None, None]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, z, weight, bias, mean, deviation = ctx.saved_tensors
        to_gate = None
        if ctx.needs_input_grad[1]:
            to_weight, to_bias = _sums(grad, z, mean, deviation)
            to_gate = (weight * to_weight + bias * to_bias).to(gate.dtype)
        return grad, to_gate, gate, *[None] * 5


def _last_on_cpu(u: Tensor) -> bool:
    return u.is_cpu and u.is_contiguous(memory_format=torch.channels_last)


def _sums(grad: Tensor, z: Tensor, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of grad * (z - mean) * deviation and of grad over each map, (N, C) each.

    Of one image they are what BatchNorm's backward pass gives for its weight and its bias, without a stored product.
    """
    if grad.is_cpu and grad.dtype == z.dtype and grad.shape[1:].numel() >= IMAGE_BY_IMAGE:
        backward = torch.ops.aten.native_batch_norm_backward
        parts = [
            backward(of_grad, of_z, None, None, None, mean, deviation, True, 0.0, (False, True, True))[1:]
            for of_grad, of_z in zip(torch.split(grad, 1), torch.split(z, 1))
        ]
        to_weight, to_bias = (torch.stack(part) for part in zip(*parts))
        return to_weight, to_bias
    total = grad.sum((2, 3), dtype=mean.dtype)
    return ((grad * z).sum((2, 3), dtype=mean.dtype) - mean * total) * deviation, total


def _normalisation(u: Tensor) -> tuple[Tensor, ...]:
    """z, weight, bias, mean and deviation of the BatchNorm that made u, from its graph; of u itself where none did."""
    node: Any = u.grad_fn
    if "BatchNormBackward" in type(node).__name__ and getattr(node, "_saved_training", True):
        try:
            z, weight, mean, deviation = (
                getattr(node, f"_saved_{name}") for name in ("input", "weight", "result1", "result2")
            )
            made = (z, weight, node.next_functions[2][0].variable, mean, deviation)
            if [t.shape for t in made] == [u.shape, *[u.shape[1:2]] * 4]:
                return tuple(t.detach() for t in made)
        except (AttributeError, IndexError, RuntimeError):  # it has no weight, a frozen bias, or is of another kind
            pass
    dtype = torch.promote_types(u.dtype, torch.float32)
    zeros, ones = (torch.full(u.shape[1:2], value, dtype=dtype, device=u.device) for value in (0.0, 1.0))
    return u.detach(), ones, zeros, zeros, ones
