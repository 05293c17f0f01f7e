"""Seeds until it is known: what the rule says wrongly in simulated runs, and what a sweep does with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import senet_bench
from senet_bench.core.results import Seeding
from senet_bench.core.sequential import ALPHA, FIRST_LOOK, Stopping
from senet_bench.core.store import TrialStore
from senet_bench.errors import MeasurementError, UsageError
from tests.conftest import Run

WIDTH = 0.005


def ended(stopping: Stopping, differences: np.ndarray[Any, Any]) -> dict[int, Seeding]:
    """What is known at the end of a run of rows whose differences by seed are given, (rows, seeds)."""
    known: dict[int, Seeding] = {}
    for look, seeds in enumerate(stopping.looks):
        pairs = {row: (list(0.3 + one[:seeds]), [0.3] * seeds) for row, one in enumerate(differences)}
        known = stopping.judged(look, pairs, known)
        if all(seeding.verdict != "open" for seeding in known.values()):
            break
    return known


def share(stopping: Stopping, differences: np.ndarray[Any, Any], *wrong: str) -> float:
    """The share of runs, (runs, rows, seeds), in which a row is told to be one of some things."""
    runs = [ended(stopping, one) for one in differences]
    return sum(any(seeding.verdict in wrong for seeding in run.values()) for run in runs) / len(runs)


@pytest.mark.parametrize("rows", [1, 4])
def test_equal_networks_are_told_apart_in_at_most_5_of_100_runs(rows: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (2000 // rows, rows, 30))
    assert share(Stopping(WIDTH), noise, "lower", "higher") <= ALPHA


def test_heavy_tails_raise_no_false_alarms() -> None:
    noise = 0.005 * np.random.default_rng(1).standard_t(3, (500, 2, 30))
    assert share(Stopping(WIDTH), noise, "lower", "higher") <= ALPHA


def test_a_difference_is_found_with_its_sign_and_hardly_ever_called_small() -> None:
    worse = np.random.default_rng(2).normal(0.006, 0.004, (300, 1, 30))
    assert share(Stopping(WIDTH), worse, "higher") > 0.95
    assert share(Stopping(WIDTH), worse, "lower", "same") <= ALPHA


def test_equal_networks_with_little_noise_are_known_to_be_alike_before_the_seeds_are_used_up() -> None:
    noise = np.random.default_rng(3).normal(0, 0.002, (200, 1, 30))
    runs = [ended(Stopping(WIDTH), one)[0] for one in noise]
    assert sum(run.verdict == "same" for run in runs) >= 0.95 * len(runs)
    assert np.median([run.seeds for run in runs]) < 30


def test_what_is_not_known_says_about_how_many_seeds_are_needed() -> None:
    noise = np.random.default_rng(4).normal(0, 0.01, (1, 12))
    (seeding,) = ended(Stopping(WIDTH, most=12), noise).values()
    assert (seeding.verdict, seeding.seeds) == ("open", 12)
    assert seeding.needed is not None
    assert 20 < seeding.needed < 200


def test_equal_errors_of_every_seed_are_alike() -> None:
    (seeding,) = ended(Stopping(WIDTH), np.zeros((1, 30))).values()
    assert (seeding.verdict, seeding.seeds) == ("same", FIRST_LOOK)


def test_the_shares_of_the_looks_add_up_to_the_error() -> None:
    stopping = Stopping(most=50)
    assert stopping.looks[0] == FIRST_LOOK
    assert stopping.looks[-1] == 50
    assert sum(stopping.level(look) for look in range(len(stopping.looks))) == pytest.approx(ALPHA)
    with pytest.raises(UsageError, match="leaves no look"):
        Stopping(most=FIRST_LOOK - 1)


SWEPT = (
    "compare",
    "seresnet20_cifar",
    "--no-latency",
    "--dataset",
    "digits",
    "--seeds",
    "auto",
    "--workers",
    "1",
    "-q",
)


def test_a_sweep_adds_seeds_until_its_rows_are_known(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from senet_bench.core.learning import TrialResult

    trained: list[tuple[str, int]] = []
    worse = 0.0

    def pretended(trial: Any) -> TrialResult:
        attention = trial.spec.attention
        arm = "none" if attention is None else attention.block
        trained.append((arm, trial.seed))
        noise = float(np.random.default_rng([trial.seed, len(arm)]).normal(0, 0.004))
        return TrialResult(top1_err=0.2 + worse + noise - (0.02 if arm == "se" else 0.0), seconds=1.0)

    monkeypatch.setattr("senet_bench.training.trials.run_trial", pretended)
    ended = run(*SWEPT, "--format", "json")
    assert ended.code == 0, ended.err
    rows = {row["label"]: row for row in json.loads(ended.out)["rows"]}
    seeding = rows["SE-ResNet-20"]["seeding"]
    assert seeding["verdict"] == "lower"
    assert seeding["seeds"] < 30
    assert sorted(seed for arm, seed in trained if arm == "none") == list(range(seeding["seeds"]))
    assert {row["accuracy"]["seeds"] for row in rows.values()} == {seeding["seeds"]}
    count, get, read = len(trained), TrialStore.get, list[str]()

    def noted(store: TrialStore, key: str) -> TrialResult | None:
        read.append(key)
        return get(store, key)

    monkeypatch.setattr(TrialStore, "get", noted)
    again = run(*SWEPT)
    assert sorted(read) == sorted(set(read))  # at all looks together
    assert len(trained) == count  # the same looks at what is stored
    assert f"SE-ResNet-20 errs less than its baseline: known after {seeding['seeds']} seeds" in again.out
    worse = 0.1
    fresh = {row["label"]: row for row in json.loads(run(*SWEPT, "--fresh", "--format", "json").out)["rows"]}
    for label, row in fresh.items():
        before, now = (one["accuracy"]["per_seed"] for one in (rows[label], row))
        assert now == pytest.approx({seed: error + worse for seed, error in before.items()})


def test_a_trial_that_fails_is_told_once_and_not_run_again_at_later_looks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from senet_bench.core.learning import TrialResult

    failed: list[int] = []

    def pretended(trial: Any) -> TrialResult:
        attention = trial.spec.attention
        if attention is not None and attention.block == "constant":
            failed.append(trial.seed)
            raise MeasurementError("the loss is no number")
        noise = float(np.random.default_rng([trial.seed, attention is None]).normal(0, 0.02))
        return TrialResult(top1_err=0.2 + noise, seconds=1.0)

    monkeypatch.setattr("senet_bench.training.trials.run_trial", pretended)
    ended = run(*SWEPT, "--max-seeds", "12", "--format", "json")
    assert ended.code == 5
    rows = json.loads(ended.out)["rows"]
    assert rows[1]["accuracy"]["seeds"] == 12  # what can be trained goes on
    assert sorted(failed) == sorted(set(failed))
    assert ended.err.count("the loss is no number") == 1


def test_python_gives_a_number_or_auto(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"no_latency": True, "dataset": "digits", "results": tmp_path, "dry_run": True}
    with pytest.raises(UsageError, match="neither auto nor a number"):
        senet_bench.compare("seresnet20_cifar", seeds="some", **asked)
    for seeds in (2, "auto"):
        assert senet_bench.compare("seresnet20_cifar", seeds=seeds, **asked).rows


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--seeds", "auto", "--shard", "1/2"), "leave out --shard"),
        (("--seeds", "8", "--width", "1"), "--width is for --seeds auto"),
        (("--max-seeds", "9"), "--max-seeds is for --seeds auto"),
        (("--seeds", "auto", "--max-seeds", "3"), "leaves no look"),
        (("--seeds", "some"), "neither auto nor a number"),
    ],
)
def test_what_cannot_be_decided_is_one_line(run: Run, options: tuple[str, ...], told: str) -> None:
    ended = run("compare", "seresnet20_cifar", "--no-latency", "--dataset", "digits", *options)
    assert ended.code == 2
    assert told in ended.err
    assert ended.err.count("\n") == 1
