"""What documents of earlier versions leave unsaid, filled in as they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

Json: TypeAlias = Mapping[str, object]


def as_of_today(document: Json) -> Json:
    """A stored document with every field that today's types want and its version did not write yet.

    What is no object is left as it is, for the types to refuse.
    """
    command = str(document.get("schema")).partition(".")[2].partition("/")[0]
    rows, fill = document.get("rows"), ROWS.get(command)
    if fill is not None and isinstance(rows, list):
        rows = [fill(row) if isinstance(row, dict) else row for row in rows]
        document = {**document, "rows": rows}
    conditions = document.get("conditions")
    if command in CONDITIONS and isinstance(conditions, dict):
        document = {**document, "conditions": {**CONDITIONS[command], **conditions}}
    return {"summary": {}, **document}


def _with_role(row: Json) -> Json:
    """A network's row with its role, which its attention and its baseline tell."""
    attention, axes = row.get("attention"), row.get("axes")
    fixed = isinstance(attention, dict) and attention.get("block") == "constant"
    chosen = isinstance(axes, dict) and "attention" in axes  # the constant gate as one of several blocks
    role = "variant" if attention else "plain" if row.get("baseline") else "baseline"
    return {"role": "control" if fixed and not chosen else role, **row}


def _with_task(row: Json) -> Json:
    """An evaluated network's row with its task: of detectors alone an average precision was stored."""
    task = "detection" if "ap" in row else "classification"
    return {"task": task, "recipe": None, "epochs": None, "paper": [], **row}


ROWS: dict[str, Callable[[Json], Json]] = {"compare": _with_role, "ablate": _with_role, "evaluate": _with_task}
CONDITIONS: dict[str, Json] = {
    "train": {"deviations": [], "notes": [], "processes": 1},
    "evaluate": {"notes": []},
}
