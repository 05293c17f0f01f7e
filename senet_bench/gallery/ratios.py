"""Latency ratios of one machine under one set of conditions, each with its interval and its A/A control."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from senet_bench.core.results import Latency, Row
from senet_bench.gallery.evidence import Timed, conditions_label
from senet_bench.show.chart import Chart, Mark, drawing, settle, shown
from senet_bench.show.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTROL = "A/A control (a second copy of the baseline)"


def ratios(timed: Timed, name: str, machine: str) -> Chart | None:
    """A line a network with a ratio; None when there is none."""
    from matplotlib.figure import Figure

    rows = [(row, latency) for row in timed.rows if (latency := row.latency) and _drawable(latency.ratio)]
    if not rows:
        return None
    with drawing():
        figure = Figure(figsize=(9, 1.1 + 0.3 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        marks = []
        axes.axvline(1, color=LIGHT["muted"], lw=0.9, zorder=1)
        for place, (row, latency) in enumerate(rows):
            _line(axes, place - 0.14, latency.ratio or 1.0, latency.ci, LIGHT["here"], "o", f"mark-{place}")
            marks.append(Mark(f"mark-{place}", said(row, latency), latency.ratio or 1.0, place - 0.14))
            if _drawable(latency.control_ratio):
                y, ratio, own = place + 0.2, latency.control_ratio or 1.0, f"mark-control-{place}"
                _line(axes, y, ratio, latency.control_ci, LIGHT["muted"], "|", own)
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
            axes.plot([], [], "|-", color=LIGHT["muted"], ms=7, label=CONTROL)[0],
        ]
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)
        settle(figure)
    title = f"Latency of SE over its baseline on {machine}: {conditions_label(timed.conditions)}"
    return Chart(name, title, figure, tuple(marks))


def said(row: Row, latency: Latency) -> tuple[str, ...]:
    """What the mark of a ratio says."""
    lines = [row.label, f"{_ratio(latency.ratio or 1.0, latency.ci)} times its baseline's time"]
    lines.append(f"{1e3 * latency.seconds:.4g} ms a call, {latency.rounds} rounds")
    if latency.control_ratio is not None:
        lines.append(f"control {_ratio(latency.control_ratio, latency.control_ci)}")
    if latency.mde is not None:
        lines.append(f"a slowdown of {latency.mde:.1%} would have been seen")
    return tuple(lines)


def _line(
    axes: Axes, y: float, ratio: float, ci: tuple[float, float] | None, colour: str, shape: str, gid: str
) -> None:
    if ci is not None:
        axes.plot(ci, (y, y), color=colour, lw=1.6)
    axes.plot(ratio, y, shape, color=colour, ms=6 if shape == "o" else 7, mew=1.4, ls="", gid=gid)


def _ratio(ratio: float, ci: tuple[float, float] | None) -> str:
    return f"{ratio:.3f}" + (f" ({ci[0]:.3f} to {ci[1]:.3f})" if ci else "")


def _drawable(ratio: float | None) -> bool:
    return ratio is not None and math.isfinite(ratio)
