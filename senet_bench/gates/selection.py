"""Which images, classes and channels of many are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from senet_bench.data.sets import DataSet, Labels
from senet_bench.errors import UsageError, nearest

PAPER_CLASSES = {"goldfish": 1, "plane": 404, "pug": 254, "cliff": 972}
"""The four classes of Figures 6 and 7 by their place among ImageNet's; "plane" is taken for the airliner."""
ALL_CLASSES, FEW_CLASSES = 10, 4


def drawn(labels: Labels, per_class: int | None, seed: int) -> Labels:
    """The rows of at most `per_class` images of every class, drawn by the seed; all rows for None."""
    if per_class is None:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen)) if chosen else np.arange(0)


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers 0 .. count - 1, uniformly spaced, the first included."""
    return [index * count // wanted for index in range(wanted)] if count > wanted else list(range(count))


def classes(names: Sequence[str], images: DataSet) -> dict[str, int]:
    """The classes to be looked at one by one, by name, with their places; a place may be given for a name.

    Without names: all of at most ten; of ImageNet the paper's four; else four uniformly spaced, of those that have
    test images. Raises `UsageError` for a class that the data set does not have or has no image of.
    """
    present = set(images.test.labels.tolist())
    if names:
        found = {name: _place(name, images) for name in names}
        empty = next((name for name, place in found.items() if place not in present), None)
        if empty is not None:
            raise UsageError(f"{images.name} has no image of class {empty!r} here", "choose another with --classes")
        return found
    if images.name == "imagenet" and present.issuperset(PAPER_CLASSES.values()):
        return dict(PAPER_CLASSES)
    places = sorted(present)
    wanted = ALL_CLASSES if len(places) <= ALL_CLASSES else FEW_CLASSES
    return {images.classes[places[index]]: places[index] for index in evenly(len(places), wanted)}


def _place(name: str, images: DataSet) -> int:
    if name in images.classes:
        return images.classes.index(name)
    if name.isascii() and name.isdigit() and int(name) < len(images.classes):
        return int(name)
    begin = f"its {len(images.classes)} classes begin {', '.join(images.classes[:3])}"
    raise UsageError(f"{images.name} has no class {name!r}", nearest(name, images.classes) or begin)
