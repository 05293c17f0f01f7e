"""What calls take: by the clock, and of the processors, which tells more on a busy machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence

Taken = tuple[float, float]
"""Seconds by the clock; CPU seconds of this process and of those children that ended meanwhile."""


def taken(call: Callable[[], object]) -> Taken:
    """What a call takes."""
    clock, before = time.perf_counter(), os.times()
    call()
    after = os.times()
    return time.perf_counter() - clock, sum(after[:4]) - sum(before[:4])


def ratios(first: Sequence[Taken], second: Sequence[Taken]) -> str:
    """How often as long the first took as the second, pair by pair: the medians and their ranges, in words."""
    words = []
    for index, what in enumerate(("clock", "CPU")):
        pairs = [a[index] / b[index] for a, b in zip(first, second, strict=True)]
        words.append(f"{what} {statistics.median(pairs):.2f}x ({min(pairs):.2f} .. {max(pairs):.2f})")
    return ", ".join(words)
