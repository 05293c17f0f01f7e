"""The chart of what attention costs by runtime: a network a group, a runtime a line, a batch size a panel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import Runtime
from senet_bench.core.union import Key, labels
from senet_bench.gallery.collection import Collection
from senet_bench.gallery.plots import ratio_said
from senet_bench.gallery.runtimes import RuntimeCost, RuntimeCosts, conditions_of, row_id, subject_of
from senet_bench.show.chart import shown
from senet_bench.show.drawing import (
    SMALL_TEXT,
    TEXT,
    Chart,
    DrawnItem,
    DrawnPart,
    Frame,
    Mark,
    Point,
    Scale,
    Shape,
    Stroke,
    Text,
    clipped,
    cut,
    legend,
    scale_around,
    width_of,
)

MOST_NETWORKS, MOST_BATCHES = 12, 4
"""Networks and batch sizes of one chart; the table has all of them."""
WIDE, LINE, HEAD, GAP, MOST_NAME = 648.0, 11.0, 14.0, 14.0, 190.0
"""In points the width of a chart, the height of a line and of a network's name, what lies between panels, and the room
that the names of networks are given at most."""
KINDS: dict[str, tuple[Shape, str, str]] = {
    "plain": ("circle", "class-4", "the network as it is"),
    "deployed": ("diamond", "class-1", "its deploy form: BatchNorm folded, gates early, dead pixels dropped"),
    "int8": ("square", "class-5", "quantised to INT8"),
}


def runtime_chart(costs: RuntimeCosts, collection: Collection, name: str) -> Chart:
    """A panel a batch size, a group a network, a line a runtime with its ratio, its interval and the floor."""
    networks = list(dict.fromkeys(cost.network for cost in costs.costs))
    batches = sorted({cost.batch for cost in costs.costs})
    some = [f"{MOST_NETWORKS} of {len(networks)} networks"] if len(networks) > MOST_NETWORKS else []
    some += [f"{MOST_BATCHES} of {len(batches)} batch sizes"] if len(batches) > MOST_BATCHES else []
    drawn, batches = set(networks[:MOST_NETWORKS]), batches[:MOST_BATCHES]
    kept = [cost for cost in costs.costs if cost.network in drawn and cost.batch in batches]
    keys, high = legend(_keys(kept), 8, 0, WIDE - 16)
    plot = _Plot(kept, batches, high + TEXT + 8)
    title = f"{subject_of(kept)} by runtime on {conditions_of(costs, collection, batches)}"
    parts = (*keys, *plot.names(), *(part for panel in plot.frames for part in plot.panel(*panel)))
    return Chart(name, "; ".join((title, *some)), WIDE, plot.bottom + 38, parts)


def _kind(runtime: Runtime) -> str:
    facts = RUNTIMES[runtime]
    return "int8" if facts.int8 else "deployed" if facts.deployed else "plain"


def _keys(costs: Sequence[RuntimeCost]) -> list[tuple[tuple[DrawnItem, ...], str]]:
    """What shapes and lines mean."""
    kinds = {_kind(cost.runtime) for cost in costs}
    keys: list[tuple[tuple[DrawnItem, ...], str]] = [
        ((_bar(-8, 8, 0, colour), Point((0, 0), shape, 6, colour, colour)), words)
        for kind, (shape, colour, words) in KINDS.items()
        if kind in kinds
    ]
    if any(cost.latency.reason for cost in costs):
        keys.append(((Point((0, 0), "circle", 6, "muted", "surface"),), "hollow: with a reservation, see the table"))
    if any(cost.floor for cost in costs):
        keys.append(((Stroke(((0, -5), (0, 5)), "here", 1.4, (2, 2)),), "floor: the gates' weights read once"))
    return keys


def _bar(start: float, end: float, y: float, colour: str) -> Stroke:
    return Stroke(((start, y), (end, y)), colour, 1.6)


@dataclass(frozen=True)
class _Plot:
    """Costs in panels of one scale below `top`."""

    costs: Sequence[RuntimeCost]
    batches: Sequence[int]
    top: float

    @cached_property
    def label(self) -> dict[Key, str]:
        """What each network is called."""
        rows = {cost.network: cost.row for cost in self.costs}
        named = labels(rows.values())
        return {key: named(row) for key, row in rows.items()}

    @cached_property
    def lines(self) -> dict[tuple[Key, Runtime | None], float]:
        """How far below the top each network's name stands, and each of its runtimes."""
        places: dict[tuple[Key, Runtime | None], float] = {}
        y = 0.0
        for network in self.label:
            y += HEAD
            places[network, None] = y
            runtimes = {cost.runtime for cost in self.costs if cost.network == network}
            for runtime in (name for name in RUNTIMES if name in runtimes):
                y += LINE
                places[network, runtime] = y
            y += 4
        return places

    @property
    def bottom(self) -> float:
        """The lower edge of every panel."""
        return self.top + max(self.lines.values()) + LINE

    @cached_property
    def left(self) -> float:
        """Where the first panel begins, to the right of the names."""
        names = [width_of(shown(name, 60)) for name in self.label.values()]
        return max(
            *(width_of(name, SMALL_TEXT) + 22 for _, name in self.lines if name), min(MOST_NAME, max(names) + 14)
        )

    @cached_property
    def scale(self) -> Scale:
        """The range of all ratios; of intervals what reaches half of it beyond them."""
        ratios = [1.0, *(cost.latency.ratio or 1.0 for cost in self.costs), *(cost.floor or 1.0 for cost in self.costs)]
        beyond = max(0.02, (max(ratios) - min(ratios)) / 2)
        bounds = (min(ratios) - beyond, max(ratios) + beyond)
        edges = [edge for cost in self.costs for edge in clipped(cost.latency.ci or (1.0, 1.0), bounds)]
        return scale_around([*ratios, *edges], 0.005, 0.04)

    @property
    def frames(self) -> list[tuple[int, Frame]]:
        """A frame a batch size."""
        room = WIDE - self.left - 12
        wide = (room - GAP * (len(self.batches) - 1)) / len(self.batches)
        high = self.bottom - self.top
        return [
            (batch, Frame(self.left + place * (wide + GAP), self.top, wide, high, self.scale, Scale(0, 1)))
            for place, batch in enumerate(self.batches)
        ]

    def names(self) -> Iterator[DrawnPart]:
        """Networks and runtimes, left of the panels."""
        for (network, runtime), y in self.lines.items():
            at = self.top + y
            if runtime is None:
                text = Text((8, at), cut(shown(self.label[network], 60), self.left - 14), "ink", TEXT)
            else:
                text = Text((self.left - 6, at + 2.5), runtime, "muted", SMALL_TEXT, "end")
            yield DrawnPart((text,))

    def panel(self, batch: int, frame: Frame) -> Iterator[DrawnPart]:
        """The costs at one batch size."""
        head = Text(((frame.left + frame.right) / 2, frame.top - 5), f"batch {batch}", "ink", TEXT, "middle")
        axis = Text(((frame.left + frame.right) / 2, frame.bottom + 27), "with / without", "ink", TEXT, "middle")
        one = frame.place(1, 0)[0]
        guides = [
            Stroke(((frame.left, frame.top + y), (frame.right, frame.top + y)), "rule", 0.5, (1, 3))
            for (_, runtime), y in self.lines.items()
            if runtime is not None
        ]
        yield from frame.grid(across=False, down=True)
        yield DrawnPart((head, axis, *guides, Stroke(((one, frame.top), (one, frame.bottom)), "muted", 1.1)))
        own = [cost for cost in self.costs if cost.batch == batch]
        yield from self._floors(own, frame)
        for place, cost in enumerate(own):
            yield self._mark(cost, frame, f"mark-{batch}-{place}")

    def _floors(self, costs: Sequence[RuntimeCost], frame: Frame) -> Iterator[DrawnPart]:
        """A line across the runtimes of each network."""
        for network, floor in {cost.network: cost.floor for cost in costs if cost.floor}.items():
            x = frame.place(floor, 0)[0]
            known = [frame.top + y for (one, runtime), y in self.lines.items() if one == network and runtime]
            line = Stroke(((x, min(known) - LINE / 2), (x, max(known) + LINE / 2)), "here", 1.4, (2, 2))
            yield DrawnPart((line,))

    def _mark(self, cost: RuntimeCost, frame: Frame, name: str) -> DrawnPart:
        latency, (shape, colour, _) = cost.latency, KINDS[_kind(cost.runtime)]
        x, y = frame.place(latency.ratio or 1.0, 0)[0], frame.top + self.lines[cost.network, cost.runtime]
        bar: tuple[DrawnItem, ...] = ()
        if latency.ci and all(map(math.isfinite, latency.ci)):
            low, high = (frame.place(edge, 0)[0] for edge in clipped(latency.ci, (frame.x.low, frame.x.high)))
            bar = (_bar(low, high, y, colour),)
        point = Point((x, y), shape, 6, colour, "surface" if latency.reason else colour)
        text = _said(cost, self.label[cost.network])
        return DrawnPart((*bar, point), "mark", Mark(name, text, x, y, row=row_id(cost)))


def _said(cost: RuntimeCost, label: str) -> tuple[str, ...]:
    """What a mark says."""
    first, *lines = ratio_said(label, cost.latency)
    lines.insert(0, f"{cost.runtime}, batch {cost.batch}")
    lines += [f"{cost.own_eager:.3f} of its own eager time"] if cost.own_eager and cost.runtime != "eager" else []
    lines += [f"floor {cost.floor:.3f}"] if cost.floor else []
    lines += [shown(cost.latency.reason, 120)] if cost.latency.reason else []
    return (first, *lines)
