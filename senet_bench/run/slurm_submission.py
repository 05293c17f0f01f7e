"""Jobs handed over to Slurm by submitit, from a folder of this front end alone; what is said where Slurm refuses."""

from __future__ import annotations

import contextlib
import io
import logging
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from senet_bench.errors import UsageError, one_line
from senet_bench.run import slurm_queue
from senet_bench.run.engines import Job, Result, extra
from senet_bench.run.slurm_job import SlurmTask

DAY_MINUTES = 24 * 60
REQUEUES = 1000
"""How often a job may reach its time limit, each time going on from its checkpoint."""
OPTIONS_HINT = (
    "give another --engine-option, such as slurm_partition=gpu, timeout_min=60, mem_gb=8,"
    " or wait where other jobs of yours fill a limit"
)
NOT_TAKEN = (RuntimeError, TypeError, ValueError, KeyError, NameError, AssertionError)
"""What submitit raises where it cannot be used, or has no such option, or not with this value."""


class Submission:
    """What submits jobs, by submitit's executor; at most `at_once` tasks of an array run together.

    Each front end has a `folder` of its own in the one that is given, as Slurm's job numbers may come again.
    """

    def __init__(self, folder: Path, cluster: str, options: Mapping[str, Any], at_once: int) -> None:
        submitit = extra("submitit")
        _say_on_stderr(logging.getLogger("submitit"))
        self.folder = folder.absolute() / f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}"
        self.real, self.options, self.at_once = cluster == "slurm", options, at_once
        try:
            self.executor: Any = submitit.AutoExecutor(
                folder=self.folder, cluster=cluster, slurm_max_num_timeout=REQUEUES
            )
        except NOT_TAKEN as error:
            raise UsageError(f"Slurm cannot be used here ({one_line(error)})", "is sbatch on the PATH?") from error
        self._set_options({"timeout_min": self._minutes(), "slurm_array_parallelism": at_once, **options})

    def handed_over(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> tuple[list[str], list[Any]]:
        """The tokens of jobs and submitit's handles of them, tasks of an array where there are several.

        Raises what submitit makes of sbatch's refusal; nothing is left then of what was written for them.
        """
        token = secrets.token_hex(8)
        self._set_options({"name": f"{self.options.get('name', 'senet-bench')}-{token}"})
        tokens = [f"{token}-{place}" for place in range(len(jobs))]
        together = self.executor.batch() if len(jobs) > 1 and self.real else contextlib.nullcontext()
        try:
            with contextlib.redirect_stderr(io.StringIO()), together:  # sbatch's words are part of the error
                handles = [self.executor.submit(SlurmTask(), own, function, job) for own, job in zip(tokens, jobs)]
        except Exception:
            self._discard()
            raise
        return tokens, handles

    def refusal(self, error: Exception) -> UsageError:
        """What was asked and what Slurm or submitit says to it."""
        typed = ", ".join(f"{name}={value}" for name, value in self.options.items()) or "its defaults"
        lines = [line.removeprefix("sbatch: error: ").strip() for line in str(error).splitlines() if "error:" in line]
        said = "; ".join(lines) or one_line(error)
        return UsageError(f"Slurm refuses jobs with {typed} ({said})", OPTIONS_HINT)

    def _set_options(self, options: dict[str, Any]) -> None:
        try:
            self.executor.update_parameters(**options)
        except NOT_TAKEN as error:
            raise self.refusal(error) from error

    def _minutes(self) -> int:
        """The time limit of jobs unless another is asked for: a day, or less where the partition allows less."""
        if not self.real:
            return DAY_MINUTES
        named = self.options.get("slurm_partition")
        return min(DAY_MINUTES, slurm_queue.longest_minutes(str(named) if named else None) or DAY_MINUTES)

    def _discard(self) -> None:
        """Remove what submitit wrote for jobs that were refused: files that no job's number was put before."""
        scripts = (path for path in self.folder.glob(".submission_file_*.sh") if not path.is_symlink())
        for path in (*scripts, *(path for path in self.folder.glob("*.pkl") if "_" not in path.stem)):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there are jobs that were taken, or there is no folder yet
            self.folder.rmdir()


def _say_on_stderr(logger: logging.Logger) -> None:
    """Let a library's logger tell errors alone, and on stderr, as stdout is for results."""
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
