"""The whole gate of a map: its plain operators, or on a GPU one kernel of Triton where that was seen to be faster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from senet_bench.deployment.convolution import recorded
from senet_bench.deployment.cuda_graph import device_seconds
from senet_bench.deployment.parts import EarlySqueeze, Product

KERNEL_ACTIVATIONS = {"relu", "sigmoid", "silu", "tanh", "hardsigmoid"}
SAME_GATE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""How far the kernel's gate may be from the exact one, of the largest, by what the kernel calculates with."""
MOST_HIDDEN = 1024
ROOM = 1 << 16


class Gate(nn.Module):
    """A squeeze and the two layers after it: (N, K, H, W) to the gate (N, C), or (N, C, 1, 1) of a wide product."""

    def __init__(self, squeeze: EarlySqueeze, product: Product) -> None:
        super().__init__()
        self.squeeze, self.product = squeeze, product

    def forward(self, x: Tensor) -> Tensor:
        """Equations 2 and 3."""
        if _on_gpu(x) and not recorded() and takes_kernel(self, x):
            return self.fused(x)
        return self.plain(x)

    __call__ = forward  # without hooks, as in `Convolution`

    @property
    def stride(self) -> int:
        """Of the rows and columns whose mean is taken."""
        return self.squeeze.reads[0][1]

    @property
    def layers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight (K, hidden) and bias of the first layer, weight (hidden, C) and bias of the second."""
        return self.squeeze.weight, self.squeeze.bias, self.product.weight, self.product.bias

    @property
    def activations(self) -> tuple[str, str]:
        """Their names, empty for none."""
        return activation_name(self.squeeze.activation), activation_name(self.product.activation)

    def plain(self, x: Tensor) -> Tensor:
        """The gate by torch's operators."""
        return self.product(self.squeeze(x))

    def fused(self, x: Tensor) -> Tensor:
        """The gate by the kernel, of a map that it takes."""
        kernel = gate_kernel()
        assert kernel is not None  # `takes_kernel` has asked
        gate = kernel(x, self.stride, self.layers, self.activations, COUNTERS.of(len(x), x.device))
        return gate[:, :, None, None] if self.product.wide else gate

    def exact(self, x: Tensor) -> Tensor:
        """The gate (N, C) in double precision, from means in single."""
        means = x[:, :, :: self.stride, :: self.stride].mean((2, 3), dtype=torch.float32)
        weight1, bias1, weight2, bias2 = (tensor.double() for tensor in self.layers)
        y = torch.addmm(bias1, means.double(), weight1)
        y = y if self.squeeze.activation is None else self.squeeze.activation(y)
        return self.product.activation(torch.addmm(bias2, y, weight2))


@dataclass(frozen=True, slots=True)
class GateTimes:
    """The kernel's distance from the exact gate, of the largest, and seconds of both forms in a CUDA graph."""

    difference: float
    kernel_s: float
    plain_s: float


class Counters:
    """Zeros that kernels count in and leave as zeros.

    Each stream has its own, since its kernels run one after the other. A captured call has its own for good: two graphs
    may be replayed at the same time, and none of them wants to set zeros itself.
    """

    def __init__(self) -> None:
        self.streams: dict[tuple[torch.device, int], Tensor] = {}
        self.spare: dict[torch.device, Tensor] = {}
        self.kept: list[Tensor] = []

    def of(self, images: int, device: torch.device) -> Tensor:
        """At least that many zeros for a call in the current stream."""
        if torch.cuda.is_current_stream_capturing():
            return self._cut(images, device)
        if device not in self.spare or len(self.spare[device]) < ROOM // 2:
            self.spare[device] = _zeros(ROOM, device)
            self.kept.append(self.spare[device])  # graphs know the address alone
        stream = device, torch.cuda.current_stream(device).cuda_stream
        if stream not in self.streams or len(self.streams[stream]) < images:
            self.streams[stream] = _zeros(max(images, 1024), device)
        return self.streams[stream]

    def _cut(self, images: int, device: torch.device) -> Tensor:
        """Spare zeros, else new ones, which each replay then sets."""
        spare = self.spare.get(device)
        if spare is None or len(spare) < images:
            return _zeros(images, device)
        self.spare[device] = spare[images:]
        return spare[:images]


COUNTERS = Counters()
_CHOSEN: dict[tuple[object, ...], bool] = {}


def joins(squeeze: EarlySqueeze, product: Product) -> bool:
    """Whether the kernel knows such a gate: the mean of one map, two layers, and activations that it has."""
    names = activation_name(squeeze.activation), activation_name(product.activation)
    known = names[0] in {"", *KERNEL_ACTIVATIONS} and names[1] in KERNEL_ACTIVATIONS
    return known and len(squeeze.reads) == 1 and squeeze.reads[0][0] == 1 and len(squeeze.bias) <= MOST_HIDDEN


def activation_name(activation: Callable[[Tensor], Tensor] | None) -> str:
    """The name of an activation without its mark of working in place; copies and files of it have the same."""
    return str(getattr(getattr(activation, "func", activation), "__name__", "")).rstrip("_")


@functools.cache
def gate_kernel() -> Callable[..., Tensor] | None:
    """`gate_kernel.gate_of`, None without Triton."""
    try:
        from senet_bench.deployment.gate_kernel import gate_of
    except ImportError:
        return None
    return gate_of


def takes_kernel(gate: Gate, x: Tensor) -> bool:
    """Whether the kernel runs for such maps; tried once for all gates of one shape, never while a graph is captured."""
    if x.dtype not in SAME_GATE or x.dtype != gate.squeeze.weight.dtype or x.stride(1) != 1 or gate_kernel() is None:
        return False
    shapes = x.shape, x.stride(), gate.stride, gate.squeeze.weight.shape, gate.product.weight.shape
    key = *shapes, gate.activations, x.dtype, x.device
    if key not in _CHOSEN:
        if torch.cuda.is_current_stream_capturing():
            return False
        _CHOSEN[key] = _is_better(gate, x)
    return _CHOSEN[key]


def gate_times(gate: Gate, x: Tensor) -> GateTimes:
    """The two forms of a gate on a map, compared on its device; raises what Triton raises."""
    exact = gate.exact(x)
    found = gate.fused(x).flatten(1).double()
    difference = float((found - exact).abs().max() / exact.abs().max().clamp(min=1e-30))
    kernel_s, plain_s = device_seconds((lambda: gate.fused(x), lambda: gate.plain(x)), x.device)
    return GateTimes(difference, kernel_s, plain_s)


def _is_better(gate: Gate, x: Tensor) -> bool:
    """Whether the kernel gives the gate in less time."""
    try:
        times = gate_times(gate, x)
    except Exception:  # noqa: BLE001 - a compiler raises whatever it likes; torch's operators do it too
        return False
    return times.difference <= SAME_GATE[x.dtype] and times.kernel_s < times.plain_s


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda


def _zeros(number: int, device: torch.device) -> Tensor:
    return torch.zeros(number, dtype=torch.int32, device=device)
