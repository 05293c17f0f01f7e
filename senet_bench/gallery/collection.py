"""What is stored, sorted for a report: the newest facts of each kind, and the files that could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from senet_bench.breakdown import tables as profiles
from senet_bench.core import union
from senet_bench.core.devices import kind_of
from senet_bench.core.environment import Environment
from senet_bench.core.reproduction import of_study
from senet_bench.core.results import AnyFacts, Facts, Row, Run, StoredDocument, TrainingProtocol
from senet_bench.core.schemas import schema_of
from senet_bench.core.specs import Conditions
from senet_bench.core.stored_errors import StoredErrors
from senet_bench.core.union import StoredRun, Timed
from senet_bench.core.yardstick import Yardstick
from senet_bench.errors import BenchError
from senet_bench.gates import colour_tables, freezing_tables, tables
from senet_bench.probing import tables as probes
from senet_bench.run import tables as commands
from senet_bench.show.layout import AS_IS, Layout
from senet_bench.show.tables import Document

DOCUMENTS_OF: dict[str, Callable[[AnyFacts], Document]] = {
    "evaluate": commands.evaluation,
    "selftest": commands.selftest_document,
    "train": commands.training_document,
    "profile": profiles.profile_document,
    "excitations": tables.gates_document,
    "freeze": freezing_tables.freeze_document,
    "input-channels": colour_tables.colours_document,
    "probe": probes.probe_document,
}
"""How the facts of a command are laid out in tables."""


Rows = TypeVar("Rows", union.Errors, union.Timed)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that could not be read, and why."""

    path: str
    error: BenchError


@dataclass(frozen=True)
class Collection:
    """Everything a report is made of, oldest first.

    The paper's errors are judged against those `stored`, with `any_protocol` against those of another one too.
    `layout` says how errors and times are shown, and what they are compared with beside the baseline: plain SE, or the
    row of a name.
    """

    sources: tuple[StoredRun, ...]
    left_out: tuple[LeftOut, ...] = ()
    stored: StoredErrors = field(default_factory=StoredErrors)
    any_protocol: bool = False
    layout: Layout = AS_IS

    def of(self, command: str) -> tuple[StoredRun, ...]:
        """The documents of one command."""
        return tuple(source for source in self.sources if source.document.schema == schema_of(command))

    def runs(self, *commands: str) -> list[tuple[StoredRun, Run]]:
        """The documents whose rows are networks, of some commands or of all."""
        return [
            (source, source.document)
            for source in self.sources
            if isinstance(source.document, Run) and (not commands or source.command in commands)
        ]

    def of_study(self, study: str) -> list[Row]:
        """The newest row of each network, each with its cells of one study alone."""
        known: dict[str, list[Row]] = self.__dict__.setdefault("_studies", {})
        if study not in known:
            known[study] = of_study(self.rows(), study, self.stored, any_protocol=self.any_protocol)
        return known[study]

    def facts(self, command: str) -> list[tuple[StoredRun, AnyFacts]]:
        """The documents of one command whose rows are not networks."""
        return [(source, source.document) for source in self.of(command) if isinstance(source.document, Facts)]

    def rows(self, *commands: str) -> list[Row]:
        """The newest row of each network, attention and setting."""
        known: dict[tuple[str, ...], list[Row]] = self.__dict__.setdefault("_rows", {})
        chosen = commands or ("compare",)
        if chosen not in known:
            known[chosen] = union.latest(entry for entry in self.entries if entry.run.command in chosen)
        return known[chosen]

    @cached_property
    def entries(self) -> list[union.Entry]:
        """Every stored row of a network with the run it stands in."""
        return union.entries(self.sources)

    @cached_property
    def errors(self) -> list[union.Errors]:
        """The errors of each protocol, of all runs together, each row under the name that it was given."""
        return [self._labelled(table) for table in self._errors]

    @cached_property
    def timings(self) -> list[union.Timed]:
        """The latencies of each machine, version of torch and conditions, each row under the name that it was given."""
        return [self._labelled(table) for table in self._timings]

    @cached_property
    def _errors(self) -> list[union.Errors]:
        return union.errors(self.entries)

    @cached_property
    def _timings(self) -> list[union.Timed]:
        return union.timings(self.entries)

    @cached_property
    def data_words(self) -> Callable[[TrainingProtocol], str]:
        """What tells the data of a protocol from others of that name, to stand behind it; empty where there is one."""
        return union.data_words(table.protocol for table in self._errors)

    def protocol_name(self, protocol: TrainingProtocol) -> str:
        """The data of a protocol, and the recipe, in words."""
        return f"{protocol.dataset}{self.data_words(protocol)} ({protocol.words})"

    @property
    def as_named(self) -> list[tuple[Row, ...]]:
        """The rows of each table of errors and times under their own names."""
        return [table.rows for table in (*self._errors, *self._timings)]

    def yardstick(self, *tables: union.Errors | union.Timed, name: str | None = None) -> Yardstick | None:
        """What the rows of some tables are compared with: the row asked for, else the one of a name; None without it.

        It is looked up by the names that rows have of their own, among all of them, shown or not.
        """
        rows = union.networks(row for table in tables for row in self._own_rows.get(id(table), table.rows))
        return replace(self.layout, against=self.layout.against or name).yardstick_of(rows)

    @cached_property
    def _own_rows(self) -> dict[int, tuple[Row, ...]]:
        """The rows of each table of errors and times under their own names, by the id of the table."""
        shown, own = (*self.errors, *self.timings), (*self._errors, *self._timings)
        return {id(one): other.rows for one, other in zip(shown, own)}

    def _labelled(self, table: Rows) -> Rows:
        return replace(table, rows=tuple(self.layout.labelled(table.rows))) if self.layout.labels else table

    @cached_property
    def _asked(self) -> set[union.Key]:
        return {union.identity(row) for rows in self.as_named for row in self.layout.asked(rows)}

    def asked(self, rows: Sequence[Row]) -> list[Row]:
        """The rows of a table that are to be shown."""
        return [row for row in rows if not self.layout.rows or union.identity(row) in self._asked]

    @cached_property
    def ablations(self) -> list[union.AblationRuns]:
        """The runs of each network, axes and protocol, those of the most seeds first."""
        return union.ablation_runs(self.sources)

    @cached_property
    def unfinished(self) -> dict[str, int]:
        """How many runs were to train on a data set and have no error: interrupted, or all of it failed."""
        missing: dict[str, int] = {}
        for _, run in self.runs():
            training = run.conditions.accuracy
            if training is not None and training.dataset and all(row.accuracy is None for row in run.rows):
                missing[training.dataset] = missing.get(training.dataset, 0) + 1
        return missing

    def observations(self, command: str) -> list[AnyFacts]:
        """The newest gates, `excitations` or `input-channels`, of each network and data set."""
        observed = {
            (facts.conditions.label, facts.conditions.dataset): facts for _, facts in self.facts(command) if facts.rows
        }
        return list(observed.values())

    def name_of(self, machine: str) -> str:
        """A machine in a few words, with its key where another one has the same words."""
        named = {key: machine_label(environment) for key, environment in self.machines().items()}
        alike = sum(label == named[machine] for label in named.values()) > 1
        return f"{named[machine]} ({machine})" if alike else named[machine]

    def place_of(self, timed: Timed) -> str:
        """Where and by which torch something was timed, empty where everything was timed there by that one."""
        places = {(one.machine, one.torch) for one in self.timings}
        versions = {torch for machine, torch in places if machine == timed.machine}
        torch = f", torch {timed.torch}" if len(versions) > 1 else ""
        return f"{self.name_of(timed.machine)}{torch}" if len(places) > 1 else ""

    def machines(self) -> dict[str, Environment]:
        """The newest environment of each machine."""
        return {source.machine: source.document.environment for source in self.sources}


def gather(root: Path, survey: Iterable[tuple[Path, StoredDocument | BenchError]]) -> Collection:
    """The documents under `root` that can be read, and the others with their reasons."""
    sources, left_out = [], []
    for path, document in survey:
        place = path.relative_to(root).as_posix()
        if isinstance(document, BenchError):
            left_out.append(LeftOut(place, document))
        else:
            sources.append(StoredRun(place, document))
    return Collection(tuple(sorted(sources, key=lambda source: source.age)), tuple(left_out))


def main_timing(timings: Sequence[Timed], rows: Sequence[Row] | None = None) -> Timed | None:
    """The times of the machine and conditions with the most networks of some rows, or with the most of all.

    Of as many networks those under the conditions that are nearest to the usual ones: eager, fp32, batch 1.
    """
    usual = asdict(Conditions()).items()

    def order(timed: Timed) -> tuple[int, int]:
        known = timed.rows if rows is None else [row for row in rows if timed.latency_of(row)]
        return len(known), len(asdict(timed.conditions).items() & usual)

    return max(timings, key=order, default=None)


def machine_label(environment: Environment) -> str:
    """A machine in a few words: its GPU where there is one, else its processor and cores."""
    hard = environment.hard
    if hard.gpu:
        return hard.gpu + (f", {hard.gpu_count} GPUs" if hard.gpu_count > 1 else "")
    return (hard.cpu or "unknown machine") + (f", {hard.cores} cores" if hard.cores else "")


def conditions_label(conditions: Conditions) -> str:
    """Conditions in a few words; what is usual goes unsaid."""
    first = (f"batch {conditions.batch_size}", conditions.device, conditions.precision, conditions.runtime)
    return ", ".join((*first, *_unusual(conditions)))


def setting_label(conditions: Conditions) -> str:
    """The same but for batch size and runtime."""
    return ", ".join((conditions.device, conditions.precision, *_unusual(conditions)))


Setting = tuple[str, str, Conditions]


def setting_of(timed: Timed) -> Setting:
    """Machine, version of torch and conditions, which are the same in every runtime and at every batch size."""
    return timed.machine, timed.torch, replace(timed.conditions, runtime="eager", batch_size=1)


def by_setting(timings: Iterable[Timed]) -> dict[Setting, list[Timed]]:
    """Those whose conditions differ in runtime and batch size alone together."""
    groups: dict[Setting, list[Timed]] = {}
    for timed in timings:
        groups.setdefault(setting_of(timed), []).append(timed)
    return groups


def _unusual(conditions: Conditions) -> list[str]:
    """What else of conditions is worth a word."""
    usual = asdict(Conditions())
    words = ["training step"] * (conditions.mode == "train") + ["channels last"] * conditions.channels_last
    words += [] if kind_of(conditions.device).gpu else [f"{conditions.threads} thread{'s' * (conditions.threads != 1)}"]
    words += [
        str(value) for name, value in asdict(conditions).items() if name in ("timing", "cache") and value != usual[name]
    ]
    return words


def newest(stored: Sequence[tuple[StoredRun, AnyFacts]]) -> list[tuple[StoredRun, AnyFacts]]:
    """The last document of each machine."""
    return list({source.machine: (source, facts) for source, facts in stored}.values())
