"""Where the trials of a sweep run: in processes of this machine, on a Ray cluster, or under Slurm.

An engine takes a function and an iterator of jobs, pulls a job whenever a worker is free, and yields each job with
its result as it arrives. A job that raises gives a `Failure`, and so does one whose worker died `ATTEMPTS` times; the
others go on. The function and the jobs must be picklable.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from typing import Any, ClassVar, Protocol, TypeVar

from senet_bench.core.devices import kind_of
from senet_bench.core.learning import Submitted
from senet_bench.errors import UsageError, one_line

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
class Left:
    """A job that has no result yet and is left with its cluster, for the next run to take up."""

    submitted: Submitted


@dataclass(frozen=True, slots=True)
class Busy:
    """How many jobs run now, how many wait for the cluster, and why they do.

    `silent_s` is the age in seconds of the last line in a running job's log, of the job that is silent for longest.
    """

    running: int
    pending: int = 0
    reasons: tuple[str, ...] = ()
    silent_s: float | None = None

    def text(self, about: str = "") -> str:
        """In words, those that run with what is said `about` them: `3 running, 5 pending (Resources)`."""
        why = f" ({', '.join(self.reasons)})" if self.reasons else ""
        pending = f", {self.pending} pending{why}" if self.pending else ""
        silent = "" if self.silent_s is None else f", oldest log line {self.silent_s:.0f} s old"
        return f"{self.running} running{about}{pending}{silent}"


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


@dataclass(frozen=True, slots=True)
class Local:
    """Long-lived processes of this machine, each replaced when it dies; a single one is this process, unless `apart`.

    On GPUs there are `workers` for each that `device` stands for, and the function is handed the worker's own after
    the job; where a job takes several `together`, their names: cuda:0,cuda:1.
    """

    remote: ClassVar[bool] = False
    workers: int
    device: str = "cpu"
    together: int = 1
    apart: bool = False

    def places(self) -> list[str | None]:
        """The device of each worker, None where it is the CPU; the first workers are spread over all devices."""
        if not kind_of(self.device).gpu:
            return [None] * self.workers
        from senet_bench.bench.device import every

        names = every(self.device)
        groups = [names[start : start + self.together] for start in range(0, len(names), self.together)]
        whole: list[str | None] = [",".join(group) for group in groups if len(group) == self.together]
        return whole * self.workers

    def at_a_time(self) -> int:
        """How many jobs run at a time."""
        return len(self.places())

    def check(self, device: str) -> None:
        """Raise `UsageError` on a device that is not there, or on fewer than a job takes together."""
        from senet_bench.bench.device import present

        present(device)
        if not self.places():
            raise UsageError(f"{device} has fewer than {self.together} GPUs", "choose a smaller --gpus-per-trial")

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""
        return ended(self.watched(function, jobs))

    def watched(
        self, function: Callable[[Job], Result], jobs: Iterator[Job], notes: Notes[Job] = NO_NOTES
    ) -> Iterator[tuple[Job, Result | Failure | Left] | Busy]:
        """The same, and about every second how many run; not where this process does the jobs itself."""
        places = self.places()
        if len(places) == 1 and not self.apart:
            here = _at(function, places[0])
            yield from ((job, outcome_of(here, job)) for job in jobs)
            return
        idle: list[_Worker] = []
        busy: dict[Any, tuple[_Worker, Job, int]] = {}
        try:
            while True:
                while (idle or places) and (job_left := following(jobs)) is not None:
                    worker = idle.pop() if idle else _Worker(places.pop(0))
                    worker.give(function, job_left[0])
                    busy[worker.pipe] = (worker, *job_left)
                if not busy:
                    return
                ready = connection.wait(list(busy), timeout=TELL_S)
                if not ready:
                    yield Busy(len(busy))
                for pipe in ready:
                    worker, job, attempt = busy.pop(pipe)
                    outcome = worker.take()
                    if isinstance(outcome, Died):
                        worker = _Worker(worker.place)
                        if attempt < ATTEMPTS:
                            worker.give(function, job)
                            busy[worker.pipe] = (worker, job, attempt + 1)
                            continue
                        outcome = Failure(f"its process died {ATTEMPTS} times, last by {outcome.cause}")
                    idle.append(worker)
                    yield job, outcome
        finally:
            for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
                worker.end()


@dataclass(frozen=True, slots=True)
class Died:
    """What a process leaves behind that died at its job."""

    cause: str


class _Worker:
    """A process that does one job after another; its death harms no other's job, as it would in a pool."""

    def __init__(self, place: str | None = None) -> None:
        self.place = place
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, function: Callable[[Job], Result], job: Job) -> None:
        """Start a job; a process that has died meanwhile is found out by `take`."""
        task = pickle.dumps((_at(function, self.place), job))
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(task)

    def take(self) -> Any:
        """The outcome of its job, `Died` if it did."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            self.end()
            return Died(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def end(self) -> None:
        """End the process at once, with what it is doing."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe: Any, parent: int) -> None:
    """Do what comes through the pipe until it is closed, or the parent is gone.

    Ctrl-C reaches the whole process group and is the parent's to answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = pipe.recv_bytes()
            outcome = outcome_of(_carry_out, task)
            try:
                pipe.send(outcome)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                pipe.send(Failure(f"its result cannot be handed over ({one_line(error)})"))


def _carry_out(task: bytes) -> Any:
    function, job = pickle.loads(task)  # noqa: S301 - from our own parent
    return function(job)


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


def _at(function: Callable[..., Result], place: str | None) -> Callable[[Any], Result]:
    """The function of a job alone that is carried out on a device."""
    return function if place is None else partial(_on, function, place)


def _on(function: Callable[..., Result], place: str, job: Any) -> Result:
    return function(job, place)


def outcome_of(function: Callable[[Job], Result], job: Job) -> Result | Failure:
    """The result, or what was raised in one line."""
    try:
        return function(job)
    except Exception as error:  # noqa: BLE001 - a failed trial is a row with its reason
        return Failure(one_line(error))


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
