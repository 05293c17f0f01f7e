"""What a network gets wrong: predictions kept image by image, errors with intervals, pairs on the same images."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from senet_bench.bench.machine import arithmetic
from senet_bench.bench.process import tune_allocator
from senet_bench.core.files import written_whole
from senet_bench.core.foreign import contained
from senet_bench.core.intervals import Paired, paired_images, wilson
from senet_bench.core.specs import Precision
from senet_bench.data.augment import normalised
from senet_bench.data.images import Crops, Fidelity, centre_crop, centre_crops
from senet_bench.data.sets import DataSet, Files, LabelArray, Split
from senet_bench.errors import MeasurementError, NotComparableError, UsageError
from senet_bench.models.modes import evaluating
from senet_bench.training.distributed import World, gathered, share, share_buffers
from senet_bench.training.optimisation import autocast, laid_out

BatchAnswers = tuple[LabelArray, LabelArray, np.ndarray[Any, np.dtype[np.float32]]]
"""A batch a network was shown: row numbers (n,), the best classes (n, 5), the losses (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """How images are shown to a network: crop side in pixels (None: the data set's), batch, arithmetic, decoding.

    `skip_corrupt` leaves unreadable images out and counts them, instead of stopping at the first.
    """

    size: int | None = None
    batch: int = 64
    precision: Precision = "fp32"
    channels_last: bool = True
    device: str = "cpu"
    fidelity: Fidelity = "exact"
    workers: int | None = None
    skip_corrupt: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Per image: its row in the split (N,), its label (N,), the five best classes (N, 5), the loss in nats (N,).

    `skipped` names the images that could not be read.
    """

    rows: LabelArray
    labels: LabelArray
    best: LabelArray
    losses: np.ndarray[Any, np.dtype[np.float32]]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def wrong(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether the best class is not the label (N,)."""
        return np.asarray(self.best[:, 0] != self.labels)

    @property
    def top1_err(self) -> float:
        """Fraction of images whose label is not the best class."""
        return float(self.wrong.mean())

    @property
    def top5_err(self) -> float | None:
        """Fraction of images whose label is not among the five best; None with fewer than five classes."""
        if self.best.shape[1] < 5:
            return None
        return 1.0 - float((self.best == self.labels[:, None]).any(1).mean())

    @property
    def loss(self) -> float:
        """Mean cross entropy in nats."""
        return float(self.losses.mean(dtype=np.float64))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's interval of the top-1 error."""
        return wilson(int(self.wrong.sum()), len(self), confidence)

    def relabelled(self, right: Sequence[frozenset[int]]) -> Predictions:
        """The same images where several classes may be right (by row of the split); those without any are left out.

        A predicted class that is right becomes the first of those, which is the label. The losses are not theirs.
        """
        kept = np.array([bool(right[row]) for row in self.rows], dtype=bool)
        sets = [right[row] for row in self.rows[kept]]
        labels = np.array([min(classes) for classes in sets], dtype=np.int64)
        best = self.best[kept].copy()
        for own, classes, label in zip(best, sets, labels):
            own[np.isin(own, list(classes))] = label
        return Predictions(self.rows[kept], labels, best, self.losses[kept], self.skipped)

    def by_class(self, classes: tuple[str, ...]) -> list[tuple[str, int, int]]:
        """Per class its name, its images and how many of them the network got wrong."""
        images = np.bincount(self.labels, minlength=len(classes))
        wrong = np.bincount(self.labels[self.wrong], minlength=len(classes))
        return [(name, int(n), int(w)) for name, n, w in zip(classes, images, wrong)]

    def save(self, path: Path) -> None:
        """Keep the predictions in an .npz file."""
        names = np.array(self.skipped, dtype=np.str_)
        with written_whole(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file, rows=self.rows, labels=self.labels, best=self.best, losses=self.losses, skipped=names
            )

    @staticmethod
    def load(path: Path) -> Predictions:
        """Predictions that `save` kept; `UsageError` for another file."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                return Predictions(
                    kept["rows"], kept["labels"], kept["best"], kept["losses"], tuple(map(str, kept["skipped"]))
                )
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise UsageError(f"{path} holds no predictions", "make it with evaluate --keep-predictions") from error


def predict(
    network: nn.Module, data: DataSet, split: Split, viewing: Viewing | None = None, world: World | None = None
) -> Predictions:
    """Show every image of a split to the network once, in evaluation mode and without gradients.

    The modes of its modules and its memory format are as before afterwards. Several processes share the images, shown
    to the network as rank 0 has it; each gets the whole result.
    """
    viewing, world = viewing or Viewing(size=data.size), world or World()
    tune_allocator()  # else each batch is paged in anew
    corrupt: list[Path] = []
    device = torch.device(viewing.device)
    with evaluating(network):
        share_buffers(network, world)
        with arithmetic(viewing.precision == "tf32"), torch.inference_mode(), autocast(device, viewing.precision):
            parts = [
                answers_of(network, data, split.labels, crops, viewing, device)
                for crops in crops_of(split, viewing, np.arange(len(split))[share(len(split), world)], corrupt)
            ]
    collected = gathered((parts, [str(path) for path in corrupt]), world)
    skipped = [name for _, names in collected for name in names]
    return assembled([part for parts, _ in collected for part in parts], data, split, skipped)


def assembled(parts: Sequence[BatchAnswers], data: DataSet, split: Split, skipped: Sequence[str]) -> Predictions:
    """The batches that a network was shown, as one; `MeasurementError` where they hold no image."""
    if not sum(len(part[0]) for part in parts):
        raise MeasurementError(f"{data.name}: not one image could be read", "check the files")
    rows, best, losses = (np.concatenate(column) for column in zip(*parts))
    order = np.argsort(rows, kind="stable")
    return Predictions(rows[order], split.labels[rows[order]], best[order], losses[order], tuple(sorted(skipped)))


def crops_of(split: Split, viewing: Viewing, rows: LabelArray, corrupt: list[Path]) -> Iterator[Crops]:
    """Batches of the rows of a split, files by their centre crop; what could not be read is added to `corrupt`."""
    if isinstance(split, Files):
        if viewing.size is None:
            raise UsageError("files need a crop size", "use 224, as the paper does")
        yield from centre_crops(
            split,
            centre_crop(viewing.size),
            fidelity=viewing.fidelity,
            rows=rows,
            batch=viewing.batch,
            workers=viewing.workers,
            corrupt=corrupt if viewing.skip_corrupt else None,
        )
        return
    corrupt.extend(path for row, path in split.unread.items() if row in rows)
    rows = rows[~np.isin(rows, [*split.unread])]
    for start in range(0, len(rows), viewing.batch):
        some = rows[start : start + viewing.batch]
        yield Crops(some, np.asarray(split.images[some]))


def answers_of(
    network: nn.Module, data: DataSet, labels: LabelArray, crops: Crops, viewing: Viewing, device: torch.device
) -> BatchAnswers:
    """Some images' rows, five best classes and losses; the mode of the network and the arithmetic are the caller's."""
    images = laid_out(torch.from_numpy(crops.images), device, viewing.channels_last)
    with contained(type(network).__name__, draws=True):
        logits = network(normalised(images, data.mean, data.std)).float()
    if not torch.isfinite(logits).all():
        raise MeasurementError("the network's outputs are not finite", "train with a smaller learning rate, or in fp32")
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    target = torch.from_numpy(labels[crops.rows]).to(device)
    losses = F.cross_entropy(logits, target, reduction="none")
    return crops.rows, best.cpu().numpy(), losses.cpu().numpy()


def paired_errors(first: Predictions, second: Predictions, confidence: float = 0.95) -> Paired:
    """Second minus first error over the images both have seen; `NotComparableError` for different images."""
    if not (np.array_equal(first.rows, second.rows) and np.array_equal(first.labels, second.labels)):
        raise NotComparableError(
            f"the two networks have not seen the same images ({len(first)} and {len(second)})",
            "evaluate both on the same split",
        )
    only_first = int((first.wrong & ~second.wrong).sum())
    only_second = int((second.wrong & ~first.wrong).sum())
    return paired_images(only_first, only_second, len(first), confidence)
