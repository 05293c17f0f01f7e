"""What a trial costs as a job of Slurm above a bare submitit job of the same function, in processor time.

Run `python -m benchmarks.bench_slurm_jobs [--trials 240] [--rounds 4]` as root where Slurm's programs are installed.
A job of Slurm starts a process, so that times by the clock say how busy the machine is; what is ours is processor time,
of two processes. The front end's: sweeps and bare arrays of a stand-in that takes no time, in turns. The job's: what
Slurm was given to run, of a sweep and of a bare array, run again here, in turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import submitit

from benchmarks.stand_in import stand_in
from senet_bench.core.store import Store
from senet_bench.run import error
from senet_bench.run.cases import select, with_controls
from senet_bench.run.compare import compare
from senet_bench.run.engines import POLL_S
from senet_bench.run.error import Sweep
from senet_bench.run.slurm import Slurm
from tests.support.slurm import running

NETWORKS = 3
"""Of a sweep of one network: its baseline, itself and its control."""
OPTIONS = {"mem_gb": 1, "timeout_min": 60}
PROCESSES = 60
"""How often a job's process is run again."""


def spent() -> float:
    """The seconds of processor time that this process has had."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def ours(folder: Path, count: int) -> float:
    """The front end's seconds a trial in a sweep of `count` trials, from the end of its counting on."""
    engine, began, ended = Slurm(folder / "slurm", at_once=count, options=OPTIONS), 0.0, 0
    measures = {"accuracy": Sweep(engine=engine, seeds=count // NETWORKS)}
    for moment in compare(["resnet20_cifar"], Store(folder), measures=measures):
        ended += moment.what.startswith("seed ")
        if not ended and "running" not in moment.what:
            began = spent()
    return (spent() - began) / ended


def bare(folder: Path, count: int) -> float:
    """The front end's seconds a job of one that submits an array of `count` by submitit and waits for its results."""
    sweep = Sweep(engine=Slurm(folder), seeds=count // NETWORKS)
    trials = sweep.plan(with_controls(select(["resnet20_cifar"])))
    began = spent()
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
    executor.update_parameters(**OPTIONS, slurm_array_parallelism=count)
    with executor.batch():
        jobs: list[Any] = [executor.submit(stand_in, trial) for trial in trials]
    waiting = jobs
    while waiting:
        time.sleep(POLL_S)
        for job in (there := [job for job in waiting if job.paths.result_pickle.exists()]):
            job.result()
        waiting = [job for job in waiting if job not in there]
    return (spent() - began) / len(jobs)


def job_process(folder: Path) -> float:
    """The processor seconds of the process of a job whose files lie in a folder, run once more."""
    number = next(folder.glob("*_submitted.pkl")).name.removesuffix("_submitted.pkl")
    array, _, task = number.partition("_")
    facts = {"JOB_ID": array, "ARRAY_JOB_ID": array, "ARRAY_TASK_ID": task, "JOB_NODELIST": "localhost"}
    kind = {"SUBMITIT_EXECUTOR": "slurm"}
    places = dict.fromkeys(("PROCID", "LOCALID", "NODEID"), "0") | dict.fromkeys(("NTASKS", "JOB_NUM_NODES"), "1")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "submitit.core._submit", str(folder)],
        env=os.environ | kind | {f"SLURM_{name}": value for name, value in (facts | places).items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the process of job {number} ends with {process.returncode}")
    return used.ru_utime + used.ru_stime


def told(what: str, one: list[float], other: list[float]) -> float:
    """Print the medians of two costs in milliseconds with what lies between them, which is given back."""
    differences = [1000 * (a - b) for a, b in zip(one, other)]
    low, above, high = statistics.quantiles(differences)
    print(  # noqa: T201
        f"{what}: ours {1000 * statistics.median(one):.1f} ms, bare {1000 * statistics.median(other):.1f} ms;"
        f" above it {above:.1f} ms (quartiles {low:.1f} and {high:.1f}, {len(one)} turns)",
        flush=True,
    )
    return above


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    vars(error)["run_trial"] = stand_in  # as its module imports it
    with tempfile.TemporaryDirectory() as name:
        root, each = Path(name), asked.trials // asked.rounds // NETWORKS * NETWORKS
        (root / "daemons").mkdir()
        with running(root / "daemons", array=1001) as cluster:
            os.environ.update(cluster.environment)
            began = time.monotonic()
            ours(root / "first", NETWORKS), bare(root / "first-bare", NETWORKS)
            turns = [(ours(root / f"o{turn}", each), bare(root / f"b{turn}", each)) for turn in range(asked.rounds)]
            wall = (time.monotonic() - began) / (2 * each * asked.rounds)
        (folder,) = (root / "o0" / "slurm").iterdir()
        pairs = [(job_process(folder), job_process(root / "b0")) for _ in range(PROCESSES)]
    print(f"{each * asked.rounds} trials each way, {wall:.2f} s a job by the clock, load {os.getloadavg()[0]:.1f}")  # noqa: T201
    above = told("front end", *map(list, zip(*turns))) + told("the job's process", *map(list, zip(*pairs)))
    print(f"a trial costs {above:.1f} ms of processor time above a bare job")  # noqa: T201


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
