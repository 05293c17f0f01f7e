"""Charts as plain shapes: strokes, areas, points and texts in points of 1/72 inch, written as SVG or PDF.

Colours are the roles of `show.style`. Nothing is measured by a renderer: the width of a text is guessed, a bit wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Place = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Anchor = Literal["start", "middle", "end"]
Shape = Literal["circle", "diamond", "square", "bar", "arrow"]
TEXT = 9.0
SMALL_TEXT = 8.0
NARROW, BROAD = frozenset("iljtfrI.,:;|!'()[]/ "), frozenset("mwMW%@…—")


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line through some places, drawn `width` wide; `dash` are lengths of strokes and gaps."""

    places: tuple[Place, ...]
    colour: str
    width: float = 1.0
    dash: tuple[float, ...] = ()
    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class Area:
    """A filled polygon."""

    places: tuple[Place, ...]
    colour: str
    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class Point:
    """A shape around a place, `size` across, filled with `fill` (None: hollow); an arrow points to `turn` degrees."""

    place: Place
    shape: Shape
    size: float
    colour: str
    fill: str | None = None
    alpha: float = 1.0
    turn: float = 0.0


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `turn` in degrees, clockwise, about its place on the baseline."""

    place: Place
    text: str
    colour: str = "ink"
    size: float = TEXT
    anchor: Anchor = "start"
    turn: float = 0.0


DrawnItem = Stroke | Area | Point | Text


@dataclass(frozen=True, slots=True)
class Mark:
    """What a part of a chart says, line by line, about the place it stands at.

    `family` is what a reader can switch off, `row` the line of the data table that has the same numbers. A mark that
    says nothing is a name or an arrow's head, which only moves along when the chart is zoomed.
    """

    id: str
    text: tuple[str, ...]
    x: float
    y: float
    family: str = ""
    row: str = ""


@dataclass(frozen=True, slots=True)
class DrawnPart:
    """Shapes that belong together: with a mark they move and answer as one, a `line` is scaled, a `tick` is redrawn."""

    items: tuple[DrawnItem, ...]
    kind: Literal["plain", "mark", "line", "tick"] = "plain"
    mark: Mark | None = None
    family: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """A range of numbers along an axis."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a number lies, 0 at the low end and 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers in the range, about as many as asked for."""
        return _decades(self.low, self.high) if self.log else _steps(self.low, self.high, most)


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle that numbers are drawn in; y grows downwards on paper and upwards in numbers."""

    left: float
    top: float
    width: float
    height: float
    x: Scale
    y: Scale

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height

    def place(self, x: float, y: float) -> Place:
        """Where a pair of numbers lies on paper."""
        return self.left + self.width * self.x.at(x), self.bottom - self.height * self.y.at(y)

    def grid(self, *, across: bool = True, down: bool = False) -> Iterator[DrawnPart]:
        """Lines at the ticks of y, and of x where asked for `down`, with their numbers, and the two axes."""
        for tick, text in named_ticks(self.y.ticks(5)) if across else ():
            y = self.place(self.x.low, tick)[1]
            items = (
                Stroke(((self.left, y), (self.right, y)), "rule", 0.6),
                tick_text((self.left - 4, y + 3), text, "end"),
            )
            yield DrawnPart(items, "tick")
        for tick, text in named_ticks(self.x.ticks()) if down else ():
            x = self.place(tick, self.y.low)[0]
            below = tick_text((x, self.bottom + 11), text, "middle")
            yield DrawnPart((Stroke(((x, self.top), (x, self.bottom)), "rule", 0.6), below), "tick")
        corner = (self.left, self.bottom)
        yield DrawnPart((Stroke(((self.left, self.top), corner, (self.right, self.bottom)), "muted", 0.8),))


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing under a name that is a file name too; `title` says in words what it shows.

    `zoom` is the frame that a reader can zoom into.
    """

    name: str
    title: str
    width: float
    height: float
    parts: tuple[DrawnPart, ...]
    zoom: Frame | None = None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Everything in it that says or names something."""
        return tuple(part.mark for part in self.parts if part.mark is not None)


def tick_text(place: Place, text: str, anchor: Anchor) -> Text:
    """The number at a tick."""
    return Text(place, text, "muted", SMALL_TEXT, anchor)


def named_ticks(ticks: Sequence[float]) -> list[tuple[float, str]]:
    """Ticks with their texts, all with as many digits as tell them apart."""
    for digits in range(3, 10):
        texts = [f"{tick:.{digits}g}" for tick in ticks]
        if len(set(texts)) == len(texts) and all(
            abs(float(t) - tick) <= 1e-9 * max(1, abs(tick)) for t, tick in zip(texts, ticks)
        ):
            break
    return list(zip(ticks, [text.replace("-", "−") for text in texts])) if ticks else []


def scale_around(values: Iterable[float], least: float = 0.0, room: float = 0.08, bounds: Place | None = None) -> Scale:
    """A scale that has all values with some room around them, within `bounds` where those are given."""
    known = list(values)
    low, high = min(known), max(known)
    margin = max(room * (high - low), least) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    if bounds is not None:
        low, high = max(bounds[0], low), min(bounds[1], high)
    return Scale(low, high if high > low else low + 1)


def clipped(interval: Place, bounds: Place | None) -> Place:
    """The edges of an interval, none beyond the bounds of what can be."""
    if bounds is None:
        return interval
    low, high = (min(max(edge, bounds[0]), bounds[1]) for edge in interval)
    return low, high


def width_of(text: str, size: float = TEXT) -> float:
    """How wide a text is at most in the fonts it may be shown in."""
    return size * sum(map(_WIDTHS.__getitem__, text))


class _Widths(dict[str, float]):
    """How wide a character is over its size; filled as characters come."""

    def __missing__(self, char: str) -> float:
        """A narrow, a broad, a capital or another one."""
        wide = 0.36 if char in NARROW else 0.98 if char in BROAD else 0.7 if char.isupper() else 0.63
        self[char] = wide
        return wide


_WIDTHS = _Widths()


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes share some ground."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def wrapped_lines(text: str, room: float, size: float = TEXT) -> list[str]:
    """The text in lines that fit the room; a word that does not is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [cut(line, room, size) for line in lines]


def cut(text: str, room: float, size: float = TEXT) -> str:
    """The text, cut to the room there is."""
    while text and width_of(text, size) > room:
        text = f"{text.removesuffix('…')[:-1]}…" if len(text) > 1 else ""
    return text


def legend(
    entries: Sequence[tuple[Sequence[DrawnItem], str]], left: float, top: float, room: float
) -> tuple[list[DrawnPart], float]:
    """Entries in lines, each its shapes (drawn around 0, 0) and its text; and how high that is."""
    parts, x, y = list[DrawnPart](), left, top + 9
    for shapes, text in entries:
        wide = 22 + width_of(text, SMALL_TEXT) + 12
        if x > left and x + wide > left + room:
            x, y = left, y + 13
        shifted = tuple(moved(shape, x + 8, y - 3) for shape in shapes)
        parts.append(DrawnPart((*shifted, Text((x + 20, y), text, "ink", SMALL_TEXT))))
        x += wide
    return parts, (y - top + 6 if entries else 0.0)


def moved(item: DrawnItem, x: float, y: float) -> DrawnItem:
    """The item, moved right and down."""
    match item:
        case Stroke():
            return Stroke(tuple((a + x, b + y) for a, b in item.places), item.colour, item.width, item.dash, item.alpha)
        case Point():
            at = (item.place[0] + x, item.place[1] + y)
            return Point(at, item.shape, item.size, item.colour, item.fill, item.alpha, item.turn)
        case Area():
            return Area(tuple((a + x, b + y) for a, b in item.places), item.colour, item.alpha)
        case Text():
            at = (item.place[0] + x, item.place[1] + y)
            return Text(at, item.text, item.colour, item.size, item.anchor, item.turn)


def _steps(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / most
    if not (raw > 0 and math.isfinite(raw)):
        return []
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{at * step:.10g}") + 0.0 for at in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [part * 10.0**power for power in powers for part in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else _steps(low, high, 5)
