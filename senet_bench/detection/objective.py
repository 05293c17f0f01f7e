"""Detectors in training and evaluation: their losses, and what they find image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from senet_bench.bench.machine import arithmetic
from senet_bench.core.files import write_atomically
from senet_bench.core.recipes import Recipe, Scaling
from senet_bench.core.specs import Precision
from senet_bench.detection import coco
from senet_bench.detection.average_precision import AveragePrecision, Detection, check_installed, precision_of
from senet_bench.detection.coco import DetectionSet, DetectionSplit
from senet_bench.detection.scenes import Scene, SceneBatches, Scenes, scaling_of
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models.modes import evaluating
from senet_bench.run.train import Lesson
from senet_bench.run.training import TrainingRequest
from senet_bench.training.distributed import World, gathered, share
from senet_bench.training.objective import Settings, Tested
from senet_bench.training.optimisation import autocast, laid_out


class Detecting:
    """The objective of a detector: the sum of its four losses, tested by COCO's average precision."""

    def __init__(self, data: DetectionSet, recipe: Recipe, settings: Settings, world: World) -> None:
        if settings.compile:
            raise UsageError(
                "torch.compile cannot take a detector, whose shapes change with every image", "leave it out"
            )
        if settings.evaluate_every:
            check_installed()
        self.data, self.recipe, self.settings, self.world = data, recipe, settings, world
        self.device = torch.device(settings.device)
        self.batches = SceneBatches(data, recipe, settings, world)

    @property
    def unread(self) -> set[str]:
        """The unreadable images that this process left out so far."""
        return set(map(str, self.batches.corrupt))

    def identity(self) -> list[Any]:
        """What a checkpoint's data must agree in."""
        return [self.data.name, len(self.batches), len(self.data.classes)]

    def parts(self, batch: list[Scene], count: int) -> list[list[Scene]]:
        """A batch in at most `count` parts of nearly equal length."""
        cuts = np.array_split(np.arange(len(batch)), count)
        return [[batch[index] for index in cut] for cut in cuts if len(cut)]

    def loss(self, forward: Any, part: list[Scene], batch: list[Scene]) -> Tensor:
        """What these images contribute to the mean loss of the batch."""
        images = [_on(scene.image, self.device, self.settings.channels_last) for scene in part]
        with autocast(self.device, self.settings.precision):
            losses = forward(images, [scene.target(self.device) for scene in part])
        summed: Tensor = torch.stack([loss.float() for loss in losses.values()]).sum()
        return summed * len(part) / len(batch)

    def tested(self, network: nn.Module) -> Tested:
        """AP and AP50 on the test split, as an epoch reports them."""
        looking = Looking(
            scaling=scaling_of(self.recipe),
            precision=self.settings.precision,
            channels_last=self.settings.channels_last,
            device=self.settings.device,
            skip_corrupt=self.settings.skip_corrupt,
        )
        seen = detect(network, self.data, self.data.test, looking, self.world)
        precision = seen.judged()
        return {"ap": precision.ap, "ap50": precision.ap50}


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """How images are shown to a detector: their scale, images a call, arithmetic."""

    scaling: Scaling
    batch: int = 1
    precision: Precision = "fp32"
    channels_last: bool = True
    device: str = "cpu"
    skip_corrupt: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a detector found in a split, every image seen once; `skipped` names the files that could not be read."""

    split: DetectionSplit
    found: tuple[Detection, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.split) - len(self.skipped)

    def judged(self) -> AveragePrecision:
        """COCO's average precisions over the images seen."""
        unread = set(self.skipped)
        rows = [image.id for image, path in zip(self.split.listing.images, self.split.paths) if str(path) in unread]
        return precision_of(self.split, self.found, rows)

    def save(self, path: Path) -> None:
        """Keep the detections in COCO's own results format."""
        write_atomically(path, msgspec.json.encode(self.found))


def detect(
    network: nn.Module, data: DetectionSet, split: DetectionSplit, looking: Looking, world: World | None = None
) -> Detections:
    """Show every image of a split to a detector once; boxes come back in the pixels of the files.

    Several processes share the images; each gets the whole result.
    """
    world, corrupt = world or World(), list[Path]()
    device = torch.device(looking.device)
    rows = range(len(split))[share(len(split), world)]
    jobs = [[(row, None) for row in rows[at : at + looking.batch]] for at in range(0, len(rows), looking.batch)]
    detections: list[Detection] = []
    with evaluating(network), arithmetic(looking.precision == "tf32"), torch.inference_mode():
        for scenes in Scenes(data, split, looking.scaling).read(jobs, corrupt if looking.skip_corrupt else None):
            images = [_on(scene.image, device, looking.channels_last) for scene in scenes]
            with autocast(device, looking.precision):
                outputs = network(images) if images else []
            detections += [one for scene, output in zip(scenes, outputs) for one in _named(split, scene, output)]
    parts = gathered((detections, [str(path) for path in corrupt]), world)
    skipped = tuple(sorted(name for _, names in parts for name in names))
    if len(skipped) == len(split):
        raise MeasurementError(f"{data.name}: not one image could be read", "check the files")
    everything = sorted((one for some, _ in parts for one in some), key=lambda one: (one.image_id, -one.score))
    return Detections(split, tuple(everything), skipped)


def _on(image: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    return laid_out(image[None], device, channels_last)[0]


def _named(split: DetectionSplit, scene: Scene, output: dict[str, Tensor]) -> Iterator[Detection]:
    """The detections in an image under COCO's ids, in the file's pixels."""
    boxes, scores = output["boxes"].float().cpu(), output["scores"].float().cpu()
    if not (torch.isfinite(boxes).all() and torch.isfinite(scores).all()):
        raise MeasurementError(
            "the detector's outputs are not finite", "train with a smaller learning rate, or in fp32"
        )
    ids, (across, down) = split.category_ids, scene.scale
    for (left, top, right, bottom), score, label in zip(boxes.tolist(), scores.tolist(), output["labels"].tolist()):
        bbox = (left / across, top / down, (right - left) / across, (bottom - top) / down)
        yield Detection(split.listing.images[scene.row].id, ids[label - 1], bbox, score)


FROM_NOTHING = "the trunk starts from no weights, so that none of its stages is frozen (the paper: from ImageNet's)"


def detection() -> Lesson:
    """The lesson of detectors."""
    return Lesson(lambda asked: coco.load_detection(asked.dataset, asked.folder), _count, Detecting, _frozen)


def _count(images: DetectionSet) -> int:
    """The training images with objects."""
    return sum(len(labels) > 0 for _, labels in images.training().objects())


def _frozen(request: TrainingRequest, network: Any) -> tuple[str, ...]:
    """Keep the first stages of a detector's trunk as they are; says where it has none worth keeping."""
    network.freeze(request.freeze_at)
    return () if request.freeze_at else (FROM_NOTHING,)
