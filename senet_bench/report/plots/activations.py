"""The paper's Figures 6 and 7: the mean gate of every channel, for each class, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from senet_bench.report.gates import Gates, blocks, network_of
from senet_bench.report.palette import LIGHT
from senet_bench.report.plots.chart import Chart, Mark, drawing, settle, shown
from senet_bench.results import Facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BLOCKS = 12
MOST_CLASSES = 5


def activations(facts: Facts, name: str) -> Chart | None:
    """A panel a block: a thin line a class, the mean of all images over it with one standard deviation around it."""
    from matplotlib.figure import Figure

    every = blocks(facts)
    if not every:
        return None
    found = every if len(every) <= MOST_BLOCKS else chosen(every)
    with drawing():
        columns = min(3, len(found))
        lines = -(-len(found) // columns)
        figure = Figure(figsize=(max(4.6, 3.1 * columns), 0.4 + 1.9 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
        marks = []
        for place, axes in enumerate(grid.flat):
            if place < len(found):
                marks.append(_panel(axes, found[place], place))
            else:
                axes.set_visible(False)
        handles, names = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=7, frameon=False, fontsize=8)
        settle(figure)
    return Chart(name, f"Mean gate of every channel, {network_of(facts)}", figure, tuple(marks))


def chosen(every: Sequence[Gates]) -> list[Gates]:
    """The last block of each stage and all of the last stage, as the paper shows; the last so many at most."""
    last = {one.stage: one for one in every}
    return [one for one in every if one is last[one.stage] or one.stage == every[-1].stage][-MOST_BLOCKS:]


def _panel(axes: Axes, gates: Gates, place: int) -> Mark:
    for at, (name, values) in enumerate(list(gates.classes.items())[:MOST_CLASSES]):
        axes.plot(values, color=LIGHT[f"class-{at + 1}"], lw=0.8, alpha=0.9, label=shown(f"class {name}", 16))
    axes.plot(gates.mean, color=LIGHT["ink"], lw=1.5, label="all images")
    if len(gates.sd) == len(gates.mean):
        low = [mean - sd for mean, sd in zip(gates.mean, gates.sd)]
        high = [mean + sd for mean, sd in zip(gates.mean, gates.sd)]
        axes.fill_between(range(gates.channels), low, high, color=LIGHT["muted"], alpha=0.2, lw=0, label="± sd")
    middle = gates.channels // 2
    axes.plot(middle, gates.mean[middle], "o", color=LIGHT["ink"], ms=3.5, ls="", gid=f"mark-{place}")
    axes.set_title(shown(gates.block, 34))
    axes.set_ylim(-0.02, 1.02) if max(gates.mean) <= 1.02 and min(gates.mean) >= -0.02 else None
    axes.margins(x=0.02)
    axes.tick_params(length=0, labelsize=8)
    text = [f"{gates.block}, {gates.channels} channels", f"mean gate {sum(gates.mean) / gates.channels:.3f}"]
    text += [f"{name.replace('_', ' ')} {value:.3f}" for name, value in gates.numbers.items() if value is not None]
    return Mark(f"mark-{place}", tuple(text), middle, gates.mean[middle])
