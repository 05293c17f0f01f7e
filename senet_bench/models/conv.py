"""Convolutions with their BatchNorm, as nearly every network of the catalog is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)
Kernel = int | tuple[int, int]
_MADE: ContextVar[dict[tuple[Any, ...], tuple[nn.Conv2d, nn.BatchNorm2d]] | None] = ContextVar("made", default=None)
"""The layers that were made without memory, by all their arguments."""


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: Kernel,
    stride: int = 1,
    groups: int = 1,
    *,
    padded: bool = True,
    bias: bool = False,
    eps: float = 1e-5,
) -> nn.Sequential:
    """A convolution and its BatchNorm; `padded` (for an odd kernel) keeps the size at stride 1."""
    return nn.Sequential(*_layers(inputs, outputs, kernel, stride, groups, padded, bias, eps))


def conv_bn_relu(
    inputs: int,
    outputs: int,
    kernel: Kernel,
    stride: int = 1,
    groups: int = 1,
    *,
    padded: bool = True,
    bias: bool = False,
    eps: float = 1e-5,
) -> nn.Sequential:
    """`conv_bn` and a ReLU."""
    layers = _layers(inputs, outputs, kernel, stride, groups, padded, bias, eps)
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


@contextlib.contextmanager
def made_once() -> Iterator[None]:
    """While entered, layers of equal arguments are copies of the first; for `meta`, where tensors hold no values."""
    token = _MADE.set({})
    try:
        yield
    finally:
        _MADE.reset(token)


def _layers(*arguments: Any) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    made = _MADE.get()
    if made is None:
        return _new_layers(*arguments)
    if arguments not in made:
        made[arguments] = _new_layers(*arguments)
    conv, norm = made[arguments]
    return _like(conv), _like(norm)


def _new_layers(
    inputs: int, outputs: int, kernel: Kernel, stride: int, groups: int, padded: bool, bias: bool, eps: float
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (height // 2, width // 2) if padded else (0, 0)
    conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, groups=groups, bias=bias)
    return conv, nn.BatchNorm2d(outputs, eps=eps)


def _like(layer: Layer) -> Layer:
    """A layer as one without memory, with tensors of its own: making it anew takes three times as long."""
    copied = object.__new__(type(layer))
    nn.Module.__init__(copied)
    own = vars(copied)
    own.update((name, value) for name, value in vars(layer).items() if name not in own)
    for name, parameter in layer._parameters.items():
        copied._parameters[name] = None if parameter is None else nn.Parameter(parameter)
    for name, buffer in layer._buffers.items():
        copied._buffers[name] = None if buffer is None else buffer.detach()
    return copied
