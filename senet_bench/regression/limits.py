"""What `check` lets pass: limits as they are typed ("+2 %", "20 us", "+0", "256 KiB", "0.3 pt"), of every metric."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal

from msgspec import UNSET, UnsetType

from senet_bench.core import metrics
from senet_bench.core.metrics import Metric
from senet_bench.errors import UsageError

UNIT_FACTORS: dict[str, dict[str, float]] = {
    "count": {"": 1},
    "seconds": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9},
    "bytes": {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9},
    "fraction": {"pt": 1e-2},
}
"""What may stand behind a number of each quantity, and what it multiplies by."""
SHOWN_FORM = {"count": '"+0" or "+2 %"', "seconds": '"+2 %" or "20 us"', "bytes": '"+1 %" or "256 KiB"'}
ANY = "any"
"""A limit that lets everything pass: the metric is shown, never judged."""
LARGEST_LIMIT = 10**15
_FORM = re.compile(r"\+?\s*(\d[\d,]*(?:\.\d+)?)\s*([A-Za-zµμ%]*)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLimit:
    """A limit as reports hold it; what it does not set is absent."""

    max: str | UnsetType = UNSET
    max_ratio: float | UnsetType = UNSET
    max_increase: float | UnsetType = UNSET
    min_abs: float | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Limit:
    """How much worse a metric may get: by a fraction of the base, or by an amount; with `min_abs` both count.

    Amounts are counts, bytes, seconds or fractions (accuracy). `judged=False` lets everything pass.
    """

    relative: float | None = None
    absolute: float | None = None
    min_abs: float = 0.0
    judged: bool = True

    def exceeded(self, base: float, now: float) -> bool:
        """Whether `now` is worse (larger) than `base` by more than the limit lets pass."""
        if not self.judged:
            return False
        return now - base > self.margin(base)

    def margin(self, base: float) -> float:
        """The amount by which a value may exceed `base`."""
        allowed = self.absolute if self.relative is None else self.relative * base
        return max(allowed or 0.0, self.min_abs)

    def fraction(self, base: float) -> float:
        """The limit as a fraction of `base`."""
        return self.margin(base) / base if base > 0 else 0.0

    def text(self, metric: str) -> str:
        """The limit as it is typed."""
        if not self.judged:
            return ANY
        unit = {"accuracy": (100, " pt"), "latency": (1e6, " us"), "memory": (1, " B")}.get(metric, (1, ""))
        parts = [] if self.relative is None else [f"+{100 * self.relative:g} %"]
        amounts = [one for one in (self.absolute, self.min_abs or None) if one is not None]
        return " and ".join([*parts, *(f"+{unit[0] * amount:g}{unit[1]}" for amount in amounts)])

    def stored(self) -> StoredLimit:
        """The limit as a report holds it."""
        if not self.judged:
            return StoredLimit(max=ANY)
        return StoredLimit(
            max_ratio=UNSET if self.relative is None else 1 + self.relative,
            max_increase=UNSET if self.absolute is None else self.absolute,
            min_abs=self.min_abs or UNSET,
        )


def judged_metrics() -> dict[str, Metric]:
    """The metrics that `check` judges, by key: those with a limit in the table of metrics."""
    return {key: metric for key, metric in metrics.METRICS.items() if metric.gate}


def portable_metrics() -> tuple[str, ...]:
    """The judged metrics that are the same on every machine."""
    return tuple(key for key, metric in judged_metrics().items() if metric.portable)


def counted_metrics() -> list[tuple[str, str]]:
    """The judged metrics that a function counts: key and import string."""
    return [(key, metric.counted) for key, metric in judged_metrics().items() if metric.counted]


def usual_limits() -> dict[str, Limit]:
    """What holds where a config says nothing else, by metric."""
    return {key: _usual(metric) for key, metric in judged_metrics().items()}


def _usual(metric: Metric) -> Limit:
    """The limit in a metric's row; a description is the same or not."""
    if metric.quantity == "description":
        return Limit(absolute=0)
    value, relative = threshold(metric.key, metric.gate, f"{metric.key}.gate")
    least = threshold(metric.key, metric.least, f"{metric.key}.least")[0] if metric.least else 0.0
    if metric.quantity in ("count", "bytes"):
        least = int(least)
        value = value if relative else int(value)
    return Limit(value, None, least) if relative else Limit(None, value, least)


def limit_of(metric: str, table: object, where: str, usual: Limit) -> Limit:
    """The limit that a table `{max, min_abs}` (accuracy: `{max_drop, test}`) asks for; `where` names it in errors."""
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table, not {table!r}", f'write {where} = {{ max = "+2 %" }}')
    key = "max_drop" if metric == "accuracy" else "max"
    _only(table, (key, "test") if metric == "accuracy" else (key, "min_abs"), where)
    if table.get("test", "mcnemar") != "mcnemar":
        raise UsageError(f"{where}.test {table['test']!r} is unknown", 'use "mcnemar"')
    minimum = usual.min_abs
    if "min_abs" in table:
        minimum, relative = threshold(metric, table["min_abs"], f"{where}.min_abs")
        if relative:
            raise UsageError(f"{where}.min_abs {table['min_abs']!r} is relative", "give an amount with its unit")
    if key not in table:
        return replace(usual, min_abs=minimum, judged=True)
    if table[key] == ANY:
        return Limit(judged=False)
    value, relative = threshold(metric, table[key], f"{where}.{key}")
    if relative and metric == "accuracy":
        raise UsageError(f"{where}.{key} {table[key]!r} is relative", 'give points: "0.3 pt"')
    return Limit(value, None, minimum) if relative else Limit(None, value, minimum if "min_abs" in table else 0.0)


def threshold(metric: str, typed: object, where: str) -> tuple[float, bool]:
    """The number in a threshold and whether it is relative (per cent); `UsageError` naming `where`."""
    quantity = metrics.METRICS[metric].quantity
    if quantity == "description":
        raise UsageError(f"{where} cannot be {typed!r}: {metric} is the same or not", f'leave it out or use "{ANY}"')
    example = SHOWN_FORM.get(quantity, '"0.3 pt"')
    parts = _FORM.fullmatch(typed.strip()) if isinstance(typed, str) else None
    if parts is None:
        raise UsageError(f"{where} is {typed!r}, which is no threshold", f"write it as {example}, in quotes")
    number, unit = Decimal(parts[1].replace(",", "")), parts[2]
    if number > LARGEST_LIMIT:
        raise UsageError(f"{where} {typed!r} is too large", f"write it as {example}")
    if unit == "%":
        return float(number / 100), True
    if unit not in UNIT_FACTORS[quantity]:
        raise UsageError(
            f"{where} {typed!r}: {metric} is not counted in {unit or 'bare numbers'}", f"write it as {example}"
        )
    return float(number * Decimal(str(UNIT_FACTORS[quantity][unit]))), False


def _only(table: dict[str, object], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        raise UsageError(f"{where} has the unknown key {unknown[0]!r}", f"choose from {', '.join(known)}")
