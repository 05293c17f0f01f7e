"""`excitations`: what gates do, by class and depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from senet_bench.api import options as o
from senet_bench.api.networks import attached_name, axis_options, switches_of
from senet_bench.api.parameters import within
from senet_bench.api.reading import RESULTS, Results
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.core.datasets import CLASSIFICATION

if TYPE_CHECKING:
    from senet_bench.core.store import Store
    from senet_bench.gates.excitations import Excitations
    from senet_bench.gates.rows import ColourFacts, GateFacts
    from senet_bench.run.record import Record

ObservedModel = Annotated[str, typer.Argument(help="The network: one with attention, or with --input-channels any.")]


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """The images that gates are observed on."""

    PANEL: ClassVar[str] = "What is shown to the network"
    dataset: Annotated[str, o.dataset_option(f"{CLASSIFICATION}.")] = "digits"
    data: o.DataFolder = None
    classes: Annotated[
        str | None, typer.Option("--classes", help="Classes to show one by one: 3,8 or goldfish,pug; names or places.")
    ] = None
    images_per_class: Annotated[
        int | None,
        typer.Option(
            "--images-per-class",
            min=1,
            max=o.LARGEST_BATCH,
            help="Draw as many of each class (the paper: 50); default: all.",
        ),
    ] = None
    img_size: o.ImageSide = None
    batch_size: Annotated[int | None, o.batch_option("Images a forward pass; default: 64, of small ones 256.")] = None
    skip_corrupt: o.SkipCorrupt = False


@dataclass(frozen=True, slots=True)
class WeightOptions:
    """Where the weights come from: a file or a name, or training here."""

    PANEL: ClassVar[str] = "Weights"
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="A file, a key or name in results/weights, or of timm:, torchvision:; on digits trained here.",
        ),
    ] = None
    average: o.EmaWeights = None
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=0,
            max=o.MOST_EPOCHS,
            help="Epochs, where a network is trained here; 0, with --input-channels: not at all.",
        ),
    ] = None
    lr: o.Rate = None
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, max=o.LARGEST_SEED, help="Seed of the training here and of the images drawn."),
    ] = 0


@dataclass(frozen=True, slots=True)
class Observing:
    """What is observed and kept of the gates."""

    PANEL: ClassVar[str] = "What is measured"
    input_channels: Annotated[
        bool,
        typer.Option("--input-channels", help="Put an SE gate on the RGB input and show which colours it raises."),
    ] = False
    channels: Annotated[
        int,
        typer.Option(
            "--channels",
            min=1,
            max=o.LARGEST_BATCH,
            help="Channels of a block to keep, uniformly spaced.",
        ),
    ] = 64
    near: Annotated[
        float,
        typer.Option(
            "--near",
            help="How close to 0 or 1 a gate counts as saturated.",
            **within(0, 0.5),
        ),
    ] = 0.05
    removal: Annotated[
        bool, typer.Option("--removal/--no-removal", help="Measure the error without each block (two passes a block).")
    ] = True


SWITCHES = ("reduction", "excitation", "integration", "stages", "attention")


@dataclass(frozen=True, slots=True)
class GateOptions:
    """The attention whose gates are observed."""

    PANEL: ClassVar[str] = "What is built"
    OPTIONS: ClassVar[dict[str, Any]] = axis_options(SWITCHES, several=False)
    values: dict[str, str | None]
    attach: o.Attach = False
    replace: o.Replace = False


@dataclass(frozen=True, slots=True, repr=False)
class Observed(Result):
    """What was observed of gates: the tables and plots that were `written` too."""

    written: tuple[Path, ...] = ()


def excitations(
    model: ObservedModel,
    images: ImageOptions = ImageOptions(),
    origin: WeightOptions = WeightOptions(),
    gates: GateOptions = GateOptions({}),
    observing: Observing = Observing(),
    device: Annotated[str, o.device_option(o.Where.PANEL)] = "cpu",
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Observed:
    """What the gates do by class and depth (the paper's Figures 6 and 7), and what the error is without each block."""
    switches = switches_of(gates.values)
    from senet_bench.core.store import Store
    from senet_bench.gates.excitations import Excitations
    from senet_bench.run.cases import Changes

    store = Store(results)
    wanted = Excitations(
        model=attached_name(model, attach=gates.attach, replace=gates.replace),
        dataset=images.dataset,
        folder=images.data,
        weights=store.named_weights(origin.weights) if origin.weights else None,
        average=origin.average,
        classes=tuple(name.strip() for name in images.classes.split(",")) if images.classes else (),
        images_per_class=images.images_per_class,
        channels=observing.channels,
        near=observing.near,
        removal=observing.removal,
        epochs=origin.epochs,
        lr=origin.lr,
        seed=origin.seed,
        size=images.img_size,
        batch_size=images.batch_size,
        device=device,
        skip_corrupt=images.skip_corrupt,
        changes=Changes(attention=switches),
    )
    return _observed(wanted, store, watch, input_channels=observing.input_channels)


def _observed(wanted: Excitations, store: Store, watch: Watch, *, input_channels: bool) -> Observed:
    """The run at its end, its tables and plots written."""
    from senet_bench.gallery.report import observation_files
    from senet_bench.gates import colour_tables, tables
    from senet_bench.gates import excitations as of_blocks
    from senet_bench.gates import input_channels as of_input

    record: Record[GateFacts] | Record[ColourFacts]
    if input_channels:
        record = colours = watch.follow(of_input.input_channels(wanted, store))
        document = colour_tables.colours_document(colours.document)
    else:
        record = blocks = watch.follow(of_blocks.excitations(wanted, store))
        document = tables.gates_document(blocks.document)
    written = tuple(observation_files(record.document, store.root))
    return Observed(document.wide, document.records, document, record.path, written=written)
