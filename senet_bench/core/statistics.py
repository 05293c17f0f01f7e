"""From paired log ratios to an interval and a judgement: pure functions of the samples, free of torch.

A sample is r_i = ln(candidate_i / baseline_i) of round i. When the two sides do not differ, running them in
a fresh random order makes the sign of r_i a fair coin given |r_i|, whatever drift or bursts do: the
signed-rank test needs no more. The interval is made of the same Walsh averages that the test counts, at the
same level, so that verdict and interval cannot contradict each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

AnyRow = TypeVar("AnyRow")

Verdict = Literal["regressed", "ok", "inconclusive", "estimated"]
Floats = NDArray[np.float64]

EXACT_UP_TO = 50
"""Rounds up to which the null distribution of the signed ranks is exact (2^50 is exact in a double)."""
POWER_80 = NormalDist().inv_cdf(0.8)
MOST_TAILS = math.exp(2)
"""The largest factor by which the tails of a few rounds raise the change that they show."""
MOST_VISIBLE = math.log(100)
"""Log of the largest change that is worth a number."""
CONTROL_LEVEL = 0.005
"""One-sided level of the control's interval: 99 % two-sided."""
MOST_DROPPED = 0.2
"""Of more disturbed rounds than this fraction no verdict is made."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rounds of one candidate against its baseline say.

    `ratio` is candidate / baseline (above 1: slower) by Hodges-Lehmann; `ci` holds the truth with probability
    `confidence` over all looks together. `p_worse`, `p_ok` are one-sided: small means shown to be beyond, or
    inside, the gate. `mde` is the relative change, counted from the gate (from none without one), that is shown
    with 80 % power at the level of the interval, inf where the rounds are too few for it; `enough` says whether they
    are. Verdict `estimated` is a measurement without a gate.
    """

    verdict: Verdict
    reason: str
    ratio: float
    ci: tuple[float, float]
    confidence: float
    rounds: int
    p_worse: float
    p_ok: float
    mde: float
    enough: bool = True

    @property
    def half_width(self) -> float:
        """Half the width of the interval of the ratio."""
        return (self.ci[1] - self.ci[0]) / 2

    def refused(self, reason: str) -> Judgement:
        """The same figures without a verdict, because of `reason`; an estimate stays one and carries the reason."""
        verdict: Verdict = "estimated" if self.verdict == "estimated" else "inconclusive"
        return replace(self, verdict=verdict, reason=reason)


def look_fractions(looks: int) -> tuple[float, ...]:
    """Fractions of the budget at which to look: 1/16, 1/8, 1/4, 1/2, 1 for five looks."""
    return tuple(0.5 ** (looks - 1 - k) for k in range(looks))


def spent(fraction: float, alpha: float) -> float:
    """The error spent up to a fraction of the budget (Lan and DeMets' spending function like Pocock's)."""
    return alpha * math.log1p((math.e - 1) * min(max(fraction, 0.0), 1.0))


@lru_cache(maxsize=EXACT_UP_TO + 1)
def _null_distribution(n: int) -> Floats:
    """P(W <= w) for w = 0 .. n(n+1)/2, W the sum of those ranks 1..n whose sign is positive."""
    mass = np.ones(1)
    for rank in range(1, n + 1):
        wider = np.zeros(mass.size + rank)
        wider[: mass.size] += mass
        wider[rank:] += mass
        mass = wider / 2
    return np.cumsum(mass)


def signed_rank_cdf(w: int, n: int) -> float:
    """P(W <= w) of the signed-rank statistic of n rounds: exact up to `EXACT_UP_TO`, else normal, corrected."""
    if w < 0:
        return 0.0
    if n <= EXACT_UP_TO:
        return float(min(1.0, _null_distribution(n)[min(w, n * (n + 1) // 2)]))
    mean, deviation = _moments(n)
    return NormalDist().cdf((w + 0.5 - mean) / deviation)


def critical_rank(n: int, level: float) -> int:
    """The largest w with P(W <= w) <= level, -1 if n rounds cannot reach that level."""
    if n <= EXACT_UP_TO:
        return int(np.searchsorted(_null_distribution(n), level, side="right")) - 1
    mean, deviation = _moments(n)
    w = math.floor(mean - 0.5 + NormalDist().inv_cdf(level) * deviation) + 1
    while w >= 0 and signed_rank_cdf(w, n) > level:
        w -= 1
    return w


def _moments(n: int) -> tuple[float, float]:
    return n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)


def walsh_averages(log_ratios: ArrayLike) -> Floats:
    """All (r_i + r_j) / 2 with i <= j, unsorted: n(n+1)/2 values of n."""
    r = np.asarray(log_ratios, dtype=np.float64)
    first, second = np.triu_indices(r.size)
    return np.asarray((r[first] + r[second]) / 2)


def hodges_lehmann(log_ratios: ArrayLike) -> float:
    """The median of the Walsh averages: where the signed-rank test is most content."""
    return float(np.median(walsh_averages(log_ratios)))


def p_values(log_ratios: ArrayLike, margin: float = 0.0) -> tuple[float, float]:
    """One-sided signed-rank (p that r > margin, p that r < margin); Walsh averages on the margin count against both."""
    return _p_values(walsh_averages(log_ratios), np.size(log_ratios), margin)


def _p_values(walsh: Floats, n: int, margin: float) -> tuple[float, float]:
    above, below = int(np.count_nonzero(walsh > margin)), int(np.count_nonzero(walsh < margin))
    return signed_rank_cdf(walsh.size - above, n), signed_rank_cdf(walsh.size - below, n)


def interval(log_ratios: ArrayLike, level: float) -> tuple[float, float] | None:
    """Bounds each missed with probability <= level, None when the rounds are too few for that level."""
    return _interval(walsh_averages(log_ratios), np.size(log_ratios), level)


def _interval(walsh: Floats, n: int, level: float) -> tuple[float, float] | None:
    c = critical_rank(n, level)
    if n < 1 or c < 0:
        return None
    low, high = c, walsh.size - 1 - c
    ordered = np.partition(walsh, (low, high))
    return float(ordered[low]), float(ordered[high])


def spread(log_ratios: ArrayLike) -> float:
    """A robust standard deviation of the rounds: interquartile range / 1.349."""
    low, high = np.percentile(np.asarray(log_ratios, dtype=np.float64), [25, 75])
    return float(high - low) / 1.349


def smallest_visible_change(log_ratios: ArrayLike, level: float) -> float:
    """The relative change that as many such rounds show with 80 % power at one-sided `level`, inf if none can.

    A change shows when the lower bound of the interval is above the margin. That bound lies as far below the
    estimate as it does here, give or take the error of the estimate itself: for many rounds 1 + 0.84 / z of that
    distance, z the normal quantile of the level. Few rounds need more, because their own distance is uncertain, and
    tell little of their tails: there the distance is raised by how much wider the interval is, beside the quartiles,
    than with normal noise. The constants make the power 0.80 +- 0.03 in simulation, for 8 to 100 rounds of normal,
    exponential, t2 and outlying noise (+- 0.05 below 18 rounds).
    """
    return _visible(np.sort(walsh_averages(log_ratios)), np.size(log_ratios), level)


def _visible(ordered: Floats, n: int, level: float) -> float:
    c = critical_rank(n, level)
    if n < 1 or c < 0:
        return math.inf
    z = -NormalDist().inv_cdf(signed_rank_cdf(c, n))
    few = 1 + 1.6 / n + 8 / n**2
    below = float(np.median(ordered) - ordered[c])
    change = below * few * (1 + POWER_80 / z) * _tails(ordered, n, c)
    return math.expm1(change) if change < MOST_VISIBLE else math.inf


def _tails(ordered: Floats, n: int, c: int) -> float:
    """The factor for noise with heavier tails than normal noise, below 1 for lighter ones; 1 from 45 rounds on."""
    power, width = max(0.0, 3 - n / 15), float(_width(ordered, c))
    if power == 0 or not 0 < width < math.inf:
        return 1.0
    return min(MOST_TAILS, math.pow(width / _normal_width(n, c), power))


def _width(ordered: Floats, c: int) -> Floats:
    """The interval's width beside that of the quartiles of the same Walsh averages; nan or inf where they are equal."""
    last, quarter = ordered.shape[-1] - 1, ordered.shape[-1] // 4
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = ordered[..., last - quarter] - ordered[..., quarter]
        return np.asarray((ordered[..., last - c] - ordered[..., c]) / inner)


@lru_cache(maxsize=256)
def _normal_width(n: int, c: int) -> float:
    """The median of `_width` over rounds with normal noise."""
    noise = np.random.default_rng(0).standard_normal((400, n))
    first, second = np.triu_indices(n)
    return float(np.median(_width(np.sort((noise[:, first] + noise[:, second]) / 2, axis=1), c)))


def judge(log_ratios: ArrayLike, *, gate: float | None, level: float, alpha: float) -> Judgement:
    """The judgement of one look at `level` per direction, `alpha` being what all looks together may spend.

    Without a gate the verdict is `estimated`. With rounds too few for the level, the interval is the whole range
    of the rounds, `confidence` says what that is worth (1 - 2^(1-n)), and no gate is decided.
    """
    r = np.asarray(log_ratios, dtype=np.float64)
    if r.size == 0:
        verdict: Verdict = "estimated" if gate is None else "inconclusive"
        return Judgement(verdict, "no round was finished", math.nan, (0.0, math.inf), 0.0, 0, 1.0, 1.0, math.inf)
    walsh = walsh_averages(r)
    margin = math.log1p(gate or 0.0)
    bounds = _interval(walsh, r.size, level)
    low, high = bounds or (float(r.min()), float(r.max()))
    p_worse, p_ok = _p_values(walsh, r.size, margin)
    mde = _visible(np.sort(walsh), r.size, level)
    verdict, reason = _decide(bounds, margin, gate, mde)
    return Judgement(
        verdict=verdict,
        reason=reason,
        ratio=math.exp(float(np.median(walsh))),
        ci=(math.exp(low), math.exp(high)),
        confidence=1 - 2 * alpha if bounds else 1 - 2.0 ** (1 - r.size),
        rounds=r.size,
        p_worse=p_worse,
        p_ok=p_ok,
        mde=mde,
        enough=bounds is not None,
    )


def _decide(bounds: tuple[float, float] | None, margin: float, gate: float | None, mde: float) -> tuple[Verdict, str]:
    if gate is None:
        return "estimated", "" if bounds else "too few rounds for the confidence asked"
    if bounds is None:
        return "inconclusive", "too few rounds"
    if bounds[0] > margin:
        return "regressed", f"slower by more than {gate:.3g}"
    if bounds[1] < margin:
        return "ok", f"not slower by more than {gate:.3g}"
    seen = f"seen is what lies {100 * mde:.2g} % from the gate" if math.isfinite(mde) else "too few rounds to see any"
    return "inconclusive", f"{seen}; increase the budget" if mde > gate else f"too close to the gate; {seen}"


def control_failed(log_ratios: ArrayLike, gate: float) -> bool:
    """Whether a copy of the baseline differs from it: 99 % interval off 0 and more than half a gate away."""
    bounds = interval(log_ratios, CONTROL_LEVEL)
    if bounds is None or bounds[0] <= 0 <= bounds[1]:
        return False
    return abs(hodges_lehmann(log_ratios)) > math.log1p(gate) / 2


def disturbed(dropped: float) -> str:
    """Why so large a fraction of dropped rounds refuses a verdict."""
    return f"environment: {100 * dropped:.0f} % of the rounds were disturbed"


def refusal(*, control: ArrayLike, gate: float, dropped: float, settled: bool, steady: bool) -> str:
    """Why no verdict on latency may be given, empty if one may; `dropped` is the fraction of dropped rounds."""
    if not steady:
        return "the output of an arm changed between rounds"
    if dropped > MOST_DROPPED:
        return disturbed(dropped)
    if not settled:
        return "an arm was still getting faster when the rounds began"
    if control_failed(control, gate):
        return "control failed: a second copy of the baseline differs from it"
    return ""


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: reject where <= the family's alpha."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, running = [1.0] * len(p), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def with_holm(
    rows: Sequence[AnyRow], p_of: Callable[[AnyRow], float | None], put: Callable[[AnyRow, float], AnyRow]
) -> list[AnyRow]:
    """The rows with Holm's adjusted p put in, over all that `p_of` gives a p for."""
    known = {place: p for place, row in enumerate(rows) if (p := p_of(row)) is not None}
    adjusted = dict(zip(known, holm(list(known.values()))))
    return [put(row, adjusted[place]) if place in adjusted else row for place, row in enumerate(rows)]
