"""What Slurm says of its queue and of single jobs, asked with its own commands; accounting is not needed for it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from senet_bench.core.learning import Submitted

ANSWERS_WITHIN_S = 20.0
"""Seconds that a command of Slurm may take."""
MINUTES_OF_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that waits or runs: its name, state, why it waits, and the nodes that it runs on."""

    name: str
    state: str
    reason: str
    node: str


def queued() -> dict[str, QueuedJob] | None:
    """The jobs of this user that wait or run, by their numbers; None where Slurm does not answer.

    A task of an array has the number of the array and its own: 12_3.
    """
    answer = _answer("squeue", "--me", "--noheader", "--array", "--format=%F|%K|%j|%T|%r|%N")
    if answer is None:
        return None
    fields = [[part.strip() for part in line.split("|")] for line in answer.splitlines()]
    return {
        f"{number}_{task}" if task.isdigit() else number: QueuedJob(*facts)
        for number, task, *facts in (parts for parts in fields if len(parts) == 6)
    }


def is_of(job: QueuedJob | None, note: Submitted) -> bool:
    """Whether a job is the one that was noted: its name has the token of the submission, before the hyphen."""
    return job is not None and note.token.partition("-")[0] in job.name


def end_of(number: str) -> QueuedJob | None:
    """How a job is remembered that is in no queue any more, by the controller or by accounting; None by neither."""
    answer = _answer("scontrol", "--oneliner", "show", "job", number)
    if answer:
        facts = dict(part.split("=", 1) for part in answer.split() if "=" in part)
        return QueuedJob(
            facts.get("JobName", ""), facts.get("JobState", ""), facts.get("Reason", ""), facts.get("NodeList", "")
        )
    lines = (_answer("sacct", "-X", "-n", "-P", "-o", "JobName,State,NodeList", "-j", number) or "").splitlines()
    parts = lines[0].split("|") if lines else []
    return QueuedJob(parts[0], parts[1], "", parts[2]) if len(parts) == 3 else None


def controller_answers() -> bool:
    """Whether Slurm's controller answers."""
    return _answer("scontrol", "ping") is not None


def longest_minutes(partition: str | None) -> int | None:
    """The time limit of a partition, of the default one where none is named; None where there is no limit known."""
    answer = _answer("sinfo", "--noheader", "--format=%P|%l", *((f"--partition={partition}",) if partition else ()))
    for line in (answer or "").splitlines():
        name, _, limit = line.strip().partition("|")
        time = MINUTES_OF_TIME.fullmatch(limit)
        if time is not None and (partition is not None or name.endswith("*")):
            days, hours, minutes = (int(time[unit] or 0) for unit in ("days", "hours", "minutes"))
            return (days * 24 + hours) * 60 + minutes or None
    return None


def cancel(numbers: Iterable[str]) -> bool:
    """Cancel jobs; whether Slurm took it."""
    wanted = list(numbers)
    return not wanted or _answer("scancel", *wanted) is not None


def withdrawn(noted: Iterable[Submitted]) -> int:
    """Cancel those noted jobs of Slurm that still wait or run; how many there were. Another's of its number stays."""
    ours = [note for note in noted if note.engine == "slurm"]
    there = queued() if ours else None
    numbers = [note.id for note in ours if there and is_of(there.get(note.id), note)]
    cancel(numbers)
    return len(numbers)


def _answer(*command: str) -> str | None:
    """What a command prints; None where it is not there, fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERS_WITHIN_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
