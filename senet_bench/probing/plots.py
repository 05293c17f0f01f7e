"""The plots of a probe: a heat map, networks by tasks, coloured by verdict; and its curves, error by difficulty."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from senet_bench.probing.rows import ProbeFacts, ProbeRow
from senet_bench.probing.tables import columns_of, heading, lines_of, probe_stem
from senet_bench.probing.tasks import TASKS
from senet_bench.show.chart import shown
from senet_bench.show.drawing import (
    SMALL_TEXT,
    TEXT,
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
    tick_text,
)
from senet_bench.show.style import ROLE_COLOURS
from senet_bench.show.tables import interval_text, number

LEFT, TOP, WIDE, HIGH, GAP = 150.0, 62.0, 58.0, 22.0, 1.5
"""The room for names, the size of a field and the gap between two, in points."""
COLOURS: dict[str, tuple[str, float]] = {
    "solves": ("match", 0.5),
    "helps": ("match", 0.22),
    "as the control": ("muted", 0.22),
    "harms": ("differs", 0.35),
    "cannot tell": ("muted", 0.08),
}
"""The role and the strength of the colour of a verdict."""
PANELS_ACROSS, PANEL_WIDE, PANEL_HIGH, PANEL_ROOM = 3, 180.0, 110.0, 52.0
"""Panels of curves side by side, their size, and the room below one, in points."""
LINE_COLOURS = [role for role in ROLE_COLOURS if role.startswith("class-")]
MOST_CURVES = 24


def heat_map(facts: ProbeFacts) -> Chart:
    """A line a network, controls first; a column a task: the error in % on the colour of the verdict."""
    keys = columns_of(facts)
    lines = {**lines_of(facts, block=False), **lines_of(facts, block=True)}
    width = LEFT + WIDE * len(keys) + 12
    title = "What blocks can do: error in % on generated tasks (a diagnosis, not an accuracy)"
    parts = [DrawnPart((Text((0, 12), cut(title, width), "ink", TEXT),))]
    entries = [((Area(_field(-6, -5, 12, 10), *colour),), verdict) for verdict, colour in COLOURS.items()]
    parts += legend(entries, 0, 18, width)[0]
    for column, key in enumerate(keys):
        name = cut(shown(heading(facts, *key)), WIDE, SMALL_TEXT)
        parts.append(DrawnPart((Text((LEFT + WIDE * (column + 0.5), TOP - 5), name, "ink", SMALL_TEXT, "middle"),)))
    for place, (label, line) in enumerate(lines.items()):
        top = TOP + HIGH * place
        parts.append(
            DrawnPart((Text((LEFT - 6, top + 15), cut(shown(label), LEFT - 8, SMALL_TEXT), "ink", SMALL_TEXT, "end"),))
        )
        parts += [_cell(line[key], place, column) for column, key in enumerate(keys) if key in line]
    return Chart(probe_stem(facts), title, width, TOP + HIGH * len(lines) + 6, tuple(parts))


def _cell(row: ProbeRow, place: int, column: int) -> DrawnPart:
    """A field with its error, and what it says when it is pointed at."""
    left, top = LEFT + WIDE * column, TOP + HIGH * place
    colour, alpha = COLOURS.get(row.verdict or "", ("rule", 0.25))
    text = number(row.error, ".1f", 100) or ("failed" if row.reason else "")
    middle = left + WIDE / 2
    items: tuple[DrawnItem, ...] = (
        Area(_field(left, top, WIDE - GAP, HIGH - GAP), colour, alpha),
        Text((middle, top + 15), text, "ink", SMALL_TEXT, "middle"),
    )
    mark = Mark(f"cell-{place}-{column}", tuple(_said(row)), middle, top + HIGH / 2)
    return DrawnPart(items, "mark", mark)


def _field(left: float, top: float, wide: float, high: float) -> tuple[tuple[float, float], ...]:
    return (left, top), (left + wide, top), (left + wide, top + high), (left, top + high)


def _said(row: ProbeRow) -> Iterator[str]:
    yield shown(f"{row.label} on {row.task} ({row.difficulty:g})")
    if row.error is not None:
        around = f" ({interval_text(row.ci, '.1f', 100)})" if row.ci else ""
        yield f"error {100 * row.error:.1f} %{around}, {len(row.per_seed)} seeds"
    if row.verdict:
        yield row.verdict + (f", p {row.p_holm:.2g}" if row.p_holm is not None else "")
    for role, gap in row.gaps.items():
        yield f"{100 * gap.difference:+.1f} points to {role}"
    if row.reason:
        yield shown(row.reason)


def difficulty_curves(facts: ProbeFacts) -> Chart:
    """A panel a task: the error in % against the level of its knob, harder to the right, a line a network."""
    labels = [*{**lines_of(facts, block=False), **lines_of(facts, block=True)}][:MOST_CURVES]
    styles = dict(zip(labels, _line_styles(facts, labels)))
    tasks = list(dict.fromkeys(row.task for row in facts.rows))
    across = min(PANELS_ACROSS, len(tasks))
    width = max(331.0, across * PANEL_WIDE + 12)
    title = "Error in % against difficulty (a diagnosis, not an accuracy)"
    parts = [DrawnPart((Text((0, 12), cut(title, width), "ink", TEXT),))]
    entries = [((_stroke(((-8, 0), (8, 0)), styles[label]),), shown(label)) for label in labels]
    keys, high = legend(entries, 0, 18, width)
    parts += keys
    for place, task in enumerate(tasks):
        top = 18 + high + 22 + (place // across) * (PANEL_HIGH + PANEL_ROOM)
        left = 34 + (place % across) * PANEL_WIDE
        parts += _panel([row for row in facts.rows if row.task == task and row.label in styles], (left, top), styles)
    down = math.ceil(len(tasks) / across)
    return Chart(probe_stem(facts), title, width, 18 + high + 22 + down * (PANEL_HIGH + PANEL_ROOM), tuple(parts))


def _line_styles(facts: ProbeFacts, labels: Sequence[str]) -> Iterator[tuple[str, tuple[float, ...]]]:
    """The colour and the dash of each network's line: no block in ink, other controls muted, blocks in colours."""
    blocks, controls = lines_of(facts, block=True), 0
    for label in labels:
        if label in blocks:
            place = list(blocks).index(label)
            turn = place // len(LINE_COLOURS)
            yield LINE_COLOURS[place % len(LINE_COLOURS)], (1.0 + 2 * turn, 1.0) if turn else ()
        else:
            yield ("muted" if controls else "ink"), (3.0, 1.0 + controls)
            controls += 1


def _stroke(places: tuple[tuple[float, float], ...], style: tuple[str, tuple[float, ...]]) -> Stroke:
    return Stroke(places, style[0], 1.3, style[1])


def _panel(
    rows: Sequence[ProbeRow], corner: tuple[float, float], styles: dict[str, tuple[str, tuple[float, ...]]]
) -> Iterator[DrawnPart]:
    """One task: its levels in their order from easy to hard, evenly apart."""
    task = TASKS[rows[0].task]
    levels = [level for level in task.levels if any(row.difficulty == level for row in rows)]
    most = max([100 * row.error for row in rows if row.error is not None], default=0.0)
    frame = Frame(
        *corner, PANEL_WIDE - 46, PANEL_HIGH, Scale(0, max(1, len(levels) - 1)), Scale(0, max(5, 1.08 * most))
    )
    yield from frame.grid()
    yield DrawnPart((Text((frame.left - 30, frame.top - 6), f"{task.name}, by {task.knob}", "ink", SMALL_TEXT),))
    for at, level in enumerate(levels):
        yield DrawnPart((tick_text((frame.place(at, 0)[0], frame.bottom + 11), f"{level:g}", "middle"),))
    for line, (label, style) in enumerate(styles.items()):
        own = {row.difficulty: row for row in rows if row.label == label and row.error is not None}
        errors = [(at, own[level]) for at, level in enumerate(levels) if level in own]
        known = [(frame.place(at, 100 * (row.error or 0)), row) for at, row in errors]
        yield DrawnPart((_stroke(tuple(place for place, _ in known), style),))
        for place, row in known:
            mark = Mark(f"{task.name}-{line}-{place[0]:.0f}", tuple(_said(row)), *place)
            yield DrawnPart((Point(place, "circle", 4, style[0], style[0]),), "mark", mark)
