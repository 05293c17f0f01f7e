"""Small panels side by side: one number each, over the settings of an ablation or the depth of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from senet_bench.core.blocks import constant_words
from senet_bench.core.specs import AttentionSpec
from senet_bench.show.chart import shown
from senet_bench.show.drawing import (
    SMALL_TEXT,
    Area,
    Chart,
    DrawnPart,
    Frame,
    Mark,
    Place,
    Point,
    Scale,
    Shape,
    Stroke,
    Text,
    clipped,
    cut,
    legend,
    moved,
    named_ticks,
    scale_around,
    width_of,
    wrapped_lines,
)
from senet_bench.show.figures import significant

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """Values of one source, one a setting, None where there is none."""

    source: Literal["paper", "here"]
    values: tuple[float | None, ...]
    intervals: tuple[Interval | None, ...] = ()

    @property
    def known(self) -> int:
        """How many settings have a value."""
        return sum(value is not None for value in self.values)


@dataclass(frozen=True, slots=True)
class Panel:
    """One number over the settings, called `name` in a sentence.

    `references` are values to compare with: the baseline, the constant gate; `bounds` what the number can be.
    """

    title: str
    lines: tuple[Line, ...]
    references: tuple[tuple[str, float], ...] = ()
    name: str = ""
    bounds: Interval | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """The panels of one ablation over what `axis` names; `ordered` settings are joined by a line, others are not."""

    name: str
    title: str
    settings: tuple[str, ...]
    panels: tuple[Panel, ...]
    ordered: bool
    axis: str = ""
    sources: tuple[str, ...] = ()


SHAPES: dict[str, Shape] = {"paper": "diamond", "here": "circle", "control": "square"}
SOURCE_NAMES = {"paper": "the paper's", "here": "here"}
CONTROL_NAMES = tuple(
    constant_words(AttentionSpec("constant", options=options))
    for options in ((), (("identity", True),), (("identity", True), ("learned", True)))
)
WIDE, HIGH, APART = 209.0, 150.0, 12.0
"""The size of a panel with its numbers, and the room between two, in points."""
MOST_ACROSS = 4
LONGEST_NAME, LEAST_LEFT = 112.0, 28.0
"""The longest name of a setting that is turned, and the least room left of a panel, in points."""


def curves(series: Series) -> Chart | None:
    """A panel a number; bands are intervals of ordered settings, bars those of others; None without a number."""
    if not series.panels:
        return None
    wide = max(WIDE, (SMALL_TEXT + 1) * len(series.settings) + 50)
    across = max(1, min(int(MOST_ACROSS * (WIDE + APART) // (wide + APART)), len(series.panels)))
    wide = max(wide, 310.0) if across == 1 else wide
    lines = [series.panels[at : at + across] for at in range(0, len(series.panels), across)]
    turn = _turn(series.settings, wide - 50)
    below = _depth(series.settings, turn) + 16
    parts: list[DrawnPart] = []
    top = 4.0
    for line in lines:
        heads = [_head(series, panel, wide) for panel in line]
        high = max(height for _, height in heads)
        for place, (panel, (head, _)) in enumerate(zip(line, heads)):
            left = place * (wide + APART)
            parts += [_moved(part, left, top) for part in head]
            number = len([part for part in parts if part.kind == "mark"])
            parts += _panel(series, panel, Room(left, top + high, wide, turn), number)
        top += high + HIGH + below
    width = across * wide + (across - 1) * APART + 6
    return Chart(series.name, series.title, width, top, tuple(parts))


@dataclass(frozen=True, slots=True)
class Room:
    """Where a panel is drawn: its left and upper edge, its width, and by what the names of settings are turned."""

    left: float
    top: float
    width: float
    turn: float


def _turn(names: Sequence[str], room: float) -> float:
    """By how many degrees the names of settings are turned, so that none lies over another: 0, -30 or -90."""
    widest, apart = _widest(names), room / len(names)
    if widest + 4 <= apart:
        return 0.0
    leans = apart >= 2 * SMALL_TEXT and math.cos(math.radians(30)) * widest <= apart / 2 + LEAST_LEFT
    return -30.0 if leans else -90.0


def _depth(names: Sequence[str], turn: float) -> float:
    """How far the names of settings reach below a panel when they are turned."""
    widest = _widest(names)
    return 12.0 if turn == 0 else min(68.0, 0.5 * widest + 10) if turn == -30 else min(LONGEST_NAME, widest) + 8


def _widest(names: Sequence[str]) -> float:
    return max(width_of(shown(name, 24), SMALL_TEXT) for name in names)


def _head(series: Series, panel: Panel, wide: float) -> tuple[list[DrawnPart], float]:
    """The title of a panel and what its dashed lines and its sources are, and how high that is."""
    title = wrapped_lines(shown(panel.title, 90), wide - 8)
    parts = [DrawnPart((Text((2, 10 + 12 * at), line),)) for at, line in enumerate(title)]
    dashed = [(_dashed(name, -8, 8, 0), shown(name, 24)) for name, _ in panel.references]
    sources = [line.source for line in panel.lines]
    keys = [((_point(source, (0, 0)),), SOURCE_NAMES[source]) for source in sources] if "paper" in sources else []
    more, high = legend([*dashed, *keys], 2, 12.0 * len(title), wide - 8)
    return [*parts, *more], 12.0 * len(title) + high + 6


def _dashed(name: str, left: float, right: float, y: float) -> tuple[Stroke]:
    colour = "control" if name.startswith(CONTROL_NAMES) else "muted"
    return (Stroke(((left, y), (right, y)), colour, 1, (4, 3)),)


def _point(source: Literal["paper", "here"], place: Place) -> Point:
    return Point(place, SHAPES[source], 6 if source == "paper" else 5, source, None if source == "paper" else source)


def _moved(part: DrawnPart, left: float, top: float) -> DrawnPart:
    return replace(part, items=tuple(moved(item, left, top) for item in part.items))


def _panel(series: Series, panel: Panel, room: Room, first: int) -> Iterator[DrawnPart]:
    """One number over the settings, its axes named."""
    frame = _frame(series, panel, room)
    yield from frame.grid()
    for name, value in panel.references:
        y = frame.place(0, value)[1]
        yield DrawnPart(_dashed(name, frame.left, frame.right, y))
    for at, name in enumerate(series.settings):
        yield DrawnPart((_setting(frame, at, shown(name, 24), room),))
    middle = (frame.left + frame.right) / 2
    deep = _depth(series.settings, room.turn)
    named = Text((middle, frame.bottom + deep + 12), shown(series.axis, 40), "muted", SMALL_TEXT, "middle")
    yield DrawnPart((named,))
    for line in panel.lines:
        yield from _drawn(frame, series, panel, line, first)
        first += line.known


def _setting(frame: Frame, at: int, name: str, room: Room) -> Text:
    x = frame.place(at, frame.y.low)[0]
    if room.turn:
        below = 10 if room.turn == -30 else 6
        return Text(
            (x + 3, frame.bottom + below), cut(name, LONGEST_NAME, SMALL_TEXT), "muted", SMALL_TEXT, "end", room.turn
        )
    return Text((x, frame.bottom + 12), name, "muted", SMALL_TEXT, "middle")


def _frame(series: Series, panel: Panel, room: Room) -> Frame:
    """The frame of a panel; errors stay within 0 and 100 per cent."""
    values = [value for line in panel.lines for value in line.values if value is not None]
    bounds = [edge for line in panel.lines for ci in line.intervals if ci for edge in ci]
    values += [value for _, value in panel.references] + bounds
    y = scale_around(values, room=0.14, bounds=panel.bounds)
    ticks = max((width_of(text, SMALL_TEXT) for _, text in named_ticks(y.ticks(5))), default=20)
    x = Scale(-0.5, len(series.settings) - 0.5)
    return Frame(room.left + ticks + 8, room.top, room.width - ticks - 14, HIGH, x, y)


def _drawn(frame: Frame, series: Series, panel: Panel, line: Line, first: int) -> Iterator[DrawnPart]:
    """A line with its band or bars; what each of its marks says."""
    intervals = line.intervals or (None,) * len(line.values)
    known = [(x, y, ci) for x, (y, ci) in enumerate(zip(line.values, intervals)) if y is not None]
    if series.ordered and known:
        banded = [(x, *clipped(ci, panel.bounds)) for x, _, ci in known if ci is not None]
        if len(banded) > 1:
            edge = [frame.place(x, low) for x, low, _ in banded] + [frame.place(x, high) for x, _, high in banded[::-1]]
            yield DrawnPart((Area(tuple(edge), line.source, 0.18),))
        yield DrawnPart((Stroke(tuple(frame.place(x, y) for x, y, _ in known), line.source, 1.4),))
    for count, (x, y, ci) in enumerate(known):
        at = frame.place(x, y)
        bar: tuple[Stroke, ...] = ()
        if ci is not None and not series.ordered:
            low, high = clipped(ci, panel.bounds)
            bar = (Stroke((frame.place(x, low), frame.place(x, high)), line.source, 1.3),)
        between = f" ({significant(ci[0])} to {significant(ci[1])})" if ci else ""
        text = (f"{series.settings[x]}", f"{panel.title}", f"{SOURCE_NAMES[line.source]}: {significant(y)}{between}")
        mark = Mark(f"mark-{first + count}", text, *at)
        yield DrawnPart((*bar, _point(line.source, at)), "mark", mark)
