"""A CUDA device, timed by events around exactly the counted work, and NVML to see when the clocks moved."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch.profiler import ProfilerActivity

from senet_bench.bench.clock import Call, Clock, FreshCall, HostClock, PeakMemory, TimedCalls, watched_cores
from senet_bench.bench.energy import Meter
from senet_bench.core.specs import Conditions
from senet_bench.deployment.cuda_graph import captured, replays
from senet_bench.errors import MeasurementError

EVENT_BLOCK_S = 1e-3
MOST_EVENT_CALLS = 64
FIRST_SLEEP, LONGEST_SLEEP = 1_000_000, 100_000_000
"""Cycles that the queue is held for while a block is enqueued: about 0.5 ms at first, 50 ms at most."""
SAME_CLOCK, MOST_MOVED = 0.01, 0.08
"""By how much the SM clock may move in a round, as a fraction: at first, and where it never stands still."""
RECENT = 8
"""Rounds that tell whether it ever does."""
LOCK = "lock the GPU's clock (`senet-bench doctor --device cuda` gives the command), or raise --budget"
EARLY = "GPU: a block began before all its calls were queued"
FULL = "GPU: a block of calls fills the launch queue; the next ones have fewer"
DEEP = "GPU: one call waits for the device, or launches more kernels than its queue holds"
END_TO_END = "take its end-to-end time; a call that waits for nothing has one launch with --runtime cudagraph"

SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""NVML's clock event reasons that spoil a round."""
REPORTED = {0x01: "idle", 0x02: "application clocks", 0x04: "power cap"}


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What the GPU's clock does: SM clock in MHz and NVML's mask of reasons."""

    mhz: int
    reasons: int


class Gauge(Protocol):
    """Reads a GPU's state; tests hand in a fake one."""

    def read(self) -> ClockReading:
        """The state now."""

    def others(self) -> list[int]:
        """Process ids, not ours, that compute on the device."""


@dataclass(frozen=True, slots=True)
class NvmlGauge:
    """NVML's view of one device."""

    nvml: Any
    handle: Any
    method: ClassVar[str] = "NVML, whole board"

    def read(self) -> ClockReading:
        """SM clock and clock event reasons (throttle reasons in older drivers)."""
        mhz = int(self.nvml.nvmlDeviceGetClockInfo(self.handle, self.nvml.NVML_CLOCK_SM))
        try:
            reasons = int(self.nvml.nvmlDeviceGetCurrentClocksEventReasons(self.handle))
        except (AttributeError, self.nvml.NVMLError):
            reasons = int(self.nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle))
        return ClockReading(mhz, reasons)

    def index(self) -> int:
        """The card's number for nvidia-smi, which is not torch's where some cards are hidden or ordered by speed."""
        return int(self.nvml.nvmlDeviceGetIndex(self.handle))

    def joules(self) -> float:
        """What the board has used since its driver was loaded."""
        return int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1e3

    def others(self) -> list[int]:
        """Other processes that compute here; in a container NVML may show none."""
        running = self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)
        return [int(p.pid) for p in running if int(p.pid) != os.getpid()]


def nvml_gauge(device: torch.device) -> NvmlGauge | None:
    """The gauge of a device, found by its UUID; None without nvidia-ml-py or where NVML does not answer."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - absent, or no driver: NVML's own exceptions are not importable then
        return None
    try:
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        gauge = NvmlGauge(pynvml, handle)
        gauge.read()
    except (pynvml.NVMLError, AttributeError, TypeError):
        return None
    return gauge


def spoilt(before: ClockReading, after: ClockReading, same: float = SAME_CLOCK) -> str:
    """Why a round between two readings must not count, empty if it may: the clock moved by more than `same`, say."""
    reasons = [text for bit, text in SLOWDOWNS.items() if (before.reasons | after.reasons) & bit]
    if reasons:
        return f"GPU: {', '.join(reasons)}"
    if abs(after.mhz - before.mhz) > same * max(before.mhz, 1):
        return MOVED
    return ""


MOVED = "GPU: SM clock moved"


@dataclass(slots=True)
class Steadiness:
    """Watches a GPU's clock around rounds.

    A round in which it moved is dropped. On a card that boosts that can be nearly all of them, so the bound doubles
    while most of the last `RECENT` rounds were lost to it, up to `MOST_MOVED`. Arms run in random order: a clock that
    moves makes their ratios spread, and favours none.
    """

    gauge: Gauge | None
    same: float = SAME_CLOCK
    _before: ClockReading | None = None
    _moved: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))

    def begin(self) -> None:
        """A round begins."""
        self._before = self.gauge.read() if self.gauge else None

    def end(self) -> str:
        """Why the round must not count, empty if it may."""
        if self.gauge is None or self._before is None:
            return ""
        reason = spoilt(self._before, self.gauge.read(), self.same)
        self._moved.append(reason == MOVED)
        if sum(self._moved) > RECENT / 2:
            self.same = min(2 * self.same, MOST_MOVED)
            self._moved.clear()
        return reason


@dataclass(slots=True)
class EventClock:
    """Device time by CUDA events; the value of a block is the mean of its calls.

    Each block is enqueued behind a spinning kernel, so that the host's launches are over before its work starts;
    the spin grows while a block still starts too early. One synchronisation ends a round. With `cold`, twice
    the L2 is written before each block, which then holds one call.

    A round with a block that started early has launch gaps in it, and is dropped. Holding the queue longer is of no
    use where the block fills it (about 1,000 launches): then blocks get fewer calls. Nor is it where a call waits for
    the device, and so for the spinning kernel before it: then no round counts.
    """

    device: torch.device
    cold: bool = False
    gauge: Gauge | None = None
    sleep_cycles: int = FIRST_SLEEP
    early_blocks: int = 0
    most_calls: int = MOST_EVENT_CALLS
    steadiness: Steadiness = field(init=False)
    _flush: torch.Tensor | None = None
    _spoilt: str = ""
    _deep: bool = False

    @property
    def remedy(self) -> str:
        """How the clock is locked, or where device time is not to be had what to take instead."""
        return END_TO_END if self._deep else LOCK

    def __post_init__(self) -> None:
        self.steadiness = Steadiness(self.gauge)
        if self.cold:
            size = 2 * int(torch.cuda.get_device_properties(self.device).L2_cache_size)
            self._flush = torch.empty(size, dtype=torch.int8, device=self.device)

    def now(self) -> float:
        """Seconds of the host's clock."""
        return time.perf_counter()

    def repeats(self, seconds: float) -> int:
        """Calls that last 1 ms together, 64 at most; one when the cache is to be cold."""
        return 1 if self.cold or seconds <= 0 else min(MOST_EVENT_CALLS, max(1, math.ceil(EVENT_BLOCK_S / seconds)))

    def round(self, calls: Sequence[Call], repeats: int) -> list[TimedCalls]:
        """All blocks enqueued in the order given, then one synchronisation."""
        repeats = min(repeats, self.most_calls)
        self.steadiness.begin()
        with torch.cuda.device(self.device):
            marks = [self._enqueue(call, repeats) for call in calls]
            torch.cuda.synchronize(self.device)
        self._spoilt = self.steadiness.end()
        early = sum(mark.early for mark in marks)
        if early:
            self.early_blocks += early
            self._spoilt = self._hold_longer(repeats)
        return [mark.timed(repeats) for mark in marks]

    def disturbance(self) -> str:
        """What NVML saw happen to the clocks in the last round, or why its blocks are not device time."""
        return self._spoilt

    def _enqueue(self, call: Call, repeats: int) -> _Mark:
        start, end = _event(), _event()
        if isinstance(call, FreshCall):
            call.renew()
        cpu_start = time.process_time()
        if self._flush is not None:
            self._flush.zero_()
        torch.cuda._sleep(self.sleep_cycles)  # type: ignore[no-untyped-call]
        start.record()
        output: object = None
        for _ in range(repeats):
            output = call()
        end.record()
        early = bool(start.query())
        return _Mark(start, end, output, early, time.process_time() - cpu_start)

    def _hold_longer(self, repeats: int) -> str:
        """Hold the queue longer, or where that is at its end let blocks have fewer calls; what happened."""
        if self.sleep_cycles < LONGEST_SLEEP:
            self.sleep_cycles = min(2 * self.sleep_cycles, LONGEST_SLEEP)
            return EARLY
        self.most_calls, self._deep = max(1, repeats // 2), repeats == 1
        return DEEP if self._deep else FULL


@dataclass(frozen=True, slots=True)
class _Mark:
    start: Any
    end: Any
    output: object
    early: bool
    cpu_s: float

    def timed(self, repeats: int) -> TimedCalls:
        """The block's calls, of which events tell the mean alone."""
        seconds = self.start.elapsed_time(self.end) / 1e3 / repeats
        return TimedCalls(seconds, self.cpu_s / repeats, self.output, seconds)


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class EndToEndClock(HostClock):
    """The host's clock around call and synchronisation, with the GPU's clocks watched."""

    remedy: ClassVar[str] = LOCK
    gauge: Gauge | None = None
    steadiness: Steadiness = field(init=False)

    def __post_init__(self) -> None:
        self.steadiness = Steadiness(self.gauge)

    def round(self, calls: Sequence[Call], repeats: int) -> list[TimedCalls]:
        """Each call's block, in the order given."""
        self.steadiness.begin()
        return HostClock.round(self, calls, repeats)

    def disturbance(self) -> str:
        """Another guest on the host, or the GPU's clocks."""
        return self.steadiness.end() or HostClock.disturbance(self)


@dataclass(frozen=True)
class Cuda:
    """A GPU that torch calls cuda: NVIDIA's, or AMD's by ROCm. The methods are those of `bench.device.Device`."""

    place: torch.device

    backend: ClassVar[str] = "nccl"
    accumulation: ClassVar[torch.dtype] = torch.float64
    captures: ClassVar[bool] = True
    warmup_s: ClassVar[float] = 0.5
    several: ClassVar[bool] = True
    absent: ClassVar[str] = "latency on a GPU needs an NVIDIA GPU and torch with CUDA"
    in_host_memory: ClassVar[bool] = False
    pins: ClassVar[bool] = True
    trains_in_half: ClassVar[bool] = True
    product_side: ClassVar[int] = 4096

    def count(self) -> int:
        """How many torch sees."""
        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    def name(self) -> str:
        """The driver's name."""
        return torch.cuda.get_device_name(self.place)

    def hardware(self) -> dict[str, Any]:
        """Models, number, architecture, memory, and the libraries that calculate on it.

        A machine of different cards names each, in the order of their numbers: with the device's number, the machine
        tells which model a row is of.
        """
        gpu = torch.cuda.get_device_properties(self.place)
        models = [torch.cuda.get_device_name(index) for index in range(self.count())]
        return {
            "gpu": models[0] if len(set(models)) == 1 else " and ".join(models),
            "gpu_count": self.count(),
            "sm": f"{gpu.major}.{gpu.minor}",
            "gpu_memory_gib": round(gpu.total_memory / 2**30),
            "cuda": f"ROCm {torch.version.hip}" if torch.version.hip else torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }

    def lacks(self, precision: str) -> bool:
        """TF32 and bf16 before Ampere, TF32 on AMD's."""
        if torch.version.hip:
            return precision == "tf32"
        return precision in ("tf32", "bf16") and torch.cuda.get_device_capability(self.place) < (8, 0)

    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        """Where it is."""
        return x.double()

    def synchronise(self) -> None:
        """Wait for every stream."""
        torch.cuda.synchronize(self.place)

    def clock(self, conditions: Conditions) -> Clock:
        """CUDA events for device time, else the host's clock around call and synchronisation; both watch NVML."""
        gauge = nvml_gauge(self.place)
        if conditions.timing == "device":
            return EventClock(self.place, conditions.cache == "cold", gauge)
        return EndToEndClock(finish=self.synchronise, cores=watched_cores(), gauge=gauge)

    def mark(self, now: Callable[[], float]) -> Any:
        """An event in the current stream."""
        event = _event()
        event.record(torch.cuda.current_stream(self.place))
        return event

    def between(self, start: Any, end: Any) -> float:
        """Seconds between two events."""
        return float(start.elapsed_time(end)) / 1e3

    def peak(self, call: Call) -> PeakMemory:
        """By torch's allocator, with what graphs that the call replays took when they were captured."""
        self.synchronise()
        torch.cuda.reset_peak_memory_stats(self.place)
        before = torch.cuda.memory_allocated(self.place)
        with replays() as graphs:
            output = call()
        self.synchronise()
        del output
        held = torch.cuda.max_memory_allocated(self.place) - before
        if not graphs:
            return PeakMemory(held, "CUDA allocator")
        pools = sum(graph.pool_bytes for graph in graphs.values())
        return PeakMemory(held + pools, "CUDA allocator and the pools of graphs")

    def meter(self) -> Meter:
        """NVML's; `MeasurementError` without it, or on a card that does not count (before Volta)."""
        if torch.version.hip:
            raise MeasurementError("energy: NVML, which counts it, is NVIDIA's alone")
        gauge = nvml_gauge(self.place)
        if gauge is None:
            raise MeasurementError("energy: NVML does not answer", "install 'senet-bench[nvidia]'")
        try:
            gauge.joules()
        except Exception as error:
            raise MeasurementError(f"energy: this GPU does not count it ({error})") from error
        return gauge

    def capture(self, call: Call) -> Call:
        """The call as a CUDA graph."""
        return captured(call, self.place).replay

    def others(self) -> tuple[int, ...]:
        """By NVML; empty without it."""
        gauge = nvml_gauge(self.place)
        return tuple(gauge.others()) if gauge else ()

    def empty_cache(self) -> None:
        """Hand back torch's blocks that are free."""
        torch.cuda.empty_cache()

    def random_state(self) -> list[torch.Tensor]:
        """The states of all GPUs."""
        return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore_random_state(self, state: list[torch.Tensor]) -> None:
        """Set those of all GPUs, where there are any."""
        if state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state)

    def use(self, rank: int) -> None:
        """The GPU of that index is the current one."""
        torch.cuda.set_device(rank)

    def cache_bytes(self) -> int | None:
        """The L2's."""
        return int(torch.cuda.get_device_properties(self.place).L2_cache_size)

    def free_bytes(self) -> int:
        """By the driver."""
        return int(torch.cuda.mem_get_info(self.place)[0])

    def activities(self) -> list[ProfilerActivity]:
        """The CPU's and the GPU's."""
        return [ProfilerActivity.CPU, ProfilerActivity.CUDA]
