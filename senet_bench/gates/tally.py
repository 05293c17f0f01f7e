"""What the gates of one attention block do over labelled images: running sums, and the numbers read from them.

The paper's section 7.2 looks at gates by class and depth and says what it sees in words: they are alike for all
classes early on and class-specific later, one late block nears the identity, the last differs "up to a modest change
in scale". Each of these has a number here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from senet_bench.core.statistics import Floats
from senet_bench.data.sets import LabelArray

NEAR_CONSTANT = 0.05
LEAST_DEVIATION = 1e-5
"""Gates that deviate less from their channel's mean are taken for constant: float32 rounds them by about 1e-7."""


class GateTally:
    """Sums over gates, (images, channels), by class; a gate that could not be seen (NaN) counts nowhere.

    `near` is how close to 0 or 1 a gate counts as saturated.
    """

    def __init__(self, classes: int, near: float = NEAR_CONSTANT) -> None:
        self.classes, self.near = classes, near
        self.origin: Floats | None = None

    def add(self, gates: npt.NDArray[Any], labels: LabelArray) -> None:
        """Take in gates (n, C) of images with these labels (n,)."""
        values = np.asarray(gates, dtype=np.float64)
        if self.origin is None:
            shape = (self.classes, values.shape[1])
            self.count, self.total, self.squares = (np.zeros(shape) for _ in range(3))
            self.origin = np.nan_to_num(values[0])  # sums of differences: a constant gate gives exact zeros
            self.low, self.high, self.from_one = 0, 0, 0.0
        seen = np.isfinite(values)
        shifted = np.where(seen, values - self.origin, 0.0)
        np.add.at(self.count, labels, seen)
        np.add.at(self.total, labels, shifted)
        np.add.at(self.squares, labels, shifted**2)
        self.low += int((np.abs(values[seen]) <= self.near).sum())
        self.high += int((np.abs(1 - values[seen]) <= self.near).sum())
        self.from_one += float(((1 - values[seen]) ** 2).sum())

    @property
    def shift(self) -> Floats:
        """What every sum is relative to (C,)."""
        assert self.origin is not None, "no image was shown"
        return self.origin

    @property
    def seen(self) -> int:
        """Gates that were seen, over images and channels."""
        return int(self.count.sum())

    def mean(self) -> Floats:
        """Each channel's mean gate over all images (C,); NaN where it was never seen."""
        return self.shift + _over(self.total.sum(0), self.count.sum(0))

    def mean_gate(self) -> float | None:
        """The mean over the channels that were seen; None where none was."""
        return float(self.mean()[self.count.sum(0) > 0].mean()) if self.seen else None

    def sd(self) -> Floats:
        """Each channel's standard deviation over all images (C,), n - 1."""
        return _sd(self.count.sum(0), self.total.sum(0), self.squares.sum(0))

    def class_mean(self) -> Floats:
        """Mean gates by class (classes, C): the curves of the paper's Figure 6."""
        return np.asarray(self.shift + _over(self.total, self.count))

    def class_sd(self) -> Floats:
        """Standard deviations over the images of each class (classes, C): the bands of Figure 7."""
        return _sd(self.count, self.total, self.squares)

    def between_class_share(self) -> float | None:
        """Variance between class means over total variance, both summed over channels (eta squared), in 0..1.

        None where the gates do not vary.
        """
        total = self._scatter().sum()
        return float(self._between().sum() / total) if self._varies() else None

    def share_by_chance(self) -> float | None:
        """The share to be expected of gates that do not depend on the class: (classes - 1) / (images - 1)."""
        images, classes = self.count.max(1).sum(), (self.count.max(1) > 0).sum()
        return float((classes - 1) / (images - 1)) if images > 1 else None

    def scale_share(self) -> float | None:
        """How much of the variance between classes is one factor per class on the mean gate of all channels.

        With the class means m_k (C,) and the mean m over all, s_k = m_k.m / m.m: the sum of n_k |s_k m - m|^2 over
        that of n_k |m_k - m|^2, in 0..1. At 1 all classes have one pattern, "up to a change in scale". None where
        the class means do not differ or a channel was not seen in every class.
        """
        present = self.count.max(1) > 0
        if (self.count[present] == 0).any() or not self._varies() or present.sum() < 2:
            return None
        means, mean, weights = self.class_mean()[present], self.mean(), self.count[present].max(1)
        apart = float((weights[:, None] * (means - mean) ** 2).sum())
        scales = means @ mean / (mean @ mean)
        scaled = float((weights * (scales - 1) ** 2).sum() * (mean @ mean))
        return min(1.0, scaled / apart) if apart > 0 else None

    def saturated(self) -> tuple[float, float]:
        """The fractions of gates within `near` of 0 and of 1."""
        return self.low / max(1, self.seen), self.high / max(1, self.seen)

    def distance_from_identity(self) -> float:
        """Root mean square of 1 - gate over images and channels: 0 where the block does nothing."""
        return math.sqrt(self.from_one / max(1, self.seen))

    def distance_from_constant(self) -> float:
        """Root mean square of gate - its channel's mean: 0 where the block is one fixed factor per channel."""
        return math.sqrt(float(self._scatter().sum()) / max(1, self.seen))

    def _varies(self) -> bool:
        return self.distance_from_constant() > LEAST_DEVIATION

    def _scatter(self) -> Floats:
        """Sum of squares about the mean (C,)."""
        return _scatter(self.count.sum(0), self.total.sum(0), self.squares.sum(0))

    def _between(self) -> Floats:
        """Sum of squares of the class means about the mean, weighted by images (C,)."""
        whole = _over(self.total.sum(0) ** 2, self.count.sum(0), empty=0.0)
        return np.asarray(_over(self.total**2, self.count, empty=0.0).sum(0) - whole)


def _over(sums: Floats, count: Floats, empty: float = math.nan) -> Floats:
    return np.divide(sums, count, out=np.full_like(sums, empty), where=count > 0)


def _scatter(count: Floats, total: Floats, squares: Floats) -> Floats:
    return np.maximum(0.0, squares - _over(total**2, count, empty=0.0))


def _sd(count: Floats, total: Floats, squares: Floats) -> Floats:
    spread = _over(_scatter(count, total, squares), np.maximum(count - 1, 1))
    return np.where(count > 0, np.sqrt(spread), math.nan)


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers 0 .. count - 1, uniformly spaced, the first included."""
    return [index * count // wanted for index in range(wanted)] if count > wanted else list(range(count))


def rounded(values: Floats) -> list[float | None]:
    """Numbers to five digits after the point, None for NaN."""
    return [None if math.isnan(value) else round(float(value), 5) for value in values]
