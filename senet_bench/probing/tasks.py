"""The tasks: images made from a seed, of which each kind needs one ability of an attention block.

An image is a grid of 4 x 4 cells of 4 x 4 pixels, and the probe's network sees each cell by itself until its last
average. What decides a task is spread over all cells so that one cell tells little of it: it is added below a mosaic of
light and dark cells that sums to zero over the image, so that the mean of the image tells it and a cell does not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet_bench.errors import UsageError, nearest

CELLS, CELL = 4, 4
IMAGE_SIDE = CELLS * CELL
GRID_CELLS = CELLS * CELLS
NOISE = 0.3
"""The standard deviation of the noise of every pixel."""
GLYPH = np.tile(np.array([[1, -1], [-1, 1]], np.float32), (2, 2))
"""A pattern in a cell, of mean zero; its negative is the other one that there is."""
FLAT = np.ones((CELL, CELL), np.float32)

Images = NDArray[np.float32]
TaskLabels = NDArray[np.int64]
Generator = Callable[[np.random.Generator, int, float], tuple[Images, NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTask:
    """A kind of images with two classes.

    `needs` says which ability it takes and `bound` why a network without it must fail, both for `probe`'s page; `knob`
    is what the difficulties are values of, from easy to hard, the `usual` one among them. An error of at most `solved`
    counts as a solution. `revision` is raised by a change after which a seed gives other images. With `drawn` the
    layers that could bring channels into an order, or together, before the block keep the weights they start with.
    """

    name: str
    title: str
    needs: str
    bound: str
    knob: str
    levels: tuple[float, ...]
    usual: float
    make: Generator
    solved: float = 0.05
    revision: int = 1
    drawn: bool = False

    def images(self, seed: int, count: int, difficulty: float | None = None) -> tuple[Images, TaskLabels]:
        """`count` images, float32 (N, C, 16, 16), and labels 0 or 1: a pure function of its arguments."""
        level = self.usual if difficulty is None else difficulty
        random = np.random.default_rng([seed, self.revision, *self.name.encode()])
        images, labels = self.make(random, count, level)
        return np.ascontiguousarray(images, dtype=np.float32), labels.astype(np.int64)


def _noise(random: np.random.Generator, count: int, channels: int = 3) -> Images:
    return random.standard_normal((count, channels, IMAGE_SIDE, IMAGE_SIDE), dtype=np.float32) * np.float32(NOISE)


def _signs(random: np.random.Generator, *shape: int) -> NDArray[Any]:
    return random.integers(0, 2, shape) * 2.0 - 1


def _enlarged(cells: NDArray[Any]) -> NDArray[Any]:
    """A value a cell, (N, C, 4, 4), as pixels."""
    return cells.repeat(CELL, -2).repeat(CELL, -1)


def _below_mosaic(random: np.random.Generator, level: NDArray[Any]) -> NDArray[Any]:
    """A level an image, (N,), added to cells of standard deviation 1 that sum to zero: (N, 1, 16, 16)."""
    cells = random.normal(0, 1, (len(level), 1, CELLS, CELLS))
    return _enlarged(cells - cells.mean((2, 3), keepdims=True) + level[:, None, None, None])


def _put(images: Images, cell: NDArray[Any], pattern: Images, by: Any = 1.0, channel: int | None = None) -> None:
    """Add a pattern, times a number an image, in one cell of each image: to every channel, or to one."""
    grid = images.reshape(len(images), -1, CELLS, CELL, CELLS, CELL)
    every = np.arange(len(images))
    scaled = (np.broadcast_to(by, every.shape)[:, None, None] * pattern).astype(np.float32)
    for placed in range(grid.shape[1]) if channel is None else (channel,):
        grid[every, placed, cell // CELLS, :, cell % CELLS, :] += scaled


def context(random: np.random.Generator, count: int, tint: float) -> tuple[Images, NDArray[np.bool_]]:
    """A glyph or its negative in a cell; which of them is class 1 is told by a tint, dark or light, below a mosaic."""
    images, glyph, light = _noise(random, count), _signs(random, count), _signs(random, count)
    images += _below_mosaic(random, light * tint)
    _put(images, random.integers(0, GRID_CELLS, count), GLYPH, glyph)
    return images, glyph * light > 0


def cast(random: np.random.Generator, count: int, lights: float) -> tuple[Images, NDArray[np.bool_]]:
    """A cell with a glyph has the colour of its image's light (class 1), or is a step redder or bluer.

    The other cells have colours of their own, which sum to none; lights are a step apart, from blue to red.
    """
    images, every = _noise(random, count), np.arange(count)
    grey, cell = random.integers(0, 2, count) > 0, random.integers(0, GRID_CELLS, count)
    colours = random.normal(0, 1, (count, GRID_CELLS))
    colours *= np.where(grey, 1, np.sqrt(1 - 1 / (GRID_CELLS - 1)))[:, None]  # so that their variance says nothing
    colours[every, cell] = 0
    colours -= colours.sum(1, keepdims=True) / (GRID_CELLS - 1)
    colours[every, cell] = np.where(grey, 0, _signs(random, count))
    light = random.integers(0, int(lights), count) - (lights - 1) / 2
    red = _enlarged((colours + light[:, None]).reshape(count, 1, CELLS, CELLS))
    images += red * np.array([1, 0, -1])[:, None, None]
    _put(images, cell, GLYPH, 1.5)
    return images, grey


def selection(random: np.random.Generator, count: int, groups: float) -> tuple[Images, NDArray[np.bool_]]:
    """A glyph or its negative in each of some channels; the level of another, below a mosaic, tells which counts."""
    groups = int(groups)
    images, glyphs = _noise(random, count, 1 + groups), _signs(random, count, groups)
    chosen = random.integers(0, groups, count)
    for group in range(groups):
        _put(images, random.integers(0, GRID_CELLS, count), GLYPH, 1.5 * glyphs[:, group], channel=1 + group)
    images[:, :1] += _below_mosaic(random, 0.35 * (groups - 1) * (2 * chosen / (groups - 1) - 1))
    return images, glyphs[np.arange(count), chosen] > 0


def placed(random: np.random.Generator, count: int, mark: float) -> tuple[Images, NDArray[np.bool_]]:
    """A glyph in one half and its negative in the other; that in the half with a red cell, the mark, counts."""
    images, glyph, right = _noise(random, count), _signs(random, count), random.integers(0, 2, count)
    columns, rows = random.integers(0, 2, (3, count)), random.integers(0, CELLS, (2, count))
    cells = [rows[half] * CELLS + 2 * half + columns[half] for half in (0, 1)]
    for cell, sign in zip(cells, (glyph, -glyph)):
        _put(images, cell, GLYPH, sign)
    other = (rows[right, np.arange(count)] + random.integers(1, CELLS, count)) % CELLS
    _put(images, other * CELLS + 2 * right + columns[2], FLAT, mark, channel=0)
    return images, glyph * (1 - 2 * right) > 0


def scale(random: np.random.Generator, count: int, noise: float) -> tuple[Images, NDArray[np.bool_]]:
    """A faint glyph in all cells of three channels, beside three of nothing but strong noise."""
    images, glyph = _noise(random, count, 6), _signs(random, count)
    images[:, 3:] *= noise / NOISE
    images[:, :3] += FAINT * glyph[:, None, None, None] * np.tile(GLYPH, (CELLS, CELLS))
    return images, glyph > 0


def texture(random: np.random.Generator, count: int, contrast: float) -> tuple[Images, NDArray[np.bool_]]:
    """A glyph or its negative; which of them is class 1 is told by how unequal the cells of a mosaic are.

    The mosaic's mean is another one in every image and says nothing.
    """
    images, glyph, rough = _noise(random, count), _signs(random, count), _signs(random, count)
    cells = random.normal(0, 1, (count, 1, CELLS, CELLS))
    cells -= cells.mean((2, 3), keepdims=True)
    cells *= np.power(contrast, rough)[:, None, None, None] / cells.std((2, 3), keepdims=True)
    images += _enlarged(cells + random.normal(0, TEXTURE_LIGHT, (count, 1, 1, 1)))
    _put(images, random.integers(0, GRID_CELLS, count), GLYPH, glyph)
    return images, glyph * rough > 0


def task_number(random: np.random.Generator, count: int, levels: float) -> tuple[Images, NDArray[np.bool_]]:
    """2, 4, 6, ... equal glyphs in cells drawn at random; every other one of these numbers is class 1."""
    images, level = _noise(random, count), random.integers(0, int(levels), count)
    order = random.random((count, GRID_CELLS)).argsort(1).argsort(1)
    shown = (order < 2 * level[:, None] + 2).reshape(count, 1, CELLS, CELLS)
    images += _enlarged(shown) * np.tile(GLYPH, (CELLS, CELLS))
    return images, level % 2 == 0


def depth(random: np.random.Generator, count: int, tints: float) -> tuple[Images, NDArray[np.bool_]]:
    """A glyph or its negative; each of some tints, in a channel and mosaic of its own, inverts what the others say."""
    images, glyph, lights = _noise(random, count), _signs(random, count), _signs(random, count, int(tints))
    for channel in range(int(tints)):
        images[:, channel : channel + 1] += _below_mosaic(random, 0.5 * lights[:, channel])
    _put(images, random.integers(0, GRID_CELLS, count), GLYPH, glyph)
    return images, glyph * lights.prod(1) > 0


def composed_digits(random: np.random.Generator, count: int, tint: float) -> tuple[Images, NDArray[np.bool_]]:
    """A handwritten 0 or 1 (scikit-learn's, 8 x 8) anywhere on clutter; a tint below it says which is class 1.

    Clutter and tint are a mosaic between red and blue.
    """
    images, digit, light = _noise(random, count), _signs(random, count), _signs(random, count)
    images += 0.7 * _below_mosaic(random, light * tint) * np.array([1, 0, -1])[:, None, None]
    top, left = random.integers(0, IMAGE_SIDE - 7, (2, count))
    known = _handwritten()
    which = random.random(count)
    number = np.where(digit > 0, which * len(known[1]), which * len(known[0])).astype(np.int64)
    written = np.where((digit > 0)[:, None, None], known[1][number % len(known[1])], known[0][number % len(known[0])])
    rows, columns = (start[:, None] + np.arange(8) for start in (top, left))
    places = np.arange(count)[:, None, None, None], np.arange(3)[:, None, None], rows[:, None, :, None]
    images[(*places, columns[:, None, None])] += np.float32(1.5) * written[:, None]
    return images, digit * light > 0


@functools.cache
def _handwritten() -> tuple[Images, Images]:
    """scikit-learn's images of 0 and of 1, 8 x 8, from 0 to 1."""
    from senet_bench.data.sets import DIGIT_WHITE, all_digits

    images, labels = all_digits()
    zeros, ones = ((images[labels == digit, 0] / DIGIT_WHITE).astype(np.float32) for digit in (0, 1))
    return zeros, ones


TINTED = (
    "in a sum over cells what the tint of the other cells adds helps one glyph as much as it hurts the other, and in "
    "its own cell the tint d stands below a mosaic of deviation s = 0.97, so at least a share of Phi(-d / s) is wrong "
)
FAINT = 0.02
TEXTURE_LIGHT = 1.2
"""The standard deviation of the mean of a mosaic from image to image."""

TASKS: dict[str, ProbeTask] = {
    task.name: task
    for task in (
        ProbeTask(
            name="context",
            title="a tint inverts a glyph",
            needs="a statistic of the whole image that decides what a local pattern means: squeeze times excitation",
            bound=f"{TINTED}(30 % at d = 0.5)",
            knob="tint",
            levels=(1.0, 0.5, 0.35, 0.25),
            usual=0.5,
            make=context,
        ),
        ProbeTask(
            name="cast",
            title="grey under a coloured light",
            needs="colours relative to the light of their image: a normalisation of channels, image by image",
            bound="a sum over cells is g(colour of the mark) + h(light); with k lights a step apart no g and h are "
            "right for both neighbours of a colour: at least (k - 1) / 4k is wrong (17 % at k = 3)",
            knob="lights",
            levels=(2, 3, 4, 6),
            usual=3,
            make=cast,
        ),
        ProbeTask(
            name="selection",
            title="one channel tells which of the others counts",
            needs="gates that statistics of channels in an order that nobody chose decide: filters and layers keep "
            "the weights that they start with, so a block that mixes neighbours meets the wrong ones",
            bound="in a sum over cells, where the glyphs of two groups differ, each cell has only its own piece of the "
            "mosaic to tell whether its group counts (15 % wrong with 2 groups)",
            knob="groups",
            levels=(2, 3, 4, 6),
            usual=2,
            make=selection,
            drawn=True,
        ),
        ProbeTask(
            name="place",
            title="the marked half counts",
            needs="attention to places: one number a channel cannot tell the halves apart",
            bound="every image has both glyphs and one mark; an average over places, and a gate made of it, is the "
            "same for both classes: half is wrong (but for what zero padding tells a block of where it is)",
            knob="mark",
            levels=(3.0, 2.0, 1.0, 0.5),
            usual=2.0,
            make=placed,
        ),
        ProbeTask(
            name="scale",
            title="some channels are noise",
            needs="nothing that changes from image to image: fixed weights do, so no credit for attention",
            bound="a glyph known in place, size and noise is best told by a linear function of the image, which the "
            "network without attention has",
            knob="noise",
            levels=(0.5, 1.5, 3.0, 6.0),
            usual=1.5,
            make=scale,
        ),
        ProbeTask(
            name="texture",
            title="contrast inverts a glyph",
            needs="a second moment about a mean that changes: the cells' variance, of which their mean says nothing",
            bound="in a sum over cells what the contrast of the other cells adds helps one glyph as much as it hurts "
            "the other, and by the level of its own cell alone 42 % is wrong (at 1.5); an average squeeze has to make "
            "the variance of several averages",
            knob="contrast",
            levels=(2.0, 1.5, 1.3, 1.2),
            usual=1.5,
            make=texture,
            revision=2,
        ),
        ProbeTask(
            name="count",
            title="an even or odd pair of glyphs",
            needs="a number over the whole image, and a decision that is not monotone in it",
            bound="a sum over cells is linear in the number of glyphs: a threshold on it is wrong about every "
            "other one of the numbers beyond the first two (33 % at k = 3)",
            knob="levels",
            levels=(3, 4, 5, 6),
            usual=3,
            make=task_number,
        ),
        ProbeTask(
            name="depth",
            title="tints invert each other",
            needs="a product of several statistics: a hidden layer in the block, or two blocks one after the other",
            bound=f"{TINTED}(with two tints 42 % at d = 0.5)",
            knob="tints",
            levels=(1, 2, 3),
            usual=2,
            make=depth,
        ),
        ProbeTask(
            name="digits",
            title="a tint inverts handwritten 0 and 1",
            needs="context on images that were not drawn by a rule",
            bound="as in context; a digit covers up to nine cells, which together tell somewhat more of the tint",
            knob="tint",
            levels=(1.0, 0.5, 0.35, 0.25),
            usual=0.5,
            make=composed_digits,
            solved=0.1,
        ),
    )
}
"""Every task, in the order in which they are shown."""


def find_task(name: str) -> ProbeTask:
    """The task of a name; `UsageError` when there is none."""
    if name.lower() not in TASKS:
        choice = f"choose from {', '.join(TASKS)}"
        raise UsageError(f"task {name!r} is unknown", f"{nearest(name.lower(), TASKS, most=1)} {choice}".strip())
    return TASKS[name.lower()]
