"""Rows of a run as flat lines for CSV and pandas, and which of their fields the columns of tables are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from senet_bench.core.results import Accuracy, Row
from senet_bench.show.networks import MEASURED

NAMED_APART = ("per_seed", "against")
"""Fields of errors that are columns under names of their own."""


def records(row: Row) -> list[dict[str, Any]]:
    """A row as flat lines, one for each of its latencies with the conditions of that; one line where it has none.

    An interval is its two bounds, whether it is there or not.
    """
    before, after = dict(_counted(row)), dict(_judged(row))
    times = [dict(_flat("latency", latency)) for latency in row.latencies] or [{}]
    errors = dict(_errors(row.accuracy)) if row.accuracy else {}
    return [{**before, **time, **errors, **after} for time in times]


def _counted(row: Row) -> Iterator[tuple[str, Any]]:
    """What a row is, and its counts."""
    yield from (("model", row.model), ("label", row.label), ("baseline", row.baseline), ("family", row.family))
    yield "input_size", "x".join(map(str, row.input_size))
    if row.attention is not None:
        yield from ((f"attention_{name}", _plain(value)) for name, value in asdict(row.attention).items())
    yield "params", row.params
    for counts in (row.flops, row.flops_by_kind):
        yield from ((f"flops_{name}", value) for name, value in counts.items())
    yield from row.counts.items()


def _errors(accuracy: Accuracy) -> Iterator[tuple[str, Any]]:
    yield from _flat("accuracy", accuracy)
    yield from ((f"error_seed_{seed}", error) for seed, error in accuracy.per_seed.items())
    if accuracy.against:
        yield from _flat("against", accuracy.against)


def _judged(row: Row) -> Iterator[tuple[str, Any]]:
    """The paper's cells of a row, what it is compared as, and what is missing of it."""
    for cell in row.paper:
        key = f"table{cell.table}_{cell.column}_{cell.metric}".replace(" ", "_")
        yield from ((key, cell.printed), (f"{key}_status", cell.status))
        if cell.metric in MEASURED and cell.measured is not None:
            yield f"{key}_measured", cell.measured
            low, high = cell.ci or (None, None)
            yield from ((f"{key}_low", low), (f"{key}_high", high))
    yield from (("role", row.role), ("classes", row.classes), ("cardinality", row.cardinality))
    yield from ((f"axes_{axis}", _plain(value)) for axis, value in (row.axes or {}).items())
    yield from ((f"missing_{what.replace(' ', '_')}", why) for what, why in row.missing.items())
    if row.seeding is not None:
        yield from _flat("seeding", row.seeding)


def _flat(name: str, measured: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a measurement, and of what lies in it, under names that begin with `name`; lists are a text."""
    for field in fields(measured):
        key, value = f"{name}_{field.name}", getattr(measured, field.name)
        if field.name in NAMED_APART or (field.name == "energy" and value is None):
            continue
        if str(field.type).startswith("tuple["):
            low, high = value or (None, None)
            yield from ((f"{key}_low", low), (f"{key}_high", high))
        elif is_dataclass(value):
            yield from _flat(key, value)
        elif isinstance(value, Mapping):
            yield from ((f"{key}_{part}", amount) for part, amount in value.items())
        else:
            yield key, "; ".join(map(str, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    return "/".join("=".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in value)


def plainly(text: str) -> str:
    """A name without case, spaces and marks: `error %` is `error`, `p Holm` is `pholm`."""
    return "".join(char for char in text.lower() if char.isalnum() or char in "+Δ")


COLUMNS = {
    "paramsm": ("params",),
    "error": ("accuracy_top1_err",),
    "sd": ("accuracy_sd",),
    "seeds": ("accuracy_seeds",),
    "data": ("accuracy_dataset",),
    "recipe": ("accuracy_protocol_recipe",),
    "difference": ("against_value", "accuracy_difference"),
    "pairs": ("against_pairs", "accuracy_pairs"),
    "palone": ("against_p_value", "accuracy_p_value"),
    "jointinterval": ("against_joint_ci", "accuracy_difference_joint_ci"),
    "pholm": ("against_p_holm", "accuracy_p_holm"),
    "overfixedgates": ("accuracy_control_difference",),
    "itsp": ("accuracy_control_p_holm",),
    "mflops": ("flops_macs",),
    "gflops": ("flops_macs",),
    "flops": ("flops_macs",),
    "ms": ("latency_seconds",),
    "ratio": ("latency_ratio",),
    "interval": ("latency_ci",),
    "95interval": ("latency_ci",),
    "control": ("latency_control_ratio",),
    "sees": ("latency_mde",),
    "cpuratio": ("latency_cpu_ratio",),
    "rounds": ("latency_rounds",),
    "imagess": ("latency_images_per_second",),
    "weightsmib": ("latency_weight_bytes",),
    "acallsmib": ("latency_peak_bytes",),
    "janimage": ("latency_energy_joules",),
    "jratio": ("latency_energy_ratio",),
    "its95interval": ("latency_energy_ci",),
    "itscontrol": ("latency_energy_control_ratio",),
    "w": ("latency_energy_watts",),
    "budget": ("verdict_place",),
    "tobaseline": ("verdict_to_baseline",),
}
"""The fields that columns of tables are made of, by the columns' plain names; of several the first that is there."""


def fields_of(records: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """The fields of records that a name means: their own, else what a table's column of that name is made of."""
    known = list(dict.fromkeys(field for record in records for field in record))
    wanted = plainly(name)
    column = "difference" if wanted.startswith("minus") and "," not in name else wanted
    stems = (*COLUMNS.get(column, ()), f"latency_conditions_{wanted}")
    for way in ({wanted}, *({plainly(f"{stem}{end}") for end in ("", "_low", "_high")} for stem in stems)):
        if found := [field for field in known if plainly(field) in way]:
            return found
    return []
