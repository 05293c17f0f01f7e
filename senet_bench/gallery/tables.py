"""The tables of what was measured, of all stored runs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from senet_bench.core.comparisons import ranked, rows_against
from senet_bench.core.results import Row
from senet_bench.core.store import key_of
from senet_bench.core.union import Timed, labels
from senet_bench.errors import UsageError
from senet_bench.gallery.collection import Collection
from senet_bench.show.chart import name_of
from senet_bench.show.measurements import error_table, latency_table
from senet_bench.show.tables import Table


def compared_with(rows: Sequence[Row], against: str | None) -> Sequence[Row]:
    """The rows compared with the one that is named; as they are where none is called so."""
    try:
        return rows_against(rows, against) if against else rows
    except UsageError:
        return rows


def time_table(collection: Collection, timed: Timed, against: str | None = None) -> Table | None:
    """The times of one machine under the same conditions, under its name where there are several."""
    table = latency_table(collection.asked(timed.rows), name=labels(timed.rows), against=against)
    if table is None:
        return None
    place = collection.place_of(timed)
    return replace(table, title=f"{table.title}; {place}" if place else table.title)


def error_tables(collection: Collection) -> list[tuple[str, Table]]:
    """The error table of each protocol, of all stored rows; that of the most seeds first."""
    tables: dict[str, Table] = {}
    unfinished, layout = collection.unfinished, collection.layout
    for errors in collection.errors:
        rows = collection.asked((*compared_with(errors.rows, layout.against), *errors.elsewhere))
        table = error_table(rows, lambda row: row.label, layout=layout, among=len(ranked(errors.rows)))
        if table is None:
            continue
        size = "x".join(map(str, errors.size[1:]))
        digest = key_of({"": repr((errors.protocol, errors.size))})[:6]
        stem = f"errors-{errors.protocol.dataset}-{errors.protocol.recipe}-{errors.protocol.epochs}-{digest}"
        lost = unfinished.get(errors.protocol.dataset or "", 0)
        more = (f"{lost} run{'s' * (lost != 1)} on {errors.protocol.dataset} without any error: not finished",)
        notes = (*errors.notes, *(more if lost else ()), *table.notes)
        tables[name_of(stem)] = replace(table, title=f"{table.title}, {size} px", notes=notes)
    return list(tables.items())
