"""What each setting of an ablation does to every number there is: the paper's beside those found here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from senet_bench.core.axes import AXES, setting_label
from senet_bench.core.paper import TABLES
from senet_bench.core.reproduction import find, judged
from senet_bench.core.results import Row, Run
from senet_bench.core.studies import STUDIES, Study
from senet_bench.gallery.collection import Collection, Source, Timed
from senet_bench.gallery.points import mean_interval
from senet_bench.show.chart import name_of
from senet_bench.show.curves import Interval, Line, Panel, Series


def of_studies(collection: Collection, timed: Timed | None) -> list[Series]:
    """The paper's ablations, Tables 10 to 16: its errors beside the counts, and times where they were taken."""
    rows, found = collection.rows("compare", "ablate"), []
    for study in STUDIES.values():
        if study.kind == "ablation":
            known = judged(rows, study.id)
            by_row = {cell.row: row for row in known for cell in row.paper if cell.table == study.table}
            chosen = [(subject, by_row[subject.row]) for subject in study.subjects if subject.row in by_row]
            if len(chosen) > 1:
                found.append(_of_study(study, [row for _, row in chosen], timed))
    return found


def _of_study(study: Study, rows: Sequence[Row], timed: Timed | None) -> Series:
    base = [row for row in rows if row.attention is None]
    settings = [row for row in rows if row.attention is not None]
    names = [next(cell.row for cell in row.paper if cell.table == study.table) for row in settings]

    def printed(row: Row, metric: str) -> float | None:
        cell = find(row, study.table, metric)
        return float(cell.printed) if cell and cell.printed.replace(".", "", 1).isdigit() else None

    def panel(title: str, metric: str, count: Callable[[Row], float | None]) -> Panel:
        lines = (
            Line("paper", tuple(printed(row, metric) for row in settings)),
            Line("here", tuple(map(count, settings))),
        )
        references = [(row.label, count(row) or printed(row, metric)) for row in base]
        return Panel(title, lines, tuple((name, value) for name, value in references if value is not None))

    panels = [
        panel("top-1 error on ImageNet, % (the paper's)", "top1_err", lambda row: None),
        panel("parameters, millions", "params_m", _millions),
        panel("GFLOPs", "gflops", _gflops),
    ]
    latencies = [timed.latency_of(row) if timed else None for row in settings]
    ratios = tuple(one.ratio if one else None for one in latencies)
    panels.append(Panel("latency ratio", (Line("here", ratios, tuple(one.ci if one else None for one in latencies)),)))
    title = f"Table {study.table}. {TABLES[study.table].title}"
    ordered = study.id == "table10"
    return Series(f"ablation-{study.id}", title + _same(panels), tuple(names), _useful(panels), ordered)


def of_ablation(source: Source, run: Run) -> Series:
    """One `ablate` run: every number it has, over its settings."""
    axes = list(run.conditions.get("axes") or {})
    control = [row for row in run.rows if row.role == "control"]
    base = [row for row in run.rows if row.attention is None]
    settings = [row for row in run.rows if row.attention is not None and row not in control]
    others = [("baseline" if row.attention is None else "gates fixed at 0.5", row) for row in (*base, *control)]

    def panel(title: str, value: Callable[[Row], float | None], interval: Callable[[Row], Interval | None]) -> Panel:
        line = Line("here", tuple(map(value, settings)), tuple(map(interval, settings)))
        found = [(name, value(row)) for name, row in others]
        return Panel(title, (line,), tuple((name, number) for name, number in found if number is not None))

    dataset = next((row.accuracy.dataset for row in run.rows if row.accuracy), None)
    panels = [
        panel(f"top-1 error on {dataset}, %", _error, _error_interval),
        panel("parameters, millions", _millions, lambda row: None),
        panel("GFLOPs", _gflops, lambda row: None),
        panel("latency ratio", lambda row: row.latency.ratio if row.latency else None, _ratio_interval),
    ]
    ordered = axes == ["reduction"] and all(isinstance((row.axes or {}).get("reduction"), int) for row in settings)
    names = tuple(_setting(row, axes) for row in settings)
    model = str(run.conditions.get("model") or run.rows[-1].model)
    seeds = next((f", {row.accuracy.seeds} seeds" for row in run.rows if row.accuracy), "")
    title = f"{settings[0].label.partition(' (')[0] if settings else model} by {' x '.join(axes)}"
    title += f", on {dataset}{seeds}" if dataset else ", counted"
    name = "-".join(("ablation", *axes, model, dataset or "counts", source.machine))
    return Series(name_of(name), title + _same(panels), names, _useful(panels), ordered, source.path)


def _setting(row: Row, axes: Sequence[str]) -> str:
    found: Any = row.axes or {}
    if len(axes) == 1 and axes[0] in found and axes[0] in AXES:
        return AXES[axes[0]].label(tuple(found[axes[0]]) if isinstance(found[axes[0]], list) else found[axes[0]])
    return setting_label(found) if found else row.label


def _useful(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    """The panels in which settings differ, each with the lines that have at least two values."""
    kept = (replace(panel, lines=tuple(line for line in panel.lines if line.known > 1)) for panel in panels)
    return tuple(panel for panel in kept if len({value for line in panel.lines for value in line.values if value}) > 1)


def _same(panels: Sequence[Panel]) -> str:
    """The names of the numbers that no setting changes."""
    known = [panel for panel in panels if any(line.known > 1 for line in panel.lines)]
    names = [panel.title.partition(",")[0] for panel in known if not _useful([panel])]
    return f"; the same in all: {' and '.join(names)}" if names else ""


def _millions(row: Row) -> float | None:
    return None if row.params is None else row.params / 1e6


def _gflops(row: Row) -> float | None:
    return row.flops["macs"] / 1e9 if row.flops.get("macs") else None


def _error(row: Row) -> float | None:
    return None if row.accuracy is None else 100 * row.accuracy.top1_err


def _error_interval(row: Row) -> Interval | None:
    found = mean_interval(row.accuracy) if row.accuracy else None
    return (100 * found[0], 100 * found[1]) if found and all(map(math.isfinite, found)) else None


def _ratio_interval(row: Row) -> Interval | None:
    return row.latency.ci if row.latency else None
