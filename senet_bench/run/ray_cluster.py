"""Trials as tasks of a Ray cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from senet_bench.bench.process import cores
from senet_bench.errors import BenchError, MeasurementError, UsageError, one_line
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
    check_reserved,
    end_with,
    ended,
    extra,
    following,
    outcome_of,
)

KNOCK_S = 3.0
COUNTED_EVERY_S = 5.0
"""Seconds between two looks at what the nodes of a cluster have."""
KNOCK_EVERY_S = 3.0
KNOCKS = 3
"""How often in turn a cluster's head must not answer to be taken for dead; Ray itself waits for a minute."""
ENDS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Ray tasks: on a running cluster by its address, or on a local one that is started for the sweep.

    Ray retries tasks whose worker or node was lost. `gpus` is a fraction or number of GPUs for a trial.
    """

    remote: ClassVar[bool] = True
    address: str | None = None
    cpus: float = 1
    gpus: float = 0

    def at_a_time(self) -> int | None:
        """How many trials run at a time here; None of a cluster that was not asked."""
        return max(1, int(cores() / (self.cpus or 1))) if self.address is None else None

    def check(self, device: str) -> None:
        """Raise `UsageError` unless GPUs are reserved just when trials run on them."""
        check_reserved(device, reserves=self.gpus > 0)

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""
        return ended(self.watched(function, jobs))

    def watched(
        self, function: Callable[[Job], Result], jobs: Iterator[Job], notes: Notes[Job] = NO_NOTES
    ) -> Iterator[tuple[Job, Result | Failure | Left] | Busy]:
        """The same, and about every second how many run."""
        ray = extra("ray")
        if ray.is_initialized():
            yield from self.tasks(function, jobs)
        else:
            yield from self._apart(function, jobs)

    def _apart(
        self, function: Callable[[Job], Result], jobs: Iterator[Job]
    ) -> Iterator[tuple[Job, Result | Failure] | Busy]:
        """The same by a process of its own, as Ray ends the process that is connected when its cluster's head dies."""
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        driver = context.Process(target=_drive, args=(theirs, os.getpid(), self, function), daemon=False)
        driver.start()
        theirs.close()
        handed: list[Job] = []
        pulse = _Pulse(self.address)
        try:
            while True:
                match self._heard(pipe, driver, pulse):
                    case _Wanted():
                        if (taken := following(jobs)) is not None:
                            handed.append(taken[0])
                        pipe.send(None if taken is None else (len(handed) - 1, taken[0]))
                    case Busy() as busy:
                        yield busy
                    case BenchError() as error:
                        raise error
                    case None:
                        return
                    case (index, _), outcome:
                        yield handed[index], outcome
        finally:
            pipe.close()
            driver.join(ENDS_WITHIN_S)
            driver.kill()
            driver.join()

    def _heard(self, pipe: Any, driver: Any, pulse: _Pulse) -> Any:
        """What the connected process says next; `MeasurementError` where it or the head of the cluster is gone."""
        try:
            while not pipe.poll(KNOCK_EVERY_S):
                pulse.check()
            pulse.check()
            return pipe.recv()
        except (EOFError, OSError) as error:
            driver.join(ENDS_WITHIN_S)
            raise pulse.lost() from error

    def tasks(
        self, function: Callable[[Job], Result], jobs: Iterator[Job]
    ) -> Iterator[tuple[Job, Result | Failure] | Busy]:
        """Each job with its outcome, by this process, which is connected for it unless it is already."""
        ray = extra("ray")
        started = not ray.is_initialized()
        if started:
            self._start(ray)
        try:
            yield from self._tasks(ray, function, jobs)
        finally:
            if started:
                ray.shutdown()

    def _start(self, ray: Any) -> None:
        """Connect to the cluster, or start one here; `UsageError` when it does not answer."""
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if self.address is None:
                ray.init(num_cpus=cores(), include_dashboard=False, **quiet)
            else:
                _knock(self.address)
                ray.init(address=self.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = self.address or "this machine"
            raise UsageError(
                f"no Ray cluster answers at {where} ({one_line(error)})", "check --engine-address, or leave it out"
            ) from error
        except Exception as error:  # what Ray raises where its own processes do not start in time
            raise MeasurementError(
                f"Ray does not start here ({one_line(error)})",
                "try again on a quieter machine, or another --engine",
            ) from error

    def _room(self, ray: Any) -> int:
        """How many trials the nodes of now take at a time."""
        resources = ray.cluster_resources()
        room = int(resources.get("CPU", 1) / self.cpus) if self.cpus else 1
        return min(room, int(resources.get("GPU", 0) / self.gpus)) if self.gpus else room

    def _tasks(
        self, ray: Any, function: Callable[[Job], Result], jobs: Iterator[Job]
    ) -> Iterator[tuple[Job, Result | Failure] | Busy]:
        task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=ATTEMPTS - 1)(outcome_of)
        running: dict[Any, tuple[Job, int]] = {}
        again: list[tuple[Job, int]] = []
        moments: list[tuple[Job, Result | Failure]] = []
        room, counted = self._room(ray), time.monotonic()
        if room < 1:
            raise UsageError(
                f"the cluster has no room for a trial of {self.cpus:g} CPUs and {self.gpus:g} GPUs", "ask for less"
            )
        while True:
            if time.monotonic() - counted > COUNTED_EVERY_S:  # nodes come and go
                room, counted = max(1, self._room(ray)), time.monotonic()
            while len(running) < room and (taken := again.pop() if again else following(jobs)) is not None:
                running[task.remote(function, taken[0])] = taken
            yield from moments  # once their places are taken again: what is then stored takes its time
            moments.clear()
            if not running:
                return
            ready = ray.wait(list(running), num_returns=1, timeout=TELL_S)[0]
            if not ready:
                yield Busy(min(room, len(running)), max(0, len(running) - room))
            for reference in ready:
                job, attempt = running.pop(reference)
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayError as error:
                    outcome = Failure(_cluster_reason(error))
                if isinstance(outcome, Died) and attempt < ATTEMPTS:
                    again.append((job, attempt + 1))
                    continue
                lost = isinstance(outcome, Died)
                told = Failure(f"it was lost {ATTEMPTS} times, last by {outcome.cause}") if lost else outcome
                moments.append((job, told))


@dataclass(slots=True)
class _Pulse:
    """Whether the head of a cluster answers, looked at now and then."""

    address: str | None
    looked: float = field(default_factory=time.monotonic)
    silent: int = 0

    def check(self) -> None:
        """Raise `MeasurementError` where it has not answered several times in turn."""
        if self.address is None or time.monotonic() - self.looked < KNOCK_EVERY_S:
            return
        self.looked = time.monotonic()
        try:
            _knock(self.address)
            self.silent = 0
        except (OSError, ValueError) as error:
            self.silent += 1
            if self.silent >= KNOCKS:
                raise self.lost() from error

    def lost(self) -> MeasurementError:
        """What is said where the cluster is gone."""
        where = f"the head of the Ray cluster at {self.address}" if self.address else "Ray on this machine"
        return MeasurementError(f"{where} is gone", "the same command goes on with what is not stored, once it is back")


class _Wanted:
    """The connected process has room for a job."""


def _drive(pipe: Any, parent: int, engine: RayCluster, function: Callable[[Any], Any]) -> None:
    """Connect to Ray, carry out the jobs that come through the pipe, and send what becomes of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()

    def jobs() -> Iterator[Any]:
        while True:
            pipe.send(_Wanted())
            job = pipe.recv()
            if job is None:
                return
            yield job

    with contextlib.suppress(EOFError, OSError):  # the parent has closed the pipe
        try:
            for moment in engine.tasks(_Numbered(function), jobs()):
                pipe.send(moment)
            pipe.send(None)
        except BenchError as error:
            pipe.send(error)


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A function of a job alone, for jobs that are numbered."""

    function: Callable[[Any], Any]

    def __call__(self, job: tuple[int, Any]) -> Any:
        return self.function(job[1])


def _knock(address: str) -> None:
    """Raise `OSError` or `ValueError` when nothing listens at HOST:PORT; Ray itself would wait for a minute."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        raise ValueError("an address is HOST:PORT, ray://HOST:PORT or auto")
    with socket.create_connection((host.strip("[]"), int(port)), KNOCK_S):
        pass


def _cluster_reason(error: Exception) -> str:
    """Why Ray lost a task; a worker that lacks this package is said plainly."""
    text = one_line(error)
    if "No module named 'senet_bench'" in text:
        return "the worker has no senet_bench: install it on every node of the cluster"
    return text
