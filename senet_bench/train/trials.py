"""A trial: one training run of one arm of a comparison, arms paired by seed so that their difference has an interval.

It is a pure function of its `Trial` on a machine: it can be run in any process and order, and in any company of those
that are trained as it is.
"""

from __future__ import annotations

import functools
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from senet_bench.core.recipes import Recipe
from senet_bench.core.specs import ModelSpec, Precision
from senet_bench.data import sets
from senet_bench.models import build_spec, initialise, initialised
from senet_bench.train.evaluation import Predictions, Viewing, predict
from senet_bench.train.events import Settings
from senet_bench.train.loop import train
from senet_bench.train.side_by_side import joined, separable, separate

SMALL, LIGHT = 16, 2_000_000
"""Pixels of a side and parameters up to which side by side is faster: at 8 px ResNet-20 is 1.3 times as fast,
ResNet-110 1.1 times, ResNet-18 slower; at 32 px ResNet-20 is slower too."""


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
class Company:
    """Trials of one arm that differ in their seeds, trained one after another or side by side."""

    trials: tuple[Trial, ...]
    side_by_side: bool = False


def beside(trial: Trial) -> bool:
    """Whether a trial is trained side by side with others, or with itself: small images, a small network that can be.

    A schedule that follows the test loss is each network's own. The answer is the same for every seed of an arm.
    """
    if trial.spec.params > LIGHT or trial.recipe.schedule.kind == "plateau" or trial.threads > 1:
        return False
    classes, channels, size, count = _shape(trial.dataset, trial.folder)
    if size > SMALL:
        return False
    return separable(trial.spec, classes, channels, size, min(trial.recipe.batch_size, count), trial.precision)


@functools.cache
def _shape(dataset: str, folder: str | None) -> tuple[int, int, int, int]:
    """Classes, colour channels, side in pixels and training images of a data set, read once for all arms."""
    images = sets.load(dataset, folder)
    return len(images.classes), images.channels, images.size, len(images.training())


def run_company(company: Company) -> list[dict[str, Any]]:
    """Train and test a company; plain values, each trial's the same whatever ran before.

    Side by side they are the same in every company, alone or not; one after another they are others, up to rounding.
    """
    return [result for _, result in trained_in(company)]


def trained(trial: Trial) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network of a trial and its result."""
    return trained_in(Company((trial,), beside(trial)))[0]


def trained_in(company: Company) -> list[tuple[nn.Module, dict[str, Any]]]:
    """The trained networks of a company and their results.

    The seed draws the labelled images of `digits`, the order, and the initial weights, which are the same in every
    arm for the layers that the arms share. Seconds are those of the company, in equal parts.
    """
    torch.set_num_threads(company.trials[0].threads)
    started, cpu = time.perf_counter(), time.process_time()
    starts = [(trial, *start(trial)) for trial in company.trials]
    if company.side_by_side:
        trials, images, networks = zip(*(starts * 2 if len(starts) == 1 else starts))
        whole, both = together(trials, images, networks)
        _train(whole, both, trials[0])
        separate(whole, networks)
    else:
        for trial, shown, network in starts:
            _train(network, shown, trial)
    tested = [(trial, shown, network, _test(network, shown, trial)) for trial, shown, network in starts]
    spent = {
        "seconds": (time.perf_counter() - started) / len(tested),
        "cpu_seconds": (time.process_time() - cpu) / len(tested),
    }
    return [(network, _result(trial, shown, seen) | spent) for trial, shown, network, seen in tested]


def together(
    trials: Sequence[Trial], images: Sequence[sets.DataSet], networks: Sequence[nn.Module]
) -> tuple[nn.Module, sets.SideBySide]:
    """The networks of several trials as one, and their images as that takes them."""
    return joined(networks), sets.SideBySide(tuple(images), tuple(trial.seed for trial in trials))


def start(trial: Trial) -> tuple[sets.DataSet, nn.Module]:
    """The images of a trial and its network as it starts."""
    images = sets.load(trial.dataset, trial.folder, draw=trial.seed)
    torch.manual_seed(trial.seed)  # for what starts by its own rule: blocks from outside, one-dimensional convolutions
    network = build_spec(trial.spec, len(images.classes), in_channels=images.channels)
    initialise_by_name(network, trial.seed)
    return images, network


def _train(network: nn.Module, images: sets.DataSet | sets.SideBySide, trial: Trial) -> None:
    for _ in train(
        network, images, trial.recipe, Settings(seed=trial.seed, precision=trial.precision, evaluate_every=0)
    ):
        pass


def _test(network: nn.Module, images: sets.DataSet, trial: Trial) -> Predictions:
    return predict(network, images, images.test, Viewing(size=images.size, batch=256, precision=trial.precision))


def _result(trial: Trial, images: sets.DataSet, seen: Predictions) -> dict[str, Any]:
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
        "test_loss": seen.loss,
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
