"""The tables of what was measured, of all stored runs together."""

from __future__ import annotations

from dataclasses import replace

from senet_bench.core.comparisons import ranked
from senet_bench.core.store import key_of
from senet_bench.core.union import Timed, labels
from senet_bench.core.yardstick import Yardstick
from senet_bench.gallery.collection import Collection, conditions_label, main_timing
from senet_bench.show.chart import name_of
from senet_bench.show.measurements import error_table, latency_table
from senet_bench.show.tables import Table


def time_table(collection: Collection, timed: Timed, against: Yardstick | None = None) -> Table | None:
    """The times of one machine under the same conditions, under its name where there are several."""
    table = latency_table(collection.asked(timed.rows), name=labels(timed.rows), against=against)
    if table is None:
        return None
    place = collection.place_of(timed)
    return replace(table, title=f"{table.title}; {place}" if place else table.title)


def error_tables(collection: Collection) -> list[tuple[str, Table]]:
    """The error table of each protocol, of all stored rows; that of the most seeds first.

    Its rows were timed by runs of any kind: they are ranked by the times under which most of them were.
    """
    tables: dict[str, Table] = {}
    unfinished = collection.unfinished
    for errors in collection.errors:
        timed = main_timing(collection.timings, errors.rows)
        where = _where(collection, timed) if timed else ""
        layout = replace(collection.layout, yardstick=collection.yardstick(errors))
        rows = collection.asked((*layout.compared(errors.rows), *errors.elsewhere))
        rows, among = [timed.beside(row) if timed else row for row in rows], len(ranked(errors.rows))
        table = error_table(rows, lambda row: row.label, layout=layout, among=among, where=where)
        if table is None:
            continue
        size = "x".join(map(str, errors.size[1:]))
        data = {"data": errors.protocol.data} if errors.protocol.data else {}
        digest = key_of({"": repr((errors.protocol, errors.size)), **data})[:6]
        stem = f"errors-{errors.protocol.dataset}-{errors.protocol.recipe}-{errors.protocol.epochs}-{digest}"
        lost = unfinished.get(errors.protocol.dataset or "", 0)
        more = (f"{lost} run{'s' * (lost != 1)} on {errors.protocol.dataset} without any error: not finished",)
        notes = (*errors.notes, *(more if lost else ()), *table.notes)
        title = f"{table.title}, {size} px{collection.data_words(errors.protocol)}"
        tables[name_of(stem)] = replace(table, title=title, notes=notes)
    return list(tables.items())


def _where(collection: Collection, timed: Timed) -> str:
    """The machine, its version of torch where there are several, and the conditions."""
    place = collection.place_of(timed) or collection.name_of(timed.machine)
    return f"{place}, {conditions_label(timed.conditions)}"
