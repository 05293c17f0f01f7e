"""The two products of equation 3 as the deploy form runs them: a mean over a map with what follows it, and a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

AS_MAP = (slice(None), slice(None), None, None)
"""The index by which (N, C) becomes (N, C, 1, 1)."""
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Term:
    """`matrix` (outputs, features) times the means of `source`, one per channel, or nine for a 3x3 convolution."""

    source: fx.Node
    kernel: int
    stride: int
    matrix: Tensor


@dataclass(frozen=True, slots=True)
class Affine:
    """A mean over a map as the sum of terms and a bias of shape (outputs,), in double precision.

    `early` says that the terms read what convolutions read, not the map itself.
    """

    terms: tuple[Term, ...]
    bias: Tensor
    early: bool = True


class EarlySqueeze(nn.Module):
    """Maps the sources (N, K, H, W) of an affine mean to (N, outputs), with one product and an activation."""

    def __init__(self, mean: Affine, dtype: torch.dtype, activation: Activation | None = None) -> None:
        super().__init__()
        self.reads = tuple((term.kernel, term.stride) for term in mean.terms)
        self.activation, self.early = activation, mean.early
        self.weight = fixed(torch.cat([term.matrix for term in mean.terms], 1).t().to(dtype))
        self.bias = fixed(mean.bias.to(dtype))

    def forward(self, *sources: Tensor) -> Tensor:
        """Equation 2, and where it was multiplied in, the first product of equation 3."""
        features = [means(x, kernel, stride) for x, (kernel, stride) in zip(sources, self.reads)]
        joined = features[0] if len(features) == 1 else torch.cat(features, 1)
        y = torch.addmm(self.bias, joined, self.weight)
        return y if self.activation is None else self.activation(y)

    __call__ = forward  # without hooks, as in `Convolution`


class Product(nn.Module):
    """A linear layer over (N, inputs) and its activation: the second product of equation 3; `wide`: as (N, C, 1, 1)."""

    def __init__(self, linear: nn.Linear, activation: Activation, wide: bool = False) -> None:
        super().__init__()
        self.activation, self.wide = activation, wide
        self.weight = fixed(linear.weight.detach().t())
        bias = linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias
        self.bias = fixed(bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) to (N, outputs)."""
        y = self.activation(torch.addmm(self.bias, x, self.weight))
        return y.unsqueeze(-1).unsqueeze(-1) if self.wide else y

    __call__ = forward


def fixed(values: Tensor) -> nn.Parameter:
    """A copy of the values as a parameter that is not trained."""
    return nn.Parameter(values.contiguous(), requires_grad=False)


def means(x: Tensor, kernel: int, stride: int) -> Tensor:
    """The means (N, features), over the output's map, of what each tap of a convolution reads of the map (N, K, H, W).

    A tap of a 3x3 convolution reads zeros where it stands on the padding.
    """
    if kernel == 3:
        seen = _seen(_seen(_wide(x), 3), 2).flatten(1)
        return (seen / (x.shape[2] * x.shape[3])).to(x.dtype)
    return (x if stride == 1 else x[:, :, ::stride, ::stride]).mean((2, 3))


def _seen(x: Tensor, dim: int) -> Tensor:
    """Sums over `dim` of what the three taps along it see, in a new last dimension.

    The taps see all but the last, all, and all but the first.
    """
    total = x.sum(dim)
    return torch.stack([total - x.select(dim, -1), total, total - x.select(dim, 0)], -1)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
