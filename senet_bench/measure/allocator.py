"""glibc's allocator: how its settings are read and, on request, set so that large maps are not paged in anew.

By default glibc hands every large block back to the system when it is freed; the next tensor then pays a page fault
for each 4 KiB. Tuned, freed memory stays with the process.
"""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from typing import Literal

from senet_bench.errors import UsageError

Setting = Literal["default", "environment", "tuned", "other"]
"""Which allocator: glibc's default, one set by MALLOC_ variables, tuned here, or not glibc's (a preloaded one)."""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TUNED = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 << 20}
VARIABLES = (
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_MMAP_THRESHOLD_",
    "GLIBC_TUNABLES",
)


@dataclass(slots=True)
class _Process:
    tuned: bool = False


_PROCESS = _Process()


@dataclass(frozen=True, slots=True)
class Allocator:
    """The allocator of this process, for the record of a measurement."""

    setting: Setting
    variables: tuple[tuple[str, str], ...] = ()
    preloaded: str = ""


def is_glibc() -> bool:
    """Whether glibc's malloc can be set: Linux, glibc, no other allocator preloaded."""
    return platform.system() == "Linux" and platform.libc_ver()[0] == "glibc" and not _preloaded()


def allocator() -> Allocator:
    """What this process allocates with; settings made by others through `mallopt` cannot be read."""
    variables = tuple((name, os.environ[name]) for name in VARIABLES if os.environ.get(name))
    if not is_glibc():
        return Allocator("other", variables, _preloaded())
    return Allocator("tuned" if _PROCESS.tuned else "environment" if variables else "default", variables)


def tune() -> Allocator:
    """Set glibc to keep freed memory, for the rest of the process, which is what `mallopt` offers.

    Raises `UsageError` where there is no glibc, or it refuses.
    """
    if not is_glibc():
        raise UsageError("the allocator can be tuned with glibc on Linux only", "leave --allocator out")
    libc = ctypes.CDLL(None)
    libc.mallopt.argtypes, libc.mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    refused = [parameter for parameter, value in TUNED.items() if libc.mallopt(parameter, value) != 1]
    if refused:
        raise UsageError(f"glibc refused the settings {refused}", "leave --allocator out")
    _PROCESS.tuned = True
    return allocator()


def _preloaded() -> str:
    """An allocator loaded before glibc's, by its file name."""
    names = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return next((os.path.basename(n) for n in names if any(k in n for k in ("jemalloc", "tcmalloc", "mimalloc"))), "")
