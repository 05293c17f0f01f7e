"""The paper's Figures 6 and 7: the gate of every channel by class, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from senet_bench.gates.rows import GateRow
from senet_bench.show.chart import Chart, Mark, drawing, settle, shown
from senet_bench.show.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_ACROSS = 3
SPREAD_CLASSES = 2
CLASS_COLOURS = [colour for role, colour in LIGHT.items() if role.startswith("class-")]


def class_means(rows: Sequence[GateRow], name: str, subject: str) -> Chart:
    """Figure 6: the mean gate of every channel kept, a line a class and one for all images, a panel a block."""
    with drawing():
        figure, panels = _panels(rows)
        marks = []
        for axes, row in panels:
            for index, (label, means) in enumerate(row.classes.items()):
                dashes = (0, (1 + 2 * (index // len(CLASS_COLOURS)), 1)) if index >= len(CLASS_COLOURS) else "-"
                colour = CLASS_COLOURS[index % len(CLASS_COLOURS)]
                axes.plot(_drawn(means), color=colour, lw=0.9, ls=dashes, label=shown(f"class {label}", 24))
            axes.plot(_drawn(row.mean), color=LIGHT["ink"], lw=1.5, label="all images")
            marks.append(_mark(axes, row, row.mean))
        _finish(figure, panels)
    return Chart(name, f"Mean gate of every channel by class: {subject}", figure, tuple(marks))


def class_spread(rows: Sequence[GateRow], name: str, subject: str) -> Chart:
    """Figure 7: mean and standard deviation of the gates over the images of single classes, the first two kept."""
    with drawing():
        figure, panels = _panels(rows)
        marks = []
        for axes, row in panels:
            for colour, label in zip(CLASS_COLOURS, [*row.classes][:SPREAD_CLASSES]):
                means, sds = row.classes[label], row.class_sd[label]
                known = [(at, m, sd) for at, (m, sd) in enumerate(zip(means, sds)) if m is not None and sd is not None]
                axes.plot(_drawn(means), color=colour, lw=1.2, label=shown(f"class {label}", 24))
                axes.fill_between(
                    [at for at, _, _ in known],
                    [m - sd for _, m, sd in known],
                    [m + sd for _, m, sd in known],
                    color=colour,
                    alpha=0.25,
                    lw=0,
                )
            marks.append(_mark(axes, row, next(iter(row.classes.values()), row.mean)))
        _finish(figure, panels)
    return Chart(name, f"Mean and standard deviation within a class: {subject}", figure, tuple(marks))


def _panels(rows: Sequence[GateRow]) -> tuple[Figure, list[tuple[Axes, GateRow]]]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    kept = shown_blocks(rows)
    across = min(PANELS_ACROSS, len(kept))
    down = math.ceil(len(kept) / across)
    figure = Figure(figsize=(max(4.6, 3.1 * across), 0.4 + 1.9 * down), layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, row in zip(grid.flat, kept):
        some = "" if row.channels == len(row.shown) else f", {len(row.shown)} of {row.channels} channels"
        axes.set_title(shown(f"{row.label} ({row.block}){some}", 44))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.02)
        axes.tick_params(length=0, labelsize=8)
    for axes in [*grid.flat][len(kept) :]:
        axes.set_visible(False)
    return figure, list(zip(grid.flat, kept))


def shown_blocks(rows: Sequence[GateRow]) -> list[GateRow]:
    """The blocks of Figure 6: the last of every stage, and all of the last stage."""
    last = {row.stage: row.block for row in rows}
    return [row for row in rows if row.block == last[row.stage] or row.stage == rows[-1].stage]


def _mark(axes: Axes, row: GateRow, line: Sequence[float | None]) -> Mark:
    """A point in the middle of a line that says the numbers of its block."""
    place, middle, drawn = f"mark-{shown(row.label)}", len(line) // 2, _drawn(line)
    axes.plot(middle, drawn[middle], "o", color=LIGHT["ink"], ms=3.5, ls="", gid=place)
    return Mark(place, tuple(_told(row)), middle, drawn[middle])


def _drawn(values: Sequence[float | None]) -> list[float]:
    """The values with NaN, which leaves a gap, where there is none."""
    return [math.nan if value is None else value for value in values]


def _told(row: GateRow) -> Iterator[str]:
    yield f"{row.label} ({row.block}), {row.channels} channels"
    yield f"mean gate {row.mean_gate:.3f}"
    if row.between_class_share is not None:
        yield f"{100 * row.between_class_share:.1f} % of the variance is between classes"
    yield f"at 0: {100 * row.saturated_low:.1f} %, at 1: {100 * row.saturated_high:.1f} %"
    yield f"distance from the identity {row.distance_from_identity:.3f}"


def _finish(figure: Figure, panels: Sequence[tuple[Axes, GateRow]]) -> None:
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(6, len(labels)), frameon=False, fontsize=8)
    settle(figure)
