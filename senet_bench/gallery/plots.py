"""The plots of stored runs: error against what it costs, and the latency ratios of one machine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from senet_bench.core.metrics import Metric
from senet_bench.core.results import Latency, Row
from senet_bench.core.union import Timed
from senet_bench.gallery.collection import conditions_label
from senet_bench.gallery.points import DATASET_NAMES, Point
from senet_bench.show.chart import Chart, Mark, drawing, name_of, settle, shown
from senet_bench.show.curves import SHAPES
from senet_bench.show.measurements import pareto
from senet_bench.show.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL = 8.0
PLACES = (
    *((8, -3, "left"), (-8, -3, "right"), (0, 8, "center"), (0, -15, "center")),
    *((8, 7, "left"), (-8, 7, "right"), (8, -13, "left"), (-8, -13, "right"), (14, 14, "left"), (-14, 14, "right")),
)
"""Where a name may stand beside its point, the best place first: points to the right, up, and its alignment."""


def tradeoff(found: Sequence[Point], dataset: str, metric: Metric, name: str, where: str = "") -> Chart | None:
    """Top-1 error on a data set against one cost; None where fewer than two points have both.

    Diamonds are the paper's errors, circles those measured here, squares gates fixed at 0.5; hollow is without
    attention. `where` names machine and conditions of a latency.
    """
    from matplotlib.figure import Figure

    points = [point for point in found if point.dataset == dataset and _drawable(point, metric)]
    if len(points) < 2:
        return None
    with drawing():
        figure = Figure(figsize=(9, 5.4), layout="constrained")
        axes = figure.add_subplot()
        _frame(axes, points, dataset, metric, where)
        fronts = _fronts(axes, points, metric)
        _legend(axes, points, fronts)
        settle(figure)
        heads = list(_arrows(axes, points, metric))
        marks = [_mark(axes, place, point, metric) for place, point in enumerate(points)]
        names = list(_names(axes, points, metric))
    title = f"Top-1 error on {DATASET_NAMES.get(dataset, dataset)} against {metric.label}"
    return Chart(name, f"{title}{f', {where}' if where else ''}", figure, (*heads, *marks, *names), axes)


def _drawable(point: Point, metric: Metric) -> bool:
    cost = point.costs.get(metric.key)
    return cost is not None and cost.value > 0 and math.isfinite(cost.value) and math.isfinite(point.error)


def _frame(axes: Axes, points: Sequence[Point], dataset: str, metric: Metric, where: str) -> None:
    """Axes, their limits and ticks."""
    costs = [point.costs[metric.key].value for point in points]
    errors = [edge for point in points for edge in (point.error, *(point.interval or ()))]
    low, high, room = min(costs), max(costs), max(0.08 * (max(errors) - min(errors)), 0.05)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.5, high * 1.8)
    axes.set_ylim(max(0.0, min(errors) - room), max(errors) + room)
    decades = [
        part * 10.0**power
        for power in range(-7, 7)
        for part in (1, 2, 5)
        if low / 1.5 <= part * 10.0**power <= high * 1.8
    ]
    axes.set_xticks(decades, [f"{tick:g}" for tick in decades])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(metric.axis + (f": {shown(where, 90)}" if where else ""))
    axes.set_ylabel(f"top-1 error on {shown(DATASET_NAMES.get(dataset, dataset), 30)}, %")
    axes.tick_params(length=0)
    axes.set_axisbelow(True)


def _xy(point: Point, metric: Metric) -> tuple[float, float]:
    return point.costs[metric.key].value, point.error


def _arrows(axes: Axes, points: Sequence[Point], metric: Metric) -> Iterator[Mark]:
    """Draw a line from each baseline to its variants; the head in its middle."""
    bases = {(point.source, point.pair): point for point in points if point.kind == "baseline"}
    for place, point in enumerate(points):
        base = bases.get((point.source, point.pair))
        if point.kind != "attention" or base is None:
            continue
        start, end = _xy(base, metric), _xy(point, metric)
        colour: Any = {"color": LIGHT[point.source]}
        axes.plot(*zip(start, end), lw=1.3, alpha=0.75, gid=f"line-{name_of(point.family)}-{place}", **colour)
        (x0, y0), (x1, y1) = axes.transData.transform([start, end])
        if math.hypot(x1 - x0, y1 - y0) > 24:
            middle = axes.transData.inverted().transform(((x0 + x1) / 2, (y0 + y1) / 2))
            head: tuple[int, int, float] = (3, 0, math.degrees(math.atan2(y1 - y0, x1 - x0)) - 90)
            axes.plot(*middle, marker=head, ms=6, alpha=0.75, ls="", mec="none", gid=f"head-{place}", **colour)
            yield Mark(f"head-{place}", (), float(middle[0]), float(middle[1]), family=name_of(point.family))


def _fronts(axes: Axes, points: Sequence[Point], metric: Metric) -> set[str]:
    """A dashed staircase over the points of each recipe that nothing beats; the sources that have one."""
    drawn: set[str] = set()
    for group in dict.fromkeys(point.group for point in points):
        own = [point for point in points if point.group == group and point.kind != "control"]
        front = pareto(own, lambda point: point.costs[metric.key].value, lambda point: point.error)
        if len(own) < 3 or len(front) < 2:
            continue
        xs, ys = zip(*(_xy(point, metric) for point in front))
        source = front[0].source
        axes.step(
            xs, ys, where="post", color=LIGHT[source], lw=1, ls=(0, (2, 3)), zorder=1.5, gid=f"line--front{len(drawn)}"
        )
        drawn.add(source)
    return drawn


def _mark(axes: Axes, place: int, point: Point, metric: Metric) -> Mark:
    """Draw a point with its interval; what it says."""
    x, y = _xy(point, metric)
    colour = LIGHT["control"] if point.kind == "control" else LIGHT[point.source]
    if point.interval is not None:
        axes.plot((x, x), point.interval, color=colour, lw=1.2, gid=f"line-{name_of(point.family)}-bar{place}")
    shape = SHAPES["control" if point.kind == "control" else point.source]
    face = LIGHT["surface"] if point.kind == "baseline" else colour
    size = 5.6 if shape == "D" else 6.6
    axes.plot(x, y, shape, ms=size, mfc=face, mec=colour, mew=1.4, ls="", zorder=3, gid=f"mark-{place}")
    return Mark(
        f"mark-{place}", (point.label, *said(point, metric)), x, y, family=name_of(point.family), row=row_id(point)
    )


def said(point: Point, metric: Metric) -> tuple[str, ...]:
    """What a point says: its cost, where that comes from, and its error."""
    cost = point.costs[metric.key]
    origin = "as printed" if cost.printed else "counted here" if metric.quantity == "count" else "measured here"
    lines = [f"{cost.value:.4g} {metric.unit} {origin}"]
    if cost.ratio is not None:
        between = f" ({cost.ratio_ci[0]:.3f} to {cost.ratio_ci[1]:.3f})" if cost.ratio_ci else ""
        lines.append(f"{cost.ratio:.3f} times its baseline{between}")
    return (*lines, *point.about)


def row_id(point: Point) -> str:
    """The name of the line of the data table that has this point."""
    key = repr((point.dataset, point.source, point.group, point.pair, point.label, point.about))
    return f"row-{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:10]}"


def _names(axes: Axes, points: Sequence[Point], metric: Metric) -> Iterator[Mark]:
    """Draw the name of each network without attention (or alone), where it is free; left out where nothing is."""
    pairs = {(point.source, point.pair) for point in points if point.kind == "baseline"}
    at = [tuple(axes.transData.transform(_xy(point, metric))) for point in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    box = axes.get_window_extent()
    for place, point in enumerate(points):
        if point.kind == "attention" and (point.source, point.pair) in pairs:
            continue
        text = shown(point.label, 28)
        wide, (x, y) = 0.56 * _LABEL * len(text), at[place]
        for dx, dy, align in PLACES:
            left = x + dx - {"left": 0, "right": wide, "center": wide / 2}[align]
            area = (left, y + dy - 1, left + wide, y + dy + _LABEL)
            inside = box.x0 <= area[0] and area[2] <= box.x1 and box.y0 <= area[1] and area[3] <= box.y1
            if inside and not any(_overlap(area, other) for other in taken):
                options: dict[str, Any] = {"ha": align, "fontsize": _LABEL, "color": LIGHT["ink"]}
                options |= {"textcoords": "offset points", "xytext": (dx, dy), "gid": f"label-{place}"}
                axes.annotate(text, _xy(point, metric), **options)
                taken.append(area)
                yield Mark(f"label-{place}", (), *_xy(point, metric), family=name_of(point.family))
                break


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _legend(axes: Axes, points: Sequence[Point], fronts: set[str]) -> None:
    """What the shapes mean, above the axes."""
    from matplotlib.lines import Line2D

    names = {"paper": "the paper's error", "here": "error measured here"}
    handles = []
    for source, text in names.items():
        if any(point.source == source for point in points):
            colour: Any = {"marker": SHAPES[source], "color": LIGHT[source], "ls": "", "ms": 5.5, "mew": 1.3}
            handles.append(Line2D([], [], mfc=LIGHT["surface"], label=f"{text}, without SE", **colour))
            handles.append(Line2D([], [], label="with SE", **colour))
    if any(point.kind == "control" for point in points):
        handles.append(Line2D([], [], marker="s", color=LIGHT["control"], ls="", ms=6, label="gates fixed at 0.5"))
    handles += [
        Line2D([], [], color=LIGHT[source], ls=(0, (2, 3)), lw=1, label="Pareto front, within a recipe")
        for source in sorted(fronts)[:1]
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        handletextpad=0.4,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


CONTROL_LABEL = "A/A control (a second copy of the baseline)"


def ratios(timed: Timed, name: str, machine: str) -> Chart | None:
    """A line a network with a ratio; None when there is none."""
    from matplotlib.figure import Figure

    rows = [(row, latency) for row in timed.rows if (latency := row.latency) and _finite(latency.ratio)]
    if not rows:
        return None
    with drawing():
        figure = Figure(figsize=(9, 1.1 + 0.3 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        marks = []
        axes.axvline(1, color=LIGHT["muted"], lw=0.9, zorder=1)
        for place, (row, latency) in enumerate(rows):
            _ratio_line(axes, place - 0.14, latency.ratio or 1.0, latency.ci, LIGHT["here"], "o", f"mark-{place}")
            marks.append(Mark(f"mark-{place}", _ratio_said(row, latency), latency.ratio or 1.0, place - 0.14))
            if _finite(latency.control_ratio):
                y, ratio, own = place + 0.2, latency.control_ratio or 1.0, f"mark-control-{place}"
                _ratio_line(axes, y, ratio, latency.control_ci, LIGHT["muted"], "|", own)
                marks.append(Mark(own, (f"{row.label}: control", _ratio(ratio, latency.control_ci)), ratio, y))
        axes.set_yticks(range(len(rows)), [shown(row.label, 40) for row, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.6)
        axes.tick_params(length=0)
        axes.tick_params(axis="y", labelcolor=LIGHT["ink"])
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("time with SE / time of its baseline, in the same rounds")
        handles = [
            axes.plot([], [], "o-", color=LIGHT["here"], ms=6, label="SE / baseline, interval over all looks")[0],
            axes.plot([], [], "|-", color=LIGHT["muted"], ms=7, label=CONTROL_LABEL)[0],
        ]
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)
        settle(figure)
    title = f"Latency of SE over its baseline on {machine}: {conditions_label(timed.conditions)}"
    return Chart(name, title, figure, tuple(marks))


def _ratio_said(row: Row, latency: Latency) -> tuple[str, ...]:
    """What the mark of a ratio says."""
    lines = [row.label, f"{_ratio(latency.ratio or 1.0, latency.ci)} times its baseline's time"]
    lines.append(f"{1e3 * latency.seconds:.4g} ms a call, {latency.rounds} rounds")
    if latency.control_ratio is not None:
        lines.append(f"control {_ratio(latency.control_ratio, latency.control_ci)}")
    if latency.mde is not None and latency.mean_seconds is not None:
        lines.append(f"a slowdown of {latency.mde:.1%} would have been seen")
    return tuple(lines)


def _ratio_line(
    axes: Axes, y: float, ratio: float, ci: tuple[float, float] | None, colour: str, shape: str, gid: str
) -> None:
    if ci is not None:
        axes.plot(ci, (y, y), color=colour, lw=1.6)
    axes.plot(ratio, y, shape, color=colour, ms=6 if shape == "o" else 7, mew=1.4, ls="", gid=gid)


def _ratio(ratio: float, ci: tuple[float, float] | None) -> str:
    return f"{ratio:.3f}" + (f" ({ci[0]:.3f} to {ci[1]:.3f})" if ci else "")


def _finite(ratio: float | None) -> bool:
    return ratio is not None and math.isfinite(ratio)
