"""The command `excitations`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from senet_bench.cli import options as o
from senet_bench.core.store import Store

if TYPE_CHECKING:
    from senet_bench.gates.excitations import Excitations

Model = Annotated[str, typer.Argument(help="The network: one with attention, or with --input-channels any.")]
Dataset = Annotated[
    str, typer.Option("--dataset", help="digits, digits-full, cifar10, cifar100, imagenet, places365 or folder.")
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", help="A file, or a timm: or torchvision: name; on digits a network is trained here."),
]
ImagesPerClass = Annotated[
    int | None, typer.Option("--images-per-class", help="Draw as many of each class (the paper: 50); default: all.")
]


def excitations(
    model: Model,
    dataset: Dataset = "digits",
    data: o.Data = None,
    weights: Weights = None,
    input_channels: Annotated[
        bool,
        typer.Option("--input-channels", help="Put an SE gate on the RGB input and show which colours it raises."),
    ] = False,
    classes: Annotated[
        str | None, typer.Option("--classes", help="Classes to show one by one: 3,8 or goldfish,pug; names or places.")
    ] = None,
    images_per_class: ImagesPerClass = None,
    channels: Annotated[int, typer.Option("--channels", help="Channels of a block to keep, uniformly spaced.")] = 64,
    near: Annotated[float, typer.Option("--near", help="How close to 0 or 1 a gate counts as saturated.")] = 0.05,
    removal: Annotated[
        bool, typer.Option("--removal/--no-removal", help="Measure the error without each block (two passes a block).")
    ] = True,
    reduction: Annotated[str | None, typer.Option("-r", "--reduction", help="r, or one r a stage.")] = None,
    excitation: Annotated[str | None, typer.Option(help="sigmoid, tanh or relu.")] = None,
    integration: Annotated[str | None, typer.Option(help="standard, pre, post or identity.")] = None,
    stages: Annotated[str | None, typer.Option(help="Stages with attention: 2+3, or all.")] = None,
    attention: Annotated[
        str | None, typer.Option("--attention", help="Another block: eca, ese, ..., or package.module:Class.")
    ] = None,
    attach: Annotated[bool, typer.Option("--attach", help="Put attention into a network from outside.")] = False,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Epochs, where a network is trained here (0: not at all).")
    ] = None,
    lr: o.LearningRate = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the training here and of the images drawn.")] = 0,
    img_size: o.ImgSize = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", help="Images a forward pass; default: 64, of small ones 256.")
    ] = None,
    device: o.Device = "cpu",
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave unreadable images out, and count them.")
    ] = False,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """What the gates do by class and depth (the paper's Figures 6 and 7), and what the error is without each block."""
    typed = {"reduction": reduction, "excitation": excitation, "integration": integration}
    switches = o.switches(typed | {"stages": stages, "attention": attention})
    o.check_output(output)
    from senet_bench.gates.excitations import Excitations
    from senet_bench.run.cases import Changes

    asked = Excitations(
        model=f"{model}+attach" if attach and ":" in model else model,
        dataset=dataset.lower(),
        folder=data,
        weights=weights,
        classes=tuple(name.strip() for name in classes.split(",")) if classes else (),
        images_per_class=images_per_class,
        channels=channels,
        near=near,
        removal=removal,
        epochs=epochs,
        lr=lr,
        seed=seed,
        size=img_size,
        batch_size=batch_size,
        device=device,
        skip_corrupt=skip_corrupt,
        changes=Changes(attention=switches),
    )
    _finish(asked, input_channels, Store(results), format, output, quiet, no_progress)


def _finish(
    asked: Excitations,
    input_channels: bool,
    store: Store,
    format: o.Format,  # noqa: A002
    output: Path | None,
    quiet: bool,
    no_progress: bool,
) -> None:
    """Follow the run to its end, show it, and write its tables and plots."""
    from senet_bench.gallery import report
    from senet_bench.gates import colour_tables as colours
    from senet_bench.gates import excitations as of_blocks
    from senet_bench.gates import input_channels as of_input
    from senet_bench.gates import tables
    from senet_bench.show import terminal

    steps = of_input.input_channels(asked, store) if input_channels else of_blocks.excitations(asked, store)
    record = terminal.run(steps, quiet=quiet or no_progress)
    o.emit((colours if input_channels else tables).document(record.document), format, output)
    terminal.remark(f"stored in {record.path}", quiet=quiet)
    for path in report.observation_files(record.document, store.root):
        terminal.remark(str(path), quiet=quiet)
