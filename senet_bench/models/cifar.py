"""Pre-activation ResNets (He et al., arXiv 1603.05027) and Wide ResNets (arXiv 1605.07146) for 32 px images."""

from __future__ import annotations

from torch import Tensor, nn

from senet_bench.models.attention import Attend
from senet_bench.models.conv import conv_bn_relu


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


def basic_branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Two 3x3 convolutions; the first holds the stride."""
    last = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(*conv_bn_relu(inputs, outputs, 3, stride), last)


def bottleneck_branch(inputs: int, outputs: int, stride: int, attend: Attend, stage: int) -> nn.Sequential:
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
                    branch = bottleneck_branch(channels, width, stride, attend, stage)
                else:
                    branch = basic_branch(channels, width, stride)
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
