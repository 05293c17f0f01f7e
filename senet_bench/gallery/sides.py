"""The same networks on several machines, versions or folders: beside each other, never pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from senet_bench.core import union
from senet_bench.core.results import Accuracy, Latency, Row
from senet_bench.core.specs import by_sides
from senet_bench.core.union import Key, StoredRun
from senet_bench.errors import UsageError
from senet_bench.gallery.collection import Collection, conditions_label
from senet_bench.show.measurements import mean_interval
from senet_bench.show.tables import (
    EMPTY,
    Cell,
    Column,
    Field,
    Table,
    bracketed,
    count_cell,
    number,
    table_of,
)

SideSplit = Literal["machine", "torch", "version", "commit"]
Interval = tuple[float, float]
SIDE_NOTES = (
    "differs: the 95 % intervals of two of them share no value; else the data do not say so. Nothing is pooled.",
)


def split(collection: Collection, by: SideSplit) -> dict[str, Collection]:
    """The runs of a folder by machine, version of torch or of senet-bench, or commit, by its name."""
    names: dict[SideSplit, Callable[[StoredRun], str]] = {
        "machine": lambda run: collection.name_of(run.machine),
        "torch": lambda run: _torch(run.torch),
        "version": lambda run: f"senet-bench {run.document.version}",
        "commit": lambda run: f"commit {run.document.environment.commit or 'not noted'}",
    }
    sides: dict[str, list[StoredRun]] = {}
    for run in collection.sources:
        sides.setdefault(names[by](run), []).append(run)
    return {name: Collection(tuple(runs)) for name, runs in sorted(sides.items())}


def side_by_side(
    sides: Mapping[str, Collection], by: SideSplit | None = None, trend: Sequence[Table] = ()
) -> tuple[Table, ...]:
    """Tables of times, errors and counts of the networks that two sides or more have, behind a trend.

    `by` is what the sides were told apart by, None for folders. Raises `UsageError` where there is neither.
    """
    if len(sides) < 2 and not trend:
        raise UsageError(f"there is only {next(iter(sides), 'nothing')} to show", "name two results folders or more")
    tables = (*trend, *_times(sides, by), *_errors(sides), *_counts(sides))
    if not tables:
        raise UsageError(f"{' and '.join(sides)} have no network in common", "measure the same networks on each")
    return tables


def _times(sides: Mapping[str, Collection], by: SideSplit | None) -> Iterator[Table]:
    """The ratios to the baseline under each of the conditions, a column for each machine and torch of a side."""
    conditions = dict.fromkeys(timed.conditions for one in sides.values() for timed in one.timings)
    whole = Collection(tuple(source for one in sides.values() for source in one.sources))
    for each in conditions:
        timings = [(name, timed) for name, one in sides.items() for timed in one.timings if timed.conditions == each]
        several = {
            "machine": len({timed.machine for _, timed in timings}) > 1 and by != "machine",
            "torch": len({timed.torch for _, timed in timings}) > 1 and by != "torch",
        }
        known: dict[str, dict[Key, Row]] = {}
        for name, timed in timings:
            machine = whole.name_of(timed.machine) if several["machine"] else ""
            torch = _torch(timed.torch) if several["torch"] else ""
            column = ", ".join(filter(None, (name, machine, torch)))
            known[column] = {
                union.identity(row): row for row in timed.rows if row.latency and row.latency.ratio is not None
            }
        yield from _table(f"Time over the baseline's: {conditions_label(each)}", known, _time, _time_interval)


def _torch(version: str) -> str:
    return f"torch {version}" if version else "torch not noted"


def _latency(row: Row) -> Latency:
    assert row.latency is not None
    return row.latency


def _time(row: Row) -> Cell:
    latency = _latency(row)
    text = f"{latency.ratio:.3f}" + bracketed(latency.ci, ".3f")
    return Cell(text, value={"ratio": latency.ratio, "ci": latency.ci})


def _time_interval(row: Row) -> Interval | None:
    return None if _latency(row).reason else _latency(row).ci


def _errors(sides: Mapping[str, Collection]) -> Iterator[Table]:
    """The errors under each protocol, the seeds aside."""
    protocols = dict.fromkeys(
        (replace(errors.protocol, seeds=None), errors.size) for one in sides.values() for errors in one.errors
    )
    words = union.data_words(protocol for protocol, _ in protocols)
    for protocol, size in protocols:
        known = {
            name: {
                union.identity(row): row
                for errors in one.errors
                if (replace(errors.protocol, seeds=None), errors.size) == (protocol, size)
                for row in errors.rows
            }
            for name, one in sides.items()
        }
        title = f"Top-1 error on {protocol.dataset}{words(protocol)}, % ({protocol.words}), {by_sides(size[1:])} px"
        yield from _table(title, known, _error, lambda row: mean_interval(_accuracy(row)))


def _accuracy(row: Row) -> Accuracy:
    assert row.accuracy is not None
    return row.accuracy


def _error(row: Row) -> Cell:
    accuracy, interval = _accuracy(row), mean_interval(_accuracy(row))
    text = number(accuracy.top1_err, ".2f", 100) + bracketed(interval, ".2f", 100)
    return Cell(text, value={"top1_err": accuracy.top1_err, "ci": interval})


def _counts(sides: Mapping[str, Collection]) -> Iterator[Table]:
    known = {name: {union.identity(row): row for row in one.rows("compare", "ablate")} for name, one in sides.items()}
    yield from _table("Parameters", known, lambda row: count_cell(row.params), lambda row: _exact(row.params))
    yield from _table("Multiply-adds", known, lambda row: count_cell(_macs(row)), lambda row: _exact(_macs(row)))


def _macs(row: Row) -> int | None:
    return row.flops.get("macs")


def _exact(value: int | None) -> Interval | None:
    return None if value is None else (value, value)


def _table(
    title: str,
    known: Mapping[str, Mapping[Key, Row]],
    text: Callable[[Row], Cell],
    bounds: Callable[[Row], Interval | None],
) -> Iterator[Table]:
    """A line for each network that two sides or more have, a column a side; none where there is no such network."""
    first: dict[Key, Row] = {}
    for rows in known.values():
        first = {**rows, **first}
    counted = {key: sum(key in rows for rows in known.values()) for key in first}
    shared = [row for row in union.in_order(first.values()) if counted[union.identity(row)] > 1]
    sides = [name for name, rows in known.items() if any(union.identity(row) in rows for row in shared)]
    if not shared:
        return
    fields: list[Field[Row]] = [(Column("network", numeric=False), union.labels(shared))]
    fields += [(Column(name), _of_side(known[name], text)) for name in sides]

    def told(row: Row) -> Cell:
        here = [known[name].get(union.identity(row)) for name in sides]
        apart = _apart([interval for one in here if one and (interval := bounds(one))])
        return Cell("differs", "differs", value=True) if apart else Cell(EMPTY, value=apart)

    fields.append((Column("differs", numeric=False), told))
    yield table_of(title, fields, shared, SIDE_NOTES)


def _of_side(rows: Mapping[Key, Row], text: Callable[[Row], Cell]) -> Callable[[Row], str | Cell]:
    return lambda row: text(rows[union.identity(row)]) if union.identity(row) in rows else EMPTY


def _apart(intervals: Sequence[Interval]) -> bool | None:
    """Whether two of the intervals share no value; None where there are no two."""
    if len(intervals) < 2:
        return None
    return max(low for low, _ in intervals) > min(high for _, high in intervals)
