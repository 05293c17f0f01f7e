"""Trials as tasks of a Ray cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from senet_bench.bench.process import cores
from senet_bench.errors import UsageError, one_line
from senet_bench.run.engines import (
    ATTEMPTS,
    NO_NOTES,
    TELL_S,
    Busy,
    Failure,
    Job,
    Left,
    Notes,
    Result,
    check_reserved,
    ended,
    extra,
    following,
    outcome_of,
)

KNOCK_S = 3.0


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Ray tasks: on a running cluster by its address, or on a local one that is started for the sweep.

    Ray retries tasks whose worker or node was lost. `gpus` is a fraction or number of GPUs for a trial.
    """

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
    ) -> Iterator[tuple[Job, Result | Failure] | Busy]:
        task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=ATTEMPTS - 1)(outcome_of)
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
            while len(running) < at_once and (job_left := following(jobs)) is not None:
                running[task.remote(function, job_left[0])] = job_left[0]
            if not running:
                return
            ready = ray.wait(list(running), num_returns=1, timeout=TELL_S)[0]
            if not ready:
                yield Busy(len(running))
            for reference in ready:
                job = running.pop(reference)
                try:
                    yield job, ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield job, Failure(_cluster_reason(error))


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
