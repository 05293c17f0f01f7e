"""Part of an image resized as PIL resizes it with its bilinear filter, bit for bit.

PIL resizes 8-bit images in two passes, across and then down, each in integers: weights in units of 2^-22, their sum
rounded, bytes in between. Each pass is here a product with a sparse matrix, which vectorizes over all that a weight is
multiplied with, and leaves out what lies outside of the part asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_array

from senet_bench.training.augment import Pixels, empty

PRECISION = 22  # bits of a weight after the point
BLOCK = 1 << 20  # pixels resized at once: 16 bytes each while they are
TALL = 1.75
"""An image as many times as high as wide, or one that loses as many times more rows than columns, is left to PIL: from
twice on, PIL 13 resizes down first."""


@dataclass(frozen=True, slots=True)
class Part:
    """`length` rows or columns from `start` on, of an edge of `old` pixels resized to `new`."""

    old: int
    new: int
    start: int
    length: int


def resized(image: Image.Image, across: Part, down: Part) -> Pixels:
    """(3, down.length, across.length): part of the RGB image `image` after `Image.resize` with `BILINEAR`."""
    fewer_columns, fewer_rows = max(0, across.old - across.new), down.old - down.new
    if image.height > TALL * image.width or fewer_rows > TALL * fewer_columns or not _agrees():
        whole = image.resize((across.new, down.new), Image.Resampling.BILINEAR)
        box = (across.start, down.start, across.start + across.length, down.start + down.length)
        return np.asarray(whole.crop(box)).transpose(2, 0, 1)
    return _resized(image, across, down)


def _resized(image: Image.Image, across: Part, down: Part) -> Pixels:
    (left, columns), (top, rows) = _weights(across), _weights(down)
    wide, high = columns.shape[1], rows.shape[1]
    narrow = np.empty((high, across.length), np.int32)
    step = max(1, BLOCK // wide)
    for first in range(0, high, step):
        end = min(high, first + step)
        block = image.crop((left, top + first, left + wide, top + end)).tobytes("raw", "RGBX")
        pixels = np.frombuffer(block, np.int32).reshape(end - first, wide)
        narrow[first:end] = _pass(columns, pixels.T).T
    out: Pixels = empty(1, 3, down.length, across.length)[0]
    bands = _pass(rows, narrow).view(np.uint8).reshape(down.length, across.length, 4)
    for band in range(3):  # five times as fast as all three at once, with inner loops of three bytes
        out[band] = bands[:, :, band]
    return out


def _pass(weights: csr_array, pixels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The first axis of `pixels`, whose numbers are four bytes each, resized."""
    sums: NDArray[np.int32] = weights @ np.ascontiguousarray(pixels).view(np.uint8).astype(np.int32)
    sums += 1 << PRECISION - 1
    sums >>= PRECISION
    levels: NDArray[np.uint8] = sums.astype(np.uint8)
    return levels.view(np.int32)


@lru_cache(maxsize=1024)
def _weights(part: Part) -> tuple[int, csr_array]:
    """The first pixel that `part` is made of, and how much (in 2^-22) each from there on adds to each of the part.

    A triangle as wide as two old or two new pixels, whichever are larger, about the middle of each new pixel; cut
    at the edges, and its values divided by their sum.
    """
    scale = part.old / part.new
    reach = max(scale, 1.0)
    middle = (np.arange(part.start, part.start + part.length) + 0.5) * scale
    first = np.maximum((middle - reach + 0.5).astype(int), 0)
    end = np.minimum((middle + reach + 0.5).astype(int), part.old)
    taps = first[:, None] + np.arange((end - first).max())
    values = np.maximum(1.0 - np.abs((taps - middle[:, None] + 0.5) * (1.0 / reach)), 0.0)
    values[taps >= end[:, None]] = 0.0
    values /= np.cumsum(values, axis=1)[:, -1:]  # one after another, as PIL adds them up
    whole = (values * (1 << PRECISION) + 0.5).astype(np.int32)
    kept = whole.nonzero()
    low, high = int(taps[kept].min()), int(taps[kept].max()) + 1
    return low, csr_array((whole[kept], (kept[0], taps[kept] - low)), shape=(part.length, high - low))


@cache
def _agrees() -> bool:
    """Whether the PIL at hand computes as described here: another build may round otherwise."""
    noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    expected = np.asarray(image.resize((47, 35), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    return np.array_equal(_resized(image, Part(83, 47, 0, 47), Part(61, 35, 0, 35)), expected)
