"""VGG with BatchNorm (Simonyan and Zisserman, arXiv 1409.1556), with torchvision's layers and parameter counts."""

from __future__ import annotations

from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn_relu

STAGE_WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five stages of 3x3 conv-BN-ReLU, a 2x2 max-pool after each, three fully connected layers.

    Stages 1 to 5 are the maps before their pools, 224 to 14 px; `depths` counts their convolutions. No shortcut, so
    `standard`, after each ReLU, is the only place.
    """

    def __init__(self, attend: Attend, *, classes: int, in_channels: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        channels, self.stages = in_channels, nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(depths, STAGE_WIDTHS), start=1):
            units: list[nn.Module] = []
            for _ in range(depth):
                units += [*conv_bn_relu(channels, width, 3, bias=True), attend("standard", width, stage=stage)]
                channels = width
            self.stages.append(nn.Sequential(*units, nn.MaxPool2d(2, 2)))
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            *(nn.Linear(channels * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
            *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
            nn.Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W), H and W at least 32, to (N, classes)."""
        for stage in self.stages:
            x = stage(x)
        return self.classifier(self.pool(x).flatten(1))  # type: ignore[no-any-return]
