"""A trial as it is planned, handed to an engine and carried to where it runs; what does that is not imported for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from senet_bench.core.recipes import Recipe
from senet_bench.core.specs import ModelSpec, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training run of one arm: everything its result depends on, and what does not decide it.

    It is trained on `device`, goes on from `checkpoint` where that is there, and leaves its network in `weights`.
    `processes` train it together, each with a part of every batch. It starts from `pretrained` weights where there are
    any, and trains attention blocks alone in the `blocks_first` epochs.
    """

    arm: str
    spec: ModelSpec
    recipe: Recipe
    seed: int
    dataset: str = "digits"
    folder: str | None = None
    precision: Precision = "fp32"
    threads: int = 1
    device: str = "cpu"
    checkpoint: Path | None = None
    weights: Path | None = None
    processes: int = 1
    pretrained: str | None = None
    blocks_first: int = 0
