"""`train`: one network by a recipe, resumable at any moment, alone or as one process of a torchrun job."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_bench.core.identity import Identity, NetworkIdentity, training
from senet_bench.core.learning import EpochRow, TrainConditions, TrainSummary
from senet_bench.core.learning import Training as Document
from senet_bench.core.progress import Progress, Steps, retold
from senet_bench.core.specs import ModelSpec, Precision
from senet_bench.core.store import Store, check_writable
from senet_bench.errors import UsageError
from senet_bench.run import reuse
from senet_bench.run.record import Record, new_facts

if TYPE_CHECKING:
    from senet_bench.core.recipes import Recipe
    from senet_bench.data.sets import DataSet
    from senet_bench.train.distributed import World
    from senet_bench.train.objective import Aim, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What `train` is asked: the network, what it learns from, how, and where its weights go.

    `spec` has the sizes and switches that were asked for; `trunk_weights` are those of a classifier, for the trunk of a
    detector. What was trained before is taken as it is unless it is to be trained `fresh`.
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
    accumulate: int = 1
    ema: float | None = None
    weights: str | None = None
    trunk_weights: str | None = None
    out: Path | None = None
    resume: bool = False
    track: Path | None = None
    skip_corrupt: bool = False
    fresh: bool = False

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
        if self.trunk_weights is not None and spec.trunk is None:
            raise UsageError(f"{spec.name} is no detector on a trunk", "give its weights with --weights")
        if self.trunk_weights is not None and self.weights is not None:
            raise UsageError("--weights and --trunk-weights exclude each other", "choose one of them")

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
        """Whether a classifier starts as in a sweep, each layer's weights drawn by its name: from no weights."""
        return self.spec.task == "classification" and self.weights is None

    def resolved(self) -> Recipe:
        """The recipe with batch size (the learning rate scaled along), epochs and learning rate as asked."""
        from senet_bench.core import recipes

        found = recipes.recipe(self.recipe or recipes.DEFAULTS.get(self.dataset, "cifar"))
        found = found.lasting(self.epochs).scaled(self.batch_size)
        return found if self.lr is None else replace(found, lr=self.lr)

    def settings(self, checkpoint: Path) -> Settings:
        """How the recipe is carried out."""
        from senet_bench.train.objective import Settings

        spec = self.spec
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

    def identity(self, images: Any) -> Identity:
        """What decides the weights that come out."""
        from senet_bench.train.identity import data_of, described, start_of

        recipe = self.resolved()
        return Identity(
            network=NetworkIdentity.of(self.spec),
            data=data_of(self.dataset) if self.dataset.startswith("digits") else described(images),
            recipe=training(recipe),
            batch=recipe.batch_size,
            seed=self.seed,
            precision=self.precision,
            start="" if self.is_trial else start_of(self.weights, self.trunk_weights),
            ema=self.ema,
            accumulate=self.accumulate,
        )

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

    def read(self) -> DataSet:
        """The images to learn from; files are shown at the network's own size, as `evaluate` shows them."""
        from senet_bench.data import sets

        images = sets.load(self.dataset, self.folder, draw=self.seed)
        files = isinstance(images.test, sets.Files)
        return replace(images, size=self.spec.input_size[1]) if files else images

    def _of_detector(self) -> dict[str, Any]:
        detects = self.spec.task == "detection"
        return {"trunk_weights": self.trunk_weights, "freeze_at": self.freeze_at} if detects else {}


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a task brings to training: how its images are read, its objective, and how its network is made ready.

    `prepare` changes the network in place, before its first step, and gives what a reader must know of that.
    """

    read: Callable[[Training], Any]
    objective: Aim
    prepare: Callable[[Training, Any], tuple[str, ...]]


def classification() -> Lesson:
    """The lesson of classifiers."""
    from senet_bench.train.objective import Classifying

    return Lesson(Training.read, Classifying, lambda *_: ())


def train(asked: Training, store: Store, lesson: Lesson) -> Steps[Record[Document]]:
    """The record of a training run, its weights beside it; progress about once a second and every epoch.

    What is stored with its weights is not trained again. Under torchrun every process trains, and the first alone
    writes.
    """
    from senet_bench.bench.machine import check_conditions
    from senet_bench.core.specs import Conditions
    from senet_bench.train import loop, weights
    from senet_bench.train.distributed import gathered, joined

    check_conditions(Conditions(device=asked.device, precision=asked.precision))
    asked.check()
    store.check()
    tracker = _tracker(asked.track)
    images = lesson.read(asked)
    identity = asked.identity(images)
    out = _out(asked, store, identity.key)
    with joined(asked.device) as world:
        before = reuse.before(store, identity.key, out, asked.is_trial, asked.resume)
        if all(gathered(before.complete and not asked.fresh, world)):
            return before.record(asked, store, out, world.size)
        network, about_weights = _built(asked, images)
        notes = [*images.notes, *about_weights, *lesson.prepare(asked, network), *before.notes()]
        conditions = asked.conditions(notes, world.size)
        record: Record[Document] = Record.begin(store, new_facts("train", conditions, TrainSummary()))
        settings = asked.settings(out.with_suffix(".checkpoint"))

        def ended(row: EpochRow) -> None:
            _put(record, world, rows=[*record.document.rows, row])
            _track(tracker, row)

        steps = loop.train(network, images, asked.resolved(), settings, world, lesson.objective, ended)
        yield from retold(steps, lambda step: _moment(record, step, settings.checkpoint))
        if world.is_main:
            weights.save(network, out, asked.spec, **asked.described(), key=identity.key)
            reuse.keep(asked, record, images, identity)
        last = _last(record.document.rows) or before.errors()
        _put(record, world, summary=TrainSummary(weights=str(out), checkpoint=str(settings.checkpoint), **last))
    return record


def _out(asked: Training, store: Store, key: str) -> Path:
    """Where the weights go; raises where they cannot, or where those of another training lie."""
    from senet_bench.train import weights

    model = asked.spec.name.replace(":", "-")
    name = f"{model}-{asked.dataset}-{asked.resolved().name}-{key[:8]}.safetensors"
    out = asked.out or store.weights / name
    out.parent.mkdir(parents=True, exist_ok=True)
    check_writable(out)
    weights.check_key(out, key)
    return out


def _moment(record: Record[Document], step: Progress, checkpoint: Path | None) -> Progress:
    """A moment of the training, which says how to go on from here where that is possible."""
    moment = record.progress(step.what, step.done, step.total)
    return replace(moment, remedy="go on with --resume") if checkpoint and checkpoint.is_file() else moment


def _put(record: Record[Document], world: World, **fields: Any) -> None:
    """Put fields of the document in place, stored by the first process alone."""
    if world.is_main:
        record.change(**fields)
    else:
        record.document = replace(record.document, **fields)


def _built(asked: Training, images: Any) -> tuple[Any, tuple[str, ...]]:
    import torch

    from senet_bench.models import build_spec
    from senet_bench.train import weights
    from senet_bench.train.trials import initialise_by_name

    spec = asked.spec
    torch.manual_seed(asked.seed)
    if asked.weights is None:
        network = build_spec(spec, len(images.classes), in_channels=images.channels)
        if asked.is_trial:
            initialise_by_name(network, asked.seed)
        return network, weights.load_trunk(network, spec, asked.trunk_weights) if asked.trunk_weights else ()
    loaded = weights.load(spec, asked.weights, classes=len(images.classes), in_channels=images.channels)
    return loaded.network, loaded.notes


def _last(rows: Sequence[EpochRow]) -> dict[str, Any]:
    """The errors, or average precisions, of the last epoch that was evaluated."""
    tested = [row for row in rows if row.top1_err is not None or row.ap is not None]
    names = ("epoch", "top1_err", "top5_err", "test_loss", "ap", "ap50")
    return {name: getattr(tested[-1], name) for name in names} if tested else {}


def _tracker(folder: Path | None) -> Any:
    """A writer of TensorBoard event files, None when not asked for."""
    if folder is None:
        return None
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise UsageError("TensorBoard is not installed", "run: python -m pip install 'senet-bench[track]'") from error
    return module.SummaryWriter(str(folder))


def _track(tracker: Any, row: EpochRow) -> None:
    if tracker is None:
        return
    for name, value in asdict(row).items():
        if name not in ("epoch", "epochs") and value is not None:
            tracker.add_scalar(name, value, row.epoch)
    tracker.flush()
