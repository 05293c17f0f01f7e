"""How long the project's own statistics, files and commands take; `nox -s bench` runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from senet_bench.core import statistics
from senet_bench.core.environment import Environment
from senet_bench.core.results import Latency, Row, Run
from senet_bench.core.schemas import schema_of
from senet_bench.core.store import Store

RUNS = 100


def log_ratios(n: int) -> Any:
    return np.random.default_rng(0).normal(0.03, 0.02, n)


@pytest.mark.parametrize("n", [100, 1000])
def test_an_interval(benchmark: Any, n: int) -> None:
    benchmark.group = f"verdict, n = {n}"
    assert benchmark(statistics.interval, log_ratios(n), 0.01) is not None


@pytest.mark.parametrize("n", [100, 1000])
def test_a_judgement(benchmark: Any, n: int) -> None:
    benchmark.group = f"verdict, n = {n}"
    found = benchmark(statistics.judge, log_ratios(n), gate=0.02, level=0.002, alpha=0.01)
    assert found.verdict == "regressed"


def a_run() -> Run:
    """Twenty rows with latency."""
    row = Row(
        model="seresnet50",
        label="SE-ResNet-50",
        family="resnet",
        input_size=(3, 224, 224),
        classes=1000,
        params=28_088_024,
        flops={"macs": 3_866_000_000},
        latency=Latency(seconds=0.13, ratio=1.04, ci=(1.03, 1.05), rounds=100),
    )
    return Run(
        schema=schema_of("compare"),
        version="0",
        created="2026-11-21T00:00:00Z",
        environment=Environment(machine="0" * 12),
        rows=[row] * 20,
    )


def test_loading_a_store_of_a_hundred_runs(benchmark: Any, tmp_path: Path) -> None:
    store, run = Store(tmp_path), a_run()
    first = store.new_path(run)
    store.write(run, first)
    for index in range(1, RUNS):
        shutil.copy(first, first.with_name(f"{index:03}-{first.name}"))
    loaded = benchmark.pedantic(lambda: list(store.runs()), rounds=3)
    assert len(loaded) == RUNS


@pytest.mark.parametrize("arguments", [("--help",), ("models",)], ids=" ".join)
def test_starting_up(benchmark: Any, arguments: tuple[str, ...], tmp_path: Path) -> None:
    benchmark.group = "start-up"
    command = [sys.executable, "-m", "senet_bench", *arguments]

    def start() -> int:
        return subprocess.run(command, capture_output=True, check=False, cwd=tmp_path).returncode

    assert benchmark.pedantic(start, rounds=3, warmup_rounds=1) == 0
