"""Slow drift: each change was accepted, but what did they add up to? Told in the report, never judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from senet_bench.regression.limits import Gate
from senet_bench.regression.outcome import Row

PARTS = {"params": "params", "flops": "flops", "operators": "operators", "memory": "peak_bytes", "latency": "latency"}
"""The metrics that can drift, and their field in the stored facts of a whole network."""


def drifts(history: Sequence[Mapping[str, Any]], rows: Sequence[Row], gate: Callable[[str, str], Gate]) -> list[Row]:
    """A row for information where a metric is beyond its gate of the oldest value that was ever replaced."""
    found = []
    for row in rows:
        replaced = _replaced(history, row.network, row.metric)
        if not replaced or not isinstance(row.now, int | float):
            continue
        when, oldest = replaced[0]
        limit = gate(row.network, row.metric)
        if not limit.exceeded(oldest, row.now):
            continue
        times = "one accepted change" if len(replaced) == 1 else f"{len(replaced)} accepted changes"
        reason = f"{100 * (row.now / oldest - 1):+.3g} % since {when[:10]}, over {times}" if oldest else "it was 0"
        found.append(
            Row(
                id=f"{row.id}-drift",
                network=row.network,
                metric=f"{row.metric}-drift",
                kind="stored",
                verdict="info",
                reason=reason,
                base=oldest,
                now=row.now,
                unit=row.unit,
                ratio=row.now / oldest if oldest else None,
                gate=limit.document(),
            )
        )
    return found


def _replaced(history: Sequence[Mapping[str, Any]], network: str, metric: str) -> list[tuple[str, float]]:
    """When a metric of a network was accepted anew and what it was before, oldest first."""
    if metric not in PARTS:
        return []
    found = []
    for line in history:
        name, _, accepted = str(line.get("id", "")).rpartition(":")
        old = line.get("old")
        if name != network or accepted not in (metric, "all"):
            continue
        if accepted == "all":
            old = old.get(PARTS[metric]) if isinstance(old, Mapping) else None
        if (value := _total(old)) is not None:
            found.append((str(line.get("when", "")), value))
    return found


def _total(old: object) -> float | None:
    """One number of a stored value: the sum of counts by name, the floor of a latency."""
    if isinstance(old, Mapping):
        if "floor" in old:
            return _total(old["floor"])
        values = [value for value in old.values() if isinstance(value, int | float)]
        return float(sum(values)) if values else None
    return float(old) if isinstance(old, int | float) and not isinstance(old, bool) else None
