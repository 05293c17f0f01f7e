"""The plots of stored runs: error against what it costs, and the latency ratios of one machine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from senet_bench.core.metrics import Metric
from senet_bench.core.results import Latency
from senet_bench.core.union import Timed, labels
from senet_bench.gallery.collection import conditions_label
from senet_bench.gallery.points import DATASET_NAMES, PricedError
from senet_bench.show.chart import name_of, shown
from senet_bench.show.curves import SHAPES
from senet_bench.show.drawing import (
    TEXT,
    Anchor,
    Area,
    Box,
    Chart,
    DrawnItem,
    DrawnPart,
    Frame,
    Mark,
    Place,
    Point,
    Scale,
    Stroke,
    Text,
    clipped,
    cut,
    legend,
    overlap,
    scale_around,
    width_of,
)
from senet_bench.show.figures import significant
from senet_bench.show.measurements import pareto

ERROR_BOUNDS = (0.0, 100.0)
LABEL = 8.0
LABEL_PLACES: tuple[tuple[float, float, Anchor], ...] = (
    *((8, 3, "start"), (-8, 3, "end"), (0, -8, "middle"), (0, 15, "middle")),
    *((8, -7, "start"), (-8, -7, "end"), (8, 13, "start"), (-8, 13, "end"), (14, -14, "start"), (-14, -14, "end")),
)
"""Where a name may stand beside its point, the best place first: points to the right, down, and its anchor."""
MOST_LINES = 60
"""Networks of one plot of ratios."""
WIDE, HIGH = 648.0, 320.0
"""The width of a plot, and the height of its frame, in points."""


def tradeoff(found: Sequence[PricedError], dataset: str, metric: Metric, name: str, where: str = "") -> Chart | None:
    """Top-1 error on a data set against one cost; None where fewer than two points have both.

    Diamonds are the paper's errors, circles those measured here, squares gates that are the same for every image;
    hollow is without attention, and beside errors measured here all of the paper's are in outline. An arrow leads
    from a baseline to its variant, a fan around it to the interval of the paired gain. `where` names machine and
    conditions of a latency.
    """
    points = [point for point in found if point.dataset == dataset and _drawable(point, metric)]
    if len(points) < 2:
        return None
    fronts = _fronts(points, metric)
    keys, high = legend(_keys(points, bool(fronts)), 50, 0, WIDE - 60)
    unit = unit_of(points, metric)
    frame = Frame(50, high + 6, WIDE - 64, HIGH, *_scales(points, metric, unit))
    plot = _Plot(frame, metric, unit, points)
    axis = f"{unit.axis}{f': {shown(where, 90)}' if where else ''}"
    titles = (
        Text(((frame.left + frame.right) / 2, frame.bottom + 28), axis, "ink", TEXT, "middle"),
        Text(
            (12, (frame.top + frame.bottom) / 2),
            f"top-1 error on {dataset_name(dataset)}, %",
            "ink",
            TEXT,
            "middle",
            -90,
        ),
    )
    parts = [
        *keys,
        *frame.grid(down=True),
        DrawnPart(titles),
        *plot.steps(fronts),
        *plot.fans(),
        *plot.arrows(),
        *plot.marks(),
        *plot.names(),
    ]
    title = f"Top-1 error on {DATASET_NAMES.get(dataset, dataset)} against {unit.label}"
    return Chart(name, f"{title}{f', {where}' if where else ''}", WIDE, frame.bottom + 38, tuple(parts), frame)


def dataset_name(dataset: str) -> str:
    """What a data set is called in a plot."""
    return shown(DATASET_NAMES.get(dataset, dataset), 30)


def _drawable(point: PricedError, metric: Metric) -> bool:
    cost = point.costs.get(metric.key)
    return cost is not None and cost.value > 0 and math.isfinite(cost.value) and math.isfinite(point.error)


@dataclass(frozen=True, slots=True)
class AxisUnit:
    """What a cost is shown in: its number in the metric's own unit times `factor`, called `label`, on its `axis`."""

    factor: float
    label: str
    axis: str


def unit_of(points: Sequence[PricedError], metric: Metric) -> AxisUnit:
    """The unit of a plot: the one that tables take for the largest of the numbers."""
    form = metric.form_of(max(point.costs[metric.key].value for point in points) * metric.scale)
    label = metric.label_in(form)
    return AxisUnit(metric.scale / form.scale, label, metric.axis.replace(metric.label, label))


def _scales(points: Sequence[PricedError], metric: Metric, unit: AxisUnit) -> tuple[Scale, Scale]:
    costs = [unit.factor * point.costs[metric.key].value for point in points]
    edges = [
        edge
        for point in points
        for edge in (point.error, *(clipped(point.interval, ERROR_BOUNDS) if point.interval else ()))
    ]
    edges += [edge for _, _, ends in _gains(points) for edge in ends]
    return Scale(min(costs) / 1.5, max(costs) * 1.8, log=True), scale_around(edges, 0.05, 0.08, ERROR_BOUNDS)


def _pairs(points: Sequence[PricedError]) -> Iterator[tuple[PricedError, PricedError]]:
    """Each point with attention behind its baseline."""
    bases = {(point.source, point.pair): point for point in points if point.kind == "baseline"}
    for point in points:
        base = bases.get((point.source, point.pair))
        if point.kind == "attention" and base is not None:
            yield base, point


def _gains(points: Sequence[PricedError]) -> Iterator[tuple[PricedError, PricedError, tuple[float, float]]]:
    """The pairs whose gain has an interval, and the errors that it leads to from the baseline's."""
    for base, point in _pairs(points):
        if point.gain is not None and all(map(math.isfinite, point.gain)):
            yield base, point, clipped((base.error + point.gain[0], base.error + point.gain[1]), ERROR_BOUNDS)


@dataclass(frozen=True, slots=True)
class _Plot:
    """The points of a plot in its frame."""

    frame: Frame
    metric: Metric
    unit: AxisUnit
    points: Sequence[PricedError]

    def place(self, point: PricedError) -> Place:
        """Where a point lies on paper."""
        return self.frame.place(self.unit.factor * point.costs[self.metric.key].value, point.error)

    def steps(self, fronts: Sequence[tuple[str, Sequence[PricedError]]]) -> Iterator[DrawnPart]:
        """A dashed staircase over the points that nothing beats."""
        for source, front in fronts:
            places = [self.place(point) for point in front]
            corners = [(after[0], before[1]) for before, after in pairwise(places)]
            path = [places[0], *(place for pair in zip(corners, places[1:]) for place in pair)]
            yield DrawnPart((Stroke(tuple(path), source, 1, (2, 3)),), "line")

    def fans(self) -> Iterator[DrawnPart]:
        """From each baseline to the interval of its variant's gain."""
        for base, point, (low, high) in _gains(self.points):
            x = self.place(point)[0]
            fan = Area((self.place(base), (x, self._y(low)), (x, self._y(high))), point.source, 0.16)
            yield DrawnPart((fan,), "line", family=name_of(point.family))

    def arrows(self) -> Iterator[DrawnPart]:
        """A line from each baseline to its variants; the head in its middle."""
        for place, (base, point) in enumerate(_pairs(self.points)):
            (x0, y0), (x1, y1) = self.place(base), self.place(point)
            family = name_of(point.family)
            yield DrawnPart((Stroke(((x0, y0), (x1, y1)), point.source, 1.3, alpha=0.75),), "line", family=family)
            if math.hypot(x1 - x0, y1 - y0) > 24:
                at, turn = ((x0 + x1) / 2, (y0 + y1) / 2), math.degrees(math.atan2(y1 - y0, x1 - x0))
                head = Point(at, "arrow", 8, point.source, point.source, 0.75, turn)
                yield DrawnPart((head,), "mark", Mark(f"head-{place}", (), *at, family))

    def marks(self) -> Iterator[DrawnPart]:
        """Each point with its interval, and what it says."""
        outlined = any(point.source == "here" for point in self.points)
        for place, point in enumerate(self.points):
            at, family = self.place(point), name_of(point.family)
            colour = "control" if point.kind == "control" else point.source
            if point.interval is not None:
                low, high = clipped(point.interval, ERROR_BOUNDS)
                bar = Stroke(((at[0], self._y(low)), (at[0], self._y(high))), colour, 1.2)
                yield DrawnPart((bar,), "line", family=family)
            shape = SHAPES["control" if point.kind == "control" else point.source]
            face = None if outlined and point.source == "paper" else _face(point, colour)
            drawn = Point(at, shape, 8 if shape == "diamond" else 7, colour, face)
            said_here = (point.label, *said(point, self.metric, self.unit))
            yield DrawnPart((drawn,), "mark", Mark(f"mark-{place}", said_here, *at, family, row_id(point)))

    def _y(self, error: float) -> float:
        return self.frame.place(self.frame.x.low, error)[1]

    def names(self) -> Iterator[DrawnPart]:
        """The name of each network without attention (or alone), where it is free; left out where nothing is."""
        pairs = {(point.source, point.pair) for point in self.points if point.kind == "baseline"}
        taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in map(self.place, self.points)]
        taken += self._heads()
        for place, point in enumerate(self.points):
            if point.kind == "attention" and (point.source, point.pair) in pairs:
                continue
            text, at = shown(point.label, 28), self.place(point)
            free = next(
                (free for free in self._around(text, at) if not any(overlap(free[1], box) for box in taken)), None
            )
            if free is not None:
                taken.append(free[1])
                yield DrawnPart((free[0],), "mark", Mark(f"label-{place}", (), *at, name_of(point.family)))

    def _heads(self) -> list[Box]:
        """The ground of the arrows' heads."""
        heads = (part.mark for part in self.arrows() if part.mark)
        return [(mark.x - 4, mark.y - 4, mark.x + 4, mark.y + 4) for mark in heads]

    def _around(self, text: str, at: Place) -> Iterator[tuple[Text, Box]]:
        """The text at every place beside a point that is inside the frame, with its ground."""
        wide = width_of(text, LABEL)
        for dx, dy, anchor in LABEL_PLACES:
            x, y = at[0] + dx, at[1] + dy
            left = x - {"start": 0, "end": wide, "middle": wide / 2}[anchor]
            box = (left, y - LABEL, left + wide, y + 2.5)
            frame = self.frame
            if frame.left <= box[0] and box[2] <= frame.right and frame.top <= box[1] and box[3] <= frame.bottom:
                yield Text((x, y), text, "ink", LABEL, anchor), box


def _face(point: PricedError, colour: str) -> str:
    return "surface" if point.kind == "baseline" else colour


def _fronts(points: Sequence[PricedError], metric: Metric) -> Sequence[tuple[str, Sequence[PricedError]]]:
    """The points of each recipe that nothing beats, with their source, where there are two or more of three."""
    fronts = []
    for group in dict.fromkeys(point.group for point in points):
        own = [point for point in points if point.group == group and point.kind != "control"]
        front = pareto(own, lambda point: point.costs[metric.key].value, lambda point: point.error)
        if len(own) >= 3 and len(front) >= 2:
            fronts.append((front[0].source, front))
    return fronts


def said(point: PricedError, metric: Metric, unit: AxisUnit) -> tuple[str, ...]:
    """What a point says: its cost, where that comes from, and its error."""
    cost = point.costs[metric.key]
    origin = "as printed" if cost.printed else "counted here" if metric.quantity == "count" else "measured here"
    word = unit.label if unit.factor != 1 else metric.unit
    lines = [f"{significant(cost.value, scale=unit.factor)} {word} {origin}"]
    if cost.ratio is not None:
        between = f" ({cost.ratio_ci[0]:.3f} to {cost.ratio_ci[1]:.3f})" if cost.ratio_ci else ""
        lines.append(f"{cost.ratio:.3f} times its baseline{between}")
    return (*lines, *point.about)


def row_id(point: PricedError) -> str:
    """The name of the line of the data table that has this point."""
    key = repr((point.dataset, point.source, point.group, point.pair, point.label, point.about))
    return f"row-{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:10]}"


def _keys(points: Sequence[PricedError], fronts: bool) -> list[tuple[tuple[DrawnItem, ...], str]]:
    """What the shapes mean."""
    keys: list[tuple[tuple[DrawnItem, ...], str]] = []
    outlined = any(point.source == "here" for point in points)
    for source, text in (("paper", "the paper's error"), ("here", "error measured here")):
        if any(point.source == source for point in points):
            shape = SHAPES[source]
            if outlined and source == "paper":
                keys.append(((Point((0, 0), shape, 7, source),), f"{text}, arrows from without attention to with it"))
                continue
            keys.append(((Point((0, 0), shape, 7, source, "surface"),), f"{text}, without attention"))
            keys.append(((Point((0, 0), shape, 7, source, source),), "with it"))
    if any(point.kind == "control" for point in points):
        keys.append(((Point((0, 0), "square", 7, "control", "control"),), "gates the same for every image"))
    if any(_gains(points)):
        keys.append(((Area(((-8, 3), (8, -5), (8, 5)), "here", 0.16),), "the gain's 95 % interval"))
    if fronts:
        keys.append(((Stroke(((-8, 0), (8, 0)), "muted", 1, (2, 3)),), "Pareto front, within a recipe"))
    return keys


CONTROL_LABEL = "A/A control (a second copy of the baseline)"
LINE = 21.0


def ratios(timed: Timed, name: str, machine: str) -> Chart | None:
    """A line a network with a ratio, of the first `MOST_LINES`; None when there is none."""
    timed_rows = [(row, latency) for row in timed.rows if (latency := row.latency) and _finite(latency.ratio)]
    if not timed_rows:
        return None
    rows = timed_rows[:MOST_LINES]
    some = f"; {len(rows)} of {len(timed_rows)} networks" if len(rows) < len(timed_rows) else ""
    entries = [
        (
            (Stroke(((-8, 0), (8, 0)), "here", 1.6), Point((0, 0), "circle", 6, "here", "here")),
            "network / baseline, its interval",
        ),
        ((Stroke(((-8, 0), (8, 0)), "muted", 1.6), Point((0, 0), "bar", 7, "muted")), CONTROL_LABEL),
    ]
    keys, high = legend(entries, 8, 0, WIDE - 16)
    label_of = labels(timed.rows)
    left = min(260.0, max(width_of(shown(label_of(row), 40)) for row, _ in rows) + 14)
    edges = [edge for _, latency in rows for edge in _edges(latency)]
    frame = Frame(
        left, high + 4, WIDE - left - 14, LINE * len(rows) + 8, scale_around([1, *edges], 0.01), Scale(0, len(rows))
    )
    one = frame.place(1, 0)[0]
    axis = Text(
        ((frame.left + frame.right) / 2, frame.bottom + 28),
        "time / time of the baseline, in the same rounds",
        "ink",
        TEXT,
        "middle",
    )
    parts = [
        *keys,
        *frame.grid(across=False, down=True),
        DrawnPart((Stroke(((one, frame.top), (one, frame.bottom)), "muted", 0.9), axis)),
    ]
    for place, (row, latency) in enumerate(rows):
        y = frame.top + 4 + LINE * (place + 0.5)
        label = label_of(row)
        parts.append(DrawnPart((Text((left - 6, y), cut(shown(label, 40), left - 10), "ink", TEXT, "end"),)))
        parts += _ratio_parts(frame, y, place, label, latency)
    title = f"Latency over the baseline's on {machine}: {conditions_label(timed.conditions)}{some}"
    return Chart(name, title, WIDE, frame.bottom + 38, tuple(parts))


def _edges(latency: Latency) -> list[float]:
    """Every ratio of a line that is drawn."""
    known = [latency.ratio, latency.control_ratio, *(latency.ci or ()), *(latency.control_ci or ())]
    return [edge for edge in known if edge is not None and math.isfinite(edge)]


def _ratio_parts(frame: Frame, y: float, place: int, label: str, latency: Latency) -> Iterator[DrawnPart]:
    """The ratio of a network with its interval, and below it the control's."""
    yield _ratio_part(frame, y - 3, (latency.ratio or 1.0, latency.ci), ratio_said(label, latency), f"mark-{place}")
    if _finite(latency.control_ratio):
        ratio = latency.control_ratio or 1.0
        text = (f"{label}: control", ratio_text(ratio, latency.control_ci))
        yield _ratio_part(frame, y + 5, (ratio, latency.control_ci), text, f"mark-control-{place}")


def _ratio_part(
    frame: Frame, y: float, ratio: tuple[float, tuple[float, float] | None], text: tuple[str, ...], name: str
) -> DrawnPart:
    x, control = frame.place(ratio[0], 0)[0], name.startswith("mark-control")
    colour = "muted" if control else "here"
    point = Point((x, y), "bar" if control else "circle", 7 if control else 6, colour, None if control else colour)
    bounds = ratio[1] if ratio[1] and all(map(math.isfinite, ratio[1])) else None
    bar = (Stroke((_at(frame, bounds[0], y), _at(frame, bounds[1], y)), colour, 1.6),) if bounds else ()
    return DrawnPart((*bar, point), "mark", Mark(name, text, x, y))


def _at(frame: Frame, ratio: float, y: float) -> Place:
    return frame.place(ratio, 0)[0], y


def ratio_said(label: str, latency: Latency) -> tuple[str, ...]:
    """What the mark of a ratio says."""
    lines = [label, f"{ratio_text(latency.ratio or 1.0, latency.ci)} times its baseline's time"]
    lines.append(f"{significant(latency.seconds, scale=1e3)} ms a call, {latency.rounds} rounds")
    if latency.control_ratio is not None:
        lines.append(f"control {ratio_text(latency.control_ratio, latency.control_ci)}")
    if latency.mde is not None and latency.mean_seconds is not None:
        lines.append(f"a slowdown of {latency.mde:.1%} would have been seen")
    return tuple(lines)


def ratio_text(ratio: float, ci: tuple[float, float] | None) -> str:
    """A ratio with its interval in brackets."""
    return f"{ratio:.3f}" + (f" ({ci[0]:.3f} to {ci[1]:.3f})" if ci else "")


def _finite(ratio: float | None) -> bool:
    return ratio is not None and math.isfinite(ratio)
