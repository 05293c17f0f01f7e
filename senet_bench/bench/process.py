"""The process that measures: its cores, its allocator, and how quiet the machine was around it.

By default glibc hands every large block back to the system when it is freed; the next tensor then pays a page fault
for each 4 KiB. Tuned, freed memory stays with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet_bench.core.specs import Allocator
from senet_bench.errors import UsageError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TUNING = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 << 20}
TUNING_VARIABLES = {
    "MALLOC_MMAP_MAX_": str(TUNING[M_MMAP_MAX]),
    "MALLOC_TRIM_THRESHOLD_": str(TUNING[M_TRIM_THRESHOLD]),
    "MALLOC_TOP_PAD_": str(TUNING[M_TOP_PAD]),
}
"""The same setting for a process that is yet to start."""
ALLOCATOR_VARIABLES = (*TUNING_VARIABLES, "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
REPLACEMENTS = ("jemalloc", "tcmalloc", "mimalloc")
RAN, STOLEN = (1, 2, 3, 6, 7), 8
"""Columns of /proc/stat: user, nice, system and both kinds of interrupts; steal."""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """What became of some cores' time so far, core by core: seconds that they ran, and that other guests took."""

    ran: tuple[float, ...] = ()
    stolen: tuple[float, ...] = ()

    def share_stolen(self, before: CoreTimes) -> float:
        """The share that other guests took since then of the time in which cores had work.

        Beside cores that ran, one that did not had none: what many idle ones lose is no loss of the one that works. In
        some milliseconds, which the system does not count, none may have run.
        """
        times = zip(self.ran, before.ran, self.stolen, before.stolen)
        cores = [(ran - ran_before, stolen - stolen_before) for ran, ran_before, stolen, stolen_before in times]
        working = [core for core in cores if core[0] > 0] or cores
        ran, stolen = sum(core[0] for core in working), sum(core[1] for core in working)
        return stolen / max(ran + stolen, stolen) if stolen > 0 else 0.0


def core_times(stat: Path = Path("/proc/stat")) -> CoreTimes:
    """Those of the cores that this process may use, since the machine started; of none where nobody tells."""
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
        allowed = {f"cpu{i}" for i in os.sched_getaffinity(0)}
        rows = [line.split() for line in lines[1:] if line.startswith("cpu")]
        ticks, own = os.sysconf("SC_CLK_TCK"), [row for row in rows if row[0] in allowed]
        ran = tuple(sum(int(row[place]) for place in RAN) / ticks for row in own)
        return CoreTimes(ran, tuple(int(row[STOLEN]) / ticks for row in own))
    except (OSError, AttributeError, IndexError, ValueError):
        return CoreTimes()


@contextlib.contextmanager
def quiet(pin: bool = False) -> Iterator[None]:
    """No garbage collection and, with `pin`, one core only (the idlest) for as long as this lasts; restored after."""
    collecting = gc.isenabled()
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    gc.collect()
    gc.disable()
    try:
        if pin and affinity:
            os.sched_setaffinity(0, {idlest_core(affinity)})
        yield
    finally:
        if pin and affinity:
            os.sched_setaffinity(0, affinity)
        if collecting:
            gc.enable()


def idlest_core(allowed: set[int], over_s: float = 0.1) -> int:
    """The core among `allowed` that was busy least over that time."""
    import psutil

    busy = psutil.cpu_percent(interval=over_s, percpu=True)
    return min(allowed, key=lambda core: busy[core] if core < len(busy) else math.inf)


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the machine when a measurement began."""

    began: float
    cores: CoreTimes
    switches: int

    @staticmethod
    def begin() -> Health:
        """The state now."""
        return Health(time.perf_counter(), core_times(), _switches())

    def ended(self) -> dict[str, Any]:
        """What happened since: seconds, load, the share stolen by other guests, involuntary switches."""
        return {
            "elapsed_s": time.perf_counter() - self.began,
            "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "steal": core_times().share_stolen(self.cores),
            "involuntary_switches": _switches() - self.switches,
        }


def _switches() -> int:
    """Times that this process and its finished children were put aside."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return sum(resource.getrusage(who).ru_nivcsw for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Nothing on file descriptor 2: the profiler's native library logs there, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@dataclass(slots=True)
class _Process:
    tuned: bool = False


_PROCESS = _Process()


def allocator_setting() -> Allocator:
    """What this process allocates with; settings that others made through `mallopt` cannot be read."""
    if tuning_obstacle():
        return "other"
    if _PROCESS.tuned or all(os.environ.get(name) == value for name, value in TUNING_VARIABLES.items()):
        return "tuned"
    return "environment" if allocator_variables() else "default"


def allocator_variables() -> dict[str, str]:
    """The environment's variables that glibc's allocator reads when a process starts."""
    return {name: os.environ[name] for name in ALLOCATOR_VARIABLES if os.environ.get(name)}


def tuning_obstacle() -> str:
    """Why the allocator of this process cannot be tuned, empty where it can."""
    loaded = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    replaced = next((os.path.basename(n) for n in loaded if any(k in n for k in REPLACEMENTS)), "")
    if platform.system() != "Linux":
        return f"{platform.system()} does not have glibc's"
    if replaced:
        return f"{replaced} is preloaded in its place"
    return "" if platform.libc_ver()[0] == "glibc" else "the C library is not glibc"


def check_allocator(allocator: Allocator) -> None:
    """Raise `UsageError` on a setting that this process does not have and cannot be given."""
    if allocator == "tuned":
        if tuning_obstacle():
            raise UsageError(f"the allocator cannot be tuned: {tuning_obstacle()}", "leave --allocator out")
    elif allocator not in ("as-is", allocator_setting()):
        raise UsageError(
            f"the allocator of this process is {allocator_setting()}, not {allocator!r}", "ask for as-is or tuned"
        )


def applied_allocator(allocator: Allocator) -> Allocator:
    """The setting that this process has from now on: tuned where that is asked for, else as it is.

    Raises `UsageError` where it cannot be had. It lasts as long as the process, which is what `mallopt` offers.
    """
    check_allocator(allocator)
    if allocator == "tuned" and allocator_setting() != "tuned" and not tune_allocator():
        raise UsageError("glibc refused to tune its allocator", "leave --allocator out")
    return allocator_setting()


def tune_allocator() -> bool:
    """Let glibc keep freed memory in this process; whether it does."""
    if tuning_obstacle():
        return False
    libc = ctypes.CDLL(None)
    libc.mallopt.argtypes, libc.mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    answers = [libc.mallopt(parameter, value) for parameter, value in TUNING.items()]
    _PROCESS.tuned = all(answer == 1 for answer in answers)
    return _PROCESS.tuned


def allocator_of_process(allocator: Allocator) -> Allocator:
    """What a process that is started with `for_process(asked)` allocates with."""
    return "tuned" if allocator == "tuned" else allocator_setting()


def allocator_environment(allocator: Allocator) -> Mapping[str, str]:
    """What a new process needs in its environment to have the setting from its start."""
    return TUNING_VARIABLES if allocator == "tuned" else {}
