"""What `probe` stores: the errors of every block on every task, what they are compared with, and what that shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from senet_bench.core.results import Change, Facts, Fraction, StoredCount
from senet_bench.core.specs import AttentionSpec

CellVerdict = Literal["solves", "helps", "as the control", "harms", "cannot tell"]
PairVerdict = Literal["errs less", "errs more", "cannot tell"]
ArmRole = Literal["baseline", "constant", "random", "wider", "block"]
CONTROLS: tuple[ArmRole, ...] = ("baseline", "constant", "random", "wider")
"""What a block is compared with: no block, gates fixed at 0.5, random gates never trained, a wider network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConditions:
    """What was asked: blocks and tasks by name, the difficulty of each task (None: its usual one), and how it was run.

    `level` is of Holm's p, `margin` the difference in error below which a block is as a control.
    """

    blocks: list[str]
    tasks: list[str]
    difficulty: float | None = None
    curve: bool = False
    reduction: int | None = None
    seeds: StoredCount
    steps: StoredCount
    batch: StoredCount
    lr: float
    revision: StoredCount
    level: Fraction
    margin: Fraction
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The mean paired difference in error to a control, block minus control, with its interval and two-sided p."""

    difference: Change
    ci: tuple[float, float] | None
    p: Fraction | None
    seeds: StoredCount


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow:
    """One network on one task at one difficulty.

    `label` is the block's, or says which control it is; a wider control stands beside every block that costs no more.
    `gaps` are differences to the controls by their roles. `p` is the largest of their p where all have one direction
    (the block is better, or worse, than each), else 1; `p_holm` is adjusted over the blocks' rows of the run.
    `width` is in channels, `reason` says why an error is null.
    """

    task: str
    difficulty: float
    label: str
    role: ArmRole
    attention: AttentionSpec | None = None
    source: str = ""
    width: StoredCount
    params: StoredCount | None = None
    error: Fraction | None = None
    ci: tuple[float, float] | None = None
    per_seed: Mapping[str, Fraction] = field(default_factory=dict)
    gaps: Mapping[str, Gap] = field(default_factory=dict)
    p: Fraction | None = None
    p_holm: Fraction | None = None
    verdict: CellVerdict | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """Two blocks on one task: the mean paired difference in error, first minus second; Holm's p over all pairs."""

    task: str
    difficulty: float
    first: str
    second: str
    gap: Gap
    p_holm: Fraction | None = None
    verdict: PairVerdict = "cannot tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSummary:
    """The trials of the run: all, and those that failed; the CPU seconds of the ones that were run for it."""

    trials: StoredCount = 0
    ran: StoredCount = 0
    failed: StoredCount = 0
    cpu_seconds: float = 0.0


ProbeFacts = Facts[ProbeConditions, ProbeRow, ProbeSummary, PairRow]
