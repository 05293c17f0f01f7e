"""The outcome of a check: a row for every limit, the verdict over them, and the exit code that says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from senet_bench.core.environment import Environment
from senet_bench.core.schemas import schema_of
from senet_bench.regression.config import Config, Inconclusive
from senet_bench.regression.limits import Limit, StoredLimit, counted_metrics

GateVerdict = Literal["fail", "error", "not comparable", "inconclusive", "allowed", "accepted", "pass", "info", "new"]
GateKind = Literal["exact", "statistical", "paired", "stored", "ratio", "config"]
SCHEMA = schema_of("check")
EXITS: dict[GateVerdict, int] = {"fail": 1, "error": 5, "not comparable": 4, "inconclusive": 3}
"""What makes a check not pass, the gravest first, and its exit code."""
VERDICT_TITLES = {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE", 4: "NOT COMPARABLE", 5: "ERROR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRow:
    """One limit: what the base had, what there is now, and what that means.

    `ratio` is now / base, `ci` its interval at `confidence`; `mde80` the change from the gate seen with 80 % power;
    `explain` names what changed, with by how much; `launches` are the log ratios of pairs of processes, `tau` their
    spread; `control_ok` says whether identical code was measured as identical, None without a control. `stale`:
    better than a stored baseline by more than the limit. `difference` is that of the outputs over the largest;
    `wider`: a busy machine decided a wider bound than its limit; `file` and `line` are where the network's code
    begins, relative to the repository.
    """

    id: str
    network: str
    metric: str
    kind: GateKind
    verdict: GateVerdict
    reason: str = ""
    base: float | str | None = None
    now: float | str | None = None
    unit: str = ""
    ratio: float | None = None
    ci: tuple[float, float] | None = None
    confidence: float | None = None
    gate: StoredLimit = field(default_factory=StoredLimit)
    p_worse: float | None = None
    p_ok: float | None = None
    p_holm: float | None = None
    rounds: int | None = None
    launches: list[float] = field(default_factory=list)
    tau: float | None = None
    mde80: float | None = None
    control_ratio: float | None = None
    control_ci: tuple[float, float] | None = None
    control_ok: bool | None = None
    elapsed_s: float | None = None
    explain: list[tuple[str, int | str]] = field(default_factory=list)
    stale: bool = False
    wider: bool = False
    difference: float | None = None
    file: str = ""
    line: int = 0

    @property
    def open(self) -> bool:
        """Whether it keeps the check from passing."""
        return self.verdict in EXITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What was compared with: a commit (`ref`) or a file of stored facts (`path`); `head` is this checkout's commit."""

    path: str | None = None
    ref: str | None = None
    commit: str = ""
    created: str = ""
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine: its key and the fields that the key is made of."""

    key: str
    hard: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The timed comparisons that share `alpha`."""

    alpha: float
    method: str = "holm"
    comparisons: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The control that was furthest off: its ratio and interval, whose row it is of, and whether it held.

    Every field is absent where nothing was timed.
    """

    ratio: float | UnsetType = UNSET
    ci: tuple[float, float] | UnsetType | None = UNSET
    row: str | UnsetType = UNSET
    ok: bool | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state of the machine meanwhile: seconds, load, the share stolen by other guests, involuntary switches."""

    elapsed_s: float
    load_1min: float | None
    steal: float
    involuntary_switches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The document `senet-bench.check/1`, from which every other form is written."""

    schema: str
    version: str
    created: str
    verdict: str
    exit_code: int
    environment: Environment
    conditions: dict[str, Any]
    baseline: Base
    machine: Machine
    family: Family
    control: Control
    health: State
    rows: list[LimitRow]
    missing: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    config_file: str = ""
    reproduce: str = ""
    accept: str = ""
    judge: Literal["base", "head"] | None = None


def failed(network: str, metric: str, why: str, verdict: GateVerdict = "error") -> LimitRow:
    """The row of something that could not be measured or compared."""
    return LimitRow(id=f"{network}/{metric}", network=network, metric=metric, kind="exact", verdict=verdict, reason=why)


def unchanged_row(network: str, limit: Limit) -> LimitRow:
    """The row of the latency of a network whose code is the base's: it cannot have changed, so nothing was timed."""
    row = failed(network, "latency", "not timed: the same code as the base's", "pass" if limit.judged else "info")
    return replace(row, kind="statistical", gate=limit.stored(), elapsed_s=0.0)


def with_seconds(rows: Sequence[LimitRow], seconds: float) -> list[LimitRow]:
    """The rows of a network, those that no time is known of sharing the seconds that all of them took."""
    shared = [row for row in rows if row.elapsed_s is None]
    return [row if row.elapsed_s is not None else replace(row, elapsed_s=seconds / len(shared)) for row in rows]


def exit_code(rows: Sequence[LimitRow], inconclusive: Inconclusive) -> int:
    """The exit code of a check: that of its gravest row; rows that could not be decided count as asked."""
    verdicts = {row.verdict for row in rows}
    code = next((code for verdict, code in EXITS.items() if verdict in verdicts), 0)
    return {"warn": 3, "pass": 0, "fail": 1}[inconclusive] if code == 3 else code


def with_allowances(rows: Sequence[LimitRow], config: Config, today: date) -> list[LimitRow]:
    """The rows, failed ones that the config allows until a day not yet over as `allowed`; never a failed run."""
    return [_with_allowance(row, config, today) for row in rows]


def _with_allowance(row: LimitRow, config: Config, today: date) -> LimitRow:
    allowance = config.allowance(row.id) if row.verdict == "fail" or row.metric == "network" else None
    if allowance is None:
        return row
    if allowance.until < today:
        return replace(row, reason=f"{row.reason}; its allowance ended on {allowance.until}")
    why = f"{row.reason}; allowed until {allowance.until}: {allowance.reason}"
    return replace(row, verdict="allowed", reason=why)


# --- slow drift: each change was accepted, but what did they add up to? Told in the report, never judged. --------

DRIFTING = {
    "params": "params",
    "flops": "flops",
    "operators": "operators",
    "memory": "peak_bytes",
    "latency": "latency",
}
"""The metrics that can drift, and their field in the stored facts of a whole network."""


def drifts(
    history: Sequence[Mapping[str, Any]], rows: Sequence[LimitRow], limit: Callable[[str, str], Limit]
) -> list[LimitRow]:
    """A row for information where a metric is beyond its limit of the oldest value that was ever replaced."""
    drifted = (_drift(history, row, limit) for row in rows)
    return [row for row in drifted if row is not None]


def _drift(history: Sequence[Mapping[str, Any]], row: LimitRow, limit: Callable[[str, str], Limit]) -> LimitRow | None:
    past = _replaced(history, row.network, row.metric)
    if not past or not isinstance(row.now, int | float):
        return None
    (when, oldest), allowed = past[0], limit(row.network, row.metric)
    if not allowed.exceeded(oldest, row.now):
        return None
    times = "one accepted change" if len(past) == 1 else f"{len(past)} accepted changes"
    return LimitRow(
        id=f"{row.id}-drift",
        network=row.network,
        metric=f"{row.metric}-drift",
        kind="stored",
        verdict="info",
        reason=f"{100 * (row.now / oldest - 1):+.3g} % since {when[:10]}, over {times}" if oldest else "it was 0",
        base=oldest,
        now=row.now,
        unit=row.unit,
        ratio=row.now / oldest if oldest else None,
        gate=allowed.stored(),
    )


def _replaced(history: Sequence[Mapping[str, Any]], network: str, metric: str) -> list[tuple[str, float]]:
    """When a metric of a network was accepted anew and what it was before, oldest first."""
    if metric not in DRIFTING and metric not in dict(counted_metrics()):
        return []
    past = []
    for line in history:
        name, _, accepted = str(line.get("id", "")).rpartition(":")
        old = line.get("old")
        if name != network or accepted not in (metric, "all"):
            continue
        if accepted == "all":
            old = _of_whole(old, metric)
        if (total := _total(old)) is not None:
            past.append((str(line.get("when", "")), total))
    return past


def _of_whole(old: object, metric: str) -> object:
    """The part of a network's stored facts that a metric stands for."""
    if not isinstance(old, Mapping):
        return None
    if metric in DRIFTING:
        return old.get(DRIFTING[metric])
    counts = old.get("counts")
    return counts.get(metric) if isinstance(counts, Mapping) else None


def _total(old: object) -> float | None:
    """One number of a stored value: the sum of counts by name, the floor of a latency."""
    if isinstance(old, Mapping):
        if "floor" in old:
            return _total(old["floor"])
        values = [value for value in old.values() if isinstance(value, int | float)]
        return float(sum(values)) if values else None
    return float(old) if isinstance(old, int | float) and not isinstance(old, bool) else None
