"""A figure of pictures, drawn by matplotlib; written as svg or png, free of dates and random ids."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from senet_bench.show.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def render_figure(figure: Figure, format: Literal["svg", "png"]) -> bytes:  # noqa: A002 - matplotlib's own word
    """The bytes of a figure as svg or png."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if format == "svg" else {"Software": None}
    with drawing():
        figure.savefig(buffer, format=format, dpi=120 if format == "png" else 72, metadata=metadata)
    return buffer.getvalue()
