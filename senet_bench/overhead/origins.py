"""Errors that may be compared with each other, of a baseline and its variants: stored ones, and the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from senet_bench.bench.process import allocator_of_process
from senet_bench.core import union
from senet_bench.core.all_seeds import stored_runs
from senet_bench.core.catalog import CATALOG
from senet_bench.core.datasets import DATASETS
from senet_bench.core.learning import ClassifierRow
from senet_bench.core.paper import cells
from senet_bench.core.results import AnyFacts, Facts, Latency, Row
from senet_bench.core.specs import Allocator, AttentionSpec, Conditions, ModelSpec
from senet_bench.core.store import Store
from senet_bench.core.studies import STUDIES, Study
from senet_bench.core.studies import Subject as PrintedSubject
from senet_bench.run.cases import Changes, pair_of, spec_of

PlainKey = tuple[str, AttentionSpec | None]


@dataclass(frozen=True, slots=True)
class Error:
    """The error of a network: its interval where it is of one run, else its errors by seed."""

    value: float
    ci: tuple[float, float] | None = None
    by_seed: Mapping[str, float] | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its own, else the t interval over its seeds; None of a single run."""
        from senet_bench.core.intervals import paired_seeds

        values = list((self.by_seed or {}).values())
        return self.ci or (paired_seeds([0.0] * len(values), values).ci if values else None)


@dataclass(frozen=True, slots=True)
class ErrorOrigin:
    """Errors that may be compared with each other, and the images and classes they belong to.

    `dataset` is what `--dataset` calls the images, `table` the printed table that the errors stand in.
    """

    source: str
    dataset: str
    size: tuple[int, ...]
    classes: int
    errors: Mapping[PlainKey, Error]
    table: str | None = None

    @property
    def changes(self) -> Changes:
        """What makes a network of the catalog one for these images."""
        return Changes(self.size[1], self.classes, self.size[0])


def stored(base: ModelSpec, store: Store) -> list[ErrorOrigin]:
    """The errors of `compare` and `ablate`, joined over all runs of a protocol, and the newest of `evaluate`."""
    runs = stored_runs(store)
    origins: dict[str, ErrorOrigin] = {}
    for run in runs:
        for key, origin in _of_evaluation(run.document, base) if isinstance(run.document, Facts) else ():
            known = origins[key].errors if key in origins else {}
            origins[key] = replace(origin, errors={**known, **origin.errors})
    joined = union.errors(entry for entry in union.entries(runs) if _is_of(base, entry.row))
    words = union.data_words(table.protocol for table in joined)
    return [*(_of_table(table, words(table.protocol)) for table in joined), *origins.values()]


def _is_of(base: ModelSpec, row: Row | ClassifierRow, baseline: str | None = None) -> bool:
    """Whether a network is the baseline, has it as its own, or is a plain form of another size."""
    if isinstance(row, Row) and row.cardinality is not None:
        return False
    own = row.baseline if isinstance(row, Row) else baseline
    return own == base.name or (row.attention is None and row.model.partition("@")[0] == base.name)


def _of_table(table: union.Errors, data: str) -> ErrorOrigin:
    """The errors of one protocol, on data that some words tell apart."""
    protocol = table.protocol
    known = {"recipe": protocol.recipe, "epochs": protocol.epochs, "lr": protocol.lr}
    words = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
    rows = [(row, row.accuracy) for row in table.rows if row.accuracy]
    errors = {
        (row.model, row.attention): Error(accuracy.top1_err, accuracy.ci, accuracy.per_seed) for row, accuracy in rows
    }
    dataset = protocol.dataset or ""
    return ErrorOrigin(f"measured on {dataset}{data} ({words})", dataset, table.size, rows[0][0].classes, errors)


def _of_evaluation(facts: AnyFacts, base: ModelSpec) -> Iterator[tuple[str, ErrorOrigin]]:
    for row in facts.rows:
        if not isinstance(row, ClassifierRow) or row.altered:
            continue
        name, sized, _ = row.model.partition("@")
        known = CATALOG.get(name)
        if known is None or (sized and row.attention) or not _is_of(base, row, known.baseline):
            continue
        own = DATASETS.get(row.dataset)
        channels, classes = (own.channels, own.classes) if own else (None, None)
        size = (channels or base.input_size[0], row.size, row.size)
        about = {"recipe": row.recipe, "epochs": row.epochs}
        trained = ", ".join(f"{name} {value}" for name, value in about.items() if value is not None)
        source = f"evaluated on {row.images} images of {row.dataset} ({trained or 'weights of unknown training'})"
        errors = {(row.model, row.attention): Error(row.top1_err, row.ci)}
        yield f"{source} {size}", ErrorOrigin(source, row.dataset, size, classes or base.classes, errors)


def printed(base: ModelSpec) -> Iterator[ErrorOrigin]:
    """The paper's tables that print an error of the baseline's variants; its ablations are one, they share a recipe."""
    for studies in ([one for one in STUDIES.values() if one.kind == "ablation"], *([one] for one in STUDIES.values())):
        if studies[1:] or studies[0].kind == "comparison":
            errors = {network: error for study in studies for network, error in _of_study(study, base)}
            tables = " to ".join(dict.fromkeys((studies[0].table, studies[-1].table)))
            dataset = {"4": "cifar10", "5": "cifar100", "6": "places365"}.get(tables, "imagenet")
            source = f"as the paper prints them in Table{'s' * bool(studies[1:])} {tables}"
            classes = studies[0].classes or spec_of(base.name).classes
            yield ErrorOrigin(source, dataset, base.input_size, classes, errors, tables)


def _of_study(study: Study, base: ModelSpec) -> Iterator[tuple[PlainKey, Error]]:
    for subject, spec in subjects_of(study):
        value = printed_error(study, subject)
        if value is not None and pair_of(spec)[0].name == base.name:
            yield (spec.name if spec.attention else base.name, spec.attention), Error(value)


def subjects_of(study: Study) -> Iterator[tuple[PrintedSubject, ModelSpec]]:
    """The subjects of a study, each with the row of its network as that study has it."""
    for subject in study.subjects:
        spec = spec_of(subject.model)
        yield subject, replace(spec, attention=subject.attention, classes=study.classes or spec.classes)


def printed_error(study: Study, subject: PrintedSubject) -> float | None:
    """The top-1 error that a study's table prints for a subject, as a fraction; None where it prints none."""
    printed = (cell for cell in cells(study.table, subject.row, subject.column) if cell.metric == "top1_err")
    return next((cell.value / 100 for cell in printed if cell.value is not None), None)


def latest_latencies(
    base: ModelSpec, origin: ErrorOrigin, store: Store, conditions: Conditions
) -> tuple[dict[PlainKey, Latency], str]:
    """The newest latency of each network under the conditions on the machine that timed last, and what that was.

    None is of a network whose code from outside was edited since.
    """
    latest: dict[str, dict[PlainKey, Latency]] = {}
    last, others = "", set[str]()
    entries = union.entries(union.StoredRun(str(path), run) for path, run in store.runs())
    sources = union.newest_sources(entries)
    for entry in entries:
        row, machine = entry.row, entry.run.machine
        like = (row.input_size, row.classes, row.cardinality) == (origin.size, origin.classes, None)
        if not like or row.baseline != base.name or row.source != sources[entry.network]:
            continue
        for latency in row.latencies:
            if latency.ratio is None or not _like(latency.conditions, conditions):
                continue
            if latency.conditions.allocator in _allocators(conditions.allocator):
                latest.setdefault(machine, {})[row.model, row.attention] = latency
                last = machine
            else:
                others.add(latency.conditions.allocator)
    if last:
        return latest[last], f"{told(conditions)}, machine {last}"
    apart = f", allocator {conditions.allocator}: stored with {' and '.join(sorted(others))}" if others else ""
    return {}, f"none stored at {told(conditions)}{apart}"


def _like(conditions: Conditions, asked: Conditions) -> bool:
    """Whether conditions are those asked for, whatever the allocator."""
    return replace(conditions, allocator=asked.allocator) == asked


def told(conditions: Conditions) -> str:
    """What is told of conditions: what is always of interest, and what else differs from the usual."""
    always = ("device", "batch_size", "threads", "precision", "runtime")
    values, usual = asdict(conditions), asdict(Conditions(allocator=conditions.allocator))
    unusual = (name for name, value in values.items() if value != usual[name])
    return ", ".join(f"{name} {values[name]}" for name in dict.fromkeys((*always, *unusual)))


def _allocators(allocator: Allocator) -> tuple[Allocator, ...]:
    """What a measurement notes of its allocator where this one was asked for."""
    return allocator, allocator_of_process(allocator)
