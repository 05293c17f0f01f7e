"""Clocks that time one round of calls, and what is measured of a call."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from senet_bench.bench.process import CoreTimes, core_times, muted
from senet_bench.bench.turns import TORCH_THREADS, take_turn, worked
from senet_bench.errors import MeasurementError

Call = Callable[[], object]

BLOCK_S = 2e-3
"""A block lasts at least this long."""
MOST_CALLS, FEWEST_CALLS = 64, 4
SLOW_CALL_S = 20e-3
"""Of calls this slow a block holds one."""
STOLEN = 0.1
"""A round is disturbed when other guests took more than this fraction of the time in which cores had work."""
Method = Literal[
    "CUDA allocator",
    "CUDA allocator and the pools of graphs",
    "CPU allocator trace",
    "MPS allocator at the end of a call",
]


Fault = Literal["stale", "random"]
"""What is wrong with an output: it is not the network's for these images, or no two outputs for them are equal."""


@dataclass(frozen=True, slots=True)
class FreshCall:
    """A call on images that no call has seen: `renew` draws them before each call and is never timed.

    `fault` tells what is wrong with the output of the last call, None where it is what an untouched copy of the network
    gives for the same images. `vary` draws images whose channels differ in brightness and contrast, for calls that are
    checked and not timed: means of standard normal images are nearly equal, and what was kept of them would not show.
    `threads` tells whose threads work for it: torch's, which all calls share, or those of a session of its own.
    """

    run: Call
    renew: Callable[[], object]
    fault: Callable[[object], Fault | None]
    vary: Callable[[], object]
    threads: object = TORCH_THREADS

    def __call__(self) -> object:
        """The output for the images drawn last."""
        worked(self.threads)
        return self.run()


@dataclass(frozen=True, slots=True)
class TimedCalls:
    """Consecutive calls of one arm: seconds of a call (host clock: the fastest), CPU seconds of a call, last output.

    `mean` is the mean of all calls in seconds, nan where nobody tells.
    """

    seconds: float
    cpu_seconds: float
    output: object = None
    mean: float = math.nan


class Clock(Protocol):
    """What the rounds need of a clock; tests hand in a fake one."""

    @property
    def remedy(self) -> str:
        """What to do where it let no round count."""

    def now(self) -> float:
        """Seconds since some moment, for the budget."""

    def round(self, calls: Sequence[Call], repeats: int) -> Sequence[TimedCalls]:
        """Run a block of `repeats` calls of each, in the order given."""

    def repeats(self, seconds: float) -> int:
        """How many calls of that length make a block."""

    def disturbance(self) -> str:
        """What spoilt the last round (another guest, a clock that moved), empty if nothing did."""


@dataclass(slots=True)
class HostClock:
    """The host's clock around each call; a block's value is its fastest call.

    `finish` runs inside the timed region after each call (a device's synchronize: end-to-end latency). `cores`
    tells how much of the cores' time other guests of the machine took.
    """

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time
    remedy: ClassVar[str] = "raise --budget, or use a smaller --img-size"
    finish: Callable[[], object] | None = None
    cores: Callable[[], CoreTimes] | None = None
    _before: CoreTimes = field(default_factory=CoreTimes)

    def now(self) -> float:
        """Seconds of the wall clock."""
        return self.wall()

    def repeats(self, seconds: float) -> int:
        """Calls in a block: 2 ms of them, 4 to 64; fewer when a call takes over 5 ms, one from 20 ms on."""
        if seconds <= 0:
            return MOST_CALLS
        fewest = min(FEWEST_CALLS, max(1, int(SLOW_CALL_S / seconds)))
        return min(MOST_CALLS, max(fewest, math.ceil(BLOCK_S / seconds)))

    def round(self, calls: Sequence[Call], repeats: int) -> list[TimedCalls]:
        """Each call's block, in the order given."""
        self._before = self.cores() if self.cores else CoreTimes()
        return [self._block(call, repeats) for call in calls]

    def disturbance(self) -> str:
        """Says so when other guests took more than a tenth of what the last round had of the cores."""
        return "steal" if self.cores and self.cores().share_stolen(self._before) > STOLEN else ""

    def _block(self, call: Call, repeats: int) -> TimedCalls:
        wall, finish, output = self.wall, self.finish, None
        run, renew, times, cpu = call, None, [], 0.0
        if isinstance(call, FreshCall):
            run, renew = call.run, call.renew
            take_turn(call.threads)
        for _ in range(repeats):
            if renew is not None:
                renew()
                if finish is not None:
                    finish()
            cpu_start, start = self.cpu(), wall()
            output = run()
            if finish is not None:
                finish()
            times.append(wall() - start)
            cpu += self.cpu() - cpu_start
        return TimedCalls(min(times), cpu / repeats, output, sum(times) / repeats)


def host_clock(finish: Callable[[], object] | None = None) -> HostClock:
    """The clock of this machine, watching steal where the system tells it (Linux)."""
    return HostClock(finish=finish, cores=watched_cores())


def watched_cores() -> Callable[[], CoreTimes] | None:
    """What tells how much of the cores' time other guests took, None where the system does not."""
    return core_times if hasattr(os, "sched_getaffinity") else None


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """`bytes` is the most that one call held beyond what was live before it; `method` is who counted.

    Both methods count torch's own allocator, workspaces of operators among it, and give the same number every
    time; memory that a library takes past torch (cuDNN handles, oneDNN scratch, another runtime) is not in it.
    """

    bytes: int
    method: Method


def traced_peak(call: Call) -> PeakMemory:
    """The highest running sum of the allocations and frees on the CPU that torch's profiler saw in a call."""
    import torch

    with (
        muted(),
        torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
        ) as seen,
    ):
        output = call()
        del output
    profiler = seen.profiler
    results = profiler.kineto_results if profiler is not None else None
    if results is None:
        raise MeasurementError("torch's profiler gave no memory trace")
    changes = sorted((e.start_ns(), i, e.nbytes()) for i, e in enumerate(results.events()) if e.name() == "[memory]")
    live = highest = 0
    for _, _, change in changes:
        live += change
        highest = max(highest, live)
    return PeakMemory(highest, "CPU allocator trace")
