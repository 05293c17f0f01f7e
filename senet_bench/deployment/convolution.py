"""A convolution with its gate, sum and ReLU: oneDNN's prepacked operators on a CPU, torch's own elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.core.devices import kind_of

LARGE_MAP, HUGE_MAP = 1 << 19, 1 << 21
"""From this many bytes of one image on, a map is gated image by image, so that its ReLU finds it in the cache; from the
second on, it is convolved image by image too."""


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

    def sides(self, sides: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """Height and width of the output, from those of the input."""
        given = zip(sides, kernel, self.padding, self.stride, self.dilation)
        return tuple((side + 2 * pad - step * (taps - 1) - 1) // stride + 1 for side, taps, pad, stride, step in given)


class Packing:
    """What a convolution does with inputs of one shape; a copy starts empty.

    `weight` is in oneDNN's layout, None where torch's own convolution is to run; `shape` is that of an image's output.
    """

    __slots__ = ("key", "shape", "source", "weight")

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.source: Tensor | None = None
        self.shape: tuple[int, ...] = ()
        self.weight: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Packing:
        return Packing()

    def __reduce__(self) -> tuple[type[Packing], tuple[()]]:
        return Packing, ()

    def of(self, weight: Tensor, x: Tensor, geometry: Geometry) -> Tensor | None:
        """`weight` packed for inputs of x's shape; done once as long as both stay, values included."""
        key = (x.shape, x.dtype, x.device, weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if key != self.key or weight is not self.source:
            known = kind_of(x.device.type).packs and x.dtype is torch.float32 and has_prepacked()
            self.weight = packed(weight, x, geometry) if known else None
            self.shape = (weight.shape[0], *geometry.sides(x.shape[2:], weight.shape[2:]))
            self.key, self.source = key, weight
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
        if not all(isinstance(term, Tensor | None) for term in (other, gate)):  # a number, such as a side of a map
            return self._plain(x, other, gate)
        if recorded():
            return self._plain(x, other, gate)
        images, packing = x.shape[0], self.packing
        huge = gate is not None and other is not None and images > 1 and _bytes(other) >= HUGE_MAP * images
        huge = huge and other.dtype is x.dtype and _spans(other, gate)  # type: ignore[union-attr, arg-type]
        weight = packing.of(self.weight, x[:1] if huge else x, self.geometry)
        whole = other is not None and (huge or gate is None)
        one_pixel = packing.shape[1:] == (1, 1)  # where torch 2.11 has no sum inside a convolution
        if weight is None or (whole and (one_pixel or other.shape != (images, *packing.shape))):  # type: ignore[union-attr]
            return self._plain(x, other, gate)
        if huge and other is not None and gate is not None:
            return self._by_image(x, weight, other, gate, other if reuse else torch.empty_like(other))
        if gate is None and other is not None:
            reuse = reuse and other.is_contiguous(memory_format=torch.channels_last)
            return pointwise_sum(x, weight, self.bias, self.geometry, other, relu=self.relu, reuse=reuse)
        y = pointwise(x, weight, self.bias, self.geometry, relu=self.relu and gate is None)
        return y if gate is None else gated_sum(y, gate, other, relu=self.relu, out=y)

    __call__ = forward  # without hooks: a module's call costs as much as a small operator

    def _plain(self, x: Tensor, other: Tensor | None, gate: Tensor | None) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, *_torch_order(self.geometry))
        if other is None:
            y = y if gate is None else y * gate
        else:
            y = y + other if gate is None else gated_sum(y, gate, other)
        return y.relu_() if self.relu else y

    def _by_image(self, x: Tensor, weight: Tensor, other: Tensor, gate: Tensor, out: Tensor) -> Tensor:
        terms = x, gate.expand_as(other), other, out
        for n in range(len(x)):
            image, factor, term, part = (tensor[n : n + 1] for tensor in terms)
            y = pointwise(image, weight, self.bias, self.geometry, relu=False)
            gated_sum(y, factor, term, relu=self.relu, out=part)
        return out

    def extra_repr(self) -> str:
        """Shapes and what is fused."""
        return f"{tuple(self.weight.shape)}, {self.geometry}, relu={self.relu}"


def gated_sum(
    x: Tensor, gate: Tensor, other: Tensor | None, *, relu: bool = False, out: Tensor | None = None
) -> Tensor:
    """relu(other + gate * x) in one pass and the ReLU in place; `out` is x or other if that may be written over."""
    if not all(isinstance(term, Tensor) for term in (x, gate, *([] if other is None else [other]))):
        y = x * gate if other is None else other + x * gate  # numbers, such as a side of a map
        return y.relu() if relu else y
    terms = (x, gate) if other is None else (x, gate, other)
    if out is None or recorded() or not all(_spans(out, term) for term in terms):
        out = None
    elif relu and out.shape[0] > 1 and _bytes(out) >= LARGE_MAP * out.shape[0]:
        for image, *parts in zip(*(term.expand_as(out).split(1) for term in (out, *terms))):
            gated_sum(*parts, *[None] * (other is None), relu=True, out=image)
        return out
    y = torch.mul(x, gate, out=out) if other is None else torch.addcmul(other, x, gate, out=out)
    return y.relu_() if relu else y


def recorded() -> bool:
    """Whether a compiler or an exporter looks on, who gets plain operators."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _spans(out: Tensor, term: Tensor) -> bool:
    """Whether a term broadcasts to the shape of `out`; torch's own function for that takes 15 microseconds."""
    same = term.dtype is out.dtype and term.device == out.device
    fits = same and term.dim() <= out.dim()
    return fits and all(n in (1, m) for n, m in zip(reversed(term.shape), reversed(out.shape)))


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
            outputs = [pointwise(x, ready, bias, geometry, relu=True)]
            expected_sum = F.relu(F.conv2d(x, weight, bias) + x)
            outputs += [
                pointwise_sum(x, ready, bias, geometry, x.clone(), relu=True, reuse=reuse) for reuse in (False, True)
            ]
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(outputs, (expected, expected_sum, expected_sum)))


def packed(weight: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    """The weight in the layout that oneDNN wants for inputs of x's shape."""
    y: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *geometry.arguments, list(x.shape))
    return y


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, *, relu: bool) -> Tensor:
    """A prepacked convolution and its ReLU."""
    y: Tensor = _operators()[0](x, weight, bias, *geometry.arguments, "relu" if relu else "none", [], "")
    return y


def pointwise_sum(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, other: Tensor, *, relu: bool, reuse: bool
) -> Tensor:
    """A prepacked convolution plus `other` and its ReLU, with `reuse` in the memory of `other`."""
    rest: tuple[object, ...] = (weight, bias, *geometry.arguments, "add", 1.0, "relu" if relu else None, [], None)
    _, apart, inside = _operators()
    y: Tensor = inside(other, x, *rest) if reuse else apart(x, other, *rest)
    return y


@functools.cache
def _operators() -> tuple[Any, Any, Any]:
    """A convolution, one plus another map, and one added to another map; looked up once, which torch does anew."""
    operators = torch.ops.mkldnn
    return (
        operators._convolution_pointwise.default,
        operators._convolution_pointwise.binary,
        operators._convolution_pointwise_.binary,
    )


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]


def _torch_order(geometry: Geometry) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    return geometry.stride, geometry.padding, geometry.dilation, geometry.groups
