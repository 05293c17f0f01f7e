"""The sections of times: what attention costs by runtime, and the ratios under each of the conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import Conditions
from senet_bench.core.union import Timed
from senet_bench.gallery.collection import Collection, by_setting, conditions_label, setting_label, setting_of
from senet_bench.gallery.page.leaves import Leaf
from senet_bench.gallery.plots import ratios
from senet_bench.gallery.runtime_chart import runtime_chart
from senet_bench.gallery.runtimes import runtime_costs, runtime_table
from senet_bench.gallery.tables import time_table
from senet_bench.show.chart import name_of
from senet_bench.show.tables import Table


def runtimes(collection: Collection, timings: Sequence[Timed]) -> Iterator[Leaf]:
    """What attention costs by runtime: a table for each machine and version of torch, a chart for each setting."""
    places = runtime_costs(timings)
    for settings in places.values():
        first = settings[0].timings[0]
        stem = "se_cost" if len(places) == 1 else f"se_cost-{first.machine}-torch{first.torch}"
        table, ids = runtime_table(settings, collection)
        charts = []
        for one in settings:
            name = name_of("-".join((stem, *(_words(one.conditions) if len(settings) > 1 else ()))))
            chart = runtime_chart(one, collection, name)
            charts.append(Leaf(setting_label(one.conditions), chart))
        yield Leaf(_place(collection, first), table=table, table_name=name_of(stem), row_ids=ids, leaves=tuple(charts))


def latencies(collection: Collection, timings: Sequence[Timed]) -> list[Leaf]:
    """The times under each of the conditions, with a chart of the ratios; those in several runtimes are one table.

    What they cost beside each other is the chart of `runtimes`.
    """
    leaves = []
    for group in by_setting(timings).values():
        if _runtimes(group) > 1:
            leaves.append(_together(collection, group, timings))
            continue
        for timed in group:
            name = timed_name(timed, timings)
            chart = ratios(timed, f"latency-ratios-{name}", collection.name_of(timed.machine))
            leaves.append(Leaf(where(collection, timed), chart, _table(collection, [timed]), f"latency-{name}"))
    return leaves


def _together(collection: Collection, group: Sequence[Timed], timings: Sequence[Timed]) -> Leaf:
    """The times of all runtimes and batch sizes in one table."""
    first = group[0]
    name = f"{_place(collection, first)}: {setting_label(first.conditions)}"
    table = _table(collection, sorted(group, key=_order))
    return Leaf(name, None, table, f"latency-{setting_name(first, timings)}")


def _table(collection: Collection, several: Sequence[Timed]) -> Table | None:
    """Times on one machine as a table, with their notes."""
    rows = tuple(row for timed in several for row in timed.rows)
    table = time_table(collection, replace(several[0], rows=rows), collection.yardstick(*several))
    notes = dict.fromkeys(note for timed in several for note in timed.notes)
    return table and replace(table, notes=(*notes, *table.notes))


def fastest(timings: Sequence[Timed]) -> list[Timed]:
    """Of times that differ in their runtime alone, those of the most networks; of as many the fastest one's.

    The fastest takes the least part of the networks' eager times in the same runs.
    """
    groups: dict[object, list[Timed]] = {}
    for timed in timings:
        groups.setdefault((setting_of(timed), timed.conditions.batch_size), []).append(timed)
    return [min(group, key=lambda one: (-len(one.rows), *_rank(one))) for group in groups.values()]


def _rank(timed: Timed) -> tuple[bool, float]:
    """The networks' mean part of their eager times in the same runs; their seconds where one of those is missing."""
    seconds = [latency.seconds for row in timed.rows for latency in row.latencies]
    eager = [latency.seconds for row in timed.rows if (latency := timed.eager_of(row))]
    if len(eager) < len(seconds):
        return True, sum(seconds)
    return False, sum(own / whole for own, whole in zip(seconds, eager)) / len(seconds)


def _runtimes(group: Sequence[Timed]) -> int:
    return len({timed.conditions.runtime for timed in group})


def _order(timed: Timed) -> tuple[int, int]:
    return timed.conditions.batch_size, list(RUNTIMES).index(timed.conditions.runtime)


def where(collection: Collection, timed: Timed) -> str:
    """The machine, and the conditions there."""
    return f"{_place(collection, timed)}: {conditions_label(timed.conditions)}"


def _place(collection: Collection, timed: Timed) -> str:
    """The machine, with the version of torch where it has several."""
    versions = {one.torch for one in collection.timings if one.machine == timed.machine}
    return collection.name_of(timed.machine) + (f", torch {timed.torch}" if len(versions) > 1 else "")


def setting_name(timed: Timed, timings: Sequence[Timed]) -> str:
    """The machine's key, and the version of torch and the conditions but for runtime and batch size, if it has more."""
    own = [one for one in timings if one.machine == timed.machine]
    torch = f"torch{timed.torch}" if len({one.torch for one in own}) > 1 else ""
    several = sum(one.torch == timed.torch for one in own) > 1
    return name_of("-".join(filter(None, (timed.machine, torch, *(_words(timed.conditions) if several else ())))))


def timed_name(timed: Timed, timings: Sequence[Timed]) -> str:
    """The same with runtime and batch size."""
    name, conditions = setting_name(timed, timings), timed.conditions
    several = sum((one.machine, one.torch) == (timed.machine, timed.torch) for one in timings) > 1
    return f"{name}-{conditions.runtime.replace(':', '-')}-b{conditions.batch_size}" if several else name


def _words(conditions: Conditions) -> Iterator[str]:
    """What tells conditions apart but for runtime and batch size, as parts of a file's name."""
    usual = asdict(Conditions())
    yield from (conditions.device, conditions.precision, f"t{conditions.threads}")
    yield from ["channels-last"] * conditions.channels_last
    for name, value in asdict(conditions).items():
        if name in ("mode", "timing", "cache", "allocator") and value not in (usual[name], "default"):
            yield str(value)
