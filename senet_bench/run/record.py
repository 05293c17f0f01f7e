"""What all workflows share: an event of progress, and a new document of this machine, now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from senet_bench import __version__
from senet_bench.core.results import Document, Facts, Row, Run, schema_of

Doc = TypeVar("Doc", bound=Document)


@dataclass(frozen=True, slots=True)
class Event(Generic[Doc]):
    """Progress: what was just done, the document so far (stored at `path`), steps done of all, and what failed."""

    done: float
    total: float
    what: str
    run: Doc
    path: Path
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of one part of a run: steps done (a fraction while one runs), the rows as they are now."""

    done: float
    what: str
    rows: list[Row]
    finished: bool
    failures: tuple[str, ...] = ()


def new_run(command: str, conditions: Mapping[str, Any]) -> Run:
    """An empty run of a command on this machine, now."""
    return Run(**header(command, conditions))


def new_facts(command: str, conditions: Mapping[str, Any]) -> Facts:
    """Empty facts of a command on this machine, now."""
    return Facts(**header(command, conditions))


def header(command: str, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """What every document begins with."""
    from senet_bench.bench.machine import environment

    return {
        "schema": schema_of(command),
        "version": __version__,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "environment": environment(),
        "conditions": dict(conditions),
    }
