"""The commands `train` and `evaluate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from senet_bench.api import options as o
from senet_bench.api.parameters import within
from senet_bench.cli.showing import Showing
from senet_bench.core.datasets import CHOICES, DATASETS
from senet_bench.core.progress import Steps
from senet_bench.core.specs import ModelSpec
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.core.learning import Evaluation as Document
    from senet_bench.core.store import Store
    from senet_bench.run.evaluate import EvaluationRequest
    from senet_bench.run.record import Record
    from senet_bench.run.train import Lesson

TrainedSide = Annotated[
    int | None,
    typer.Option(
        "--img-size",
        min=1,
        max=o.LARGEST_SIDE,
        help="Image side in pixels instead of the network's own.",
        rich_help_panel=o.Switches.PANEL,
    ),
]
Model = Annotated[str, typer.Argument(help="The network.")]
Models = Annotated[list[str], typer.Argument(help="One network, several to be compared on the same images, or table2.")]


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is learnt, and how."""

    PANEL: ClassVar[str] = "What is learnt, and how"
    dataset: Annotated[str, typer.Option("--dataset", help=CHOICES)] = "digits"
    data: o.DataFolder = None
    download: o.Download = False
    recipe: Annotated[str | None, typer.Option("--recipe", help="How to train; default: the data set's own.")] = None
    epochs: o.Epochs = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "-b",
            "--batch-size",
            min=1,
            max=o.LARGEST_BATCH,
            help="Images a step over all processes; the learning rate scales.",
        ),
    ] = None
    lr: o.Rate = None
    accumulate: Annotated[
        int, typer.Option("--accumulate", min=1, max=o.LARGEST_BATCH, help="Backward passes a step.")
    ] = 1
    ema: Annotated[
        float | None, typer.Option("--ema", help="Decay of an average of the weights: 0.9999.", **within(0, 1))
    ] = None
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=o.LARGEST_SEED, help="Seed of weights, order and augmentation.")
    ] = 0
    skip_corrupt: o.SkipCorrupt = False


@dataclass(frozen=True, slots=True)
class Weights:
    """Where weights come from and go to."""

    PANEL: ClassVar[str] = "Weights"
    weights: Annotated[str | None, typer.Option("--weights", help="Start from a file or timm:, torchvision: name.")] = (
        None
    )
    blocks_first: o.BlocksFirst = 0
    average: o.EmaWeights = None
    trunk_weights: Annotated[
        str | None, typer.Option("--trunk-weights", help="A classifier's weights for a detector's trunk: file or name.")
    ] = None
    out: Annotated[Path | None, typer.Option("--out", help="Where the weights go (.safetensors).")] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside --out.")] = False
    fresh: o.Fresh = False
    track: Annotated[Path | None, typer.Option("--track", help="Write TensorBoard event files to this folder.")] = None


def train(
    model: Model,
    switches: o.Switches = o.Switches(),
    img_size: TrainedSide = None,
    lessons: Lessons = Lessons(),
    weights: Weights = Weights(),
    place: o.Where = o.Where(),
    torchcompile: Annotated[
        bool, typer.Option("--torchcompile", help="Compile the step.", rich_help_panel=o.Where.PANEL)
    ] = False,
    sync_bn: Annotated[
        bool,
        typer.Option(
            "--sync-bn",
            help="Under torchrun, BatchNorm over the whole batch; default: over each process's part.",
            rich_help_panel=o.Where.PANEL,
        ),
    ] = False,
    channels_last: Annotated[
        bool,
        typer.Option("--channels-last/--no-channels-last", help="NHWC memory format.", rich_help_panel=o.Where.PANEL),
    ] = True,
    showing: Showing = Showing(),
) -> None:
    """Train a network by a recipe of the paper; under torchrun, on all its processes."""
    showing.check()
    if lessons.download:
        o.fetch_data(lessons.dataset.lower(), lessons.data)
    from senet_bench.run import tables, train
    from senet_bench.run.training import TrainingRequest
    from senet_bench.show import terminal

    spec = _spec(model, lessons.dataset, switches, img_size)
    asked = TrainingRequest(
        spec=spec,
        dataset=lessons.dataset.lower(),
        folder=lessons.data,
        recipe=lessons.recipe,
        epochs=lessons.epochs,
        batch_size=lessons.batch_size,
        lr=lessons.lr,
        seed=lessons.seed,
        device=place.device,
        precision=place.precision,
        channels_last=channels_last,
        compile=torchcompile,
        sync_bn=sync_bn,
        accumulate=lessons.accumulate,
        ema=lessons.ema,
        skip_corrupt=lessons.skip_corrupt,
        **asdict(weights),
    )
    record = showing.follow(train.train(asked, showing.store, _lesson(spec)))
    if terminal.is_first_process():
        showing.emit(tables.training_document(record.document))
        showing.stored(record.path)


@dataclass(frozen=True, slots=True)
class TestImages:
    """The images that networks are shown, and how."""

    PANEL: ClassVar[str] = "What is shown to the networks"
    dataset: Annotated[str, typer.Option("--dataset", help=CHOICES)] = "imagenet"
    data: o.DataFolder = None
    download: o.Download = False
    img_size: o.ImageSide = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "-b",
            "--batch-size",
            min=1,
            max=o.LARGEST_BATCH,
            help="Images a forward pass; default: 64, of a detector 1.",
        ),
    ] = None
    fast: Annotated[bool, typer.Option("--fast", help="Faster resizing, within one grey level of PIL's.")] = False
    cache: Annotated[Path | None, typer.Option("--cache", help="Keep the crops (uint8) in this folder.")] = None
    skip_corrupt: o.SkipCorrupt = False
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", help="v2: --data holds ImageNetV2; or ImageNet-Real's real.json for the validation images."
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class PerImage:
    """What is kept of each image and class."""

    PANEL: ClassVar[str] = "How it is shown and kept"
    per_class: Annotated[Path | None, typer.Option("--per-class", help="Write the errors of every class (CSV).")] = None
    keep_predictions: Annotated[
        Path | None, typer.Option("--keep-predictions", help="Keep each image's prediction in this folder (.npz).")
    ] = None


def evaluate(
    model: Models,
    weights: Annotated[
        list[str],
        typer.Option(
            "--weights",
            help="A file, a key or a name in results/weights, or of timm: or torchvision:; one a network. "
            "released: the authors' own.",
        ),
    ],
    average: o.EmaWeights = None,
    shown: TestImages = TestImages(),
    place: o.Where = o.Where(),
    kept: PerImage = PerImage(),
    attach: Annotated[
        bool,
        typer.Option("--attach", help="Networks from outside with attention in.", rich_help_panel=o.Switches.PANEL),
    ] = False,
    replace: o.Replace = False,
    showing: Showing = Showing(),
) -> None:
    """Top-1 and top-5 error of networks with weights, AP of detectors; of several, the difference to the first."""
    showing.check()
    if shown.download:
        o.fetch_data(shown.dataset.lower(), shown.data)
    from senet_bench.run import evaluate, tables
    from senet_bench.run.released import weighted

    chosen = weighted(model, weights, shown.dataset.lower(), shown.img_size)
    asked = evaluate.EvaluationRequest(
        models=tuple(o.attached_name(name, attach=attach, replace=replace) for name in chosen.models),
        weights=tuple(map(showing.store.named_weights, chosen.weights)),
        average=average,
        dataset=shown.dataset.lower(),
        folder=shown.data,
        size=shown.img_size,
        batch_size=shown.batch_size,
        device=place.device,
        precision=place.precision,
        fidelity="fast" if shown.fast else "exact",
        cache=shown.cache,
        per_class=kept.per_class,
        predictions=kept.keep_predictions,
        skip_corrupt=shown.skip_corrupt,
        labels=shown.labels,
        notes=chosen.notes,
    )
    record = showing.follow(_evaluating(asked, showing.store))
    showing.emit(tables.evaluation(record.document))
    showing.stored(record.path)


def _spec(model: str, dataset: str, switches: o.Switches, img_size: int | None) -> ModelSpec:
    """The network to be trained; `UsageError` on switches or a size that would change nothing in it."""
    spec = switches.network(model, img_size)
    side = DATASETS[dataset.lower()].side if dataset.lower() in DATASETS else None
    if img_size is not None and spec.task == "detection":
        raise UsageError("detectors see whole images, at the recipe's scale", "leave out --img-size")
    if img_size not in (None, side) and side is not None:
        raise UsageError(f"--img-size is {side} on {dataset}, not {img_size}", "leave it out")
    return spec


def _lesson(spec: ModelSpec) -> Lesson:
    """What the network's task brings to training."""
    if spec.task == "detection":
        from senet_bench.detection.objective import detection

        return detection()
    from senet_bench.run.train import classification

    return classification()


def _evaluating(asked: EvaluationRequest, store: Store) -> Steps[Record[Document]]:
    """The evaluation of detectors where one of the networks is one, else that of classifiers."""
    if any(spec.task == "detection" for spec in asked.specs()):
        from senet_bench.detection.evaluate import evaluate

        return evaluate(asked, store)
    from senet_bench.run.evaluate import evaluate

    return evaluate(asked, store)
