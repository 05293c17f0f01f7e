"""MobileNets and EfficientNet-B0, networks of depthwise convolutions; but for v1 with torchvision's layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.blocks import make_divisible
from senet_bench.models.conv import conv_bn, conv_bn_relu

# Output channels and stride of the thirteen depthwise separable convolutions.
V1_UNITS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
LayerMaker = Callable[[], nn.Module]
ACTIVATIONS: dict[str, LayerMaker] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hardswish": lambda: nn.Hardswish(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
}


class MobileNetV1(nn.Module):
    """MobileNet v1 at width 1.0 (Howard et al., arXiv 1704.04861, Table 1).

    A 3x3 stem and thirteen depthwise separable convolutions; stage s has stride 2^s (112 px is stage 1).

    No shortcut, so `standard`, after each pointwise conv-BN-ReLU, is the only place.
    """

    def __init__(self, attend: Attend, *, classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = conv_bn_relu(in_channels, 32, 3, 2)
        channels, stage = 32, 1
        units: list[nn.Module] = []
        for outputs, stride in V1_UNITS:
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


@dataclass(frozen=True, slots=True)
class InvertedUnit:
    """An inverted residual: kernel, channels inside and after it, stride, whether it has places for attention."""

    kernel: int
    expanded: int
    outputs: int
    stride: int
    activation: str
    attends: bool = True


class StochasticDepth(nn.Module):
    """In training, drops the branch of an image with probability `drop` and scales what is kept (arXiv 1603.09382)."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if not self.training or not self.drop:
            return x
        kept = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(1 - self.drop)
        return x * kept / (1 - self.drop)


class InvertedResidual(nn.Module):
    """1x1 to the expanded channels, depthwise, linear 1x1; added to its input where the shape stays the same.

    The place `3x3` follows the activation after the depthwise convolution, as in MobileNetV3 and EfficientNet. A unit
    with a sum has the places of the paper's Figure 5 too; no activation follows the sum. `r_of_inputs` relates r
    to the channels before the expansion.
    """

    def __init__(
        self,
        inputs: int,
        unit: InvertedUnit,
        attend: Attend,
        stage: int,
        *,
        eps: float = 1e-5,
        r_of_inputs: bool = False,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.adds = unit.stride == 1 and inputs == unit.outputs
        attend = attend if unit.attends else _nothing
        summed = attend if self.adds else _nothing
        activation = ACTIVATIONS[unit.activation]
        layers: list[nn.Module] = []
        if unit.expanded != inputs:
            layers += [*conv_bn(inputs, unit.expanded, 1, eps=eps), activation()]
        layers += [
            *conv_bn(unit.expanded, unit.expanded, unit.kernel, unit.stride, unit.expanded, eps=eps),
            activation(),
            attend("3x3", unit.expanded, stage=stage, expansion=unit.expanded // inputs if r_of_inputs else 1),
            *conv_bn(unit.expanded, unit.outputs, 1, eps=eps),
        ]
        self.pre = summed("pre", inputs, stage=stage)
        self.branch = nn.Sequential(*layers)
        self.standard = summed("standard", unit.outputs, stage=stage)
        self.drop = StochasticDepth(drop)
        self.identity = summed("identity", unit.outputs, stage=stage)
        self.post = summed("post", unit.outputs, stage=stage)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        branch = self.standard(self.branch(self.pre(x)))
        if not self.adds:
            return branch  # type: ignore[no-any-return]
        return self.post(self.drop(branch) + self.identity(x))  # type: ignore[no-any-return]


def _nothing(place: str, channels: int, *, stage: int, expansion: int = 1) -> nn.Module:
    return nn.Identity()


def _v2() -> tuple[InvertedUnit, ...]:
    """Table 2 of arXiv 1801.04381; the expansion is 6 but in the first unit."""
    rows = (16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)
    return _expanded("relu6", tuple((3, *row) for row in rows))


def _v3(*rows: tuple[int, int, int, bool, str, int]) -> tuple[InvertedUnit, ...]:
    """Rows as the paper's Tables 1 and 2 print them: kernel, expanded, outputs, SE, RE or HS, stride."""
    names = {"RE": "relu", "HS": "hardswish"}
    return tuple(InvertedUnit(k, inside, out, s, names[name], se) for k, inside, out, se, name, s in rows)


def _b0() -> tuple[InvertedUnit, ...]:
    """Table 1 of arXiv 1905.11946: kernel, outputs, depth, stride."""
    rows = (3, 16, 1, 1), (3, 24, 2, 2), (5, 40, 2, 2), (3, 80, 3, 2), (5, 112, 3, 1), (5, 192, 4, 2), (3, 320, 1, 1)
    return _expanded("silu", rows)


def _expanded(activation: str, rows: tuple[tuple[int, int, int, int], ...]) -> tuple[InvertedUnit, ...]:
    """Units of rows (kernel, outputs, depth, stride) after a stem of 32 channels; the first one does not expand."""
    inputs, units = 32, list[InvertedUnit]()
    for kernel, outputs, depth, stride in rows:
        for index in range(depth):
            units.append(
                InvertedUnit(kernel, inputs * (6 if units else 1), outputs, 1 if index else stride, activation)
            )
            inputs = outputs
    return tuple(units)


V3_LARGE = _v3(
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", 2),
    (3, 72, 24, False, "RE", 1),
    (5, 72, 40, True, "RE", 2),
    (5, 120, 40, True, "RE", 1),
    (5, 120, 40, True, "RE", 1),
    (3, 240, 80, False, "HS", 2),
    (3, 200, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 480, 112, True, "HS", 1),
    (3, 672, 112, True, "HS", 1),
    (5, 672, 160, True, "HS", 2),
    (5, 960, 160, True, "HS", 1),
    (5, 960, 160, True, "HS", 1),
)


V3_SMALL = _v3(
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
)


class InvertedNet(nn.Module):
    """A 3x3 stem of stride 2, inverted residuals, a 1x1 convolution, pool, classifier; stage s has stride 2^s.

    `version` names the paper. MobileNetV3 has one more linear layer in its classifier, `width` channels wide, and its
    BatchNorms the eps 0.001 (unless `eps` is given) and momentum 0.01 of its torchvision definition. EfficientNet
    relates r to a unit's inputs, and drops branches in training with a probability that rises along the network to 0.2.
    """

    def __init__(
        self,
        attend: Attend,
        *,
        classes: int,
        in_channels: int,
        version: Literal["v2", "v3_large", "v3_small", "b0"],
        dropout: float = 0.2,
        eps: float | None = None,
    ) -> None:
        super().__init__()
        units = {"v2": _v2(), "v3_large": V3_LARGE, "v3_small": V3_SMALL, "b0": _b0()}[version]
        last = {"v2": "relu6", "b0": "silu"}.get(version, "hardswish")
        eps = eps or (1e-3 if version.startswith("v3") else 1e-5)
        channels = 16 if version.startswith("v3") else 32
        self.stem = nn.Sequential(*conv_bn(in_channels, channels, 3, 2, eps=eps), ACTIVATIONS[last]())
        self.units, stage = nn.Sequential(), 1
        for index, unit in enumerate(units):
            stage += unit.stride - 1
            drop = 0.2 * index / len(units) if version == "b0" else 0.0
            self.units.append(
                InvertedResidual(channels, unit, attend, stage, eps=eps, r_of_inputs=version == "b0", drop=drop)
            )
            channels = unit.outputs
        wide = {"v2": 1280, "b0": 1280}.get(version, 6 * channels)
        self.head = nn.Sequential(*conv_bn(channels, wide, 1, eps=eps), ACTIVATIONS[last]())
        layers: list[nn.Module] = []
        if version.startswith("v3"):
            width = make_divisible(1280 if version == "v3_large" else 1024)
            layers, wide = [nn.Linear(wide, width), ACTIVATIONS[last]()], width
        self.classifier = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(wide, classes))
        if version.startswith("v3"):
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.01

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, classes)."""
        return self.classifier(self.head(self.units(self.stem(x))).mean((2, 3)))  # type: ignore[no-any-return]
