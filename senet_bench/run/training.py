"""What `train` is asked: a network, what it learns from and how, as options and as the identity of a trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_bench.core.identity import Identity, NetworkIdentity, recipe_facts
from senet_bench.core.learning import TrainConditions
from senet_bench.core.specs import ModelSpec, Precision
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.core.recipes import Recipe
    from senet_bench.data.sets import DataSet
    from senet_bench.training.objective import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What `train` is asked: the network, what it learns from, how, and where its weights go.

    `average` chooses between the raw weights of a file and their average (EMA). `spec` has the sizes and switches
    that were asked for; `trunk_weights` are those of a classifier, for the trunk of a detector. What was trained
    before is taken as it is unless it is to be trained `fresh`. Attention blocks alone are trained in the
    `blocks_first` epochs.
    """

    spec: ModelSpec
    dataset: str
    folder: Path | None = None
    recipe: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "fp32"
    channels_last: bool = True
    compile: bool = False
    sync_bn: bool = False
    accumulate: int = 1
    ema: float | None = None
    weights: str | None = None
    average: bool | None = None
    trunk_weights: str | None = None
    out: Path | None = None
    resume: bool = False
    track: Path | None = None
    skip_corrupt: bool = False
    fresh: bool = False
    blocks_first: int = 0

    def check(self) -> None:
        """Raise `UsageError` on options that do not go together."""
        from senet_bench.core.datasets import dataset

        spec = self.spec
        dataset(self.dataset, spec.task)
        recipe = self.resolved()
        if recipe.task != spec.task:
            fits = "coco" if spec.task == "detection" else "imagenet"
            raise UsageError(f"recipe {recipe.name} is for {recipe.task}, {spec.name} for {spec.task}", f"use {fits}")
        self._check_numbers()
        self._check_finetuning()
        if self.trunk_weights is not None and spec.trunk is None:
            raise UsageError(f"{spec.name} is no detector on a trunk", "give its weights with --weights")
        if self.trunk_weights is not None and self.weights is not None:
            raise UsageError("--weights and --trunk-weights exclude each other", "choose one of them")

    def _check_finetuning(self) -> None:
        """Raise `UsageError` on what goes with no trained network, or with none that has attention."""
        from senet_bench.core.recipes import is_finetune

        finetunes = is_finetune(self.resolved().name)
        if finetunes and self.weights is None:
            raise UsageError("--recipe finetune starts from trained weights, and none are given", "add --weights FILE")
        if finetunes and self.spec.task == "detection":
            raise UsageError("--recipe finetune is for classifiers", "leave out --recipe")
        check_blocks_first(self.blocks_first, self.resolved().epochs, [self.spec], finetunes=finetunes)

    def _check_numbers(self) -> None:
        """Raise `UsageError` on a number that nothing can be trained with."""
        if self.accumulate < 1:
            raise UsageError(f"--accumulate must be a positive integer, not {self.accumulate}", "use 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"--ema {self.ema:g} is no decay of an average", "use 0.9999")
        if self.lr is not None and not 0 < self.lr < 100:
            raise UsageError(f"a learning rate of {self.lr:g} cannot be trained with", "use 0.1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be an integer from 0 to 2^63 - 1, not {self.seed}", "use 0")

    @property
    def freeze_at(self) -> int:
        """The last stage of a detector's trunk that keeps its weights; 0 where it starts from none."""
        return self.resolved().freeze_at if self.trunk_weights or self.weights else 0

    @property
    def is_trial(self) -> bool:
        """Whether a classifier starts as in a sweep, each layer drawn by its name that no weights are given for.

        With weights that is so where a trained network is fine-tuned.
        """
        from senet_bench.core.recipes import is_finetune

        finetunes = self.average is None and is_finetune(self.resolved().name)
        return self.spec.task == "classification" and (self.weights is None or finetunes)

    def prepared(self) -> TrainingRequest:
        """The same with its weights by their whole name, and with blocks that start as the identity if fine-tuned."""
        from senet_bench.core.recipes import is_finetune
        from senet_bench.training.start import as_identity, own_weights
        from senet_bench.training.weights import check_draw

        if self.weights is None or self.spec.task == "detection":
            return self
        check_draw(self.weights, self.dataset, [self.seed])
        named = replace(self, weights=own_weights(self.spec, self.weights))
        if not is_finetune(self.resolved().name):
            return named
        return replace(named, spec=as_identity(self.spec, named.weights or ""))

    def resolved(self) -> Recipe:
        """The recipe with batch size (the learning rate scaled along), epochs and learning rate as asked."""
        from senet_bench.core import recipes

        own = recipes.DEFAULTS.get(self.dataset, "cifar")
        recipe = recipes.recipe(self.recipe or own, own)
        recipe = recipe.lasting(self.epochs).scaled(self.batch_size)
        return recipe if self.lr is None else replace(recipe, lr=self.lr)

    def filled(self, images: int) -> TrainingRequest:
        """The same with a batch that so many training images fill, so that what is told of it is what is done."""
        return replace(self, batch_size=self.resolved().filled(images).batch_size)

    def settings(self, checkpoint: Path) -> Settings:
        """How the recipe is carried out."""
        from senet_bench.training.objective import Settings
        from senet_bench.training.trials import CHECKPOINT_S

        return Settings(
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            channels_last=self.channels_last,
            compile=self.compile,
            sync_batchnorm=self.sync_bn,
            checkpoint_seconds=CHECKPOINT_S,
            accumulate=self.accumulate,
            ema=self.ema,
            checkpoint=checkpoint,
            resume=self.resume,
            skip_corrupt=self.skip_corrupt,
            blocks_first=self.blocks_first,
        )

    def identity(self, images: Any) -> Identity:
        """What decides the weights that come out."""
        from senet_bench.training.identity import data_of, read_data

        recipe = self.resolved()
        return Identity(
            network=NetworkIdentity.of(self.spec),
            data=data_of(self.dataset) if self.dataset.startswith("digits") else read_data(images),
            recipe=recipe_facts(recipe),
            batch=recipe.batch_size,
            seed=self.seed,
            precision=self.precision,
            start=self._start(),
            blocks_first=self.blocks_first,
            ema=self.ema,
            accumulate=self.accumulate,
        )

    def _start(self) -> str:
        """What the training starts from, as identities say it."""
        from senet_bench.training.identity import start_of

        if self.is_trial:
            return "" if self.weights is None else start_of(self.weights, by_name=True)
        return start_of(self.weights, self.trunk_weights, self.average)

    def described(self) -> dict[str, Any]:
        """What was asked, as it is written into the weights."""
        return {
            "model": self.spec.name,
            "dataset": self.dataset,
            "recipe": self.resolved().name,
            "epochs": self.resolved().epochs,
            "batch_size": self.resolved().batch_size,
            "lr": self.resolved().lr,
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
            **self._of_detector(),
        }

    def conditions(self, notes: Sequence[str], processes: int) -> TrainConditions:
        """What the training's document says it was asked."""
        deviations = list(self.resolved().deviations)
        return TrainConditions(**self.described(), deviations=deviations, notes=list(notes), processes=processes)

    def about_processes(self, processes: int) -> tuple[str, ...]:
        """What is said of a training by several processes, which see a part of each batch."""
        if processes == 1 or self.sync_bn:
            return ()
        images = self.resolved().batch_size // processes
        return (f"BatchNorm over the {images} images of each of {processes} processes (--sync-bn: over all)",)

    def read(self) -> DataSet:
        """The images to learn from; files are shown at the network's own size, as `evaluate` shows them."""
        from senet_bench.data import sets

        return sets.load_images(self.dataset, self.folder, draw=self.seed).seen_at(self.spec.input_size[1])

    def _of_detector(self) -> dict[str, Any]:
        detects = self.spec.task == "detection"
        return {"trunk_weights": self.trunk_weights, "freeze_at": self.freeze_at} if detects else {}


def check_blocks_first(epochs: int, of: int, specs: Sequence[ModelSpec], *, finetunes: bool) -> None:
    """Raise `UsageError` where attention blocks alone cannot be trained in the first epochs of so many."""
    if not epochs:
        return
    if not finetunes:
        raise UsageError("--blocks-first is for networks that are trained already", "add --recipe finetune --weights W")
    if epochs > of:
        raise UsageError(
            f"--blocks-first {epochs} is more than the {of} epochs of the recipe", "give fewer, or --epochs"
        )
    if all(spec.attention is None for spec in specs):
        attach = "add --attach" if specs[0].outside else "name a network with attention"
        raise UsageError(f"--blocks-first trains attention blocks, and {specs[0].name} has none", attach)
