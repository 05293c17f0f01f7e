"""Latency rows of base against head: several launches of two programs, a control, a second look at every failure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from senet_bench import verdict
from senet_bench.checking.outcome import Row, Verdict
from senet_bench.checking.thresholds import Gate

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One launch of base, head and a second base: seconds of the kept blocks (rounds,), nan where one did not run."""

    base: Floats
    head: Floats
    control: Floats
    dropped: int = 0

    def estimate(self) -> tuple[float, float]:
        """ln(head / base) by Hodges-Lehmann and its squared standard error."""
        return _estimated(self.head, self.base)

    def control_estimate(self) -> tuple[float, float]:
        """The same of the second base."""
        return _estimated(self.control, self.base)


def _estimated(arm: Floats, base: Floats) -> tuple[float, float]:
    both = np.isfinite(arm) & np.isfinite(base)
    r = np.log(arm[both] / base[both])
    if r.size < 4:
        return math.nan, math.nan
    return verdict.hodges_lehmann(r), float((verdict.spread(r) * math.sqrt(math.pi / 3 / r.size)) ** 2)


def duet_row(network: str, launches: Sequence[Launch], gate: Gate, alpha: float) -> Row:
    """Base against head over launches, judged by t over the launches; refused when the control or the rounds fail."""
    estimates = np.array([one.estimate() for one in launches])
    base = float(np.median(np.concatenate([one.base for one in launches])))
    now = float(np.median(np.concatenate([one.head for one in launches])))
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
    if len(launches) < 2 or not np.isfinite(estimates).all():
        return replace(row, reason="too few rounds in a launch; increase --budget")
    allowed = gate.fraction(base)
    judged = verdict.judge_launches(estimates[:, 0], estimates[:, 1], gate=allowed, alpha=alpha)
    row = replace(
        row,
        ratio=judged.ratio,
        ci=judged.ci,
        confidence=judged.confidence,
        p_worse=judged.p_worse,
        p_ok=judged.p_ok,
        launches=[float(value) for value in estimates[:, 0]],
        tau=judged.tau,
        mde80=_launch_mde(estimates[:, 0], alpha),
    )
    found: dict[str, Verdict] = {"regressed": "fail", "ok": "pass"}
    row = replace(row, verdict=found.get(judged.verdict, "inconclusive"), reason=_told(row, judged.reason, allowed))
    return _controlled(row, launches, allowed) if gate.judged else replace(row, verdict="info")


def _told(row: Row, reason: str, allowed: float) -> str:
    change = 100 * ((row.ratio or math.nan) - 1)
    seen = "" if row.mde80 is None else f"the smallest change these launches could see is {100 * row.mde80:.2g} %"
    return "; ".join(text for text in (f"{change:+.2f} % (gate +{100 * allowed:.3g} %)", reason, seen) if text)


def _launch_mde(estimates: Floats, alpha: float) -> float:
    """The relative change that t over so many launches shows with about 80 % power."""
    from scipy.stats import t

    n = estimates.size
    reach = float(t.ppf(1 - alpha, n - 1)) + float(t.ppf(0.8, n - 1))
    return math.expm1(reach * float(estimates.std(ddof=1)) / math.sqrt(n))


def _controlled(row: Row, launches: Sequence[Launch], allowed: float) -> Row:
    """The row, undecided where a second copy of the base differs from it or too many rounds were disturbed."""
    rounds = sum(one.base.size + one.dropped for one in launches)
    dropped = sum(one.dropped for one in launches) / rounds if rounds else 1.0
    if dropped > 0.2:
        reason = f"environment: {100 * dropped:.0f} % of the rounds were disturbed"
        return replace(row, verdict="inconclusive", reason=reason)
    control = np.array([one.control_estimate() for one in launches])
    if not np.isfinite(control).all():
        return replace(row, verdict="inconclusive", reason="too few rounds of the control; increase --budget")
    judged = verdict.judge_launches(control[:, 0], control[:, 1], gate=0.0, alpha=verdict.CONTROL_LEVEL)
    row = replace(row, control_ratio=judged.ratio, control_ci=judged.ci)
    off = judged.ci[0] > 1 or judged.ci[1] < 1
    if off and abs(math.log(judged.ratio)) > math.log1p(allowed) / 2:
        return replace(row, verdict="inconclusive", reason="control failed: a second copy of the base differs from it")
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
    for place, p in zip(tested, verdict.holm([rows[place].p_worse or 0.0 for place in tested])):
        found[place] = replace(rows[place], p_holm=p)
        if rows[place].verdict == "fail" and p > alpha:
            why = f"{rows[place].reason}; not significant over {len(tested)} comparisons"
            found[place] = replace(found[place], verdict="inconclusive", reason=why)
    return found
