"""`freeze`: gates of a trained network that can be constants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from senet_bench.api import options as o
from senet_bench.api.parameters import within
from senet_bench.api.reading import RESULTS, Results
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.core.datasets import CLASSIFICATION


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


@dataclass(frozen=True, slots=True, repr=False)
class Frozen(Result):
    """What was frozen: the `file` of the weights, None where no gate was, and whether the loss is `shown` small."""

    file: Path | None = None
    shown: bool = False


def freeze(
    model: Annotated[str, typer.Argument(help="The network: of the catalog, timm:NAME or torchvision:NAME.")],
    weights: Annotated[str, typer.Option("--weights", help="A file, a key or name in results/weights, or of timm:.")],
    images: FreezeImages = FreezeImages(),
    deciding: Deciding = Deciding(),
    device: Annotated[str, typer.Option("--device", help=o.DEVICES, rich_help_panel=o.Where.PANEL)] = "cpu",
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Frozen:
    """Which gates of a trained network can be constants, folded away; exit 3 where the loss is not shown small."""
    from senet_bench.core.store import Store
    from senet_bench.gates import freezing
    from senet_bench.gates.freezing_tables import freeze_document

    store = Store(results)
    wanted = freezing.Freezing(
        model=model,
        weights=store.named_weights(weights),
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
    record = watch.follow(freezing.freeze(wanted, store))
    document, summary = freeze_document(record.document), record.document.summary
    file = Path(summary.file) if summary.file is not None else None
    return Frozen(document.wide, document.records, document, record.path, (), file, summary.shown)
