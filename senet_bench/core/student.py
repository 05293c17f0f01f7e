"""Student's t distribution. SciPy says the same, but takes longer to import than most of our commands take."""

from __future__ import annotations

import math
from functools import lru_cache

ROUNDING = 1e-17
MOST_STEPS = 1000
CERTAIN = 0.999


def two_sided(freedom: int, t: float) -> float:
    """How probable it is that a value lies at least as far from 0 as t."""
    within = _within(freedom, abs(t))
    return 1 - within if within < CERTAIN else _beyond(freedom, abs(t))


def _within(freedom: int, t: float) -> float:
    """How probable it is that a value lies nearer to 0 than t (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    near = freedom / (freedom + t * t)
    sine, first = t / math.sqrt(freedom + t * t), 2 + freedom % 2
    total = term = 1.0
    for place in range(first, freedom, 2):
        term *= (place - 1) / place * near
        total += term
    if first == 2:
        return sine * total
    rest = sine * math.sqrt(near) * total if freedom > 1 else 0.0
    return 2 / math.pi * (math.atan(t / math.sqrt(freedom)) + rest)


def _beyond(freedom: int, t: float) -> float:
    """The rest of it, whose digits the difference from 1 has lost: an incomplete beta function, by its series."""
    near, half = freedom / (freedom + t * t), freedom / 2
    total = term = 1.0
    place = half + 0.5
    while term > ROUNDING * total:
        term *= place / (place + 0.5) * near
        total += term
        place += 1
    return math.pow(near, half) * t / math.sqrt(freedom + t * t) * _beta(freedom) / half * total


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
