"""The outcome of a check: a row for every gate, the verdict over them, and the exit code that says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from senet_bench.core.results import schema_of
from senet_bench.regression.config import Config, Inconclusive

Verdict = Literal["fail", "error", "not comparable", "inconclusive", "allowed", "pass", "info", "new"]
Kind = Literal["exact", "statistical", "paired", "stored", "ratio"]
SCHEMA = schema_of("check")
EXITS: dict[Verdict, int] = {"fail": 1, "error": 5, "not comparable": 4, "inconclusive": 3}
"""What makes a check not pass, the gravest first, and its exit code."""
TITLES = {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE", 4: "NOT COMPARABLE", 5: "ERROR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One gate: what the base had, what there is now, and what that means.

    `ratio` is now / base, `ci` its interval at `confidence`; `mde80` the smallest change seen with 80 % power;
    `explain` names what changed, with by how much; `launches` are the log ratios of pairs of processes, `tau` their
    spread. `stale`: better than a stored baseline by more than the gate.
    """

    id: str
    network: str
    metric: str
    kind: Kind
    verdict: Verdict
    reason: str = ""
    base: float | str | None = None
    now: float | str | None = None
    unit: str = ""
    ratio: float | None = None
    ci: tuple[float, float] | None = None
    confidence: float | None = None
    gate: dict[str, Any] = field(default_factory=dict)
    p_worse: float | None = None
    p_ok: float | None = None
    p_holm: float | None = None
    rounds: int | None = None
    launches: list[float] = field(default_factory=list)
    tau: float | None = None
    mde80: float | None = None
    control_ratio: float | None = None
    control_ci: tuple[float, float] | None = None
    elapsed_s: float | None = None
    explain: list[tuple[str, int | str]] = field(default_factory=list)
    stale: bool = False

    @property
    def open(self) -> bool:
        """Whether it keeps the check from passing."""
        return self.verdict in EXITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The document `senet-bench.check/1`, from which every other form is written."""

    schema: str
    version: str
    created: str
    verdict: str
    exit_code: int
    environment: dict[str, Any]
    conditions: dict[str, Any]
    baseline: dict[str, Any]
    machine: dict[str, Any]
    family: dict[str, Any]
    control: dict[str, Any]
    health: dict[str, Any]
    rows: list[Row]
    missing: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    reproduce: str = ""
    accept: str = ""


def exit_code(rows: Sequence[Row], inconclusive: Inconclusive) -> int:
    """The exit code of a check: that of its gravest row; rows that could not be decided count as asked."""
    verdicts = {row.verdict for row in rows}
    code = next((code for verdict, code in EXITS.items() if verdict in verdicts), 0)
    return {"warn": 3, "pass": 0, "fail": 1}[inconclusive] if code == 3 else code


def with_allowances(rows: Sequence[Row], config: Config, today: Any) -> list[Row]:
    """The rows, failed ones that the config allows until a day not yet over as `allowed`; never a failed run."""
    found = []
    for row in rows:
        allowance = config.allowance(row.id) if row.verdict == "fail" or row.metric == "network" else None
        if allowance is None:
            found.append(row)
        elif allowance.until < today:
            found.append(replace(row, reason=f"{row.reason}; its allowance ended on {allowance.until}"))
        else:
            why = f"{row.reason}; allowed until {allowance.until}: {allowance.reason}"
            found.append(replace(row, verdict="allowed", reason=why))
    return found
