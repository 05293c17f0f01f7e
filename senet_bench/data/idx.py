"""Fashion-MNIST (Xiao et al., arXiv 1708.07747) from its four IDX files, compressed or not.

A file starts with two zero bytes, the type of its values (8: bytes) and the number of sides; each side follows as
four bytes, the highest first, and then the values.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from senet_bench.core.datasets import known
from senet_bench.data.sets import Arrays, DataSet
from senet_bench.errors import MeasurementError

CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
INNER = (".", "fashion-mnist", "FashionMNIST/raw")
"""Where in the folder of --data the files may lie; the last is torchvision's."""
Bytes = npt.NDArray[np.uint8]


def fashion_mnist(root: Path) -> DataSet:
    """60,000 training and 10,000 test images (N, 1, 28, 28)."""
    return _clothes("fashion-mnist", root, halved=False)


def fashion_mnist_14(root: Path) -> DataSet:
    """The same at 14x14 px: every pixel the mean of 2x2, rounded."""
    return _clothes("fashion-mnist-14", root, halved=True)


def _clothes(name: str, root: Path, *, halved: bool) -> DataSet:
    folder = _folder(root)
    train, test = _split(folder, "train", halved=halved), _split(folder, "t10k", halved=halved)
    values = train.images / 255.0
    return DataSet(name, CLOTHES, train, test, (float(values.mean()),), (float(values.std()),), 14 if halved else 28)


def _folder(root: Path) -> Path:
    """The folder with the files, that of a system's package where the given one has none of them.

    Raises `MeasurementError` that names a file which is expected.
    """
    name, installed = "train-images-idx3-ubyte", known("fashion-mnist").installed
    for place in (*(root / inner for inner in INNER), *map(Path, filter(None, (installed,)))):
        if any((place / f"{name}{ending}").is_file() for ending in (".gz", "")):
            return place
    raise MeasurementError(
        f"fashion-mnist is missing: expected {root / name}.gz",
        "give its folder with --data DIR, or install Debian's package dataset-fashion-mnist",
    )


def _split(folder: Path, part: str, *, halved: bool) -> Arrays:
    images = idx(folder / f"{part}-images-idx3-ubyte", sides=3)
    labels = idx(folder / f"{part}-labels-idx1-ubyte", sides=1)
    sound = images.shape[1:] == (28, 28) and len(images) == len(labels) and len(labels) and labels.max() < 10
    if not sound:
        raise MeasurementError(
            f"fashion-mnist in {folder} is damaged: {len(labels):,} labels for images {images.shape}",
            "fetch its files again",
        )
    if halved:
        images = ((images.reshape(-1, 14, 2, 14, 2).sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return Arrays(images[:, None], labels.astype(np.int64))


def idx(file: Path, sides: int) -> Bytes:
    """The bytes of an IDX file with that many sides, or of FILE.gz; `MeasurementError` where it is not sound."""
    packed = file.with_name(f"{file.name}.gz")
    try:
        content = gzip.decompress(packed.read_bytes()) if packed.is_file() else file.read_bytes()
    except FileNotFoundError as error:
        raise MeasurementError(f"fashion-mnist is incomplete: expected {packed}", "fetch its files again") from error
    except (OSError, EOFError, zlib.error) as error:
        raise MeasurementError(f"{packed} cannot be read ({error})", "fetch its files again") from error
    start = 4 + 4 * sides
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist()) if len(content) >= start else ()
    if not shape or content[:4] != bytes([0, 0, 8, sides]) or len(content) != start + math.prod(shape):
        raise MeasurementError(f"{file} is not a whole IDX file of bytes", "fetch its files again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
