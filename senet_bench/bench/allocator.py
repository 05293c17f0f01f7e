"""glibc's allocator: how its settings are read and, on request, set so that large maps are not paged in anew.

By default glibc hands every large block back to the system when it is freed; the next tensor then pays a page fault
for each 4 KiB. Tuned, freed memory stays with the process.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from senet_bench.core.specs import Allocator
from senet_bench.errors import UsageError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TUNED = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 << 20}
TUNING_VARIABLES = {
    "MALLOC_MMAP_MAX_": str(TUNED[M_MMAP_MAX]),
    "MALLOC_TRIM_THRESHOLD_": str(TUNED[M_TRIM_THRESHOLD]),
    "MALLOC_TOP_PAD_": str(TUNED[M_TOP_PAD]),
}
"""The same setting for a process that is yet to start."""
VARIABLES = (*TUNING_VARIABLES, "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
REPLACEMENTS = ("jemalloc", "tcmalloc", "mimalloc")


@dataclass(slots=True)
class _Process:
    tuned: bool = False


_PROCESS = _Process()


def setting() -> Allocator:
    """What this process allocates with; settings that others made through `mallopt` cannot be read."""
    if obstacle():
        return "other"
    if _PROCESS.tuned or all(os.environ.get(name) == value for name, value in TUNING_VARIABLES.items()):
        return "tuned"
    return "environment" if variables() else "default"


def variables() -> dict[str, str]:
    """The environment's variables that glibc's allocator reads when a process starts."""
    return {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}


def obstacle() -> str:
    """Why the allocator of this process cannot be tuned, empty where it can."""
    loaded = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    replaced = next((os.path.basename(n) for n in loaded if any(k in n for k in REPLACEMENTS)), "")
    if platform.system() != "Linux":
        return f"{platform.system()} does not have glibc's"
    if replaced:
        return f"{replaced} is preloaded in its place"
    return "" if platform.libc_ver()[0] == "glibc" else "the C library is not glibc"


def check(asked: Allocator) -> None:
    """Raise `UsageError` on a setting that this process does not have and cannot be given."""
    if asked == "tuned":
        if obstacle():
            raise UsageError(f"the allocator cannot be tuned: {obstacle()}", "leave --allocator out")
    elif asked not in ("as-is", setting()):
        raise UsageError(f"the allocator of this process is {setting()}, not {asked!r}", "ask for as-is or tuned")


def applied(asked: Allocator) -> Allocator:
    """The setting that this process has from now on: tuned where that is asked for, else as it is.

    Raises `UsageError` where it cannot be had. It lasts as long as the process, which is what `mallopt` offers.
    """
    check(asked)
    if asked == "tuned" and setting() != "tuned" and not tune():
        raise UsageError("glibc refused to tune its allocator", "leave --allocator out")
    return setting()


def tune() -> bool:
    """Let glibc keep freed memory in this process; whether it does."""
    if obstacle():
        return False
    libc = ctypes.CDLL(None)
    libc.mallopt.argtypes, libc.mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    answers = [libc.mallopt(parameter, value) for parameter, value in TUNED.items()]
    _PROCESS.tuned = all(answer == 1 for answer in answers)
    return _PROCESS.tuned


def of_process(asked: Allocator) -> Allocator:
    """What a process that is started with `for_process(asked)` allocates with."""
    return "tuned" if asked == "tuned" else setting()


def for_process(asked: Allocator) -> Mapping[str, str]:
    """What a new process needs in its environment to have the setting from its start."""
    return TUNING_VARIABLES if asked == "tuned" else {}
