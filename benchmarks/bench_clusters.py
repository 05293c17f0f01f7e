"""What a trial costs beside its training: sweeps of a stand-in that takes no time, on each engine.

Run `python -m benchmarks.bench_clusters [local] [ray] [slurm] [--trials 10000]`. A sweep of two networks and half as
many seeds as trials goes through the same code as `compare --dataset digits`. Printed are the seconds until the first
trial has ended, then the milliseconds a trial, those of the engine alone with the same stand-in (`engine`), the
largest memory of the front end (beyond what it had before), what of it is its own alone, and how long it takes to
begin again with all but ten trials stored. Slurm is a real one of this machine, started for it by root where its
programs are installed.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from senet_bench.core.learning import TrialResult
from senet_bench.core.progress import Progress
from senet_bench.core.results import Run, RunConditions
from senet_bench.core.store import Store
from senet_bench.run.cases import select
from senet_bench.run.count import Count
from senet_bench.run.engines import Busy, Engine
from senet_bench.run.error import Sweep
from senet_bench.run.local import Local
from senet_bench.run.ray_cluster import RayCluster
from senet_bench.run.record import Record, new_run
from senet_bench.run.slurm import Slurm
from senet_bench.training import trials

LEFT = 10


def stand_in(trial: Any, device: str | None = None) -> TrialResult:
    """A result at once."""
    return TrialResult(model=trial.spec.name, top1_err=0.1 + 0.001 * (trial.seed % 7), seconds=0.1, device="cpu")


def nothing(job: int) -> int:
    """What the engine alone is given."""
    return job


def sweep(engine: Engine, count: int, root: Path) -> Iterator[Progress]:
    """The moments of a sweep in a results folder."""
    cases, asked = select(["resnet20_cifar"]), Sweep(engine=engine, seeds=count // 2)
    record: Record[Run] = Record.begin(Store(root), new_run("compare", RunConditions()))
    for _ in Count().run(cases, record):
        pass
    yield from asked.run(cases, record)


def megabytes() -> float:
    """The largest memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(name: str, engine: Engine, count: int) -> None:
    before = megabytes()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        began, first, done = time.perf_counter(), 0.0, 0
        for moment in sweep(engine, count, root):
            if not first and moment.what.startswith("seed "):
                first, done = time.perf_counter() - began, int(moment.done)
        whole = time.perf_counter() - began
        each = (whole - first) / max(1, count - done)
        alone = engine_alone(engine, count)
        print(  # noqa: T201
            f"{name}: {count} trials in {whole:.1f} s, the first after {first:.1f} s; then {1000 * each:.2f} ms a trial"
            f", the engine alone {1000 * alone:.2f} ms; memory {megabytes():.0f} MB (+{megabytes() - before:.0f})"
            f", {psutil.Process().memory_full_info().uss / 2**20:.0f} MB of them shared with no other process",
            flush=True,
        )
        if count > LEFT and isinstance(engine, Local):
            for path in sorted(root.glob("runs/*/trials/*.json"))[:LEFT]:
                path.unlink()
            began = time.perf_counter()
            next(moment for moment in sweep(engine, count, root) if moment.what.startswith("seed "))
            print(f"{name}: again with {count - LEFT} stored: {time.perf_counter() - began:.2f} s to the first trial")  # noqa: T201


def engine_alone(engine: Engine, count: int) -> float:
    """Seconds a job that does nothing, after the first."""
    first, ended = 0.0, 0
    for moment in engine.watched(nothing, iter(range(count))):
        if not isinstance(moment, Busy):
            first = first or time.perf_counter()
            ended += 1
    return (time.perf_counter() - first) / max(1, ended - 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engines", nargs="*", default=["local"])
    parser.add_argument("--trials", type=int, default=10_000)
    asked = parser.parse_args()
    trials.run_trial = stand_in
    for name in asked.engines:
        with ExitStack() as stack:
            engine: Engine = Local(2)
            if name == "ray":
                engine = RayCluster()
            if name == "slurm":
                from tests.support.slurm import running

                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                (folder / "daemons").mkdir()
                os.environ.update(stack.enter_context(running(folder / "daemons")).environment)
                engine = Slurm(folder / "slurm", options={"mem_gb": 1})
            measured(name, engine, asked.trials)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
