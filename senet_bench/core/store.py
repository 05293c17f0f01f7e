"""The results folder: facts in `runs/<machine>/`, one immutable file per run, and what is derived from them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from senet_bench.core.files import kind_of_path, read_file, write_atomically
from senet_bench.core.learning import Submitted, TrialResult
from senet_bench.core.results import Run, StoredDocument, from_json, json_object, may_be_too_large, of_type, to_json
from senet_bench.core.schemas import schema_of
from senet_bench.errors import BenchError, MeasurementError, NotComparableError, UsageError

if TYPE_CHECKING:
    from filelock import FileLock


class Store:
    """Runs under one folder. Reading checks every file; writing is atomic, so a reader never sees half a file."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def documents(self) -> Iterator[tuple[Path, StoredDocument]]:
        """Every stored document with its path, oldest first; raises on a damaged or foreign file."""
        for path, document in self.survey():
            if isinstance(document, BenchError):
                raise document
            yield path, document

    def survey(self) -> Iterator[tuple[Path, StoredDocument | BenchError]]:
        """Every stored document, oldest first; in place of a damaged or foreign one the error that names it."""
        if kind_of_path(self.root) == "file":
            raise UsageError(f"results folder {self.root} is a file", "name a folder with --results")
        for path in sorted((self.root / "runs").glob("*/*.json"), key=lambda path: (path.name, path.parent.name)):
            try:
                yield path, from_json(read_file(path), str(path))
            except BenchError as error:
                yield path, error

    def runs(self) -> Iterator[tuple[Path, Run]]:
        """The documents whose rows are networks."""
        return ((path, document) for path, document in self.documents() if isinstance(document, Run))

    def check(self) -> None:
        """Raise as `documents` does, if there is a file to raise for."""
        for _ in self.documents():
            pass

    def trials(self, machine: str) -> TrialStore:
        """The finished trials of one machine."""
        return TrialStore(self.root / "runs" / machine / "trials", self.root / "runs")

    @property
    def weights(self) -> Path:
        """The folder of weights that were trained here."""
        return self.root / "weights"

    def trained_weights(self, model: str, dataset: str, recipe: str, key: str) -> Path:
        """Where the weights of a training lie unless told otherwise."""
        return self.weights / f"{model.replace(':', '-')}-{dataset}-{recipe}-{key[:8]}.safetensors"

    def named_weights(self, name: str) -> str:
        """The file of weights by its name in that folder, or by eight or more digits of a trial's key.

        Another name is given back as it is.
        """
        if kind_of_path(Path(name)) == "file" or not re.fullmatch(r"[\w.+-]+", name):
            return name
        by_name = self.weights / f"{name.removesuffix('.safetensors')}.safetensors"
        keyed = [*self.weights.glob(f"*-{name[:8]}*.safetensors")] if re.fullmatch("[0-9a-f]{8,16}", name) else []
        return next((str(path) for path in (by_name, *keyed) if kind_of_path(path) == "file"), name)

    def new_path(self, run: StoredDocument) -> Path:
        """A path for a new run that no other process will choose."""
        command = run.schema.partition(".")[2].partition("/")[0]
        stamp = run.created.replace(":", "").replace("-", "")
        machine = run.environment.machine
        return self.root / "runs" / machine / f"{stamp}-{command}-{secrets.token_hex(3)}.json"

    def write(self, run: StoredDocument, path: Path) -> None:
        """Write or rewrite a run in progress."""
        write_atomically(path, to_json(run))


TRIAL = schema_of("trial")


@dataclass(frozen=True, slots=True)
class TrialStore:
    """Finished trials of sweeps, a file each, named by a key made from what defines the trial.

    They are written to `folder`, this machine's, and read from every machine's under `runs`, so that the shares of a
    sweep add up.
    """

    folder: Path
    runs: Path | None = None

    def get(self, key: str) -> TrialResult | None:
        """The result of a finished trial, None when there is none; raises on a damaged or foreign file."""
        here = self.folder / f"{key}.json"
        others = self.runs.glob(f"*/trials/{key}.json") if self.runs else iter(())
        path = here if here.exists() else next(others, None)
        if path is None:
            return None
        return self.read(path)

    @staticmethod
    def read(path: Path) -> TrialResult:
        """The result of the trial in a file; raises on a damaged or foreign one."""
        return result_in(read_file(path), path)

    def texts(self) -> Iterator[tuple[Path, bytes]]:
        """Every machine's stored trials as they lie there, each file with its bytes; one that cannot be read is not."""
        for path in sorted(self.runs.glob("*/trials/*.json") if self.runs else self.folder.glob("*.json"), key=str):
            with contextlib.suppress(BenchError):  # raised where it is asked for by its key
                yield path, read_file(path)

    def put(self, key: str, definition: Mapping[str, object], result: TrialResult, about: Mapping[str, object]) -> None:
        """Store a finished trial; its checkpoint is removed."""
        document = {"schema": TRIAL, **about, "key": key, "definition": dict(definition), "result": result}
        write_atomically(self.folder / f"{key}.json", to_json(document))
        self.checkpoint(key).unlink(missing_ok=True)
        self.progress(key).unlink(missing_ok=True)
        self.note(key, None)

    def forget(self, key: str) -> Submitted | None:
        """Put a trial's result aside, under its name with `.before` behind, so that it is trained anew.

        Which job of a cluster it was is forgotten as well, and given back; not where another process has the trial.
        """
        path = self.folder / f"{key}.json"
        if path.exists():
            path.replace(path.with_suffix(".before"))
        lock = self.claim(key)
        if lock is None:
            return None
        try:
            submitted = self.submitted(key)
            self.note(key, None)
            self.checkpoint(key).unlink(missing_ok=True)
        finally:
            lock.release()
        return submitted

    def checkpoint(self, key: str) -> Path:
        """Where a trial that has begun keeps how far it is, beside its claim."""
        return self.folder / ".claims" / f"{key}.checkpoint"

    def progress(self, key: str) -> Path:
        """Where a trial that runs tells how far it is."""
        return self.checkpoint(key).with_suffix(".progress")

    def note(self, key: str, submitted: Submitted | None) -> None:
        """Keep which job of a cluster a trial is, for the next run to take it up; None: it is none."""
        place = self.checkpoint(key).with_suffix(".job")
        if submitted is None:
            place.unlink(missing_ok=True)
        else:
            write_atomically(place, msgspec.json.encode(submitted))

    def submitted(self, key: str) -> Submitted | None:
        """The job of a cluster that a trial is; None where it was not handed to one, or the note is damaged."""
        place = self.checkpoint(key).with_suffix(".job")
        try:
            return msgspec.json.decode(place.read_bytes(), type=Submitted)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return None

    def claim(self, key: str) -> FileLock | None:
        """The right to run a trial, None while another process has it; it ends with the process that holds it."""
        from filelock import FileLock, Timeout

        folder = self.folder / ".claims"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{key}.lock")
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except OSError as error:
            raise MeasurementError(
                f"{folder} cannot be written ({error.strerror})", "name another --results"
            ) from error
        return lock


class _Trial(msgspec.Struct):
    """What is read of a stored trial."""

    schema: str
    result: TrialResult


_TRIALS = msgspec.json.Decoder(_Trial)


def result_in(data: bytes, path: Path) -> TrialResult:
    """The result of the trial in the bytes of a file; raises on a damaged or foreign one."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError, BenchError):
        trial = None if may_be_too_large(data) else _TRIALS.decode(data)  # several times faster than plain JSON
        if trial is not None and trial.schema == TRIAL:
            return trial.result
    document = json_object(data, str(path))
    if document.get("schema") != TRIAL or not isinstance(document.get("result"), dict):
        raise NotComparableError(f"{path} is no trial of this version", "move it away")
    result: TrialResult = of_type(document["result"], TrialResult, str(path))
    return result


def key_of(definition: Mapping[str, object]) -> str:
    """Sixteen hexadecimal digits of what defines a trial."""
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:16]
