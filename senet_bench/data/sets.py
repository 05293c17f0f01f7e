"""Data sets by name: handwritten digits without any download, CIFAR, ImageNet, Places365, any folder tree.

A split is either `Arrays`, whole in memory, or `Files`, images on disk that are decoded when they are needed.
What is missing or incomplete is a `MeasurementError` that says what was expected where.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senet_bench.core.datasets import Dataset, dataset
from senet_bench.data.augment import Pixels
from senet_bench.errors import MeasurementError, UsageError

LabelArray = npt.NDArray[np.int64]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DIGITS_PER_CLASS = 10
DIGIT_WHITE = 240
"""The brightest grey of the digits, 15 times scikit-learn's 16."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """A split in memory: images (N, C, H, W) uint8 and their labels (N,).

    `unread` names the files, by row, that could not be read: their pixels are no images.
    """

    images: Pixels
    labels: LabelArray
    unread: Mapping[int, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Files:
    """A split on disk: one path and one label (N,) per image."""

    paths: tuple[Path, ...]
    labels: LabelArray

    def __len__(self) -> int:
        return len(self.labels)


Split = Arrays | Files


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """Named images with classes, a training and a test split, and the statistics to normalise with.

    `mean` and `std` are per channel, of values in 0..1. `notes` says what a reader must know, such as files that
    differ from the official ones; `size` is the side of the square the network sees, in pixels.
    """

    name: str
    classes: tuple[str, ...]
    train: Split | None
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    notes: tuple[str, ...] = field(default=())

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return len(self.mean)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel, by which a network sees the images."""
        return self.mean, self.std

    def seen_at(self, side: int) -> DataSet:
        """The same with files shown in squares of `side` pixels; images in memory keep their size."""
        return replace(self, size=side) if isinstance(self.test, Files) else self

    def training(self) -> Split:
        """The training split; `MeasurementError` when there is none on disk."""
        if self.train is None:
            raise MeasurementError(f"{self.name} has no training images here", "only evaluation is possible")
        return self.train


def load_images(name: str, folder: Path | str | None = None, *, draw: int = 0) -> DataSet:
    """The data set for classifiers of that name (a row of `core.datasets`), read from `folder` where it has files.

    `draw` chooses which images are the 100 labelled ones of `digits`; other sets ignore it.
    """
    row = dataset(name, "classification")
    images: DataSet = loader(row)(draw if row.embedded else existing(row.key, folder or row.installed))
    return images


def loader(row: Dataset) -> Callable[[Any], Any]:
    """The function that reads a data set, imported now: torchvision takes seconds, and digits need none of it."""
    module, _, name = row.loader.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return function


def existing(key: str, folder: Path | str | None) -> Path:
    """The folder that a data set is read from: one of its name in that which is given, else that one itself.

    Raises where none is given, or it is not there.
    """
    if folder is None:
        raise UsageError(f"{key} is read from a folder", "give it with --data DIR")
    root = place_in(folder, key)
    if not root.is_dir():
        raise MeasurementError(f"{key}: there is no folder {root}", "give the folder that holds it with --data DIR")
    return root


def place_in(folder: Path | str, key: str) -> Path:
    """Where a data set lies, or is laid, in a folder that is given: in one of its name, if there is one."""
    root = Path(folder).expanduser()
    return root / key if (root / key).is_dir() else root


def digits(draw: int = 0) -> DataSet:
    """The 100-label setting: 10 training images per class drawn by `draw`, the other 1,697 to test on."""
    images, labels = all_digits()
    rng = np.random.default_rng(draw)
    chosen = [rng.permutation(np.flatnonzero(labels == digit))[:DIGITS_PER_CLASS] for digit in range(10)]
    return _digits("digits", images, labels, np.concatenate(chosen))


def digits_full(draw: int = 0) -> DataSet:
    """All digits, four fifths to train on, split once for all."""
    images, labels = all_digits()
    return _digits("digits-full", images, labels, np.random.default_rng(0).permutation(len(labels))[:1437])


def _digits(name: str, images: Pixels, labels: LabelArray, chosen: LabelArray) -> DataSet:
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    train, test = Arrays(images[chosen], labels[chosen]), Arrays(images[rest], labels[rest])
    values = train.images / 255.0
    classes = tuple(str(digit) for digit in range(10))
    return DataSet(name, classes, train, test, (float(values.mean()),), (float(values.std()),), size=8)


def all_digits() -> tuple[Pixels, LabelArray]:
    """All 1,797 images (N, 1, 8, 8) with their 17 grey levels spread over 0..`DIGIT_WHITE`, and their labels.

    Read from the file inside scikit-learn: importing `sklearn.datasets` takes 3 s and gives the same numbers.
    """
    package = importlib.util.find_spec("sklearn")
    places = list(package.submodule_search_locations or ()) if package else []
    file = Path(places[0], "datasets", "data", "digits.csv.gz") if places else Path("sklearn")
    try:
        with gzip.open(file, "rt") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    except OSError as error:
        raise MeasurementError(
            f"digits: {file} cannot be read ({error})", "install scikit-learn, whose images they are"
        ) from error
    return (table[:, :-1] * DIGIT_WHITE // 16).astype(np.uint8).reshape(-1, 1, 8, 8), table[:, -1]
