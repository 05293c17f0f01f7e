"""ResNet and ResNeXt for ImageNet (He et al., arXiv 1512.03385; Xie et al., arXiv 1611.05431), and SENet-154.

Table 1 of the paper gives the layout of ResNet-50, SE-ResNet-50 and SE-ResNeXt-50 (32x4d). SENet-154 is the paper's
ILSVRC 2017 network (section 5.6 and appendix; the authors' released definition).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn, conv_bn_relu


class ResidualUnit(nn.Module):
    """A residual unit with the four places of the paper's Figure 5: `pre`, `standard`, `identity`, `post`.

    `branch` is the transformation F; the shortcut is a projection where the shape changes, a 1x1 convolution
    unless `projection` names another kernel size. `identity` recalibrates what the shortcut hands on, in parallel to
    the branch; `post` acts after the sum's ReLU.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        branch: nn.Sequential,
        attend: Attend,
        stage: int,
        *,
        projection: int = 1,
    ) -> None:
        super().__init__()
        self.pre = attend("pre", inputs, stage=stage)
        self.branch = branch
        self.standard = attend("standard", outputs, stage=stage)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, projection, stride)
        self.identity = attend("identity", outputs, stage=stage)
        self.post = attend("post", outputs, stage=stage)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        skip = self.identity(self.shortcut(x))
        return self.post(F.relu(self.standard(self.branch(self.pre(x))) + skip))  # type: ignore[no-any-return]


def basic_branch(inputs: int, width: int, stride: int) -> nn.Sequential:
    """Two 3x3 convolutions; the first holds the stride."""
    return nn.Sequential(*conv_bn_relu(inputs, width, 3, stride), *conv_bn(width, width, 3))


def bottleneck_branch(
    inputs: int,
    width: int,
    outputs: int,
    strides: tuple[int, int],
    groups: int,
    attend: Attend,
    stage: int,
    *,
    entry: int | None = None,
) -> nn.Sequential:
    """1x1 (to `entry` channels, else `width`), 3x3 (grouped, `width`), 1x1; `strides` are those of the first two.

    The place `3x3` of Table 15 follows the ReLU of the 3x3.
    """
    entry = entry or width
    return nn.Sequential(
        *conv_bn_relu(inputs, entry, 1, strides[0]),
        *conv_bn_relu(entry, width, 3, strides[1], groups),
        attend("3x3", width, stage=stage),
        *conv_bn(width, outputs, 1),
    )


def whole(channels: float, groups: int = 1) -> int:
    """The nearest number of channels that the groups divide, halves rounded up."""
    return int(channels / groups + 0.5) * groups


class ResNet(nn.Module):
    """Stem, four stages of residual units at 56, 28, 14 and 7 px (stages 2 to 5), global average pool, classifier.

    `width` multiplies every number of channels but the image's.
    """

    def __init__(
        self,
        attend: Attend,
        *,
        classes: int,
        in_channels: int,
        layers: tuple[int, ...],
        bottleneck: bool,
        stride_in: Literal["1x1", "3x3"] = "1x1",
        padded_pool: bool = False,
        cardinality: int = 1,
        group_width: int = 64,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, padding=1) if padded_pool else nn.MaxPool2d(3, 2, ceil_mode=True)
        channels = whole(64 * width)
        self.stem = nn.Sequential(*conv_bn_relu(in_channels, channels, 7, 2), pool)
        self.stages = nn.ModuleList()
        for index, depth in enumerate(layers):
            planes, stage = 64 << index, index + 2
            outputs = whole((4 * planes if bottleneck else planes) * width)
            units: list[nn.Module] = []
            for unit in range(depth):
                stride = 2 if index and not unit else 1
                if bottleneck:
                    inner = whole(((cardinality * group_width) << index) * width, cardinality)
                    strides = (stride, 1) if stride_in == "1x1" else (1, stride)
                    branch = bottleneck_branch(channels, inner, outputs, strides, cardinality, attend, stage)
                else:
                    branch = basic_branch(channels, outputs, stride)
                units.append(ResidualUnit(channels, outputs, stride, branch, attend, stage))
                channels = outputs
            self.stages.append(nn.Sequential(*units))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, classes)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.classifier(x.mean((2, 3)))  # type: ignore[no-any-return]


class SENet154(nn.Module):
    """A 64x4d ResNeXt-152 with a deep stem; stages 2 to 5 as a ResNet's.

    Differences from ResNeXt: three 3x3 convolutions as the stem; the first 1x1 of a bottleneck has half the
    channels of its grouped 3x3; the projections that downsample are 3x3; dropout before the classifier.
    """

    def __init__(
        self,
        attend: Attend,
        *,
        classes: int,
        in_channels: int,
        layers: tuple[int, ...] = (3, 8, 36, 3),
        cardinality: int = 64,
        group_width: int = 4,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *conv_bn_relu(in_channels, 64, 3, 2),
            *conv_bn_relu(64, 64, 3),
            *conv_bn_relu(64, 128, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        channels, self.stages = 128, nn.ModuleList()
        for index, depth in enumerate(layers):
            width, outputs, stage = (cardinality * group_width) << index, 256 << index, index + 2
            units: list[nn.Module] = []
            for unit in range(depth):
                stride = 2 if index and not unit else 1
                branch = bottleneck_branch(
                    channels, width, outputs, (1, stride), cardinality, attend, stage, entry=width // 2
                )
                projection = 3 if index else 1
                units.append(ResidualUnit(channels, outputs, stride, branch, attend, stage, projection=projection))
                channels = outputs
            self.stages.append(nn.Sequential(*units))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, classes)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.classifier(F.dropout(x.mean((2, 3)), 0.2, self.training))  # type: ignore[no-any-return]
