"""The paper's Figures 6 and 7: the gate of every channel by class, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from senet_bench.gates.rows import GateRow
from senet_bench.show.chart import shown
from senet_bench.show.drawing import (
    SMALL_TEXT,
    Area,
    Chart,
    DrawnItem,
    DrawnPart,
    Frame,
    Mark,
    Point,
    Scale,
    Stroke,
    Text,
    cut,
    legend,
    scale_around,
)
from senet_bench.show.style import ROLE_COLOURS

PANELS_ACROSS = 3
SPREAD_CLASSES = 2
CLASS_COLOURS = [role for role in ROLE_COLOURS if role.startswith("class-")]
WIDE, HIGH, APART = 223.0, 96.0, 14.0
"""The size of a panel and the room between two, in points."""


def class_means(rows: Sequence[GateRow], name: str, subject: str) -> Chart:
    """Figure 6: the mean gate of every channel kept, a line a class and one for all images, a panel a block."""
    keys = [(_key(index), f"class {label}") for index, label in enumerate(rows[0].classes)]
    keys.append(((Stroke(((-8, 0), (8, 0)), "ink", 1.5),), "all images"))

    def lines(frame: Frame, row: GateRow) -> Iterator[DrawnItem]:
        for index, means in enumerate(row.classes.values()):
            yield from _strokes(frame, means, _stroke(index))
        yield from _strokes(frame, row.mean, Stroke((), "ink", 1.5))

    values = [value for row in shown_blocks(rows) for line in (*row.classes.values(), row.mean) for value in line]
    title = f"Mean gate of every channel by class: {subject}"
    return _chart((name, title), rows, keys, scale_around(_known(values), 0.01), lines)


def class_spread(rows: Sequence[GateRow], name: str, subject: str) -> Chart:
    """Figure 7: mean and standard deviation of the gates over the images of single classes, the first two kept."""
    labels = [*rows[0].classes][:SPREAD_CLASSES]
    keys = [(_key(index), f"class {label}") for index, label in enumerate(labels)]

    def lines(frame: Frame, row: GateRow) -> Iterator[DrawnItem]:
        for index, label in enumerate([*row.classes][:SPREAD_CLASSES]):
            known = [(at, *edges) for at, edges in enumerate(_band(row, label)) if edges is not None]
            upper = [frame.place(at, high) for at, _, high in known]
            lower = [frame.place(at, low) for at, low, _ in known[::-1]]
            yield Area((*upper, *lower), CLASS_COLOURS[index], 0.25)
            yield from _strokes(frame, row.classes[label], _stroke(index))

    bands = (_band(row, label) for row in shown_blocks(rows) for label in [*row.classes][:SPREAD_CLASSES])
    edges = [edge for band in bands for pair in band if pair is not None for edge in pair]
    means = [value for row in shown_blocks(rows) for value in row.mean if value is not None]
    title = f"Mean and standard deviation within a class: {subject}"
    return _chart((name, title), rows, keys, scale_around(edges or means or [0, 1], 0.01), lines)


def _band(row: GateRow, label: str) -> list[tuple[float, float] | None]:
    """Mean minus and plus standard deviation of every channel of a class."""
    pairs = zip(row.classes[label], row.class_sd[label])
    return [None if mean is None or sd is None else (mean - sd, mean + sd) for mean, sd in pairs]


def _chart(
    named: tuple[str, str],
    rows: Sequence[GateRow],
    keys: Sequence[tuple[Sequence[DrawnItem], str]],
    y: Scale,
    lines: Callable[[Frame, GateRow], Iterator[DrawnItem]],
) -> Chart:
    """A panel a block under one legend, all with the same scale of gates."""
    kept = shown_blocks(rows)
    across = min(PANELS_ACROSS, len(kept))
    width = max(331.0, across * (WIDE + APART))
    parts, high = legend(keys[:40], 4, 0, width - 8)
    for place, row in enumerate(kept):
        top = high + 20 + (place // across) * (HIGH + 62)
        frame = Frame(
            40 + (place % across) * (WIDE + APART), top, WIDE - 44, HIGH, Scale(0, max(1, len(row.shown) - 1)), y
        )
        parts += [*frame.grid(down=True), *_titles(frame, row)]
        parts.append(DrawnPart(tuple(lines(frame, row))))
        line = row.mean if len(row.mean) else next(iter(row.classes.values()))
        middle = len(line) // 2
        at = frame.place(middle, next((value for value in (line[middle], row.mean_gate) if value is not None), 0.5))
        mark = Mark(f"mark-{place}", tuple(_told(row)), *at)
        parts.append(DrawnPart((Point(at, "circle", 4, "ink", "ink"),), "mark", mark))
    down = math.ceil(len(kept) / across)
    return Chart(*named, width, high + 20 + down * (HIGH + 62), tuple(parts))


def _titles(frame: Frame, row: GateRow) -> Iterator[DrawnPart]:
    some = "" if row.channels == len(row.shown) else f", {len(row.shown)} of {row.channels} channels"
    title = cut(shown(f"{row.label} ({row.block}){some}", 60), frame.width + 34, SMALL_TEXT)
    yield DrawnPart((Text((frame.left - 34, frame.top - 6), title, "ink", SMALL_TEXT),))
    middle = ((frame.left + frame.right) / 2, frame.bottom + 24)
    yield DrawnPart((Text(middle, "channel (up: its mean gate)", "muted", SMALL_TEXT, "middle"),))


def _stroke(index: int) -> Stroke:
    """How the line of a class is drawn."""
    turn = index // len(CLASS_COLOURS)
    return Stroke((), CLASS_COLOURS[index % len(CLASS_COLOURS)], 0.9, (1.0 + 2 * turn, 1.0) if turn else ())


def _key(index: int) -> tuple[Stroke]:
    style = _stroke(index)
    return (Stroke(((-8, 0), (8, 0)), style.colour, 1.4, style.dash),)


def _strokes(frame: Frame, values: Sequence[float | None], style: Stroke) -> Iterator[Stroke]:
    """A line through the values with a gap where there is none."""
    run: list[tuple[float, float]] = []
    for at, value in enumerate([*values, None]):
        if value is not None:
            run.append(frame.place(at, value))
        elif run:
            yield Stroke(tuple(run), style.colour, style.width, style.dash)
            run = []


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None] or [0.0, 1.0]


def shown_blocks(rows: Sequence[GateRow]) -> list[GateRow]:
    """The blocks of Figure 6: the last of every stage, and all of the last stage."""
    last = {row.stage: row.block for row in rows}
    return [row for row in rows if row.block == last[row.stage] or row.stage == rows[-1].stage]


def _told(row: GateRow) -> Iterator[str]:
    yield f"{row.label} ({row.block}), {row.channels} channels"
    yield f"mean gate {row.mean_gate:.3f}"
    if row.between_class_share is not None:
        yield f"{100 * row.between_class_share:.1f} % of the variance is between classes"
    yield f"at 0: {100 * row.saturated_low:.1f} %, at 1: {100 * row.saturated_high:.1f} %"
    yield f"distance from the identity {row.distance_from_identity:.3f}"
