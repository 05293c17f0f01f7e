"""Launches of base and head in worker processes on one core, and the latency rows judged from them.

Processes of the same program differ (addresses, page placement) by far more than the rounds inside them, so a
comparison takes several launches of two workers each of base and head: two pairs, and the twins tell what two processes
of identical code differ by. Importing torch is most of what a worker costs, so they are forked by one process that has,
each with its memory at another place.
The replicates are pairs of processes, not rounds: measured, rounds leave 0.05 % open and processes of identical code
differ by 1 %, now and then by 10 %. Processes of identical code can be swapped, so the sign of a pair's log ratio is
then a fair coin given its size, and the signed-rank test over pairs is valid without a normal distribution.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from senet_bench.bench.clock import SLOW_CALL_S, STOLEN
from senet_bench.core import statistics
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.statistics import Floats
from senet_bench.errors import MeasurementError
from senet_bench.regression.config import CheckedNetwork
from senet_bench.regression.limits import Limit
from senet_bench.regression.outcome import GateVerdict, LimitRow
from senet_bench.regression.worker import BLOCK_S, FEWEST_CALLS, MOST_CALLS
from senet_bench.regression.workers import BLOCK_LIMIT_S, ClockName, Nursery, Orders, PreparedNetwork, Worker, answers

ARMS = ("base", "head", "base_again", "head_again")
FEWEST_PAIRED = 4
"""With fewer rounds a launch has no ratio."""
MOST_ROUNDS = 100
"""More rounds in a launch tell no more: processes differ by ten times what these leave open."""
FEWEST_ROUNDS_OF_A_LAUNCH = 6
BUSY = 5
"""Times its budget that a launch may last where other programs hold the processor."""


@dataclass(frozen=True, slots=True)
class CallBlock:
    """How many calls in a row make up a block of a network, and the clock that times them."""

    calls: int = FEWEST_CALLS
    clock: ClockName = "wall"


@dataclass(frozen=True, slots=True)
class Launched:
    """The kept rounds of a launch of a network: seconds by arm, (rounds,) each; how many were dropped; the clock."""

    seconds: Mapping[str, Floats]
    dropped: int = 0
    clock: ClockName = "wall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launches:
    """How much is timed: launches, seconds for a network in each, the seed of the order; `note` ends the progress.

    After `until`, by the monotonic clock, no launch begins that would not end before, as long as the last one took.
    By the `cpu` clock the CPU time of calls is measured where no arm waits for anything in them and one thread works:
    then what else runs on the machine is no part of it.
    """

    launches: int
    budget_s: float
    seed: int
    note: str = ""
    until: float = math.inf
    clock: ClockName = "wall"


def launch(arms: Mapping[str, Path], work: Orders, schedule: Launches) -> Steps[dict[str, list[Launched]]]:
    """Time every network in each arm's checkout, `launches` long; the samples by network, one a launch."""
    rng = np.random.default_rng(schedule.seed)
    samples: dict[str, list[Launched]] = {network.name: [] for network in work.networks}
    lasted = 0.0
    with Nursery(work) as nursery:
        for number in range(schedule.launches):
            began = time.monotonic()
            if began + lasted > schedule.until:
                break
            with contextlib.ExitStack() as stack:
                order = list(arms) if number % 2 == 0 else list(arms)[::-1]
                started = {arm: stack.enter_context(Worker(arms[arm], nursery)) for arm in order}
                ready = [_prepared(started, network, work.batch_size) for network in work.networks]
                workers = {arm: started[arm] for arm in arms}
                blocks = [_block(one, schedule.clock if work.threads == 1 else "wall") for one in ready]
                _settle(workers, blocks)
                for place, name in enumerate(samples):
                    samples[name].append(_rounds(workers, place, schedule.budget_s, rng, block=blocks[place]))
                    done, total = number * len(samples) + place + 1, schedule.launches * len(samples)
                    yield Progress(f"{name}, launch {number + 1}{schedule.note}", done, total)
            lasted = max(lasted, time.monotonic() - began)
    return samples


def _prepared(workers: Mapping[str, Worker], network: CheckedNetwork, batch_size: int) -> PreparedNetwork:
    """A network once every worker has built it and called it until it gets no faster; whether it waits in one."""
    order = {"network": network.request(), "batch_size": batch_size}
    ready = []
    for arm, answer in zip(workers, answers(list(workers.values()), PreparedNetwork, "prepare", **order)):
        if answer.value is None:
            raise MeasurementError(f"{network.name} of {arm} cannot be run: {answer.error}")
        ready.append(answer.value)
    return PreparedNetwork(ready[0].seconds, any(one.waits for one in ready))


def _settle(workers: Mapping[str, Worker], blocks: Sequence[CallBlock]) -> None:
    """Give every worker the same blocks and the same core."""
    from senet_bench.bench.process import idlest_core

    pinning = hasattr(os, "sched_getaffinity")
    core = idlest_core(os.sched_getaffinity(0)) if pinning else 0
    for worker in workers.values():
        worker.ask("repeats", repeats=[one.calls for one in blocks], clocks=[one.clock for one in blocks])
        worker.answer()
        if pinning:
            worker.ask("pin", core=core)
            worker.answer()


def _block(ready: PreparedNetwork, clock: ClockName) -> CallBlock:
    """The block of a network; where its calls wait it is timed by the wall clock."""
    return CallBlock(_repeats(ready.seconds), "wall" if ready.waits else clock)


def _repeats(seconds: float) -> int:
    """Calls in a block: 2 ms of them, 4 to 64; fewer of calls over 5 ms."""
    fewest = min(FEWEST_CALLS, max(1, int(SLOW_CALL_S / seconds)))
    return min(MOST_CALLS, max(fewest, math.ceil(BLOCK_S / seconds)))


def _rounds(
    workers: Mapping[str, Worker],
    place: int,
    budget_s: float,
    rng: np.random.Generator,
    now: Callable[[], float] = time.perf_counter,
    block: CallBlock = CallBlock(),
) -> Launched:
    """Rounds of every arm in a fresh random order until the budget is used.

    On a busy machine that is until the calls themselves have used it, in at most five times as long.
    """
    from senet_bench.bench.process import stolen_seconds

    names, began, done, dropped, called = list(workers), now(), 0, 0, 0.0
    columns: dict[str, list[float]] = {name: [] for name in names}
    while done < MOST_ROUNDS + dropped and (
        now() - began < (budget_s if called >= budget_s else BUSY * budget_s)
        or done - dropped < FEWEST_ROUNDS_OF_A_LAUNCH
    ):
        if now() - began > 4 * budget_s + BLOCK_LIMIT_S:
            break
        start, stolen = now(), stolen_seconds()
        seconds = {names[i]: workers[names[i]].block(place) for i in rng.permutation(len(names))}
        done, called = done + 1, called + (block.calls + 1) * sum(seconds.values())
        if stolen_seconds() - stolen > STOLEN * (now() - start):
            dropped += 1
            continue
        for name in names:
            columns[name].append(seconds[name])
    return Launched({name: np.array(values) for name, values in columns.items()}, dropped, block.clock)


# --- judged ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One launch of two processes each of base and head: seconds of the kept blocks, (rounds,) each."""

    base: Floats
    head: Floats
    base_again: Floats
    head_again: Floats
    dropped: int = 0

    @staticmethod
    def of(samples: Launched) -> Launch:
        """The launch of the samples of its four arms."""
        return Launch(**samples.seconds, dropped=samples.dropped)

    def pairs(self) -> list[float]:
        """ln(head / base) of its two pairs of processes, by Hodges-Lehmann; nan of too few rounds."""
        return [_log_ratio(self.head, self.base), _log_ratio(self.head_again, self.base_again)]

    def twins(self) -> list[float]:
        """The same of the two processes of the base, and of the head."""
        return [_log_ratio(self.base_again, self.base), _log_ratio(self.head_again, self.head)]


def _log_ratio(arm: Floats, base: Floats) -> float:
    return statistics.hodges_lehmann(np.log(arm / base)) if arm.size >= FEWEST_PAIRED else math.nan


def levels(alpha: float) -> tuple[float, float]:
    """The levels of the look after the launches asked for, and of the one after as many again: alpha together."""
    first = statistics.spent(0.5, alpha)
    return first, alpha - first


def latency_row(network: str, launches: Sequence[Launch], limit: Limit, *, level: float, alpha: float) -> LimitRow:
    """Base against head at one look at `level`; undecided where the control or too many disturbed rounds refuse it."""
    pairs = np.array([pair for one in launches for pair in one.pairs()])
    base, now = (
        float(np.median(np.concatenate([getattr(one, arm) for one in launches for arm in (side, f"{side}_again")])))
        for side in ("base", "head")
    )
    row = LimitRow(
        id=f"{network}/latency",
        network=network,
        metric="latency",
        kind="statistical",
        verdict="inconclusive",
        base=base,
        now=now,
        unit="s",
        gate=limit.stored(),
        rounds=sum(one.base.size for one in launches),
    )
    if not np.isfinite(pairs).all():
        return replace(row, reason="too few rounds in a launch; increase --budget")
    allowed = limit.fraction(base)
    judged = statistics.judge(pairs, gate=allowed, level=level, alpha=alpha)
    verdicts: dict[str, GateVerdict] = {"regressed": "fail", "ok": "pass"}
    row = replace(
        row,
        verdict=verdicts.get(judged.verdict, "inconclusive") if limit.judged else "info",
        reason=_told(judged, allowed),
        ratio=judged.ratio,
        ci=judged.ci,
        confidence=judged.confidence,
        p_worse=judged.p_worse,
        p_ok=judged.p_ok,
        launches=[float(value) for value in pairs],
        tau=statistics.spread(pairs),
        mde80=judged.mde if math.isfinite(judged.mde) else None,
    )
    return _controlled(row, launches, allowed) if limit.judged else row


def _told(judged: statistics.Judgement, allowed: float) -> str:
    change = f"{100 * (judged.ratio - 1):+.2f} % (gate +{100 * allowed:.3g} %)"
    if not judged.enough:
        return f"{change}; too few --launches to decide at this level"
    return f"{change}; these launches see what lies {100 * judged.mde:.2g} % from the gate"


def _controlled(row: LimitRow, launches: Sequence[Launch], allowed: float) -> LimitRow:
    """The row, undecided where processes of identical code differ or too many rounds were disturbed."""
    rounds = sum(one.base.size + one.dropped for one in launches)
    dropped = sum(one.dropped for one in launches) / rounds if rounds else 1.0
    if dropped > statistics.MOST_DROPPED:
        return replace(row, verdict="inconclusive", reason=statistics.disturbed(dropped))
    twins = [pair for one in launches for pair in one.twins()]
    judged = statistics.judge(twins, gate=None, level=statistics.CONTROL_LEVEL, alpha=statistics.CONTROL_LEVEL)
    held = not statistics.control_failed(twins, allowed)
    row = replace(row, control_ratio=judged.ratio, control_ci=judged.ci, control_ok=held)
    if not held:
        reason = "control failed: processes of identical code differ by the order in which they were started"
        return replace(row, verdict="inconclusive", reason=reason)
    return row


def confirmed(first: LimitRow, second: LimitRow) -> LimitRow:
    """A failed latency row after a second measurement at the same level: failed only if both did."""
    if second.verdict == "fail":
        return replace(first, reason=f"{first.reason}; confirmed by a second measurement")
    why = "seen once and not again in a second measurement"
    return replace(second, verdict="inconclusive", reason=f"{second.reason}; {why}")


def after_holm(rows: Sequence[LimitRow], alpha: float) -> list[LimitRow]:
    """The rows with p adjusted over those that were tested; a failure that does not survive is undecided."""
    tested = [place for place, row in enumerate(rows) if row.p_worse is not None and row.verdict != "info"]
    judged = list(rows)
    for place, p in zip(tested, statistics.holm([rows[place].p_worse or 0.0 for place in tested])):
        judged[place] = replace(rows[place], p_holm=p)
        if rows[place].verdict == "fail" and p > alpha:
            why = f"{rows[place].reason}; not significant over {len(tested)} comparisons"
            judged[place] = replace(judged[place], verdict="inconclusive", reason=why)
    return judged
