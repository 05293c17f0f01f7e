"""Questions that need torch, answered by a process of its own, so that the front end of a sweep need not load it.

torch takes some 500 MB, and the front end of a cluster's sweep waits for hours. What it must know of networks, data and
devices it asks before the first trial. Then that process trains, where trials run in processes of this machine, as
it has loaded torch already; else it ends, and its memory is given back.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from senet_bench.errors import BenchError, MeasurementError
from senet_bench.run.engines import Died, Failure
from senet_bench.run.worker import Worker

Value = TypeVar("Value")


@dataclass(slots=True)
class _Desk:
    """Who answers: this process unless it is `apart`, then the worker, which is started for the first question.

    Answers are kept in `known` for as long as it is `apart`.
    """

    apart: bool = False
    worker: Worker | None = None
    known: dict[Hashable, Any] = field(default_factory=dict)

    def given_up(self) -> Worker | None:
        """The worker, if there is one, which is not the desk's any more."""
        worker, self.worker = self.worker, None
        return worker

    def end(self) -> None:
        """End the worker, if there is one."""
        if (worker := self.given_up()) is not None:
            worker.end(idle=True)


_DESK = _Desk()


@contextlib.contextmanager
def apart(*, wanted: bool = True) -> Iterator[None]:
    """Questions are answered by another process meanwhile, where that is `wanted` and torch is not loaded here."""
    if not wanted or _DESK.apart or "torch" in sys.modules:
        yield
        return
    _DESK.apart = True
    try:
        yield
    finally:
        _DESK.end()
        _DESK.apart = False
        _DESK.known.clear()


def answer(function: Callable[..., Value], *arguments: Hashable) -> Value:
    """What a function of a module without torch gives for these arguments, which may load it; raises as it does."""
    if not _DESK.apart or "torch" in sys.modules:
        return function(*arguments)
    question = (function, arguments)
    if question not in _DESK.known:
        _DESK.known[question] = _answered_apart(function, arguments)
    value: Value = _DESK.known[question]
    return value


def all_answered() -> None:
    """End the process that answers; another one is started where there is a question after all."""
    _DESK.end()


def taken_over() -> Worker | None:
    """The process that answered, for jobs of the caller's, which ends it; None where there is none."""
    return _DESK.given_up()


def _answered_apart(function: Callable[..., Any], arguments: tuple[Hashable, ...]) -> Any:
    worker = _DESK.worker = _DESK.worker or Worker()
    worker.give(_value_or_error, (function, arguments))
    match worker.take():
        case Died(cause=cause):
            _DESK.end()
            raise MeasurementError(
                f"the process that prepares the trials ended ({cause})", "free some memory, or see `senet-bench doctor`"
            )
        case Failure(reason=reason):
            raise RuntimeError(reason)
        case BenchError() as error:
            raise error
        case value:
            return value


def _value_or_error(question: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    """The value of a function, or the error that a user can act on."""
    function, arguments = question
    try:
        return function(*arguments)
    except BenchError as error:
        return error
