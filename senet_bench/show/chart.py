"""A figure and what its marks say; written as svg or png, free of dates and random ids."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from senet_bench.show.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 60

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "figure.facecolor": LIGHT["surface"],
    "figure.dpi": 72,
    "svg.hashsalt": "senet-bench",
    "svg.fonttype": "none",
    "axes.formatter.use_locale": False,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True, slots=True)
class Mark:
    """What the mark `id` of a chart says, line by line; `x`, `y` are its place in the units of its axes.

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
class Chart:
    """A figure under a name that is a file name too; `title` says in words what it shows.

    Artists are named by their group id: that of a mark, or `line-FAMILY-N` for a line that goes with a family. `zoom`
    are the axes that a reader can zoom into.
    """

    name: str
    title: str
    figure: Figure
    marks: tuple[Mark, ...] = ()
    zoom: Axes | None = None


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """The style of all plots, whatever the user's own matplotlib is set to."""
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)  # endless names
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def settle(figure: Figure) -> None:
    """Lay a figure out once and for all: drawing it is then quick, and its places are known."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def draw_chart(chart: Chart, format: Literal["svg", "png"]) -> bytes:  # noqa: A002 - matplotlib's own word
    """The bytes of a chart as svg or png."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if format == "svg" else {"Software": None}
    with drawing():
        chart.figure.savefig(buffer, format=format, dpi=120 if format == "png" else 72, metadata=metadata)
    return buffer.getvalue()


def files_of(charts: Iterable[Chart]) -> Iterator[tuple[str, bytes]]:
    """Charts as svg and png by their paths below the results folder."""
    for one in charts:
        yield f"plots/{one.name}.svg", draw_chart(one, "svg")
        yield f"plots/{one.name}.png", draw_chart(one, "png")


def name_of(text: str) -> str:
    """Text as a name of files and ids: what cannot stand there is replaced, and a digest tells such names apart."""
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "_" for char in text)[:100]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:6]}"


def shown(text: object, longest: int = LONGEST) -> str:
    """Text that can be drawn: on one line, no control characters, not endless."""
    plain = "".join(char if char.isprintable() else " " for char in str(text))
    plain = " ".join(plain.split())
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"
