"""Small panels side by side: one number each, over the settings of an ablation or the depth of a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from senet_bench.show.chart import Chart, Mark, drawing, settle, shown
from senet_bench.show.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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

    `references` are values to compare with: the baseline, the constant gate.
    """

    title: str
    lines: tuple[Line, ...]
    references: tuple[tuple[str, float], ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """The panels of one ablation; `ordered` settings are joined by a line, others are not."""

    name: str
    title: str
    settings: tuple[str, ...]
    panels: tuple[Panel, ...]
    ordered: bool
    sources: tuple[str, ...] = ()


SHAPES = {"paper": "D", "here": "o", "control": "s"}
SOURCE_NAMES = {"paper": "the paper's", "here": "here"}
REFERENCES = ("baseline", "gates fixed at 0.5")
_CHARACTERS = 26


def curves(series: Series) -> Chart | None:
    """A panel a number; bands are intervals of ordered settings, bars those of others; None without a number."""
    from matplotlib.figure import Figure

    if not series.panels:
        return None
    with drawing():
        columns = min(4, len(series.panels))
        lines = -(-len(series.panels) // columns)
        figure = Figure(figsize=(max(4.3, 2.9 * columns), 2.7 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        marks: list[Mark] = []
        for place, axes in enumerate(grid.flat):
            if place < len(series.panels):
                marks += _panel(axes, series, place)
            else:
                axes.set_visible(False)
        settle(figure)
    return Chart(series.name, series.title, figure, tuple(marks))


def _panel(axes: Axes, series: Series, place: int) -> Iterator[Mark]:
    panel, spots = series.panels[place], range(len(series.settings))
    axes.set_title(shown(panel.title, 44))
    for at, (name, value) in enumerate(panel.references):
        colour = LIGHT["control"] if name == REFERENCES[1] else LIGHT["muted"]
        axes.axhline(value, color=colour, lw=1, ls=(0, (4, 3)), zorder=1)
        axes.annotate(
            shown(name, 24), (0, value), xycoords=("axes fraction", "data"), xytext=(2, 2), textcoords="offset points",
            ha="left", fontsize=7, color=colour, gid=f"name-{place}-{at}",
        )  # fmt: skip
    for line in panel.lines:
        yield from _drawn(axes, series, panel, line, place)
    longest = max(map(len, series.settings))
    crowded = longest * len(series.settings) > _CHARACTERS
    options: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(spots, [shown(name, 24) for name in series.settings], **options)
    axes.set_xlim(-0.5, len(series.settings) - 0.5)
    axes.margins(y=0.18)
    axes.tick_params(length=0, labelsize=8)
    axes.grid(visible=False, axis="x")
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")


def _drawn(axes: Axes, series: Series, panel: Panel, line: Line, place: int) -> Iterator[Mark]:
    """A line with its band or bars; what each of its marks says."""
    colour, intervals = LIGHT[line.source], line.intervals or (None,) * len(line.values)
    known = [(x, y, ci) for x, (y, ci) in enumerate(zip(line.values, intervals)) if y is not None]
    if series.ordered:
        axes.plot([x for x, *_ in known], [y for _, y, _ in known], color=colour, lw=1.4)
        banded = [(x, *ci) for x, _, ci in known if ci is not None]
        if banded:
            xs, lows, highs = zip(*banded)
            axes.fill_between(xs, lows, highs, color=colour, alpha=0.18, lw=0)
    for x, y, ci in known:
        if ci is not None and not series.ordered:
            axes.plot((x, x), ci, color=colour, lw=1.3)
        own = f"mark-{place}-{line.source}-{x}"
        hollow: Any = {"mfc": "none", "ms": 7, "mew": 1.3} if line.source == "paper" else {"ms": 4.5}
        axes.plot(x, y, SHAPES[line.source], color=colour, ls="", gid=own, **hollow)
        between = f" ({ci[0]:.4g} to {ci[1]:.4g})" if ci else ""
        text = (f"{series.settings[x]}", f"{panel.title}", f"{SOURCE_NAMES[line.source]}: {y:.4g}{between}")
        yield Mark(own, text, x, y)
