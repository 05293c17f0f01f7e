"""The tables of a profile: what attention's parts take, and what each stage does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from senet_bench.core.results import AnyFacts
from senet_bench.show.documents import Document
from senet_bench.show.tables import EMPTY, Column, Table

NOTES = (
    "left out: the share of a call that goes when the part is left out, same shapes, paired rounds, with its interval",
    "marks: time between marks around the part in place; profiler: its operators' share of all operators' time",
    "bound: the least time of the traffic at this machine's bandwidth, of its operators' launches, of its arithmetic",
)


def document(facts: AnyFacts) -> Document:
    """A profile as two tables."""
    summary = facts.summary
    call = EMPTY if summary.get("seconds") is None else f", {1e3 * summary['seconds']:.4g} ms a call"
    conditions = facts.conditions
    where = (
        f"{conditions['device']}, {conditions['precision']}, {conditions['runtime']}, batch {conditions['batch_size']}"
    )
    title = f"{conditions['label']} on {where}, {conditions['threads']} thread(s){call}"
    wide, narrow = [], []
    if facts.rows:
        wide.append(_parts(title, facts, narrow=False))
        narrow.append(_parts(title, facts, narrow=True))
    wide.append(_stages(title, facts.details, narrow=False))
    narrow.append(_stages(title, facts.details, narrow=True))
    return Document(facts, tuple(wide), tuple(narrow), tuple(facts.rows))


def _parts(title: str, facts: AnyFacts, *, narrow: bool) -> Table:
    columns = (
        ["part", "ms", "left out %", "marks %"] + ([] if narrow else ["profiler %", "MB", "operators"]) + ["bound"]
    )
    lines = []
    for row in facts.rows:
        line = [row["part"], _milliseconds(row["seconds"]), _estimate(row["share"]), _value(row["marked_share"])]
        if not narrow:
            line += [_percent(row["profiler_share"]), _megabytes(row["bytes"]), _plain(row["operators"])]
        lines.append((*line, (row["limits"] or {}).get("verdict") or EMPTY))
    return Table(
        f"Attention in {title}",
        tuple(Column(name, numeric=name not in ("part", "bound")) for name in columns),
        tuple(lines),
        (*_arithmetic(facts.rows), *_remarks(facts), *NOTES),
    )


def _stages(title: str, stages: Sequence[Mapping[str, Any]], *, narrow: bool) -> Table:
    columns = ["stage", "output", "ms", "share %", "attention %"] + (
        [] if narrow else ["marks %", "profiler %", "blocks"]
    )
    lines = []
    for row in stages:
        size = "x".join(map(str, row["output_size"]))
        line = [
            row["stage"],
            size,
            _milliseconds(row["seconds"]),
            _value(row["share"]),
            _estimate(row["attention_share"]),
        ]
        if not narrow:
            line += [
                _value(row["marked_attention_share"]),
                _percent(row["profiler_attention_share"]),
                str(row["blocks"]),
            ]
        lines.append(tuple(line))
    return Table(f"Stages of {title}", tuple(Column(name, numeric=name != "stage") for name in columns), tuple(lines))


def _arithmetic(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    limits = ((row["part"], row["limits"]) for row in rows if row["limits"])
    return [f"{part}: {one['arithmetic']}" for part, one in limits if one.get("arithmetic")]


def _remarks(facts: AnyFacts) -> list[str]:
    control = facts.summary.get("control")
    remarks = [f"{name} missing: {why}" for name, why in facts.summary.get("missing", {}).items()]
    remarks += [str(facts.summary["reason"])] if facts.summary.get("reason") else []
    if control:
        remarks.append(f"A/A control {100 * control['value']:+.2f} %, {facts.summary['rounds']} rounds")
    return remarks


def _estimate(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return EMPTY
    interval = estimate.get("ci")
    bounds = f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]" if interval else EMPTY
    return f"{100 * estimate['value']:.2f}{bounds}"


def _value(estimate: Mapping[str, Any] | None) -> str:
    return EMPTY if estimate is None else f"{100 * estimate['value']:.2f}"


def _percent(value: float | None) -> str:
    return EMPTY if value is None else f"{100 * value:.2f}"


def _milliseconds(value: float | None) -> str:
    return EMPTY if value is None else f"{1e3 * value:.3g}"


def _megabytes(value: float | None) -> str:
    return EMPTY if value is None else f"{value / 1e6:.1f}"


def _plain(value: object) -> str:
    return EMPTY if value is None else str(value)
