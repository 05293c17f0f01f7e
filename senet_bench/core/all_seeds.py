"""A run beside what is stored: its errors joined over the seeds of all runs of the same protocol."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from senet_bench.core import union
from senet_bench.core.results import Row, Run, TrainingProtocol
from senet_bench.core.store import Store
from senet_bench.core.union import Errors, StoredRun
from senet_bench.errors import BenchError

ProtocolPlace = tuple[TrainingProtocol, tuple[int, ...]]


def stored_runs(store: Store) -> list[StoredRun]:
    """Every stored document that can be read."""
    read = ((path.relative_to(store.root).as_posix(), document) for path, document in store.survey())
    return [StoredRun(path, document) for path, document in read if not isinstance(document, BenchError)]


def with_all_seeds(run: Run, store: Store) -> tuple[Run, tuple[str, ...]]:
    """The run with the errors of its networks as all stored runs have them, and what is to be said of that.

    Its networks stay those it has, and so do their counts and times. The run itself, and nothing to say, where no other
    run has more.
    """
    training = run.conditions.accuracy
    if training is None or training.dataset is None:
        return run, ()
    networks = {union.identity(row) for row in run.rows}
    entries = [entry for entry in union.entries(stored_runs(store)) if entry.network in networks and entry.row.accuracy]
    usual = union.without_seeds(training, training.dataset)
    tables = {(replace(table.protocol, seeds=None), table.size): table for table in union.errors(entries)}
    wanted = {place for row in run.rows if (place := _place(row, usual)) in tables}
    joined = [tables[place] for place in tables if place in wanted]
    if not any(_more(table, run.rows) for table in joined):
        return run, ()
    known = {(place, union.identity(row)): row for place in wanted for row in tables[place].rows}
    rows = [_joined(row, known.get((_place(row, usual), union.identity(row)))) for row in run.rows]
    return replace(run, rows=rows), tuple(dict.fromkeys(note for table in joined for note in table.notes))


def _place(row: Row, usual: TrainingProtocol) -> ProtocolPlace:
    """The protocol of a row's error, of one that has none the run's, and the size of its images."""
    return union.training_protocol(row.accuracy) if row.accuracy else usual, row.input_size


def _more(table: Errors, rows: Iterable[Row]) -> bool:
    """Whether a joined table knows a seed that the run's own rows lack."""
    own = {union.identity(row): set(row.accuracy.per_seed) if row.accuracy else set() for row in rows}
    return any(set(row.accuracy.per_seed) - own[union.identity(row)] for row in table.rows if row.accuracy)


def _joined(row: Row, other: Row | None) -> Row:
    if other is None:
        return row
    arrived = bool(row.seeds_elsewhere) and not other.seeds_elsewhere
    missing = {what: why for what, why in row.missing.items() if what != "accuracy" or not arrived}
    return replace(row, accuracy=other.accuracy, missing=missing, seeds_elsewhere=other.seeds_elsewhere)
