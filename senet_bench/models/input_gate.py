"""Attention on the image itself: an SE block on the colour channels, before any network.

`gated_input` is to a row what `+attach` is to a network from outside: the row of the same network with the block, so
that it is built, trained, saved and loaded as every other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.core.specs import AttentionSpec, ModelSpec
from senet_bench.models.attention import Attend, SqueezeExcitation
from senet_bench.models.importing import imported

PLACE = "input"
SUFFIX = "+input"


class GatedInput(nn.Module):
    """A network behind an SE block (r = 1) on its image; maps (N, C, H, W) normalised images to logits.

    The block acts on the pixel values in 0..1, so `mean` and `std`, by which they were normalised, are undone before
    it and applied again after it: it squeezes each colour to its mean brightness, and its gate scales the colour.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.gate = SqueezeExcitation(len(mean), AttentionSpec(reduction=1), 1)
        self.gate.attention_place = PLACE  # type: ignore[assignment]
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def start_even(self) -> None:
        """Let every gate be 1/2 for every image: what differs from that afterwards was learnt, and is no accident."""
        for parameter in self.gate.fc2.parameters():
            nn.init.zeros_(parameter)

    def gates(self, x: Tensor) -> Tensor:
        """The gates (N, C) of normalised images."""
        return self.gate.excitation(self.gate.squeeze(x * self.std + self.mean))

    def forward(self, x: Tensor) -> Tensor:
        """Gate the pixels, normalise them again, and let the network see them."""
        return self.network((self.gate(x * self.std + self.mean) - self.mean) / self.std)  # type: ignore[no-any-return]


def gated_input(spec: ModelSpec, mean: Sequence[float], std: Sequence[float]) -> ModelSpec:
    """The row of a network with the block on its input, for images normalised by `mean` and `std`."""
    return replace(
        spec,
        name=f"{spec.name}{SUFFIX}",
        label=f"{spec.label} behind an SE gate on its input",
        builder=f"{__name__}:network",
        options={"builder": spec.builder, "inner": dict(spec.options), "mean": tuple(mean), "std": tuple(std)},
    )


def network(
    attend: Attend,
    *,
    classes: int,
    in_channels: int,
    builder: str,
    inner: Mapping[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
) -> nn.Module:
    """What the rows of `gated_input` build."""
    make = imported(builder, "network")
    return GatedInput(make(attend, classes=classes, in_channels=in_channels, **inner), mean, std)
