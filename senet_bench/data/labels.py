"""Other labels for ImageNet's validation images, and other images for its labels: ImageNet-Real and ImageNetV2.

ImageNet-Real (Beyer et al., arXiv 2006.07159) is a list in a file, `real.json`: for each validation image in the order
of its number the classes that are in it, none for an image that nobody could tell. ImageNetV2 (Recht et al., arXiv
1902.10811) is a tree of images in folders named by the label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from senet_bench.core.files import read_file
from senet_bench.data.disk import numbered_classes
from senet_bench.data.sets import DataSet, Files, existing
from senet_bench.errors import MeasurementError, UsageError

V2, REAL = "ImageNetV2", "ImageNet-Real"
OF_V2 = ("v2", "imagenetv2")
"""What `--labels` calls the images of ImageNetV2, which have labels of their own."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The classes that are right for each row of a split, none for an image that is left out; `name` says whose."""

    name: str
    right: tuple[frozenset[int], ...]


def images_of_v2(folder: Path | str | None) -> DataSet:
    """ImageNetV2 from the folder that holds its folders `0` to `999`, or that holds one of its three sets unpacked."""
    root = existing("imagenet", folder)
    inner = [root] if (root / "0").is_dir() else sorted(root.glob("imagenetv2-*"))
    trees = [place for place in inner if (place / "0").is_dir()]
    if not trees:
        raise MeasurementError(
            f"ImageNetV2: expected folders 0 to 999 in {root}", "give the unpacked archive with --data DIR"
        )
    if trees[1:]:
        names = ", ".join(tree.name for tree in trees)
        raise UsageError(f"ImageNetV2: several sets lie in {root}: {names}", f"choose one with --data {trees[0]}")
    return replace(numbered_classes(V2, trees[0]), notes=(f"ImageNetV2 from {trees[0].name}",))


def real_labels(file: Path, images: DataSet) -> Labels:
    """What ImageNet-Real says of a data set's test images, by the number in their names."""
    if not isinstance(images.test, Files) or len(images.classes) != 1000:
        raise UsageError(f"{REAL} has labels for ImageNet's validation images", "use --dataset imagenet")
    listed = _listed(file)
    right = []
    for path in images.test.paths:
        number = re.search(r"(\d{8})$", path.stem)
        if number is None or not 1 <= int(number[1]) <= len(listed):
            raise MeasurementError(
                f"{path.name} is not one of the {len(listed):,} images of {file}",
                "keep the names that the validation images came with (ILSVRC2012_val_00000001.JPEG)",
            )
        right.append(frozenset(listed[int(number[1]) - 1]))
    return Labels(REAL, tuple(right))


def _listed(file: Path) -> Sequence[Sequence[int]]:
    """The lists of classes in a file such as `real.json`; `UsageError` for another one."""
    try:
        listed = json.loads(read_file(file))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not a list of labels ({error})", "give ImageNet-Real's real.json") from error
    sound = isinstance(listed, list) and all(
        isinstance(entry, list) and all(isinstance(one, int) and 0 <= one < 1000 for one in entry) for entry in listed
    )
    if not sound:
        raise UsageError(f"{file} is not a list of lists of classes 0 to 999", "give ImageNet-Real's real.json")
    return list(listed)
