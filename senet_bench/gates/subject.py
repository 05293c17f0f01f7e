"""A network with weights whose gates are looked into, and the images it is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from senet_bench.core.datasets import DATASETS
from senet_bench.core.specs import ModelSpec
from senet_bench.run.cases import Changes, spec_of

if TYPE_CHECKING:
    from senet_bench.data.sets import DataSet
    from senet_bench.training.evaluation import Viewing
    from senet_bench.training.weights import Loaded


def fitted_spec(model: str, changes: Changes, dataset: str) -> ModelSpec:
    """The row of a network with the channels, classes and, where none was asked for, the size of a data set."""
    own = DATASETS.get(dataset)
    if own is None:
        return spec_of(model, changes)
    side = changes.img_size or own.side
    return spec_of(model, replace(changes, img_size=side, in_channels=own.channels, classes=own.classes))


def trained_subject(
    spec: ModelSpec,
    named: str,
    dataset: str,
    folder: Path | None,
    *,
    average: bool | None = None,
    as_trained: bool = False,
) -> tuple[Loaded, DataSet]:
    """The network with weights that have its gates, and a data set, normalised as in their training.

    Of the digits it is those that they were not trained on. Raises `UsageError` for weights without the gates.
    """
    from senet_bench.data import sets
    from senet_bench.training import weights

    images = sets.load_images(dataset, folder, draw=weights.draw_in(named, dataset))
    loaded = weights.load_weights(
        spec,
        named,
        classes=len(images.classes),
        in_channels=images.channels,
        average=average,
        as_trained=as_trained,
        head=images.classes,
    )
    loaded.check_whole()
    return loaded.on(images)


def shown_at(
    spec: ModelSpec,
    images: DataSet,
    device: str,
    *,
    size: int | None = None,
    batch: int | None = None,
    skip_corrupt: bool = False,
) -> Viewing:
    """How the images are shown: by the crop of the network's own side, or of the one asked for."""
    from senet_bench.data.sets import Files
    from senet_bench.gates.watch import SMALL_SIDE
    from senet_bench.training.evaluation import Viewing

    side = size or (spec.input_size[1] if isinstance(images.test, Files) else images.size)
    shown = batch or (256 if side <= SMALL_SIDE else 64)
    return Viewing(size=side, batch=shown, device=device, skip_corrupt=skip_corrupt)
