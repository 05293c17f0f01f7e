"""Trials that several processes train together: started by the engine, killed, gone on, the same table at the end."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from torch import nn

from senet_bench.api.trials import engine_of
from senet_bench.core.catalog import resolve
from senet_bench.core.recipes import recipe
from senet_bench.core.trial import Trial
from senet_bench.data.sets import load_images
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.run.cases import select
from senet_bench.run.error import Sweep
from senet_bench.run.local import Local
from senet_bench.run.ray_cluster import RayCluster
from senet_bench.training.distributed import World, gathered
from senet_bench.training.evaluation import predict
from senet_bench.training.ranks import Ranks, together
from senet_bench.training.trials import run_trial
from tests.conftest import Run


def place(job: str, world: World) -> str:
    """A job that tells where it was done, or fails as it is told."""
    if job == "dies" and world.rank == 1:
        os._exit(7)
    if job == "fails" and world.rank == 1:
        raise UsageError("rank 1 was told to", "do not tell it")
    gathered(job, world)
    return f"{job} by {world.rank} of {world.size}"


@pytest.mark.slow
def test_a_job_is_done_by_several_processes_and_what_one_raises_or_its_death_is_told() -> None:
    with pytest.raises(UsageError, match="rank 1 was told to"):
        together(place, "fails", Ranks(2))
    assert together(place, "done", Ranks(2)) == "done by 0 of 2"
    with pytest.raises(MeasurementError):
        together(place, "dies", Ranks(2))


def judge(job: str, world: World) -> tuple[float, float]:
    """The error that all processes find of a network whose statistics differ by rank, and that of rank 0's alone."""
    torch.manual_seed(0)
    norm, digits = nn.BatchNorm2d(1), load_images("digits")
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(64, 10))
    nn.init.constant_(norm.running_mean, world.rank)  # type: ignore[arg-type]
    own = predict(copy.deepcopy(network), digits, digits.test).top1_err
    return predict(network, digits, digits.test, world=world).top1_err, own


def test_several_processes_test_the_network_of_the_first() -> None:
    shared, alone = together(judge, "", Ranks(2))
    assert shared == alone


def test_engines_give_each_trial_its_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("senet_bench.bench.device.every", lambda _: [f"cuda:{index}" for index in range(5)])
    assert Local(2, "cuda", 2).places() == ["cuda:0,cuda:1", "cuda:2,cuda:3"] * 2
    monkeypatch.setattr("senet_bench.bench.device.present", lambda _: None)
    with pytest.raises(UsageError, match="fewer than 8 GPUs; choose a smaller --gpus-per-trial"):
        Local(1, "cuda", 8).check("cuda")
    assert engine_of("ray", None, (), None, "cuda", tmp_path, 8) == RayCluster(gpus=8, cpus=8)
    slurm: Any = engine_of("slurm", None, (), None, "cuda", tmp_path, 8)
    assert slurm.options["gpus_per_node"] == 8


def test_a_batch_that_processes_cannot_share_is_refused_before_anything_runs() -> None:
    sweep = Sweep(engine=Local(1), dataset="digits", processes=3)
    with pytest.raises(UsageError, match="a global batch of 50 cannot be shared by 3 processes"):
        sweep.check(select(["resnet20_cifar"]))


@pytest.mark.slow
def test_two_processes_train_a_trial_and_say_so() -> None:
    planned = Trial(arm="0", spec=resolve("seresnet20_cifar"), recipe=recipe("digits").lasting(1), seed=1, processes=2)
    first, again = run_trial(planned), run_trial(planned)
    without = {"seconds": None, "cpu_seconds": None}
    assert structs.replace(first, **without) == structs.replace(again, **without)
    assert (first.processes, first.trained_on, first.images) == (2, "cpu x 2", 1697)
    assert run_trial(replace(planned, processes=1)).images == 1697


@pytest.mark.slow
def test_a_sweep_of_two_processes_a_trial_killed_twice_ends_in_the_same_table(run: Run, tmp_path: Path) -> None:
    asked = ["compare", "resnet20_cifar", "seresnet20_cifar", "--pair", "--no-latency", "--dataset", "digits"]
    asked += ["--epochs", "2", "--seeds", "3"]
    asked += ["--gpus-per-trial", "2", "--workers", "1", "--format", "json", "-q", "--results"]
    command = [sys.executable, "-m", "senet_bench", *asked, str(tmp_path / "killed")]
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stored = len([*(tmp_path / "killed").glob("runs/*/trials/*.json")])
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            if len([*(tmp_path / "killed").glob("runs/*/trials/*.json")]) > stored:
                break
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    ends = [run(*asked, str(tmp_path / name)) for name in ("killed", "whole")]
    assert [end.err for end in ends if end.code] == []
    tables = [json.loads(end.out)["rows"] for end in ends]
    errors = [[row["accuracy"]["per_seed"] for row in rows] for rows in tables]
    assert errors[0] == errors[1]
    assert tables[0][0]["accuracy"]["trained_on"] == ["cpu x 2"]
