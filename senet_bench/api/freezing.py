"""`freeze`: gates of a trained network, or of a file of ONNX, that can be constants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from senet_bench.api import options as o
from senet_bench.api.parameters import read_by, within
from senet_bench.api.reading import RESULTS, Results
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.core.datasets import CLASSIFICATION
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.gates.trained import OnnxImages


NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?", re.ASCII)


def _sides(text: str | None) -> tuple[int, int] | None:
    """Height and width of a text such as 48x192."""
    sides = re.fullmatch("([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text or "", re.ASCII)
    if text is not None and sides is None:
        raise UsageError(f"--shape {text[:20]!r} is no height and width", "use 48x192")
    return (int(sides[1]), int(sides[2])) if sides else None


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers separated by commas."""
    parts = (text or "").split(",")
    if text is not None and not all(map(NUMBER.fullmatch, parts)):
        raise UsageError(
            f"{option} {text[:20]!r} is no list of numbers", "use 0.5, or one for each channel: 0.5,0.4,0.4"
        )
    return tuple(map(float, parts)) if text is not None else None


@dataclass(frozen=True, slots=True)
class FreezeImages:
    """The images that the gates are held on."""

    PANEL: ClassVar[str] = "What is shown to the network"
    dataset: Annotated[str, o.dataset_option(f"{CLASSIFICATION}.")] = "digits"
    data: o.DataFolder = None
    img_size: o.ImageSide = None
    images: Annotated[
        int,
        typer.Option(
            "--images", min=1, max=o.LARGEST_BATCH, help="The most training images that the means are taken from."
        ),
    ] = 1000
    seed: Annotated[int, typer.Option("--seed", min=0, max=o.LARGEST_SEED, help="Seed of how images are drawn.")] = 0
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape", help="Of ONNX: height and width that images get, 48x192.", **read_by(_sides, metavar="HxW")
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean",
            help="Of ONNX: taken from pixels of 0 to 1; one number or one a channel.",
            **read_by(partial(_numbers, "--mean")),
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            "--std",
            help="Of ONNX: what they are divided by; both default to the data set's.",
            **read_by(partial(_numbers, "--std")),
        ),
    ] = None

    def of_onnx(self) -> OnnxImages:
        """How the images of a file of ONNX are made."""
        from senet_bench.gates.trained import OnnxImages

        std = _numbers("--std", self.std)
        if std is not None and not all(std):
            raise UsageError("--std holds a 0", "give what the pixels are to be divided by")
        return OnnxImages(shape=_sides(self.shape), mean=_numbers("--mean", self.mean), std=std)


@dataclass(frozen=True, slots=True)
class Deciding:
    """What may be lost, and what is measured and written."""

    PANEL: ClassVar[str] = "What is decided and written"
    max_loss: Annotated[
        float, typer.Option("--max-loss", help="The margin: points of error that may be lost.", **within(0, 100))
    ] = 0.2
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file of the frozen weights, or of ONNX; default: in results/weights."),
    ] = None
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Time both networks.")] = True
    budget: Annotated[float, typer.Option("--budget", help="Seconds of timing.", **within(0, o.LONGEST_BUDGET_S))] = (
        10.0
    )


@dataclass(frozen=True, slots=True, repr=False)
class Frozen(Result):
    """What was frozen: the `file` written, None where no gate was, and whether the loss is `shown` small."""

    file: Path | None = None
    shown: bool = False


def freeze(
    model: Annotated[
        str, typer.Argument(help="A network of the catalog, timm:NAME, torchvision:NAME, or a file of ONNX.")
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", help="A file, a key or name in results/weights, or of timm:; a file of ONNX has its own."
        ),
    ] = None,
    images: FreezeImages = FreezeImages(),
    deciding: Deciding = Deciding(),
    device: Annotated[str, o.device_option(o.Where.PANEL)] = "cpu",
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Frozen:
    """Which gates of a trained network can be constants, folded away; exit 3 where the loss is not shown small."""
    from senet_bench.core.store import Store
    from senet_bench.gates.freezing import freeze as frozen
    from senet_bench.gates.freezing_tables import freeze_document
    from senet_bench.gates.trained import Freezing

    store = Store(results)
    wanted = Freezing(
        model=model,
        weights=None if weights is None else store.named_weights(weights),
        dataset=images.dataset,
        folder=images.data,
        max_loss=deciding.max_loss,
        out=deciding.out,
        most=images.images,
        size=images.img_size,
        seed=images.seed,
        device=device,
        timing_s=deciding.budget if deciding.latency else None,
        onnx=images.of_onnx(),
    )
    record = watch.follow(frozen(wanted, store))
    document, summary = freeze_document(record.document), record.document.summary
    file = Path(summary.file) if summary.file is not None else None
    return Frozen(document.wide, document.records, document, record.path, (), file, summary.shown)
