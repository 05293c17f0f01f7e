"""Latency rows of base against head: several launches of two programs, a control, a second look at every failure.

The replicates are pairs of processes, not rounds: measured, rounds leave 0.05 % open and processes of identical code
differ by 1 %, now and then by 10 %. Processes of identical code can be swapped, so the sign of a pair's log ratio is
then a fair coin given its size, and the signed-rank test over pairs is valid without a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from senet_bench.core import statistics
from senet_bench.regression.limits import Gate
from senet_bench.regression.outcome import Row, Verdict

Floats = NDArray[np.float64]
ARMS = ("base", "head", "base_again", "head_again")
FEWEST_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One launch of two processes each of base and head: seconds of the kept blocks, (rounds,) each."""

    base: Floats
    head: Floats
    base_again: Floats
    head_again: Floats
    dropped: int = 0

    def pairs(self) -> list[float]:
        """ln(head / base) of its two pairs of processes, by Hodges-Lehmann; nan of too few rounds."""
        return [_log_ratio(self.head, self.base), _log_ratio(self.head_again, self.base_again)]

    def twins(self) -> list[float]:
        """The same of the two processes of the base, and of the head."""
        return [_log_ratio(self.base_again, self.base), _log_ratio(self.head_again, self.head)]


def _log_ratio(arm: Floats, base: Floats) -> float:
    return statistics.hodges_lehmann(np.log(arm / base)) if arm.size >= FEWEST_ROUNDS else math.nan


def levels(alpha: float) -> tuple[float, float]:
    """The levels of the look after the launches asked for, and of the one after as many again: alpha together."""
    first = statistics.spent(0.5, alpha)
    return first, alpha - first


def duet_row(network: str, launches: Sequence[Launch], gate: Gate, *, level: float, alpha: float) -> Row:
    """Base against head at one look at `level`; undecided where the control or too many disturbed rounds refuse it."""
    pairs = np.array([pair for one in launches for pair in one.pairs()])
    base, now = (
        float(np.median(np.concatenate([getattr(one, arm) for one in launches for arm in (side, f"{side}_again")])))
        for side in ("base", "head")
    )
    row = Row(
        id=f"{network}/latency",
        network=network,
        metric="latency",
        kind="statistical",
        verdict="inconclusive",
        base=base,
        now=now,
        unit="s",
        gate=gate.document(),
        rounds=sum(one.base.size for one in launches),
    )
    if not np.isfinite(pairs).all():
        return replace(row, reason="too few rounds in a launch; increase --budget")
    allowed = gate.fraction(base)
    judged = statistics.judge(pairs, gate=allowed, level=level, alpha=alpha)
    found: dict[str, Verdict] = {"regressed": "fail", "ok": "pass"}
    row = replace(
        row,
        verdict=found.get(judged.verdict, "inconclusive") if gate.judged else "info",
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
    return _controlled(row, launches, allowed) if gate.judged else row


def _told(judged: statistics.Judgement, allowed: float) -> str:
    change = f"{100 * (judged.ratio - 1):+.2f} % (gate +{100 * allowed:.3g} %)"
    if judged.reason == "too few rounds":
        return f"{change}; too few --launches to decide at this level"
    return f"{change}; the smallest change these launches could see is {100 * judged.mde:.2g} %"


def _controlled(row: Row, launches: Sequence[Launch], allowed: float) -> Row:
    """The row, undecided where processes of identical code differ or too many rounds were disturbed."""
    rounds = sum(one.base.size + one.dropped for one in launches)
    dropped = sum(one.dropped for one in launches) / rounds if rounds else 1.0
    if dropped > statistics.MOST_DROPPED:
        return replace(row, verdict="inconclusive", reason=statistics.disturbed(dropped))
    twins = [pair for one in launches for pair in one.twins()]
    judged = statistics.judge(twins, gate=None, level=statistics.CONTROL_LEVEL, alpha=statistics.CONTROL_LEVEL)
    row = replace(row, control_ratio=judged.ratio, control_ci=judged.ci)
    if statistics.control_failed(twins, allowed):
        reason = "control failed: processes of identical code differ by the order in which they were started"
        return replace(row, verdict="inconclusive", reason=reason)
    return row


def confirmed(first: Row, second: Row) -> Row:
    """A failed latency row after a second measurement at the same level: failed only if both did."""
    if second.verdict == "fail":
        return replace(first, reason=f"{first.reason}; confirmed by a second measurement")
    why = "seen once and not again in a second measurement"
    return replace(second, verdict="inconclusive", reason=f"{second.reason}; {why}")


def after_holm(rows: Sequence[Row], alpha: float) -> list[Row]:
    """The rows with p adjusted over those that were tested; a failure that does not survive is undecided."""
    tested = [place for place, row in enumerate(rows) if row.p_worse is not None and row.verdict != "info"]
    found = list(rows)
    for place, p in zip(tested, statistics.holm([rows[place].p_worse or 0.0 for place in tested])):
        found[place] = replace(rows[place], p_holm=p)
        if rows[place].verdict == "fail" and p > alpha:
            why = f"{rows[place].reason}; not significant over {len(tested)} comparisons"
            found[place] = replace(found[place], verdict="inconclusive", reason=why)
    return found
