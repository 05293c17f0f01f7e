"""What is recorded for checks, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from senet_bench import __version__
from senet_bench.core.results import schema_of
from senet_bench.regression.text import value
from senet_bench.show.documents import Document
from senet_bench.show.tables import Column, Table

COLUMNS = ("network", "images", "params", "operations", "operators", "memory", "latency")


def of_baselines(rows: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> Document:
    """The recorded facts, a line a network, and the history of accepted changes."""
    facts = Table(
        "Recorded facts (memory and latency: of this machine)",
        tuple(Column(name, numeric=name not in ("network", "images")) for name in COLUMNS),
        tuple(_line(row) for row in rows),
    )
    names = ("when", "who", "commit", "id", "reason")
    changes = Table(
        "Accepted changes",
        tuple(Column(name, numeric=False) for name in names),
        tuple(tuple(str(line.get(name, "")) for name in names) for line in history),
    )
    tables = (facts, changes) if history else (facts,)
    document = {
        "schema": schema_of("baselines"),
        "version": __version__,
        "environment": {},
        "conditions": {},
        "rows": list(rows),
        "history": list(history),
    }
    return Document(document, tables, tables, tuple(rows))


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    counts = tuple(value(row[name], "") for name in ("params", "operations", "operators"))
    images = "x".join(map(str, row["input_size"] or ()))
    return (str(row["network"]), images, *counts, value(row["peak_bytes"], "bytes"), value(row["seconds"], "s"))
