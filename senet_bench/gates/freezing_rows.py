"""What `freeze` stores: of every block whether its gate became a constant, and the network with and without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from senet_bench.core.results import Facts, Latency
from senet_bench.core.specs import AttentionSpec
from senet_bench.gates.rows import ErrorChange

GateOutcome = Literal["frozen", "loss", "not folded", "beyond"]
"""Frozen; kept as the loss was too large, as it cannot be folded, or as the loss was shown small before it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeConditions:
    """A network, its weights, and the images: `calibration` for means, `decision` for the choice, `report` at last.

    `max_loss` is the margin, as a fraction of the images; `key` that of the trial whose weights they are.
    """

    model: str
    label: str
    attention: AttentionSpec | None
    dataset: str
    weights: str
    key: str | None
    notes: list[str]
    max_loss: float
    calibration: int
    decision: int
    report: int
    size: int
    seed: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeRow:
    """A block, in the order in which it was tried.

    `alone` is the mean cross entropy, in nats, that holding it at its mean gates adds on the calibration images.
    `difference` is the error with it and all frozen before it held, minus the error as it is, on the decision images.
    `reason` says why its gate cannot be folded.
    """

    model: str
    block: str
    stage: str
    channels: int
    mean_gate: float
    alone: float
    outcome: GateOutcome
    difference: ErrorChange | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenState:
    """A network on the report images, with what it costs."""

    blocks: int
    error: float
    ci: tuple[float, float]
    params: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeSummary:
    """The network as it is and frozen (None where no gate could be), and their difference on the report images.

    `shown` says whether the interval of the loss ends inside the margin; `needed` estimates, where the images are too
    few for that, how many would show a loss of nothing. `latency` is the frozen network's, its ratio to the network as
    it is.
    """

    as_is: FrozenState
    frozen: FrozenState | None = None
    difference: ErrorChange | None = None
    shown: bool = False
    needed: int | None = None
    latency: Latency | None = None
    latency_missing: str | None = None
    file: str | None = None
    skipped: list[str] = field(default_factory=list)


FreezeFacts = Facts[FreezeConditions, FreezeRow, FreezeSummary, None]
"""The document of `freeze`."""
