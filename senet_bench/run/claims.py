"""Trials carried out by an engine, each claimed by one process, stored under its key, and taken over where one dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from senet_bench.core.learning import Submitted, TrialResult
from senet_bench.core.store import TrialStore, key_of
from senet_bench.run.engines import Busy, Engine, Failure, Left

if TYPE_CHECKING:
    from filelock import FileLock

ELSEWHERE_S = 0.5
AnyTrial = TypeVar("AnyTrial")


@dataclass(frozen=True, slots=True)
class Claimed(Generic[AnyTrial]):
    """A trial that is not stored, its key, and the function that gives what decides its result."""

    key: str
    trial: AnyTrial
    definition: Callable[[AnyTrial], dict[str, Any]]


class _Claims(Generic[AnyTrial]):
    """Trials to run, handed out unless another process has them; those are left in `elsewhere`."""

    def __init__(self, kept: TrialStore, planned: Iterable[Claimed[AnyTrial]]) -> None:
        self.kept, self.planned = kept, planned
        self.held: dict[AnyTrial, tuple[str, dict[str, Any], FileLock]] = {}
        self.elsewhere: list[Claimed[AnyTrial]] = []

    def __iter__(self) -> Iterator[AnyTrial]:
        for planned in self.planned:
            lock = self.kept.claim(planned.key)
            if lock is not None and self.kept.get(planned.key) is None:
                self.held[planned.trial] = (planned.key, planned.definition(planned.trial), lock)
                yield planned.trial
                continue
            if lock is not None:  # finished since it was planned
                lock.release()
            self.elsewhere.append(planned)

    def settle(self, trial: AnyTrial, outcome: TrialResult | Failure | Left, about: Mapping[str, Any]) -> None:
        """Store the outcome of a trial and give up its claim; of one that is left its note stays."""
        key, defined, lock = self.held.pop(trial)  # as it was when it began: her code may have been edited since
        if isinstance(outcome, Failure):
            self.kept.note(key, None)
        elif not isinstance(outcome, Left):
            self.kept.put(key_of(defined), defined, outcome, about)
        lock.release()

    def read(self, job: AnyTrial) -> Submitted | None:
        """Which job of a cluster a trial is that this process has."""
        return self.kept.submitted(self.held[job][0])

    def write(self, job: AnyTrial, submitted: Submitted) -> None:
        """Note which job of a cluster a trial is."""
        self.kept.note(self.held[job][0], submitted)


@dataclass(frozen=True, slots=True)
class InProgress(Generic[AnyTrial]):
    """The trials that were begun, none of which has ended just now, and how many of them run and wait."""

    trials: tuple[AnyTrial, ...]
    busy: Busy


def carried_out(
    engine: Engine,
    kept: TrialStore,
    function: Callable[[AnyTrial], TrialResult],
    todo: Sequence[Claimed[AnyTrial]],
    about: Mapping[str, Any],
) -> Iterator[tuple[AnyTrial, TrialResult | Failure]]:
    """Each trial with its outcome, stored; not those that are left with a cluster."""
    for moment in watched(engine, kept, function, todo, about):
        if not isinstance(moment, InProgress) and not isinstance(moment[1], Left):
            yield moment[0], moment[1]


def watched(
    engine: Engine,
    kept: TrialStore,
    function: Callable[[AnyTrial], TrialResult],
    todo: Sequence[Claimed[AnyTrial]],
    about: Mapping[str, Any],
) -> Iterator[tuple[AnyTrial, TrialResult | Failure | Left] | InProgress[AnyTrial]]:
    """Each trial with its outcome, stored, and now and then which of them run.

    One that another process runs is waited for, and run if that one dies.
    """
    while todo:
        claims = _Claims(kept, todo)
        for moment in engine.watched(function, iter(claims), claims):
            if isinstance(moment, Busy):
                yield InProgress(tuple(claims.held), moment)
                continue
            claims.settle(*moment, about)
            yield moment
        results = [(planned, kept.get(planned.key)) for planned in claims.elsewhere]
        yield from ((planned.trial, result) for planned, result in results if result is not None)
        todo = [planned for planned, result in results if result is None]
        if todo:
            time.sleep(ELSEWHERE_S)
