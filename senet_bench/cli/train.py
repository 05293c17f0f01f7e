"""The commands `train` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from senet_bench.cli import options as o
from senet_bench.core.catalog import resolve
from senet_bench.core.datasets import CHOICES
from senet_bench.core.progress import Steps
from senet_bench.core.results import AnyFacts
from senet_bench.core.store import Store

if TYPE_CHECKING:
    from senet_bench.run.evaluate import Evaluation
    from senet_bench.run.record import Record
    from senet_bench.run.train import Lesson

Model = Annotated[str, typer.Argument(help="The network.")]
Models = Annotated[list[str], typer.Argument(help="One network, or several to be compared on the same images.")]
NeededDataset = Annotated[
    str,
    typer.Option("--dataset", help=CHOICES),
]
SkipCorrupt = Annotated[bool, typer.Option("--skip-corrupt", help="Leave unreadable images out, and count them.")]


def train(
    model: Model,
    dataset: NeededDataset = "digits",
    data: o.Data = None,
    recipe: o.RecipeOption = None,
    epochs: o.Epochs = None,
    batch_size: Annotated[
        int | None,
        typer.Option("-b", "--batch-size", help="Images a step over all processes; the learning rate scales."),
    ] = None,
    lr: o.LearningRate = None,
    reduction: Annotated[str | None, typer.Option("-r", "--reduction", help="r, or one r a stage.")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Start from a file or timm:, torchvision: name.")
    ] = None,
    trunk_weights: Annotated[
        str | None, typer.Option("--trunk-weights", help="A classifier's weights for a detector's trunk: file or name.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the weights go (.safetensors).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside --out.")] = False,
    device: o.Device = "cpu",
    precision: o.PrecisionOption = o.Precision.fp32,
    torchcompile: o.TorchCompile = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last/--no-channels-last", help="NHWC memory format.")
    ] = True,
    accumulate: Annotated[int, typer.Option("--accumulate", help="Backward passes a step.")] = 1,
    ema: Annotated[float | None, typer.Option("--ema", help="Decay of an average of the weights: 0.9999.")] = None,
    track: Annotated[Path | None, typer.Option("--track", help="Write TensorBoard event files to this folder.")] = None,
    skip_corrupt: SkipCorrupt = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, order and augmentation.")] = 0,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Train a network by a recipe of the paper; under torchrun, on all its processes."""
    o.check_output(output)
    from senet_bench.run import cases, tables, train
    from senet_bench.show import terminal

    asked = train.Training(
        model=model,
        dataset=dataset.lower(),
        folder=data,
        recipe=recipe,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        device=device,
        precision=precision.value,
        channels_last=channels_last,
        compile=torchcompile,
        accumulate=accumulate,
        ema=ema,
        weights=weights,
        trunk_weights=trunk_weights,
        out=out,
        resume=resume,
        track=track,
        skip_corrupt=skip_corrupt,
        changes=cases.Changes(attention=o.switches({"reduction": reduction})),
    )
    steps = train.train(asked, Store(results), _lesson(model))
    record = terminal.run(steps, quiet=quiet or no_progress)
    if terminal.is_first_process():
        o.emit(tables.training(record.document), format, output)
        terminal.remark(f"stored in {record.path}", quiet=quiet)


def evaluate(
    model: Models,
    weights: Annotated[
        list[str], typer.Option("--weights", help="A file, or a timm: or torchvision: name; one for each network.")
    ],
    dataset: NeededDataset = "imagenet",
    data: o.Data = None,
    img_size: o.ImgSize = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", help="Images a forward pass; default: 64, of a detector 1.")
    ] = None,
    device: o.Device = "cpu",
    precision: o.PrecisionOption = o.Precision.fp32,
    fast: Annotated[bool, typer.Option("--fast", help="Faster resizing, within one grey level of PIL's.")] = False,
    cache: Annotated[Path | None, typer.Option("--cache", help="Keep the crops (uint8) in this folder.")] = None,
    per_class: Annotated[
        Path | None, typer.Option("--per-class", help="Write the errors of every class (CSV).")
    ] = None,
    keep_predictions: Annotated[
        Path | None, typer.Option("--keep-predictions", help="Keep each image's prediction in this folder (.npz).")
    ] = None,
    skip_corrupt: SkipCorrupt = False,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Top-1 and top-5 error of networks with weights, AP of detectors; of several, the difference to the first."""
    o.check_output(output)
    from senet_bench.run import evaluate, tables
    from senet_bench.show import terminal

    asked = evaluate.Evaluation(
        models=tuple(model),
        weights=tuple(weights),
        dataset=dataset.lower(),
        folder=data,
        size=img_size,
        batch_size=batch_size,
        device=device,
        precision=precision.value,
        fidelity="fast" if fast else "exact",
        cache=cache,
        per_class=per_class,
        predictions=keep_predictions,
        skip_corrupt=skip_corrupt,
    )
    record = terminal.run(_evaluating(asked, Store(results)), quiet=quiet or no_progress)
    o.emit(tables.evaluation(record.document), format, output)
    terminal.remark(f"stored in {record.path}", quiet=quiet)


def _lesson(model: str) -> Lesson:
    """What the network's task brings to training."""
    if resolve(model).task == "detection":
        from senet_bench.detection.training import detection

        return detection()
    from senet_bench.run.train import classification

    return classification()


def _evaluating(asked: Evaluation, store: Store) -> Steps[Record[AnyFacts]]:
    """The evaluation of detectors where one of the networks is one, else that of classifiers."""
    if any(resolve(model).task == "detection" for model in asked.models):
        from senet_bench.detection.evaluate import evaluate

        return evaluate(asked, store)
    from senet_bench.run.evaluate import evaluate

    return evaluate(asked, store)
