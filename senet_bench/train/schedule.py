"""The learning rate at every step: a pure function of the epoch, and of the validation losses for plateaus."""

from __future__ import annotations

import math
from dataclasses import dataclass

from senet_bench.core.recipes import Recipe


@dataclass(slots=True)
class Rate:
    """The learning rate of a recipe as training goes on; `state` and `restore` for checkpoints."""

    recipe: Recipe
    best: float = math.inf
    stalled: int = 0
    drops: int = 0
    finished: bool = False

    def at(self, epoch: float) -> float:
        """Learning rate at a point of training, in epochs from 0, fractions within an epoch."""
        schedule, lr = self.recipe.schedule, self.recipe.lr
        if epoch < schedule.warmup:
            return lr * (epoch + 1e-3) / schedule.warmup
        match schedule.kind:
            case "steps":
                return lr * schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
            case "plateau":
                return lr * schedule.factor**self.drops
            case "cosine":
                done = (epoch - schedule.warmup) / max(1e-9, self.recipe.epochs - schedule.warmup)
                return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def epoch_ended(self, validation_loss: float) -> None:
        """Note the validation loss of an epoch; a plateau lowers the rate, the last one ends training."""
        schedule = self.recipe.schedule
        if schedule.kind != "plateau":
            return
        if validation_loss < self.best:
            self.best, self.stalled = validation_loss, 0
            return
        self.stalled += 1
        if self.stalled >= schedule.patience:
            self.stalled = 0
            self.finished = self.drops >= schedule.drops
            self.drops = min(self.drops + 1, schedule.drops)

    def state(self) -> dict[str, float | int | bool]:
        """What a checkpoint keeps."""
        return {"best": self.best, "stalled": self.stalled, "drops": self.drops, "finished": self.finished}

    def restore(self, state: dict[str, float | int | bool]) -> None:
        """Continue from what a checkpoint kept."""
        self.best, self.stalled = float(state["best"]), int(state["stalled"])
        self.drops, self.finished = int(state["drops"]), bool(state["finished"])
