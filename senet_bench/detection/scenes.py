"""Images as a detector sees them: read ahead, scaled as Detectron scales them, their boxes with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from senet_bench.bench.process import cores
from senet_bench.core.recipes import Recipe, Scaling
from senet_bench.data.augment import normalised
from senet_bench.data.batches import check_shared
from senet_bench.data.images import UNREADABLE, decoded, unreadable
from senet_bench.detection.coco import DetectionSet, DetectionSplit
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.training.distributed import World
from senet_bench.training.objective import Settings

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image as a detector sees it: (3, H, W) normalised, boxes (N, 4) in its pixels with labels (N,) from 1.

    `row` is its place in the split, `scale` how many of these pixels one of the file's became, across and down.
    """

    row: int
    image: Tensor
    boxes: Tensor
    labels: Tensor
    scale: tuple[float, float]

    def target(self, device: torch.device) -> dict[str, Tensor]:
        """What a detector in training is asked to find."""
        return {"boxes": self.boxes.to(device), "labels": self.labels.to(device)}


def scaled_size(height: int, width: int, scaling: Scaling) -> tuple[int, int]:
    """Height and width with the shorter side at `shorter` pixels, or the longer one at `longest` if that is less."""
    factor = min(scaling.shorter / min(height, width), scaling.longest / max(height, width))
    return max(1, int(height * factor)), max(1, int(width * factor))


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """A split whose images are read, scaled and normalised when they are needed."""

    data: DetectionSet
    split: DetectionSplit
    scaling: Scaling

    def scene(self, row: int, objects: tuple[Any, Any] | None, mirrored: bool = False) -> Scene:
        """One image with its objects; bilinear between pixel centres, without antialiasing, as torchvision does it."""
        pixels = decoded(self.split.paths[row])
        height, width = scaled_size(int(pixels.shape[1]), int(pixels.shape[2]), self.scaling)
        scale = (width / pixels.shape[2], height / pixels.shape[1])
        whole = normalised(pixels[None].contiguous(), self.data.mean, self.data.std)
        image = F.interpolate(whole, (height, width), mode="bilinear", align_corners=False)[0]
        boxes, labels = (torch.from_numpy(part) for part in objects or (np.empty((0, 4), np.float32), np.empty(0, int)))
        boxes = boxes * torch.tensor([*scale, *scale])
        if mirrored:
            image = image.flip(-1)
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        return Scene(row, image, boxes, labels, scale)

    def read(self, jobs: Sequence[Sequence[tuple[Any, ...]]], corrupt: list[Path] | None) -> Iterator[list[Scene]]:
        """Batches of scenes, each given by its row, objects and mirroring; two batches are read ahead by threads.

        An unreadable image is a `MeasurementError` with its name, or is left out and added to `corrupt`.
        """
        ahead: deque[list[tuple[int, Future[Scene]]]] = deque()
        left = iter(jobs)
        with ThreadPoolExecutor(cores()) as pool:
            try:
                for batch in left:
                    ahead.append([(row, pool.submit(self.scene, row, *rest)) for row, *rest in batch])
                    if len(ahead) > 2:
                        yield self._done(ahead.popleft(), corrupt)
                while ahead:
                    yield self._done(ahead.popleft(), corrupt)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _done(self, batch: list[tuple[int, Future[Scene]]], corrupt: list[Path] | None) -> list[Scene]:
        scenes = []
        for row, future in batch:
            try:
                scenes.append(future.result())
            except UNREADABLE as error:
                if corrupt is None:
                    raise unreadable(self.split.paths[row]) from error
                corrupt.append(self.split.paths[row])
        return scenes


class SceneBatches:
    """Shuffled training batches, a pure function of (seed, epoch, step); images without objects are left out.

    `batch` is the global batch size; this process gets its part. A last, smaller batch is left out of an epoch.
    """

    def __init__(self, data: DetectionSet, recipe: Recipe, settings: Settings, world: World) -> None:
        scaling = scaling_of(recipe)
        self.scenes = Scenes(data, data.training(), scaling)
        self.objects = self.scenes.split.objects()
        self.rows = np.flatnonzero([len(labels) > 0 for _, labels in self.objects])
        if not len(self.rows):
            raise MeasurementError("no training image has an object in it", "see --data DIR")
        self.batch = min(recipe.batch_size, len(self.rows))
        check_shared(self.batch, world.size)
        steps = len(self.rows) // self.batch
        self.steps = steps if recipe.max_steps is None else min(steps, recipe.max_steps)
        self.seed, self.flip, self.world = settings.seed, recipe.augmentation.flip, world
        self.corrupt: list[Path] = []
        self.skips = settings.skip_corrupt

    def __len__(self) -> int:
        return len(self.rows)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Scene]]:
        """Own batches from step `start` of an epoch."""
        order = np.random.default_rng((self.seed, epoch, 0)).permutation(self.rows)
        plans = [self._plan(order, epoch, step) for step in range(start, self.steps)]
        yield from self.scenes.read(plans, self.corrupt if self.skips else None)

    def _plan(self, order: Positions, epoch: int, step: int) -> list[tuple[Any, ...]]:
        rows = order[step * self.batch : (step + 1) * self.batch]
        draws = np.random.default_rng((self.seed, epoch, 1, step)).random(self.batch)
        rank, size = self.world.rank, self.world.size
        part = slice(rank * self.batch // size, (rank + 1) * self.batch // size)
        return [
            (int(row), self.objects[row], self.flip and bool(draw < 0.5)) for row, draw in zip(rows[part], draws[part])
        ]


def scaling_of(recipe: Recipe) -> Scaling:
    """How a recipe scales the images of a detector."""
    if recipe.scaling is None:
        raise UsageError(f"recipe {recipe.name} is for classifiers", "use coco")
    return recipe.scaling
