"""MobileNet v1 at width 1.0 (Howard et al., arXiv 1704.04861, Table 1)."""

from __future__ import annotations

from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn_relu

# Output channels and stride of the thirteen depthwise separable convolutions.
UNITS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """A 3x3 stem and thirteen depthwise separable convolutions; stage s has stride 2^s (112 px is stage 1).

    No shortcut, so `standard`, after each pointwise conv-BN-ReLU, is the only place.
    """

    def __init__(self, attend: Attend, *, classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = conv_bn_relu(in_channels, 32, 3, 2)
        channels, stage = 32, 1
        units: list[nn.Module] = []
        for outputs, stride in UNITS:
            stage += stride - 1
            depthwise = conv_bn_relu(channels, channels, 3, stride, groups=channels)
            pointwise = conv_bn_relu(channels, outputs, 1)
            units.append(nn.Sequential(depthwise, pointwise, attend("standard", outputs, stage=stage)))
            channels = outputs
        self.units = nn.Sequential(*units)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, classes)."""
        return self.classifier(self.units(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]
