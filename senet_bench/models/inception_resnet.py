"""Inception-ResNet-v2 (Szegedy et al., arXiv 1602.07261), in tf-slim's layout: 10, 20 and 10 blocks, 299 px.

The paper's article has 5, 10 and 5 blocks; no public definition has the cost that Table 2 prints.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn_relu
from senet_bench.models.inception import Branches

unit = partial(conv_bn_relu, eps=1e-3)


class InceptionResidual(nn.Module):
    """A residual unit whose branch is an Inception module, scaled down before the sum.

    `standard` acts on the branch before its scale; `identity` on the shortcut; `post` after the sum's ReLU, which
    the last unit of the network does without.
    """

    def __init__(
        self,
        channels: int,
        branches: list[nn.Sequential],
        attend: Attend,
        stage: int,
        *,
        scale: float,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.scale = scale
        mixed = sum(_outputs(branch) for branch in branches)
        self.pre = attend("pre", channels, stage=stage)
        self.branch = nn.Sequential(Branches(branches), nn.Conv2d(mixed, channels, 1))
        self.standard = attend("standard", channels, stage=stage)
        self.identity = attend("identity", channels, stage=stage)
        self.activation = nn.ReLU() if relu else nn.Identity()
        self.post = attend("post", channels, stage=stage)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        branch = self.scale * self.standard(self.branch(self.pre(x)))
        return self.post(self.activation(branch + self.identity(x)))  # type: ignore[no-any-return]


def _outputs(branch: nn.Sequential) -> int:
    return next(layer.out_channels for layer in reversed(branch) if isinstance(layer, nn.Conv2d))


def branches_a() -> list[nn.Sequential]:
    """Inception-ResNet-A at 35 px, over 320 channels."""
    return [
        unit(320, 32, 1),
        nn.Sequential(*unit(320, 32, 1), *unit(32, 32, 3)),
        nn.Sequential(*unit(320, 32, 1), *unit(32, 48, 3), *unit(48, 64, 3)),
    ]


def branches_b() -> list[nn.Sequential]:
    """Inception-ResNet-B at 17 px, over 1088 channels."""
    return [
        unit(1088, 192, 1),
        nn.Sequential(*unit(1088, 128, 1), *unit(128, 160, (1, 7)), *unit(160, 192, (7, 1))),
    ]


def branches_c() -> list[nn.Sequential]:
    """Inception-ResNet-C at 8 px, over 2080 channels."""
    return [
        unit(2080, 192, 1),
        nn.Sequential(*unit(2080, 192, 1), *unit(192, 224, (1, 3)), *unit(224, 256, (3, 1))),
    ]


def stem(in_channels: int) -> nn.Sequential:
    """Images of 299 px to (N, 320, 35, 35)."""
    joined = Branches(
        [
            unit(192, 96, 1),
            nn.Sequential(*unit(192, 48, 1), *unit(48, 64, 5)),
            nn.Sequential(*unit(192, 64, 1), *unit(64, 96, 3), *unit(96, 96, 3)),
            nn.Sequential(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), *unit(192, 64, 1)),
        ]
    )
    return nn.Sequential(
        *unit(in_channels, 32, 3, 2, padded=False),
        *unit(32, 32, 3, padded=False),
        *unit(32, 64, 3),
        nn.MaxPool2d(3, 2),
        *unit(64, 80, 1),
        *unit(80, 192, 3, padded=False),
        nn.MaxPool2d(3, 2),
        joined,
    )


def reduction_a() -> Branches:
    """(N, 320, 35, 35) to (N, 1088, 17, 17)."""
    return Branches(
        [
            unit(320, 384, 3, 2, padded=False),
            nn.Sequential(*unit(320, 256, 1), *unit(256, 256, 3), *unit(256, 384, 3, 2, padded=False)),
            nn.MaxPool2d(3, 2),
        ]
    )


def reduction_b() -> Branches:
    """(N, 1088, 17, 17) to (N, 2080, 8, 8)."""
    return Branches(
        [
            nn.Sequential(*unit(1088, 256, 1), *unit(256, 384, 3, 2, padded=False)),
            nn.Sequential(*unit(1088, 256, 1), *unit(256, 288, 3, 2, padded=False)),
            nn.Sequential(*unit(1088, 256, 1), *unit(256, 288, 3), *unit(288, 320, 3, 2, padded=False)),
            nn.MaxPool2d(3, 2),
        ]
    )


class InceptionResNetV2(nn.Module):
    """Stem, blocks A, B and C (stages 3 to 5) with reductions between them, global average pool, classifier."""

    def __init__(self, attend: Attend, *, classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = stem(in_channels)
        self.blocks_a = nn.Sequential(*(InceptionResidual(320, branches_a(), attend, 3, scale=0.17) for _ in range(10)))
        self.reduction_a = reduction_a()
        self.blocks_b = nn.Sequential(*(InceptionResidual(1088, branches_b(), attend, 4, scale=0.1) for _ in range(20)))
        self.reduction_b = reduction_b()
        self.blocks_c = nn.Sequential(
            *(InceptionResidual(2080, branches_c(), attend, 5, scale=0.2) for _ in range(9)),
            InceptionResidual(2080, branches_c(), attend, 5, scale=1.0, relu=False),
        )
        self.head = unit(2080, 1536, 1)
        self.classifier = nn.Linear(1536, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W), H and W at least 75, to (N, classes)."""
        x = self.reduction_a(self.blocks_a(self.stem(x)))
        x = self.head(self.blocks_c(self.reduction_b(self.blocks_b(x))))
        return self.classifier(F.dropout(x.mean((2, 3)), 0.2, self.training))  # type: ignore[no-any-return]
