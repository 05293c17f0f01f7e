"""What is asked of a measurement, and the events by which it tells how it goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from senet_bench.bench.samples import Latency
from senet_bench.core.statistics import Judgement
from senet_bench.errors import UsageError

CONTROL = "control"
"""The name under which the second copy of the baseline appears among the samples."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure and when it is enough.

    `budget_s` covers warming up, rounds and rebuilding (not the first build). Without `gate` an arm is done when
    the half-width of its interval (a fraction) reaches `target`; with one, when it is shown to be beyond or
    inside the gate (a fraction, and `min_abs_s` seconds: both must be exceeded). `alpha` is one-sided, over all
    looks; `family` shares it among the arms after Holm. `steady=False`: outputs may change (training).
    """

    budget_s: float = 10.0
    gate: float | None = None
    alpha: float = 0.025
    target: float = 0.005
    min_abs_s: float = 0.0
    looks: int = 5
    epochs: int = 4
    warmup_s: float = 1.0
    least_warmup_s: float = 0.0
    seed: int = 0
    max_rounds: int = 2000
    family: bool = False
    pin: bool = False
    steady: bool = True

    def __post_init__(self) -> None:
        """Raise `UsageError` on values that cannot be measured with."""
        if not (math.isfinite(self.budget_s) and self.budget_s > 0):
            raise UsageError(f"a budget of {self.budget_s} s measures nothing", "give some seconds, such as 10")
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"alpha must lie between 0 and 0.5, not {self.alpha}", "use 0.01")
        if self.gate is not None and not 0 <= self.gate < 10:
            raise UsageError(f"a gate of {self.gate} is no fraction", "use 0.02 for 2 %")
        if min(self.looks, self.epochs, self.max_rounds) < 1:
            raise UsageError("looks, epochs and rounds must be at least 1")


@dataclass(frozen=True, slots=True)
class Warmed:
    """An arm is warm: `calls` made, whether they `settled`, seconds of its fastest call."""

    arm: str
    calls: int
    settled: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Round:
    """A round is over: seconds by arm; `dropped` says why it will not count, empty if it does."""

    index: int
    seconds: Mapping[str, float]
    dropped: str
    elapsed_s: float
    budget_s: float


@dataclass(frozen=True, slots=True)
class Look:
    """The judgements after a look; `undecided` arms go on."""

    rounds: int
    elapsed_s: float
    judgements: Mapping[str, Judgement]
    undecided: tuple[str, ...]


Event = Warmed | Round | Look | Latency


def gated(gate: float = 0.02, **options: Any) -> Plan:
    """The plan of a gate: alpha 0.01, a budget of 6 s; `options` are those of `Plan`."""
    return Plan(**{"budget_s": 6.0, "alpha": 0.01, "gate": gate, **options})
