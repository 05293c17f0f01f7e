"""`compare` and `ablate`: count every network, time each with its baseline, store every row as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from senet_bench.core.reproduction import judge
from senet_bench.core.results import Row, Run
from senet_bench.core.store import Store
from senet_bench.errors import UsageError
from senet_bench.run.cases import Changes, Subject, check, grid, label, network, possible, row_of, select, with_controls
from senet_bench.run.record import Event, Step, new_run

if TYPE_CHECKING:
    from torch import nn

    from senet_bench.bench.count import Counts
    from senet_bench.run.error import Sweep
    from senet_bench.run.latency import Timing

CounterName = Literal["shapes", "fvcore"]


@dataclass(frozen=True, slots=True)
class Counting:
    """Who counts, and whether the count is checked against the two witnesses."""

    counter: CounterName = "shapes"
    verify: bool = False


@dataclass(frozen=True, slots=True)
class Measures:
    """What is asked of a run: the counts always, times with `timing`, errors with `sweep`."""

    changes: Changes
    counting: Counting
    timing: Timing | None
    sweep: Sweep | None

    def check(self, subjects: Sequence[Subject]) -> None:
        """Raise `UsageError` on what this machine, its data or these networks cannot offer."""
        detector = next((one.spec.name for one in subjects if one.spec.task == "detection"), None)
        if detector and self.sweep:
            raise UsageError(
                f"{detector} is a detector, which is not trained over many seeds here",
                f"leave out --dataset, and use `train {detector} --dataset coco`, then `evaluate`",
            )
        if detector and self.timing and any(one.mode == "train" for one in self.timing.conditions):
            raise UsageError(f"{detector} is a detector: its training step is not timed", "leave out --mode train")
        for part in (self.timing, self.sweep):
            if part is not None:
                part.check()

    def fitted(self) -> Changes:
        """The changes, fitted to the data set where there is one."""
        return self.sweep.fitted(self.changes) if self.sweep else self.changes

    def with_controls(self, subjects: Sequence[Subject]) -> tuple[Subject, ...]:
        """The subjects, and with errors the constant gate of each baseline."""
        return with_controls(subjects) if self.sweep else tuple(subjects)

    def described(self) -> dict[str, Any]:
        """The conditions as they are stored."""
        parts = {"latency": self.timing, "accuracy": self.sweep}
        counting = {"counter": self.counting.counter, "verified": self.counting.verify}
        return counting | {name: part.described() for name, part in parts.items() if part is not None}

    def steps(self, subjects: Sequence[Subject]) -> int:
        """Steps after the counting."""
        return sum(part.steps(subjects) for part in (self.timing, self.sweep) if part is not None)

    def parts(
        self, subjects: Sequence[Subject], changes: Changes, store: Store, path: Path
    ) -> list[Callable[[Sequence[Row]], Iterator[Step]]]:
        """What follows the counting, each from the rows so far to the rows with more."""
        parts: list[Callable[[Sequence[Row]], Iterator[Step]]] = []
        if (timing := self.timing) is not None:
            samples = path.with_suffix(".samples.jsonl")
            parts.append(lambda rows: timing.measure(subjects, changes, rows, samples))
        if (sweep := self.sweep) is not None:
            parts.append(lambda rows: sweep.measure(subjects, changes, rows, store))
        return parts


def compare(
    what: Sequence[str],
    store: Store,
    *,
    changes: Changes | None = None,
    counting: Counting | None = None,
    timing: Timing | None = None,
    sweep: Sweep | None = None,
    more: Callable[[Sequence[Subject], Changes], Sequence[Subject]] | None = None,
) -> Iterator[Event[Run]]:
    """Count, and with `timing` time, every network that `what` names; the last event has the whole run, stored.

    `more` makes of those networks, and of what is changed in them, the ones that are measured.
    """
    measures = Measures(changes or Changes(), counting or Counting(), timing, sweep)
    subjects = more(select(what), measures.fitted()) if more else select(what)
    yield from _run("compare", subjects, store, measures, {"what": list(what) or ["table2", "table3"]})


def ablate(
    model: str,
    axes: Mapping[str, str | None],
    store: Store,
    *,
    changes: Changes | None = None,
    counting: Counting | None = None,
    timing: Timing | None = None,
    sweep: Sweep | None = None,
) -> Iterator[Event[Run]]:
    """Count, and with `timing` time, a network along the axes of section 6, its baseline first.

    `axes` maps an axis to its values as typed, None for the paper's; several make a grid. Every impossible
    combination is found, and all are named in one error, before anything is counted.
    """
    subjects = grid(row_of(model), axes)
    measures = Measures(changes or Changes(), counting or Counting(), timing, sweep)
    conditions = {"model": row_of(model).name, "axes": {name: text or "paper" for name, text in axes.items()}}
    yield from _run("ablate", subjects, store, measures, conditions)


def _run(
    command: str, subjects: Sequence[Subject], store: Store, measures: Measures, conditions: Mapping[str, Any]
) -> Iterator[Event[Run]]:
    store.check()
    measures.check(subjects)
    changes, subjects = measures.fitted(), measures.with_controls(subjects)
    if "paper" in conditions.get("axes", {}).values():  # of a bare axis, what this network cannot take is left out
        left, left_out = possible(subjects, changes)
        if sum("block" not in one.axes for one in left if one.axes) > 1:  # else nothing is varied
            subjects, conditions = left, {**conditions, "left_out": left_out}
    if command == "ablate" or changes != Changes():
        check(subjects, changes)
    run = new_run(command, {**conditions, **measures.described()})
    path = store.new_path(run)
    total, done = len(subjects) + measures.steps(subjects), 0
    failures: tuple[str, ...] = ()
    for subject in subjects:
        row = count_row(subject, changes, measures.counting)
        run, done = replace(run, rows=[*run.rows, row]), done + 1
        store.write(run, path)
        yield Event(done, total, row.label, run, path)
    for part in measures.parts(subjects, changes, store, path):
        for step in part(run.rows):
            run = replace(run, rows=step.rows)
            if step.finished:
                store.write(run, path)
            yield Event(done + step.done, total, step.what, run, path, failures + step.failures)
        done, failures = done + int(step.done), failures + step.failures


def count_row(subject: Subject, changes: Changes, counting: Counting) -> Row:
    """Parameters and FLOPs of a network, beside the paper's cells."""
    from senet_bench.bench.count import parameters
    from senet_bench.bench.reference_counters import verify

    spec = changes.apply(subject.spec)
    built = network(spec, changes)
    counts = _counter(counting.counter)(built, spec.input_size)
    if counting.verify:
        verify(built, spec.input_size, counts)
    row = Row(
        model=spec.name,
        label=label(spec),
        family=spec.family,
        input_size=spec.input_size,
        classes=spec.classes,
        cardinality=changes.cardinality,
        baseline=subject.baseline,
        role=subject.role,
        attention=spec.attention,
        axes=dict(subject.axes) if subject.axes is not None else None,
        params=parameters(built),
        flops={"macs": counts.macs, "bn-inclusive": counts.bn_inclusive},
        flops_by_kind=counts.by_kind(),
        uncounted=list(counts.uncounted),
        missing={"latency": "not asked for", "accuracy": "not asked for"},
    )
    unlike = {"paper": "its cells are for the network's own image size, channels, classes and cardinality"}
    missing = row.missing | (unlike if not spec.outside and changes.unlike_paper(subject.spec) else {})
    return replace(row, paper=judge(row, subject.studies), missing=missing)


def _counter(name: CounterName) -> Callable[[nn.Module, tuple[int, int, int]], Counts]:
    from senet_bench.bench import count, reference_counters

    return count.count if name == "shapes" else reference_counters.count_fvcore
