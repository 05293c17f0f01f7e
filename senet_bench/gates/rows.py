"""What `excitations` stores: of every block what its gates do, of every image how a gate treats its colours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec

from senet_bench.core.intervals import Paired
from senet_bench.core.results import Facts
from senet_bench.core.specs import AttentionSpec

COLOUR_NAMES = ("red", "green", "blue")
Gates = list[float | None]
"""A gate for each channel kept; None where a channel was zero throughout."""
Colours = tuple[float, float, float]
"""A number for each of red, green and blue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConditions:
    """A network, where its weights are from, and the images its gates were observed on.

    `classes` are those whose gates are kept one by one, of `class_count`; `images_per_class` is None where all were
    shown; `size` is the side of a crop in pixels.
    """

    model: str
    label: str
    attention: AttentionSpec | None
    dataset: str
    weights: str
    notes: list[str]
    images: int
    images_per_class: int | None
    classes: list[str]
    class_count: int
    near: float
    size: int | None
    seed: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorChange:
    """The error of a changed network minus that of the network as it is, on the same images, as fractions.

    `p` is McNemar's, `p_holm` adjusted over the blocks that were changed in the same way.
    """

    value: float
    ci: tuple[float, float] | None
    confidence: float
    p: float
    p_holm: float | None = None

    @property
    def adjusted(self) -> float:
        """The p value of several blocks together where there is one, else its own."""
        return self.p if self.p_holm is None else self.p_holm


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """A block: where it is, its gates by channel and class, and the numbers of section 7.2's words.

    `shown` are the channels kept, of `channels`; `mean`, `sd`, `classes` and `class_sd` have a value for each of them.
    `error` is the network's; `error_without` is its error with this block's gates at 1, `error_at_mean` with each at
    its channel's mean; `missing` says why these are None.
    """

    model: str
    block: str
    label: str
    stage: str
    channels: int
    shown: list[int]
    images: int
    class_images: dict[str, int]
    classes: dict[str, Gates]
    class_sd: dict[str, Gates]
    mean: Gates
    sd: Gates
    mean_gate: float | None
    between_class_share: float | None
    share_by_chance: float | None
    scale_share: float | None
    saturated_low: float
    saturated_high: float
    distance_from_identity: float
    distance_from_constant: float
    error: float
    error_ci: tuple[float, float]
    missing: dict[str, str] = field(default_factory=dict)
    error_without: float | None = None
    difference: ErrorChange | None = None
    error_at_mean: float | None = None
    difference_at_mean: ErrorChange | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` where a curve has not one finite gate for each channel kept."""
        curves = [self.mean, self.sd, *self.classes.values(), *self.class_sd.values()]
        if not self.shown or any(len(values) != len(self.shown) for values in curves):
            raise ValueError(f"block {self.block!r} has gates of other lengths than its channels")
        if self.classes.keys() != self.class_sd.keys() or self.classes.keys() - self.class_images.keys():
            raise ValueError(f"block {self.block!r} has other classes in one place than in another")
        if not all(value is None or math.isfinite(value) for values in curves for value in values):
            raise ValueError(f"a gate of block {self.block!r} is no finite number")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSummary:
    """The error of the network as it is, and with all blocks changed at once; `skipped` could not be read."""

    error: float
    error_ci: tuple[float, float]
    images: int
    skipped: list[str]
    all_error_without: float | None = None
    all_difference: ErrorChange | None = None
    all_error_at_mean: float | None = None
    all_difference_at_mean: ErrorChange | None = None


GateFacts = Facts[GateConditions, GateRow, GateSummary, None]
"""The document of `excitations`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourConditions:
    """A network behind a gate on its image: how the gate got its values, and the images it was shown.

    `epochs` is how many it was trained here, `trained` whether it was trained at all.
    """

    model: str
    label: str
    dataset: str
    weights: str | None
    epochs: int
    trained: bool
    notes: list[str]
    size: int | None
    seed: int
    device: str
    images_per_class: int | None


class ColourRow(msgspec.Struct, frozen=True, kw_only=True, rename={"label": "class"}):
    """An image: its class, the mean of each colour in 0..1, the gate of each, and `relative`, gate over mean gate.

    `raised` is the colour whose relative gate is largest, None where all are alike.
    """

    image: str
    label: str
    mean: Colours
    gate: Colours
    relative: Colours
    raised: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A small picture of an image as PNG in base64, so that the figure can be drawn from the facts alone."""

    image: str
    png: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourSummary:
    """The mean gate of each colour, how far training moved the gates from 1/2, and the error with the gate fixed.

    `difference` is the error with the gate at 1 minus the error as it is, `difference_at_mean` with it at its mean.
    """

    images: int
    skipped: list[str]
    mean_gate: Colours
    moved: float
    distance_from_constant: float
    between_class_share: float | None
    error: float
    error_ci: tuple[float, float]
    difference: Paired
    difference_at_mean: Paired


ColourFacts = Facts[ColourConditions, ColourRow, ColourSummary, Picture]
"""The document of `excitations --input-channels`."""
