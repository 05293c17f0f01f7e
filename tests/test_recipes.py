"""Recipes hold what the paper prints, scale with the batch, and fall as they say."""

from __future__ import annotations

import math

import pytest

from senet_bench.core.datasets import DATASETS
from senet_bench.core.recipes import DEFAULTS, RECIPES, recipe, smoke
from senet_bench.errors import UsageError
from senet_bench.training.optimisation import LearningRate


def test_the_imagenet_recipe_is_the_papers() -> None:
    r = recipe("imagenet")
    assert (r.momentum, r.batch_size, r.lr, r.epochs) == (0.9, 1024, 0.6, 100)  # recipe.imagenet.*
    rate = LearningRate(r)
    expected = [(0, 0.6), (29.9, 0.6), (30, 0.06), (60, 0.006), (95, 0.0006)]
    assert [rate.at(epoch) for epoch, _ in expected] == pytest.approx([lr for _, lr in expected])
    assert r.augmentation.flip
    assert r.augmentation.area == (0.08, 1.0)


def test_the_other_recipes_are_the_papers() -> None:
    mobile, cifar, ablation, senet154 = (recipe(name) for name in ("mobile", "cifar", "ablation", "senet154"))
    assert (mobile.batch_size, mobile.lr, mobile.epochs, mobile.schedule.kind) == (256, 0.1, 400, "plateau")
    assert (mobile.weight_decay, mobile.augmentation.area[0] > 0.08) == (4e-5, True)
    assert (cifar.augmentation.pad, cifar.augmentation.flip) == (4, True)
    assert (ablation.lr, ablation.epochs, ablation.schedule.drops) == (0.1, 300, 3)
    assert ablation.label_smoothing > 0
    assert (senet154.batch_size, senet154.lr, senet154.frozen_bn > 0) == (2048, 1.0, True)


def test_what_the_paper_leaves_open_is_said() -> None:
    assert any("weight decay 1e-4 (not printed)" in note for note in recipe("imagenet").deviations)
    assert all(recipe(name).deviations for name in ("imagenet", "mobile", "cifar", "ablation", "senet154"))


def test_every_data_set_has_a_default_recipe_and_every_recipe_a_source() -> None:
    assert set(DEFAULTS) == set(DATASETS)
    assert set(DEFAULTS.values()) <= set(RECIPES)
    assert all(row.source and row.name == name for name, row in RECIPES.items())


def test_the_learning_rate_scales_with_the_batch() -> None:
    assert recipe("imagenet").scaled(256).lr == pytest.approx(0.15)
    assert recipe("imagenet").scaled(None) == recipe("imagenet")
    assert recipe("cifar").lasting(82).schedule.milestones == (41, 61.5)
    assert [recipe("senet154").lasting(epochs).frozen_bn for epochs in (5, 100, 200)] == [0, 5, 10]
    with pytest.raises(UsageError, match="positive"):
        recipe("cifar").scaled(0)


def test_a_smoke_variant_is_two_short_epochs() -> None:
    for name, row in RECIPES.items():
        short = recipe(f"{name}-smoke")
        assert short == smoke(row)
        assert (short.epochs, short.max_steps, short.batch_size <= 16) == (2, 2, True)
    with pytest.raises(UsageError, match="did you mean imagenet"):
        recipe("imagnet")


def test_a_plateau_drops_three_times_and_then_ends() -> None:
    rate = LearningRate(recipe("ablation"))
    rates, epochs = [], 0
    rate.epoch_ended(1.0)
    while not rate.finished:
        rate.epoch_ended(1.0)
        epochs += 1
        rates.append(round(rate.at(epochs), 8))
    assert (epochs, sorted(set(rates), reverse=True)) == (40, [0.1, 0.01, 0.001, 0.0001])
    again = LearningRate(recipe("ablation"))
    again.restore(rate.state())
    assert again == rate


def test_a_cosine_warms_up_and_ends_at_zero() -> None:
    rate = LearningRate(recipe("digits"))
    assert rate.at(0) < 0.001
    assert rate.at(2) == pytest.approx(0.1)
    assert math.isclose(rate.at(60), 0, abs_tol=1e-12)
