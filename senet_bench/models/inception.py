"""BN-Inception (arXiv 1502.03167) and Inception-ResNet-v2 (Szegedy et al., arXiv 1602.07261).

BN-Inception has the layout of the authors' SE-BN-Inception definition, Inception-ResNet-v2 tf-slim's: 10, 20 and 10
blocks, 299 px. The paper's article has 5, 10 and 5 blocks; no public definition has the cost that Table 2 prints.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn_relu

unit = partial(conv_bn_relu, eps=1e-3)


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


def inception_reduction(inputs: int, three: tuple[int, int], double: tuple[int, int]) -> tuple[Branches, int]:
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
        channels = add("3c", inception_reduction(channels, (128, 160), (64, 96)))
        channels = add("4a", inception(channels, 224, (64, 96), (96, 128), "avg", 128))
        channels = add("4b", inception(channels, 192, (96, 128), (96, 128), "avg", 128))
        channels = add("4c", inception(channels, 160, (128, 160), (128, 160), "avg", 128))
        channels = add("4d", inception(channels, 96, (128, 192), (160, 192), "avg", 128))
        channels = add("4e", inception_reduction(channels, (128, 192), (192, 256)))
        channels = add("5a", inception(channels, 352, (192, 320), (160, 224), "avg", 128))
        channels = add("5b", inception(channels, 352, (192, 320), (192, 224), "max", 128))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, classes)."""
        return self.classifier(self.units(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


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
        mixed = sum(_outputs_of(branch) for branch in branches)
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


def _outputs_of(branch: nn.Sequential) -> int:
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


def inception_resnet_stem(in_channels: int) -> nn.Sequential:
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
        self.stem = inception_resnet_stem(in_channels)
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
