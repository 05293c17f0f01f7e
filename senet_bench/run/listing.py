"""What `models` and `doctor` list; neither is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from senet_bench import __version__
from senet_bench.core.catalog import CATALOG, normalise
from senet_bench.core.environment import interpreter
from senet_bench.core.schemas import schema_of
from senet_bench.core.studies import STUDIES
from senet_bench.errors import UsageError
from senet_bench.show.tables import Column, Document, Table

if TYPE_CHECKING:
    from senet_bench.core.environment import Environment
    from senet_bench.core.results import Finding


def catalog(families: Sequence[str]) -> Document:
    """The networks of the catalog, or of some families; `UsageError` for an unknown family."""
    known = {normalise(spec.family): spec.family for spec in CATALOG.values()}
    unknown = [family for family in families if normalise(family) not in known]
    if unknown:
        raise UsageError(f"unknown family {unknown[0]!r}", f"choose from {', '.join(known.values())}")
    chosen = {normalise(family) for family in families} or set(known)
    rows: list[dict[str, Any]] = [
        {
            "model": spec.name,
            "label": spec.label,
            "family": spec.family,
            "task": spec.task,
            "baseline": spec.baseline,
            "params": spec.params,
            "input_size": list(spec.input_size),
            "classes": spec.classes,
            "stages": list(spec.stages),
            "tables": [study.table for study in STUDIES.values() if spec.name in study.models],
            "layout": spec.layout,
        }
        for spec in CATALOG.values()
        if normalise(spec.family) in chosen
    ]
    columns = ("model", "family", "params, M", "px", "tables", "layout")
    table = Table(
        "Networks",
        tuple(Column(name, numeric=name in ("params, M", "px")) for name in columns),
        tuple(
            (
                r["model"],
                r["family"],
                f"{r['params'] / 1e6:.3f}",
                str(r["input_size"][1]),
                " ".join(r["tables"]),
                r["layout"],
            )
            for r in rows
        ),
    )
    return Document(envelope("models", rows, interpreter()), (table,), (table,), tuple(rows))


def machine(checks: Sequence[Finding], environment: Environment) -> Document:
    """What `doctor` found."""
    table = Table(
        "This machine",
        (Column("what", numeric=False), Column("found", numeric=False), Column("what to do", numeric=False)),
        tuple((check.name, check.found, check.remedy) for check in checks),
    )
    rows = tuple(asdict(check) for check in checks)
    return Document(envelope("doctor", rows, environment), (table,), (table,), rows)


def envelope(command: str, rows: Sequence[Mapping[str, Any]], environment: object) -> dict[str, object]:
    """The JSON of a command that stores nothing and has no conditions."""
    return {
        "schema": schema_of(command),
        "version": __version__,
        "environment": environment,
        "conditions": {},
        "rows": list(rows),
    }
