"""Student's t distribution. SciPy says the same, but takes longer to import than most of our commands take."""

from __future__ import annotations

import math
from functools import lru_cache

ROUNDING = 1e-17
MOST_STEPS = 1000


def two_sided(freedom: int, t: float) -> float:
    """How probable it is that a value lies at least as far from 0 as t: an incomplete beta function, by its series."""
    square, half = t * t, freedom / 2
    near, far = freedom / (freedom + square), square / (freedom + square)
    front = near**half * math.sqrt(far) * _beta(freedom)
    if far < 0.5 and square < 9:  # so far from 1 that nothing is lost
        return 1 - 2 * front * _series(half + 0.5, 1.5, far)
    return front / half * _series(half + 0.5, half + 1, near)


def _series(top: float, bottom: float, x: float) -> float:
    """1 + top / bottom x + top (top + 1) / (bottom (bottom + 1)) x^2 and so on."""
    total = term = 1.0
    while term > ROUNDING * total:
        term *= top / bottom * x
        total += term
        top += 1
        bottom += 1
    return total


@lru_cache(maxsize=1024)
def _beta(freedom: int) -> float:
    """One over the beta function of half the degrees of freedom and a half."""
    return math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)


@lru_cache(maxsize=4096)
def t_quantile(freedom: int, probability: float) -> float:
    """The value below which t lies with some probability, by Newton's method from 0, where it never goes too far."""
    if probability > 0.5:
        return -t_quantile(freedom, 1 - probability)
    t = 0.0
    for _ in range(MOST_STEPS):
        density = _beta(freedom) / math.sqrt(freedom) * (1 + t * t / freedom) ** (-(freedom + 1) / 2)
        step = (two_sided(freedom, t) / 2 - probability) / density
        if step <= 1e-15 * t:
            break
        t += step
    return -t
