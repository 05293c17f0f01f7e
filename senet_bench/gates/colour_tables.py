"""Which colours an SE gate on the image raises: a table of the classes, a CSV of the images, and a teaching figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from senet_bench.core.files import file_name
from senet_bench.core.intervals import Paired
from senet_bench.gates.figure import drawing, render_figure, settle
from senet_bench.gates.rows import COLOUR_NAMES, ColourFacts, ColourRow
from senet_bench.show import writers
from senet_bench.show.chart import shown
from senet_bench.show.tables import EMPTY, Column, Document, Table, points_text, unreadable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LISTED = 40


def colours_document(facts: ColourFacts) -> Document:
    """A line an image, the first forty; the CSV has them all."""
    names = ("image", "class", *(f"{colour} gate" for colour in COLOUR_NAMES), *COLOUR_NAMES, "raised")
    columns = tuple(Column(name, numeric=name not in ("image", "class", "raised")) for name in names)
    lines = tuple(
        (
            str(row.image),
            str(row.label),
            *(f"{gate:.4f}" for gate in row.gate),
            *(f"{100 * (relative - 1):+.2f}" for relative in row.relative),
            str(row.raised or EMPTY),
        )
        for row in facts.rows[:LISTED]
    )
    table = Table(
        f"Gates on the colours of {facts.summary.images} images of {facts.conditions.dataset} "
        f"before {facts.conditions.label}",
        columns,
        lines,
        tuple(_notes(facts)),
    )
    narrow = replace(table, columns=(columns[0], *columns[5:]), rows=tuple((line[0], *line[5:]) for line in lines))
    return Document(facts, (table,), (narrow,), tuple(map(_record, facts.rows)))


def _notes(facts: ColourFacts) -> list[str]:
    summary = facts.summary
    mean = ", ".join(f"{colour} {gate:.4f}" for colour, gate in zip(COLOUR_NAMES, summary.mean_gate))
    low, high = summary.error_ci
    moved = f"{summary.moved:.4f} from their start at 1/2, {summary.distance_from_constant:.4f} from their means"
    held = f"at the mean gate {_change(summary.difference_at_mean)}, at gate 1 {_change(summary.difference)}"
    notes = [
        *facts.conditions.notes,
        f"red, green, blue: the gate in % over that colour's mean gate of all images ({mean})",
        f"root mean square distance of the gates: {moved}",
        f"top-1 error {100 * summary.error:.2f} % ({100 * low:.2f} to {100 * high:.2f}), in points {held}",
    ]
    if len(facts.rows) > LISTED:
        notes.append(f"{LISTED} of {len(facts.rows)} images are listed; the CSV has all")
    return notes + unreadable(summary.skipped)


def _change(paired: Paired) -> str:
    return points_text(paired.difference, paired.ci)


def _record(row: ColourRow) -> dict[str, object]:
    """An image's numbers, flat."""
    values = {"mean": row.mean, "gate": row.gate, "relative": row.relative}
    flat = {f"{name}_{colour}": value for name, of in values.items() for colour, value in zip(COLOUR_NAMES, of)}
    return {"image": row.image, "class": row.label, **flat, "raised": row.raised}


def figure(facts: ColourFacts) -> Figure:
    """A line an image: the image, its red, green and blue planes, and its three gates beside their mean."""
    from matplotlib.figure import Figure

    rows = {row.image: row for row in facts.rows}
    top = max(gate for row in facts.rows for gate in row.gate)
    state = "" if facts.conditions.trained else "\nUNTRAINED: the gate has learnt nothing"
    title = f"Which colours the gate on the input of {facts.conditions.label} raises{state}"
    with drawing():
        drawn = Figure(figsize=(9, 1.7 * len(facts.details) + 1), layout="constrained")
        grid = drawn.subplots(len(facts.details), 5, squeeze=False, width_ratios=(1, 1, 1, 1, 1.6))
        for axes, picture in zip(grid, facts.details):
            _line(axes, rows[picture.image], _pixels(picture.png), facts.summary.mean_gate, top)
        for axes, heading in zip(grid[0], ("image", *COLOUR_NAMES, "gate (line: mean of all images)")):
            axes.set_title(heading)
        drawn.suptitle(title, fontsize=10)
        settle(drawn)
    return drawn


def _name(facts: ColourFacts) -> str:
    return file_name("input-channels", facts.conditions.label, facts.conditions.dataset)


def _line(axes: Sequence[Axes], row: ColourRow, pixels: Any, mean: Sequence[float], top: float) -> None:
    axes[0].imshow(pixels)
    axes[0].set_ylabel(shown(row.label), fontsize=8)
    for one, only in zip(axes[1:4], ((1, 0, 0), (0, 1, 0), (0, 0, 1))):
        one.imshow(pixels * only)
    for one in axes[:4]:
        one.grid(visible=False)
        one.set_xticks([])
        one.set_yticks([])
    axes[4].barh(range(3), row.gate, color=("tab:red", "tab:green", "tab:blue"), height=0.7)
    for place, (usual, gate, relative) in enumerate(zip(mean, row.gate, row.relative)):
        axes[4].plot([usual, usual], [place - 0.45, place + 0.45], color="black", lw=1.5)
        said = f"{gate:.3f} ({100 * (relative - 1):+.1f} %)"
        axes[4].text(max(gate, usual) + 0.02 * top, place, said, va="center", fontsize=7)
    axes[4].set_xlim(0, 1.6 * top or 1)
    axes[4].set_yticks([])
    axes[4].invert_yaxis()
    axes[4].tick_params(labelsize=7)


def _pixels(png: str) -> Any:
    """(H, W, 3) uint8."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return np.asarray(image.convert("RGB"))


def colour_files(facts: ColourFacts) -> Iterator[tuple[str, str | bytes]]:
    """Every file of a run by its path below the results folder: the CSV, and the figure in each format."""
    yield f"tables/{_name(facts)}.csv", writers.csv(list(map(_record, facts.rows)))
    drawn = figure(facts)
    yield f"plots/{_name(facts)}.svg", render_figure(drawn, "svg")
    yield f"plots/{_name(facts)}.png", render_figure(drawn, "png")
