"""What a network is trained for: the batches of its data, the loss of a part of one, and how it is tested."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.core.recipes import Recipe
from senet_bench.core.specs import Precision
from senet_bench.data.augment import normalised
from senet_bench.data.batches import Batches
from senet_bench.data.sets import DataSet
from senet_bench.errors import UsageError
from senet_bench.training.distributed import World
from senet_bench.training.evaluation import Viewing, predict
from senet_bench.training.optimisation import autocast, laid_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a recipe is carried out here; none of it is part of the recipe.

    `accumulate` cuts a step into that many backward passes. `ema` is the decay of an average of the weights per
    step (None: off), which is then evaluated and kept. `checkpoint` is written after every epoch (unless
    `checkpoint_epochs` is off), every `checkpoint_every` steps, and every `checkpoint_seconds`;
    `resume` goes on from it when it is there. `evaluate_every` counts epochs: the last is evaluated too, with 0 none
    is; plateau schedules look at every one. `progress_every` is in seconds. In the `blocks_first` epochs attention
    blocks alone are trained.
    """

    seed: int = 0
    device: str = "cpu"
    precision: Precision = "fp32"
    channels_last: bool = True
    compile: bool = False
    accumulate: int = 1
    ema: float | None = None
    sync_batchnorm: bool = False
    checkpoint: Path | None = None
    checkpoint_every: int | None = None
    checkpoint_seconds: float | None = None
    checkpoint_epochs: bool = True
    resume: bool = False
    evaluate_every: int = 1
    progress_every: float = 1.0
    skip_corrupt: bool = False
    blocks_first: int = 0
    identity: dict[str, Any] = field(default_factory=dict)


Tested: TypeAlias = dict[str, float | None]
"""What a test found, by names of `EpochRow`."""


class BatchSource(Protocol):
    """Batches as a pure function of (seed, epoch, step): `batch` images over all processes, `steps` an epoch."""

    @property
    def batch(self) -> int:
        """Global batch size."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Own batches from step `start` of an epoch."""


class Objective(Protocol):
    """What the training loop asks of a task; a batch is what `batches` yields."""

    @property
    def batches(self) -> BatchSource:
        """The training data."""

    @property
    def unread(self) -> set[str]:
        """The unreadable images that this process left out so far."""

    def identity(self) -> list[Any]:
        """What a checkpoint's data must agree in."""

    def parts(self, batch: Any, count: int) -> Sequence[Any]:
        """A batch cut for `count` backward passes; empty when not one of its images could be read."""

    def loss(self, forward: Any, part: Any, batch: Any) -> Tensor:
        """What a part contributes to the mean loss of its batch."""

    def tested(self, network: nn.Module) -> Tested:
        """The network on the test split."""


Aim: TypeAlias = Callable[[Any, Recipe, Settings, World], Objective]
"""What makes the objective of a data set: `Classifying`, or that of another task."""


class Classifying:
    """Cross entropy with one label an image, tested by top-1 and top-5 error."""

    def __init__(self, data: DataSet, recipe: Recipe, settings: Settings, world: World) -> None:
        """Raise `UsageError` where the recipe is for other networks."""
        if recipe.task != "classification":
            raise UsageError(f"recipe {recipe.name} is for detectors", "use imagenet or cifar")
        self.data, self.recipe, self.settings, self.world = data, recipe, settings, world
        self.device = torch.device(settings.device)
        self.corrupt: list[Path] = []
        self.untested: tuple[str, ...] = ()
        self.batches = Batches(
            data.training(),
            recipe.batch_size,
            settings.seed,
            recipe.augmentation,
            recipe.size or data.size,
            world.rank,
            world.size,
            recipe.max_steps,
            self.corrupt if settings.skip_corrupt else None,
            tuple(round(255 * mean) for mean in data.mean),
            settings.device,
        )

    @property
    def unread(self) -> set[str]:
        """The unreadable images that this process left out so far."""
        return {*map(str, self.corrupt), *self.untested}

    def identity(self) -> list[Any]:
        """What a checkpoint's data must agree in."""
        return [self.data.name, len(self.batches.split), len(self.data.classes)]

    def parts(self, batch: tuple[Tensor, Tensor], count: int) -> list[tuple[Tensor, Tensor]]:
        """Images (n, C, H, W) and labels (n,) in `count` parts."""
        images, labels = batch
        return list(zip(images.tensor_split(count), labels.tensor_split(count))) if len(labels) else []

    def loss(self, forward: Any, part: tuple[Tensor, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        """What these images contribute to the mean loss of the batch."""
        images, labels = part
        x = self.inputs(images)
        with autocast(self.device, self.settings.precision):
            logits = forward(x)
        return self.entropy(logits, labels, len(batch[1]))

    def inputs(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) uint8 as the network takes them."""
        return normalised(laid_out(images, self.device, self.settings.channels_last), self.data.mean, self.data.std)

    def entropy(self, logits: Tensor, labels: Tensor, count: int) -> Tensor:
        """The cross entropy of logits (n, classes), as a part of the mean over `count` images."""
        target = labels.to(self.device, non_blocking=True)
        summed = F.cross_entropy(logits.float(), target, label_smoothing=self.recipe.label_smoothing, reduction="sum")
        return summed / count

    def tested(self, network: nn.Module) -> Tested:
        """The errors on the test split."""
        viewing = Viewing(
            size=self.data.size,
            precision=self.settings.precision,
            channels_last=self.settings.channels_last,
            device=self.settings.device,
            skip_corrupt=self.settings.skip_corrupt,
            batch=256 if self.data.size <= 64 else 64,
        )
        seen = predict(network, self.data, self.data.test, viewing, self.world)
        self.untested = seen.skipped
        return {"test_loss": seen.loss, "top1_err": seen.top1_err, "top5_err": seen.top5_err}
