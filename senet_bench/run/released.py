"""The authors' own weights by the networks or the tables that are named, and what those tables are evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from senet_bench.core.catalog import resolve, root_of
from senet_bench.core.paper import cells
from senet_bench.core.protocols import protocol_of
from senet_bench.core.specs import is_outside
from senet_bench.core.stored_errors import RELEASED
from senet_bench.core.studies import Study, find_study
from senet_bench.errors import UsageError
from senet_bench.run.cases import is_table

WORD = "released"
"""What `--weights` calls them."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """Networks with their weights, one each, and what a reader must know of those that are left out."""

    models: tuple[str, ...]
    weights: tuple[str, ...]
    notes: tuple[str, ...] = ()


def weighted(models: Sequence[str], weights: Sequence[str], dataset: str, size: int | None) -> Weighted:
    """The networks that are named, those of a table each; with the authors' weights where those are asked for.

    Raises `UsageError` for a table that is to be shown other images or crops than the paper's.
    """
    tables = [find_study(name) for name in models if not is_outside(name) and is_table(name)]
    if not tables and WORD not in weights:
        return Weighted(tuple(models), tuple(weights))
    if set(weights) != {WORD}:
        raise UsageError("a table is evaluated with the authors' weights", "use --weights released, or name networks")
    for study in tables:
        _check_shown(study, dataset, size)
    named = [name for name in models if is_outside(name) or not is_table(name)]
    unknown = next((name for name in named if is_outside(name) or resolve(name).name not in RELEASED), None)
    if unknown is not None:
        raise UsageError(f"the authors released no weights of {unknown}", f"choose from {', '.join(RELEASED)}")
    own = [model for study in tables for model in study.models]
    chosen = dict.fromkeys([*(resolve(name).name for name in named), *(name for name in own if name in RELEASED)])
    if not chosen:
        raise UsageError(f"the authors released no weights for Table {tables[0].table}", "use table2 or table8")
    missing = [resolve(name).label for name in dict.fromkeys(own) if name not in RELEASED and resolve(name).attention]
    note = (f"the authors released no weights of {', '.join(missing)}",) if missing else ()
    return Weighted(tuple(chosen), tuple(RELEASED[name] for name in chosen), note)


def _check_shown(study: Study, dataset: str, size: int | None) -> None:
    """Raise `UsageError` where a table's networks with weights are not to be shown what the paper showed them."""
    if dataset != study.dataset:
        raise UsageError(f"Table {study.table} is of {study.dataset}, not {dataset}", f"use --dataset {study.dataset}")
    sides = {
        protocol.size
        for subject in study.subjects
        if resolve(subject.model).name in RELEASED
        for cell in cells(study.table, subject.row)
        if cell.metric == "top1_err" and (protocol := protocol_of(cell, root_of(subject.model))) is not None
    }
    if size is not None and sides and size not in sides:
        shown = " or ".join(f"{side}" for side in sorted(sides))
        raise UsageError(f"Table {study.table} is of centre crops of {shown} px, not {size}", "leave out --img-size")
