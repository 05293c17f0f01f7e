"""What gates do, as a table, as the CSV of every channel and class, and as the paper's Figures 6 and 7."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from senet_bench.core.files import file_name
from senet_bench.gates import plots
from senet_bench.gates.rows import ErrorChange, GateFacts, GateRow
from senet_bench.show import writers
from senet_bench.show.chart import files_of
from senet_bench.show.curves import Line, Panel, Series, curves
from senet_bench.show.drawing import Chart
from senet_bench.show.tables import EMPTY, Column, Document, Table, number, points_text, unreadable

GATE_COLUMNS = (
    "model",
    "block",
    "stage",
    "channels",
    "images",
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
"""The numbers of a row that the CSV of the blocks begins with."""
NARROW_FIELDS = (0, 2, 3, 6, 7)
"""The columns of the wide table that the narrow one keeps."""
LEAST_P = 1e-9
GateCell = Callable[[GateRow], str]


def gates_document(facts: GateFacts) -> Document:
    """A line a block and one for all blocks; narrow, only what the paper speaks of."""
    wide, narrow = (_table(facts, narrow=is_narrow) for is_narrow in (False, True))
    return Document(facts, (wide,), (narrow,), tuple(map(_record, facts.rows)))


GATE_FIELDS: tuple[tuple[Column, GateCell], ...] = (
    (Column("block", numeric=False), lambda row: row.label),
    (Column("channels"), lambda row: str(row.channels)),
    (Column("mean gate"), lambda row: number(row.mean_gate, ".3f")),
    (Column("between classes %"), lambda row: number(row.between_class_share, ".1f", 100)),
    (Column("by scale %"), lambda row: number(row.scale_share, ".0f", 100)),
    (Column("at 0 %"), lambda row: number(row.saturated_low, ".1f", 100)),
    (Column("at 1 %"), lambda row: number(row.saturated_high, ".1f", 100)),
    (Column("from identity"), lambda row: number(row.distance_from_identity, ".3f")),
    (Column("from constant"), lambda row: number(row.distance_from_constant, ".3f")),
)
"""What a block's gates do, by column."""
ERROR_COLUMNS = tuple(Column(name, "error, points") for name in ("gate 1", "p", "mean gate", "p"))


def _table(facts: GateFacts, *, narrow: bool) -> Table:
    summary = facts.summary
    lines = [
        (*(text(row) for _, text in GATE_FIELDS), *_changes(row.difference, row.difference_at_mean))
        for row in facts.rows
    ]
    if summary.all_difference or summary.all_difference_at_mean:
        empty = [EMPTY] * (len(GATE_FIELDS) - 2)
        changes = _changes(summary.all_difference, summary.all_difference_at_mean)
        lines.append(("all blocks", str(sum(row.channels for row in facts.rows)), *empty, *changes))
    columns = (*(column for column, _ in GATE_FIELDS), *ERROR_COLUMNS)
    if narrow:
        columns = (*(columns[place] for place in NARROW_FIELDS), Column("gate 1", "error"))
        errors = [_points(row.difference) for row in facts.rows] + [_points(summary.all_difference)]
        lines = [(*(line[place] for place in NARROW_FIELDS), error) for line, error in zip(lines, errors)]
    title = f"Gates of {facts.conditions.label} on {summary.images} images of {facts.conditions.dataset}"
    return Table(title, columns, tuple(lines), (*_remarks(facts), *_definitions(facts)))


def _changes(without: ErrorChange | None, at_mean: ErrorChange | None) -> tuple[str, str, str, str]:
    return _change(without), _p(without), _change(at_mean), _p(at_mean)


def _remarks(facts: GateFacts) -> list[str]:
    conditions, summary = facts.conditions, facts.summary
    low, high = summary.error_ci
    interval = f"{100 * low:.2f} to {100 * high:.2f}"
    error = f"top-1 error {100 * summary.error:.2f} % ({interval}), weights {conditions.weights}"
    return [error, *conditions.notes, *unreadable(summary.skipped)]


def _definitions(facts: GateFacts) -> list[str]:
    chance = next((row.share_by_chance for row in facts.rows if row.share_by_chance is not None), None)
    by_chance = EMPTY if chance is None else f"; {100 * chance:.1f} % is expected of gates blind to the class"
    constant = any(row.between_class_share is None for row in facts.rows)
    notes = [
        f"between classes: variance of the class means over all variance of the gates{by_chance}",
        "by scale: how much of that is one factor a class on the mean gates of all channels",
        *(["no share: the gates of that block are the same for every image"] if constant else []),
        f"at 0, at 1: gates within {facts.conditions.near:g} of it",
        "from identity: root mean square of 1 - gate; from constant: of gate - its channel's mean",
    ]
    if any(row.difference for row in facts.rows):
        notes.append(
            "error: of the network with the block's gate at 1 (taken out), or at its channel's mean (no longer "
            "dependent on the image), minus its error as it is, on the same images; 95 % interval over images, p "
            "McNemar's by Holm over the blocks; one trained network, nothing retrained"
        )
    reasons = dict.fromkeys(why for row in facts.rows for why in row.missing.values())
    return notes + [f"error without the block: {why}" for why in reasons]


def _points(change: ErrorChange | None) -> str:
    return EMPTY if change is None else points_text(change.value)


def _change(change: ErrorChange | None) -> str:
    return EMPTY if change is None else points_text(change.value, change.ci)


def _p(change: ErrorChange | None) -> str:
    if change is None:
        return EMPTY
    return f"{change.adjusted:.2g}" if change.adjusted >= LEAST_P else f"<{LEAST_P:g}"


def _record(row: GateRow) -> dict[str, object]:
    """A block's numbers, flat."""
    numbers: dict[str, object] = {name: getattr(row, name) for name in GATE_COLUMNS}
    for name, change in (("difference", row.difference), ("difference_at_mean", row.difference_at_mean)):
        low, high = (change and change.ci) or (None, None)
        numbers |= {name: change and change.value, f"{name}_low": low, f"{name}_high": high}
        numbers |= {f"{name}_p": change and change.p, f"{name}_p_holm": change and change.p_holm}
    return numbers


def channel_records(rows: Sequence[GateRow]) -> Iterator[dict[str, object]]:
    """A record for every block, channel and class (`all` over all images): what Figures 6 and 7 plot."""
    for row in rows:
        curves = {"all": (row.images, row.mean, row.sd)}
        curves |= {name: (row.class_images[name], means, row.class_sd[name]) for name, means in row.classes.items()}
        about = {"block": row.block, "label": row.label, "stage": row.stage}
        for place, channel in enumerate(row.shown):
            for name, (images, means, sds) in curves.items():
                record = {"channel": channel, "class": name, "images": images, "mean": means[place], "sd": sds[place]}
                yield {**about, **record}


def charts(facts: GateFacts) -> list[Chart]:
    """Figures 6 and 7, and the numbers of every block over the depth of the network."""
    name, subject = gates_stem(facts), f"{facts.conditions.label} on {facts.conditions.dataset}"
    depth = curves(_depth(facts, f"{name}-blocks", f"Blocks by depth: {subject}"))
    panels = [
        plots.class_means(facts.rows, f"{name}-classes", subject),
        plots.class_spread(facts.rows, f"{name}-spread", subject),
    ]
    return panels + ([depth] if depth else [])


def gates_stem(facts: GateFacts) -> str:
    """What the names of a run's files begin with."""
    return file_name("excitations", facts.conditions.label, facts.conditions.dataset)


def _depth(facts: GateFacts, name: str, title: str) -> Series:
    rows = facts.rows
    shares = [row.share_by_chance for row in rows if row.share_by_chance is not None]
    chance = tuple(("gates blind to the class", share) for share in shares[:1])
    panels = [
        Panel("variance between classes / all", _line(row.between_class_share for row in rows), chance),
        Panel("gates at 0", _line(row.saturated_low for row in rows)),
        Panel("gates at 1", _line(row.saturated_high for row in rows)),
        Panel("from the identity", _line(row.distance_from_identity for row in rows)),
        Panel("from a constant gate", _line(row.distance_from_constant for row in rows)),
        Panel("change in error with the gate at 1, points", _changed(row.difference for row in rows)),
        Panel("change in error with it at its mean, points", _changed(row.difference_at_mean for row in rows)),
    ]
    known = tuple(panel for panel in panels if panel.lines[0].known)
    return Series(name, title, tuple(row.label for row in rows), known, ordered=True, axis="block, by depth")


def _line(values: Iterable[float | None]) -> tuple[Line]:
    return (Line("here", tuple(values)),)


def _changed(changes: Iterable[ErrorChange | None]) -> tuple[Line]:
    """Changes in error, in points, with their intervals."""
    known = [(change, change.ci if change else None) for change in changes]
    values = tuple(100 * change.value if change else None for change, _ in known)
    return (Line("here", values, tuple(ci and (100 * ci[0], 100 * ci[1]) for _, ci in known)),)


def tables(facts: GateFacts) -> Iterator[tuple[str, str]]:
    """The table of the blocks in every format and the CSV of every channel, by their paths below the results folder."""
    yield from writers.kept(gates_stem(facts), gates_document(facts))
    yield f"tables/{gates_stem(facts)}-channels.csv", writers.csv(list(channel_records(facts.rows)))


def gate_files(facts: GateFacts) -> Iterator[tuple[str, str | bytes]]:
    """Every file of a run by its path below the results folder: tables and figures."""
    yield from tables(facts)
    yield from files_of(charts(facts))
