"""`train`: one network by a recipe, resumable at any moment, alone or as one process of a torchrun job."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_bench.core.catalog import resolve
from senet_bench.core.identity import Identity, Network, training
from senet_bench.core.results import AnyFacts
from senet_bench.core.specs import Precision
from senet_bench.core.store import Store, check_writable
from senet_bench.errors import UsageError
from senet_bench.run.cases import Changes
from senet_bench.run.record import Event, new_facts

if TYPE_CHECKING:
    from senet_bench.core.recipes import Recipe
    from senet_bench.data.sets import DataSet
    from senet_bench.detection.coco import DetectionSet
    from senet_bench.train.distributed import World
    from senet_bench.train.events import EpochEnd, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What `train` is asked: the network, what it learns from, how, and where its weights go.

    `trunk_weights` are those of a classifier, for the trunk of a detector.
    """

    model: str
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
    accumulate: int = 1
    ema: float | None = None
    weights: str | None = None
    trunk_weights: str | None = None
    out: Path | None = None
    resume: bool = False
    track: Path | None = None
    skip_corrupt: bool = False
    changes: Changes = field(default_factory=Changes)

    def check(self) -> None:
        """Raise `UsageError` on options that do not go together."""
        from senet_bench.core.datasets import dataset

        spec = resolve(self.model)
        dataset(self.dataset, spec.task)
        recipe = self.resolved()
        if recipe.task != spec.task:
            fits = "coco" if spec.task == "detection" else "imagenet"
            raise UsageError(f"recipe {recipe.name} is for {recipe.task}, {spec.name} for {spec.task}", f"use {fits}")
        if self.trunk_weights is not None and spec.trunk is None:
            raise UsageError(f"{spec.name} is no detector on a trunk", "give its weights with --weights")
        if self.trunk_weights is not None and self.weights is not None:
            raise UsageError("--weights and --trunk-weights exclude each other", "choose one of them")

    @property
    def freeze_at(self) -> int:
        """The last stage of a detector's trunk that keeps its weights; 0 where it starts from none."""
        return self.resolved().freeze_at if self.trunk_weights or self.weights else 0

    def resolved(self) -> Recipe:
        """The recipe with batch size (the learning rate scaled along), epochs and learning rate as asked."""
        from senet_bench.core import recipes

        found = recipes.recipe(self.recipe or recipes.DEFAULTS.get(self.dataset, "cifar"))
        found = found.lasting(self.epochs).scaled(self.batch_size)
        return found if self.lr is None else replace(found, lr=self.lr)

    def settings(self, checkpoint: Path) -> Settings:
        """How the recipe is carried out."""
        from senet_bench.train.events import Settings

        spec = self.changes.apply(resolve(self.model))
        identity = {"model": spec.name, "attention": asdict(spec.attention) if spec.attention else None}
        return Settings(
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            channels_last=self.channels_last,
            compile=self.compile,
            accumulate=self.accumulate,
            ema=self.ema,
            checkpoint=checkpoint,
            resume=self.resume,
            skip_corrupt=self.skip_corrupt,
            identity={**identity, "dataset": self.dataset, **self._of_detector()},
        )

    def identity(self, images: DataSet | DetectionSet) -> Identity:
        """What decides the weights that come out."""
        from senet_bench.train.identity import data_of, described, start_of

        spec, recipe = self.changes.apply(resolve(self.model)), self.resolved()
        if self.changes.cardinality is not None:
            spec = replace(spec, options={**spec.options, "cardinality": self.changes.cardinality})
        return Identity(
            network=Network.of(spec),
            data=data_of(self.dataset) if self.dataset.startswith("digits") else described(images),
            recipe=training(recipe),
            batch=recipe.batch_size,
            seed=self.seed,
            precision=self.precision,
            start=start_of(self.weights, self.trunk_weights),
            ema=self.ema,
            accumulate=self.accumulate,
        )

    def described(self) -> dict[str, Any]:
        """The conditions as they are stored, and written into the weights."""
        return {
            "model": resolve(self.model).name,
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

    def _of_detector(self) -> dict[str, Any]:
        detects = resolve(self.model).task == "detection"
        return {"trunk_weights": self.trunk_weights, "freeze_at": self.freeze_at} if detects else {}


def train(asked: Training, store: Store) -> Iterator[Event[AnyFacts]]:
    """Progress about once a second and every epoch; the last event has the whole run, its weights beside it.

    Under torchrun every process yields its events, and the first alone writes.
    """
    from senet_bench.bench.session import check_conditions
    from senet_bench.core.specs import Conditions
    from senet_bench.data import sets
    from senet_bench.detection import coco
    from senet_bench.train import weights
    from senet_bench.train.distributed import joined

    check_conditions(Conditions(device=asked.device, precision=asked.precision))
    asked.check()
    store.check()
    recipe = asked.resolved()
    tracker = _tracker(asked.track)
    images: DataSet | DetectionSet
    if resolve(asked.model).task == "detection":
        images = coco.load(asked.dataset, asked.folder)
    else:
        images = sets.load(asked.dataset, asked.folder, draw=asked.seed)
    key = asked.identity(images).key
    name = f"{resolve(asked.model).name}-{asked.dataset}-{recipe.name}-{key[:8]}.safetensors"
    out = asked.out or store.root / "weights" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    check_writable(out)
    weights.check_key(out, key)
    with joined(asked.device) as world:
        yield from _trained(asked, recipe, images, out, store, tracker, world)


def _trained(
    asked: Training,
    recipe: Recipe,
    images: DataSet | DetectionSet,
    out: Path,
    store: Store,
    tracker: Any,
    world: World,
) -> Iterator[Event[AnyFacts]]:
    from senet_bench.train import loop, weights
    from senet_bench.train.events import EpochEnd

    spec = asked.changes.apply(resolve(asked.model))
    network, notes = _initial(asked, images)
    run = new_facts("train", {**asked.described(), "notes": [*images.notes, *notes], "processes": world.size})
    path, checkpoint = store.new_path(run), out.with_suffix(".checkpoint")
    for event in loop.train(network, images, recipe, asked.settings(checkpoint), world):
        if not isinstance(event, EpochEnd):
            what = f"epoch {event.epoch}/{event.epochs}, loss {event.loss:.3f}, {event.images_per_second:.0f} images/s"
            yield Event(event.epoch - 1 + event.step / event.steps, event.epochs, what, run, path)
            continue
        run = replace(run, rows=[*run.rows, asdict(event)])
        _record(tracker, event)
        if world.is_main:
            store.write(run, path)
        yield Event(event.epoch, event.epochs, f"epoch {event.epoch}/{event.epochs}", run, path)
    run = replace(run, summary={"weights": str(out), "checkpoint": str(checkpoint), **_last(run)})
    if world.is_main:
        weights.save(network, out, spec, **asked.described(), key=asked.identity(images).key)
        store.write(run, path)
    yield Event(recipe.epochs, recipe.epochs, "done", run, path)


def _initial(asked: Training, images: DataSet | DetectionSet) -> tuple[Any, tuple[str, ...]]:
    """The network to be trained: He-initialised by the seed, or from weights, a detector's first stages frozen."""
    network, notes = _built(asked, images)
    if resolve(asked.model).task == "detection":
        network.freeze(asked.freeze_at)
        notes = (*notes, *(() if asked.freeze_at else (FROM_NOTHING,)))
    return network, notes


FROM_NOTHING = "the trunk starts from no weights, so that none of its stages is frozen (the paper: from ImageNet's)"


def _built(asked: Training, images: DataSet | DetectionSet) -> tuple[Any, tuple[str, ...]]:
    import torch

    from senet_bench.models import build_spec
    from senet_bench.train import weights

    spec = asked.changes.apply(resolve(asked.model))
    torch.manual_seed(asked.seed)
    if asked.weights is None:
        network = build_spec(spec, len(images.classes), in_channels=images.channels)
        return network, weights.load_trunk(network, spec, asked.trunk_weights) if asked.trunk_weights else ()
    loaded = weights.load(spec, asked.weights, classes=len(images.classes), in_channels=images.channels)
    return loaded.network, loaded.notes


def _last(run: AnyFacts) -> dict[str, Any]:
    """The errors, or average precisions, of the last epoch that was evaluated."""
    for names in (("epoch", "top1_err", "top5_err", "test_loss"), ("epoch", "ap", "ap50")):
        evaluated = [row for row in run.rows if row.get(names[1]) is not None]
        if evaluated:
            return {name: evaluated[-1][name] for name in names}
    return {}


def _tracker(folder: Path | None) -> Any:
    """A writer of TensorBoard event files, None when not asked for."""
    if folder is None:
        return None
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise UsageError("TensorBoard is not installed", "run: python -m pip install 'senet-bench[track]'") from error
    return module.SummaryWriter(str(folder))


def _record(tracker: Any, event: EpochEnd) -> None:
    if tracker is None:
        return
    for name, value in asdict(event).items():
        if name not in ("epoch", "epochs") and value is not None:
            tracker.add_scalar(name, value, event.epoch)
    tracker.flush()
