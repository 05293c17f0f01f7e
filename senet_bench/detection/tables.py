"""The table of average precisions of detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from senet_bench.core.results import AnyFacts
from senet_bench.show.tables import EMPTY, Column, Table, unreadable

HEADINGS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "small",
    "ap_medium": "medium",
    "ap_large": "large",
}
NOTE = (
    "AP: COCO's average precision in points, over IoU 0.50 to 0.95 (AP50, AP75: at one), by pycocotools; small is "
    "below 32^2 px, large above 96^2 px; empty where there is no such object"
)


def precision_table(facts: AnyFacts) -> Table:
    """One line a detector; of several, the difference in AP to the first."""
    several = len(facts.rows) > 1
    printed = [metric for metric in ("ap", "ap50") if any(_printed(row, metric) for row in facts.rows)]
    columns = ["network", "images", *HEADINGS.values(), *(["difference"] if several else [])]
    columns += [f"paper's {HEADINGS[metric]}" for metric in printed]
    lines = tuple(
        (
            str(row["label"]),
            str(row["images"]),
            *(_points(row.get(name)) for name in HEADINGS),
            *((_points(row.get("difference"), "+"),) if several else ()),
            *(_printed(row, metric) for metric in printed),
        )
        for row in facts.rows
    )
    sizes = dict.fromkeys(f"shorter side {row['size']} px, longer at most {row['longest']}" for row in facts.rows)
    return Table(
        f"Detection on {facts.conditions['dataset']} ({'; '.join(sizes)})",
        tuple(Column(name, numeric=name != "network") for name in columns),
        lines,
        (*facts.conditions.get("notes", ()), *remarks(facts.rows), NOTE),
    )


def remarks(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What is to be known of evaluated networks: of their weights, of images left out, of what makes them unlike."""
    notes = [f"{row['label']}: {note}" for row in rows for note in row["notes"]]
    notes += [f"{row['label']}: {note}" for row in rows for note in unreadable(row["skipped"])]
    notes += [f"not like for like: {what}" for row in rows for what in row.get("differs_in", ())]
    return tuple(notes)


def _printed(row: dict[str, Any], metric: str) -> str:
    """The paper's cell with its status, empty where it has none for this detector and these images."""
    cell = next((cell for cell in row.get("paper", ()) if cell["metric"] == metric), None)
    return f"{cell['printed']} ({cell['status']})" if cell else EMPTY


def _points(value: float | None, sign: str = "") -> str:
    return EMPTY if value is None else f"{100 * value:{sign}.1f}"
