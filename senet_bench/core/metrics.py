"""Every metric, one row each: what it is called, how it is shown, taken from a row, and judged by `check`.

Tables, plots, budgets, limits and help texts iterate these rows. To add a metric that is counted, write a function of
(network, input size) to an integer and a row that names it; one that is measured needs a `Measure` beside its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from senet_bench.core.results import Row

Quantity = Literal["count", "bytes", "seconds", "fraction", "description"]
"""What a stored number is; a description is text that is the same or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    `value` takes the stored number (a count, bytes, seconds, a fraction) from a row of networks. It is shown divided
    by `scale`, in `unit`, with `digits` after the point, under `title`; `axis` labels a plot's axis. `counted` is the
    import string of a function of (network, input size) that counts it. `gate` is the limit that `check` sets unless
    told otherwise, as typed (`+0`, `+2 %`, `0.3 pt`; empty: not a metric of `check`), `least` the amount below which
    no change counts. `budget` says whether a network may be sized by its ratio to the baseline.
    """

    key: str
    title: str
    quantity: Quantity
    unit: str = ""
    scale: float = 1.0
    digits: int = 0
    better: Literal["lower", "higher"] = "lower"
    axis: str = ""
    value: Callable[[Row], float | None] | None = None
    counted: str = ""
    gate: str = ""
    least: str = ""
    portable: bool = False
    budget: bool = False

    def shown(self, number: float | None) -> str:
        """A stored number as text without its unit, empty where there is none."""
        return "" if number is None else f"{number / self.scale:.{self.digits}f}"


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.key: metric
        for metric in (
            Metric(
                key="params",
                title="params, M",
                quantity="count",
                unit="M",
                scale=1e6,
                digits=3,
                axis="parameters, millions",
                value=lambda row: row.params,
                gate="+0",
                portable=True,
                budget=True,
            ),
            Metric(
                key="flops",
                title="GFLOPs",
                quantity="count",
                unit="GFLOPs",
                scale=1e9,
                digits=4,
                axis="GFLOPs (multiply-adds)",
                value=lambda row: row.flops.get("macs"),
                gate="+0 %",
                portable=True,
                budget=True,
            ),
            Metric(key="outputs", title="outputs", quantity="description", gate="+0", portable=True),
            Metric(key="state_dict", title="state dict", quantity="description", gate="+0", portable=True),
            Metric(key="operators", title="operators", quantity="count", gate="+0", portable=True),
            Metric(
                key="memory",
                title="peak MiB",
                quantity="bytes",
                unit="MiB",
                scale=2**20,
                digits=1,
                axis="peak memory of a call, MiB",
                value=lambda row: row.latency.peak_bytes if row.latency else None,
                gate="+1 %",
                least="256 KiB",
            ),
            Metric(
                key="latency",
                title="ms",
                quantity="seconds",
                unit="ms",
                scale=1e-3,
                digits=2,
                axis="latency of a call, ms",
                value=lambda row: row.latency.seconds if row.latency else None,
                gate="+2 %",
                least="20 us",
                budget=True,
            ),
            Metric(
                key="accuracy",
                title="top-1 error, %",
                quantity="fraction",
                unit="%",
                scale=1e-2,
                digits=2,
                axis="top-1 error, %",
                value=lambda row: row.accuracy.top1_err if row.accuracy else None,
                gate="0.3 pt",
            ),
        )
    }
)
"""Every metric by its key."""
