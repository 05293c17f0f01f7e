"""What gates do, as a table, as the CSV of every channel and class, and as the paper's Figures 6 and 7."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from senet_bench.core.results import AnyFacts
from senet_bench.core.store import file_name
from senet_bench.gates import plots
from senet_bench.show import writers
from senet_bench.show.chart import Chart, files_of
from senet_bench.show.curves import Line, Panel, Series, curves
from senet_bench.show.documents import Document
from senet_bench.show.tables import EMPTY, Column, Table, unreadable

NUMBERS = (
    "label",
    "mean_gate",
    "between_class_share",
    "share_by_chance",
    "scale_share",
    "saturated_low",
    "saturated_high",
    "distance_from_identity",
    "distance_from_constant",
    "error",
    "error_without",
    "error_at_mean",
)
LEAST_P = 1e-9
Cell = Callable[[Mapping[str, Any]], str]


def document(facts: AnyFacts) -> Document:
    """A line a block and one for all blocks; narrow, only what the paper speaks of.

    Raises `LookupError`, `TypeError` or `ValueError` on rows that are not those of `excitations`.
    """
    for row in facts.rows:
        _check(row)
    wide, narrow = (_table(facts, narrow=is_narrow) for is_narrow in (False, True))
    return Document(facts, (wide,), (narrow,), tuple(map(_record, facts.rows)))


def _check(row: Mapping[str, Any]) -> None:
    curves = [row["mean"], row["sd"], *row["classes"].values(), *row["class_sd"].values()]
    if not row["shown"] or any(len(values) != len(row["shown"]) for values in curves):
        raise ValueError(f"block {row['block']!r} has gates of other lengths than its channels")
    if not all(value is None or math.isfinite(value) for values in curves for value in values):
        raise ValueError(f"a gate of block {row['block']!r} is no finite number")


def _table(facts: AnyFacts, *, narrow: bool) -> Table:
    asked = facts.conditions
    fields: list[tuple[Column, Cell]] = [
        (Column("block", numeric=False), lambda row: str(row["label"])),
        (Column("channels"), lambda row: str(row["channels"])),
        (Column("mean gate"), _of("mean_gate", "{:.3f}")),
        (Column("between classes %"), _of("between_class_share", "{:.1f}", 100)),
        (Column("by scale %"), _of("scale_share", "{:.0f}", 100)),
        (Column("at 0 %"), _of("saturated_low", "{:.1f}", 100)),
        (Column("at 1 %"), _of("saturated_high", "{:.1f}", 100)),
        (Column("from identity"), _of("distance_from_identity", "{:.3f}")),
        (Column("from constant"), _of("distance_from_constant", "{:.3f}")),
        (Column("gate 1", "error, points"), lambda row: _change(row.get("difference"))),
        (Column("p", "error, points"), lambda row: _p(row.get("difference"))),
        (Column("mean gate", "error, points"), lambda row: _change(row.get("difference_at_mean"))),
        (Column("p", "error, points"), lambda row: _p(row.get("difference_at_mean"))),
    ]
    if narrow:
        fields = [fields[index] for index in (0, 2, 3, 6, 7, 9)]
        fields[-1] = (Column("gate 1", "error"), lambda row: _points(row.get("difference")))
    lines = [tuple(text(row) for _, text in fields) for row in facts.rows]
    lines += [tuple(text(row) for _, text in fields) for row in _all_blocks(facts)]
    title = f"Gates of {asked['label']} on {facts.summary['images']} images of {asked['dataset']}"
    return Table(title, tuple(column for column, _ in fields), tuple(lines), (*_remarks(facts), *_definitions(facts)))


def _all_blocks(facts: AnyFacts) -> list[dict[str, Any]]:
    found = {name: facts.summary.get(f"all_{name}") for name in ("difference", "difference_at_mean")}
    return (
        [{"label": "all blocks", "channels": sum(row["channels"] for row in facts.rows), **found}]
        if any(found.values())
        else []
    )


def _remarks(facts: AnyFacts) -> list[str]:
    asked, summary = facts.conditions, facts.summary
    low, high = summary["error_ci"]
    interval = f"{100 * low:.2f} to {100 * high:.2f}"
    error = f"top-1 error {100 * summary['error']:.2f} % ({interval}), weights {asked['weights']}"
    return [error, *asked["notes"], *unreadable(summary["skipped"])]


def _definitions(facts: AnyFacts) -> list[str]:
    chance = next((row["share_by_chance"] for row in facts.rows if row["share_by_chance"] is not None), None)
    by_chance = EMPTY if chance is None else f"; {100 * chance:.1f} % is expected of gates blind to the class"
    notes = [
        f"between classes: variance of the class means over all variance of the gates{by_chance}",
        "by scale: how much of that is one factor a class on the mean gates of all channels",
        *(["no share: the gates of that block are the same for every image"] if _constant(facts) else []),
        f"at 0, at 1: gates within {facts.conditions['near']:g} of it",
        "from identity: root mean square of 1 - gate; from constant: of gate - its channel's mean",
    ]
    if any(row.get("difference") for row in facts.rows):
        notes.append(
            "error: of the network with the block's gate at 1 (taken out), or at its channel's mean (no longer "
            "dependent on the image), minus its error as it is, on the same images; 95 % interval over images, p "
            "McNemar's by Holm over the blocks; one trained network, nothing retrained"
        )
    return notes + [f"error without the block: {why}" for why in _missing(facts)]


def _constant(facts: AnyFacts) -> bool:
    return any(row["between_class_share"] is None for row in facts.rows)


def _missing(facts: AnyFacts) -> list[str]:
    return list(dict.fromkeys(why for row in facts.rows for why in row["missing"].values()))


def _of(name: str, form: str, scale: float = 1) -> Cell:
    return lambda row: EMPTY if row.get(name) is None else form.format(scale * row[name])


def _points(change: Mapping[str, Any] | None) -> str:
    return EMPTY if change is None else f"{100 * change['value']:+.2f}"


def _change(change: Mapping[str, Any] | None) -> str:
    if change is None or change["ci"] is None:
        return _points(change)
    low, high = change["ci"]
    return f"{_points(change)} [{100 * low:+.2f}, {100 * high:+.2f}]"


def _p(change: Mapping[str, Any] | None) -> str:
    p = None if change is None else change.get("p_holm", change["p"])
    return EMPTY if p is None else f"{p:.2g}" if p >= LEAST_P else f"<{LEAST_P:g}"


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A block's numbers, flat."""
    found = {name: row[name] for name in ("model", "block", "stage", "channels", "images")}
    found |= {name: row.get(name) for name in NUMBERS}
    for name in ("difference", "difference_at_mean"):
        change = row.get(name) or {}
        low, high = change.get("ci") or (None, None)
        found |= {name: change.get("value"), f"{name}_low": low, f"{name}_high": high}
        found |= {f"{name}_p": change.get("p"), f"{name}_p_holm": change.get("p_holm")}
    return found


def channel_records(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A record for every block, channel and class (`all` over all images): what Figures 6 and 7 plot."""
    for row in rows:
        curves = {"all": (row["images"], row["mean"], row["sd"])}
        curves |= {
            name: (row["class_images"][name], means, row["class_sd"][name]) for name, means in row["classes"].items()
        }
        about = {name: row[name] for name in ("block", "label", "stage")}
        for place, channel in enumerate(row["shown"]):
            for name, (images, means, sds) in curves.items():
                found = {"channel": channel, "class": name, "images": images, "mean": means[place], "sd": sds[place]}
                yield {**about, **found}


def charts(facts: AnyFacts) -> list[Chart]:
    """Figures 6 and 7, and the numbers of every block over the depth of the network."""
    name, subject = file_stem(facts), f"{facts.conditions['label']} on {facts.conditions['dataset']}"
    depth = curves(_depth(facts, f"{name}-blocks", f"Blocks by depth: {subject}"))
    found = [
        plots.by_class(facts.rows, f"{name}-classes", subject),
        plots.within_class(facts.rows, f"{name}-spread", subject),
    ]
    return found + ([depth] if depth else [])


def file_stem(facts: AnyFacts) -> str:
    """What the names of a run's files begin with."""
    return file_name("excitations", facts.conditions["label"], facts.conditions["dataset"])


def _depth(facts: AnyFacts, name: str, title: str) -> Series:
    panels = [
        Panel(text, (Line("here", tuple(row.get(key) for row in facts.rows)),), references(facts))
        for key, text, references in DEPTH
    ]
    for key, text in CHANGES.items():
        changes = [row.get(key) for row in facts.rows]
        values = tuple(None if change is None else 100 * change["value"] for change in changes)
        intervals = tuple(
            None if change is None or change["ci"] is None else (100 * change["ci"][0], 100 * change["ci"][1])
            for change in changes
        )
        panels.append(Panel(text, (Line("here", values, intervals),)))
    known = tuple(panel for panel in panels if panel.lines[0].known)
    return Series(name, title, tuple(str(row["label"]) for row in facts.rows), known, ordered=True)


def _chance(facts: AnyFacts) -> tuple[tuple[str, float], ...]:
    known = (row["share_by_chance"] for row in facts.rows if row["share_by_chance"] is not None)
    return tuple(("gates blind to the class", share) for share in [*known][:1])


def _none(_: AnyFacts) -> tuple[tuple[str, float], ...]:
    return ()


DEPTH = (
    ("between_class_share", "variance between classes / all", _chance),
    ("saturated_low", "gates at 0", _none),
    ("saturated_high", "gates at 1", _none),
    ("distance_from_identity", "from the identity", _none),
    ("distance_from_constant", "from a constant gate", _none),
)
"""The panels over depth: the number of a row, its title, and what to compare it with."""
CHANGES = {
    "difference": "change in error with the gate at 1, points",
    "difference_at_mean": "change in error with it at its mean, points",
}
"""The panels with intervals: a change in error, and its title."""


def tables(facts: AnyFacts) -> Iterator[tuple[str, str]]:
    """The table of the blocks in every format and the CSV of every channel, by their paths below the results folder."""
    yield from writers.kept(file_stem(facts), document(facts))
    yield f"tables/{file_stem(facts)}-channels.csv", writers.csv(list(channel_records(facts.rows)))


def files(facts: AnyFacts) -> Iterator[tuple[str, str | bytes]]:
    """Every file of a run by its path below the results folder: tables and figures."""
    yield from tables(facts)
    yield from files_of(charts(facts))
