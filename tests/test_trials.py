"""Trials are pure functions of their spec and seed; their arms are paired."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from senet_bench.core import catalog
from senet_bench.core.recipes import Schedule, recipe
from senet_bench.core.specs import AttentionSpec, ModelSpec, Precision
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models import build_spec
from senet_bench.train import trials
from senet_bench.train.events import Settings
from senet_bench.train.loop import train
from senet_bench.train.side_by_side import separable, separate
from senet_bench.train.trials import Company, Trial, beside, initialise_by_name, run_company, start, together, trained

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


KINDS: dict[str, ModelSpec] = {
    "baseline": BASE,
    "SE": VARIANT,
    "SE, r = 2": replace(VARIANT, attention=AttentionSpec(reduction=2)),
    "max squeeze, tanh, no bias": replace(
        VARIANT, attention=AttentionSpec(squeeze="max", excitation="tanh", bias=False)
    ),
    "no squeeze": replace(VARIANT, attention=AttentionSpec(squeeze="none")),
    "stages 2 and 4": replace(VARIANT, attention=AttentionSpec(stages=(2, 4), integration="pre")),
    "fixed gates": replace(VARIANT, attention=AttentionSpec(block="constant")),
}
NOT_SECONDS = ("top1_err", "top5_err", "test_loss", "seed", "images")


def results(trials: Sequence[Trial], *, side_by_side: bool) -> dict[int, dict[str, Any]]:
    found = run_company(Company(tuple(trials), side_by_side))
    return {one["seed"]: {name: one[name] for name in NOT_SECONDS} for one in found}


@pytest.mark.parametrize("spec", [VARIANT, replace(VARIANT, attention=AttentionSpec(block="eca"))], ids=["se", "eca"])
def test_a_trial_gives_the_same_result_whatever_ran_before_and_wherever(spec: ModelSpec) -> None:
    planned = trial(spec, 1)
    alone = Company((planned,), beside(planned))
    torch.manual_seed(99)
    (first,), (again,) = run_company(alone), run_company(alone)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (elsewhere,) = pool.apply(run_company, (alone,))
    for result in (again, elsewhere, trained(planned)[1]):
        assert {key: result[key] for key in NOT_SECONDS} == {key: first[key] for key in NOT_SECONDS}
    assert spec.attention is not None
    assert (first["images"], first["seed"], first["attention"]["block"]) == (1697, 1, spec.attention.block)


@pytest.mark.parametrize(
    ("kind", "precision"), [*((kind, "fp32") for kind in KINDS), ("baseline", "bf16"), ("SE", "bf16")]
)
def test_a_trial_gives_the_same_bits_in_any_company(kind: str, precision: Precision) -> None:
    seeds = [replace(trial(KINDS[kind], seed), precision=precision) for seed in range(5)]
    assert beside(seeds[0])
    whole = results(seeds, side_by_side=True)
    for company in (seeds[:1], [seeds[2], seeds[4], seeds[0]], seeds[:0:-1]):
        found = results(company, side_by_side=True)
        assert found == {seed: whole[seed] for seed in found}


@pytest.mark.parametrize("kind", KINDS)
def test_side_by_side_each_network_is_trained_as_it_is_alone(kind: str) -> None:
    trials = [trial(KINDS[kind], seed) for seed in (4, 7)]
    sets, networks = zip(*map(start, trials))
    for seed, network in enumerate(networks):
        torch.manual_seed(seed)
        for parameter in network.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    alone = [copy.deepcopy(network) for network in networks]
    short = replace(SHORT, max_steps=1)
    whole, both = together(trials, sets, networks)
    list(train(whole, both, short, Settings(evaluate_every=0)))
    separate(whole, networks)
    for network, images, each, by_itself, was in zip(networks, sets, trials, alone, before):
        list(train(by_itself, images, short, Settings(seed=each.seed, evaluate_every=0)))
        now = network.state_dict()
        for name, value in by_itself.state_dict().items():
            change, expected = (now[name] - was[name]).double(), (value - was[name]).double()
            assert (change - expected).norm() <= 0.01 * expected.norm() + 1e-6, name
        assert (now["stem.weight"] - was["stem.weight"]).norm() > 1e-2


@pytest.mark.parametrize(
    "spec",
    [
        replace(VARIANT, attention=AttentionSpec(block="cbam")),  # its spatial gate looks across all channels
        replace(VARIANT, attention=AttentionSpec(block="eca")),  # its kernel slides over the channels
        catalog.resolve("seshufflenet_v1_g3"),  # its shuffle does
        catalog.resolve("shakeshake26_2x96d_cifar"),  # draws random numbers
    ],
    ids=lambda spec: f"{spec.name} {spec.attention.block if spec.attention else ''}",
)
def test_a_network_that_looks_across_its_channels_or_draws_is_trained_alone(spec: ModelSpec) -> None:
    assert not separable(spec, 10, 1, 8, 10, "fp32")


@pytest.mark.parametrize(("limit", "value"), [("SMALL", 7), ("LIGHT", BASE.params - 1)])
def test_large_images_and_networks_are_trained_one_by_one(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    assert beside(trial(BASE, 0))
    monkeypatch.setattr(trials, limit, value)
    assert not beside(trial(BASE, 0))


def test_a_recipe_for_detectors_trains_no_classifiers() -> None:
    with pytest.raises(UsageError, match="detectors"):
        run_company(Company((replace(trial(BASE, 0), recipe=recipe("coco")),) * 2, side_by_side=True))


def test_a_schedule_that_follows_the_test_loss_is_followed_alone() -> None:
    follows = replace(trial(BASE, 0), recipe=replace(SHORT, schedule=Schedule("plateau")))
    assert not beside(follows)


def test_a_loss_that_is_no_number_ends_a_company() -> None:
    steep = [replace(trial(BASE, seed), recipe=replace(SHORT, lr=1e30)) for seed in (0, 1)]
    with pytest.raises(MeasurementError, match="loss"):
        run_company(Company(tuple(steep), side_by_side=True))


@pytest.mark.slow
def test_every_arm_learns_the_digits() -> None:
    fixed = replace(VARIANT, attention=AttentionSpec(block="constant"))
    for spec in (BASE, fixed, VARIANT):
        long = [replace(trial(spec, seed), recipe=recipe("digits")) for seed in (0, 1)]
        assert all(one["top1_err"] < 0.2 for one in results(long, side_by_side=True).values())
        assert all(one["top1_err"] < 0.2 for one in results(long, side_by_side=False).values())
