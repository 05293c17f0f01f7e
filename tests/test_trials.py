"""Trials are pure functions of their spec and seed; arms are paired; summaries carry the interval."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from senet_bench import catalog
from senet_bench.errors import UsageError
from senet_bench.models import build_spec
from senet_bench.specs import AttentionSpec
from senet_bench.training.recipes import recipe
from senet_bench.training.trials import arms, initialise_by_name, run_trial, run_trials, summarise, trials


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks: a second thread would only wait for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SHORT = recipe("digits").lasting(1)


def test_the_arms_are_baseline_constant_gate_and_attention() -> None:
    found = arms(catalog.resolve("resnet20_cifar"))
    assert [spec.attention and spec.attention.block for spec in found.values()] == [None, "constant", "se"]
    assert found == arms(catalog.resolve("seresnet20_cifar"))
    other = arms(catalog.resolve("resnet20_cifar"), AttentionSpec(reduction=4, stages=(2,)))
    assert all(spec.attention is None or spec.attention.reduction == 4 for spec in other.values())


def test_layers_that_arms_share_start_out_equal() -> None:
    networks = {name: build_spec(spec) for name, spec in arms(catalog.resolve("resnet20_cifar")).items()}
    for network in networks.values():
        initialise_by_name(network, 3)
    base, attention = (networks[name].state_dict() for name in ("baseline", "attention"))
    assert all(torch.equal(value, attention[name]) for name, value in base.items())
    initialise_by_name(networks["constant"], 4)
    assert not torch.equal(networks["constant"].state_dict()["classifier.weight"], base["classifier.weight"])


@pytest.mark.parametrize("block", ["se", "eca"])
def test_a_trial_gives_the_same_result_whatever_ran_before_and_wherever(block: str) -> None:
    specs = arms(catalog.resolve("resnet20_cifar"), AttentionSpec(block=block))
    planned = trials({"attention": specs["attention"]}, SHORT, [1])
    torch.manual_seed(99)
    first, again = run_trial(planned[0]), run_trial(planned[0])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.apply(run_trial, (planned[0],))
    for result in (again, elsewhere):
        assert {key: result[key] for key in ("top1_err", "train_loss")} == {
            key: first[key] for key in ("top1_err", "train_loss")
        }
    assert (first["images"], first["seed"], first["attention"]["block"]) == (1697, 1, block)


def test_trials_run_seed_by_seed_and_are_summarised_in_pairs() -> None:
    specs = arms(catalog.resolve("resnet20_cifar"))
    planned = trials(specs, SHORT, [0, 1])
    assert [(trial.seed, trial.arm) for trial in planned[:4]] == [
        (0, "baseline"),
        (0, "constant"),
        (0, "attention"),
        (1, "baseline"),
    ]
    results = list(run_trials(planned, workers=1))
    summary = {row.arm: row for row in summarise(results)}
    base, attention = summary["baseline"], summary["attention"]
    pair = attention.against["baseline"]
    assert pair.difference == pytest.approx(attention.mean - base.mean)
    assert pair.ci is not None
    assert pair.ci[0] <= pair.difference <= pair.ci[1]
    assert set(attention.against) == {"baseline", "constant"}


def test_only_seeds_that_every_arm_has_are_summarised() -> None:
    results = [
        {"arm": arm, "seed": seed, "top1_err": err}
        for arm, seed, err in [("a", 0, 0.1), ("a", 1, 0.2), ("b", 1, 0.1), ("b", 2, 0.5)]
    ]
    assert [(row.arm, row.seeds, row.mean) for row in summarise(results)] == [("a", (1,), 0.2), ("b", (1,), 0.1)]
    with pytest.raises(UsageError, match="no seed"):
        summarise([{"arm": "a", "seed": 0, "top1_err": 0.1}, {"arm": "b", "seed": 1, "top1_err": 0.1}])
    assert summarise([]) == []


def test_errors_of_a_trial_reach_the_caller_from_another_process() -> None:
    planned = trials({"x": catalog.resolve("resnet20_cifar")}, SHORT, [0, 1], dataset="cifar10")
    with pytest.raises(UsageError, match="--data DIR"):
        list(run_trials(planned, workers=2))


@pytest.mark.slow
def test_every_arm_learns_the_digits() -> None:
    planned = trials(arms(catalog.resolve("resnet20_cifar")), replace(recipe("digits")), [0])
    assert all(result["top1_err"] < 0.2 for result in run_trials(planned))
