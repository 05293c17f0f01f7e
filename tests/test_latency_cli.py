"""Latency in `compare` and `ablate`: what a row carries, what happens when something fails. No time is asserted."""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from senet_bench.core.specs import Conditions
from senet_bench.errors import MeasurementError
from senet_bench.run import selftest
from tests.conftest import Run

QUICK = ("--img-size", "8", "--budget", "20", "--format", "json")


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of rounds on a quiet machine and on a busy one, long before the budget is used."""
    from senet_bench.bench import rounds

    monkeypatch.setattr(rounds, "Plan", functools.partial(rounds.Plan, max_rounds=8, warmup_s=0.1))


def rows(run: Run, *arguments: str) -> list[dict[str, Any]]:
    ended = run(*arguments, *QUICK)
    assert ended.code == 0, ended.err
    found: list[dict[str, Any]] = json.loads(ended.out)["rows"]
    return found


def test_a_pair_has_a_ratio_with_interval_control_conditions_and_raw_samples(run: Run, tmp_path: Path) -> None:
    base, variant = rows(run, "compare", "seresnet20_cifar")
    assert {"seconds", "rounds", "cpu_seconds"} <= base["latency"].keys()
    assert base["latency"]["ratio"] is None
    latency = variant["latency"]
    low, high = latency["ci"]
    assert 0 < low <= latency["ratio"] <= high
    assert latency["control_ratio"] > 0
    assert latency["mde"] is None or latency["mde"] > 0
    assert 0 < latency["confidence"] < 1
    assert latency["conditions"]["precision"] == "fp32"
    assert latency["conditions"]["threads"] == 1
    assert latency["peak_bytes"] > 0
    assert latency["settings"]["tf32"] is False
    assert "latency" not in variant["missing"]
    (kept,) = (tmp_path / "results" / "runs").glob("*/*.samples.jsonl")
    line = json.loads(kept.read_text())
    assert line["baseline"] == "resnet20_cifar"
    assert set(line["arms"]) >= {"resnet20_cifar", "control"}
    assert len(line["seconds"]) >= latency["rounds"]


def test_several_batch_sizes_and_training_steps(run: Run) -> None:
    _, variant = rows(run, "compare", "seresnet20_cifar", "-b", "1,4", "--mode", "train")
    every = [variant["latency"], *variant["more_latency"]]
    assert [one["conditions"]["batch_size"] for one in every] == [1, 4]
    assert {one["conditions"]["mode"] for one in every} == {"train"}
    assert all(one["ratio"] > 0 for one in every)


def test_runtimes_take_turns_on_a_cpu_and_memory_is_read_beside_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from senet_bench.bench import rounds

    order, real = [], rounds._Session._round

    def noted(self: Any) -> None:
        order.append(id(self))
        real(self)

    monkeypatch.setattr(rounds._Session, "_round", noted)
    base, variant = rows(run, "compare", "seresnet20_cifar", "--runtime", "eager,deploy:eager", "-b", "1,2")
    every = [variant["latency"], *variant["more_latency"]]
    under = [(one["conditions"]["batch_size"], one["conditions"]["runtime"]) for one in every]
    assert under == [(1, "eager"), (1, "deploy:eager"), (2, "eager"), (2, "deploy:eager")]
    first, second = order[:16], order[16:]
    assert len(set(first)) == len(set(second)) == 2
    assert all(len(set(first[place : place + 2])) == 2 for place in range(0, 16, 2))
    assert all(one["read_bytes_per_s"] > 0 and one["quartiles"][0] <= one["quartiles"][1] for one in every)
    assert base["latency"]["read_bytes_per_s"] == variant["latency"]["read_bytes_per_s"]
    (kept,) = (tmp_path / "results" / "runs").glob("*/*.samples.jsonl")
    assert len(kept.read_text().splitlines()) == 4


def test_a_gpu_holds_the_networks_of_one_runtime_at_a_time() -> None:
    from senet_bench.run.latency import _side_by_side

    listed = [Conditions(runtime=runtime, batch_size=batch) for batch in (1, 8) for runtime in ("eager", "deploy")]
    assert _side_by_side(listed) == [listed[:2], listed[2:]]
    on_gpu = [replace(one, device="cuda") for one in listed]
    assert _side_by_side(on_gpu) == [[one] for one in on_gpu]


def test_an_ablation_times_all_settings_in_the_same_rounds(run: Run, tmp_path: Path) -> None:
    options = ("--reduction", "2,4", "--budget-latency", "10", "--max-seconds", "60")
    found = rows(run, "ablate", "-m", "seresnet20_cifar", *options)
    assert [row["latency"]["ratio"] is None for row in found] == [True, False, False]
    (kept,) = (tmp_path / "results" / "runs").glob("*/*.samples.jsonl")
    assert len(json.loads(kept.read_text())["arms"]) == 4


def test_the_table_shows_ratio_and_control(run: Run) -> None:
    ended = run("compare", "seresnet20_cifar", *QUICK[:-2])
    assert "Latency: inference, batch 1, cpu, fp32, eager, 1 thread" in ended.out
    assert "control" in ended.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda:97"], "cuda:97 is not there"),
        (["--device", "abacus"], "abacus"),
        (["--precision", "tf32"], "tf32"),
        (["--precision", "fp8"], "fp8"),
        (["--budget", "0"], "'--budget': '0'"),
        (["--budget", "-3"], "'--budget': '-3'"),
        (["--budget", "nan"], "'--budget': 'nan'"),
        (["-b", "0"], "batch-size"),
        (["-b", "1,two"], "two"),
        (["--threads", "0"], "threads"),
        (["--runtime", "jit"], "jit"),
        (["--runtime", "deploy:tvm"], "deploy:openvino"),
        (["--runtime", "cudagraph"], "CUDA"),
        (["--runtime", "eager", "--torchcompile"], "--torchcompile and --runtime exclude each other"),
        (["--cold-l2"], "--cold-l2 flushes nothing on cpu; add --device cuda"),
    ],
)
def test_conditions_that_are_not_to_be_had_are_named_before_anything_runs(
    run: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    ended = run("compare", "seresnet20_cifar", *options)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_failed_measurement_is_a_missing_number_with_its_reason_and_exit_5(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from senet_bench.bench import latency

    real = latency.measure_networks

    def fails_for_wrn(networks: Any, baseline: str, *rest: Any, **named: Any) -> Any:
        if baseline == "wrn16_8_cifar":
            raise MeasurementError("the output is not finite", "look at the weights")
        return real(networks, baseline, *rest, **named)

    monkeypatch.setattr(latency, "measure_networks", fails_for_wrn)
    ended = run("compare", "seresnet20_cifar", "sewrn16_8_cifar", *QUICK)
    assert ended.code == 5
    found = {row["model"]: row for row in json.loads(ended.out)["rows"]}
    assert found["seresnet20_cifar"]["latency"]["ratio"] > 0
    assert found["sewrn16_8_cifar"]["latency"] is None
    assert "not finite" in found["sewrn16_8_cifar"]["missing"]["latency"]
    assert found["sewrn16_8_cifar"]["params"] == 11_049_290
    assert "not measured" in ended.err


def test_running_out_of_memory_halves_the_batch_for_both_sides_and_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from senet_bench.bench import latency, runtimes

    real = runtimes.prepare

    def full(network: Any, conditions: Any, images: Any) -> Any:
        if conditions.batch_size > 2:
            raise MemoryError
        return real(network, conditions, images)

    monkeypatch.setattr(latency, "prepare", full)
    for row in rows(run, "compare", "seresnet20_cifar", "-b", "4"):
        assert row["latency"]["conditions"]["batch_size"] == 2
        assert "every network ran with batch 2, not 4" in row["latency"]["reason"]


def test_an_interrupt_while_timing_keeps_counts_and_finished_pairs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from senet_bench.bench import latency

    real = latency.measure_networks

    def interrupted(networks: Any, baseline: str, *rest: Any, **named: Any) -> Any:
        if baseline == "wrn16_8_cifar":
            raise KeyboardInterrupt
        return real(networks, baseline, *rest, **named)

    monkeypatch.setattr(latency, "measure_networks", interrupted)
    ended = run("compare", "seresnet20_cifar", "sewrn16_8_cifar", *QUICK)
    assert ended.code == 130
    (stored,) = (tmp_path / "results" / "runs").glob("*/*.json")
    kept = {row["model"]: row for row in json.loads(stored.read_text())["rows"]}
    assert kept["seresnet20_cifar"]["latency"]["ratio"] > 0
    assert kept["sewrn16_8_cifar"]["latency"] is None
    assert kept["sewrn16_8_cifar"]["params"] == 11_049_290


def test_selftest_counts_its_trials(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    short = functools.partial(selftest.Amounts, budget_s=0.2, slower_s=0.2)
    monkeypatch.setattr(selftest, "Amounts", short)
    options = ("--null", "1", "--slower", "1", "--visible", "0", "--peers", "0")
    document = json.loads(run("selftest", *options, "--format", "json").out)
    assert document["schema"] == "senet-bench.selftest/1"
    ours = next(row for row in document["rows"] if row["rule"] == "senet-bench")
    assert (ours["same"], ours["slower"]) == (1, 1)
    assert len(document["details"]) == 2


def test_doctor_tries_every_branch_of_measuring(run: Run) -> None:
    ended = run("doctor", "--device", "cuda:97")
    assert ended.code == 2
