"""What a check compares with: portable facts in one file, machine facts in one per machine, and who accepted what.

`portable.json` holds what is the same everywhere, `<machine key>.json` peak memory and latency, `HISTORY.jsonl` a
line for every accepted change. Files are written whole or not at all.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from senet_bench import __version__
from senet_bench.core.checkout import git
from senet_bench.core.files import append_line, read_file, write_atomically
from senet_bench.core.fingerprint import Function
from senet_bench.core.results import Seconds, StoredCount, json_object, of_type, to_json
from senet_bench.core.specs import Allocator
from senet_bench.errors import MeasurementError, NotComparableError, UsageError
from senet_bench.regression.facts import Portable

PORTABLE = "senet-bench.baseline/1"
MACHINE = "senet-bench.machine-baseline/1"
HISTORY = "HISTORY.jsonl"
LARGEST_BASELINE = 64 << 20
RECORD = "record it with `senet-bench baseline record`"
Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
ImageSize = tuple[Size, Size, Size]
Note = tuple[str, object, object]
"""What was accepted, its old and its new value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFacts:
    """`Portable` as it is read from a file, every value within its range.

    `outputs` is what the network computes. Old files hold no `counts` and `uncounted`, and the shapes in its place.
    """

    input_size: ImageSize
    params: dict[str, StoredCount]
    flops: dict[str, StoredCount]
    state: dict[str, str]
    operators: dict[str, StoredCount]
    outputs: Function | list[str] | None = None
    shapes: list[str] = field(default_factory=list)
    counts: dict[str, StoredCount] = field(default_factory=dict)
    uncounted: list[str] | None = None

    @property
    def function(self) -> Function | None:
        """What the network computes, None where that was not recorded."""
        return self.outputs if isinstance(self.outputs, Function) else None

    def portable(self) -> Portable:
        """The facts."""
        kept = {key: part for key, part in asdict(self).items() if key not in ("outputs", "shapes")}
        shapes = self.outputs if isinstance(self.outputs, list) and not self.shapes else self.shapes
        function = self.function
        return Portable(**kept, shapes=shapes, function=None if function is None else asdict(function))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLatency:
    """Seconds of a call: median and floor over rounds; `between` is the sd of log times between processes.

    Old files do not say the `input_size`.
    """

    seconds: Seconds
    floor: Seconds
    rounds: StoredCount = 0
    between: Annotated[float, msgspec.Meta(ge=0, le=10)] | None = None
    threads: Size = 1
    batch_size: Size = 1
    input_size: ImageSize | None = None
    allocator: Allocator = "as-is"

    def unlike(self, other: StoredLatency) -> str:
        """The conditions in which another was measured otherwise; an allocator that was not noted was not tuned."""
        tuned = "tuned" in (self.allocator, other.allocator)
        return _unlike(self, other, ("threads", "batch_size", "input_size", *["allocator"] * tuned))


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """Facts of a network that depend on the machine.

    `peak_bytes` are those of a call with `batch_size` images of `input_size`, which old files do not say.
    """

    peak_bytes: StoredCount | None = None
    batch_size: Size | None = None
    input_size: ImageSize | None = None
    latency: StoredLatency | None = None

    def unlike(self, other: MachineFacts) -> str:
        """The conditions in which another memory was measured otherwise."""
        return _unlike(self, other, ("batch_size", "input_size"))


def _unlike(one: object, other: object, conditions: Sequence[str]) -> str:
    """The conditions of one thing that are not another's; what is not known of either is like anything."""
    values = [(name, getattr(one, name), getattr(other, name)) for name in conditions]
    differing = [(name, was) for name, was, now in values if was != now and None not in (was, now)]
    return ", ".join(
        f"{name.replace('_', ' ')} {'x'.join(map(str, was)) if isinstance(was, tuple) else was}"
        for name, was in differing
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PortableBaseline:
    """The file `portable.json`; `torches` are the versions that networks were recorded with where not `torch`."""

    schema: str = PORTABLE
    version: str = __version__
    created: str = ""
    commit: str = ""
    torch: str = ""
    torches: dict[str, str] = field(default_factory=dict)
    networks: dict[str, StoredFacts] = field(default_factory=dict)

    def torch_of(self, network: str) -> str:
        """The version of torch that a network was recorded with."""
        return self.torches.get(network, self.torch)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineBaseline:
    """The file of one machine; `hard` are the fields of its key."""

    schema: str = MACHINE
    version: str = __version__
    created: str = ""
    commit: str = ""
    machine: str = ""
    hard: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, MachineFacts] = field(default_factory=dict)

    def facts(self, network: str) -> MachineFacts:
        """What is recorded of a network."""
        return self.networks.get(network, MachineFacts())


File = TypeVar("File", PortableBaseline, MachineBaseline)


@dataclass(frozen=True, slots=True)
class Baselines:
    """The folder `results/baselines`."""

    folder: Path

    @property
    def portable_path(self) -> Path:
        """Where the portable facts are."""
        return self.folder / "portable.json"

    @property
    def history_path(self) -> Path:
        """Where a line for every accepted change is."""
        return self.folder / HISTORY

    def machine_path(self, key: str) -> Path:
        """Where the facts of a machine are."""
        return self.folder / f"{key}.json"

    def portable(self) -> PortableBaseline | None:
        """The portable facts, None when none are recorded; raises on a damaged or foreign file."""
        return _load(self.portable_path, PortableBaseline, PORTABLE)

    def machine(self, key: str) -> MachineBaseline | None:
        """The facts of a machine, None when none are recorded; raises on a damaged or foreign file."""
        baseline = _load(self.machine_path(key), MachineBaseline, MACHINE)
        if baseline is not None and baseline.machine != key:
            raise NotComparableError(
                f"{self.machine_path(key)} is of machine {baseline.machine!r}",
                "a baseline is not to be copied or renamed",
            )
        return baseline

    def here(self) -> MachineBaseline:
        """The facts of this machine, an empty file where none are recorded."""
        from senet_bench.bench.machine import environment

        about = environment()
        return self.machine(about.machine) or MachineBaseline(machine=about.machine, hard=asdict(about.hard))

    def differing(self, key: str, hard: Mapping[str, Any]) -> str:
        """How this machine differs from the likest recorded one: `cpu: 'A' recorded, 'B' here`; empty if none is."""
        others = []
        for path in sorted(self.folder.glob("*.json")):
            if path.stem not in ("portable", key) and (other := _load(path, MachineBaseline, MACHINE)) is not None:
                fields = [name for name in {**other.hard, **hard} if other.hard.get(name) != hard.get(name)]
                parts = (f"{name}: {other.hard.get(name)!r} recorded, {hard.get(name)!r} here" for name in fields)
                others.append((len(fields), f"{other.machine} differs in {', '.join(parts)}"))
        return min(others)[1] if others else ""

    def beside(self, here: Path, there: Path) -> Baselines:
        """The folder in another checkout that corresponds to this one; the same where it lies outside."""
        whole = self.folder.resolve()
        if not whole.is_relative_to(here.resolve()):
            return self
        return Baselines(there / whole.relative_to(here.resolve()))

    def write(self, document: PortableBaseline | MachineBaseline) -> None:
        """Write one of the two files."""
        path = self.portable_path if isinstance(document, PortableBaseline) else self.machine_path(document.machine)
        write_atomically(path, to_json(document))

    def accept(self, document: PortableBaseline | MachineBaseline, notes: Sequence[Note], reason: str) -> None:
        """Write a file with accepted changes; before it a line of the history for each, so that none lacks its line."""
        about = {"who": who(self.folder), "when": now(), "commit": document.commit}
        self.folder.mkdir(parents=True, exist_ok=True)
        for what, old, new in notes:
            values = {"old": msgspec.to_builtins(old), "new": msgspec.to_builtins(new)}
            line = {"id": what, **about, **values, "reason": reason}
            append_line(self.history_path, json.dumps(line, ensure_ascii=False))
        self.write(document)

    def history(self) -> list[dict[str, Any]]:
        """The lines of the history, oldest first; raises on a damaged one."""
        path = self.history_path
        if not path.exists():
            return []
        return [
            json_object(line, f"{path} line {i}") for i, line in enumerate(_bytes(path).splitlines(), 1) if line.strip()
        ]


def _load(path: Path, kind: type[File], schema: str) -> File | None:
    if not path.exists():
        return None
    document = json_object(_bytes(path), str(path))
    if document.get("schema") != schema:
        raise NotComparableError(
            f"{path} has the schema {document.get('schema')!r}, not {schema!r}", f"move it away and {RECORD}"
        )
    read: File = of_type(document, kind, str(path), f"restore it, or move it away and {RECORD}")
    return read


def _bytes(path: Path) -> bytes:
    """The bytes of a file of a size that a baseline can have."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file", "move it away")
    if path.is_file() and path.stat().st_size > LARGEST_BASELINE:
        raise UsageError(f"{path} is larger than {LARGEST_BASELINE >> 20} MiB", "it is no baseline; move it away")
    return read_file(path)


def facts_stored(facts: Portable) -> StoredFacts:
    """Facts as they are written; raises `MeasurementError` where a metric could not be counted."""
    for metric, why in facts.failures.items():
        if metric != "outputs":  # without the function its shapes are judged
            raise MeasurementError(f"{metric} cannot be counted: {why}")
    kept = {key: part for key, part in asdict(facts).items() if key not in ("failures", "function")}
    function = None if facts.function is None else msgspec.convert(facts.function, Function)
    return StoredFacts(**kept, outputs=function)


def updated(document: File, networks: Mapping[str, Any], commit: str, **fields: Any) -> File:
    """A baseline with some networks replaced, and when and at which commit that was."""
    kept = {**document.networks, **networks}
    return replace(document, networks=kept, created=now(), commit=commit, version=__version__, **fields)


def now() -> str:
    """The present moment in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def torch_here() -> str:
    """The minor version of torch."""
    import torch

    return ".".join(torch.__version__.split(".")[:2])


def who(folder: Path) -> str:
    """The name git has for the user, else that of the account."""
    name = git(folder if folder.exists() else Path(), "config", "user.name")
    try:
        return name or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
