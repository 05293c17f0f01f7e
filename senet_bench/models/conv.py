"""Convolutions with their BatchNorm, as nearly every network of the catalog is made of."""

from __future__ import annotations

from torch import nn


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    *,
    padded: bool = True,
    bias: bool = False,
    eps: float = 1e-5,
) -> nn.Sequential:
    """A convolution and its BatchNorm; `padded` (for an odd kernel) keeps the size at stride 1."""
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (height // 2, width // 2) if padded else (0, 0)
    conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, groups=groups, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=eps))


def conv_bn_relu(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    *,
    padded: bool = True,
    bias: bool = False,
    eps: float = 1e-5,
) -> nn.Sequential:
    """`conv_bn` and a ReLU."""
    unit = conv_bn(inputs, outputs, kernel, stride, groups, padded=padded, bias=bias, eps=eps)
    return unit.append(nn.ReLU(inplace=True))
