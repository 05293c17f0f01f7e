"""What the commands do: plan the networks, count and measure them, store every row as it is finished."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from senet_bench import __version__
from senet_bench.catalog import CATALOG, FAMILIES, normalise, pair, resolve
from senet_bench.errors import UsageError
from senet_bench.report.documents import judge
from senet_bench.results import Row, Run, schema_of
from senet_bench.specs import AttentionSpec, ModelSpec
from senet_bench.store import Store, write_atomically
from senet_bench.studies import AXES, STUDIES, Axis, AxisValue, Study, find_study, setting_label

if TYPE_CHECKING:
    from torch import nn

    from senet_bench.measure.complexity import Counts

CounterName = Literal["shapes", "fvcore"]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a command changes in every network it builds; None leaves the network's own."""

    img_size: int | None = None
    classes: int | None = None
    in_channels: int | None = None
    cardinality: int | None = None
    attention: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, spec: ModelSpec) -> ModelSpec:
        """The network with the image size, the channels and (where it has attention) the switches changed."""
        channels, height, width = spec.input_size
        for name in ("img_size", "classes", "in_channels", "cardinality"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be a positive integer, not {value}")
        size = (self.in_channels or channels, self.img_size or height, self.img_size or width)
        attention = replace(spec.attention, **self.attention) if spec.attention else None
        return replace(spec, input_size=size, classes=self.classes or spec.classes, attention=attention)

    def unlike_paper(self, spec: ModelSpec) -> bool:
        """Whether the network is another one than the paper's, so that no printed cell is for it."""
        changed = self.apply(spec)
        return (changed.input_size, changed.classes, self.cardinality) != (spec.input_size, spec.classes, None)


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to be measured, the studies whose cells stand beside it, and its setting on an ablation's axes."""

    spec: ModelSpec
    baseline: str | None
    studies: tuple[str | None, ...]
    axes: Mapping[str, AxisValue] | None = None

    @property
    def key(self) -> tuple[str, AttentionSpec | None]:
        """What makes two subjects one network."""
        return self.spec.name, self.spec.attention


@dataclass(frozen=True, slots=True)
class Event:
    """Progress of a run: rows finished of all, what was just done, and the run so far."""

    done: int
    total: int
    what: str
    run: Run
    path: Path


def select(what: Sequence[str]) -> tuple[Subject, ...]:
    """The networks that `compare`'s arguments name, each once; Tables 2 and 3 when there are none."""
    found: dict[tuple[str, AttentionSpec | None], Subject] = {}
    for subject in itertools.chain.from_iterable(map(_named, what or ("table2", "table3"))):
        known = found.get(subject.key, subject)
        found[subject.key] = replace(known, studies=tuple(dict.fromkeys((*known.studies, *subject.studies))))
    return tuple(found.values())


def selected_studies(what: Sequence[str]) -> tuple[Study, ...]:
    """The studies among `compare`'s arguments."""
    return tuple(find_study(name) for name in what or ("table2", "table3") if _is_table(name))


def _is_table(name: str) -> bool:
    key = normalise(name)
    return key.isdigit() or (key.startswith("table") and key[5:].isdigit())


def _named(name: str) -> Iterable[Subject]:
    if _is_table(name):
        study = find_study(name)
        for one in study.subjects:
            spec = replace(resolve(one.model), attention=one.attention)
            yield _subject(spec, study.id)
    elif normalise(name) in {normalise(family) for family in FAMILIES}:
        for spec in CATALOG.values():
            if normalise(spec.family) == normalise(name):
                yield _subject(spec, None)
    elif normalise(name) == "all":
        yield from (_subject(spec, None) for spec in CATALOG.values())
    else:
        yield from (_subject(spec, None) for spec in pair(resolve(name)))


def _subject(spec: ModelSpec, study: str | None) -> Subject:
    return Subject(spec, spec.baseline if spec.attention is not None else None, (study,))


def compare(
    what: Sequence[str],
    store: Store,
    *,
    changes: Changes | None = None,
    counter: CounterName = "shapes",
    verify: bool = False,
) -> Iterator[Event]:
    """Count every network that `what` names; an event a network, the last with the whole run, stored."""
    subjects = select(what)
    conditions = {"what": list(what) or ["table2", "table3"], "counter": counter, "verified": verify}
    yield from _run("compare", subjects, store, changes or Changes(), counter, verify, conditions)


def ablate(
    model: str,
    axes: Mapping[str, str | None],
    store: Store,
    *,
    changes: Changes | None = None,
    counter: CounterName = "shapes",
    verify: bool = False,
) -> Iterator[Event]:
    """Count a network along the axes of section 6 (a grid where there are several), its baseline first.

    `axes` maps an axis to its values as typed, None for the paper's. Every impossible combination is found, and
    all are named in one error, before anything is counted.
    """
    subjects = grid(resolve(model), axes)
    conditions = {
        "axes": {name: text or "paper" for name, text in axes.items()},
        "counter": counter,
        "verified": verify,
    }
    yield from _run("ablate", subjects, store, changes or Changes(), counter, verify, conditions)


def grid(spec: ModelSpec, axes: Mapping[str, str | None]) -> tuple[Subject, ...]:
    """The baseline and every combination of the axes' values."""
    if not axes:
        raise UsageError("no axis given", f"choose from {', '.join(f'--{name}' for name in AXES)}")
    base, variant = pair(spec)
    chosen: list[tuple[Axis, tuple[AxisValue, ...]]] = [
        (AXES[name], AXES[name].parse(text)) for name, text in axes.items()
    ]
    studies = tuple(axis.table for axis, _ in chosen)
    subjects, problems = [Subject(base, None, studies, {})], []
    for values in itertools.product(*(values for _, values in chosen)):
        setting = {axis.name: value for (axis, _), value in zip(chosen, values)}
        try:
            attention = variant.attention or AttentionSpec()
            for (axis, _), value in zip(chosen, values):
                attention = axis.apply(attention, value)
            subjects.append(Subject(replace(variant, attention=attention), base.name, studies, setting))
        except UsageError as error:
            problems.append(f"{setting_label(setting)}: {error}")
    _raise_all(problems)
    return tuple(subjects)


def check(subjects: Sequence[Subject], changes: Changes) -> None:
    """Raise one `UsageError` that lists every subject that cannot be built or cannot take the images."""
    from senet_bench.measure.complexity import count

    problems = []
    for subject in subjects:
        try:
            spec = changes.apply(subject.spec)
            count(_network(spec, changes), spec.input_size)
        except UsageError as error:
            problems.append(f"{setting_label(subject.axes or {}) or subject.spec.name}: {error}")
    _raise_all(problems)


def _raise_all(problems: Sequence[str]) -> None:
    if problems:
        raise UsageError(f"{len(problems)} impossible: {' | '.join(problems)}" if problems[1:] else problems[0])


def label(spec: ModelSpec) -> str:
    """The network's name with every switch that differs from the paper's SE block."""
    if spec.attention is None:
        return spec.label
    usual = AttentionSpec()
    differing = [one.name for one in fields(usual) if getattr(spec.attention, one.name) != getattr(usual, one.name)]
    values = (f"{name}={_short(getattr(spec.attention, name))}" for name in differing)
    return f"{spec.label} ({', '.join(values)})" if differing else spec.label


def _short(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _run(
    command: str,
    subjects: Sequence[Subject],
    store: Store,
    changes: Changes,
    counter: CounterName,
    verify: bool,
    conditions: Mapping[str, Any],
) -> Iterator[Event]:
    known = list(store.runs())  # a damaged results folder is found before anything is measured
    del known
    if command == "ablate" or changes != Changes():
        check(subjects, changes)
    run = new_run(command, conditions)
    path = store.new_path(run)
    for done, subject in enumerate(subjects, 1):
        row = count_row(subject, changes, counter, verify)
        run = replace(run, rows=[*run.rows, row])
        store.write(run, path)
        yield Event(done, len(subjects), row.label, run, path)


def new_run(command: str, conditions: Mapping[str, Any]) -> Run:
    """An empty run of a command on this machine, now."""
    from senet_bench.measure.environment import environment

    return Run(
        schema=schema_of(command),
        version=__version__,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        environment=environment(),
        conditions=dict(conditions),
    )


def count_row(subject: Subject, changes: Changes, counter: CounterName = "shapes", verify: bool = False) -> Row:
    """Parameters and FLOPs of a network, beside the paper's cells."""
    from senet_bench.measure.complexity import parameters
    from senet_bench.measure.witnesses import verify as verify_counts

    spec = changes.apply(subject.spec)
    network = _network(spec, changes)
    counts = _counter(counter)(network, spec.input_size)
    if verify:
        verify_counts(network, spec.input_size, counts)
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
        params=parameters(network),
        flops={"macs": counts.macs, "bn-inclusive": counts.bn_inclusive},
        flops_by_kind=counts.by_kind(),
        missing={"latency": "not asked for"},
    )
    cells = judge(row, subject.studies)
    unlike = {"paper": "its cells are for the network's own image size, channels, classes and cardinality"}
    return replace(row, paper=cells, missing=row.missing | (unlike if changes.unlike_paper(subject.spec) else {}))


def _counter(name: CounterName) -> Callable[[nn.Module, tuple[int, int, int]], Counts]:
    from senet_bench.measure import complexity, witnesses

    return complexity.count if name == "shapes" else witnesses.count_fvcore


def _network(spec: ModelSpec, changes: Changes) -> nn.Module:
    from senet_bench.models import build_spec

    return build_spec(spec, in_channels=spec.input_size[0], cardinality=changes.cardinality, device="meta")


def latest_rows(store: Store, command: str) -> list[Row]:
    """The newest stored row of each network, attention and setting, in the order they were first measured."""
    found: dict[object, Row] = {}
    for _, run in store.runs():
        if run.schema == schema_of(command):
            for row in run.rows:
                found[row.model, row.attention, row.input_size, row.classes] = row
    return list(found.values())


def report(store: Store) -> Iterator[Path]:
    """Rewrite `tables/` and `plots/` from the stored runs alone; yields each path as it is written."""
    from senet_bench.report import documents, plots, writers

    rows = latest_rows(store, "compare")
    if not rows:
        raise UsageError(f"no runs are stored under {store.root}", "run `senet-bench compare` first")
    for study in STUDIES.values():
        judged = [replace(row, paper=judge(row, [study.id])) for row in rows]
        run = Run(
            schema=schema_of("compare"), version=__version__, created="", environment={}, conditions={}, rows=judged
        )
        document = documents.of_run(replace(run, rows=[row for row in judged if row.paper]), [study])
        for ending, format in (("md", "md"), ("csv", "csv"), ("tex", "latex"), ("html", "html")):  # noqa: A001
            if document.wide:
                yield _written(store.root / "tables" / f"{study.id}.{ending}", writers.render(document, format))
    rows = [replace(row, paper=judge(row, ["table2", "table3"])) for row in rows]
    for metric in ("flops", "params"):
        figure = plots.tradeoff(rows, metric)
        for format in plots.FORMATS if figure else ():  # noqa: A001
            assert figure is not None
            yield _written(store.root / "plots" / f"error-vs-{metric}.{format}", plots.render(figure, format))


def _written(path: Path, data: str | bytes) -> Path:
    write_atomically(path, data)
    return path
