"""A run in progress: a document of this machine that is stored again after every row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from senet_bench import __version__
from senet_bench.core.environment import Environment
from senet_bench.core.progress import Progress
from senet_bench.core.results import Facts, Run, RunConditions, StoredDocument
from senet_bench.core.schemas import schema_of
from senet_bench.core.store import Store
from senet_bench.run.apart import answer

Doc = TypeVar("Doc", bound=StoredDocument)


@dataclass(slots=True)
class Record(Generic[Doc]):
    """A run in progress: its document, stored at `path` after every change, and what could not be measured."""

    document: Doc
    store: Store
    path: Path
    failures: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, store: Store, document: Doc) -> Record[Doc]:
        """The record of a document that nothing is stored of yet."""
        return cls(document, store, store.new_path(document))

    def change(self, **fields: object) -> None:
        """Put these fields of the document in place and store it."""
        kept: Any = self.document
        self.document = replace(kept, **fields)
        self.store.write(self.document, self.path)

    def add(self, row: object) -> None:
        """Add a row and store it."""
        self.change(rows=[*self.document.rows, row])

    def put(self, index: int, row: object) -> None:
        """Put a row in the place of another and store it."""
        rows: list[object] = [*self.document.rows]
        rows[index] = row
        self.change(rows=rows)

    def progress(self, what: str, done: float, total: float) -> Progress:
        """A moment of this run."""
        return Progress(what, done, total, self.path)


def new_run(command: str, conditions: RunConditions) -> Run:
    """An empty run of a command on this machine, now."""
    return Run(**header(command, conditions))


def new_facts(command: str, conditions: object, summary: object = None) -> Any:
    """Empty facts of a command on this machine, now, with what stands in their summary until it is known."""
    about = header(command, conditions)
    return Facts(**about) if summary is None else Facts(**about, summary=summary)


def header(command: str, conditions: object) -> dict[str, Any]:
    """What every document begins with; `conditions` are those of its command."""
    return {
        "schema": schema_of(command),
        "version": __version__,
        "created": now(),
        "environment": answer(environment),
        "conditions": conditions,
    }


def now() -> str:
    """When a document is made that is made now."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def environment() -> Environment:
    """The machine and its software."""
    from senet_bench.bench import machine

    return machine.environment()
