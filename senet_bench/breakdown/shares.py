"""Shares of a network's time from paired rounds: additive estimates, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from senet_bench.bench.samples import Samples
from senet_bench.core import statistics

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share (a fraction of the network's time); `ci` holds the truth with probability `confidence`.

    `ci` is None with too few rounds for that confidence.
    """

    value: float
    ci: tuple[float, float] | None
    confidence: float
    rounds: int


def combined(
    samples: Samples, weights: Mapping[str, int], baseline: str, alpha: float, *, cpu: bool = False
) -> Estimate | None:
    """The weighted sum of arms' times, as a fraction of `baseline`'s time; None where an arm never ran.

    The estimate combines the arms' Hodges-Lehmann ratios, so that estimates add up; the interval is that of the
    combination round by round (Walsh averages, `alpha` on each side), widened to hold the estimate.
    """
    ratios = {arm: _ratios(samples, arm, baseline, cpu=cpu) for arm in weights if arm != baseline}
    sizes = {column.size for column in ratios.values()}
    if len(sizes) != 1 or 0 in sizes:
        return None
    rounds = sizes.pop()
    value, each = float(weights.get(baseline, 0)), np.full(rounds, float(weights.get(baseline, 0)))
    for arm, column in ratios.items():
        value += weights[arm] * math.exp(statistics.hodges_lehmann(column))
        each += weights[arm] * np.exp(column)
    return _estimate(value, each, alpha)


def of_calls(shares: Floats, alpha: float) -> Estimate | None:
    """The Hodges-Lehmann estimate of a share from its value in each call; None without any call."""
    return _estimate(statistics.hodges_lehmann(shares), shares, alpha) if shares.size else None


def _estimate(value: float, each: Floats, alpha: float) -> Estimate:
    bounds = statistics.interval(each, alpha)
    ci = (min(bounds[0], value), max(bounds[1], value)) if bounds else None
    return Estimate(value, ci, 1 - 2 * alpha, each.size)


def _ratios(samples: Samples, arm: str, baseline: str, *, cpu: bool) -> Floats:
    """ln(arm / baseline) of each kept round in which both ran."""
    return samples.log_ratios(arm, baseline, cpu=cpu) if arm in samples.arms else np.empty(0)
