"""What `train`, a trial of a sweep and `evaluate` store: rows of epochs, results of trials, errors and precisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from senet_bench.core.paper import CellStatus
from senet_bench.core.results import Change, Facts, Fraction, Latency, Magnitude, StoredCount
from senet_bench.core.specs import AttentionSpec, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """An epoch done; losses in nats, errors and average precisions as fractions, None where not evaluated.

    `seconds_left` is an estimate for the rest of the training, `skipped` counts images that could not be read.
    """

    epoch: StoredCount
    epochs: StoredCount
    train_loss: float
    lr: float
    images_per_second: Magnitude
    seconds: Magnitude
    seconds_left: Magnitude
    test_loss: float | None = None
    top1_err: Fraction | None = None
    top5_err: Fraction | None = None
    skipped: StoredCount = 0
    ap: Fraction | None = None
    ap50: Fraction | None = None


class TrainConditions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a network was trained on, by and with; `trunk_weights` and `freeze_at` are a detector's alone."""

    model: str
    dataset: str
    recipe: str
    epochs: StoredCount
    batch_size: StoredCount
    lr: float
    seed: StoredCount
    device: str
    precision: Precision
    trunk_weights: str | None = None
    freeze_at: int | None = None
    deviations: list[str]
    notes: list[str]
    processes: StoredCount


class TrainSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the weights of a training are, and the last epoch that was evaluated; empty until it has ended."""

    weights: str | None = None
    checkpoint: str | None = None
    epoch: int | None = None
    top1_err: Fraction | None = None
    top5_err: Fraction | None = None
    test_loss: float | None = None
    ap: Fraction | None = None
    ap50: Fraction | None = None


NOTES_APART = "; "


class TrialResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a trial ended in; earlier versions did not store all that it says of itself.

    `hardware` is the name of a GPU, `processes` how many trained it together; `note` is `remarks`, joined.
    """

    arm: str = ""
    model: str = ""
    attention: AttentionSpec | None = None
    dataset: str = ""
    recipe: str = ""
    lr: float | None = None
    epochs: StoredCount | None = None
    seed: StoredCount | None = None
    precision: str = ""
    images: StoredCount | None = None
    top1_err: Fraction
    top5_err: Fraction | None = None
    test_loss: float | None = None
    seconds: Magnitude | None = None
    cpu_seconds: Magnitude | None = None
    device: str = ""
    hardware: str = ""
    torch: str = ""
    processes: StoredCount = 1
    note: str = ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know of how it began: a head that is new, blocks that start as the identity."""
        return tuple(filter(None, self.note.split(NOTES_APART)))

    @property
    def trained_on(self) -> str:
        """The device for people; what earlier versions stored was trained on a CPU."""
        kind = self.device.partition(":")[0] or "cpu"
        name = f"{self.hardware} ({kind})" if self.hardware else kind
        return f"{name} x {self.processes}" if self.processes > 1 else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How far a trial is that runs: what it is doing, which share is done, the seconds that are likely left."""

    what: str
    done: Fraction
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A trial that was handed to a cluster: the engine and its number for it, where it runs, its state and its log.

    `folder` holds what comes out of it, which must name `token`: a cluster's numbers come again. `attempt` counts from
    1, `submitted` is in seconds since the epoch.
    """

    engine: str
    id: str
    token: str = ""
    folder: str = ""
    attempt: int = 1
    node: str = ""
    state: str = ""
    log: str = ""
    submitted: float = 0.0


class EvaluatedRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="task"):
    """A network with weights on a data set: what was run, and what it is compared with.

    `size` is the side of the images in pixels (of a detector's, the shorter one), `differs_in` what makes the two
    networks unlike, `paper` the cells of the paper that the row stands beside.
    """

    model: str
    label: str
    attention: AttentionSpec | None
    weights: str
    notes: list[str]
    dataset: str
    size: StoredCount
    precision: Precision
    images: StoredCount
    skipped: list[str]
    recipe: str | None
    epochs: StoredCount | None
    against: str | None = None
    difference: Change | None = None
    differs_in: list[str] | None = None
    paper: list[CellStatus] = []


class ClassifierRow(EvaluatedRow, frozen=True, kw_only=True, omit_defaults=True, tag="classification"):
    """The errors of a classifier, and its difference to the first one on the same images.

    `origin` is the `timm:NAME` or `torchvision:NAME` that weights of others are of, `trial` the key of the trial that
    ours are of, `labels` whose labels the images have where those are not the data set's; `taken` is which of the
    two states of a trainer's file they are. `constant_gates` are blocks folded away: another network than the row's
    model and attention alone, whose error is nobody else's. So is what a `runtime` in INT8 makes of the weights.
    `cardinality` is a number of groups that is not the network's own. `latency` is that of the network as it was shown
    the images, its ratio to the first one's.
    """

    cardinality: int | None = None
    constant_gates: list[str] | None = None
    runtime: str | None = None
    taken: Literal["raw", "average"] | None = None
    mean: list[float]
    std: list[float]
    top1_err: Fraction
    ci: tuple[Fraction, Fraction]
    top5_err: Fraction | None
    loss: float | None
    difference_ci: tuple[float, float] | None = None
    mcnemar_p: Fraction | None = None
    classes: int | None = None
    origin: str | None = None
    trial: str | None = None
    labels: str | None = None
    latency: Latency | None = None

    @property
    def altered(self) -> bool:
        """Whether its error is of another network than its model and attention alone tell."""
        return bool(self.constant_gates or self.runtime or self.cardinality)


class DetectorRow(EvaluatedRow, frozen=True, kw_only=True, omit_defaults=True, tag="detection"):
    """COCO's average precisions of a detector; `longest` is the most pixels that the longer side of an image has."""

    longest: StoredCount
    detections: StoredCount
    ap: Fraction | None
    ap50: Fraction | None
    ap75: Fraction | None
    ap_small: Fraction | None
    ap_medium: Fraction | None
    ap_large: Fraction | None
    ar100: Fraction | None


EvaluationRow: TypeAlias = ClassifierRow | DetectorRow


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConditions:
    """The images that networks were evaluated on, and what a reader must know of them."""

    dataset: str
    images: int | None = None
    notes: list[str]


Nothing: TypeAlias = dict[str, str]
"""The summary and details of a document that has none."""
Training: TypeAlias = Facts[TrainConditions, EpochRow, TrainSummary, Nothing]
Evaluation: TypeAlias = Facts[EvaluationConditions, EvaluationRow, Nothing, Nothing]
