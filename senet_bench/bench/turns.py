"""Whose threads work: before those of one runtime are timed, those of another must have stopped spinning.

Threads go on spinning when their work is done, to be at hand for the next, and take a core meanwhile: those of OpenMP,
which torch has, for 8 ms, OpenVINO's for 1, those of each session of ONNX Runtime for 45 (on two cores of an AMD EPYC).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TORCH_THREADS = "torch"
PAUSE_S, MOST_SPINNING_S = 1e-3, 0.1
TASKS = Path("/proc/self/task")


@dataclass(slots=True)
class _Turn:
    threads: object = TORCH_THREADS


_TURN = _Turn()


def worked(threads: object) -> None:
    """Remember whose threads worked last: torch's, or those of one session of another package."""
    _TURN.threads = threads


def take_turn(threads: object) -> None:
    """Wait until no threads but these spin, for 0.1 s at most; they work next."""
    until = time.perf_counter() + MOST_SPINNING_S
    while threads is not _TURN.threads and others_run() and time.perf_counter() < until:
        time.sleep(PAUSE_S)
    worked(threads)


def others_run() -> bool:
    """Whether another thread of this process than this one runs; so it may be where nobody tells (but on Linux)."""
    own = str(threading.get_native_id())
    try:
        others = [task for task in TASKS.iterdir() if task.name != own]
    except OSError:
        return True
    return any(_state(task) == "R" for task in others)


def _state(task: Path) -> str:
    """What a thread does, as one letter: R where it runs or would; empty once it has ended."""
    with contextlib.suppress(OSError):
        return (task / "stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2][:1]
    return ""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """While entered torch works in one thread, and no others spin on into what comes next."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
