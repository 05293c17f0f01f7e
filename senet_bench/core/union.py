"""The rows of many runs as those of one table: the one way from what is stored to what a table is made of.

A table is of a protocol. Seeds of one network are joined whatever run brought them, of equal measurements the latest
counts, and what is left out is counted. The order in which the runs are given changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

import msgspec

from senet_bench.core.axes import AXES
from senet_bench.core.blocks import BLOCKS
from senet_bench.core.catalog import CATALOG
from senet_bench.core.changes import changed
from senet_bench.core.comparisons import compared, of_seeds
from senet_bench.core.datasets import EMBEDDED
from senet_bench.core.results import Accuracy, Latency, Row, Run, StoredDocument, TrainingProtocol
from senet_bench.core.specs import AttentionSpec, AxisValue, Conditions, by_sides, is_outside
from senet_bench.core.store import key_of

Key = tuple[object, ...]
OwnItem = TypeVar("OwnItem")
ROLE_ORDER = ("baseline", "variant", "control", "plain")
MODELS = {name: place for place, name in enumerate(CATALOG)}
BLOCK_PLACES = {name: place for place, name in enumerate(BLOCKS)}
FIRST_REVISION = 1
"""The training arithmetic of what does not say its revision."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A stored document and where it lies, relative to the results folder."""

    path: str
    document: StoredDocument

    @property
    def command(self) -> str:
        """The command that wrote it."""
        return self.document.schema.partition(".")[2].partition("/")[0]

    @property
    def machine(self) -> str:
        """The key of the machine it was written on."""
        return self.document.environment.machine

    @property
    def torch(self) -> str:
        """The version of torch that it was measured with, empty where it does not say."""
        return self.document.environment.packages.get("torch", "")

    @property
    def age(self) -> tuple[str, str, str]:
        """What sorts documents from the oldest to the newest, in one way whatever the order they are read in."""
        return self.document.created, self.path.rpartition("/")[2], self.path

    @property
    def digest(self) -> str:
        """Six digits of what the command was asked, by which the files of two runs are told apart."""
        return key_of(self.asked)[:6]

    @property
    def asked(self) -> Mapping[str, object]:
        """What the command was asked, as it is stored."""
        asked: Mapping[str, object] = msgspec.to_builtins(self.document.conditions)
        return asked


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored row, the run it stands in, and what makes it one network with others."""

    row: Row
    run: StoredRun
    network: Key


@dataclass(frozen=True, slots=True)
class Union:
    """The rows of one table, what of the stored ones was left out, in words, and the files they come from."""

    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a table says of its own making, empty for the rows of a single run."""
        joined = f"joined from {len(self.sources)} runs" if len(self.sources) > 1 else ""
        left = f"left out: {', '.join(self.left_out)}" if self.left_out else ""
        return tuple(filter(None, ("; ".join(filter(None, (joined, left))),)))


@dataclass(frozen=True, slots=True)
class Errors(Union):
    """The errors measured under one protocol, by images of one size; `protocol.seeds` is the most that a row has.

    `elsewhere` are rows of its runs whose trials were all left to other runs, which are not there.
    """

    protocol: TrainingProtocol = field(default_factory=TrainingProtocol)
    size: tuple[int, ...] = (0, 0, 0)
    elsewhere: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Timed(Union):
    """Rows timed on one machine by one version of torch under the same conditions, each with that latency."""

    machine: str = ""
    torch: str = ""
    conditions: Conditions = field(default_factory=Conditions)
    by_network: Mapping[Key, Latency] = field(default_factory=dict, compare=False, repr=False)
    measured: Mapping[Key, Row] = field(default_factory=dict, compare=False, repr=False)
    """The whole row that a network's latency stands in, with what was timed in turns with it."""

    def latency_of(self, row: Row) -> Latency | None:
        """The latency of the same network of the same code, None when it was not timed."""
        network = identity(row)
        measured = self.measured.get(network)
        return self.by_network.get(network) if measured is None or measured.source == row.source else None

    def beside(self, row: Row) -> Row:
        """The row with the latency of the same network and no other, without one when it was not timed."""
        return _timed_by(row, self.latency_of(row))

    def eager_of(self, row: Row) -> Latency | None:
        """The latency in eager torch of the same network from the same run, None when that has none."""
        measured, eager = self.measured.get(identity(row)), replace(self.conditions, runtime="eager")
        return next((one for one in measured.latencies if one.conditions == eager), None) if measured else None


@dataclass(frozen=True, slots=True)
class Ablation(Union):
    """The settings of one network along the same axes, under one protocol where they were trained.

    `classes` is how many the network tells apart, `cardinality` its number of groups where that is not its own.
    """

    model: str = ""
    axes: tuple[str, ...] = ()
    protocol: TrainingProtocol | None = None
    classes: int = 0
    cardinality: int | None = None


def identity(row: Row) -> Key:
    """What makes two rows one network, whatever its code from outside was then."""
    return row.model, row.baseline, _function(row.attention), row.input_size, row.classes, row.cardinality


def networks(rows: Iterable[Row]) -> list[Row]:
    """Each network once, by the last of its rows, with the latencies of all of them."""
    same: dict[Key, list[Row]] = {}
    for row in rows:
        same.setdefault(identity(row), []).append(row)
    return [
        replace(known[-1], latency=None, more_latency=[latency for row in known for latency in row.latencies])
        if known[1:]
        else known[0]
        for known in same.values()
    ]


def labels(rows: Iterable[Row]) -> Callable[[Row], str]:
    """What calls each row: its label, with the size of its images and its classes where those of a label differ."""
    sizes: dict[str, set[tuple[int, ...]]] = {}
    classes: dict[tuple[str, tuple[int, ...]], set[int]] = {}
    for row in rows:
        sizes.setdefault(row.label, set()).add(row.input_size)
        classes.setdefault((row.label, row.input_size), set()).add(row.classes)

    def label(row: Row) -> str:
        size = [by_sides(row.input_size)] if len(sizes.get(row.label, ())) > 1 else []
        of_classes = [f"{row.classes} classes"] if len(classes.get((row.label, row.input_size), ())) > 1 else []
        return ", ".join((row.label, *size, *of_classes))

    return label


def _function(attention: AttentionSpec | None) -> AttentionSpec | None:
    """The attention without what changes nothing: constant gates have no r, no squeeze and no excitation."""
    if attention is None or not attention.is_constant:
        return attention
    plain = AttentionSpec(block="constant", options=tuple(sorted(one for one in attention.options if one[1] is True)))
    return replace(plain, integration=attention.integration, placement=attention.placement, stages=attention.stages)


def entries(runs: Iterable[StoredRun]) -> list[Entry]:
    """Every row of the runs whose rows are networks, oldest first, in an order that the runs' own does not change."""
    ordered = sorted((run for run in runs if isinstance(run.document, Run)), key=lambda run: run.age)
    return [Entry(row, run, identity(row)) for run in ordered for row in run.document.rows]


def latest(entries: Iterable[Entry]) -> list[Row]:
    """The newest row of each network, attention and setting, in the order of tables."""
    return in_order({entry.network: entry.row for entry in entries}.values())


def errors(entries: Iterable[Entry]) -> list[Errors]:
    """The errors of each protocol, the protocol of the most seeds first."""
    groups: dict[Key, list[Entry]] = {}
    for entry in entries:
        if entry.row.accuracy is not None:
            groups.setdefault((training_protocol(entry.row.accuracy), entry.row.input_size), []).append(entry)
    tables = [_errors_of(group) for group in groups.values()]
    return sorted(tables, key=lambda table: (-(table.protocol.seeds or 0), -len(table.rows), repr(table.protocol)))


def training_protocol(accuracy: Accuracy) -> TrainingProtocol:
    """What must agree before two errors are compared: all but the seeds, and where data lie whose content is known."""
    return without_seeds(accuracy.protocol, accuracy.dataset)


@lru_cache(maxsize=1024)
def without_seeds(whole: TrainingProtocol, dataset: str) -> TrainingProtocol:
    """A protocol on a data set without its seeds, their arithmetic, and where data lie whose content is known."""
    protocol = replace(whole, seeds=None, revision=None, dataset=dataset)
    known = whole.data is not None or dataset in EMBEDDED
    return replace(protocol, folder=None) if known else protocol


def data_words(protocols: Iterable[TrainingProtocol]) -> Callable[[TrainingProtocol], str]:
    """What tells the data of a protocol from others of that name, to stand behind it; empty where all are the same."""
    known: dict[str | None, set[tuple[str | None, str | None]]] = {}
    for protocol in protocols:
        known.setdefault(protocol.dataset, set()).add((protocol.data, protocol.folder))

    def words(protocol: TrainingProtocol) -> str:
        if len(known.get(protocol.dataset, ())) < 2:
            return ""
        return f" [{protocol.data[:6]}]" if protocol.data else f" [{protocol.folder or 'of an older file'}]"

    return words


def _errors_of(group: Sequence[Entry]) -> Errors:
    current, left_out = _current(group)
    by_network: dict[Key, list[Entry]] = {}
    for entry in current:
        by_network.setdefault(entry.network, []).append(entry)
    rows = compared(in_order(_joined(same) for same in by_network.values()))
    most = max(row.accuracy.seeds for row in rows if row.accuracy)
    first = rows[0].accuracy
    assert first is not None
    protocol = replace(training_protocol(first), seeds=most)
    size = rows[0].input_size
    return Errors(tuple(rows), left_out, _paths(current), protocol, size, _elsewhere(current, by_network))


def _elsewhere(current: Sequence[Entry], known: Collection[Key]) -> tuple[Row, ...]:
    """Rows of the same runs, by images of the same size, whose trials were all left to other runs."""
    size = current[0].row.input_size
    runs = {entry.run.path: entry.run.document for entry in current}.values()
    rows = (row for run in runs if isinstance(run, Run) for row in run.rows if row.seeds_elsewhere and not row.accuracy)
    absent = {identity(row): row for row in rows if row.input_size == size}
    return tuple(row for network, row in absent.items() if network not in known)


def _joined(same: Sequence[Entry]) -> Row:
    """The latest row of a network with the errors of all seeds that any of its rows has."""
    newest = same[-1].row
    measured = [entry.row.accuracy for entry in same if entry.row.accuracy]
    errors = {seed: error for accuracy in measured for seed, error in accuracy.per_seed.items()}
    assert newest.accuracy is not None
    role = "control" if any(entry.row.role == "control" for entry in same) else newest.role
    if not errors:
        return replace(newest, role=role)
    places = sorted({place for accuracy in measured for place in accuracy.trained_on})
    remarks = dict.fromkeys(remark for accuracy in measured for remark in accuracy.remarks)
    protocol = _of_seeds(newest.accuracy.protocol, len(errors))
    accuracy = of_seeds({int(seed): error for seed, error in errors.items()}, protocol, places, [*remarks])
    missing = newest.missing
    if "accuracy" in missing and len(errors) >= _planned(same):
        missing = {what: why for what, why in missing.items() if what != "accuracy"}
    timed = newest.latency or next((entry.row.latency for entry in reversed(same) if entry.row.latency), None)
    elsewhere = max(0, _planned(same) - len(errors)) if any(entry.row.seeds_elsewhere for entry in same) else 0
    return changed(newest, role=role, accuracy=accuracy, missing=missing, latency=timed, seeds_elsewhere=elsewhere)


@lru_cache(maxsize=1024)
def _of_seeds(protocol: TrainingProtocol, seeds: int) -> TrainingProtocol:
    """The protocol with another number of seeds."""
    return replace(protocol, seeds=seeds)


def _planned(same: Sequence[Entry]) -> int:
    """The most seeds that any run planned for a network."""
    return max((entry.row.accuracy.protocol.seeds or 0 for entry in same if entry.row.accuracy), default=0)


def _current(group: Sequence[Entry]) -> tuple[list[Entry], tuple[str, ...]]:
    """The entries of the newest training arithmetic and of the newest source of each network, and what is left out."""
    newest = max(_revision(entry) for entry in group)
    current = [entry for entry in group if _revision(entry) == newest]
    older = len(group) - len(current)
    words = [_counted(older, "row", f"of an older training arithmetic (revision below {newest})")] if older else []
    sources = newest_sources(current)
    kept = [entry for entry in current if entry.row.source == sources[entry.network]]
    edited = [entry.row for entry in current if entry.row.source != sources[entry.network]]
    return kept, (*words, *_of_edited(edited, "row"))


def newest_sources(entries: Iterable[Entry]) -> dict[Key, str]:
    """The digest of the code from outside that each network was made of last; the entries stand oldest first."""
    return {entry.network: entry.row.source for entry in entries}


def _of_edited(rows: Sequence[Row], noun: str) -> tuple[str, ...]:
    """What is said of rows that are left out as their code from outside was edited since, if there are any."""
    names = dict.fromkeys(map(_outside, rows))
    return (_counted(len(rows), noun, f"of an older revision of {', '.join(names)}"),) if rows else ()


def _revision(entry: Entry) -> int:
    accuracy = entry.row.accuracy
    return (accuracy.protocol.revision if accuracy else None) or FIRST_REVISION


def _outside(row: Row) -> str:
    """The code from outside that a row has, by its name."""
    return row.attention.block if row.attention and is_outside(row.attention.block) else row.model


def timings(entries: Iterable[Entry]) -> list[Timed]:
    """The latencies of each machine, version of torch and conditions, of a network the latest that can be relied on.

    Machines and versions are never mixed. A latency with a reason against it counts where there is no other, and one of
    a network whose code from outside was edited since counts nowhere.
    """
    entries = list(entries)
    sources = newest_sources(entries)
    groups: dict[tuple[str, str, Conditions], list[tuple[Entry, Latency]]] = {}
    for entry in entries:
        for latency in entry.row.latencies:
            groups.setdefault((entry.run.machine, entry.run.torch, latency.conditions), []).append((entry, latency))
    tables = []
    for key, group in groups.items():
        current = [one for one in group if one[0].row.source == sources[one[0].network]]
        edited = [entry.row for entry, _ in group if entry.row.source != sources[entry.network]]
        tables += [_timed(*key, current, _of_edited(edited, "time"))] if current else []
    return sorted(tables, key=lambda table: (table.machine, table.torch, repr(table.conditions)))


def _timed(
    machine: str,
    torch: str,
    conditions: Conditions,
    group: Sequence[tuple[Entry, Latency]],
    left_out: tuple[str, ...],
) -> Timed:
    chosen: dict[Key, tuple[Entry, Latency]] = {}
    for entry, latency in group:
        key = entry.network
        if key not in chosen or not latency.reason or chosen[key][1].reason:
            chosen[key] = entry, latency
    rows = in_order(_timed_by(entry.row, latency) for entry, latency in chosen.values())
    earlier = len(group) - len(chosen)
    left_out = (*((_counted(earlier, "other measurement", "of the same networks"),) if earlier else ()), *left_out)
    known = {key: latency for key, (_, latency) in chosen.items()}
    sources = _paths(entry for entry, _ in chosen.values())
    measured = {key: entry.row for key, (entry, _) in chosen.items()}
    return Timed(tuple(rows), left_out, sources, machine, torch, conditions, known, measured)


@dataclass(frozen=True, slots=True)
class AblationRuns:
    """The runs of one network along the same axes, by images of one size, under one protocol where they trained.

    `seeds` is the most that a setting has in all of them, `classes` how many the network tells apart, `cardinality` its
    number of groups where that is not its own.
    """

    model: str
    axes: tuple[str, ...]
    protocol: TrainingProtocol | None
    runs: tuple[StoredRun, ...]
    seeds: int
    classes: int
    cardinality: int | None

    @property
    def place(self) -> tuple[str, tuple[str, ...], str, int, int]:
        """What sorts ablations of as many seeds."""
        return self.model, self.axes, repr(self.protocol), self.classes, self.cardinality or 0

    def together(self) -> Ablation:
        """Their rows as those of one ablation."""
        stored = entries(self.runs)
        about = Ablation((), (), _paths(stored), self.model, self.axes, None, self.classes, self.cardinality)
        if self.protocol is None:
            return replace(about, rows=tuple(latest(stored)))
        trained = _errors_of([entry for entry in stored if entry.row.accuracy])
        known = {identity(row) for row in trained.rows}
        untrained = [row for row in latest(stored) if identity(row) not in known]
        rows = tuple(in_order((*trained.rows, *untrained)))
        return replace(about, rows=rows, left_out=trained.left_out, protocol=trained.protocol)


def ablations(runs: Iterable[StoredRun]) -> list[Ablation]:
    """The settings of each network, axes and protocol, those with the most seeds first."""
    return [same.together() for same in ablation_runs(runs)]


def ablation_runs(runs: Iterable[StoredRun]) -> list[AblationRuns]:
    """The runs of each network, axes, protocol, size, classes and groups, those with the most seeds first."""
    groups: dict[tuple[tuple[int, ...], AblationRuns], list[StoredRun]] = {}
    for run in runs:
        if isinstance(run.document, Run) and run.command == "ablate" and run.document.rows:
            conditions, first = run.document.conditions, run.document.rows[0]
            trained = next((row.accuracy for row in run.document.rows if row.accuracy), None)
            protocol = training_protocol(trained) if trained else None
            model, axes = conditions.model or run.document.rows[-1].model, tuple(sorted(conditions.axes or {}))
            about = AblationRuns(model, axes, protocol, (), 0, first.classes, first.cardinality)
            groups.setdefault((first.input_size, about), []).append(run)
    sized = [
        (size, replace(about, runs=tuple(group), seeds=_most_seeds(group))) for (size, about), group in groups.items()
    ]
    return [same for _, same in sorted(sized, key=lambda one: (-one[1].seeds, *one[1].place, one[0]))]


def _most_seeds(runs: Iterable[StoredRun]) -> int:
    """The most seeds that a network has in the runs together."""
    trained = [entry for entry in entries(runs) if entry.row.accuracy]
    seeds: dict[Key, set[str]] = {}
    most = 0
    for entry in _current(trained)[0] if trained else ():
        accuracy = entry.row.accuracy
        if accuracy is not None:
            own = seeds.setdefault(entry.network, set())
            own.update(accuracy.per_seed)
            most = max(most, len(own) or accuracy.seeds)
    return most


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows as tables have them: each baseline, then what is compared with it, plain SE before other blocks."""
    return sorted(rows, key=_place)


def _timed_by(row: Row, latency: Latency | None) -> Row:
    """The row with that latency alone."""
    return row if row.latency is latency and not row.more_latency else changed(row, latency=latency, more_latency=[])


def _place(row: Row) -> Key:
    before, behind = _network_place(row.model, row.baseline, row.role, row.attention)
    axes = tuple(_axis_place(name, value) for name, value in sorted(row.axes.items())) if row.axes else ()
    base, role, block = before
    return base, row.input_size, row.classes, row.cardinality or 0, role, block, axes, behind


@lru_cache(maxsize=8192)
def _network_place(model: str, baseline: str | None, role: str, attention: AttentionSpec | None) -> tuple[Key, Key]:
    """What stands before the setting of an ablation in the place of a network, and what stands behind it."""
    base = baseline or model
    *block, whole = _block_place(attention)
    place = MODELS.get(base, len(MODELS)), _natural(base)
    return (place, ROLE_ORDER.index(role), tuple(block)), (whole, _natural(model))


@lru_cache(maxsize=4096)
def _block_place(attention: AttentionSpec | None) -> tuple[int, str, tuple[int, ...], str]:
    """Where a block stands among others: the known ones first, then by name, r and all the rest."""
    block = attention.block if attention else ""
    known = BLOCK_PLACES.get(block, len(BLOCK_PLACES))
    return known, block, attention.reductions if attention else (), repr(attention)


def _axis_place(name: str, value: AxisValue) -> Key:
    """Where a value stands on its axis: in the paper's order, others by their own."""
    known = AXES[name].values if name in AXES else ()
    if isinstance(value, int) and not isinstance(value, bool):
        return 0, value, ""
    return (0, known.index(value), "") if value in known else (1, 0, str(value))


@lru_cache(maxsize=4096)
def _natural(text: str) -> Key:
    """Text that sorts by its numbers: resnet20 before resnet110."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d{1,15})", text))


def _paths(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(sorted({entry.run.path for entry in entries}))


def _counted(count: int, noun: str, what: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)} {what}"
