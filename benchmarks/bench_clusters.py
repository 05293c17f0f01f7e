"""What a trial costs beside its training: sweeps of a stand-in that takes no time, on each engine.

Run `python -m benchmarks.bench_clusters [local] [ray] [slurm] [--trials 10000]`. A sweep of a network, its baseline and
its control, with a third as many seeds as trials, is what `compare --dataset digits` does. Printed are the seconds
until the first trial has ended, then the milliseconds a trial, those of the engine alone that does nothing, both as
wall time and as processor time of the front end (with Ray's connected process), the largest memory of the front end,
what of it is its own alone, and how long it takes to begin again with all but ten trials stored, the first of which
begins when what trains is loaded. Slurm is a real one
of this machine, started for it by root where its programs are installed.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.stand_in import begun, stand_in
from senet_bench.core.progress import Progress
from senet_bench.core.store import Store
from senet_bench.run import error
from senet_bench.run.compare import compare
from senet_bench.run.engines import Busy, Engine
from senet_bench.run.error import Sweep
from senet_bench.run.local import Local
from senet_bench.run.ray_cluster import RayCluster
from senet_bench.run.slurm import Slurm

LEFT, NETWORKS = 10, 3


def nothing(job: int) -> int:
    """What the engine alone is given."""
    return job


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds by the clock, and of processor time: of this process, and of those that it started and that ended."""

    wall: float
    own: float
    children: float

    @staticmethod
    def now() -> Spent:
        """What was spent until now."""
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return Spent(time.perf_counter(), own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime)

    def since(self, before: Spent, jobs: int) -> str:
        """What was spent a job since then."""
        wall, own = self.wall - before.wall, self.own - before.own
        return f"{1000 * wall / jobs:.2f} ms ({1000 * own / jobs:.2f} of its own processor)"


def sweep(engine: Engine, count: int, root: Path) -> Iterator[Progress]:
    """The moments of a sweep in a results folder in which a trial ends, as `compare` takes it."""
    measures = {"accuracy": Sweep(engine=engine, seeds=count // NETWORKS)}
    moments = compare(["resnet20_cifar"], Store(root), measures=measures)
    return (moment for moment in moments if moment.what.startswith("seed "))


def megabytes() -> float:
    """The largest memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(name: str, engine: Engine, count: int) -> None:
    """Print what a sweep of so many trials costs on an engine."""
    with tempfile.TemporaryDirectory() as folder:
        began, root = Spent.now(), Path(folder)
        trials = sweep(engine, count, root)
        next(trials)
        first = Spent.now()
        ended = sum(1 for _ in trials)
        last = Spent.now()
        print(  # noqa: T201
            f"{name}: {ended + 1} trials in {last.wall - began.wall:.1f} s, the first after"
            f" {first.wall - began.wall:.1f} s; then a trial {last.since(first, ended)}; the front end's memory"
            f" {megabytes():.0f} MB, {psutil.Process().memory_full_info().uss / 2**20:.0f} MB of it its own;"
            f" torch {'' if 'torch' in sys.modules else 'not '}loaded",
            flush=True,
        )
        print(f"{name}: the engine alone a job {engine_alone(engine, count)}", flush=True)  # noqa: T201
        if count > LEFT and isinstance(engine, Local):
            for path in sorted(root.glob("runs/*/trials/*.json"))[:LEFT]:
                path.unlink()
            vars(error)["run_trial"] = begun
            began = Spent.now()
            trials = sweep(engine, count, root)
            next(trials)
            again = Spent.now()
            vars(error)["run_trial"] = stand_in
            trials.close()  # type: ignore[attr-defined]
            print(  # noqa: T201
                f"{name}: again with all but {LEFT} stored: {again.wall - began.wall:.2f} s to the first trial,"
                f" {again.own - began.own:.2f} s of its own processor"
            )


def engine_alone(engine: Engine, count: int) -> str:
    """What a job that does nothing costs, after the first."""
    jobs = (moment for moment in engine.watched(nothing, iter(range(count))) if not isinstance(moment, Busy))
    next(jobs)
    first = Spent.now()
    ended = sum(1 for _ in jobs)
    return Spent.now().since(first, max(1, ended))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engines", nargs="*", default=["local"])
    parser.add_argument("--trials", type=int, default=10_000)
    asked = parser.parse_args()
    vars(error)["run_trial"] = stand_in  # as its module imports it
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
