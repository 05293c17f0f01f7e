"""Trials are trained where `--device` says, or nothing runs; rows say where that was. The GPUs here are pretended."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from senet_bench.api.trials import engine_of
from senet_bench.bench.device import DEVICE_CLASSES, Cpu, every
from senet_bench.core import catalog
from senet_bench.core.learning import TrialResult
from senet_bench.core.recipes import recipe
from senet_bench.core.trial import Trial
from senet_bench.errors import UsageError
from senet_bench.run import local
from senet_bench.run.error import Sweep, trial_definition
from senet_bench.run.local import Local
from senet_bench.run.ray_cluster import RayCluster
from senet_bench.run.slurm import Slurm
from senet_bench.training import trials
from tests.conftest import Run
from tests.support import lost_gpus

A_TRIAL = Trial(arm="0", spec=catalog.resolve("seresnet20_cifar"), recipe=recipe("digits").lasting(1), seed=0)
SWEEP = ("ablate", "-m", "seresnet20_cifar", "--reduction", "4", "--dataset", "digits", "--epochs", "1", "-q")


@dataclass(frozen=True)
class Pretended(Cpu):
    """Two GPUs that only say they are there."""

    several: ClassVar[bool] = True

    def count(self) -> int:
        return 2

    def name(self) -> str:
        return "Abacus 3000"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEVICE_CLASSES, "cuda", Pretended)


@pytest.mark.usefixtures("gpus")
def test_cuda_is_every_gpu_with_workers_on_each_and_a_number_is_that_one() -> None:
    assert every("cuda") == ["cuda:0", "cuda:1"]
    assert every("cuda:1") == ["cuda:1"]
    assert Local(2, "cuda").places() == ["cuda:0", "cuda:1"] * 2
    assert Local(1, "cuda:1").places() == ["cuda:1"]
    assert Local(3, "cpu").places() == [None] * 3
    assert Local(2, "cuda").at_a_time() == 4
    assert set(dict(Local(1, "cuda").run(lost_gpus.where, iter(range(6)))).values()) == {"cuda:0", "cuda:1"}
    assert dict(Local(1, "cuda:1").run(lost_gpus.where, iter(range(2)))) == {0: "cuda:1", 1: "cuda:1"}


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "mps", "abacus"])
def test_a_device_that_is_not_there_is_a_usage_error_before_anything_runs(run: Run, device: str) -> None:
    if device != "abacus" and device != "cuda:3" and DEVICE_CLASSES[device](torch.device(device)).count():
        pytest.skip("it is there")
    ended = run(*SWEEP, "--device", device)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert device in ended.err
    assert not list(Path("results").glob("runs/*/trials/*"))


@pytest.mark.usefixtures("gpus")
def test_the_trials_of_a_gpu_that_is_lost_are_done_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "calculates", lost_gpus.calculates)
    assert dict(Local(1, "cuda").run(lost_gpus.place_of, iter(range(3)))) == dict.fromkeys(range(3), "cuda:0")


@pytest.mark.usefixtures("gpus")
def test_the_loss_of_the_only_gpu_is_one_line_and_what_has_ended_is_stored(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "calculates", lost_gpus.calculates)
    monkeypatch.setattr("senet_bench.run.error.run_trial", lost_gpus.run_trial)
    ended = run(*SWEEP, "--device", "cuda:1", "--seeds", "2")
    assert (ended.code, ended.err.count("\n")) == (5, 1), ended.err
    assert "cuda:1 is gone (device cuda:1 is not there; this machine has 1 of that kind)" in ended.err
    assert "3 of 6 trials are stored; the same command goes on with what is not stored" in ended.err


@pytest.mark.usefixtures("gpus")
def test_every_trial_is_handed_its_device_and_rows_say_it_and_its_start(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed, versions = set(), ["2.11"]

    def trained(trial: Trial, device: str | None = None) -> TrialResult:
        handed.add((trial.device, device))
        note = "the head is new; 9 blocks are identities" if trial.spec.attention else "the head is new"
        place = device or trial.device
        return TrialResult(top1_err=0.1, device=place, hardware="Abacus 3000", torch=versions[-1], note=note)

    monkeypatch.setattr(trials, "run_trial", trained)
    ended = run(*SWEEP, "--device", "cuda:1", "--seeds", "1", "--format", "json")
    assert ended.code == 0, ended.err
    assert handed == {("cuda:1", "cuda:1")}
    assert {*(str(row["accuracy"]["trained_on"]) for row in json.loads(ended.out)["rows"])} == {
        "['Abacus 3000 (cuda)']"
    }
    table = run(*SWEEP, "--device", "cuda:1", "--seeds", "1").out
    assert "trained on Abacus 3000 (cuda)\n  the head is new\n" in table
    assert ": 9 blocks are identities\n" in table
    versions.append("2.15")
    several = " ".join(run(*SWEEP, "--device", "cuda:1", "--seeds", "2").out.split())
    assert "trained on Abacus 3000 (cuda) with torch 2.11, Abacus 3000 (cuda) with torch 2.15" in several


def test_a_device_decides_no_key_and_is_part_of_the_result() -> None:
    assert trial_definition(replace(A_TRIAL, device="cuda:1")) == trial_definition(A_TRIAL)
    assert TrialResult(top1_err=0.1).trained_on == "cpu"
    assert trials.trained_place("cpu") == {"device": "cpu", "hardware": "", "torch": str(torch.__version__)}


def test_engines_reserve_gpus_for_trials_on_gpus_and_for_no_others() -> None:
    here = Path("results")
    assert engine_of("ray", None, (), None, "cuda", here) == RayCluster(gpus=1)
    assert engine_of("ray", None, ("gpus=0.5",), None, "cuda", here) == RayCluster(gpus=0.5)
    slurm = engine_of("slurm", None, (), None, "cuda", here)
    assert isinstance(slurm, Slurm)
    assert slurm.options == {"gpus_per_node": 1}
    for engine, device, text in (
        (RayCluster(gpus=1), "cpu", "reserves GPUs for trials on cpu"),
        (Slurm(here, options={"slurm_gres": "gpu:1"}), "cpu", "reserves GPUs for trials on cpu"),
        (RayCluster(gpus=1), "cuda:1", "chosen by the engine"),
        (RayCluster(), "cuda", "reserves no GPUs"),
    ):
        with pytest.raises(UsageError, match=text):
            engine.check(device)
    with pytest.raises(UsageError, match="reserves GPUs"):
        Sweep(engine=RayCluster(gpus=1)).check([])
