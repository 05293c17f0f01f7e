"""Training batches as a pure function of (seed, epoch, step), so that any of them can be made again.

The order and the augmentation are drawn for the global batch; a process of a distributed job takes its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from senet_bench.bench.device import device_of
from senet_bench.bench.process import cores
from senet_bench.core.recipes import Augmentation
from senet_bench.data import images
from senet_bench.data.augment import Draws, Pixels, cropped, cut_out, draw, zero_padded
from senet_bench.data.resident import Resident
from senet_bench.data.sets import Files, LabelArray, Split
from senet_bench.errors import UsageError


@dataclass(slots=True)
class Batches:
    """Shuffled, augmented batches of a split.

    `batch` is the global batch size; this process gets the part `rank` of `world`. A last, smaller batch is left
    out of an epoch. Images that cannot be read raise, or are collected in `corrupt` where that is a list. `colour`
    (0..255 a channel) is what is painted where something is cut out. A split in memory is put on a `device` that has
    memory of its own.
    """

    split: Split
    batch: int
    seed: int
    augmentation: Augmentation
    size: int
    rank: int = 0
    world: int = 1
    max_steps: int | None = None
    corrupt: list[Path] | None = None
    colour: tuple[int, ...] = ()
    device: str = "cpu"
    _padded: Pixels | None = field(default=None, init=False)
    _resident: Resident | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Raise `UsageError` where the processes cannot share a batch."""
        if len(self.split) == 0:
            raise UsageError("there are no training images", "see --data DIR")
        self.batch = min(self.batch, len(self.split))
        check_shared(self.batch, self.world)
        if isinstance(self.split, Files):
            return
        place = torch.device(self.device)
        if not device_of(place).in_host_memory:
            self._resident = Resident.of(self.split, self.augmentation.pad, place)
        if self._resident is None:
            self._padded = zero_padded(self.split.images, self.augmentation.pad)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        steps = len(self.split) // self.batch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Own batches from step `start` of an epoch: (n, C, H, W) uint8 and labels (n,), where the split lies."""
        order = np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.split))
        plans = [self._plan(order, epoch, step) for step in range(start, self.steps)]
        if isinstance(self.split, Files):
            yield from self._from_files(self.split, plans, epoch)
            return
        if self._resident is not None:
            yield from self._resident.batches(plans, self.augmentation.cutout, self.colour)
            return
        assert self._padded is not None
        size = (self.split.images.shape[2], self.split.images.shape[3])
        for rows, draws in plans:
            pixels = cropped(self._padded, rows, draws, size)
            self._cut(pixels, draws)
            yield torch.from_numpy(pixels), torch.from_numpy(self.split.labels[rows])

    def _plan(self, order: LabelArray, epoch: int, step: int) -> tuple[LabelArray, Draws]:
        part = slice(self.rank * self.batch // self.world, (self.rank + 1) * self.batch // self.world)
        rows = order[step * self.batch : (step + 1) * self.batch]
        rng = np.random.default_rng((self.seed, epoch, 1, step))
        return rows[part], draw(self.augmentation, self.batch, rng).part(part)

    def _from_files(
        self, split: Files, plans: list[tuple[LabelArray, Draws]], epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Random-resized crops, decoded ahead by threads; the crop of an image depends on its row and the epoch."""
        cut = partial(_random_crop, size=self.size, augmentation=self.augmentation, seed=(self.seed, epoch, 2))
        rows = np.concatenate([rows for rows, _ in plans]) if plans else np.empty(0, dtype=np.int64)
        ready = images.read_images(
            split, rows, self.batch // self.world, self.size, cut, workers=cores(), corrupt=self.corrupt
        )
        for (planned, draws), crops in zip(plans, ready):
            drawn = draws.part(np.isin(planned, crops.rows))
            crops.images[drawn.flips] = crops.images[drawn.flips, :, :, ::-1]
            self._cut(crops.images, drawn)
            yield torch.from_numpy(crops.images), torch.from_numpy(split.labels[crops.rows])

    def _cut(self, pixels: Pixels, draws: Draws) -> None:
        """Cut a square out of each image where the augmentation has it."""
        if self.augmentation.cutout:
            cut_out(pixels, draws, self.augmentation.cutout, self.colour or (0,) * pixels.shape[1])


def check_shared(batch: int, processes: int) -> None:
    """Raise `UsageError` where processes cannot take equal parts of a global batch."""
    if batch % processes:
        raise UsageError(
            f"a global batch of {batch} cannot be shared by {processes} processes", f"choose a multiple of {processes}"
        )


def _random_crop(path: Path, row: int, *, size: int, augmentation: Augmentation, seed: tuple[int, ...]) -> Pixels:
    return images.random_resized(path, size, augmentation.area, augmentation.ratio, (*seed, row))
