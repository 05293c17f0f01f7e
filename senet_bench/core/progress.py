"""How a command tells where it is: a generator yields `Progress` alone and returns its result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a command: what is being done, and `done` steps of `total` (a fraction while one runs).

    `path` is where everything finished so far is stored, None where nothing is. A `forecast` says how long
    it will take. `remedy` is how to go on from here after an interruption.
    """

    what: str
    done: float
    total: float
    path: Path | None = None
    forecast: bool = False
    remedy: str = ""


Steps: TypeAlias = Generator[Progress, None, Result]
"""A generator of progress that returns a result: `result = yield from steps`."""


def result_of(steps: Steps[Result]) -> Result:
    """The result of some steps, run to their end with nobody told of their progress."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def retold(steps: Steps[Result], tell: Callable[[Progress], Progress]) -> Steps[Result]:
    """The result of inner steps; each of them is yielded as the moment of the whole that `tell` makes of it."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        yield tell(step)
