"""Probes of what a device does at best: bytes moved, tiny operators, products, a block with nothing to do."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.bench.clock import Call, Clock
from senet_bench.bench.device import device_of
from senet_bench.bench.runtimes import FAILURES, REDUCED, example, prepare
from senet_bench.breakdown.parts import Part
from senet_bench.core.specs import Conditions
from senet_bench.errors import BenchError, MeasurementError

MOST_BUFFER = 1 << 30
CHAIN = 100
ROUNDS = 6
PRODUCT = {"cpu": 512}
ELSEWHERE = 4096
"""Side of the square matrices of the product, by device type."""


def bandwidth(device: str, buffer_bytes: int, clock: Clock) -> float:
    """Bytes per second of the faster of copy and triad on three buffers of that size."""
    a, b, c = (torch.full((buffer_bytes // 4,), float(i), device=device) for i in range(3))
    copied = _fastest(lambda: a.copy_(b), clock)
    added = _fastest(lambda: torch.add(b, c, alpha=0.5, out=a), clock)
    return max(2 * a.nbytes / copied, 3 * a.nbytes / added)


class _Chain(nn.Module):
    """Operators on a tiny image, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        """x, with its negative elements at 0."""
        for _ in range(CHAIN):
            x = torch.relu(x)
        return x


class _Repeated(nn.Module):
    """A part of a block, or all of it, over and over on the same input."""

    def __init__(self, block: Any, part: str) -> None:
        super().__init__()
        self.block = block
        self.part = part

    def forward(self, x: Tensor) -> Any:
        """The last result."""
        if self.part == "excitation":
            x = self.block.squeeze(x)
        run = self.block if self.part == "attention" else getattr(self.block, self.part)
        for _ in range(CHAIN):
            last = run(x)
        return last


def launch_seconds(block: nn.Module, conditions: Conditions, clock: Clock, *, split: bool) -> dict[Part, float]:
    """Seconds of each part of the block on one channel and one pixel, inside `session(conditions)`.

    Empty for a block that cannot be made so small.
    """
    tiny = replace(conditions, precision="fp32", channels_last=False, batch_size=1, mode="infer")
    parts: tuple[Part, ...] = ("squeeze", "excitation", "attention") if split else ("attention",)
    found: dict[Part, float] = {}
    for part in parts:
        try:
            call = prepare(_Repeated(_one_channel(block), part), tiny, example((1, 1, 1), 1)).factory()
            found[part] = _positive(_fastest(call, clock) / CHAIN)
        except (*FAILURES, BenchError):
            return {}
    if split:
        found["scale"] = max(0.0, found["attention"] - found["squeeze"] - found["excitation"])
    return found


def _one_channel(block: nn.Module) -> nn.Module:
    """A copy whose linear layers and convolutions have one input and one output."""
    small = copy.deepcopy(block)
    for name, module in list(small.named_modules()):
        if isinstance(module, nn.Linear):
            small.set_submodule(name, nn.Linear(1, 1, bias=module.bias is not None))
        elif isinstance(module, nn.Conv2d):
            small.set_submodule(name, nn.Conv2d(1, 1, 1, bias=module.bias is not None))
    return small


def operator_seconds(conditions: Conditions, clock: Clock) -> float:
    """Seconds of an operator on one pixel: dispatch, allocation and launch, as the runtime does it."""
    tiny = replace(conditions, precision="fp32", channels_last=False, batch_size=1, mode="infer")
    call = prepare(_Chain(), tiny, example((1, 1, 1), 1)).factory()
    return _positive(_fastest(call, clock) / CHAIN)


def product_rate(conditions: Conditions, clock: Clock) -> float:
    """FLOP/s of a square matrix product in the conditions' precision."""
    device = torch.device(conditions.device)
    n = PRODUCT.get(device.type, ELSEWHERE)
    dtype = REDUCED.get(conditions.precision, torch.float32)
    a, b = (torch.ones(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / _fastest(lambda: a @ b, clock)


def _fastest(call: Call, clock: Clock) -> float:
    with torch.inference_mode():
        call()
        first = clock.round([call], 1)[0].seconds
        repeats = clock.repeats(first)
        return _positive(min(clock.round([call], repeats)[0].seconds for _ in range(ROUNDS)))


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise MeasurementError("the clock stands still")
    return seconds


def buffer_bytes(device: str, cache: int) -> int:
    """Four times the cache, at most 1 GiB and a sixteenth of the memory that is free."""
    return min(4 * cache, MOST_BUFFER, device_of(device).free_bytes() // 16)
