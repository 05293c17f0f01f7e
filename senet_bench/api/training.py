"""`train`: one network by a recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from senet_bench.api import options as o
from senet_bench.api.networks import Switches, groups_option
from senet_bench.api.parameters import within
from senet_bench.api.reading import RESULTS, Results
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.api.trials import fetch_data
from senet_bench.core.datasets import CHOICES, check_side
from senet_bench.core.specs import ModelSpec
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.run.train import Lesson

TrainedSide = Annotated[
    int | None,
    typer.Option(
        "--img-size",
        min=1,
        max=o.LARGEST_SIDE,
        help="Image side in pixels instead of the network's own.",
        rich_help_panel=Switches.PANEL,
    ),
]
Model = Annotated[str, typer.Argument(help="The network.")]


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is learnt, and how."""

    PANEL: ClassVar[str] = "What is learnt, and how"
    dataset: Annotated[str, o.dataset_option(CHOICES)] = "digits"
    data: o.DataFolder = None
    download: o.Download = False
    recipe: Annotated[str | None, typer.Option("--recipe", help="How to train; default: the data set's own.")] = None
    epochs: o.Epochs = None
    batch_size: Annotated[int | None, o.batch_option("Images a step over all processes; the learning rate scales.")] = (
        None
    )
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
    switches: Switches = Switches(),
    img_size: TrainedSide = None,
    cardinality: Annotated[int | None, groups_option(Switches.PANEL)] = None,
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
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Result:
    """Train a network by a recipe of the paper; under torchrun, on all its processes."""
    if lessons.download:
        fetch_data(lessons.dataset, lessons.data)
    from senet_bench.core.store import Store
    from senet_bench.run import tables, train
    from senet_bench.run.training import TrainingRequest

    spec = _spec(model, lessons.dataset, switches, img_size, cardinality)
    request = TrainingRequest(
        spec=spec,
        dataset=lessons.dataset,
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
    record = watch.follow(train.train(request, Store(results), _lesson(spec)))
    return Result.of(tables.training_document(record.document), record)


def _spec(model: str, dataset: str, switches: Switches, img_size: int | None, cardinality: int | None) -> ModelSpec:
    """The network to be trained; `UsageError` on switches or a size that would change nothing in it."""
    spec = switches.network(model, img_size, cardinality=cardinality)
    if cardinality is not None and "cardinality" not in spec.options:
        raise UsageError(f"{spec.name} has no grouped convolutions", "leave out --cardinality")
    if img_size is not None and spec.task == "detection":
        raise UsageError("detectors see whole images, at the recipe's scale", "leave out --img-size")
    check_side(dataset, img_size)
    return spec


def _lesson(spec: ModelSpec) -> Lesson:
    """What the network's task brings to training."""
    if spec.task == "detection":
        from senet_bench.detection.objective import detection

        return detection()
    from senet_bench.run.train import classification

    return classification()
