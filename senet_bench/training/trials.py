"""Paired trials: several arms of one network trained with the same seeds, so that their difference has an interval.

A trial is a pure function of its `Trial`; it can be run in any process and order. On two cores two processes of
one thread each are fastest (performance.md). The constant gate is the control: what SE gains over it is owed to
attention, what it gains over the baseline is owed to halved branches alone.
"""

from __future__ import annotations

import multiprocessing
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from senet_bench import catalog
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.measure.clock import cores
from senet_bench.models import build_spec, initialise, initialised
from senet_bench.specs import AttentionSpec, ModelSpec, Precision
from senet_bench.training import data
from senet_bench.training.evaluation import Viewing, predict
from senet_bench.training.events import EpochEnd, Settings
from senet_bench.training.intervals import Paired, paired_seeds, sd
from senet_bench.training.loop import train
from senet_bench.training.recipes import Recipe

SEEDS = 8  # with three arms 24 trials of 2 CPU seconds each: half a minute on two free cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training run of one arm: everything its result depends on."""

    arm: str
    spec: ModelSpec
    recipe: Recipe
    seed: int
    dataset: str = "digits"
    folder: str | None = None
    precision: Precision = "fp32"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """An arm over its seeds: errors as fractions; `against` has the paired difference to each other arm."""

    arm: str
    mean: float
    sd: float
    errors: tuple[float, ...]
    seeds: tuple[int, ...]
    against: dict[str, Paired]


def arms(spec: ModelSpec, attention: AttentionSpec | None = None) -> dict[str, ModelSpec]:
    """Baseline, constant-gate control and attention of a network, by the names of the arms.

    `attention` replaces the network's own; the control sits at the same places.
    """
    base, variant = catalog.pair(spec)
    chosen = attention or spec.attention or variant.attention
    if chosen is None:
        raise UsageError(f"{spec.name} has no attention to compare", "give one with --attention")
    return {
        "baseline": base,
        "constant": replace(variant, attention=replace(chosen, block="constant")),
        "attention": replace(variant, attention=chosen),
    }


def trials(
    specs: dict[str, ModelSpec],
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    dataset: str = "digits",
    folder: str | None = None,
    precision: Precision = "fp32",
) -> list[Trial]:
    """Every arm with every seed, seed by seed, so that an interrupted sweep leaves whole pairs."""
    return [
        Trial(arm=arm, spec=spec, recipe=recipe, seed=seed, dataset=dataset, folder=folder, precision=precision)
        for seed in seeds
        for arm, spec in specs.items()
    ]


def run_trial(trial: Trial) -> dict[str, Any]:
    """Train and test one arm with one seed; plain values, the same whatever ran before in this process.

    The seed draws the labelled images of `digits`, the order, and the initial weights, which are the same in every
    arm for the layers that the arms share.
    """
    torch.set_num_threads(trial.threads)
    started, cpu = time.perf_counter(), time.process_time()
    images = data.load(trial.dataset, trial.folder, draw=trial.seed)
    torch.manual_seed(trial.seed)  # for what starts by its own rule: blocks from outside, one-dimensional convolutions
    network = build_spec(trial.spec, len(images.classes), in_channels=images.channels)
    initialise_by_name(network, trial.seed)
    settings = Settings(seed=trial.seed, precision=trial.precision, evaluate_every=0)
    ends = [event for event in train(network, images, trial.recipe, settings) if isinstance(event, EpochEnd)]
    viewing = Viewing(size=images.size, batch=256, precision=trial.precision)
    seen = predict(network, images, images.test, viewing)
    return {
        "arm": trial.arm,
        "model": trial.spec.name,
        "attention": asdict(trial.spec.attention) if trial.spec.attention else None,
        "dataset": images.name,
        "recipe": trial.recipe.name,
        "lr": trial.recipe.lr,
        "epochs": trial.recipe.epochs,
        "seed": trial.seed,
        "precision": trial.precision,
        "images": len(seen),
        "top1_err": seen.top1_err,
        "top5_err": seen.top5_err,
        "train_loss": ends[-1].train_loss,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
    }


def initialise_by_name(network: nn.Module, seed: int) -> None:
    """Initial weights that depend on the seed and each layer's name alone: what arms share starts out equal.

    Attention blocks from outside keep their own.
    """
    ours = set(initialised(network))
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module in ours:
            torch.manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
            initialise(module)


def run_trials(planned: Sequence[Trial], workers: int | None = None) -> Iterator[dict[str, Any]]:
    """The results of trials as they end, on `workers` processes (all cores unless given); one runs them here.

    A process that dies takes its unfinished trials along once; they are tried again in a fresh pool, and a second
    death is a `MeasurementError`.
    """
    workers = min(workers or cores(), max(1, len(planned)))
    if workers == 1:
        yield from map(run_trial, planned)
        return
    left = list(planned)
    for attempt in (1, 2):
        broken: list[Trial] = []
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            jobs = {pool.submit(run_trial, trial): trial for trial in left}
            try:
                yield from _ended(jobs, broken)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        if not broken:
            return
        left = broken
        if attempt == 2:
            raise MeasurementError(f"{len(broken)} trials were lost: their processes died", "use fewer workers")


def _ended(jobs: dict[Future[dict[str, Any]], Trial], broken: list[Trial]) -> Iterator[dict[str, Any]]:
    for job in as_completed(jobs):
        try:
            result = job.result()
        except BrokenProcessPool:
            broken.append(jobs[job])
            continue
        yield result


def summarise(results: Iterable[dict[str, Any]], confidence: float = 0.95) -> list[ArmSummary]:
    """Each arm's mean and sd over the seeds that every arm has, and its paired difference to the other arms.

    `against[other].difference` is this arm minus the other: negative where this arm errs less.
    """
    table: dict[str, dict[int, float]] = {}
    for result in results:
        table.setdefault(result["arm"], {})[result["seed"]] = result["top1_err"]
    if not table:
        return []
    seeds = tuple(sorted(set.intersection(*(set(errors) for errors in table.values()))))
    if not seeds:
        raise UsageError("no seed was run in every arm", "run the same seeds for all arms")
    errors = {arm: tuple(by_seed[seed] for seed in seeds) for arm, by_seed in table.items()}
    return [
        ArmSummary(
            arm,
            sum(values) / len(values),
            sd(values),
            values,
            seeds,
            {other: paired_seeds(errors[other], values, confidence) for other in errors if other != arm},
        )
        for arm, values in errors.items()
    ]
