"""The jobs of one front end under Slurm: submitted as there is room, looked for in the queue, their results taken."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from senet_bench.core.learning import Submitted
from senet_bench.errors import MeasurementError, UsageError, one_line
from senet_bench.run import slurm_queue
from senet_bench.run.engines import (
    ATTEMPTS,
    POLL_S,
    Busy,
    Died,
    Failure,
    Job,
    Left,
    Notes,
    Result,
    extra,
    following,
)
from senet_bench.run.slurm_queue import QueuedJob
from senet_bench.run.slurm_submission import Submission

ASK_S = 4.0
"""Seconds between two looks at Slurm's queue; a job that is missing in two of them, without a result, is lost."""


@dataclass(slots=True)
class _Running:
    """A job that was submitted: what it does, its note, submitit's handle of it, and how it is missed in the queue."""

    job: Any
    note: Submitted
    handle: Any
    absences: int = 0

    @property
    def has_result(self) -> bool:
        """Whether its result lies in its folder."""
        result: bool = self.handle.paths.result_pickle.exists()
        return result

    def silent_since(self) -> float | None:
        """When its log last had a line, in seconds since the epoch; None where there is none."""
        times = [0.0]
        for log in (self.handle.paths.stderr, self.handle.paths.stdout):
            with contextlib.suppress(OSError):
                times.append(log.stat().st_mtime)
        return max(times) or None

    def outcome(self) -> Any:
        """What its function gave; `Died` where that is lost, or the result is another job's."""
        try:
            failed = self.handle.exception()
            answer = None if failed is not None else self.handle.result()
        except Exception as error:  # noqa: BLE001 - what an earlier version wrote is unpickled as it likes
            return Died(f"its result is of another version of senet-bench and cannot be read ({one_line(error)})")
        if failed is not None:
            return Died(_last_error(failed))
        if not isinstance(answer, tuple) or answer[0] != self.note.token:
            return Died("the result in its folder is of another job")
        return answer[1]


class SlurmJobs(Generic[Job, Result]):
    """The jobs of a front end under Slurm."""

    def __init__(
        self, submission: Submission, function: Callable[[Job], Result], notes: Notes[Job], *, detach: bool
    ) -> None:
        self.submission, self.function, self.notes, self.detach = submission, function, notes, detach
        self.at_once, self.real = submission.at_once, submission.real
        self.running: dict[str, _Running] = {}
        self.behind = 0
        self.room = self.together = self.at_once
        self.next: list[tuple[Job, int]] = []
        self.again, self.why = 0, ""
        self.queue: dict[str, QueuedJob] | None = self._queued()
        self.asked_at = time.time()

    def watched(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure | Left] | Busy]:
        """Submit jobs and take up those that are known, as there is room, until all have ended."""
        while True:
            if not self.running:  # else there is room for as many as Slurm took
                self.room = self.together = self.at_once
            while fresh := self._fresh(jobs, self.room):
                self._submit(fresh)
            if not self.running:
                return
            done = [*self._ended()]
            if not done:
                time.sleep(POLL_S)
                yield self._busy()
            yield from done

    def left(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Result | Failure | Left]]:
        """Submit all jobs, take what has ended of those that are known, and leave the others."""
        takes_more = True
        while takes_more:
            if fresh := self._fresh(jobs, self.at_once):
                takes_more = self._submit(fresh)
            elif not self.running:
                return
            yield from self._ended()
            notes = [(running.job, Left(running.note)) for running in self.running.values()]
            self.behind += len(notes)
            self.running.clear()
            yield from notes

    def given_up(self) -> str:
        """Cancel what runs, unless it is to be left; what was done, in words."""
        numbers = [number for number, running in self.running.items() if not running.has_result]
        if self.detach:
            left = self.behind + len(numbers)
            return f"{left} Slurm jobs are left, the same command takes them up" if left else ""
        handles = {number: self.running[number].handle for number in numbers}
        self.running.clear()
        if self.real:
            cancelled = slurm_queue.cancel(numbers)
        else:
            cancelled = True
            for handle in handles.values():
                handle.cancel()
        if cancelled:
            return f"{len(numbers)} Slurm jobs are cancelled"
        return f"Slurm does not answer; cancel its jobs: scancel {' '.join(numbers)}"

    def _fresh(self, jobs: Iterator[Job], most: int) -> list[tuple[Job, int]]:
        """The next jobs that are to be submitted, with the attempts they are; those that are known are taken up.

        With what runs they are `most` at most, and no more than Slurm takes together.
        """
        fresh: list[tuple[Job, int]] = []
        while len(fresh) < self.together and len(self.running) + len(fresh) < most:
            taken = self.next.pop(0) if self.next else following(jobs)
            if taken is None:
                break
            job, attempt = taken
            known = self.notes.read(job) if attempt == 1 else None
            if known is None or not self._taken_up(job, known):
                fresh.append(taken)
        return fresh

    def _taken_up(self, job: Job, note: Submitted) -> bool:
        """Whether a job that was noted is still there, or its result."""
        if note.engine != "slurm" or not self.real:
            return False
        running = _Running(job, note, extra("submitit").SlurmJob(folder=note.folder, job_id=note.id))
        listed = (self.queue or {}).get(note.id)
        if slurm_queue.is_of(listed, note) or running.has_result or self.queue is None:
            self.running[note.id] = running
            return True
        return False

    def _submit(self, fresh: list[tuple[Job, int]]) -> bool:
        """Submit jobs together, or as many of them as Slurm takes, the others later; whether it took any."""
        while fresh:
            try:
                tokens, handles = self.submission.handed_over(self.function, [job for job, _ in fresh])
            except Exception as error:  # sbatch's refusals come as several types
                self._check_controller(error)
                half = len(fresh) // 2
                if not half and not self.running and not self.behind:
                    raise self.submission.refusal(error) from error
                self.next = [*fresh[half:], *self.next]
                fresh, self.together = fresh[:half], max(1, half)
            else:
                self._note(fresh, tokens, handles)
                return True
        self.room = len(self.running)
        return False

    def _check_controller(self, error: Exception) -> None:
        """Raise `MeasurementError` where Slurm refuses nothing but does not answer."""
        if self.real and not slurm_queue.controller_answers():
            raise MeasurementError(
                f"Slurm's controller does not answer ({len(self.running)} jobs are with it)",
                "the same command takes up what is there, once it answers",
            ) from error

    def _note(self, fresh: list[tuple[Job, int]], tokens: list[str], handles: list[Any]) -> None:
        """Note which jobs of Slurm these are; they run from now on."""
        for (job, attempt), token, handle in zip(fresh, tokens, handles):
            paths = getattr(handle, "paths", None)
            note = Submitted(
                engine="slurm",
                id=str(handle.job_id),
                token=token,
                folder=str(self.submission.folder),
                attempt=attempt,
                state="PENDING",
                log=str(paths.stderr) if paths else "",
                submitted=time.time(),
            )
            self.notes.write(job, note)
            self.running[note.id] = _Running(job, note, handle)

    def _queued(self) -> dict[str, QueuedJob] | None:
        """Slurm's queue; of the pretended cluster the jobs that have not ended."""
        if self.real:
            return slurm_queue.queued()
        alive = {number: one for number, one in self.running.items() if not one.handle.done()}
        return {number: QueuedJob(one.note.token, "RUNNING", "", "") for number, one in alive.items()}

    def _look(self) -> None:
        """Ask for the queue where that is due, and note where jobs are."""
        if time.time() - self.asked_at < ASK_S:
            return
        self.queue, self.asked_at = self._queued(), time.time()
        if self.queue is None:
            return
        for number, running in self.running.items():
            listed = self.queue.get(number)
            here = slurm_queue.is_of(listed, running.note)
            running.absences = 0 if here else running.absences + 1
            if listed is not None and here:
                self._noted(running, listed)

    def _noted(self, running: _Running, listed: QueuedJob) -> None:
        now = replace(running.note, state=listed.state, node=listed.node or running.note.node)
        if now != running.note:
            running.note = now
            self.notes.write(running.job, now)

    def _ended(self) -> Iterator[tuple[Job, Result | Failure]]:
        """The jobs that have ended since, submitted again where they were lost."""
        self._look()
        ended_now = [number for number, one in self.running.items() if one.has_result or one.absences > 1]
        for number in ended_now:
            running = self.running.pop(number)
            outcome = running.outcome() if running.has_result else self._lost(running)
            if not isinstance(outcome, Died):
                yield running.job, outcome
            elif running.note.attempt < ATTEMPTS:
                self.again, self.why = self.again + 1, outcome.cause
                self.next.append((running.job, running.note.attempt + 1))
            else:
                cause = f"its Slurm job failed {ATTEMPTS} times: {outcome.cause}"
                yield running.job, Failure(cause)

    def _lost(self, running: _Running) -> Died:
        """Why a job is in the queue no more and has left no result; raises where its node does not see its folder."""
        end = slurm_queue.end_of(running.note.id) if self.real else None
        known = end if slurm_queue.is_of(end, running.note) else None
        node = (known.node if known else "") or running.note.node
        logged = any(Path(running.note.folder).glob(f"{running.note.id}_*_log.*"))
        if node and not logged and known is not None and known.state in ("FAILED", "COMPLETED"):
            raise UsageError(
                f"node {node} does not see {running.note.folder}, where its job should have left a log",
                "name a folder that all nodes share with --results",
            )
        where = f" on {node}" if node else ""
        return Died(f"{known.state if known else 'gone from the queue'}{where}, without a result")

    def _busy(self) -> Busy:
        """How many of our jobs run and wait."""
        listed = [job for job in map((self.queue or {}).get, self.running) if job is not None]
        reasons = [job.reason for job in listed if job.state == "PENDING"]
        why = dict.fromkeys(reason for reason in reasons if reason not in ("", "None"))
        if self.queue is None:
            why = {"squeue does not answer": None}
            return Busy(0, len(self.running), tuple(why))
        runs = {number for number, job in self.queue.items() if job.state in ("RUNNING", "COMPLETING", "SUSPENDED")}
        running = [job for number, job in self.running.items() if number in runs]
        silences = list(filter(None, (job.silent_since() for job in running)))
        silent = max(0.0, time.time() - min(silences)) if silences and self.real else None
        again = f"{self.again} submitted again (last: {self.why})" if self.again else ""
        return Busy(len(running), len(self.running) - len(running), tuple(why), silent, again)


def _last_error(error: Exception) -> str:
    """The last line of a job's traceback that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    errors = [line for line in lines if line and not line.startswith(("---", "You can check", "- /", "or at paths"))]
    return (errors[-1] if errors else one_line(error))[:300]
