"""Clocks that time one round of calls, and the quiet in which they do it."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Call = Callable[[], object]

BLOCK_S = 2e-3
"""A block lasts at least this long."""
MOST_CALLS, FEWEST_CALLS = 64, 4
SLOW_CALL_S = 20e-3
"""Of calls this slow a block holds one."""
STOLEN = 0.1
"""A round is disturbed when another guest took more than this fraction of it."""


@dataclass(frozen=True, slots=True)
class TimedCalls:
    """Consecutive calls of one arm: seconds of a call (host clock: the fastest), CPU seconds of a call, last output."""

    seconds: float
    cpu_seconds: float
    output: object = None


class Clock(Protocol):
    """What the rounds need of a clock; tests hand in a fake one."""

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

    `finish` runs inside the timed region after each call (a device's synchronize: end-to-end latency). `stolen`
    gives the seconds taken by other guests of the machine since it started.
    """

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time
    finish: Callable[[], object] | None = None
    stolen: Callable[[], float] | None = None
    _before: tuple[float, float] = (0.0, 0.0)

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
        self._before = (self.wall(), self.stolen() if self.stolen else 0.0)
        return [self._block(call, repeats) for call in calls]

    def disturbance(self) -> str:
        """Says so when other guests took more than a tenth of the last round."""
        if self.stolen is None:
            return ""
        lost, lasted = self.stolen() - self._before[1], self.wall() - self._before[0]
        return "steal" if lost > STOLEN * lasted else ""

    def _block(self, call: Call, repeats: int) -> TimedCalls:
        wall, finish, fastest, output = self.wall, self.finish, math.inf, None
        cpu_start = self.cpu()
        for _ in range(repeats):
            start = wall()
            output = call()
            if finish is not None:
                finish()
            took = wall() - start
            fastest = min(fastest, took)
        return TimedCalls(fastest, (self.cpu() - cpu_start) / repeats, output)


def host_clock(finish: Callable[[], object] | None = None) -> HostClock:
    """The clock of this machine, watching steal where the system tells it (Linux)."""
    return HostClock(finish=finish, stolen=stolen_seconds if hasattr(os, "sched_getaffinity") else None)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stolen_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Seconds that the hypervisor took from the cores this process may use, 0 where nobody tells."""
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
        allowed = {f"cpu{i}" for i in os.sched_getaffinity(0)}
        rows = (line.split() for line in lines[1:] if line.startswith("cpu"))
        return sum(int(row[8]) for row in rows if row[0] in allowed) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return 0.0


@contextlib.contextmanager
def quiet(pin: bool = False) -> Iterator[None]:
    """No garbage collection and, with `pin`, one core only (the idlest) for as long as this lasts; restored after."""
    collecting = gc.isenabled()
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    frozen_before = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        if pin and affinity:
            os.sched_setaffinity(0, {idlest_core(affinity)})
        yield
    finally:
        if pin and affinity:
            os.sched_setaffinity(0, affinity)
        if not frozen_before:
            gc.unfreeze()
        if collecting:
            gc.enable()


def idlest_core(allowed: set[int], over_s: float = 0.1) -> int:
    """The core among `allowed` that was busy least over that time."""
    import psutil

    busy = psutil.cpu_percent(interval=over_s, percpu=True)
    return min(allowed, key=lambda core: busy[core] if core < len(busy) else math.inf)
