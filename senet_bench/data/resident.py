"""A small set that lies whole on a device as uint8, and is cut, mirrored and painted there.

The pixels are those of `augment`, bit by bit: the choices are drawn on the CPU, for a whole epoch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from senet_bench.data.augment import Draws, zero_padded
from senet_bench.data.sets import Arrays, LabelArray

MOST_BYTES = 2**31
"""The largest padded set that is put on a device."""


@dataclass(frozen=True, slots=True, eq=False)
class Resident:
    """Padded images (N, H, W, C) uint8 and labels (N,) on a device; `size` (height, width) is what is cut of them."""

    images: Tensor
    labels: Tensor
    size: tuple[int, int]

    @staticmethod
    def of(split: Arrays, pad: int, device: torch.device) -> Resident | None:
        """A split on a device, None where it is too large for it."""
        count, channels, height, width = split.images.shape
        if count * channels * (height + 2 * pad) * (width + 2 * pad) > MOST_BYTES:
            return None
        padded = torch.from_numpy(zero_padded(split.images, pad).transpose(0, 2, 3, 1)).to(device)
        return Resident(padded, torch.from_numpy(split.labels).to(device), (height, width))

    def batches(
        self, plans: Sequence[tuple[LabelArray, Draws]], side: int, colour: tuple[int, ...]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of some plans: (n, C, H, W) uint8, stored channels last, and labels (n,).

        A square of `side` pixels is painted in a colour where that is not 0. All choices are copied at once.
        """
        if not plans:
            return
        height, width = self.size
        device = self.images.device
        choices = np.concatenate([_choices(rows, draws, self.size, side) for rows, draws in plans])
        on_device = torch.from_numpy(choices).to(device)
        across, down = torch.arange(width, device=device), torch.arange(height, device=device)
        paint, end = torch.tensor(colour or (0,), dtype=torch.uint8, device=device), 0
        for planned, _ in plans:
            start, end = end, end + len(planned)
            rows, top, left, flip, hole_top, hole_left = on_device[start:end, :, None].unbind(1)
            x = left + torch.where(flip > 0, width - 1 - across, across)
            y = top + down
            pixels = self.images[rows[:, :, None], y[:, :, None], x[:, None, :]]
            if side:
                inside_y = (down >= hole_top) & (down < hole_top + side)
                inside_x = (across >= hole_left) & (across < hole_left + side)
                hole = (inside_y[:, :, None] & inside_x[:, None, :])[..., None]
                pixels = torch.where(hole, paint, pixels)
            yield pixels.permute(0, 3, 1, 2), self.labels[rows[:, 0]]


def _choices(rows: LabelArray, draws: Draws, size: tuple[int, int], side: int) -> LabelArray:
    """The choices for a batch as integers (n, 6): row, top, left, mirrored, top and left of what is cut out."""
    holes = (draws.middles * size).astype(np.int64) - side // 2
    return np.column_stack([rows, draws.offsets, draws.flips.astype(np.int64), holes])
