"""How a training run is carried out, and what it reports as it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from senet_bench.core.specs import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a recipe is carried out here; none of it is part of the recipe.

    `accumulate` cuts a step into that many backward passes. `ema` is the decay of an average of the weights per
    step (None: off), which is then evaluated and kept. `checkpoint` is written after every epoch and every
    `checkpoint_every` steps; `resume` goes on from it when it is there. `evaluate_every` counts epochs: the last
    is evaluated too, with 0 none is; plateau schedules look at every one. `progress_every` is in seconds.
    """

    seed: int = 0
    device: str = "cpu"
    precision: Precision = "fp32"
    channels_last: bool = True
    compile: bool = False
    accumulate: int = 1
    ema: float | None = None
    sync_batchnorm: bool = True
    checkpoint: Path | None = None
    checkpoint_every: int | None = None
    resume: bool = False
    evaluate_every: int = 1
    progress_every: float = 1.0
    skip_corrupt: bool = False
    identity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment within an epoch; `loss` is the mean so far, `seconds_left` an estimate for the whole run."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """An epoch done; losses in nats, errors and average precisions as fractions, None where not evaluated."""

    epoch: int
    epochs: int
    train_loss: float
    lr: float
    images_per_second: float
    seconds: float
    seconds_left: float
    test_loss: float | None = None
    top1_err: float | None = None
    top5_err: float | None = None
    skipped: int = 0
    ap: float | None = None
    ap50: float | None = None


Event = Moment | EpochEnd
