"""The sections of times: what attention costs by runtime, and the ratios under each of the conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from senet_bench.core.comparisons import rows_named
from senet_bench.core.results import Row
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import Conditions
from senet_bench.core.union import Timed
from senet_bench.errors import UsageError
from senet_bench.gallery.collection import Collection, Setting, conditions_label, setting_label, setting_of
from senet_bench.gallery.page.leaves import Leaf
from senet_bench.gallery.plots import ratios
from senet_bench.gallery.runtime_chart import runtime_chart
from senet_bench.gallery.runtimes import VARIED, runtime_costs, runtime_table
from senet_bench.gallery.tables import time_table
from senet_bench.show.chart import name_of


def runtimes(collection: Collection, timings: Sequence[Timed]) -> Iterator[Leaf]:
    """What attention costs by runtime: a table for each machine and version of torch, a chart for each setting."""
    places = runtime_costs(timings)
    for settings in places.values():
        first = settings[0].timings[0]
        stem = "se_cost" if len(places) == 1 else f"se_cost-{first.machine}-torch{first.torch}"
        table, ids = runtime_table(settings, collection)
        charts = []
        for one in settings:
            words = [str(value) for name, value in asdict(one.conditions).items() if name not in VARIED]
            name = name_of("-".join((stem, *(words if len(settings) > 1 else ()))))
            chart = runtime_chart(one, collection, name)
            charts.append(Leaf(setting_label(one.conditions), chart))
        yield Leaf(_place(collection, first), table=table, table_name=name_of(stem), row_ids=ids, leaves=tuple(charts))


def latencies(collection: Collection, timings: Sequence[Timed]) -> list[Leaf]:
    """The ratios of times, a chart with its table for each of the conditions."""
    leaves = []
    for timed in timings:
        name = timed_name(timed, timings)
        chart = ratios(timed, f"latency-ratios-{name}", collection.name_of(timed.machine))
        table = time_table(collection, timed, _named(collection.asked(timed.rows), collection.layout.against))
        table = table and replace(table, notes=(*timed.notes, *table.notes))
        leaves.append((timed, Leaf(where(collection, timed), chart, table, f"latency-{name}")))
    return by_setting(leaves, collection)


def by_setting(leaves: Sequence[tuple[Timed, Leaf]], collection: Collection) -> list[Leaf]:
    """A tab for each of the conditions; those that differ in runtime and batch size alone are tabs within one."""
    groups: dict[Setting, list[tuple[Timed, Leaf]]] = {}
    for timed, leaf in leaves:
        groups.setdefault(setting_of(timed), []).append((timed, leaf))
    tabs = []
    for group in groups.values():
        first = group[0][0]
        if len({timed.conditions.runtime for timed, _ in group}) == 1:
            tabs += [leaf for _, leaf in group]
            continue
        ordered = sorted(group, key=lambda one: _order(one[0].conditions))
        inner = (replace(leaf, name=_varied(timed.conditions)) for timed, leaf in ordered)
        tabs.append(Leaf(f"{_place(collection, first)}: {setting_label(first.conditions)}", leaves=tuple(inner)))
    return tabs


def _order(conditions: Conditions) -> tuple[int, int]:
    return conditions.batch_size, list(RUNTIMES).index(conditions.runtime)


def _varied(conditions: Conditions) -> str:
    return f"batch {conditions.batch_size}, {conditions.runtime}"


def _named(rows: Sequence[Row], against: str | None) -> str | None:
    """The name of the row to compare with, None where no row is called so."""
    try:
        return against if against and rows_named(rows, against) else None
    except UsageError:
        return None


def where(collection: Collection, timed: Timed) -> str:
    """The machine, and the conditions there."""
    return f"{_place(collection, timed)}: {conditions_label(timed.conditions)}"


def _place(collection: Collection, timed: Timed) -> str:
    """The machine, with the version of torch where it has several."""
    versions = {one.torch for one in collection.timings if one.machine == timed.machine}
    return collection.name_of(timed.machine) + (f", torch {timed.torch}" if len(versions) > 1 else "")


def timed_name(timed: Timed, timings: Sequence[Timed]) -> str:
    """The machine's key, and the version of torch and the conditions where it has several."""
    own = [one for one in timings if one.machine == timed.machine]
    torch = timed.torch if len({one.torch for one in own}) > 1 else ""
    several = sum(one.torch == timed.torch for one in own) > 1
    words = "-".join(str(value) for value in asdict(timed.conditions).values()) if several else ""
    return name_of("-".join(filter(None, (timed.machine, torch and f"torch{torch}", words))))
