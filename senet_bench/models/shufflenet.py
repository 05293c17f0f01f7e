"""ShuffleNet v1 (Zhang et al., arXiv 1707.01083, Table 1 and Figure 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn, conv_bn_relu


class ChannelShuffle(nn.Module):
    """Takes the channels of `groups` groups in turn, so that the next grouped convolution sees all groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return torch.unflatten(x, 1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """The stride-1 unit, Figure 2 (b): a residual unit of constant width, with the places of the paper's Figure 5.

    The bottleneck has a quarter of the channels; its depthwise 3x3 has no ReLU, so the place `3x3` follows its BN.
    """

    def __init__(self, channels: int, groups: int, attend: Attend, stage: int) -> None:
        super().__init__()
        width = channels // 4
        self.pre = attend("pre", channels, stage=stage)
        self.branch = nn.Sequential(
            *conv_bn_relu(channels, width, 1, groups=groups),
            ChannelShuffle(groups),
            *conv_bn(width, width, 3, groups=width),
            attend("3x3", width, stage=stage),
            *conv_bn(width, channels, 1, groups=groups),
        )
        self.standard = attend("standard", channels, stage=stage)
        self.identity = attend("identity", channels, stage=stage)
        self.post = attend("post", channels, stage=stage)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        return self.post(F.relu(self.standard(self.branch(self.pre(x))) + self.identity(x)))  # type: ignore[no-any-return]


class DownsamplingUnit(nn.Module):
    """The stride-2 unit, Figure 2 (c): the branch joins an average-pooled shortcut. It sums nothing and has no place.

    The bottleneck has a quarter of the `outputs`; `entry_groups` are those of its first convolution.
    """

    def __init__(self, inputs: int, outputs: int, entry_groups: int, groups: int) -> None:
        super().__init__()
        width = outputs // 4
        self.branch = nn.Sequential(
            *conv_bn_relu(inputs, width, 1, groups=entry_groups),
            ChannelShuffle(groups),
            *conv_bn(width, width, 3, 2, groups=width),
            *conv_bn(width, outputs - inputs, 1, groups=groups),
        )
        self.shortcut = nn.AvgPool2d(3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / 2, W / 2)."""
        return F.relu(torch.cat([self.shortcut(x), self.branch(x)], 1))


class ShuffleNetV1(nn.Module):
    """Stem, stages 2 to 4 at 28, 14 and 7 px, global average pool, classifier; `widths` belong to `groups`.

    The first pointwise convolution is not grouped: it has 24 input channels only.
    """

    def __init__(
        self,
        attend: Attend,
        *,
        classes: int,
        in_channels: int,
        groups: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...] = (4, 8, 4),
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn_relu(in_channels, 24, 3, 2), nn.MaxPool2d(3, 2, padding=1))
        channels, self.stages = 24, nn.ModuleList()
        for index, (width, depth) in enumerate(zip(widths, depths)):
            down = DownsamplingUnit(channels, width, groups if index else 1, groups)
            units = [ShuffleUnit(width, groups, attend, index + 2) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(down, *units))
            channels = width
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, classes)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.classifier(x.mean((2, 3)))  # type: ignore[no-any-return]
