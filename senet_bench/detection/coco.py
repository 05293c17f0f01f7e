"""COCO's format: images with boxes, read from `annotations/instances_*.json` and checked for being there and whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from senet_bench.core.datasets import dataset
from senet_bench.data.sets import IMAGENET_MEAN, IMAGENET_STD, existing, loader
from senet_bench.errors import MeasurementError

Boxes = npt.NDArray[np.float32]
LEAST_SIDE = 1.0
"""Boxes below this many pixels on a side are left out of training."""


class Image(msgspec.Struct, frozen=True):
    """An image as COCO lists it; sizes in pixels."""

    id: int
    file_name: str
    width: int
    height: int


class Annotation(msgspec.Struct, frozen=True):
    """An object: its box as left, top, width, height in pixels; a crowd is a region nobody is asked to find."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0
    area: float | None = None


class Category(msgspec.Struct, frozen=True):
    """A kind of object."""

    id: int
    name: str


class Listing(msgspec.Struct, frozen=True):
    """What an `instances_*.json` holds, as far as boxes go."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


@dataclass(frozen=True, slots=True, eq=False)
class DetectionSplit:
    """Images on disk with their objects: a path for each image of the listing, in its order."""

    listing: Listing
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def category_ids(self) -> list[int]:
        """COCO's category of each label: label 1 is the first of these."""
        return sorted(category.id for category in self.listing.categories)

    def objects(self) -> list[tuple[Boxes, npt.NDArray[np.int64]]]:
        """For each image its boxes (N, 4) as left, top, right, bottom within the image, and their labels (N,) from 1.

        Crowds and boxes of no extent are left out.
        """
        label_of = {category: label for label, category in enumerate(self.category_ids, 1)}
        boxes: dict[int, list[tuple[float, ...]]] = defaultdict(list)
        sizes = {image.id: (image.width, image.height) for image in self.listing.images}
        for one in self.listing.annotations:
            corners = _clipped(one.bbox, sizes[one.image_id])
            if not one.iscrowd and corners is not None:
                boxes[one.image_id].append((*corners, label_of[one.category_id]))
        tables = (np.array(boxes[image.id], dtype=np.float64).reshape(-1, 5) for image in self.listing.images)
        return [(table[:, :4].astype(np.float32), table[:, 4].astype(np.int64)) for table in tables]


def _clipped(bbox: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    left, top, width, height = bbox
    right, bottom = min(left + width, size[0]), min(top + height, size[1])
    left, top = max(left, 0.0), max(top, 0.0)
    return (left, top, right, bottom) if right - left >= LEAST_SIDE and bottom - top >= LEAST_SIDE else None


@dataclass(frozen=True, slots=True, eq=False)
class DetectionSet:
    """Named images with objects: a training and a test split and the statistics to normalise with (of values in 0..1).

    `notes` says what a reader must know.
    """

    name: str
    classes: tuple[str, ...]
    train: DetectionSplit | None
    test: DetectionSplit
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    notes: tuple[str, ...] = field(default=())

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return len(self.mean)

    @property
    def is_whole(self) -> bool:
        """Whether the test split has the 5,000 images and 80 categories of COCO's val2017."""
        return (len(self.test), len(self.classes)) == (5000, 80)

    def training(self) -> DetectionSplit:
        """The training split; `MeasurementError` when there is none on disk."""
        if self.train is None:
            raise MeasurementError(f"{self.name} has no training images here", "only evaluation is possible")
        return self.train


def load_detection(name: str, folder: Path | str | None = None) -> DetectionSet:
    """The set of images with boxes of that name (a row of `core.datasets`), read from `folder`."""
    row = dataset(name, "detection")
    images: DetectionSet = loader(row)(existing(row.key, folder))
    return images


def coco(root: Path) -> DetectionSet:
    """COCO 2017, or any set of its form, from `root`.

    `root` holds annotations/instances_val2017.json and val2017/ (or images/val2017/); the same with train2017 to train.
    The paper's minival is val2017, its 80k + 35k images are train2017.
    """
    test = _split(root, "val2017")
    train = _split(root, "train2017") if (root / "annotations" / "instances_train2017.json").is_file() else None
    names = {category.id: category.name for category in test.listing.categories}
    if train is not None and {category.id: category.name for category in train.listing.categories} != names:
        raise MeasurementError(f"coco: train2017 and val2017 in {root} have different categories", "give both the same")
    classes = tuple(names[category] for category in test.category_ids)
    data = DetectionSet("coco", classes, train, test)
    note = f"coco: {len(test):,} images and {len(classes)} categories, not COCO's 5,000 and 80"
    return data if data.is_whole else replace(data, notes=(note,))


def _split(root: Path, name: str) -> DetectionSplit:
    file = root / "annotations" / f"instances_{name}.json"
    folder = next((place for place in (root / name, root / "images" / name) if place.is_dir()), None)
    if not file.is_file() or folder is None:
        expected = file if not file.is_file() else f"{root / name}/ or {root / 'images' / name}/"
        raise MeasurementError(
            f"coco is missing or incomplete: expected {expected}", "unpack it so that --data holds it"
        )
    listing = _listing(file)
    paths = tuple(folder / image.file_name for image in listing.images)
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        first = f", first {missing[0]}" if missing else ""
        raise MeasurementError(
            f"coco is incomplete: {len(missing):,} of {len(paths):,} listed images are missing{first}",
            "unpack the images again",
        )
    return DetectionSplit(listing, paths)


def _listing(file: Path) -> Listing:
    try:
        listing = msgspec.json.decode(file.read_bytes(), type=Listing)
    except (msgspec.DecodeError, OSError, RecursionError) as error:
        raise MeasurementError(f"coco: {file} is damaged ({error})", "unpack the annotations again") from error
    wrong = next(_faults(listing), None)
    if wrong:
        raise MeasurementError(f"coco: {file} is damaged ({wrong})", "unpack the annotations again")
    return listing


def _faults(listing: Listing) -> Iterator[str]:
    """What is wrong with a listing, in words."""
    images, categories = Counter(one.id for one in listing.images), Counter(one.id for one in listing.categories)
    if not categories:
        yield "it lists no categories"
    for what, ids in (("image", images), ("category", categories)):
        yield from (f"{what} {number} is listed twice" for number, times in ids.items() if times > 1)
    yield from (
        f"image {one.id} is {one.width}x{one.height} px" for one in listing.images if one.width * one.height < 1
    )
    for one in listing.annotations:
        if one.image_id not in images:
            yield f"an annotation names image {one.image_id}, which is not listed"
        if one.category_id not in categories:
            yield f"an annotation names category {one.category_id}, which is not listed"
