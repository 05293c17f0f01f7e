"""BN-Inception (Ioffe and Szegedy, arXiv 1502.03167), in the layout of the authors' SE-BN-Inception definition."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn_relu


class Branches(nn.ModuleList):
    """Branches over the same map, joined along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, the sum of the branches' channels, H', W')."""
        return torch.cat([branch(x) for branch in self], 1)


class ShortcutPool(nn.Module):
    """3x3 max-pool of stride 2 in ceil mode, to the size that a padded 3x3 convolution of stride 2 gives.

    On an even side (14 and 28 px in this network) that is the same; an odd one gets the missing last row and column.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H / 2, W / 2), rounded up."""
        padded = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=float("-inf"))
        return F.max_pool2d(padded, 3, 2, ceil_mode=True)


def inception(
    inputs: int, one: int, three: tuple[int, int], double: tuple[int, int], pool: Literal["avg", "max"], projected: int
) -> tuple[Branches, int]:
    """A stride-1 module and its output channels: 1x1, 3x3, double 3x3 (each reduced first), pool and projection."""
    pools = {"avg": nn.AvgPool2d(3, 1, padding=1), "max": nn.MaxPool2d(3, 1, padding=1)}
    branches = [
        conv_bn_relu(inputs, one, 1),
        nn.Sequential(*conv_bn_relu(inputs, three[0], 1), *conv_bn_relu(three[0], three[1], 3)),
        _double(inputs, double, 1),
        nn.Sequential(pools[pool], *conv_bn_relu(inputs, projected, 1)),
    ]
    return Branches(branches), one + three[1] + double[1] + projected


def reduction(inputs: int, three: tuple[int, int], double: tuple[int, int]) -> tuple[Branches, int]:
    """A stride-2 module and its output channels: 3x3, double 3x3, and the map itself max-pooled."""
    branches = [
        nn.Sequential(*conv_bn_relu(inputs, three[0], 1), *conv_bn_relu(three[0], three[1], 3, 2)),
        _double(inputs, double, 2),
        ShortcutPool(),
    ]
    return Branches(branches), three[1] + double[1] + inputs


def _double(inputs: int, widths: tuple[int, int], stride: int) -> nn.Sequential:
    entry, width = widths
    return nn.Sequential(
        *conv_bn_relu(inputs, entry, 1), *conv_bn_relu(entry, width, 3), *conv_bn_relu(width, width, 3, stride)
    )


class BNInception(nn.Module):
    """Stem and ten modules, 3a to 5b; the stage is the digit of a module's name.

    The convolutions have no bias, their BN has. `standard`, after each concatenation, is the only place.
    """

    def __init__(self, attend: Attend, *, classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *conv_bn_relu(in_channels, 64, 7, 2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            *conv_bn_relu(64, 64, 1),
            *conv_bn_relu(64, 192, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        channels, self.units = 192, nn.Sequential()

        def add(name: str, module: tuple[Branches, int]) -> int:
            branches, outputs = module
            block = attend("standard", outputs, stage=int(name[0]))
            self.units.add_module(f"inception_{name}", nn.Sequential(branches, block))
            return outputs

        channels = add("3a", inception(channels, 64, (64, 64), (64, 96), "avg", 32))
        channels = add("3b", inception(channels, 64, (64, 96), (64, 96), "avg", 64))
        channels = add("3c", reduction(channels, (128, 160), (64, 96)))
        channels = add("4a", inception(channels, 224, (64, 96), (96, 128), "avg", 128))
        channels = add("4b", inception(channels, 192, (96, 128), (96, 128), "avg", 128))
        channels = add("4c", inception(channels, 160, (128, 160), (128, 160), "avg", 128))
        channels = add("4d", inception(channels, 96, (128, 192), (160, 192), "avg", 128))
        channels = add("4e", reduction(channels, (128, 192), (192, 256)))
        channels = add("5a", inception(channels, 352, (192, 320), (160, 224), "avg", 128))
        channels = add("5b", inception(channels, 352, (192, 320), (192, 224), "max", 128))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, classes)."""
        return self.classifier(self.units(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]
