"""The probe's tasks: images from a seed that hide their label from what does not have the ability they need."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from senet_bench.errors import UsageError
from senet_bench.probing.tasks import CELL, CELLS, GLYPH, GRID_CELLS, TASKS, Images, _handwritten, find_task

MANY = 2000
SOLUTIONS: dict[str, Callable[[Images], Any]] = {}
"""For each task a rule of a few lines that solves it, made by hand."""


def solves(name: str) -> Callable[[Callable[[Images], Any]], None]:
    return lambda rule: SOLUTIONS.__setitem__(name, rule)


def in_cells(images: Images) -> Images:
    """(N, C, 16 cells, 4, 4)."""
    grid = images.reshape(len(images), -1, CELLS, CELL, CELLS, CELL)
    cells: Images = grid.transpose(0, 1, 2, 4, 3, 5).reshape(len(images), -1, GRID_CELLS, CELL, CELL)
    return cells


def glyphs(images: Images) -> Any:
    """How much of the glyph each cell shows, summed over channels: (N, 16)."""
    return (in_cells(images) * GLYPH).mean((3, 4)).sum(1)


def strongest(values: Any) -> Any:
    return np.take_along_axis(values, np.abs(values).argmax(1)[:, None], 1)[:, 0]


@solves("context")
def _(images: Images) -> Any:
    return strongest(glyphs(images)) * images.mean((1, 2, 3)) > 0


@solves("cast")
def _(images: Images) -> Any:
    red = images[:, 0] - images[:, 2]
    here = np.take_along_axis(in_cells(red[:, None])[:, 0].mean((2, 3)), glyphs(images).argmax(1)[:, None], 1)[:, 0]
    rest = (red.mean((1, 2)) * GRID_CELLS - here) / (GRID_CELLS - 1)
    return np.abs(here - rest) < 1


@solves("selection")
def _(images: Images) -> Any:
    each = [strongest(glyphs(images[:, group : group + 1])) for group in (1, 2)]
    return np.where(images[:, 0].mean((1, 2)) < 0, *each) > 0


@solves("place")
def _(images: Images) -> Any:
    mark = in_cells(images)[:, 0].mean((2, 3)).argmax(1)
    right, shown = mark % CELLS >= CELLS // 2, glyphs(images).reshape(-1, CELLS, CELLS)
    halves = [strongest(shown[:, :, half].reshape(len(images), -1)) for half in (slice(0, 2), slice(2, 4))]
    return np.where(right, halves[1], halves[0]) > 0


@solves("scale")
def _(images: Images) -> Any:
    return glyphs(images[:, :3]).sum(1) > 0


@solves("texture")
def _(images: Images) -> Any:
    return strongest(glyphs(images)) * (in_cells(images).mean((1, 3, 4)).std(1) - 1) > 0


@solves("count")
def _(images: Images) -> Any:
    return (glyphs(images) > 1.5).sum(1) // 2 % 2 == 1


@solves("depth")
def _(images: Images) -> Any:
    return strongest(glyphs(images)) * images[:, :2].mean((2, 3)).prod(1) > 0


@solves("digits")
def _(images: Images) -> Any:
    tint = (images[:, 0] - images[:, 2]).mean((1, 2))
    plain = images.sum(1) / 3  # the tint of red and blue cancels
    windows = np.lib.stride_tricks.sliding_window_view(plain, (8, 8), (1, 2))
    scores = []
    for written in _handwritten():
        template = written.mean(0) - written.mean()
        scores.append(np.einsum("nyxab,ab->nyx", windows, template / np.linalg.norm(template)).max((1, 2)))
    return (scores[1] > scores[0]) == (tint > 0)


@pytest.mark.parametrize("name", TASKS)
def test_images_are_a_function_of_the_seed(name: str) -> None:
    task = TASKS[name]
    (images, labels), (again, same) = task.images(3, 40), task.images(3, 40)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    assert images.shape[0] == 40
    assert images.shape[2:] == (16, 16)
    assert set(labels) == {0, 1}
    assert (images == again).all()
    assert (labels == same).all()
    assert (task.images(4, 40)[0] != images).any()
    assert task.usual in task.levels
    for level in task.levels:
        assert np.isfinite(task.images(0, 20, level)[0]).all()


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_solution(name: str) -> None:
    images, labels = TASKS[name].images(0, MANY)
    assert (SOLUTIONS[name](images) == labels).mean() > (0.8 if name == "digits" else 0.95)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "scale"])
def test_no_linear_rule_of_means_and_deviations_tells_the_label(name: str) -> None:
    images, labels = TASKS[name].images(1, 2 * MANY)
    told = np.concatenate([images.mean((2, 3)), images.std((2, 3)), np.ones((len(images), 1))], 1)
    if name == "count":  # whose bound is a third, by a threshold on the number of glyphs
        told = told[:, [0, 1, 2, -1]]
    weights = np.linalg.lstsq(told[:MANY], 2.0 * labels[:MANY] - 1, rcond=None)[0]
    wrong = ((told[MANY:] @ weights > 0) != labels[MANY:]).mean()
    assert wrong > min(labels.mean(), 1 - labels.mean()) - 0.04


def test_classes_are_balanced_but_for_an_odd_count() -> None:
    for name, task in TASKS.items():
        share = task.images(2, MANY)[1].mean()
        assert abs(share - (2 / 3 if name == "count" else 0.5)) < 0.04


def test_an_unknown_task_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean context"):
        find_task("contxt")
    assert find_task("Cast") is TASKS["cast"]
