"""The plot of a probe: a heat map, networks by tasks, coloured by verdict."""

from __future__ import annotations

from collections.abc import Iterator

from senet_bench.probing.rows import ProbeFacts, ProbeRow
from senet_bench.probing.tables import columns_of, heading, lines_of, probe_stem
from senet_bench.show.chart import shown
from senet_bench.show.drawing import SMALL_TEXT, TEXT, Area, Chart, DrawnItem, DrawnPart, Mark, Text, cut, legend
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
