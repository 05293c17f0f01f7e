"""Thresholds as they are typed ("+2 %", "20 us", "+0", "256 KiB", "0.3 pt") and the gates that are made of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from senet_bench.errors import UsageError

Metric = Literal["params", "flops", "outputs", "state_dict", "operators", "memory", "latency", "accuracy"]
UNITS: dict[str, dict[str, float]] = {
    "count": {"": 1},
    "seconds": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9},
    "bytes": {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9},
    "fraction": {"pt": 1e-2},
}
"""What may stand behind a number of each quantity, and what it multiplies by."""
QUANTITY: dict[str, str] = {
    "params": "count",
    "flops": "count",
    "operators": "count",
    "memory": "bytes",
    "latency": "seconds",
    "accuracy": "fraction",
}
ANY = "any"
"""A gate that lets everything pass: the metric is shown, never judged."""
_FORM = re.compile(r"\+?\s*(\d[\d,]*(?:\.\d+)?)\s*([A-Za-zµμ%]*)")


@dataclass(frozen=True, slots=True)
class Gate:
    """How much worse a metric may get: by a fraction of the base, or by an amount; with `min_abs` both count.

    Amounts are counts, bytes, seconds or fractions (accuracy). `judged=False` lets everything pass.
    """

    relative: float | None = None
    absolute: float | None = None
    min_abs: float = 0.0
    judged: bool = True

    def exceeded(self, base: float, now: float) -> bool:
        """Whether `now` is worse (larger) than `base` by more than the gate lets pass."""
        if not self.judged:
            return False
        return now - base > self.margin(base)

    def margin(self, base: float) -> float:
        """The amount by which a value may exceed `base`."""
        allowed = self.absolute if self.relative is None else self.relative * base
        return max(allowed or 0.0, self.min_abs)

    def fraction(self, base: float) -> float:
        """The gate as a fraction of `base`."""
        return self.margin(base) / base if base > 0 else 0.0

    def document(self) -> dict[str, Any]:
        """The gate as it is stored in a report."""
        if not self.judged:
            return {"max": ANY}
        found: dict[str, Any] = {}
        if self.relative is not None:
            found["max_ratio"] = 1 + self.relative
        if self.absolute is not None:
            found["max_increase"] = self.absolute
        if self.min_abs:
            found["min_abs"] = self.min_abs
        return found


DEFAULT_GATES: dict[str, Gate] = {
    "params": Gate(absolute=0),
    "flops": Gate(relative=0.0),
    "outputs": Gate(absolute=0),
    "state_dict": Gate(absolute=0),
    "operators": Gate(absolute=0),
    "memory": Gate(relative=0.01, min_abs=256 * 2**10),
    "latency": Gate(relative=0.02, min_abs=20e-6),
    "accuracy": Gate(absolute=0.003),
}
"""What holds where a table says nothing else; its keys are the metrics."""
PORTABLE: tuple[str, ...] = ("params", "flops", "outputs", "state_dict", "operators")
"""Metrics that are the same on every machine."""
SHOWN_FORM = {"count": '"+0" or "+2 %"', "seconds": '"+2 %" or "20 us"', "bytes": '"+1 %" or "256 KiB"'}


def gate_of(metric: str, table: object, where: str, usual: Gate) -> Gate:
    """The gate that a table `{max, min_abs}` (accuracy: `{max_drop, test}`) asks for; `where` names it in errors."""
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table, not {table!r}", f'write {where} = {{ max = "+2 %" }}')
    limit = "max_drop" if metric == "accuracy" else "max"
    _only(table, (limit, "test") if metric == "accuracy" else (limit, "min_abs"), where)
    if table.get("test", "mcnemar") != "mcnemar":
        raise UsageError(f"{where}.test {table['test']!r} is unknown", 'use "mcnemar"')
    minimum = usual.min_abs
    if "min_abs" in table:
        minimum, relative = threshold(metric, table["min_abs"], f"{where}.min_abs")
        if relative:
            raise UsageError(f"{where}.min_abs {table['min_abs']!r} is relative", "give an amount with its unit")
    if limit not in table:
        return Gate(usual.relative, usual.absolute, minimum)
    if table[limit] == ANY:
        return Gate(judged=False)
    value, relative = threshold(metric, table[limit], f"{where}.{limit}")
    if relative and metric == "accuracy":
        raise UsageError(f"{where}.{limit} {table[limit]!r} is relative", 'give points: "0.3 pt"')
    return Gate(value, None, minimum) if relative else Gate(None, value, minimum if "min_abs" in table else 0.0)


def threshold(metric: str, typed: object, where: str) -> tuple[float, bool]:
    """The number in a threshold and whether it is relative (per cent); `UsageError` naming `where`."""
    quantity = QUANTITY.get(metric)
    if quantity is None:
        raise UsageError(f"{where} cannot be {typed!r}: {metric} is the same or not", f'leave it out or use "{ANY}"')
    example = SHOWN_FORM.get(quantity, '"0.3 pt"')
    found = _FORM.fullmatch(typed.strip()) if isinstance(typed, str) else None
    if found is None:
        raise UsageError(f"{where} is {typed!r}, which is no threshold", f"write it as {example}, in quotes")
    number, unit = Decimal(found[1].replace(",", "")), found[2]
    if unit == "%":
        return float(number / 100), True
    if unit not in UNITS[quantity]:
        raise UsageError(
            f"{where} {typed!r}: {metric} is not counted in {unit or 'bare numbers'}", f"write it as {example}"
        )
    value = float(number * Decimal(str(UNITS[quantity][unit])))
    if not math.isfinite(value):
        raise UsageError(f"{where} {typed!r} is too large", f"write it as {example}")
    return value, False


def _only(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        raise UsageError(f"{where} has the unknown key {unknown[0]!r}", f"choose from {', '.join(known)}")
