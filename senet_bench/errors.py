"""Everything that can go wrong for a user: one class per exit code, each message with its remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterable

NO_MEMORY = "allocate memory"
"""What torch says in a `RuntimeError` when the host has no more: "can't allocate memory", "Cannot allocate memory"."""
LONGEST_PROBLEM = 1500
"""Characters of what is wrong that are shown; a value that a user typed may have thousands."""


class BenchError(Exception):
    """An error a user can act on; `problem` says what is wrong, `remedy` what to do about it."""

    exit_code = 5

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        """The one line shown to the user."""
        problem = f"{self.problem[:LONGEST_PROBLEM]}..." if self.problem[LONGEST_PROBLEM:] else self.problem
        return " ".join((f"{problem}; {self.remedy}" if self.remedy else problem).split())


class UsageError(BenchError):
    """An unknown name, a bad value, a bad configuration or an unreadable file of ours (exit 2)."""

    exit_code = 2


class NotComparableError(BenchError):
    """Two things that must not be put side by side: other hardware, other schema, no baseline (exit 4)."""

    exit_code = 4


class MeasurementError(BenchError):
    """A measurement that could not be made: a crash, out of memory, unreadable data (exit 5)."""

    exit_code = 5


class CallTimeoutError(MeasurementError):
    """Code from outside did not return within the seconds of `--call-timeout` (exit 5)."""


class ArmError(MeasurementError):
    """What one of several things that are timed together cannot do; `arm` names it, and the others go on without it."""

    def __init__(self, arm: str, problem: str, remedy: str = "this row is left out") -> None:
        super().__init__(problem, remedy)
        self.arm = arm


class LostError(MeasurementError):
    """A device failed, or another process of the job died: tried anew, in a new process, it may go on (exit 5)."""


class InterruptedRunError(BenchError):
    """Ctrl-C; what was finished is saved (exit 130)."""

    exit_code = 130


def out_of_memory(error: BaseException) -> bool:
    """Whether the error, or one that it came from, says that memory ran out, on a device or on the host."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, on a device
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and NO_MEMORY in str(error))
        or (error.__cause__ is not None and out_of_memory(error.__cause__))
    )


def device_failed(error: BaseException) -> bool:
    """Whether the error says that a GPU failed, which its process cannot use from then on."""
    cuda = isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "HIP error"))
    return cuda or type(error).__name__ == "AcceleratorError"  # torch's, which is one of those


def one_line(error: BaseException, most: int = 300) -> str:
    """An error in one line of at most `most` characters: ours as it is shown, any other with its type."""
    text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:most]


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something, at most 200 characters; its kind where none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def nearest(name: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.6) -> str:
    """`did you mean resnet50?` for the names most like `name`, empty where none is like it."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)
    return f"did you mean {', '.join(near)}?" if near else ""
