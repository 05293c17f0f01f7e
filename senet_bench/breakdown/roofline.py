"""What this device can do at best, measured: memory traffic, operators per second, arithmetic; and what binds.

A part of an attention block takes at least the time its bytes need at the measured bandwidth, the time of the same
calls on one channel and one pixel (all that is launched and nothing to do), and the time its operations need at the
rate of a matrix product. The longest of the three is what binds it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.bench.clock import Call, Clock
from senet_bench.bench.device import device_of
from senet_bench.bench.runtimes import FAILURES, REDUCED, example, prepare
from senet_bench.breakdown.rows import Bound, Ceilings, Limits, Part
from senet_bench.core.specs import Conditions
from senet_bench.errors import BenchError, MeasurementError, first_line, out_of_memory
from senet_bench.show.figures import significant

ASSUMED_CACHE = 64 << 20
"""Bytes taken for the last-level cache where the system does not tell."""
EXPLAINED = 1 / 3
"""With less than this fraction of the measured time explained by the three bounds, nothing is said to bind."""
MOST_BUFFER = 1 << 30
CHAIN = 100
ROUNDS, MOST_ROUNDS = 6, 24
"""Rounds that count, and those that are tried for them."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a part asks for: bytes that fit the cache, bytes that do not, operators, floating-point operations.

    `launch_s` is the seconds of one of its `calls` on one channel and one pixel, None where that is not known.
    """

    cached_bytes: int
    memory_bytes: int
    operators: int
    operations: int
    calls: int = 0
    launch_s: float | None = None

    @property
    def bytes(self) -> int:
        """All bytes read and written."""
        return self.cached_bytes + self.memory_bytes


def measure_device(conditions: Conditions, clock: Clock, busy: Clock | None = None) -> Ceilings:
    """The limits of the conditions' device, inside `session(conditions)`; about a second.

    `clock` times the operators, as the network was timed; `busy` (else the same) the work of the device alone.
    """
    busy = busy or clock
    missing: dict[str, str] = {}
    cache = device_of(conditions.device).cache_bytes()
    known = cache if cache is not None else ASSUMED_CACHE
    large, small = buffer_bytes(conditions.device, known), max(1 << 16, known // 8)

    def tried(name: str, measure: Callable[[], float]) -> float | None:
        try:
            return measure()
        except (*FAILURES, BenchError, MemoryError) as error:
            missing[name] = "out of memory" if out_of_memory(error) else first_line(error)
            return None

    return Ceilings(
        memory_bytes_per_s=tried("memory_bytes_per_s", lambda: bandwidth(conditions.device, large, busy)),
        cache_bytes_per_s=tried("cache_bytes_per_s", lambda: bandwidth(conditions.device, small, busy)),
        operator_s=tried("operator_s", lambda: operator_seconds(conditions, clock)),
        flops_per_s=tried("flops_per_s", lambda: product_rate(conditions, busy)),
        cache_bytes=known,
        cache_known=cache is not None,
        buffer_bytes=large,
        missing=missing,
    )


def limits(demand: Demand, seconds: float | None, device: Ceilings, how: str = "") -> Limits:
    """What binds a part that takes `seconds` (None: not told from zero), measured in the way that `how` says."""
    least, said = _bounds(demand, device)
    took = "not told from zero" if seconds is None else _time(seconds) + how
    arithmetic = "; ".join((*said, f"measured {took}"))
    if seconds is None or seconds <= 0:
        return Limits(least, None, arithmetic, "its time could not be told from zero in this budget")
    if len(least) < 3:
        absent = ", ".join(sorted(device.missing)) or "a limit of the device"
        return Limits(least, None, arithmetic, f"not measured: {absent}")
    explained = sum(least.values()) / seconds
    if explained < EXPLAINED:
        reason = f"the three bounds explain only {100 * explained:.0f} % of the time"
        return Limits(least, None, arithmetic, reason, explained)
    binding = max(least, key=lambda bound: least[bound])
    return Limits(least, f"{binding}-bound", arithmetic, explained=explained)


def _bounds(demand: Demand, device: Ceilings) -> tuple[dict[Bound, float], list[str]]:
    least: dict[Bound, float] = {}
    said: list[str] = []
    memory, cache = device.memory_bytes_per_s, device.cache_bytes_per_s
    if memory and cache:
        least["bandwidth"] = demand.memory_bytes / memory + demand.cached_bytes / cache
        pieces = [
            f"{significant(amount, 3, 1e-6)} MB at {significant(rate, 3, 1e-9)} GB/s{where}"
            for amount, rate, where in (
                (demand.memory_bytes, memory, ""),
                (demand.cached_bytes, cache, " (cache)"),
            )
            if amount
        ]
        said.append(f"{' + '.join(pieces) or '0 MB'} = {_time(least['bandwidth'])}")
    if demand.launch_s:
        least["launch"] = demand.calls * demand.launch_s
        said.append(f"{demand.calls} calls of {_time(demand.launch_s)} on one pixel = {_time(least['launch'])}")
    elif device.operator_s:
        least["launch"] = demand.operators * device.operator_s
        said.append(f"{demand.operators} operators of {_time(device.operator_s)} = {_time(least['launch'])}")
    if device.flops_per_s:
        least["compute"] = demand.operations / device.flops_per_s
        rate = f"{significant(device.flops_per_s, 3, 1e-9)} GFLOP/s"
        said.append(f"{significant(demand.operations, 3, 1e-6)} MFLOP at {rate} = {_time(least['compute'])}")
    return least, said


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{significant(seconds, 3, scale)} {unit}"
    return f"{seconds * 1e9:.3g} ns"


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
    seconds: dict[Part, float] = {}
    for part in parts:
        try:
            call = prepare(_Repeated(_one_channel(block), part), tiny, example((1, 1, 1), 1)).factory()
            seconds[part] = _positive(_fastest(call, clock) / CHAIN)
        except (*FAILURES, BenchError, MemoryError):
            return {}
    if split:
        seconds["scale"] = max(0.0, seconds["attention"] - seconds["squeeze"] - seconds["excitation"])
    return seconds


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
    n = device_of(device).product_side
    dtype = REDUCED.get(conditions.precision, torch.float32)
    a, b = (torch.ones(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / _fastest(lambda: a @ b, clock)


def _fastest(call: Call, clock: Clock) -> float:
    """Seconds of a call in the fastest of some rounds that count; `MeasurementError` where none does."""
    kept, spoilt = list[float](), ""
    with torch.inference_mode():
        call()
        repeats = clock.repeats(clock.round([call], 1)[0].seconds)
        for _ in range(MOST_ROUNDS):
            (block,) = clock.round([call], repeats)
            spoilt = clock.disturbance()
            kept += [] if spoilt else [block.seconds]
            if len(kept) == ROUNDS:
                break
    if not kept:
        raise MeasurementError(f"no round counts: {spoilt}", clock.remedy)
    return _positive(min(kept))


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise MeasurementError("the clock stands still")
    return seconds


def buffer_bytes(device: str, cache: int) -> int:
    """Four times the cache, at most 1 GiB and a sixteenth of the memory that is free."""
    return min(4 * cache, MOST_BUFFER, device_of(device).free_bytes() // 16)
