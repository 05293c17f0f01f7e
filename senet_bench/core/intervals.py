"""Intervals and tests for errors: of one network, of a pair on the same images, of a pair over several seeds.

`scipy.special` has all that is needed and imports ten times faster than `scipy.stats`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from senet_bench.errors import UsageError

EQUAL = 1e-12
"""Differences that differ by less than this fraction of the errors are equal: the rest is rounding."""


@dataclass(frozen=True, slots=True)
class Paired:
    """A mean difference with its interval at `confidence`, and the p value of no difference.

    `difference` is second minus first, so negative where the second network errs less; `n` counts the pairs.
    """

    difference: float
    ci: tuple[float, float] | None
    p_value: float | None
    n: int
    confidence: float = 0.95


def wilson(errors: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of an error rate, as fractions."""
    from scipy.special import ndtri

    if n < 1 or not 0 <= errors <= n:
        raise UsageError(f"{errors} errors of {n} images is no error rate")
    z = float(ndtri(0.5 + confidence / 2))
    p, shrink = errors / n, 1 + z * z / n
    middle, half = (p + z * z / (2 * n)) / shrink, z / shrink * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return (0.0 if errors == 0 else max(0.0, middle - half)), (1.0 if errors == n else min(1.0, middle + half))


def mcnemar(only_first_wrong: int, only_second_wrong: int) -> float:
    """McNemar's test, two-sided and exact: the p value of the two networks erring equally often."""
    from scipy.special import bdtr

    discordant = only_first_wrong + only_second_wrong
    if discordant == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(only_first_wrong, only_second_wrong), discordant, 0.5)))


def paired_images(only_first_wrong: int, only_second_wrong: int, n: int, confidence: float = 0.95) -> Paired:
    """The difference of two errors on the same n images, with Bonett and Price's interval and McNemar's p."""
    from scipy.special import ndtri

    z = float(ndtri(0.5 + confidence / 2))
    first, second = (only_first_wrong + 1) / (n + 2), (only_second_wrong + 1) / (n + 2)
    half = z * math.sqrt((first + second - (second - first) ** 2) / (n + 2))
    ci = (max(-1.0, second - first - half), min(1.0, second - first + half))
    p_value = mcnemar(only_first_wrong, only_second_wrong)
    return Paired((only_second_wrong - only_first_wrong) / n, ci, p_value, n, confidence)


def paired_seeds(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Paired:
    """The mean of second - first over pairs with the same seed, with the t interval and test (none for one pair).

    Equal differences have no spread that an interval could be made of: there is none, and p is that of the signs alone.
    """
    from scipy.special import stdtr, stdtrit

    if len(first) != len(second) or not first:
        raise UsageError(f"{len(first)} and {len(second)} runs are no pairs", "run the same seeds for both")
    differences = [b - a for a, b in zip(first, second)]
    n, mean = len(differences), math.fsum(differences) / len(differences)
    if n == 1:
        return Paired(mean, None, None, 1, confidence)
    error = sd(differences) / math.sqrt(n)
    if error <= EQUAL * max(map(abs, (*first, *second))):
        return Paired(mean, None, 1.0 if abs(mean) <= error else 0.5 ** (n - 1), n, confidence)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * error
    return Paired(mean, (mean - half, mean + half), 2 * float(stdtr(n - 1, -abs(mean) / error)), n, confidence)


def interval_of_mean(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """The t interval of a mean; None for fewer than two values, or for equal ones, whose spread is none to go by."""
    return paired_seeds([0.0] * len(values), values, confidence).ci if len(values) > 1 else None


def sd(values: Sequence[float]) -> float:
    """Standard deviation of a sample (n - 1); 0 for one value."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
