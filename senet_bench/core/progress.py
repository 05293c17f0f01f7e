"""How a command tells where it is: a generator yields `Progress` alone and returns its result."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
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


def in_turn(several: Sequence[Steps[Result]], begun: float, seed: int = 0) -> Steps[list[Result]]:
    """The results of several steps, each of which is taken one step further, in random order, until all have ended.

    Every one of them tells of itself as what goes from `begun` to one more; together they go on by as many as they are.
    """
    results, parts, dice = dict[int, Result](), [begun] * len(several), random.Random(seed)  # noqa: S311
    try:
        while left := [place for place in range(len(several)) if place not in results]:
            for place in dice.sample(left, len(left)):
                try:
                    step = next(several[place])
                except StopIteration as end:
                    results[place], parts[place] = end.value, begun + 1
                else:
                    parts[place] = step.done
                    yield replace(step, done=begun + sum(part - begun for part in parts))
    finally:
        for steps in several:
            steps.close()
    return [results[place] for place in range(len(several))]


def retold(steps: Steps[Result], tell: Callable[[Progress], Progress]) -> Steps[Result]:
    """The result of inner steps; each of them is yielded as the moment of the whole that `tell` makes of it."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        yield tell(step)
