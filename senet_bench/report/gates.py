"""What the gates of a network do, block by block, from the facts of `excitations`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from senet_bench.report.documents import Document
from senet_bench.report.series import Line, Panel, Series
from senet_bench.report.tables import EMPTY, Column, Table
from senet_bench.results import Facts


@dataclass(frozen=True, slots=True)
class Gates:
    """One block: mean and standard deviation of every channel's gate, and the mean of each class."""

    block: str
    stage: str
    channels: int
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    classes: Mapping[str, tuple[float, ...]]
    numbers: Mapping[str, float | None]
    difference: float | None
    difference_ci: tuple[float, float] | None


NUMBERS = {
    "between_class_share": "variance between classes / all",
    "saturated_low": "gates at 0",
    "saturated_high": "gates at 1",
    "distance_from_identity": "distance from the identity",
}
"""What a block's row has beside its gates, and how that is called."""


def blocks(facts: Facts) -> list[Gates]:
    """The blocks in the order of the network; raises `LookupError`, `TypeError` or `ValueError` on other rows."""
    return [_block(row) for row in facts.rows]


def _block(row: Mapping[str, Any]) -> Gates:
    mean = _numbers(row["mean"])
    classes = {str(name): _numbers(values) for name, values in dict(row.get("classes") or {}).items()}
    if not mean or any(len(values) != len(mean) for values in classes.values()):
        raise ValueError(f"block {row['block']!r} has classes of other lengths than its mean")
    change = row.get("difference") or {}
    interval = change.get("ci")
    return Gates(
        block=str(row["block"]),
        stage=str(row.get("stage", EMPTY)),
        channels=len(mean),
        mean=mean,
        sd=_numbers(row.get("sd") or []),
        classes=classes,
        numbers={name: _optional(row.get(name)) for name in NUMBERS},
        difference=_optional(change.get("difference")),
        difference_ci=(float(interval[0]), float(interval[1])) if interval else None,
    )


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if not all(map(math.isfinite, found)):
        raise ValueError("a gate is no finite number")
    return found


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def network_of(facts: Facts) -> str:
    """The network whose gates these are, and the data they were taken on."""
    first: Mapping[str, Any] = facts.rows[0] if facts.rows else {}
    asked = facts.conditions
    model = first.get("model") or asked.get("model") or "a network"
    dataset = asked.get("dataset")
    return f"{model} on {dataset}" if dataset else str(model)


def of_excitations(facts: Facts) -> Document:
    """The numbers of each block in one table."""
    found = blocks(facts)
    names = ("block", "stage", "channels", "mean gate", *NUMBERS.values(), "error without it")
    lines = tuple(
        (
            one.block,
            one.stage,
            str(one.channels),
            f"{math.fsum(one.mean) / one.channels:.3f}",
            *(EMPTY if value is None else f"{value:.3f}" for value in one.numbers.values()),
            _difference(one),
        )
        for one in found
    )
    notes = ("error without it: change in points when the block is taken out, with its 95 % interval",)
    columns = tuple(Column(name, numeric=name != "block") for name in names)
    table = Table(f"Gates of {network_of(facts)}", columns, lines, notes)
    return Document(facts, (table,), (table,), tuple(facts.rows))


def depth(facts: Facts, name: str) -> Series:
    """The numbers of the blocks over the depth of the network."""
    found = blocks(facts)
    panels = [Panel(title, (Line("here", tuple(one.numbers[key] for one in found)),)) for key, title in NUMBERS.items()]
    values = tuple(None if one.difference is None else 100 * one.difference for one in found)
    intervals = tuple(
        (100 * one.difference_ci[0], 100 * one.difference_ci[1]) if one.difference_ci else None for one in found
    )
    panels.append(Panel("error without the block, points", (Line("here", values, intervals),)))
    kept = tuple(panel for panel in panels if panel.lines[0].known)
    return Series(
        name, f"Gates of {network_of(facts)} over depth", tuple(one.block for one in found), kept, ordered=True
    )


def _difference(one: Gates) -> str:
    if one.difference is None:
        return EMPTY
    between = f" [{100 * one.difference_ci[0]:+.2f}, {100 * one.difference_ci[1]:+.2f}]" if one.difference_ci else EMPTY
    return f"{100 * one.difference:+.2f}{between}"
