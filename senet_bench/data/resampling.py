"""Part of an image resized as PIL resizes it with its bilinear filter, bit for bit.

PIL resizes 8-bit images in two passes, across and then down, each in integers: weights in units of 2^-22, their sum
rounded, bytes in between. Each pass is here a product with a sparse matrix, which vectorizes over all that a weight is
multiplied with, and leaves out what lies outside of the part asked for.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from senet_bench.data.augment import Pixels, empty

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PRECISION = 22  # bits of a weight after the point
BLOCK = 1 << 20  # pixels resized at once: 16 bytes each while they are
TALL = 1.75
"""An image as many times as high as wide, or one that loses as many times more rows than columns, is left to PIL: from
twice on, PIL 13 resizes down first."""
Box = tuple[int, int, int, int]
"""Left, top, right and bottom, as PIL has it."""


def resized(image: Image.Image, size: tuple[int, int], box: Box) -> Pixels:
    """(3, bottom - top, right - left): the `box` of an RGB image after `Image.resize(size, BILINEAR)`."""
    fewer_columns, fewer_rows = max(0, image.width - size[0]), image.height - size[1]
    if image.height > TALL * image.width or fewer_rows > TALL * fewer_columns or not _agrees():
        return _by_pil(image, size, box)
    return _by_products(image, size, box)


def _by_pil(image: Image.Image, size: tuple[int, int], box: Box) -> Pixels:
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR).crop(box)).transpose(2, 0, 1)


def _by_products(image: Image.Image, size: tuple[int, int], box: Box) -> Pixels:
    left, columns = _weights(image.width, size[0], box[0], box[2])
    top, rows = _weights(image.height, size[1], box[1], box[3])
    (new_wide, wide), (new_high, high) = columns.shape, rows.shape
    narrow = np.empty((high, new_wide), np.int32)
    step = max(1, BLOCK // wide)
    for first in range(0, high, step):
        end = min(high, first + step)
        block = image.crop((left, top + first, left + wide, top + end)).tobytes("raw", "RGBX")
        pixels = np.frombuffer(block, np.int32).reshape(end - first, wide)
        narrow[first:end] = _pass(columns, pixels.T).T
    out: Pixels = empty(1, 3, new_high, new_wide)[0]
    bands = _pass(rows, narrow).view(np.uint8).reshape(new_high, new_wide, 4)
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
def _weights(old: int, new: int, start: int, stop: int) -> tuple[int, csr_array]:
    """What the pixels `start` to `stop` of an edge of `old` resized to `new` are made of.

    The first old pixel, and how much (in 2^-22) each from there on adds to each of them. A triangle as
    wide as two old or two new pixels, whichever are larger, about the middle of each new pixel; cut at the edges, and
    its values divided by their sum.
    """
    from scipy.sparse import csr_array  # a tenth of a second, which training on arrays does not need

    scale = old / new
    reach = max(scale, 1.0)
    middle = (np.arange(start, stop) + 0.5) * scale
    first = np.maximum((middle - reach + 0.5).astype(int), 0)
    end = np.minimum((middle + reach + 0.5).astype(int), old)
    taps = first[:, None] + np.arange((end - first).max())
    values = np.maximum(1.0 - np.abs((taps - middle[:, None] + 0.5) * (1.0 / reach)), 0.0)
    values[taps >= end[:, None]] = 0.0
    values /= np.cumsum(values, axis=1)[:, -1:]  # one after another, as PIL adds them up
    whole = (values * (1 << PRECISION) + 0.5).astype(np.int32)
    kept = whole.nonzero()
    low, high = int(taps[kept].min()), int(taps[kept].max()) + 1
    return low, csr_array((whole[kept], (kept[0], taps[kept] - low)), shape=(stop - start, high - low))


@cache
def _agrees() -> bool:
    """Whether the PIL at hand computes as described here: another build may round otherwise."""
    noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    whole = ((47, 35), (0, 0, 47, 35))
    return np.array_equal(_by_products(image, *whole), _by_pil(image, *whole))
