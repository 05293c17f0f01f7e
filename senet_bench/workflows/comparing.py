"""`compare` and `ablate`: count every network, time each with its baseline, store every row as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from senet_bench.catalog import resolve
from senet_bench.report.documents import judge
from senet_bench.results import Row, Run
from senet_bench.store import Store
from senet_bench.workflows.runs import Event, new_run
from senet_bench.workflows.subjects import Changes, Subject, check, grid, label, network, select

if TYPE_CHECKING:
    from torch import nn

    from senet_bench.measure.complexity import Counts
    from senet_bench.workflows.timing import Timing

CounterName = Literal["shapes", "fvcore"]


@dataclass(frozen=True, slots=True)
class Counting:
    """Who counts, and whether the count is checked against the two witnesses."""

    counter: CounterName = "shapes"
    verify: bool = False


def compare(
    what: Sequence[str],
    store: Store,
    *,
    changes: Changes | None = None,
    counting: Counting | None = None,
    timing: Timing | None = None,
) -> Iterator[Event[Run]]:
    """Count, and with `timing` time, every network that `what` names; the last event has the whole run, stored."""
    subjects = select(what)
    conditions = {"what": list(what) or ["table2", "table3"]}
    yield from _run("compare", subjects, store, changes or Changes(), counting or Counting(), timing, conditions)


def ablate(
    model: str,
    axes: Mapping[str, str | None],
    store: Store,
    *,
    changes: Changes | None = None,
    counting: Counting | None = None,
    timing: Timing | None = None,
) -> Iterator[Event[Run]]:
    """Count, and with `timing` time, a network along the axes of section 6, its baseline first.

    `axes` maps an axis to its values as typed, None for the paper's; several make a grid. Every impossible
    combination is found, and all are named in one error, before anything is counted.
    """
    subjects = grid(resolve(model), axes)
    conditions = {"model": resolve(model).name, "axes": {name: text or "paper" for name, text in axes.items()}}
    yield from _run("ablate", subjects, store, changes or Changes(), counting or Counting(), timing, conditions)


def _run(
    command: str,
    subjects: Sequence[Subject],
    store: Store,
    changes: Changes,
    counting: Counting,
    timing: Timing | None,
    conditions: Mapping[str, Any],
) -> Iterator[Event[Run]]:
    store.check()
    if timing is not None:
        timing.check()
    if command == "ablate" or changes != Changes():
        check(subjects, changes)
    conditions = {**conditions, "counter": counting.counter, "verified": counting.verify}
    run = new_run(command, {**conditions, **({"latency": timing.described()} if timing else {})})
    path = store.new_path(run)
    timed = timing.steps(subjects) if timing else 0
    for done, subject in enumerate(subjects, 1):
        row = count_row(subject, changes, counting)
        run = replace(run, rows=[*run.rows, row])
        store.write(run, path)
        yield Event(done, len(subjects) + timed, row.label, run, path)
    if timing is not None:
        for step in timing.measure(subjects, changes, run.rows, path.with_suffix(".samples.jsonl")):
            run = replace(run, rows=step.rows)
            if step.finished:
                store.write(run, path)
            yield Event(len(subjects) + step.done, len(subjects) + timed, step.what, run, path, step.failures)


def count_row(subject: Subject, changes: Changes, counting: Counting) -> Row:
    """Parameters and FLOPs of a network, beside the paper's cells."""
    from senet_bench.measure.complexity import parameters
    from senet_bench.measure.witnesses import verify

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
        attention=spec.attention,
        axes=dict(subject.axes) if subject.axes is not None else None,
        params=parameters(built),
        flops={"macs": counts.macs, "bn-inclusive": counts.bn_inclusive},
        flops_by_kind=counts.by_kind(),
        missing={"latency": "not asked for"},
    )
    unlike = {"paper": "its cells are for the network's own image size, channels, classes and cardinality"}
    missing = row.missing | (unlike if changes.unlike_paper(subject.spec) else {})
    return replace(row, paper=judge(row, subject.studies), missing=missing)


def _counter(name: CounterName) -> Callable[[nn.Module, tuple[int, int, int]], Counts]:
    from senet_bench.measure import complexity, witnesses

    return complexity.count if name == "shapes" else witnesses.count_fvcore
