"""Data sets that lie in a folder, read by torchvision's own loaders and checked for being there and whole."""

from __future__ import annotations

import io
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from senet_bench.core.files import read_file
from senet_bench.data.sets import IMAGENET_MEAN, IMAGENET_STD, Arrays, DataSet, Files
from senet_bench.errors import MeasurementError

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
VALIDATION_FOLDERS = ("val", "validation", "test")


def cifar10(root: Path) -> DataSet:
    """CIFAR-10 from `root`/cifar-10-batches-py: 50,000 training and 10,000 test images of 32x32 px."""
    return _cifar("cifar10", _Cifar10, root, CIFAR10_MEAN, CIFAR10_STD)


def cifar100(root: Path) -> DataSet:
    """CIFAR-100 (fine labels) from `root`/cifar-100-python."""
    return _cifar("cifar100", _Cifar100, root, CIFAR100_MEAN, CIFAR100_STD)


class _Cifar10(datasets.CIFAR10):  # type: ignore[misc]
    """torchvision's reader, once `_cifar` has found the files whole and safe to unpickle."""

    meta: ClassVar[dict[str, Any]] = {**datasets.CIFAR10.meta, "md5": None}

    def _check_integrity(self) -> bool:
        return True


class _Cifar100(datasets.CIFAR100):  # type: ignore[misc]
    meta: ClassVar[dict[str, Any]] = {**datasets.CIFAR100.meta, "md5": None}

    def _check_integrity(self) -> bool:
        return True


def _cifar(name: str, reader: Any, root: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> DataSet:
    if (root.name == reader.base_folder) and root.is_dir():
        root = root.parent
    listed = [*reader.train_list, *reader.test_list, [reader.meta["filename"], reader.__base__.meta["md5"]]]
    unofficial = [file for file, md5 in listed if not _official(name, root / reader.base_folder / file, md5)]
    notes = (f"{name}: {', '.join(unofficial)} differ from the official files",) if unofficial else ()
    try:
        train, test = reader(root, train=True), reader(root, train=False)
    except (KeyError, ValueError, TypeError) as error:
        raise MeasurementError(
            f"{name} in {root} is damaged ({type(error).__name__}: {error})", "unpack the archive again"
        ) from error
    return DataSet(name, tuple(train.classes), _arrays(train), _arrays(test), mean, std, 32, notes)


def _arrays(read: Any) -> Arrays:
    images = np.ascontiguousarray(read.data.transpose(0, 3, 1, 2))
    return Arrays(images, np.asarray(read.targets, dtype=np.int64))


def _official(name: str, file: Path, md5: str | None) -> bool:
    """Whether the file has the published checksum; raises when it is missing, broken or unsafe to unpickle."""
    if not file.is_file():
        raise MeasurementError(
            f"{name} is missing or incomplete: expected {file}",
            f"unpack the python version of {name} so that --data holds {file.parent.name}/",
        )
    if check_integrity(str(file), md5):
        return True
    try:
        _NumpyOnly(io.BytesIO(file.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise MeasurementError(f"{name}: {file} is damaged ({error})", "unpack the archive again") from error
    return False


class _NumpyOnly(pickle.Unpickler):
    """Reads arrays, lists and strings; refuses whatever could run code."""

    ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype", "scalar", "encode", "_frombuffer"})

    def find_class(self, module: str, name: str) -> Any:
        if name in self.ALLOWED and module.split(".")[0] in {"numpy", "_codecs"}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which image data never needs")


IMAGENET_NUMBERS = {str(number) for number in range(1000)}
"""The numbers of ImageNet's classes as names of folders."""


def imagenet(root: Path) -> DataSet:
    """ImageNet-1k from `root`/val (and `root`/train): 1,000 folders each, or val flat with its list `val.txt`.

    With torchvision's `meta.bin` (or the devkit archive) the classes have their names, else their WordNet ids.
    `val.txt` holds lines "FILE LABEL", labels numbering the sorted WordNet ids from 0.
    """
    listed = (root / "val.txt").is_file() and not any(entry.is_dir() for entry in _entries(root / "val"))
    if listed:
        classes = tuple(f"class {index}" for index in range(1000))
        test = _listed("imagenet", root / "val", root / "val.txt", len(classes))
    else:
        test, classes = _classes_of("imagenet", root / "val", root)
        _expect_classes(root / "val", len(classes))
    train = None
    if (root / "train").is_dir():
        train, named = _classes_of("imagenet", root / "train", root)
        _expect_classes(root / "train", len(named))
        if not listed and not any(set(one) == IMAGENET_NUMBERS for one in (named, classes)):
            _expect_same("imagenet", root / "train", named, root / "val", classes)
    notes = () if len(test) == 50_000 else (f"imagenet: {len(test):,} of 50,000 validation images are here",)
    return DataSet("imagenet", classes, train, test, IMAGENET_MEAN, IMAGENET_STD, 224, notes)


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MeasurementError(f"missing or incomplete data: expected the folder {folder}", "see --data DIR")
    return list(folder.iterdir())


def _expect_classes(folder: Path, count: int) -> None:
    if count != 1000:
        raise MeasurementError(
            f"imagenet is incomplete: expected 1000 class folders in {folder}, found {count}",
            "complete it, or read a subset with --dataset folder",
        )


def _expect_same(name: str, train: Path, trained: tuple[str, ...], test: Path, tested: tuple[str, ...]) -> None:
    if trained != tested:
        odd = sorted(set(trained) ^ set(tested))
        raise MeasurementError(
            f"{name}: {train} and {test} have different classes ({', '.join(odd[:3])})",
            "give both the same class folders",
        )


def _classes_of(name: str, folder: Path, root: Path) -> tuple[Files, tuple[str, ...]]:
    """A tree of class folders, through torchvision's ImageNet where its meta data lie in `root`."""
    if not _entries(folder):
        raise MeasurementError(f"{name}: {folder} is empty", "expected one folder per class, with its images inside")
    has_meta = any((root / meta).is_file() for meta in ("meta.bin", "ILSVRC2012_devkit_t12.tar.gz"))
    try:
        if name == "imagenet" and has_meta:
            tree = datasets.ImageNet(root, split=folder.name)
            classes = tuple(str(names[0]) for names in tree.classes)
        else:
            tree = _Numbered(folder, all_numbers=name == "imagenet")
            classes = tuple(tree.classes)
    except (FileNotFoundError, RuntimeError, KeyError) as error:
        flat = f"; or flat, with {root / 'val.txt'} of lines FILE LABEL" if name == "imagenet" else ""
        raise MeasurementError(
            f"{name}: {folder} cannot be read ({error})", f"expected one folder per class, with its images inside{flat}"
        ) from error
    paths = tuple(Path(path) for path, _ in tree.samples)
    return Files(paths, np.asarray(tree.targets, dtype=np.int64)), classes


def numbered_classes(name: str, folder: Path) -> DataSet:
    """A tree of 1,000 folders that are named by the label, to test on alone."""
    test, classes = _classes_of("imagenet", folder, folder)
    _expect_classes(folder, len(classes))
    return DataSet(name, classes, None, test, IMAGENET_MEAN, IMAGENET_STD, 224, ())


class _Numbered(datasets.ImageFolder):  # type: ignore[misc]
    """Class folders sorted by name; where they are named 0 to 999, or any numbers, those are their order."""

    def __init__(self, folder: Path, *, all_numbers: bool) -> None:
        self._all_numbers = all_numbers
        super().__init__(folder)

    def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
        """The names by label, and the labels by name."""
        names, labels = super().find_classes(directory)
        numbered = all(name.isdecimal() for name in names) if self._all_numbers else set(names) == IMAGENET_NUMBERS
        if not numbered:
            return names, labels
        names = sorted(names, key=int)
        return names, {name: label for label, name in enumerate(names)}


def _listed(name: str, images: Path, listing: Path, classes: int) -> Files:
    """Images named by the lines "FILE LABEL" of a list, with the labels of so many classes."""
    paths, labels = [], []
    for number, line in enumerate(read_file(listing).decode(errors="replace").splitlines(), 1):
        match line.split():
            case [file, label] if re.fullmatch("[0-9]{1,9}", label) and int(label) < classes:
                paths.append(images / file.lstrip("/"))
                labels.append(int(label))
            case []:
                continue
            case _:
                raise _no_entry(name, number, listing, classes)
    _expect_files(name, paths)
    return Files(tuple(paths), np.asarray(labels, dtype=np.int64))


def _no_entry(name: str, line: int, listing: Path, classes: int) -> MeasurementError:
    """What is said of a line of a list that names no image with a label."""
    return MeasurementError(
        f"{name}: line {line} of {listing} is not 'FILE LABEL' with a label from 0 to {classes - 1}",
        "repair the list: labels are counted from 0",
    )


def _expect_files(name: str, paths: list[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        first = f", first {missing[0]}" if missing else ""
        raise MeasurementError(
            f"{name} is incomplete: {len(missing):,} of {len(paths):,} listed images are missing{first}",
            "unpack the images again",
        )


class _Places365(datasets.Places365):  # type: ignore[misc]
    """torchvision's reader; the lists must be there, and `_places` tells when they are not the official ones."""

    def _check_integrity(self, file: str, md5: str, download: bool) -> bool:
        if not Path(file).is_file():
            raise MeasurementError(f"places365 is missing or incomplete: expected {file}", "unpack the devkit there")
        return True


def places365(root: Path) -> DataSet:
    """Places365: devkit lists and the folders val_256 or val_large in `root`.

    To train, Places365-Challenge (8 million images, as the paper has) where data_256_challenge or data_large_challenge
    is there, else Places365-Standard (1.8 million).
    """
    _, test, classes = _places(root, "val", ("val_256", "val_large"))
    lists = (_Places365._CATEGORIES_META, _Places365._FILE_LIST_META["val"])
    unofficial = [file for file, md5 in lists if not check_integrity(str(root / file), md5)]
    train = None
    for variant in ("challenge", "standard"):
        folders = (f"data_256_{variant}", f"data_large_{variant}")
        if any((root / name).is_dir() for name in folders):
            _, train, _ = _places(root, f"train-{variant}", folders)
            break
    notes = (f"places365: {', '.join(unofficial)} differ from the official lists",) if unofficial else ()
    return DataSet("places365", classes, train, test, IMAGENET_MEAN, IMAGENET_STD, 224, notes)


def _places(root: Path, split: str, folders: tuple[str, str]) -> tuple[Path, Files, tuple[str, ...]]:
    small = (root / folders[0]).is_dir()
    images = root / folders[0 if small else 1]
    if not images.is_dir():
        raise MeasurementError(
            f"places365 is missing or incomplete: expected {root / folders[0]} or {root / folders[1]}",
            "unpack the images there",
        )
    listing = root / _Places365._FILE_LIST_META[split][0]
    try:
        read = _Places365(root, split=split, small=small)
    except (ValueError, TypeError) as error:
        lists = f"{root / _Places365._CATEGORIES_META[0]} or {listing}"
        raise MeasurementError(
            f"places365: {lists} is damaged ({error})", "unpack the devkit there again: lines of a name and a number"
        ) from error
    wrong = (row for row, label in enumerate(read.targets) if label is None or not 0 <= label < len(read.classes))
    if (row := next(wrong, None)) is not None:
        raise _no_entry("places365", row + 1, listing, len(read.classes))
    paths = [Path(path) for path, _ in read.imgs]
    _expect_files("places365", paths if split == "val" else paths[:1])
    return images, Files(tuple(paths), np.asarray(read.targets, dtype=np.int64)), tuple(read.classes)


def imagenette(root: Path) -> DataSet:
    """Imagenette (320 px) from `root`/imagenette2-320, or from the folder that holds its `train` and `val` itself."""
    inner = root / "imagenette2-320"
    read = folder(inner if inner.is_dir() else root)
    if len(read.classes) != 10:
        raise MeasurementError(
            f"imagenette: expected ten class folders in {root}, found {len(read.classes)}", "fetch it with --download"
        )
    return replace(read, name="imagenette")


def folder(root: Path) -> DataSet:
    """A tree `root`/train and `root`/val (or validation, or test) of class folders; or the classes right in `root`."""
    test_folder = next((root / name for name in VALIDATION_FOLDERS if (root / name).is_dir()), None)
    train = None
    if (root / "train").is_dir():
        if test_folder is None:
            raise MeasurementError(f"folder: expected {root / 'val'} beside {root / 'train'}", "add held-out images")
        train, trained = _classes_of("folder", root / "train", root)
    test, classes = _classes_of("folder", test_folder or root, root)
    if train is not None:
        _expect_same("folder", root / "train", trained, test_folder or root, classes)
    return DataSet("folder", classes, train, test, IMAGENET_MEAN, IMAGENET_STD, 224)
