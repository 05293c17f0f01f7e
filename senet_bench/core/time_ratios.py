"""How long one network takes over another one, from the ratios of both to their baseline."""

from __future__ import annotations

from dataclasses import dataclass

from senet_bench.core.comparisons import group_of
from senet_bench.core.results import Latency, Row
from senet_bench.core.yardstick import Yardstick

TimedRow = tuple[Row, Latency]


@dataclass(frozen=True, slots=True)
class TimeRatio:
    """A ratio of times with its interval, which holds at 90 % or more, at 95 % where the baseline is one of the two."""

    value: float
    ci: tuple[float, float] | None


def over(entry: TimedRow, yardstick: Yardstick) -> TimeRatio | None:
    """A row's time over that of the row it is compared with, under the same conditions; None for that row itself.

    None too where that row was not timed under them, where the two have not one baseline of the same sizes, and where
    one of the two times is not to be relied on.
    """
    row, latency = entry
    other = yardstick.of(row)
    if other is None or group_of(row) != group_of(other):
        return None
    times = (theirs for theirs in other.latencies if theirs.conditions == latency.conditions)
    return next((_ratio((row, latency), (other, theirs)) for theirs in times), None)


def _ratio(ours: TimedRow, theirs: TimedRow) -> TimeRatio | None:
    """The ratio of two ratios to one baseline, None where one of them is not known or has a reason against it."""
    value, other = _to_baseline(*ours), _to_baseline(*theirs)
    if value is None or other is None:
        return None
    ci = None
    if value.ci and other.ci and other.ci[0] > 0:
        ci = value.ci[0] / other.ci[1], value.ci[1] / other.ci[0]
    return TimeRatio(value.value / other.value, ci)


def _to_baseline(row: Row, latency: Latency) -> TimeRatio | None:
    """A row's ratio to its baseline; a baseline's own is 1, without an interval of its own."""
    if latency.reason:
        return None
    if row.baseline is None:
        return TimeRatio(1.0, (1.0, 1.0))
    return TimeRatio(latency.ratio, latency.ci) if latency.ratio else None
