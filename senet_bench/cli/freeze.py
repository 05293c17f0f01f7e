"""The command `freeze`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from senet_bench.api import options as o
from senet_bench.api.parameters import within
from senet_bench.cli.showing import Showing
from senet_bench.core.datasets import CLASSIFICATION

if TYPE_CHECKING:
    from senet_bench.gates.freezing_rows import FreezeFacts
    from senet_bench.run.record import Record

NOT_SHOWN = 3


@dataclass(frozen=True, slots=True)
class FreezeImages:
    """The images that the gates are held on."""

    PANEL: ClassVar[str] = "What is shown to the network"
    dataset: Annotated[str, typer.Option("--dataset", help=f"{CLASSIFICATION}.")] = "digits"
    data: o.DataFolder = None
    img_size: o.ImageSide = None
    images: Annotated[
        int,
        typer.Option(
            "--images", min=1, max=o.LARGEST_BATCH, help="The most training images that the means are taken from."
        ),
    ] = 1000
    seed: Annotated[int, typer.Option("--seed", min=0, max=o.LARGEST_SEED, help="Seed of how images are drawn.")] = 0


@dataclass(frozen=True, slots=True)
class Deciding:
    """What may be lost, and what is measured and written."""

    PANEL: ClassVar[str] = "What is decided and written"
    max_loss: Annotated[
        float, typer.Option("--max-loss", help="The margin: points of error that may be lost.", **within(0, 100))
    ] = 0.2
    out: Annotated[
        Path | None, typer.Option("--out", help="The file of the frozen weights; default: in results/weights.")
    ] = None
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Time both networks.")] = True
    budget: Annotated[float, typer.Option("--budget", help="Seconds of timing.", **within(0, o.LONGEST_BUDGET_S))] = (
        10.0
    )


def freeze(
    model: Annotated[str, typer.Argument(help="The network: of the catalog, timm:NAME or torchvision:NAME.")],
    weights: Annotated[str, typer.Option("--weights", help="A file, a key or name in results/weights, or of timm:.")],
    images: FreezeImages = FreezeImages(),
    deciding: Deciding = Deciding(),
    device: Annotated[str, typer.Option("--device", help=o.DEVICES, rich_help_panel=o.Where.PANEL)] = "cpu",
    showing: Showing = Showing(),
) -> None:
    """Which gates of a trained network can be constants, folded away; exit 3 where the loss is not shown small."""
    showing.check()
    from senet_bench.gates.freezing import Freezing
    from senet_bench.gates.freezing import freeze as frozen
    from senet_bench.gates.freezing_tables import freeze_document
    from senet_bench.show import terminal

    asked = Freezing(
        model=model,
        weights=showing.store.named_weights(weights),
        dataset=images.dataset.lower(),
        folder=images.data,
        max_loss=deciding.max_loss,
        out=deciding.out,
        images=images.images,
        size=images.img_size,
        seed=images.seed,
        device=device,
        timing_s=deciding.budget if deciding.latency else None,
    )
    record: Record[FreezeFacts] = showing.follow(frozen(asked, showing.store))
    showing.emit(freeze_document(record.document))
    showing.stored(record.path)
    summary = record.document.summary
    if summary.file is not None:
        terminal.remark(f"weights in {summary.file}", quiet=showing.quiet)
        if not summary.shown:
            raise typer.Exit(NOT_SHOWN)
