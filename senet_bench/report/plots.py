"""Plots from stored rows, drawn by matplotlib without a display; the same rows give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from senet_bench.report.tables import find
from senet_bench.results import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")


def tradeoff(rows: Sequence[Row], metric: str = "flops") -> Figure | None:
    """Complexity against top-1 error, an arrow from each baseline to its SE variant; None without such a pair.

    `metric` is `flops` (GFLOPs by the convention macs) or `params` (millions), counted here. The errors are the
    paper's re-implementation and SENet columns, which share one recipe within a table.
    """
    from matplotlib.figure import Figure

    pairs = [
        (base, variant)
        for base in rows
        for variant in rows
        if variant.baseline == base.model and variant.input_size == base.input_size and _error(base) and _error(variant)
    ]
    if not pairs:
        return None
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    families = list(dict.fromkeys(base.family for base, _ in pairs))
    for base, variant in pairs:
        colour = f"C{families.index(base.family)}"
        start, end = ((_complexity(row, metric), _error(row) or 0.0) for row in (base, variant))
        arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 4, "shrinkB": 4}
        axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
        axes.plot(*start, "o", mfc="white", mec=colour)
        axes.plot(*end, "o", color=colour)
        below = families.index(base.family) % 2  # so that names of neighbouring families do not cross
        place = {"xytext": (-6, -11), "ha": "right"} if below else {"xytext": (6, 3)}
        axes.annotate(base.label, end if below else start, textcoords="offset points", fontsize=8, **place)
    axes.set_xscale("log")
    ticks = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if metric == "flops" else (2, 5, 10, 20, 50, 100, 200)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    low, high = (edge(_complexity(row, metric) for pair in pairs for row in pair) for edge in (min, max))
    axes.set_xlim(low / 2.2, high * 1.9)
    axes.set_xlabel(
        "GFLOPs (multiply-adds, counted here)" if metric == "flops" else "parameters, millions (counted here)"
    )
    axes.set_ylabel("top-1 error on ImageNet, % (as the paper prints it)")
    axes.set_title("What SE costs and buys: baseline (hollow) to SE (filled)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def render(figure: Figure, format: str) -> bytes:  # noqa: A002 - matplotlib's own word
    """The bytes of a figure as svg or png, free of dates and random ids."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "senet-bench", "svg.fonttype": "none"}):
        metadata: dict[str, Any] = {"Date": None} if format == "svg" else {"Software": None}
        figure.savefig(buffer, format=format, dpi=144, metadata=metadata)
    return buffer.getvalue()


def _error(row: Row) -> float | None:
    cell = next((find(row, table, "top1_err") for table in ("2", "3") if find(row, table, "top1_err")), None)
    return float(cell.printed) if cell and cell.printed != "-" else None


def _complexity(row: Row, metric: str) -> float:
    return row.flops["macs"] / 1e9 if metric == "flops" else (row.params or 0) / 1e6
