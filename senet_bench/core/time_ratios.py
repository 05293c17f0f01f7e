"""How long one network takes over another one, from the ratios of both to their baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from senet_bench.core.comparisons import references
from senet_bench.core.results import Latency, Row
from senet_bench.core.union import identity, networks

TimedRow = tuple[Row, Latency]


@dataclass(frozen=True, slots=True)
class TimeRatio:
    """A ratio of times with its interval, which holds at 90 % or more, at 95 % where the baseline is one of the two."""

    value: float
    ci: tuple[float, float] | None


def over(entries: Sequence[TimedRow], name: str) -> list[TimeRatio | None]:
    """Each row's time over that of the row that a name means, under the same conditions; None for that row itself.

    None too where one of the two is not to be relied on. Raises `UsageError` where no row is called so.
    """
    rows = networks(row for row, _ in entries)  # one of several conditions stands there once each
    others = {identity(row): identity(other) for row, other in zip(rows, references(rows, name)) if other is not None}
    timed = {(identity(row), latency.conditions): latency for row, latency in entries}
    pairs = [(latency, timed.get((others.get(identity(row), ()), latency.conditions))) for row, latency in entries]
    return [_ratio(latency, other) if other else None for latency, other in pairs]


def _ratio(latency: Latency, other: Latency) -> TimeRatio | None:
    """The ratio of two ratios; a baseline's own is 1, without an interval of its own."""
    ours, theirs = latency.ratio or 1.0, other.ratio or 1.0
    if latency.reason or other.reason:
        return None
    low, high = _bounds(latency), _bounds(other)
    known = low is not None and high is not None and high[0] > 0
    return TimeRatio(ours / theirs, (low[0] / high[1], low[1] / high[0]) if known and low and high else None)


def _bounds(latency: Latency) -> tuple[float, float] | None:
    return (1.0, 1.0) if latency.ratio is None else latency.ci
