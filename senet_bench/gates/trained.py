"""What `freeze` is asked, and what it needs of a trained network, be it one of torch or a file of ONNX."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self

from senet_bench.core.datasets import check_side
from senet_bench.core.files import check_writable
from senet_bench.core.progress import Steps
from senet_bench.core.results import Latency
from senet_bench.core.specs import AttentionSpec, Conditions
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.run.cases import Changes

if TYPE_CHECKING:
    from torch import nn

    from senet_bench.bench.rounds import Plan
    from senet_bench.core.statistics import Floats
    from senet_bench.data.sets import DataSet, LabelArray
    from senet_bench.training.evaluation import Predictions

ImagePart = Literal["calibration", "decision", "report"]
"""Images that means are taken from, by which gates are chosen, and by which the choice is reported."""
FixedGates = Mapping[str, "Floats"]
"""The gates (C,) that blocks are held at, by block."""
TimedOrReason = tuple[Latency | None, str | None]
"""A latency, or why there is none."""

ONNX_FILE = ".onnx"
ChannelNumbers = tuple[float, ...]
"""A number for each channel, or one for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxImages:
    """How the images of a file of ONNX are made: (H, W) where they are no squares, and what they are normalised by.

    `mean` and `std` are of pixels from 0 to 1; None for the data set's own.
    """

    shape: tuple[int, int] | None = None
    mean: ChannelNumbers | None = None
    std: ChannelNumbers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezing:
    """What `freeze` is asked: a network, its weights, and the images.

    `model` may be a file of ONNX, which holds its weights and whose images are made by `onnx`. `max_loss` is in points;
    `most` is the most images that the means are taken from; `timing_s` the seconds for the latency, None for none.
    `out` is the file of the frozen network, by default one in the results folder.
    """

    model: str
    weights: str | None = None
    dataset: str = "digits"
    folder: Path | None = None
    max_loss: float = 0.2
    out: Path | None = None
    most: int = 1000
    size: int | None = None
    seed: int = 0
    device: str = "cpu"
    timing_s: float | None = 10.0
    changes: Changes = field(default_factory=Changes)
    onnx: OnnxImages = OnnxImages()

    @property
    def of_onnx(self) -> bool:
        """Whether the network is a file of ONNX."""
        return self.model.lower().endswith(ONNX_FILE)

    def check(self) -> None:
        """Raise `UsageError` on what cannot be frozen."""
        if not 0 < self.max_loss <= 100:
            raise UsageError(f"--max-loss {self.max_loss:g} is no loss in points", "use 0.2")
        if self.of_onnx and self.weights is not None:
            raise UsageError("a file of ONNX holds its weights", "leave --weights out")
        if not self.of_onnx and self.weights is None:
            raise UsageError(f"freeze {self.model} needs --weights", "give a file, a name or a key of trained weights")
        check_side(self.dataset, self.size)
        if not self.of_onnx and self.onnx != OnnxImages():
            raise UsageError("--shape, --mean and --std are of files of ONNX", "leave them out: weights have their own")
        for side in self.onnx.shape or ():
            check_side(self.dataset, side, "--shape")
        if self.onnx.shape is not None and self.size is not None:
            raise UsageError("--img-size and --shape exclude each other", "leave one out")
        if self.of_onnx and self.device != "cpu":
            raise UsageError(f"ONNX Runtime is run on the CPU here, not on {self.device}", "leave --device out")
        if self.out is not None:
            if self.of_onnx != (self.out.suffix.lower() == ONNX_FILE):
                kind = f"a file of ONNX: NAME{ONNX_FILE}" if self.of_onnx else "weights: NAME.safetensors"
                raise UsageError(f"--out {self.out}: what is written is {kind}", "name such a file")
            check_writable(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a trained network is: its name, how tables call it, where its weights come from, the images' notes."""

    model: str
    label: str
    weights: str
    attention: AttentionSpec | None = None
    key: str | None = None
    notes: tuple[str, ...] = ()


class TrainedSubject(Protocol):
    """A trained network with gates, and the rows of images of each part.

    Generators yield the number of images shown so far.
    """

    @property
    def about(self) -> About:
        """What it is."""

    @property
    def parts(self) -> Mapping[ImagePart, LabelArray]:
        """Rows of the training images (calibration) and of the test images (decision, report)."""

    @property
    def side(self) -> int:
        """The height of an image as the network sees it, in pixels."""

    def means(self) -> Generator[int, None, FixedGates]:
        """Each block's mean gates over the calibration images; none for a network without gates."""

    def errors(
        self, part: ImagePart, variants: Mapping[str, FixedGates]
    ) -> Generator[int, None, dict[str, Predictions]]:
        """What the network answers to a part's images with the blocks that each variant names held at its gates."""

    def stage(self, block: str) -> str:
        """The stage that a block stands in."""

    def obstacle(self, gates: FixedGates) -> str | None:
        """Why gates cannot be folded; None where they can."""

    def remark(self, gates: FixedGates, block: str) -> str | None:
        """What is to be said of how the gates of a block are folded; None for nothing."""

    def without(self, gates: FixedGates) -> Self:
        """The network with these gates folded into other layers, and the same images."""

    def costs(self) -> tuple[int, int]:
        """Parameters, and multiply-adds for an image."""

    def write(self, path: Path | None, plain: Self, frozen: list[str], default: tuple[Path, str]) -> Path:
        """Write the network without these blocks, `plain`, by default into a folder under a name; its file."""

    def timed(self, plain: Self, budget_s: float, seed: int) -> Steps[TimedOrReason]:
        """The latency of `plain` beside this network's, or why there is none."""


def parts_of(images: DataSet, most: int, seed: int) -> dict[ImagePart, LabelArray]:
    """Rows of at most `most` training images, as many of each class, and those of two halves of the test images.

    Where they are fewer than the classes, each is of another one.
    """
    import numpy as np

    from senet_bench.gates.watch import drawn_rows

    calibration = drawn_rows(images.training().labels, max(1, most // len(images.classes)), seed)
    if len(calibration) > most:
        calibration = np.sort(np.random.default_rng(seed).permutation(calibration)[:most])
    decision, report = _halves(images.test.labels, seed)
    return {"calibration": calibration, "decision": decision, "report": report}


def timed_beside(
    whole: nn.Module, plain: nn.Module, size: tuple[int, ...], conditions: Conditions, plan: Plan
) -> Steps[TimedOrReason]:
    """The latency of the network without gates in the same rounds as the whole one, or why there is none."""
    from senet_bench.bench.latency import measure_networks

    networks = {"as it is": whole, "frozen": plain}
    try:
        timed = yield from measure_networks(networks, "as it is", size, conditions=conditions, plan=plan)
        return timed.latency("frozen"), None
    except MeasurementError as error:
        return None, str(error)


def shown_images(images: DataSet, part: ImagePart) -> DataSet:
    """The data set whose test split holds the images of a part."""
    return replace(images, test=images.training()) if part == "calibration" else images


def _halves(labels: LabelArray, seed: int) -> tuple[LabelArray, LabelArray]:
    """The rows of two halves of a split, drawn by the seed, with as many of each class."""
    import numpy as np

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])
