"""Who runs the arms of a launch: one worker that holds all of them, or one for each."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from senet_bench.bench.clock import SLOW_CALL_S
from senet_bench.errors import MeasurementError
from senet_bench.regression.workers import ClockName, Nursery, Orders, PreparedNetwork, Worker, answers

BLOCK_S, MOST_CALLS, FEWEST_CALLS = 1e-3, 64, 4
"""Calls in a row are a block of 1 ms, at most 64; in a process of its own an arm warms up in at least four."""
Value = TypeVar("Value")
SecondsByArm = Mapping[str, Sequence[float]]


class ApartError(MeasurementError):
    """What cannot be timed in one process, because one of the checkouts changes it for the others too."""


@dataclass(frozen=True, slots=True)
class CallBlock:
    """How many calls in a row make up a block of a network, and the clock that times them."""

    calls: int = 1
    clock: ClockName = "wall"


class Host(Protocol):
    """The arms of a launch, ready to be timed; `blocks` are those of the networks, `seconds` their fastest calls."""

    arms: Sequence[str]
    blocks: Sequence[CallBlock]
    seconds: Sequence[float]

    def rounds(self, place: int, orders: Sequence[Sequence[str]]) -> SecondsByArm:
        """Seconds of a block of a network by arm, one of every arm for each of these orders."""

    def leave(self) -> None:
        """Say that the launch is over; raises `ApartError` where what was timed cannot be told apart."""


class Together:
    """One worker that holds every arm: what differs between two processes of the same code is no part of it."""

    def __init__(self, worker: Worker, arms: Mapping[str, Path], work: Orders, clock: ClockName, *, watched: bool):
        self.worker, self.work, self.watched = worker, work, watched
        self.arms: Sequence[str] = list(arms)
        first, *others = (network.request() for network in work.networks)
        order = {"network": first, "others": others, "batch_size": work.batch_size, "watched": watched}
        roots = {arm: str(folder.resolve()) for arm, folder in arms.items()}
        ready = self._answer(list[PreparedNetwork], "lodge", arms=roots, **order)
        self._look()
        self.seconds: Sequence[float] = [one.seconds for one in ready]
        self.blocks: Sequence[CallBlock] = [_block(one, 1, clock) for one in ready]
        _pin([worker])

    def rounds(self, place: int, orders: Sequence[Sequence[str]]) -> SecondsByArm:
        """Seconds of a block of a network by arm, one of every arm for each of these orders."""
        network, block = self.work.networks[place].request(), self.blocks[place]
        order = {"place": place, "orders": orders, "calls": block.calls, "clock": block.clock}
        return self._answer(dict[str, list[float]], "rounds", network=network, **order)

    def leave(self) -> None:
        """Say that the launch is over; raises `ApartError` where one checkout changed something for all."""
        self._look()

    def _look(self) -> None:
        if self.watched and (spoilt := self._answer(list[str], "spoilt", network=self.work.networks[0].request())):
            raise ApartError(f"one checkout changes {spoilt[0]} for the other")

    def _answer(self, kind: type[Value], do: str, **request: object) -> Value:
        try:
            (answer,) = answers([self.worker], kind, do, **request)
        except MeasurementError as error:
            raise ApartError(error.problem) from error
        if answer.value is None:
            raise ApartError(answer.error)
        return answer.value


class Apart:
    """A worker for every arm, of which only one runs at a time."""

    def __init__(self, workers: Mapping[str, Worker], work: Orders, clock: ClockName):
        self.workers = workers
        self.arms: Sequence[str] = list(workers)
        ready = [self._prepared(place, work) for place in range(len(work.networks))]
        self.seconds: Sequence[float] = [one.seconds for one in ready]
        self.blocks: Sequence[CallBlock] = [_block(one, FEWEST_CALLS, clock) for one in ready]
        for worker in workers.values():
            calls, clocks = [one.calls for one in self.blocks], [one.clock for one in self.blocks]
            worker.ask("repeats", repeats=calls, clocks=clocks)
            worker.answer()
        _pin(list(workers.values()))

    def rounds(self, place: int, orders: Sequence[Sequence[str]]) -> SecondsByArm:
        """Seconds of a block of a network by arm, one of every arm for each of these orders."""
        seconds: dict[str, list[float]] = {arm: [] for arm in self.arms}
        for arm in (arm for order in orders for arm in order):
            seconds[arm].append(self.workers[arm].block(place))
        return seconds

    def leave(self) -> None:
        """Say that the launch is over."""

    def _prepared(self, place: int, work: Orders) -> PreparedNetwork:
        """A network once every worker has built it and called it until it gets no faster; whether it waits in one."""
        network = work.networks[place]
        order = {"network": network.request(), "batch_size": work.batch_size}
        ready = []
        for arm, answer in zip(self.arms, answers(list(self.workers.values()), PreparedNetwork, "prepare", **order)):
            if answer.value is None:
                raise MeasurementError(f"{network.name} of {arm} cannot be run: {answer.error}")
            ready.append(answer.value)
        return PreparedNetwork(ready[0].seconds, any(one.waits for one in ready))


@contextlib.contextmanager
def in_one_process(
    arms: Mapping[str, Path], work: Orders, nursery: Nursery, clock: ClockName, *, watched: bool
) -> Iterator[Host]:
    """All arms in a process of their own, in this order; raises `ApartError` where they cannot be."""
    with Worker(None, nursery) as worker:
        yield Together(worker, arms, work, clock, watched=watched)


@contextlib.contextmanager
def in_separate_processes(arms: Mapping[str, Path], work: Orders, nursery: Nursery, clock: ClockName) -> Iterator[Host]:
    """Every arm in a process of its own, started in this order."""
    with contextlib.ExitStack() as stack:
        workers = {arm: stack.enter_context(Worker(folder, nursery)) for arm, folder in arms.items()}
        yield Apart(workers, work, clock)


def _pin(workers: Sequence[Worker]) -> None:
    """Give every worker the same core, where the system lets one choose."""
    from senet_bench.bench.process import idlest_core

    if not hasattr(os, "sched_getaffinity"):
        return
    core = idlest_core(os.sched_getaffinity(0))
    for worker in workers:
        worker.ask("pin", core=core)
        worker.answer()


def _block(ready: PreparedNetwork, fewest: int, clock: ClockName) -> CallBlock:
    """The block of a network: fewer of calls over 5 ms; where they wait for anything it is timed by the wall clock."""
    fewest = min(fewest, max(1, int(SLOW_CALL_S / ready.seconds)))
    calls = min(MOST_CALLS, max(fewest, math.ceil(BLOCK_S / ready.seconds)))
    return CallBlock(calls, "wall" if ready.waits else clock)
