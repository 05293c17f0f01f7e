"""Every metric, one row each: what it is called, how it is shown, taken from a row, and judged by `check`.

Tables, plots, budgets, limits and help texts iterate these rows. To add a metric that is counted, write a function of
(network, input size) to an integer and a row that names it; one that is measured needs a `Measure` beside its row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from senet_bench.core.results import Row

Quantity = Literal["count", "bytes", "seconds", "fraction", "description"]
"""What a stored number is; a description is text that is the same or not."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a number is written in a table: divided by `scale`, with `digits` after the point, under `heading`.

    `key` is what the paper's cells of that form are called, empty where the paper prints none.
    """

    key: str
    heading: str
    scale: float
    digits: int

    def text(self, number: float | None) -> str:
        """A stored number in this form, empty where there is none."""
        return "" if number is None else f"{number / self.scale:.{self.digits}f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    `value` takes the stored number (a count, bytes, seconds, a fraction) from a row of networks; without it the
    number is the row's count of that name. It is shown divided by `scale`, in `unit`, with `digits` after the point,
    under `title`; `forms` are the ways of writing it where there are several or the paper has its own. `name` is what
    it is called in a sentence, `label` a plot's short name for it and `axis` the label of an axis: where there is one,
    errors are set against the metric. `counted` is the import string of a function of (network, input size) that
    counts it. `gate` is the limit that `check` sets unless told otherwise, as typed (`+0`, `+2 %`, `0.3 pt`; empty:
    not a metric of `check`), `least` the amount below which no change counts. `budget` says whether a network may be
    sized by its ratio to the baseline.
    """

    key: str
    title: str
    quantity: Quantity
    name: str = ""
    label: str = ""
    unit: str = ""
    scale: float = 1.0
    digits: int = 0
    better: Literal["lower", "higher"] = "lower"
    axis: str = ""
    forms: tuple[Form, ...] = ()
    value: Callable[[Row], float | None] | None = None
    counted: str = ""
    gate: str = ""
    least: str = ""
    portable: bool = False
    budget: bool = False

    def of(self, row: Row) -> float | None:
        """The stored number of a row, None where there is none."""
        return self.value(row) if self.value else row.counts.get(self.key)

    @property
    def tab(self) -> str:
        """Its name where a tab is called after it."""
        return f"{self.name[:1].upper()}{self.name[1:]}" or self.title

    def form_for(self, rows: Sequence[Row]) -> Form:
        """The form in which the largest of some rows is at least 1, else the finest."""
        return self.form_of(max((self.of(row) or 0 for row in rows), default=0))

    def form_of(self, largest: float) -> Form:
        """The form in which the largest of some stored numbers is at least 1, else the finest."""
        forms = self.forms or (Form("", self.title, self.scale, self.digits),)
        return next((form for form in forms if largest >= form.scale), forms[-1])

    def label_in(self, form: Form) -> str:
        """Its name with its unit where numbers are in that form."""
        return self.label if form.scale == self.scale else form.heading

    def shown(self, number: float | None) -> str:
        """A stored number as text without its unit, empty where there is none."""
        return "" if number is None else f"{number / self.scale:.{self.digits}f}"


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(
            key="params",
            title="params, M",
            quantity="count",
            name="parameters",
            label="parameters, millions",
            unit="M parameters",
            scale=1e6,
            digits=3,
            axis="parameters, millions",
            forms=(Form("params_m", "params, M", 1e6, 3),),
            value=lambda row: row.params,
            gate="+0",
            portable=True,
            budget=True,
        ),
        Metric(
            key="flops",
            title="GFLOPs",
            quantity="count",
            name="FLOPs",
            label="GFLOPs",
            unit="GFLOPs",
            scale=1e9,
            digits=4,
            forms=(Form("gflops", "GFLOPs", 1e9, 4), Form("mflops", "MFLOPs", 1e6, 2)),
            axis="GFLOPs (multiply-adds)",
            value=lambda row: row.flops.get("macs"),
            gate="+0 %",
            portable=True,
            budget=True,
        ),
        Metric(key="outputs", title="outputs", quantity="description", gate="+0", portable=True),
        Metric(key="shapes", title="shapes of outputs", quantity="description", gate="+0", portable=True),
        Metric(key="state_dict", title="state dict", quantity="description", gate="+0", portable=True),
        Metric(key="operators", title="operators", quantity="count", gate="+0", portable=True),
        Metric(
            key="memory",
            title="a call's MiB",
            quantity="bytes",
            unit="MiB",
            scale=2**20,
            digits=1,
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
            name="latency",
            label="ms a call",
            axis="milliseconds a call, measured here",
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
            value=lambda row: row.accuracy.top1_err if row.accuracy else None,
            gate="0.3 pt",
        ),
    )
}
"""Every metric by its key."""


def counts(rows: Sequence[Row]) -> list[Metric]:
    """The metrics that were counted of some of these rows."""
    return [
        metric
        for metric in METRICS.values()
        if metric.quantity == "count" and any(metric.of(row) is not None for row in rows)
    ]


def costs() -> list[Metric]:
    """The metrics that an error is set against."""
    return [metric for metric in METRICS.values() if metric.axis]
