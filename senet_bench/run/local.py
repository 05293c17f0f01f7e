"""Trials in processes of this machine, each at a device of its own where there are GPUs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, ClassVar, Generic

from senet_bench.core.devices import kind_of
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.run.apart import answer, taken_over
from senet_bench.run.engines import (
    ATTEMPTS,
    NO_NOTES,
    TELL_S,
    Busy,
    Died,
    Failure,
    Job,
    Left,
    Notes,
    Result,
    ended,
    following,
    outcome_of,
)
from senet_bench.run.worker import Worker, at_place

CALCULATES_WITHIN_S = 120.0
"""Seconds that a new process may take to calculate on its device."""


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

    @property
    def here(self) -> bool:
        """Whether this process does all jobs itself, as far as can be told without a look at devices."""
        return self.workers == 1 and not self.apart and not kind_of(self.device).gpu

    def places(self) -> list[str | None]:
        """The device of each worker, None where it is the CPU; the first workers are spread over all devices."""
        if not kind_of(self.device).gpu:
            return [None] * self.workers
        names = answer(_names, self.device)
        groups = [names[start : start + self.together] for start in range(0, len(names), self.together)]
        whole: list[str | None] = [",".join(group) for group in groups if len(group) == self.together]
        return whole * self.workers

    def at_a_time(self) -> int:
        """How many jobs run at a time."""
        return len(self.places())

    def check(self, device: str) -> None:
        """Raise `UsageError` on a device that is not there, or on fewer than a job takes together."""
        answer(check_present, device)
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
        if len(places) > 1 or self.apart:
            yield from _carried_out_apart(_Workers[Job, Result](places, function), jobs)
            return
        here = at_place(function, places[0])
        for job in jobs:
            outcome = outcome_of(here, job)
            if isinstance(outcome, Died):  # this process cannot use its device any more
                rest = itertools.chain([job], jobs)
                yield from _carried_out_apart(_Workers[Job, Result](places, function), rest)
                return
            yield job, outcome


class _Workers(Generic[Job, Result]):
    """The processes of this machine that do jobs, each at its place; where a device is gone there are fewer."""

    def __init__(self, places: list[str | None], function: Callable[[Job], Result]) -> None:
        self.places, self.function = places, function
        self.idle: list[Worker] = []
        self.busy: dict[Any, tuple[Worker, Job, int]] = {}
        self.again: list[tuple[Job, int]] = []
        self.gone: dict[str, str] = {}

    def fill(self, jobs: Iterator[Job]) -> None:
        """Give each free process a job: one to be tried again, else the next; raises where no device is left."""
        while (self.idle or self.places) and (taken := self.again.pop() if self.again else following(jobs)):
            worker = self.idle.pop() if self.idle else _started(self.places.pop(0))
            worker.give(self.function, taken[0])
            self.busy[worker.pipe] = (worker, *taken)
        if self.again and not self.busy:
            causes = "; ".join(f"{place} is gone ({why})" for place, why in self.gone.items())
            raise MeasurementError(causes, "the same command goes on with what is not stored, once it is back")

    def ended(self) -> Iterator[tuple[Job, Result | Failure] | Busy]:
        """The jobs that end within about a second, or how many run; what died is tried again, in a new process."""
        ready = connection.wait(list(self.busy), timeout=TELL_S)
        if not ready:
            yield Busy(len(self.busy))
        for pipe in ready:
            worker, job, attempt = self.busy.pop(pipe)
            outcome = worker.take()
            if not isinstance(outcome, Died):
                self.idle.append(worker)
                yield job, outcome
                continue
            worker.end()
            why = _gone(worker.place)
            if why:  # which is not the job's fault
                self.gone[worker.place or ""] = why
                self.again.append((job, attempt))
                continue
            self.places.append(worker.place)
            if attempt < ATTEMPTS:
                self.again.append((job, attempt + 1))
            else:
                yield job, Failure(f"its process died {ATTEMPTS} times, last by {outcome.cause}")

    def end(self) -> None:
        """End all processes, those that do a job at once."""
        for worker, _, _ in self.busy.values():
            worker.end()
        for worker in self.idle:
            worker.pipe.close()  # of all before the first is waited for
        for worker in self.idle:
            worker.end(idle=True)


def _carried_out_apart(
    workers: _Workers[Job, Result], jobs: Iterator[Job]
) -> Iterator[tuple[Job, Result | Failure] | Busy]:
    """Each job with its outcome, done by these processes, and about every second how many run.

    A process has its next job before it is told how the last one ended: what is then stored takes its time.
    """
    moments: list[tuple[Job, Result | Failure] | Busy] = []
    try:
        while True:
            try:
                workers.fill(jobs)
            finally:  # what has ended is told, whatever is wrong with the next
                yield from moments
            if not workers.busy:
                return
            moments = list(workers.ended())
    finally:
        workers.end()


def _started(place: str | None) -> Worker:
    """A process at a place: the one that answered before the first trial, else a new one."""
    worker = taken_over() or Worker()
    worker.place = place
    return worker


def _names(device: str) -> list[str]:
    """The devices that a name stands for."""
    from senet_bench.bench.device import every

    return every(device)


def check_present(device: str) -> None:
    """Raise `UsageError` on a device that is not there."""
    from senet_bench.bench.device import present

    present(device)


def _gone(place: str | None) -> str:
    """Why the devices of a place do not calculate any more, as a new process sees it; empty where they do."""
    if place is None:
        return ""
    worker = Worker(place)
    try:
        worker.give(calculates, None)
        outcome = worker.take(CALCULATES_WITHIN_S)
    finally:
        worker.end()
    return outcome.reason if isinstance(outcome, Failure) else outcome.cause if isinstance(outcome, Died) else ""


def calculates(_: None, place: str = "") -> None:
    """Raise unless every device of a place adds numbers."""
    import torch

    from senet_bench.bench.device import present

    for name in place.split(","):
        present(name)
        torch.ones(8, device=name).sum().item()
