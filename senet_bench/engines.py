"""Where the trials of a sweep run: in processes of this machine, on a Ray cluster, or under Slurm.

An engine takes a function and an iterator of jobs, pulls a job whenever a worker is free, and yields each job with
its result as it arrives. A job that raises gives a `Failure`, and so does one whose worker died `ATTEMPTS` times; the
others go on. The function and the jobs must be picklable.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from senet_bench.errors import UsageError

Job = TypeVar("Job")
Result = TypeVar("Result")

ATTEMPTS = 3
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job has no result."""

    reason: str


class Engine(Protocol):
    """What runs jobs."""

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""


@dataclass(frozen=True, slots=True)
class Local:
    """Long-lived processes of this machine, rebuilt when one dies; with one worker, this process itself."""

    workers: int

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""
        if self.workers == 1:
            yield from ((job, _attempt(function, job)) for job in jobs)
            return
        again: list[tuple[Job, int]] = []
        while True:
            broken = yield from self._pool(function, jobs, again)
            if not broken:
                return
            again = [(job, attempt + 1) for job, attempt in broken if attempt < ATTEMPTS]
            for job, attempt in broken:
                if attempt >= ATTEMPTS:
                    yield job, Failure(f"its process died {ATTEMPTS} times")

    def _pool(self, function: Callable[[Job], Result], jobs: Iterator[Job], again: list[tuple[Job, int]]) -> Any:
        """Run jobs until none is left or the pool breaks; returns the jobs that it took along."""
        broken: list[tuple[Job, int]] = []
        running: dict[Future[Result | Failure], tuple[Job, int]] = {}
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.workers, context, initializer=_end_with, initargs=(os.getpid(),))
        try:
            while True:
                while len(running) < self.workers and not broken:
                    following = again.pop(0) if again else _next(jobs)
                    if following is None:
                        break
                    try:
                        running[pool.submit(_attempt, function, following[0])] = following
                    except BrokenProcessPool:
                        broken.append(following)
                if not running:
                    return broken + again
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    job, attempt = running.pop(future)
                    try:
                        yield job, future.result()
                    except BrokenProcessPool:
                        broken.append((job, attempt))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _next(jobs: Iterator[Job]) -> tuple[Job, int] | None:
    for job in jobs:
        return job, 1
    return None


def _attempt(function: Callable[[Job], Result], job: Job) -> Result | Failure:
    """The result, or what was raised in one line."""
    try:
        return function(job)
    except Exception as error:  # noqa: BLE001 - a failed trial is a row with its reason
        return Failure(" ".join(f"{type(error).__name__}: {error}".split())[:500])


def _end_with(parent: int) -> None:
    """End this worker process when its parent is gone: a killed sweep leaves nothing behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Ray tasks: on a running cluster by its address, or on a local one that is started for the sweep.

    Ray retries tasks whose worker or node was lost. `gpus` is a fraction or number of GPUs for a trial.
    """

    address: str | None = None
    cpus: float = 1
    gpus: float = 0

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""
        ray = _extra("ray")
        started = not ray.is_initialized()
        if started:
            self._start(ray)
        try:
            yield from self._tasks(ray, function, jobs)
        finally:
            if started:
                ray.shutdown()

    def _start(self, ray: Any) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = self.address or "this machine"
            raise UsageError(
                f"no Ray cluster answers at {where} ({_line(error)})", "check --engine-address, or leave it out"
            ) from error

    def _tasks(
        self, ray: Any, function: Callable[[Job], Result], jobs: Iterator[Job]
    ) -> Iterator[tuple[Job, Result | Failure]]:
        task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=ATTEMPTS - 1)(_attempt)
        resources = ray.cluster_resources()
        at_once = int(resources.get("CPU", 1) / self.cpus) if self.cpus else 1
        if self.gpus:
            at_once = min(at_once, int(resources.get("GPU", 0) / self.gpus))
        if at_once < 1:
            raise UsageError(
                f"the cluster has no room for a trial of {self.cpus:g} CPUs and {self.gpus:g} GPUs", "ask for less"
            )
        running: dict[Any, Job] = {}
        while True:
            while len(running) < at_once and (following := _next(jobs)) is not None:
                running[task.remote(function, following[0])] = following[0]
            if not running:
                return
            for reference in ray.wait(list(running), num_returns=1)[0]:
                job = running.pop(reference)
                try:
                    yield job, ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield job, Failure(_cluster_reason(error))


@dataclass(frozen=True, slots=True)
class Slurm:
    """Slurm jobs by submitit, one a trial; `options` go to its executor (timeout_min, slurm_partition, ...).

    `cluster="local"` runs them as processes of this machine instead, as the tests do.
    """

    folder: Path
    at_once: int = 64
    cluster: str = "slurm"
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""
        submitit = _extra("submitit")
        try:
            executor = submitit.AutoExecutor(folder=self.folder, cluster=self.cluster)
            executor.update_parameters(**({"timeout_min": 24 * 60} | self.options))
        except (RuntimeError, TypeError, ValueError, KeyError, NameError) as error:
            raise UsageError(f"Slurm cannot be used here ({_line(error)})", "is sbatch on the PATH?") from error
        running: dict[Any, tuple[Job, int]] = {}
        while True:
            while len(running) < self.at_once and (following := _next(jobs)) is not None:
                running[executor.submit(_attempt, function, following[0])] = following
            if not running:
                return
            done = [one for one in running if one.done()]
            if not done:
                time.sleep(POLL_S)
            for one in done:
                job, attempt = running.pop(one)
                failed = one.exception()
                if failed is None:
                    yield job, one.result()
                elif attempt < ATTEMPTS:
                    running[executor.submit(_attempt, function, job)] = (job, attempt + 1)
                else:
                    yield job, Failure(f"its Slurm job failed {ATTEMPTS} times: {_line(failed)}")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _extra(module: str) -> Any:
    extra = {"ray": "ray", "submitit": "slurm"}[module]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed", f"run: python -m pip install 'senet-bench[{extra}]'") from error


def _cluster_reason(error: Exception) -> str:
    """Why Ray lost a task; a worker that lacks this package is said plainly."""
    text = _line(error)
    if "No module named 'senet_bench'" in text:
        return "the worker has no senet_bench: install it on every node of the cluster"
    return text


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
