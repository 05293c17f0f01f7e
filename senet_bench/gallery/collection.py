"""What is stored, sorted for a report: the newest facts of each kind, and the files that could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from senet_bench.breakdown import tables as profiles
from senet_bench.core.devices import kind_of
from senet_bench.core.environment import Environment
from senet_bench.core.results import AnyFacts, Facts, Latency, Row, Run, StoredDocument, schema_of
from senet_bench.core.specs import Conditions
from senet_bench.core.store import key_of
from senet_bench.errors import BenchError
from senet_bench.gates import colour_tables, tables
from senet_bench.run import tables as commands
from senet_bench.show import documents

DOCUMENTS_OF: dict[str, Callable[[AnyFacts], documents.Document]] = {
    "evaluate": commands.evaluation,
    "selftest": commands.selftest_document,
    "train": commands.training_document,
    "profile": profiles.profile_document,
    "excitations": tables.gates_document,
    "input-channels": colour_tables.colours_document,
}
"""How the facts of a command are laid out in tables."""


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
    def digest(self) -> str:
        """Six digits of what the command was asked, by which the files of two runs are told apart."""
        return key_of(self.asked)[:6]

    @property
    def asked(self) -> Mapping[str, object]:
        """What the command was asked, as it is stored."""
        asked: Mapping[str, object] = msgspec.to_builtins(self.document.conditions)
        return asked


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that could not be read, and why."""

    path: str
    error: BenchError


@dataclass(frozen=True, slots=True)
class Timed:
    """Rows timed on one machine under the same conditions, each with that latency."""

    machine: str
    conditions: Conditions
    rows: tuple[Row, ...]
    sources: tuple[str, ...]

    def latency_of(self, row: Row) -> Latency | None:
        """The latency of the same network, None when it was not timed."""
        return next((one.latency for one in self.rows if identity(one) == identity(row)), None)


@dataclass(frozen=True, slots=True)
class Collection:
    """Everything a report is made of, oldest first."""

    sources: tuple[StoredRun, ...]
    left_out: tuple[LeftOut, ...] = ()

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

    def facts(self, command: str) -> list[tuple[StoredRun, AnyFacts]]:
        """The documents of one command whose rows are not networks."""
        return [(source, source.document) for source in self.of(command) if isinstance(source.document, Facts)]

    def rows(self, *commands: str) -> list[Row]:
        """The newest row of each network, attention and setting, in the order they were first measured."""
        found = {identity(row): row for _, run in self.runs(*(commands or ("compare",))) for row in run.rows}
        return list(found.values())

    def trained(self) -> list[Row]:
        """The newest row of each network, attention and training recipe that has an error of its own."""
        found: dict[object, Row] = {}
        for _, run in self.runs():
            for row in run.rows:
                if row.accuracy is not None:
                    recipe = replace(row.accuracy.protocol, seeds=0)
                    found[identity(row), row.accuracy.dataset, recipe] = row
        return list(found.values())

    def timings(self) -> list[Timed]:
        """The newest latency of each network, by machine and conditions; machines are never mixed."""
        found: dict[tuple[str, Conditions], dict[object, tuple[Row, str]]] = {}
        for source, run in self.runs():
            for row in run.rows:
                for latency in (*([row.latency] if row.latency else []), *row.more_latency):
                    group = found.setdefault((source.machine, latency.conditions), {})
                    group[identity(row)] = (replace(row, latency=latency, more_latency=[]), source.path)
        return [
            Timed(
                machine, conditions, tuple(row for row, _ in group.values()), _once(path for _, path in group.values())
            )
            for (machine, conditions), group in found.items()
        ]

    def ablations(self) -> list[tuple[StoredRun, Run]]:
        """The newest ablation of each network, axes, data set and machine."""
        found: dict[str, tuple[StoredRun, Run]] = {}
        for source, run in self.runs("ablate"):
            if run.rows:
                asked = run.conditions
                dataset = asked.accuracy.dataset if asked.accuracy else None
                timed = asked.latency is not None
                found[repr((asked.model, asked.axes, dataset, timed, source.machine))] = (source, run)
        return list(found.values())

    def observations(self, command: str) -> list[AnyFacts]:
        """The newest gates, `excitations` or `input-channels`, of each network and data set."""
        found = {
            (facts.conditions.label, facts.conditions.dataset): facts for _, facts in self.facts(command) if facts.rows
        }
        return list(found.values())

    def name_of(self, machine: str) -> str:
        """A machine in a few words, with its key where another one has the same words."""
        named = {key: machine_label(environment) for key, environment in self.machines().items()}
        alike = sum(label == named[machine] for label in named.values()) > 1
        return f"{named[machine]} ({machine})" if alike else named[machine]

    def machines(self) -> dict[str, Environment]:
        """The newest environment of each machine."""
        return {source.machine: source.document.environment for source in self.sources}


def gather(root: Path, survey: Iterable[tuple[Path, StoredDocument | BenchError]]) -> Collection:
    """The documents under `root` that can be read, and the others with their reasons."""
    sources, left_out = [], []
    for path, found in survey:
        place = path.relative_to(root).as_posix()
        if isinstance(found, BenchError):
            left_out.append(LeftOut(place, found))
        else:
            sources.append(StoredRun(place, found))
    return Collection(tuple(sources), tuple(left_out))


def identity(row: Row) -> tuple[object, ...]:
    """What makes two rows one network."""
    return row.model, row.attention, row.input_size, row.classes, row.cardinality


def main_timing(timings: Sequence[Timed]) -> Timed | None:
    """The times that the first words are about: of the machine and conditions with the most networks."""
    return max(timings, key=lambda timed: len(timed.rows), default=None)


def machine_label(environment: Environment) -> str:
    """A machine in a few words: its GPU where there is one, else its processor and cores."""
    hard = environment.hard
    if hard.gpu:
        return hard.gpu + (f" x{hard.gpu_count}" if hard.gpu_count > 1 else "")
    return (hard.cpu or "unknown machine") + (f", {hard.cores} cores" if hard.cores else "")


def conditions_label(conditions: Conditions) -> str:
    """Conditions in a few words; what is usual goes unsaid."""
    usual = asdict(Conditions())
    words = [f"batch {conditions.batch_size}", conditions.device, conditions.precision, conditions.runtime]
    words += ["training step"] * (conditions.mode == "train") + ["channels last"] * conditions.channels_last
    words += [] if kind_of(conditions.device).gpu else [f"{conditions.threads} thread{'s' * (conditions.threads != 1)}"]
    words += [
        str(value) for name, value in asdict(conditions).items() if name in ("timing", "cache") and value != usual[name]
    ]
    return ", ".join(words)


def _once(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))


def newest(found: Sequence[tuple[StoredRun, AnyFacts]]) -> list[tuple[StoredRun, AnyFacts]]:
    """The last document of each machine."""
    return list({source.machine: (source, facts) for source, facts in found}.values())
