"""Launches of base and head, and the latency rows judged from them.

A launch is a fresh process that holds base and head twice each, its memory at another place than that of the last:
two pairs, and the twins tell what two copies of identical code differ by. Calls of the four take turns, so that what
else runs on the machine meets all of them; on a busy one a call takes up to three times as long as the next, and many
more of them are needed. Where base and head cannot live in one process, each gets one of its own; processes of
identical code differ by 1 %, now and then by 10 %.
The replicates are the pairs, not the rounds: two copies of identical code can be swapped, so the sign of a pair's log
ratio is a fair coin given its size, and the signed-rank test over pairs is valid without a normal distribution.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from senet_bench.bench.clock import STOLEN
from senet_bench.core import statistics
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.statistics import Floats
from senet_bench.regression.hosts import ApartError, Host, in_one_process, in_separate_processes
from senet_bench.regression.limits import Limit
from senet_bench.regression.outcome import GateVerdict, LimitRow
from senet_bench.regression.workers import BLOCK_LIMIT_S, ClockName, Nursery, Orders

ARMS = ("base", "head", "head_again", "base_again")
"""The arms in the order of an even launch; in an odd one base and head change places."""
PAIRS = (("head", "base"), ("head_again", "base_again"), ("base_again", "base"))
FEWEST_PAIRED = 4
"""With fewer rounds a launch has no ratio."""
FEWEST_ROUNDS_OF_A_LAUNCH, MOST_ROUNDS = 6, 100
"""Rounds of a launch; the most hold where there is no pair whose error could tell when it is enough."""
ENOUGH, TOLERABLE, PATIENCE = 0.25, 0.75, 3.0
"""Shares of the limit that a pair's standard error may be: at once, or once its seconds are used; where it is more,
it gets three times its seconds."""
USUAL_ERROR, ERRORS = 0.005, (0.001, 0.01)
"""The standard error that is enough where there is no limit, and the bounds of that from one."""
CHUNK_S, MOST_OF_A_CHUNK = 0.2, 20
BUSY = 5
"""Times its seconds that a network in a launch may last where other programs hold the processor."""


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
    then what else runs on the machine is no part of it. `limits` say by network how exactly it is to be known.
    `as_one`: the arms live in one process, where they can.
    """

    launches: int
    budget_s: float
    seed: int
    note: str = ""
    until: float = math.inf
    clock: ClockName = "wall"
    limits: Mapping[str, Limit] = field(default_factory=dict)
    as_one: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a network is timed in a launch: seconds of its calls, at most so many, until a pair is known so well."""

    budget_s: float
    most_s: float
    error: float = USUAL_ERROR

    def over(self, called: float, lasted: float, error: float) -> bool:
        """Whether that is enough, after so many seconds of calls and by the clock."""
        if error <= self.error or lasted >= self.most_s:
            return True
        patience = PATIENCE if error > self.error * TOLERABLE / ENOUGH else 1.0
        return called >= self.budget_s * patience


def launch(
    arms: Mapping[str, Path], work: Orders, schedule: Launches, nursery: Nursery | None = None
) -> Steps[dict[str, list[Launched]]]:
    """Time every network in each arm's checkout, `launches` long; the samples by network, one a launch."""
    if nursery is None:
        with Nursery(work) as own:
            return (yield from launch(arms, work, schedule, own))
    if schedule.as_one:
        try:
            return (yield from _launched(arms, work, schedule, nursery))
        except ApartError as error:
            yield Progress(f"timed in processes of their own: {error.problem}", 0, 1)
    return (yield from _launched(arms, work, replace(schedule, as_one=False), nursery))


def _launched(
    arms: Mapping[str, Path], work: Orders, schedule: Launches, nursery: Nursery
) -> Steps[dict[str, list[Launched]]]:
    rng = np.random.default_rng(schedule.seed)
    samples: dict[str, list[Launched]] = {network.name: [] for network in work.networks}
    lasted, clock = 0.0, schedule.clock if work.threads == 1 else "wall"
    for number in range(schedule.launches):
        began = time.monotonic()
        if began + lasted > schedule.until:
            break
        order = {arm: arms[arm] for arm in _order(list(arms), number)}
        opened = (
            in_one_process(order, work, nursery, clock, watched=not number)
            if schedule.as_one
            else in_separate_processes(order, work, nursery, clock)
        )
        with opened as host:
            for place, name in enumerate(samples):
                done, total = number * len(samples) + place, schedule.launches * len(samples)
                pace = _pace(schedule, name, host.seconds[place], total - done)
                samples[name].append(_rounds(host, place, pace, rng))
                yield Progress(f"{name}, launch {number + 1}{schedule.note}", done + 1, total)
            host.leave()
        lasted = max(lasted, time.monotonic() - began)
    return samples


def _order(arms: Sequence[str], number: int) -> list[str]:
    """The arms in the order in which a launch makes them; in an odd one those of base and head change places."""
    sides = {arm: arm.replace("base", "head") if "base" in arm else arm.replace("head", "base") for arm in arms}
    if number % 2 == 0:
        return list(arms)
    return [sides[arm] for arm in arms] if set(sides.values()) == set(arms) else list(arms)[::-1]


def _pace(schedule: Launches, name: str, seconds: float, left: int) -> Pace:
    """How long a network is timed, of `left` turns that are still to come."""
    share = (schedule.until - time.monotonic()) / left
    limit = schedule.limits.get(name)
    low, high = ERRORS
    error = USUAL_ERROR if limit is None else min(max(ENOUGH * limit.fraction(seconds), low), high)
    return Pace(schedule.budget_s, max(schedule.budget_s, min(BUSY * PATIENCE * schedule.budget_s, share)), error)


def _rounds(
    host: Host, place: int, pace: Pace, rng: np.random.Generator, now: Callable[[], float] = time.perf_counter
) -> Launched:
    """Rounds of every arm in a fresh random order until that is enough."""
    from senet_bench.bench.process import core_times

    names, calls, began, dropped, called = list(host.arms), host.blocks[place].calls, now(), 0, 0.0
    kept: dict[str, list[float]] = {name: [] for name in names}
    while now() - began < 4 * pace.most_s + BLOCK_LIMIT_S:
        rounds = len(kept[names[0]])
        if rounds >= FEWEST_ROUNDS_OF_A_LAUNCH and pace.over(called, now() - began, _error(kept)):
            break
        if rounds + dropped >= FEWEST_ROUNDS_OF_A_LAUNCH and called >= PATIENCE * pace.budget_s:
            break
        one = max(called / max(rounds + dropped, 1), len(names) * calls * host.seconds[place])
        count = min(MOST_OF_A_CHUNK, max(1, int(CHUNK_S / one)))
        orders = [[names[i] for i in rng.permutation(len(names))] for _ in range(count)]
        before = core_times()
        seconds = host.rounds(place, orders)
        called += calls * sum(map(sum, seconds.values()))
        if core_times().share_stolen(before) > STOLEN:
            dropped += count
            continue
        for name in names:
            kept[name] += seconds[name]
    return Launched({name: np.array(values) for name, values in kept.items()}, dropped, host.blocks[place].clock)


def _error(kept: Mapping[str, Sequence[float]]) -> float:
    """The standard error of a pair's log ratio; infinite of too few rounds, 0 where there is no pair to know better."""
    pairs = [np.log(np.array(kept[one]) / np.array(kept[other])) for one, other in PAIRS if {one, other} <= kept.keys()]
    rounds = len(next(iter(kept.values())))
    if not pairs:
        return 0.0 if rounds >= MOST_ROUNDS else math.inf
    if rounds < FEWEST_ROUNDS_OF_A_LAUNCH:
        return math.inf
    return math.sqrt(float(np.mean([ratios.var(ddof=1) for ratios in pairs])) / rounds)


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
