"""Where the trials of a sweep run: in processes of this machine, on a Ray cluster, or under Slurm.

An engine takes a function and an iterator of jobs, pulls a job whenever a worker is free, and yields each job with
its result as it arrives. A job that raises gives a `Failure`, and so does one whose worker died `ATTEMPTS` times; the
others go on. The function and the jobs must be picklable.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from senet_bench.core.devices import kind_of
from senet_bench.core.learning import Submitted
from senet_bench.errors import LostError, UsageError, device_failed, one_line

Job = TypeVar("Job")
Result = TypeVar("Result")
Known = TypeVar("Known", contravariant=True)

ATTEMPTS = 3
POLL_S = 0.5
TELL_S = 1.0
"""Seconds after which it is told how far jobs are."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job has no result."""

    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """What a job leaves behind whose process died, or that lost its device or another process of its own."""

    cause: str


@dataclass(frozen=True, slots=True)
class Left:
    """A job that has no result yet and is left with its cluster, for the next run to take up."""

    submitted: Submitted


@dataclass(frozen=True, slots=True)
class Busy:
    """How many jobs run now, how many wait for the cluster, and why they do.

    `silent_s` is the age in seconds of the last line in a running job's log, of the job that is silent for longest;
    `again` says how many jobs were lost and submitted again, and why the last of them was.
    """

    running: int
    pending: int = 0
    reasons: tuple[str, ...] = ()
    silent_s: float | None = None
    again: str = ""

    def text(self, about: str = "") -> str:
        """In words, those that run with what is said `about` them: `3 running, 5 pending (Resources)`."""
        why = f" ({', '.join(self.reasons)})" if self.reasons else ""
        pending = f", {self.pending} pending{why}" if self.pending else ""
        silent = "" if self.silent_s is None else f", oldest log line {self.silent_s:.0f} s old"
        again = f", {self.again}" if self.again else ""
        return f"{self.running} running{about}{pending}{silent}{again}"


class Notes(Protocol[Known]):
    """Which of a cluster's jobs each job is, kept from one run to the next."""

    def read(self, job: Known) -> Submitted | None:
        """What an earlier run, or this one, has noted of a job."""

    def write(self, job: Known, submitted: Submitted) -> None:
        """Note what a job is now."""


class NoNotes:
    """Notes that nobody keeps."""

    def read(self, job: Any) -> Submitted | None:
        """Nothing is known."""

    def write(self, job: Any, submitted: Submitted) -> None:
        """Nothing is kept."""


NO_NOTES = NoNotes()


class Engine(Protocol):
    """What runs jobs; `remote` where that may be on machines that lack modules of the user's own."""

    remote: ClassVar[bool]

    def at_a_time(self) -> int | None:
        """How many jobs run at a time, None of a cluster that was not asked."""

    def check(self, device: str) -> None:
        """Raise `UsageError` where jobs cannot run on a device, or GPUs would be reserved for nothing."""

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""

    def watched(
        self, function: Callable[[Job], Result], jobs: Iterator[Job], notes: Notes[Job] = ...
    ) -> Iterator[tuple[Job, Result | Failure | Left] | Busy]:
        """The same, with those that are left with a cluster, and about every second, while none ends, how many run."""


def ended(moments: Iterator[tuple[Job, Result | Failure | Left] | Busy]) -> Iterator[tuple[Job, Result | Failure]]:
    """The jobs that ended."""
    for moment in moments:
        if not isinstance(moment, Busy) and not isinstance(moment[1], Left):
            yield moment[0], moment[1]


def end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed sweep leaves nothing behind."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)


def following(jobs: Iterator[Job]) -> tuple[Job, int] | None:
    """The next job as its first attempt, None after the last."""
    for job in jobs:
        return job, 1
    return None


def outcome_of(function: Callable[[Job], Result], job: Job) -> Result | Failure | Died:
    """The result, or what was raised in one line; `Died` where another try, in a new process, may end otherwise."""
    try:
        return function(job)
    except Exception as error:  # noqa: BLE001 - a failed trial is a row with its reason
        lost = isinstance(error, LostError) or device_failed(error)
        return (Died if lost else Failure)(one_line(error))


def check_reserved(device: str, *, reserves: bool) -> None:
    """Raise `UsageError` unless a cluster `reserves` GPUs just when trials run on them; it chooses which."""
    gpu = kind_of(device).gpu
    if reserves and not gpu:
        raise UsageError(f"the engine reserves GPUs for trials on {device}", "add --device cuda, or ask for no GPUs")
    if ":" in device:
        raise UsageError(f"{device} is chosen by the engine, which assigns the GPUs", "use --device cuda")
    if gpu and not reserves:
        raise UsageError(f"the engine reserves no GPUs for trials on {device}", "add --engine-option gpus=1")


def extra(module: str) -> Any:
    """A module of an optional dependency; `UsageError` with what to install where it is not there."""
    extra = {"ray": "ray", "submitit": "slurm"}[module]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed", f"run: python -m pip install 'senet-bench[{extra}]'") from error
