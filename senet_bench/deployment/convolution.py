"""A convolution with its gate, sum and ReLU: oneDNN's prepacked operators on a CPU, torch's own elsewhere."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE_MAP = 3 << 19
"""From this many bytes of one image's output on, gated images are convolved one by one: each stays in the cache."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution moves over a map."""

    padding: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def arguments(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        """The four in the order in which oneDNN's operators take them."""
        return self.padding, self.stride, self.dilation, self.groups


class Packing:
    """A weight in oneDNN's layout for one shape of input; a copy starts empty."""

    __slots__ = ("key", "weight")

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.weight: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Packing:
        return Packing()

    def __reduce__(self) -> tuple[type[Packing], tuple[()]]:
        return Packing, ()

    def of(self, weight: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        """`weight` packed for inputs of x's shape; done once as long as both stay."""
        key = (x.shape, x.dtype, weight.data_ptr())
        if self.weight is None or key != self.key:
            self.weight = packed(weight, x, geometry)
            self.key = key
        return self.weight


class Convolution(nn.Module):
    """relu(other + gate * (W * x + b)), of which the ReLU, the sum and the gate may be absent.

    Made from an `nn.Conv2d` with zero padding; for inference only.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        assert isinstance(conv.padding, tuple)
        height, width = conv.padding
        self.geometry = Geometry((height, width), _pair(conv.stride), _pair(conv.dilation), conv.groups)
        self.weight, self.bias, self.relu, self.packing = conv.weight, conv.bias, relu, Packing()

    def forward(
        self, x: Tensor, other: Tensor | None = None, gate: Tensor | None = None, reuse: bool = False
    ) -> Tensor:
        """(N, K, H, W) to (N, C, H', W'); `other` is of that shape, or like `gate` broadcasts to it.

        With `reuse` the result may take the memory of `other`.
        """
        if not self._prepacks(x) or (other is not None and other.shape != self._shape(x)):
            return self._plain(x, other, gate)
        if gate is not None:
            return self._gated(x, other, gate, reuse)
        weight = self.packing.of(self.weight, x, self.geometry)
        if other is None:
            return pointwise(x, weight, self.bias, self.geometry, relu=self.relu)
        reuse = reuse and other.is_contiguous(memory_format=torch.channels_last)
        return pointwise_sum(x, weight, self.bias, self.geometry, other, relu=self.relu, reuse=reuse)

    def _prepacks(self, x: Tensor) -> bool:
        known = x.device.type == "cpu" and x.dtype is torch.float32 and not torch.compiler.is_compiling()
        return known and has_prepacked()

    def _plain(self, x: Tensor, other: Tensor | None, gate: Tensor | None) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, *_torch_order(self.geometry))
        if other is None:
            y = y if gate is None else y * gate
        else:
            y = y + other if gate is None else torch.addcmul(other, y, gate)
        return y.relu_() if self.relu else y

    def _gated(self, x: Tensor, other: Tensor | None, gate: Tensor, reuse: bool) -> Tensor:
        if other is None or x.shape[0] == 1 or other[0].numel() * other.element_size() < LARGE_MAP:
            weight = self.packing.of(self.weight, x, self.geometry)
            y = pointwise(x, weight, self.bias, self.geometry, relu=False)
            return gated_sum(y, gate, other, relu=self.relu, out=y)
        weight = self.packing.of(self.weight, x[:1], self.geometry)
        out = other if reuse else torch.empty_like(other)
        for n in range(x.shape[0]):
            image = slice(n, n + 1)
            y = pointwise(x[image], weight, self.bias, self.geometry, relu=False)
            factor = gate[image] if gate.shape[0] > 1 else gate
            gated_sum(y, factor, other[image], relu=self.relu, out=out[image])
        return out

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of the convolution's output."""
        g, sides = self.geometry, []
        for side, kernel, pad, stride, dilation in zip(
            x.shape[2:], self.weight.shape[2:], g.padding, g.stride, g.dilation
        ):
            sides.append((side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1)
        return (x.shape[0], self.weight.shape[0], *sides)

    def extra_repr(self) -> str:
        """Shapes and what is fused."""
        return f"{tuple(self.weight.shape)}, {self.geometry}, relu={self.relu}"


def gated_sum(
    x: Tensor, gate: Tensor, other: Tensor | None, *, relu: bool = False, out: Tensor | None = None
) -> Tensor:
    """relu(other + gate * x) in one pass and the ReLU in place; `out` is what may be written over."""
    shapes = [t.shape for t in (x, gate, other) if t is not None]
    whole = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    if out is not None and (torch.compiler.is_compiling() or out.shape != whole):
        out = None
    y = torch.mul(x, gate, out=out) if other is None else torch.addcmul(other, x, gate, out=out)
    return y.relu_() if relu else y


@functools.cache
def has_prepacked() -> bool:
    """Whether this torch has oneDNN's fused convolutions and they compute what the plain ones do.

    They are private operators of torch, which may change or go; so they are tried once on a small map.
    """
    x = torch.linspace(-1, 1, 128).view(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.linspace(-1, 1, 64).view(8, 8, 1, 1), torch.ones(8)
    geometry = Geometry((0, 0), (1, 1), (1, 1), 1)
    try:
        with torch.inference_mode():
            ready = packed(weight, x, geometry)
            expected = F.relu(F.conv2d(x, weight, bias))
            found = [pointwise(x, ready, bias, geometry, relu=True)]
            expected_sum = F.relu(F.conv2d(x, weight, bias) + x)
            found += [
                pointwise_sum(x, ready, bias, geometry, x.clone(), relu=True, reuse=reuse) for reuse in (False, True)
            ]
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, (expected, expected_sum, expected_sum)))


def packed(weight: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    """The weight in the layout that oneDNN wants for inputs of x's shape."""
    y: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *geometry.arguments, list(x.shape))
    return y


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, *, relu: bool) -> Tensor:
    """A prepacked convolution and its ReLU."""
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, *geometry.arguments, "relu" if relu else "none", [], ""
    )
    return y


def pointwise_sum(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, other: Tensor, *, relu: bool, reuse: bool
) -> Tensor:
    """A prepacked convolution plus `other` and its ReLU, with `reuse` in the memory of `other`."""
    rest: tuple[object, ...] = (weight, bias, *geometry.arguments, "add", 1.0, "relu" if relu else None, [], None)
    operators = torch.ops.mkldnn
    y: Tensor = (
        operators._convolution_pointwise_.binary(other, x, *rest)
        if reuse
        else operators._convolution_pointwise.binary(x, other, *rest)
    )
    return y


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]


def _torch_order(geometry: Geometry) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    return geometry.stride, geometry.padding, geometry.dilation, geometry.groups
