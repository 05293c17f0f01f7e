"""Networks for 32 px images: pre-activation ResNets, Wide ResNets and Shake-Shake.

Pre-activation is He et al., arXiv 1603.05027, Wide ResNet arXiv 1605.07146, Shake-Shake Gastaldi, arXiv 1705.07485.
Shake-Shake draws the weights of its two branches anew in the forward and in the backward pass, Shake-Even only in
the forward pass; both here per image. In evaluation the branches are averaged. Neither the article nor the SE paper
says where SE goes: here the place `standard` is on the mixed branches, before the sum, one block per unit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn, conv_bn_relu
from senet_bench.models.resnet import bottleneck_branch


class PreActivationUnit(nn.Module):
    """A residual unit that normalises and activates before its convolutions, with the places of Figure 5.

    A shortcut that changes the shape is a 1x1 convolution over the activated map, which it shares with the branch;
    so `pre` follows the activation and, as in a post-activation network, sees what a ReLU gives. No ReLU follows the
    sum: `post` acts on the sum itself.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, branch: nn.Sequential, attend: Attend, stage: int
    ) -> None:
        super().__init__()
        self.projects = inputs != outputs or stride != 1
        self.activation = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.pre = attend("pre", inputs, stage=stage)
        self.branch = branch
        self.standard = attend("standard", outputs, stage=stage)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if self.projects else nn.Identity()
        self.identity = attend("identity", outputs, stage=stage)
        self.post = attend("post", outputs, stage=stage)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        activated = self.activation(x)
        skip = self.identity(self.shortcut(activated if self.projects else x))
        return self.post(self.standard(self.branch(self.pre(activated))) + skip)  # type: ignore[no-any-return]


def preactivation_basic_branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Two 3x3 convolutions; the first holds the stride."""
    last = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(*conv_bn_relu(inputs, outputs, 3, stride), last)


def preactivation_branch(inputs: int, outputs: int, stride: int, attend: Attend, stage: int) -> nn.Sequential:
    """1x1 (with the stride), 3x3, 1x1; the place `3x3` of Table 15 follows the ReLU after the 3x3."""
    width = outputs // 4
    return nn.Sequential(
        *conv_bn_relu(inputs, width, 1, stride),
        *conv_bn_relu(width, width, 3),
        attend("3x3", width, stage=stage),
        nn.Conv2d(width, outputs, 1, bias=False),
    )


class PreActivationResNet(nn.Module):
    """A 3x3 stem of 16 channels and three stages at 32, 16 and 8 px, named 2 to 4 after WRN's conv2 to conv4.

    `outputs` are the channels of the stages, `units` the residual units in each.
    """

    def __init__(
        self,
        attend: Attend,
        *,
        classes: int,
        in_channels: int,
        units: int,
        outputs: tuple[int, ...],
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        channels, self.stages = 16, nn.ModuleList()
        for index, width in enumerate(outputs):
            stage, row = index + 2, nn.Sequential()
            for unit in range(units):
                stride = 2 if index and not unit else 1
                if bottleneck:
                    branch = preactivation_branch(channels, width, stride, attend, stage)
                else:
                    branch = preactivation_basic_branch(channels, width, stride)
                row.append(PreActivationUnit(channels, width, stride, branch, attend, stage))
                channels = width
            self.stages.append(row)
        self.activation = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, classes)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.classifier(self.activation(x).mean((2, 3)))  # type: ignore[no-any-return]


class Shake(nn.Module):
    """A convex mixture of two branches, random per image in training, their average in evaluation.

    The value is alpha a + (1 - alpha) b; the gradient is that of beta a + (1 - beta) b, with beta drawn
    independently of alpha if `random_backward`, else 0.5.
    """

    def __init__(self, random_backward: bool) -> None:
        super().__init__()
        self.random_backward = random_backward

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two maps of shape (N, C, H, W) to one of the same shape."""
        if not self.training:
            return 0.5 * (a + b)
        alpha = torch.rand_like(a[:, :1, :1, :1])
        beta = torch.rand_like(alpha) if self.random_backward else torch.full_like(alpha, 0.5)
        difference = a - b
        return b + beta * difference + ((alpha - beta) * difference).detach()


class ShiftedShortcut(nn.Module):
    """The shortcut that changes the shape: ReLU, two subsampled 1x1 paths side by side, BN.

    The second path sees the map shifted by one pixel right and down, so that it samples other pixels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(1, stride)
        self.straight = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.shifted = nn.Conv2d(inputs, outputs - outputs // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        x = F.relu(x)
        shifted = F.pad(x, (1, 0, 1, 0))[:, :, :-1, :-1]
        return self.norm(torch.cat([self.straight(self.pool(x)), self.shifted(self.pool(shifted))], 1))  # type: ignore[no-any-return]


class ShakeUnit(nn.Module):
    """A residual unit of two branches, with the places of the paper's Figure 5; `activation` follows the sum."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        branches: tuple[nn.Sequential, nn.Sequential],
        attend: Attend,
        stage: int,
        *,
        random_backward: bool,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.pre = attend("pre", inputs, stage=stage)
        self.branch_a, self.branch_b = branches
        self.shake = Shake(random_backward)
        self.standard = attend("standard", outputs, stage=stage)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else ShiftedShortcut(inputs, outputs, stride)
        self.identity = attend("identity", outputs, stage=stage)
        self.activation = activation
        self.post = attend("post", outputs, stage=stage)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        branch_input = self.pre(x)
        mixed = self.standard(self.shake(self.branch_a(branch_input), self.branch_b(branch_input)))
        return self.post(self.activation(mixed + self.identity(self.shortcut(x))))  # type: ignore[no-any-return]


class ShakeNet(nn.Module):
    """A 3x3 stem and three stages at 32, 16 and 8 px, named 2 to 4; `outputs` are their channels, `units` their depth.

    Without `bottleneck` it is the article's CIFAR-10 network: a branch is ReLU-conv-BN-ReLU-conv-BN, nothing follows
    the sum. With it, its CIFAR-100 network: a ResNeXt without pre-activation, ReLU after the sum; its place `3x3` is
    in each branch, two blocks per unit.
    """

    def __init__(
        self,
        attend: Attend,
        *,
        classes: int,
        in_channels: int,
        units: int,
        outputs: tuple[int, ...],
        random_backward: bool,
        bottleneck: bool = False,
        cardinality: int = 1,
        group_width: int = 64,
    ) -> None:
        super().__init__()
        self.stem = conv_bn_relu(in_channels, 64, 3) if bottleneck else conv_bn(in_channels, 16, 3)
        channels, self.stages = 64 if bottleneck else 16, nn.ModuleList()

        def branch(inputs: int, width: int, stride: int, index: int) -> nn.Sequential:
            if bottleneck:
                grouped = (cardinality * group_width) << index
                return bottleneck_branch(inputs, grouped, width, (1, stride), cardinality, attend, index + 2)
            return nn.Sequential(nn.ReLU(), *conv_bn_relu(inputs, width, 3, stride), *conv_bn(width, width, 3))

        for index, width in enumerate(outputs):
            row = nn.Sequential()
            for unit in range(units):
                stride = 2 if index and not unit else 1
                branches = branch(channels, width, stride, index), branch(channels, width, stride, index)
                activation = nn.ReLU(inplace=True) if bottleneck else nn.Identity()
                row.append(
                    ShakeUnit(
                        channels,
                        width,
                        stride,
                        branches,
                        attend,
                        index + 2,
                        random_backward=random_backward,
                        activation=activation,
                    )
                )
                channels = width
            self.stages.append(row)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, classes)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.classifier(F.relu(x).mean((2, 3)))  # type: ignore[no-any-return]
