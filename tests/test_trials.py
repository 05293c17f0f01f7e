"""Trials are pure functions of their spec and seed; their arms are paired."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from msgspec import structs

from senet_bench.bench.machine import on_threads
from senet_bench.core import catalog
from senet_bench.core.recipes import Schedule, recipe
from senet_bench.core.specs import AttentionSpec, ModelSpec
from senet_bench.core.trial import Trial
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models import build_spec
from senet_bench.run.forecast import _from_two_steps
from senet_bench.training.start import initialise_by_name
from senet_bench.training.trials import run_trial, trained

pytestmark = pytest.mark.usefixtures("one_thread")


SHORT = replace(recipe("digits").lasting(1), schedule=Schedule("steps"))


BASE, VARIANT = catalog.pair(catalog.resolve("seresnet20_cifar"))


def trial(spec: ModelSpec, seed: int) -> Trial:
    return Trial(arm="0", spec=spec, recipe=SHORT, seed=seed)


def test_layers_that_arms_share_start_out_equal() -> None:
    networks = [build_spec(spec) for spec in (BASE, VARIANT)]
    for network in networks:
        initialise_by_name(network, 3)
    base, attention = (network.state_dict() for network in networks)
    assert all(torch.equal(value, attention[name]) for name, value in base.items())
    initialise_by_name(networks[1], 4)
    assert not torch.equal(networks[1].state_dict()["classifier.weight"], base["classifier.weight"])


SECONDS = {"seconds": None, "cpu_seconds": None}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(VARIANT, id="se"),
        pytest.param(replace(VARIANT, attention=AttentionSpec(block="eca")), id="eca", marks=pytest.mark.slow),
    ],
)
def test_a_trial_gives_the_same_result_whatever_ran_before_and_wherever(spec: ModelSpec) -> None:
    planned = trial(spec, 1)
    torch.manual_seed(99)
    first, again = run_trial(planned), run_trial(planned)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.apply(run_trial, (planned,))
    for result in (again, elsewhere, trained(planned)[1]):
        assert structs.replace(result, **SECONDS) == structs.replace(first, **SECONDS)
    assert (first.images, first.seed, first.attention) == (1697, 1, spec.attention)


@pytest.mark.parametrize("function", [run_trial, _from_two_steps])
def test_a_trial_leaves_torch_the_threads_that_it_found(function: Callable[[Trial], object]) -> None:
    with on_threads(3):
        function(trial(BASE, 0))
        assert torch.get_num_threads() == 3


def test_a_recipe_for_detectors_trains_no_classifiers() -> None:
    with pytest.raises(UsageError, match="detectors"):
        run_trial(replace(trial(BASE, 0), recipe=recipe("coco")))


def test_a_loss_that_is_no_number_ends_a_trial() -> None:
    with pytest.raises(MeasurementError, match="loss"):
        run_trial(replace(trial(BASE, 0), recipe=replace(SHORT, lr=1e30)))


@pytest.mark.slow
def test_every_arm_learns_the_digits() -> None:
    fixed = replace(VARIANT, attention=AttentionSpec(block="constant"))
    for spec in (BASE, fixed, VARIANT):
        for seed in (0, 1):
            assert run_trial(replace(trial(spec, seed), recipe=recipe("digits"))).top1_err < 0.2
