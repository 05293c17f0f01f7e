"""Trials as jobs of Slurm, submitted by submitit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from senet_bench.run.engines import NO_NOTES, Busy, Failure, Job, Left, Notes, Result, check_reserved, ended
from senet_bench.run.slurm_jobs import SlurmJobs
from senet_bench.run.slurm_submission import Submission

GPU_OPTIONS = {"gpus_per_node", "slurm_gpus_per_node", "slurm_gres", "slurm_gpus_per_task"}
"""What of submitit's options reserves GPUs."""


@dataclass(frozen=True, slots=True)
class Slurm:
    """Slurm jobs by submitit, one a trial; `options` go to its executor (timeout_min, slurm_partition, ...).

    Jobs that are submitted together are the tasks of an array, `at_once` of them at most. With `detach` all jobs are
    submitted and left there. `cluster="local"` runs them as processes of this machine.
    """

    remote: ClassVar[bool] = True
    AT_ONCE: ClassVar[int] = 64
    folder: Path
    at_once: int = AT_ONCE
    cluster: str = "slurm"
    options: dict[str, Any] = field(default_factory=dict)
    detach: bool = False

    def at_a_time(self) -> int:
        """How many jobs are submitted at a time."""
        return self.at_once

    def check(self, device: str) -> None:
        """Raise `UsageError` unless GPUs are reserved just when trials run on them."""
        check_reserved(device, reserves=bool(GPU_OPTIONS & self.options.keys()))

    def run(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Each job with its result or failure, in the order they end."""
        return ended(self.watched(function, jobs))

    def watched(
        self, function: Callable[[Job], Result], jobs: Iterator[Job], notes: Notes[Job] = NO_NOTES
    ) -> Iterator[tuple[Job, Result | Failure | Left] | Busy]:
        """The same, with those left behind, and about every second how many run and wait.

        A job that the notes know and Slurm has, or whose result lies there, is not submitted again.
        """
        submission = Submission(self.folder, self.cluster, self.options, self.at_once)
        jobs_of_slurm = SlurmJobs(submission, function, notes, detach=self.detach)
        try:
            yield from jobs_of_slurm.left(jobs) if self.detach else jobs_of_slurm.watched(jobs)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(jobs_of_slurm.given_up()) from error
        finally:
            jobs_of_slurm.given_up()
