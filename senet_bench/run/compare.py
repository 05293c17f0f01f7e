"""`compare` and `ablate`: cases in, a stored run out, each measure adding what it finds to the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from senet_bench.core.progress import Progress, Steps, retold
from senet_bench.core.reproduction import cells_of, is_error
from senet_bench.core.results import Run, RunConditions
from senet_bench.core.store import Store
from senet_bench.core.stored_errors import stored_errors
from senet_bench.run.apart import apart
from senet_bench.run.cases import (
    TABLES_2_AND_3,
    Case,
    Changes,
    grid_cases,
    listed_name,
    refuse_typed,
    select,
    with_controls,
)
from senet_bench.run.count import Count
from senet_bench.run.error import Sweep
from senet_bench.run.local import Local
from senet_bench.run.record import Record, new_run


class Measure(Protocol):
    """What is measured of the cases of a run; each fills its part of the rows that `Count` has made."""

    def check(self, cases: Sequence[Case]) -> None:
        """Raise `UsageError` on what this machine, its data or these networks cannot offer."""

    def described(self, conditions: RunConditions, cases: Sequence[Case]) -> RunConditions:
        """What the run was asked, with the plan of this measure."""

    def steps(self, cases: Sequence[Case]) -> int:
        """How many steps `run` takes."""

    def run(self, cases: Sequence[Case], record: Record[Run]) -> Steps[None]:
        """Measure the cases, row by row of the record; what fails is named in its `failures`."""


def compare(
    what: Sequence[str],
    store: Store,
    changes: Changes | None = None,
    count: Count | None = None,
    measures: Mapping[str, Measure] | None = None,
    plain: Callable[[Sequence[Case]], Sequence[Case]] | None = None,
) -> Steps[Record[Run]]:
    """Count, and measure, every network that `what` names; the run, stored.

    `plain` gives more networks to measure beside those cases, such as wider ones without attention.
    """
    count, measures, cases = count or Count(), dict(measures or {}), select(what, changes)
    store.check()
    cases = (*cases, *plain(cases)) if plain else cases
    with apart(wanted=trains_elsewhere(measures)):
        check_measures(cases, measures)
        cases = with_controls(cases) if "accuracy" in measures else cases
        if changes is not None and changes != Changes():
            count.check(cases)
        conditions = RunConditions(what=list(what) or list(TABLES_2_AND_3))
        return (yield from measured("compare", cases, store, conditions, count, measures))


def ablate(
    model: str,
    axes: Mapping[str, str | None],
    store: Store,
    changes: Changes | None = None,
    count: Count | None = None,
    measures: Mapping[str, Measure] | None = None,
) -> Steps[Record[Run]]:
    """Count, and measure, a network along the axes of section 6, its baseline first; the run, stored.

    `axes` maps an axis to its values as typed, None for the paper's; several make a grid. Every impossible
    combination is found, and all are named in one error, before anything is stored.
    """
    count, measures = count or Count(), dict(measures or {})
    store.check()
    with apart(wanted=trains_elsewhere(measures)):
        cases, left_out = settings(model, axes, changes, count, controls="accuracy" in measures)
        check_measures(cases, measures)
        typed = {name: text or "paper" for name, text in axes.items()}
        conditions = RunConditions(model=listed_name(model), axes=typed, left_out=left_out)
        return (yield from measured("ablate", cases, store, conditions, count, measures))


def trains_elsewhere(measures: Mapping[str, Measure]) -> bool:
    """Whether errors alone are measured, in other processes, so that this one has no other use for torch."""
    engines = [measure.engine for measure in measures.values() if isinstance(measure, Sweep)]
    here = [engine for engine in engines if isinstance(engine, Local) and engine.here]
    return len(engines) == len(measures) == 1 and not here


def settings(
    model: str, axes: Mapping[str, str | None], changes: Changes | None, count: Count, *, controls: bool
) -> tuple[tuple[Case, ...], dict[str, str] | None]:
    """The cases of an ablation, and of a bare axis what this network cannot take, with the reasons (None: not bare).

    Raises one `UsageError` that names all impossible settings whose values were typed.
    """
    cases, senseless = grid_cases(model, axes, changes)
    impossible = senseless | count.impossible(cases)
    cases = tuple(case for case in cases if case.name not in impossible)
    refuse_typed(axes, cases, impossible)
    if controls:
        cases = with_controls(cases)
        count.check(cases)
    return cases, impossible if None in axes.values() else None


def check_measures(cases: Sequence[Case], measures: Mapping[str, Measure]) -> None:
    """Raise `UsageError` on what the measures cannot do."""
    for measure in measures.values():
        measure.check(cases)


def measured(
    command: str,
    cases: Sequence[Case],
    store: Store,
    conditions: RunConditions,
    count: Count,
    measures: Mapping[str, Measure],
) -> Steps[Record[Run]]:
    """Count the cases, then take every measure of them; the run, stored after each row."""
    parts: list[Measure] = [count, *measures.values()]
    for part in parts:
        conditions = part.described(conditions, cases)
    record = Record.begin(store, new_run(command, conditions))
    total, done = sum(part.steps(cases) for part in parts), 0
    for part in parts:
        yield from retold(part.run(cases, record), partial(_moment, record, done, total))
        done += part.steps(cases)
        if part is count or ("accuracy" in measures and part is measures["accuracy"]):
            _judge(record, cases, any_protocol=count.any_protocol)
    return record


def _judge(record: Record[Run], cases: Sequence[Case], *, any_protocol: bool) -> None:
    """Put the paper's errors beside the stored ones in every row."""
    rows = record.document.rows
    if not any(is_error(cell) for row in rows for cell in row.paper):
        return
    stored = stored_errors(record.store)
    judged = [
        replace(row, paper=cells_of(row, case.studies, stored, any_protocol=any_protocol)) if row.paper else row
        for row, case in zip(rows, cases)
    ]
    record.change(rows=judged)


def _moment(record: Record[Run], done: int, total: int, step: Progress) -> Progress:
    """A step of one measure as a moment of the whole run."""
    return record.progress(step.what, done + step.done, total)
