"""Where the trials of a sweep run: in processes of this machine, on a Ray cluster, or under Slurm.

An engine takes a function and an iterator of jobs, pulls a job whenever a worker is free, and yields each job with
its result as it arrives. A job that raises gives a `Failure`, and so does one whose worker died `ATTEMPTS` times; the
others go on. The function and the jobs must be picklable.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import pickle
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

from senet_bench.bench.process import cores
from senet_bench.core.devices import kind_of
from senet_bench.errors import UsageError, one_line

Job = TypeVar("Job")
Result = TypeVar("Result")

GPU_OPTIONS = {"gpus_per_node", "slurm_gpus_per_node", "slurm_gres", "slurm_gpus_per_task"}
"""What of submitit's options reserves GPUs."""
ATTEMPTS = 3
POLL_S = 0.5
KNOCK_S = 3.0


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
    """Long-lived processes of this machine, each replaced when it dies; a single one is this process itself.

    On GPUs there are `workers` for each that `device` stands for, and the function is handed the worker's own after
    the job.
    """

    workers: int
    device: str = "cpu"

    def places(self) -> list[str | None]:
        """The device of each worker, None where it is the CPU; the first workers are spread over all devices."""
        if not kind_of(self.device).gpu:
            return [None] * self.workers
        from senet_bench.bench.device import every

        return [*every(self.device)] * self.workers

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""
        places = self.places()
        if len(places) == 1:
            here = _at(function, places[0])
            yield from ((job, _attempt(here, job)) for job in jobs)
            return
        idle: list[_Worker] = []
        busy: dict[Any, tuple[_Worker, Job, int]] = {}
        try:
            while True:
                while (idle or places) and (following := _next(jobs)) is not None:
                    worker = idle.pop() if idle else _Worker(places.pop(0))
                    worker.give(function, following[0])
                    busy[worker.pipe] = (worker, *following)
                if not busy:
                    return
                for pipe in connection.wait(list(busy)):
                    worker, job, attempt = busy.pop(pipe)
                    outcome = worker.take()
                    if isinstance(outcome, _Died):
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
class _Died:
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
        """The outcome of its job, `_Died` if it did."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            self.end()
            return _Died(signal.Signals(-code).name if code < 0 else f"exit code {code}")

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
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = pipe.recv_bytes()
            outcome = _attempt(_carry_out, task)
            try:
                pipe.send(outcome)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                pipe.send(Failure(f"its result cannot be handed over ({one_line(error)})"))


def _carry_out(task: bytes) -> Any:
    function, job = pickle.loads(task)  # noqa: S301 - from our own parent
    return function(job)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed sweep leaves nothing behind."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)


def _next(jobs: Iterator[Job]) -> tuple[Job, int] | None:
    for job in jobs:
        return job, 1
    return None


def workers_of(engine: Engine) -> int | None:
    """How many jobs an engine runs at a time, None of a cluster that was not asked."""
    match engine:
        case Local():
            return len(engine.places())
        case Slurm():
            return engine.at_once
        case RayCluster(address=None):
            return max(1, int(cores() / (engine.cpus or 1)))
        case _:
            return None


def _at(function: Callable[..., Result], place: str | None) -> Callable[[Any], Result]:
    """The function of a job alone that is carried out on a device."""
    return function if place is None else partial(_on, function, place)


def _on(function: Callable[..., Result], place: str, job: Any) -> Result:
    return function(job, place)


def check_device(engine: Engine, device: str) -> None:
    """Raise `UsageError` on a device that is not there, or GPUs that an engine would reserve for nothing."""
    gpu = kind_of(device).gpu
    match engine:
        case RayCluster():
            reserved, numbered = engine.gpus > 0, ":" in device
        case Slurm():
            reserved, numbered = bool(GPU_OPTIONS & engine.options.keys()), ":" in device
        case _:
            from senet_bench.bench.device import present

            present(device)
            return
    if reserved and not gpu:
        raise UsageError(f"the engine reserves GPUs for trials on {device}", "add --device cuda, or ask for no GPUs")
    if numbered:
        raise UsageError(f"{device} is chosen by the engine, which assigns the GPUs", "use --device cuda")
    if gpu and not reserved:
        raise UsageError(f"the engine reserves no GPUs for trials on {device}", "add --engine-option gpus=1")


def _attempt(function: Callable[[Job], Result], job: Job) -> Result | Failure:
    """The result, or what was raised in one line."""
    try:
        return function(job)
    except Exception as error:  # noqa: BLE001 - a failed trial is a row with its reason
        return Failure(one_line(error))


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
        executor = self._executor()
        running: dict[Any, _Submitted] = {}
        try:
            yield from self._jobs(executor, running, function, jobs)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"{_cancelled(running)} Slurm jobs are cancelled") from error
        finally:
            _cancelled(running)

    def _executor(self) -> Any:
        """What submits jobs; each front end has a folder of its own, as Slurm's job numbers may come again."""
        submitit = _extra("submitit")
        for handler in logging.getLogger("submitit").handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
                handler.setStream(sys.stderr)
        folder = self.folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}"
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        except (RuntimeError, TypeError, ValueError, KeyError, NameError) as error:
            raise UsageError(f"Slurm cannot be used here ({one_line(error)})", "is sbatch on the PATH?") from error
        try:
            executor.update_parameters(**({"timeout_min": 24 * 60} | self.options))
        except (RuntimeError, TypeError, ValueError, KeyError, NameError, AssertionError) as error:
            raise self._refused(error) from error
        return executor

    def _refused(self, error: Exception) -> UsageError:
        typed = ", ".join(f"{name}={value}" for name, value in self.options.items()) or "its defaults"
        return UsageError(
            f"Slurm refuses jobs with {typed} ({one_line(error)})",
            "give --engine-option such as slurm_partition=gpu, timeout_min=60, mem_gb=8",
        )

    def _submit(self, executor: Any, function: Callable[[Job], Result], job: Job, attempt: int) -> _Submitted:
        token = secrets.token_hex(8)
        try:
            return _Submitted(executor.submit(_Answer(), token, function, job), token, job, attempt)
        except Exception as error:  # sbatch's refusals come as several types
            raise self._refused(error) from error

    def _jobs(
        self, executor: Any, running: dict[Any, _Submitted], function: Callable[[Job], Result], jobs: Iterator[Job]
    ) -> Iterator[tuple[Job, Result | Failure]]:
        while True:
            while len(running) < self.at_once and (following := _next(jobs)) is not None:
                submitted = self._submit(executor, function, *following)
                running[submitted.handle] = submitted
            if not running:
                return
            done = [handle for handle in running if handle.done()]
            if not done:
                time.sleep(POLL_S)
            for handle in done:
                submitted = running.pop(handle)
                outcome = submitted.outcome()
                if not isinstance(outcome, _Died):
                    yield submitted.job, outcome
                elif submitted.attempt < ATTEMPTS:
                    again = self._submit(executor, function, submitted.job, submitted.attempt + 1)
                    running[again.handle] = again
                else:
                    yield submitted.job, Failure(f"its Slurm job failed {ATTEMPTS} times: {outcome.cause}")


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A job under Slurm: what submitit tells of it, and the token that its result must name."""

    handle: Any
    token: str
    job: Any
    attempt: int

    def outcome(self) -> Any:
        """What its function gave, `_Died` where that is lost or the result of another job."""
        failed = self.handle.exception()
        if failed is not None:
            return _Died(one_line(failed))
        answer = self.handle.result()
        if not isinstance(answer, tuple) or answer[0] != self.token:
            return _Died("the result in its folder is of another job")
        return answer[1]


class _Answer:
    """What a Slurm job runs: the function of a job, its outcome given back with the token it was submitted with."""

    def __call__(self, token: str, function: Callable[[Job], Result], job: Job) -> tuple[str, Result | Failure]:
        """The token and the outcome."""
        return token, _attempt(function, job)

    def checkpoint(self, *arguments: Any) -> Any:
        """The same again, at Slurm's time limit or preemption: the trial goes on from its checkpoint."""
        submitit = importlib.import_module("submitit")
        return submitit.helpers.DelayedSubmission(self, *arguments)


def _cancelled(running: dict[Any, _Submitted]) -> int:
    """How many jobs had to be cancelled, none of which is left."""
    left = [handle for handle in running if not handle.done()]
    for handle in left:
        with contextlib.suppress(Exception):
            handle.cancel()
    running.clear()
    return len(left)


def _knock(address: str) -> None:
    """Raise `OSError` or `ValueError` when nothing listens at HOST:PORT; Ray itself would wait for a minute."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        raise ValueError("an address is HOST:PORT, ray://HOST:PORT or auto")
    with socket.create_connection((host.strip("[]"), int(port)), KNOCK_S):
        pass


def _extra(module: str) -> Any:
    extra = {"ray": "ray", "submitit": "slurm"}[module]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed", f"run: python -m pip install 'senet-bench[{extra}]'") from error


def _cluster_reason(error: Exception) -> str:
    """Why Ray lost a task; a worker that lacks this package is said plainly."""
    text = one_line(error)
    if "No module named 'senet_bench'" in text:
        return "the worker has no senet_bench: install it on every node of the cluster"
    return text
