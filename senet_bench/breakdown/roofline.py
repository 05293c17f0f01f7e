"""What this device can do at best, measured: memory traffic, operators per second, arithmetic; and what binds.

A part of an attention block takes at least the time its bytes need at the measured bandwidth, the time of the same
calls on one channel and one pixel (all that is launched and nothing to do), and the time its operations need at the
rate of a matrix product. The longest of the three is what binds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from senet_bench.bench.clock import Clock
from senet_bench.bench.device import device_of
from senet_bench.bench.runtimes import FAILURES, out_of_memory
from senet_bench.breakdown.probes import bandwidth, buffer_bytes, operator_seconds, product_rate
from senet_bench.core.specs import Conditions
from senet_bench.errors import BenchError

Bound = Literal["bandwidth", "launch", "compute"]

ASSUMED_CACHE = 64 << 20
"""Bytes taken for the last-level cache where the system does not tell."""
EXPLAINED = 1 / 3
"""With less than this fraction of the measured time explained by the three bounds, nothing is said to bind."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Measured limits: bytes per second beyond and within the last-level cache, seconds of a tiny operator, FLOP/s.

    A copy counts 2 bytes for each byte of its buffer and a triad (a = b + s c) 3; the faster of the two, at its best
    of a few rounds. `cache_bytes` is the last-level cache (`cache_known`: as the system tells), `buffer_bytes` one
    buffer of the memory test. `missing` says why a figure is None.
    """

    memory_bytes_per_s: float | None
    cache_bytes_per_s: float | None
    operator_s: float | None
    flops_per_s: float | None
    cache_bytes: int
    cache_known: bool
    buffer_bytes: int
    missing: Mapping[str, str] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class Limits:
    """The least seconds by bound, which one binds (None: see `reason`), and the arithmetic in words.

    `explained` is their sum as a fraction of the measured time.
    """

    seconds: Mapping[Bound, float]
    verdict: str | None
    arithmetic: str
    reason: str = ""
    explained: float | None = None


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
            missing[name] = "out of memory" if out_of_memory(error) else str(error).splitlines()[0]
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
            f"{amount / 1e6:.3g} MB at {rate / 1e9:.3g} GB/s{where}"
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
        rate = f"{device.flops_per_s / 1e9:.3g} GFLOP/s"
        said.append(f"{demand.operations / 1e6:.3g} MFLOP at {rate} = {_time(least['compute'])}")
    return least, said


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
