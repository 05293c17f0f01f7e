"""The data sets by name, a row each: everything about one that can be said before it is read.

A new data set is its loader and a row here. Loading, `--dataset` and its help, default recipes and the size that a
network is built for all come from this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from senet_bench.core.specs import Task
from senet_bench.errors import UsageError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One data set: its images, what is asked of them, and the function that reads it.

    `side` in pixels, `channels` and `classes` are None where they are the network's or the files' own. `loader` is
    "module:function" and takes the folder of `--data`, or the number of the draw where the images are `embedded` in
    an installed package. `recipe` is what networks are trained by unless another is named. `images` are how many there
    are to train and to test on where that is fixed. `installed` is the folder in which a system's package lays them:
    read where no other is given, or that has none of them.
    """

    key: str
    title: str
    loader: str
    recipe: str
    side: int | None = None
    channels: int | None = None
    classes: int | None = None
    task: Task = "classification"
    embedded: bool = False
    images: tuple[int, int] | None = None
    installed: str | None = None
    aliases: tuple[str, ...] = ()


FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist lays its four files."""

_ROWS = (
    Dataset(
        key="digits",
        title="scikit-learn's handwritten digits, 8x8 px: 10 training images per class, 1,697 test images",
        loader="senet_bench.data.sets:digits",
        recipe="digits",
        side=8,
        channels=1,
        classes=10,
        embedded=True,
        aliases=("digits-100",),
    ),
    Dataset(
        key="digits-full",
        title="the same digits, 1,437 training and 360 test images (saturated: cannot rank networks)",
        loader="senet_bench.data.sets:digits_full",
        recipe="digits",
        side=8,
        channels=1,
        classes=10,
        embedded=True,
    ),
    Dataset(
        key="fashion-mnist",
        title="Fashion-MNIST, ten kinds of clothes in grey, 28x28 px (Debian: dataset-fashion-mnist)",
        loader="senet_bench.data.idx:fashion_mnist",
        recipe="fashion-mnist",
        side=28,
        channels=1,
        classes=10,
        images=(60_000, 10_000),
        installed=FASHION_MNIST,
        aliases=("fashionmnist", "fashion-mnist-28"),
    ),
    Dataset(
        key="fashion-mnist-14",
        title="the same at 14x14 px, each the mean of 2x2: for CPUs",
        loader="senet_bench.data.idx:fashion_mnist_14",
        recipe="fashion-mnist",
        side=14,
        channels=1,
        classes=10,
        images=(60_000, 10_000),
        installed=FASHION_MNIST,
        aliases=("fashionmnist-14",),
    ),
    Dataset(
        key="cifar10",
        title="CIFAR-10, python version, 32x32 px",
        loader="senet_bench.data.disk:cifar10",
        recipe="cifar",
        side=32,
        channels=3,
        classes=10,
        images=(50_000, 10_000),
    ),
    Dataset(
        key="cifar100",
        title="CIFAR-100, python version, 32x32 px",
        loader="senet_bench.data.disk:cifar100",
        recipe="cifar",
        side=32,
        channels=3,
        classes=100,
        images=(50_000, 10_000),
    ),
    Dataset(
        key="imagenet",
        title="ImageNet-1k (ILSVRC 2012) as class folders, 1,000 classes",
        loader="senet_bench.data.disk:imagenet",
        recipe="imagenet",
        classes=1000,
        images=(1_281_167, 50_000),
    ),
    Dataset(
        key="imagenette",
        title="Imagenette, ten easy classes of ImageNet at 320 px: a small stand-in for it",
        loader="senet_bench.data.disk:imagenette",
        recipe="imagenet",
        classes=10,
        images=(9_469, 3_925),
    ),
    Dataset(
        key="places365",
        title="Places365-Standard with its devkit lists, 365 classes",
        loader="senet_bench.data.disk:places365",
        recipe="places365",
        classes=365,
        images=(1_803_460, 36_500),
    ),
    Dataset(
        key="folder",
        title="any tree train/CLASS/IMAGE and val/CLASS/IMAGE, such as ImageNet-100",
        loader="senet_bench.data.disk:folder",
        recipe="imagenet",
    ),
    Dataset(
        key="coco",
        title="COCO 2017 or any set of its form: annotations/instances_{train,val}2017.json, train2017/, val2017/",
        loader="senet_bench.detection.coco:coco",
        recipe="coco",
        task="detection",
    ),
)
DATASETS: dict[str, Dataset] = {row.key: row for row in _ROWS}
EMBEDDED = tuple(row.key for row in _ROWS if row.embedded)
"""The data sets that come with this toolkit, so that no folder can hold another one: two splits of the same digits."""


def known(name: str) -> Dataset:
    """The row of a name; `UsageError` with the nearest for an unknown one."""
    key = name.lower()
    row = next((row for row in _ROWS if key == row.key or key in row.aliases), None)
    if row is None:
        hint = nearest(key, DATASETS, most=1) or f"choose from {', '.join(DATASETS)}"
        raise UsageError(f"unknown data set {name!r}", hint)
    return row


def dataset_key(name: str) -> str:
    """The one name of a data set that may be named by an alias; `UsageError` for an unknown one."""
    return known(name).key


def dataset(name: str, task: Task) -> Dataset:
    """The row of a name; `UsageError` for an unknown one, or for one of another task."""
    row = known(name)
    if row.task == task:
        return row
    if task == "detection":
        raise UsageError(f"{row.key} has no boxes to detect", f"use --dataset {' or '.join(_keys('detection'))}")
    raise UsageError(
        f"{row.key} has objects in boxes, not a label an image", "name a detector: fasterrcnn_resnet50_fpn"
    )


def check_side(key: str, side: int | None, option: str = "--img-size") -> None:
    """Raise `UsageError` where another side is asked for, by an option, than that of images in memory."""
    row = DATASETS.get(key)
    if row is not None and row.side is not None and side not in (None, row.side):
        raise UsageError(f"{option} is {row.side} on {key}, not {side}", "leave it out")


def _keys(task: Task) -> list[str]:
    return [row.key for row in _ROWS if row.task == task]


DATA_VARIABLE = "SENET_BENCH_DATA"
"""The environment variable with the folder that stands for --data."""
EACH_OF_THE_PAPER = "paper"
"""What stands for the data set of each of the paper's tables."""
CLASSIFICATION = ", ".join(_keys("classification"))
CHOICES = f"{CLASSIFICATION}; {', '.join(_keys('detection'))} for detectors."
"""What `--dataset` takes, for its help: of classifiers alone, and of both."""
