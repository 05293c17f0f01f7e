"""What each setting of an ablation does to every number there is: the paper's beside those found here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from senet_bench.core.axes import AXES, setting_label
from senet_bench.core.blocks import constant_words
from senet_bench.core.catalog import CATALOG, usual_attention
from senet_bench.core.changes import changed
from senet_bench.core.datasets import DATASETS
from senet_bench.core.metrics import Form, Metric, costs
from senet_bench.core.paper import TABLES
from senet_bench.core.reproduction import find, of_study
from senet_bench.core.results import Row, TrainingProtocol
from senet_bench.core.store import key_of
from senet_bench.core.studies import STUDIES, Study
from senet_bench.core.union import Ablation, AblationRuns, Timed
from senet_bench.gallery.collection import Collection, conditions_label
from senet_bench.gallery.plots import ERROR_BOUNDS
from senet_bench.show.chart import name_of
from senet_bench.show.curves import Interval, Line, Panel, Series
from senet_bench.show.measurements import mean_interval

DataWords = Callable[[TrainingProtocol], str]
MOST_SETTINGS, MOST_TIMINGS = 30, 3
"""Settings of one plot, and the machines and conditions whose ratios it has; the tables have all of them."""


def of_studies(collection: Collection, timed: Timed | None) -> list[Series]:
    """The paper's ablations, Tables 10 to 16: its errors beside the counts, and times where they were taken."""
    rows, series = collection.rows("compare", "ablate"), []
    for study in STUDIES.values():
        if study.kind == "ablation":
            known = of_study(rows, study.id)
            by_row = {cell.row: row for row in known for cell in row.paper if cell.table == study.table}
            chosen = [(subject, by_row[subject.row]) for subject in study.subjects if subject.row in by_row]
            if len(chosen) > 1:
                series.append(_of_study(study, [row for _, row in chosen], timed))
    return series


def _of_study(study: Study, rows: Sequence[Row], timed: Timed | None) -> Series:
    base = [row for row in rows if row.attention is None]
    settings = [changed(row, latency=timed.latency_of(row) if timed else None) for row in rows if row.attention]

    def cell_of(row: Row, key: str) -> float | None:
        cell = find(row, study.table, key)
        return cell.number if cell else None

    def printed(row: Row, metric: Metric, unit: Form) -> float | None:
        numbers = ((form, cell_of(row, form.key)) for form in metric.forms)
        return next((number * form.scale / unit.scale for form, number in numbers if number is not None), None)

    def panel(metric: Metric) -> Panel:
        if metric.quantity != "count":
            return _ratios(metric, settings)
        unit = metric.form_for(rows)
        theirs = Line("paper", tuple(printed(row, metric, unit) for row in settings))
        ours = Line("here", tuple(_scaled(row, metric, unit) for row in settings))
        references = _known((row.label, _scaled(row, metric, unit) or printed(row, metric, unit)) for row in base)
        return Panel(metric.label_in(unit), (theirs, ours), references, metric.name)

    errors = Line("paper", tuple(cell_of(row, "top1_err") for row in settings))
    references = _known((row.label, cell_of(row, "top1_err")) for row in base)
    name = "top-1 error on ImageNet"
    panels = [Panel(f"{name}, % (the paper's)", (errors,), references, name, ERROR_BOUNDS), *map(panel, costs())]
    names = tuple(next(cell.row for cell in row.paper if cell.table == study.table) for row in settings)
    title = f"Table {study.table}. {TABLES[study.table].title}{_same(panels)}"
    axis = next((axis.name for axis in AXES.values() if axis.table == study.id), "setting")
    return Series(f"ablation-{study.id}", title, names, _useful(panels), study.id == "table10", axis)


def of_ablation(
    ablation: Ablation, timings: Sequence[Timed], named: Callable[[str], str] = str, data: DataWords = lambda _: ""
) -> Series:
    """The settings of one network along the same axes: every number there is of them.

    `named` names a machine, `data` tells the data of a protocol from others of that name.
    """
    axes = ablation.axes
    variants = [row for row in ablation.rows if row.role == "variant"]
    settings = variants[:MOST_SETTINGS]
    some = f"; {len(settings)} of {len(variants)} settings" if len(settings) < len(variants) else ""
    others = [("baseline", row) for row in ablation.rows if row.role == "baseline"]
    others += [
        (constant_words(row.attention, usual_attention(row.model)), row)
        for row in ablation.rows
        if row.role == "control" and row.attention is not None
    ]

    def panel(metric: Metric) -> Panel:
        unit = metric.form_for(ablation.rows)
        line = Line("here", tuple(_scaled(row, metric, unit) for row in settings))
        references = _known((name, _scaled(row, metric, unit)) for name, row in others)
        return Panel(metric.label_in(unit), (line,), references, metric.name)

    accuracy = next((row.accuracy for row in ablation.rows if row.accuracy), None)
    name = f"top-1 error on {accuracy.dataset if accuracy else None}"
    errors = Line("here", tuple(map(_error, settings)), tuple(map(_error_interval, settings)))
    references = _known((reference, _error(row)) for reference, row in others)
    panels = [Panel(f"{name}, %", (errors,), references, name, ERROR_BOUNDS)]
    for metric in costs():
        panels += [panel(metric)] if metric.quantity == "count" else _timed_panels(metric, settings, timings, named)
    seeds = (accuracy.protocol.seeds or accuracy.seeds) if accuracy else 0
    title = f"{_title(ablation, ablation.protocol, seeds, data)}{some}{_same(panels)}"
    ordered = axes == ("reduction",) and all(isinstance((row.axes or {}).get("reduction"), int) for row in settings)
    names = tuple(_setting(row, axes) for row in settings)
    series = Series("", title, names, _useful(panels), ordered, " x ".join(axes), ablation.sources)
    stem = (
        "ablation",
        *axes,
        ablation.model,
        accuracy.dataset if accuracy else "counts",
        _digest(series),
    )
    return replace(series, name=name_of("-".join(stem)))


def _digest(series: Series) -> str:
    """Six digits of what is drawn; the last digits of its numbers, which machines may round otherwise, do not count."""
    return key_of({"": re.sub(r"\d+\.\d{9,}", lambda number: f"{float(number[0]):.9g}", repr(series))})[:6]


def title_of(runs: AblationRuns, data: DataWords = lambda _: "") -> str:
    """What the ablation of some runs is called; `data` tells the data of a protocol from others of that name."""
    return _title(runs, runs.protocol, runs.seeds, data)


def _title(about: Ablation | AblationRuns, protocol: TrainingProtocol | None, seeds: int, data: DataWords) -> str:
    spec = CATALOG.get(about.model)
    label = spec.with_groups(about.cardinality).label if spec else about.model
    own = DATASETS.get(protocol.dataset or "") if protocol else None
    usual = (own.classes if own else None) or (spec.classes if spec else about.classes)
    label += "" if about.classes == usual else f" ({about.classes} classes)"
    by = f"{label} by {' x '.join(about.axes)}"
    if protocol is None:
        return f"{by}, counted"
    return f"{by}, on {protocol.dataset}{data(protocol)} ({protocol.words}), {seeds} seed{'s' * (seeds != 1)}"


def _timed_panels(
    metric: Metric, settings: Sequence[Row], timings: Sequence[Timed], named: Callable[[str], str]
) -> list[Panel]:
    """The ratios of the machines and conditions under which most settings were timed, two at least."""
    known = [(timed, [timed.latency_of(row) for row in settings]) for timed in timings]
    known = [(timed, latencies) for timed, latencies in known if sum(one is not None for one in latencies) > 1]
    known = sorted(known, key=lambda one: -sum(latency is not None for latency in one[1]))
    some = f" ({MOST_TIMINGS} of {len(known)} are drawn)" if len(known) > MOST_TIMINGS else ""
    known = known[:MOST_TIMINGS]
    panels = []
    for timed, latencies in known:
        rows = [changed(row, latency=latency) for row, latency in zip(settings, latencies)]
        where = f", {named(timed.machine)}" if len({one.machine for one, _ in known}) > 1 else ""
        where += f", {conditions_label(timed.conditions)}" if len(known) > 1 else ""
        panel = _ratios(metric, rows)
        panels.append(replace(panel, title=f"{panel.title}{where}{some}", name=f"{panel.name}{where}"))
    return panels


def _known(references: Iterable[tuple[str, float | None]]) -> tuple[tuple[str, float], ...]:
    return tuple((name, value) for name, value in references if value is not None)


def _ratios(metric: Metric, settings: Sequence[Row]) -> Panel:
    """The ratios to the baseline of what was measured in the same rounds as it."""
    latencies = [row.latency if metric.key == "latency" else None for row in settings]
    values = tuple(latency.ratio if latency else None for latency in latencies)
    line = Line("here", values, tuple(latency.ci if latency else None for latency in latencies))
    return Panel(f"{metric.name} ratio", (line,), name=f"{metric.name} ratio")


def _setting(row: Row, axes: Sequence[str]) -> str:
    setting: Any = row.axes or {}
    if len(axes) == 1 and axes[0] in setting and axes[0] in AXES:
        return AXES[axes[0]].label(tuple(setting[axes[0]]) if isinstance(setting[axes[0]], list) else setting[axes[0]])
    return setting_label(setting) if setting else row.label


def _useful(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    """The panels in which settings differ, each with the lines that have at least two values."""
    kept = (replace(panel, lines=tuple(line for line in panel.lines if line.known > 1)) for panel in panels)
    return tuple(panel for panel in kept if len({value for line in panel.lines for value in line.values if value}) > 1)


def _same(panels: Sequence[Panel]) -> str:
    """The names of the numbers that no setting changes."""
    known = [panel for panel in panels if any(line.known > 1 for line in panel.lines)]
    names = [panel.name for panel in known if not _useful([panel])]
    return f"; the same in all: {' and '.join(names)}" if names else ""


def _scaled(row: Row, metric: Metric, unit: Form) -> float | None:
    value = metric.of(row)
    return value / unit.scale if value else None


def _error(row: Row) -> float | None:
    return None if row.accuracy is None else 100 * row.accuracy.top1_err


def _error_interval(row: Row) -> Interval | None:
    interval = mean_interval(row.accuracy) if row.accuracy else None
    return (100 * interval[0], 100 * interval[1]) if interval and all(map(math.isfinite, interval)) else None
