"""Trials are pure functions of their spec and seed; their arms are paired."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import pytest
import torch

from senet_bench import catalog
from senet_bench.models import build_spec
from senet_bench.specs import AttentionSpec, ModelSpec
from senet_bench.training.recipes import recipe
from senet_bench.training.trials import Trial, initialise_by_name, run_trial

pytestmark = pytest.mark.usefixtures("one_thread")


SHORT = recipe("digits").lasting(1)


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


@pytest.mark.parametrize("block", ["se", "eca"])
def test_a_trial_gives_the_same_result_whatever_ran_before_and_wherever(block: str) -> None:
    planned = trial(replace(VARIANT, attention=AttentionSpec(block=block)), 1)
    torch.manual_seed(99)
    first, again = run_trial(planned), run_trial(planned)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.apply(run_trial, (planned,))
    for result in (again, elsewhere):
        assert {key: result[key] for key in ("top1_err", "train_loss")} == {
            key: first[key] for key in ("top1_err", "train_loss")
        }
    assert (first["images"], first["seed"], first["attention"]["block"]) == (1697, 1, block)


@pytest.mark.slow
def test_every_arm_learns_the_digits() -> None:
    fixed = replace(VARIANT, attention=AttentionSpec(block="constant"))
    for spec in (BASE, fixed, VARIANT):
        assert run_trial(replace(trial(spec, 0), recipe=recipe("digits")))["top1_err"] < 0.2
