"""Trials as jobs of Slurm, submitted by submitit."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from senet_bench.errors import UsageError, one_line
from senet_bench.run.engines import (
    ATTEMPTS,
    POLL_S,
    Died,
    Failure,
    Job,
    Result,
    check_reserved,
    ended,
    extra,
    following,
    outcome_of,
)

GPU_OPTIONS = {"gpus_per_node", "slurm_gpus_per_node", "slurm_gres", "slurm_gpus_per_task"}
"""What of submitit's options reserves GPUs."""
ASKED_S = 5.0
"""Seconds that Slurm has to say what is in its queue."""


def job_name() -> str:
    """What the jobs of this process are called in Slurm's queue."""
    return f"senet-bench-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Slurm:
    """Slurm jobs by submitit, one a trial; `options` go to its executor (timeout_min, slurm_partition, ...).

    `cluster="local"` runs them as processes of this machine instead, as the tests do.
    """

    folder: Path
    at_once: int = 64
    cluster: str = "slurm"
    options: dict[str, Any] = field(default_factory=dict)

    def at_a_time(self) -> int:
        """How many jobs are submitted at a time."""
        return self.at_once

    def check(self, device: str) -> None:
        """Raise `UsageError` unless GPUs are reserved just when trials run on them."""
        check_reserved(device, reserves=bool(GPU_OPTIONS & self.options.keys()))

    def queue(self) -> str:
        """How many jobs of this process wait in Slurm's queue, and why: `5 pending (Resources)`."""
        command = ["squeue", "--me", "--noheader", f"--name={job_name()}", "--format=%T|%r"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=ASKED_S, check=True)  # noqa: S603
        except (OSError, subprocess.SubprocessError):  # no squeue here, or none that answers
            return ""
        pending = [line.partition("|")[2].strip() for line in told.stdout.splitlines() if line.startswith("PENDING")]
        reasons = ", ".join(dict.fromkeys(filter(None, pending)))
        return f"{len(pending)} pending" + (f" ({reasons})" if reasons else "") if pending else ""

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""
        return ended(self.watched(function, jobs))

    def watched(
        self, function: Callable[[Job], Result], jobs: Iterator[Job]
    ) -> Iterator[tuple[Job, Result | Failure] | None]:
        """The same, and None about every second while none ends."""
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
        submitit = extra("submitit")
        for handler in logging.getLogger("submitit").handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
                handler.setStream(sys.stderr)
        folder = self.folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}"
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        except (RuntimeError, TypeError, ValueError, KeyError, NameError) as error:
            raise UsageError(f"Slurm cannot be used here ({one_line(error)})", "is sbatch on the PATH?") from error
        try:
            executor.update_parameters(**({"timeout_min": 24 * 60, "name": job_name()} | self.options))
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
    ) -> Iterator[tuple[Job, Result | Failure] | None]:
        while True:
            while len(running) < self.at_once and (job_left := following(jobs)) is not None:
                submitted = self._submit(executor, function, *job_left)
                running[submitted.handle] = submitted
            if not running:
                return
            done = [handle for handle in running if handle.done()]
            if not done:
                time.sleep(POLL_S)
                yield None
            for handle in done:
                submitted = running.pop(handle)
                outcome = submitted.outcome()
                if not isinstance(outcome, Died):
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
        """What its function gave, `Died` where that is lost or the result of another job."""
        failed = self.handle.exception()
        if failed is not None:
            return Died(one_line(failed))
        answer = self.handle.result()
        if not isinstance(answer, tuple) or answer[0] != self.token:
            return Died("the result in its folder is of another job")
        return answer[1]


class _Answer:
    """What a Slurm job runs: the function of a job, its outcome given back with the token it was submitted with."""

    def __call__(self, token: str, function: Callable[[Job], Result], job: Job) -> tuple[str, Result | Failure]:
        """The token and the outcome."""
        return token, outcome_of(function, job)

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
