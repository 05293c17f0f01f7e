"""Intervals and tests for errors: of one network, of a pair on the same images, of a pair over several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from senet_bench.errors import UsageError

EQUAL = 1e-12
"""Differences that differ by less than this fraction of the errors are equal: the rest is rounding."""


@dataclass(frozen=True, slots=True)
class Paired:
    """A mean difference with its interval at `confidence`, and the p value of no difference.

    `difference` is second minus first, so negative where the second network errs less; `n` counts the pairs, `error`
    is the standard error of the mean over seeds, None where there is no such spread.
    """

    difference: float
    ci: tuple[float, float] | None
    p_value: float | None
    n: int
    confidence: float = 0.95
    error: float | None = None

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """The t interval of the mean at another confidence."""
        spread = None if self.error is None else _Spread(self.difference, self.error, self.n, equal=False)
        return spread.interval(confidence) if spread else None


def wilson(errors: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of an error rate, as fractions."""
    if n < 1 or not 0 <= errors <= n:
        raise UsageError(f"{errors} errors of {n} images is no error rate")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
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
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    first, second = (only_first_wrong + 1) / (n + 2), (only_second_wrong + 1) / (n + 2)
    half = z * math.sqrt((first + second - (second - first) ** 2) / (n + 2))
    ci = (max(-1.0, second - first - half), min(1.0, second - first + half))
    p_value = mcnemar(only_first_wrong, only_second_wrong)
    return Paired((only_second_wrong - only_first_wrong) / n, ci, p_value, n, confidence)


def images_for(discordant: int, n: int, half: float, confidence: float = 0.95) -> int:
    """How many images make Bonett and Price's interval of no difference reach `half` to both sides.

    The two networks are taken to err differently on the share of the images that they did here, `discordant` of n.
    """
    z2, share = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2, discordant / n
    # of the images and two more, N: half^2 N^2 = z^2 (share (N - 2) + 2)
    linear, constant = z2 * share, 2 * z2 * (1 - share)
    return math.ceil((linear + math.sqrt(linear**2 + 4 * half**2 * constant)) / (2 * half**2) - 2)


def paired_seeds(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Paired:
    """The mean of second - first over pairs with the same seed, with the t interval and test (none for one pair).

    Equal differences have no spread that an interval could be made of: there is none, and p is that of the signs alone.
    """
    return _Spread.of(first, second).paired(confidence)


@dataclass(frozen=True, slots=True)
class _Spread:
    """A mean of `n` differences with its standard error, which is 0 for one; `equal` where the rest is rounding."""

    mean: float
    error: float
    n: int
    equal: bool

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> _Spread:
        """Of second - first."""
        if len(first) != len(second) or not first:
            raise UsageError(f"{len(first)} and {len(second)} runs are no pairs", "run the same seeds for both")
        differences = [b - a for a, b in zip(first, second)]
        n, mean = len(differences), math.fsum(differences) / len(differences)
        error = _sd(differences, mean) / math.sqrt(n)
        return cls(mean, error, n, error <= EQUAL * max(*first, *second, -min(first), -min(second)))

    def paired(self, confidence: float) -> Paired:
        """The whole of it."""
        if self.n == 1:
            return Paired(self.mean, None, None, 1, confidence)
        if self.equal:
            p_value = 1.0 if abs(self.mean) <= self.error else 0.5 ** (self.n - 1)
            return Paired(self.mean, None, p_value, self.n, confidence)
        p_value = two_sided(self.n - 1, self.mean / self.error)
        return Paired(self.mean, self.interval(confidence), p_value, self.n, confidence, self.error)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The t interval of the mean."""
        half = t_quantile(self.n - 1, 0.5 + confidence / 2) * self.error
        return self.mean - half, self.mean + half


@lru_cache(maxsize=4096)
def t_quantile(freedom: int, probability: float) -> float:
    """The value below which Student's t lies with some probability."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def two_sided(freedom: int, t: float) -> float:
    """How probable it is that Student's t lies at least as far from 0."""
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(t)))


def interval_of_mean(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """The t interval of a mean; None for fewer than two values, or for equal ones, whose spread is none to go by."""
    if len(values) < 2:
        return None
    spread = _Spread.of([0.0] * len(values), values)
    return None if spread.equal else spread.interval(confidence)


def sd(values: Sequence[float]) -> float:
    """Standard deviation of a sample (n - 1); 0 for one value."""
    return _sd(values, math.fsum(values) / len(values)) if len(values) > 1 else 0.0


def _sd(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum([(value - mean) ** 2 for value in values]) / max(1, len(values) - 1))
