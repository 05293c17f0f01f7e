"""How fast a sweep of tiny trials is against the same trials one after another with two threads.

Run `python -m benchmarks.bench_sweep [8] [32] [ray] [--rounds 3] [--seeds 5]`: six settings (ResNet-20, SE at r = 2
to 16, the constant gate) on digits at 8 px, and on CIFAR-shaped files at 32 px, whose noise has nothing to be learnt.
The sweep runs in two processes, whose start is counted, in fp32 and in bf16. Beside it, in turns: a loop as
torchvision's reference writes it, in fp32 and the contiguous memory format, on images that lie in memory as tensors;
and our own loop. Printed are the medians over rounds of the ratios other / sweep, of times by the clock and of CPU
times, with their range, and the mean errors. `ray` sets Ray on this machine, started and warm, against the sweep in two
processes.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.clock import Taken, ratios, taken
from senet_bench.core.catalog import resolve
from senet_bench.core.recipes import Recipe, recipe
from senet_bench.core.specs import Precision
from senet_bench.core.store import TrialStore, key_of
from senet_bench.core.trial import Trial
from senet_bench.data import sets
from senet_bench.data.augment import normalised
from senet_bench.data.batches import Batches
from senet_bench.run.claims import Claimed, carried_out
from senet_bench.run.engines import Engine
from senet_bench.run.error import trial_definition
from senet_bench.run.local import Local
from senet_bench.run.ray_cluster import RayCluster
from senet_bench.training.optimisation import LearningRate
from senet_bench.training.trials import run_trial, start

BATCH = 256


def planned(plan: Recipe, dataset: str, folder: Path | None, seeds: int) -> list[Trial]:
    se = resolve("seresnet20_cifar")
    assert se.attention is not None
    blocks = [replace(se.attention, reduction=r) for r in (2, 4, 8, 16)] + [replace(se.attention, block="constant")]
    specs = [resolve("resnet20_cifar"), *(replace(se, attention=block) for block in blocks)]
    return [
        Trial(arm=str(arm), spec=spec, recipe=plan, seed=seed, dataset=dataset, folder=str(folder) if folder else None)
        for seed in range(seeds)
        for arm, spec in enumerate(specs)
    ]


def plain(trial: Trial) -> float:
    """The error after training as torchvision's references/classification/train.py does."""
    from benchmarks.bench_training import reference_epoch  # not at the top: the sweep's processes import this file too

    begun = start(trial)
    pictures, network = begun.images, begun.network
    plan = trial.recipe
    batches = Batches(pictures.training(), plan.batch_size, trial.seed, plan.augmentation, pictures.size)
    optimizer = torch.optim.SGD(network.parameters(), plan.lr, plan.momentum, weight_decay=plan.weight_decay)
    rate = LearningRate(plan)

    def shown(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step, (x, y) in enumerate(batches.epoch(epoch)):
            for group in optimizer.param_groups:
                group["lr"] = rate.at(epoch + step / batches.steps)
            yield normalised(x.contiguous(), pictures.mean, pictures.std), y

    for epoch in range(plan.epochs):
        reference_epoch(network, optimizer, shown(epoch))
    network.eval()
    assert isinstance(pictures.test, sets.Arrays)
    x, y = torch.from_numpy(pictures.test.images), torch.from_numpy(pictures.test.labels)
    with torch.inference_mode():
        parts = (network(normalised(part, pictures.mean, pictures.std)).argmax(1) for part in torch.split(x, BATCH))
        return float((torch.cat(list(parts)) != y).double().mean())


def one_by_one(run: Callable[[Trial], float], trials: Sequence[Trial]) -> list[float]:
    torch.set_num_threads(2)
    return [run(trial) for trial in trials]


def swept(trials: Sequence[Trial], precision: Precision, engine: Engine = Local(2)) -> list[float]:  # noqa: B008
    own = [replace(trial, precision=precision) for trial in trials]
    todo = [Claimed(key_of(trial_definition(trial)), trial, trial_definition) for trial in own]
    with tempfile.TemporaryDirectory() as folder:
        kept = TrialStore(Path(folder))
        ended: list[Any] = [result for _, result in carried_out(engine, kept, run_trial, todo, {})]
    return [result.top1_err for result in ended]


def ours(trial: Trial) -> float:
    return run_trial(replace(trial, threads=2)).top1_err


def against_loops(name: str, trials: Sequence[Trial], rounds: int) -> None:
    compared(
        name,
        {
            "sweep, fp32": lambda: swept(trials, "fp32"),
            "sweep, bf16": lambda: swept(trials, "bf16"),
            "reference's loop": lambda: one_by_one(plain, trials),
            "our loop": lambda: one_by_one(ours, trials),
        },
        rounds,
    )


def against_ray(trials: Sequence[Trial], rounds: int) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    swept(trials[:12], "fp32", RayCluster())  # its processes import torch
    compared(
        "Ray",
        {"sweep, local": lambda: swept(trials, "fp32"), "ray": lambda: swept(trials, "fp32", RayCluster())},
        rounds,
    )
    ray.shutdown()


def compared(name: str, sides: Mapping[str, Callable[[], list[float]]], rounds: int) -> None:
    """Every side in turns; the others over each sweep."""
    seconds: dict[str, list[Taken]] = {side: [] for side in sides}
    errors: dict[str, list[float]] = {}

    def carry_out(side: str) -> None:
        errors[side] = sides[side]()

    for turn in range(rounds):
        for side in sides if turn % 2 else [*sides][::-1]:
            seconds[side].append(taken(partial(carry_out, side)))
    print(f"{name}: {rounds} rounds, load {os.getloadavg()[0]:.1f}")  # noqa: T201
    for side in sides:
        clock, cpu = (statistics.median(each) for each in zip(*seconds[side]))
        error = 100 * statistics.mean(errors[side])
        print(f"  {side:18} {clock:6.1f} s by the clock, {cpu:6.1f} s CPU   error {error:.2f} %")  # noqa: T201
    for sweep in (side for side in sides if side.startswith("sweep")):
        for other in (side for side in sides if not side.startswith("sweep")):
            print(f"  {other} / {sweep}: {ratios(seconds[other], seconds[sweep])}", flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["8", "32", "ray"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    if "8" in asked.parts:
        against_loops("8 px", planned(recipe("digits"), "digits", None, asked.seeds), asked.rounds)
    if "32" in asked.parts:
        from tests.test_data import cifar

        with tempfile.TemporaryDirectory() as folder:
            root = cifar(Path(folder), per_file=256).parent
            plan = replace(recipe("cifar").lasting(2), batch_size=128)
            against_loops("32 px", planned(plan, "cifar10", root, asked.seeds), asked.rounds)
    if "ray" in asked.parts:
        against_ray(planned(recipe("digits"), "digits", None, asked.seeds), asked.rounds)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
