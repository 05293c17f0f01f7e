"""SENet-154, the paper's ILSVRC 2017 network (section 5.6 and appendix; the authors' released definition)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn_relu
from senet_bench.models.resnet import ResidualUnit, bottleneck_branch


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
