"""What a command measured: typed rows in a run, and the JSON document both are stored and printed as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from senet_bench.errors import NotComparableError, UsageError
from senet_bench.paper import CellStatus
from senet_bench.specs import AttentionSpec

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one call at the run's conditions, measured in the same rounds as its baseline.

    `seconds` is the median over rounds of the fastest call of a block; `ratio` the Hodges-Lehmann estimate of
    variant / baseline with its interval `ci` at `confidence`; `mde` the smallest relative slowdown these rounds
    would have shown with 80 % power; `control_ratio` the same estimate for a second copy of the baseline.
    """

    seconds: float
    ratio: float | None = None
    ci: tuple[float, float] | None = None
    confidence: float | None = None
    rounds: int = 0
    mde: float | None = None
    control_ratio: float | None = None
    control_ci: tuple[float, float] | None = None
    verdict: str | None = None
    reason: str | None = None
    images_per_second: float | None = None
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    conditions: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Error on a dataset, as fractions; several seeds give a mean, its sd and the paired difference to the baseline."""

    dataset: str
    top1_err: float
    ci: tuple[float, float] | None = None
    top5_err: float | None = None
    sd: float | None = None
    seeds: int = 1
    difference: float | None = None
    difference_ci: tuple[float, float] | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    per_seed: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network under one attention: what was counted and measured, beside what the paper prints.

    `missing` says why a number is null. `axes` names the setting of an ablation's row.
    """

    model: str
    label: str
    family: str
    input_size: tuple[int, int, int]
    classes: int
    cardinality: int | None = None
    baseline: str | None = None
    attention: AttentionSpec | None = None
    axes: dict[str, Any] | None = None
    params: int | None = None
    flops: dict[str, int] = field(default_factory=dict)
    flops_by_kind: dict[str, int] = field(default_factory=dict)
    latency: Latency | None = None
    more_latency: list[Latency] = field(default_factory=list)
    accuracy: Accuracy | None = None
    paper: list[CellStatus] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a command: a document that is written once and never changed."""

    schema: str
    version: str
    created: str
    environment: dict[str, Any]
    conditions: dict[str, Any]
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Check:
    """A thing a machine or an installation has or lacks, and how to get it."""

    name: str
    found: str
    remedy: str = ""


def schema_of(command: str) -> str:
    """The schema name of a command's document."""
    return f"senet-bench.{command}/1"


def to_json(document: object) -> str:
    """A document as indented JSON, ended by a newline; a NaN or an infinity becomes null."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"


def from_json(data: bytes, kind: type[T], schemas: tuple[str, ...], source: str) -> T:
    """The document in `data`, checked.

    Raises `UsageError` for what is not JSON or not of the right shape, `NotComparableError` for a foreign schema;
    both name `source`.
    """
    try:
        header = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{source} is not a results file ({error})", "move it away or restore it") from error
    if header.get("schema") not in schemas:
        raise NotComparableError(
            f"{source} has schema {header.get('schema')!r}, not {' or '.join(schemas)}",
            "move it away, or use the version of senet-bench that wrote it",
        )
    try:
        return msgspec.convert(header, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{source} is damaged ({error})", "move it away or restore it") from error
