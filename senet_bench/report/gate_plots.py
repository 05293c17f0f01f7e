"""The paper's Figures 6 and 7 from stored facts, and the numbers of every block by depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from senet_bench.results import Facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
SPREAD_CLASSES = 2


def by_class(facts: Facts) -> Figure:
    """Figure 6: the mean gate of every channel kept, a line a class and one for all images, a panel a block."""
    figure, panels = _panels(facts, "Mean gate by class")
    for axes, row in panels:
        for index, (name, means) in enumerate(row["classes"].items()):
            axes.plot(_values(means), color=f"C{index}", lw=1.2, label=plain(name))
        axes.plot(_values(row["mean"]), color="black", lw=1.6, ls="--", label="all")
    _legend(figure, panels)
    return figure


def within_class(facts: Facts) -> Figure:
    """Figure 7: mean and standard deviation of the gates over the images of single classes, the first two kept."""
    figure, panels = _panels(facts, "Mean and standard deviation within a class")
    for axes, row in panels:
        for index, name in enumerate([*row["classes"]][:SPREAD_CLASSES]):
            means, sds = _values(row["classes"][name]), _values(row["class_sd"][name])
            axes.plot(means, color=f"C{index}", lw=1.2, label=plain(name))
            low, high = ([m + sign * s for m, s in zip(means, sds)] for sign in (-1, 1))
            axes.fill_between(range(len(means)), low, high, color=f"C{index}", alpha=0.25, lw=0)
    _legend(figure, panels)
    return figure


def by_block(facts: Facts) -> Figure:
    """By depth: the share between classes, saturation and distance from the identity, the error without the block."""
    from matplotlib.figure import Figure

    changes = [(name, text) for name, text in CHANGES if any(row.get(name) for row in facts.rows)]
    figure = Figure(figsize=(4.2 * (2 + bool(changes)), 4.4), layout="constrained")
    axes = figure.subplots(1, 2 + bool(changes), squeeze=False)[0]
    _lines(axes[0], facts.rows, LINES[:2])
    _lines(axes[1], facts.rows, LINES[2:])
    for index, (name, text) in enumerate(changes):
        _intervals(axes[2], facts.rows, name, text, index)
    titles = (
        "How far gates tell classes apart",
        "How near the gates are to 0, 1 and one another",
        "Change in top-1 error, points",
    )
    for one, title in zip(axes, titles):
        one.set_title(title, fontsize=9)
        one.set_xticks(range(len(facts.rows)), [row["label"] for row in facts.rows], rotation=90, fontsize=7)
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
        one.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    figure.suptitle(_subject(facts), fontsize=10)
    return figure


LINES: tuple[tuple[str, str, str], ...] = (
    ("between_class_share", "variance between classes / all", "o-"),
    ("share_by_chance", "expected of gates blind to the class", ":"),
    ("saturated_low", "fraction at 0", "v-"),
    ("saturated_high", "fraction at 1", "^-"),
    ("distance_from_identity", "from identity (rms of 1 - gate)", "s--"),
    ("distance_from_constant", "from constant (rms of gate - mean)", "d--"),
)
CHANGES: tuple[tuple[str, str], ...] = (("difference", "gate at 1"), ("difference_at_mean", "gate at its mean"))


def _lines(axes: Axes, rows: Sequence[Mapping[str, Any]], lines: Sequence[tuple[str, str, str]]) -> None:
    for index, (name, text, style) in enumerate(lines):
        axes.plot(_values([row.get(name) for row in rows]), style, color=f"C{index}", ms=4, label=text)
    axes.set_ylim(bottom=0)


def _intervals(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, text: str, index: int) -> None:
    """A block's change in error with its interval; the second kind beside the first."""
    known = [(place + 0.2 * index, row[name]) for place, row in enumerate(rows) if row.get(name)]
    values = [100 * change["value"] for _, change in known]
    bounds = [change["ci"] or (change["value"], change["value"]) for _, change in known]
    below = [value - 100 * low for value, (low, _) in zip(values, bounds)]
    above = [100 * high - value for value, (_, high) in zip(values, bounds)]
    places = [place for place, _ in known]
    bars = [_positive(below), _positive(above)]
    axes.errorbar(places, values, yerr=bars, fmt="o", ms=4, color=f"C{index}", label=text)
    axes.axhline(0, color="black", lw=0.8)


def _positive(lengths: Sequence[float]) -> list[float]:
    return [max(0.0, length) for length in lengths]


def _panels(facts: Facts, title: str) -> tuple[Figure, list[tuple[Axes, Mapping[str, Any]]]]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = shown_blocks(facts.rows)
    across = min(COLUMNS, len(rows))
    down = math.ceil(len(rows) / across)
    figure = Figure(figsize=(4 * across, 2.4 * down + 1), layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, row in zip(grid.flat, rows):
        axes.set_title(f"{row['label']} ({row['block']})", fontsize=8)
        some = f"{len(row['shown'])} of {row['channels']} channels"
        axes.set_xlabel("channel" if row["channels"] == len(row["shown"]) else some, fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in [*grid.flat][len(rows) :]:
        axes.set_visible(False)
    for line in grid:
        line[0].set_ylabel("gate", fontsize=8)
    figure.suptitle(f"{title}: {_subject(facts)}", fontsize=10)
    return figure, list(zip(grid.flat, rows))


def shown_blocks(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The blocks of Figure 6: the last of every stage, and all of the last stage."""
    last = {row["stage"]: row["block"] for row in rows}
    return [row for row in rows if row["block"] == last[row["stage"]] or row["stage"] == rows[-1]["stage"]]


def _legend(figure: Figure, panels: Sequence[tuple[Axes, Mapping[str, Any]]]) -> None:
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(11, len(labels)), fontsize=8)


def _subject(facts: Facts) -> str:
    return f"{facts.conditions['label']} on {facts.conditions['dataset']}, {facts.summary['images']} images"


def plain(name: str) -> str:
    """A class's name as matplotlib shows it as it is: no formula, and not hidden from the legend."""
    return f" {name}".replace("$", r"\$") if name.startswith("_") else name.replace("$", r"\$")


def _values(numbers: Sequence[float | None]) -> list[float]:
    return [math.nan if number is None else number for number in numbers]
