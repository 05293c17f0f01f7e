"""A trial: one training run of one arm of a comparison, arms paired by seed so that their difference has an interval.

It is a pure function of its `Trial` on a machine: it can be run in any process and order.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import structs
from torch import nn

from senet_bench.bench.device import card_of, present
from senet_bench.bench.machine import on_threads
from senet_bench.core.files import write_atomically
from senet_bench.core.learning import NOTES_APART, Moment, TrialResult
from senet_bench.core.progress import Progress, Steps, result_of, retold
from senet_bench.core.trial import Trial
from senet_bench.data import sets
from senet_bench.errors import BenchError
from senet_bench.training.checkpoint import UnfitCheckpointError
from senet_bench.training.distributed import World, own
from senet_bench.training.evaluation import Predictions, Viewing, predict
from senet_bench.training.loop import train
from senet_bench.training.objective import Settings
from senet_bench.training.ranks import Ranks, together
from senet_bench.training.start import Start, start_of_training
from senet_bench.training.weights import save

logger = logging.getLogger(__name__)
TOLD_EVERY_S = 1.0
LOGGED_EVERY_S = 30.0
CHECKPOINT_S = 60.0
"""Seconds of training that the end of a process costs at most."""


def run_trial(trial: Trial, device: str | None = None) -> TrialResult:
    """Train and test one trial, on a worker's own `device` where it has one; the same whatever ran before.

    Several processes train it together where it has so many; `device` then names a GPU for each: cuda:0,cuda:1.
    """
    if trial.processes > 1:
        return together(trained_result, trial, Ranks(trial.processes, trial.device, device))
    return trained_result(trial if device is None else replace(trial, device=device))


def trained_result(trial: Trial, world: World | None = None) -> TrialResult:
    """Train and test one trial as a process of the world."""
    world = world or World()
    return trained(replace(trial, device=own(trial.device, world)), world)[1]


def _facts(trial: Trial, images: sets.DataSet) -> dict[str, Any]:
    """What weights say of the trial that they are of."""
    how = {name: getattr(trial.recipe, name) for name in ("epochs", "lr", "batch_size")}
    about = {"dataset": trial.dataset, "recipe": trial.recipe.name, "seed": trial.seed, "precision": trial.precision}
    key = trial.checkpoint.stem if trial.checkpoint else None
    return {**how, **about, "normalisation": images.normalisation, "key": key}


def trained(trial: Trial, world: World | None = None) -> tuple[nn.Module, TrialResult]:
    """The trained network of a trial and its result; the first process keeps the weights where they are wanted.

    The seed draws the labelled images of `digits`, the order, and the initial weights, which are the same in every
    arm for the layers that the arms share.
    """
    with on_threads(trial.threads):
        return _trained(trial, world or World())


def _trained(trial: Trial, world: World) -> tuple[nn.Module, TrialResult]:
    present(trial.device).use(torch.device(trial.device).index or 0)
    started, cpu = time.perf_counter(), time.process_time()
    resumed = trial.checkpoint is not None and trial.checkpoint.is_file()
    place = trial.checkpoint.with_suffix(".progress") if trial.checkpoint and world.is_main else None
    try:
        begun, note = _learnt(trial, world, place)
        images, network = begun.images, begun.network
        viewing = Viewing(size=images.size, batch=256, precision=trial.precision, device=trial.device)
        _tell(place, Moment(what="being tested", done=1.0))
        seen = predict(network, images, images.test, viewing, world)
    finally:
        if place is not None:
            place.unlink(missing_ok=True)
    result = _result(trial, images, seen)
    if note or not resumed:  # from the beginning: else the time is of the rest alone
        took = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
        result = structs.replace(result, **took)
    note = NOTES_APART.join(filter(None, (*begun.notes, note)))
    if trial.weights is not None and world.is_main:
        save(network, trial.weights, trial.spec, **_facts(trial, images))
    return network, structs.replace(result, note=note) if note else result


def _learnt(trial: Trial, world: World, place: Path | None) -> tuple[Start, str]:
    """The images and the trained network of a trial, and what is said where its checkpoint was of no use.

    How far it is, is told in the file at `place`.
    """
    kept = trial.checkpoint
    settings = Settings(
        seed=trial.seed,
        device=trial.device,
        precision=trial.precision,
        evaluate_every=0,
        checkpoint=kept,
        checkpoint_seconds=CHECKPOINT_S,
        checkpoint_epochs=False,
        resume=kept is not None,
        blocks_first=trial.blocks_first,
        identity={"trial": kept.stem} if kept is not None else {},
    )
    begun = start(trial)
    try:
        _followed(train(begun.network, begun.images, trial.recipe, settings, world), trial, place)
    except UnfitCheckpointError as error:
        begun, anew = start(trial), replace(settings, resume=False)
        _followed(train(begun.network, begun.images, trial.recipe, anew, world), trial, place)
        return begun, f"trained from its beginning: {error.problem}"
    return begun, ""


def _followed(steps: Steps[Any], trial: Trial, place: Path | None) -> None:
    """Carry the steps out; a file at `place` tells about every second how far they are, a log seldom."""
    began, first, last, logged = time.perf_counter(), None, 0.0, 0.0

    def tell(moment: Progress) -> Progress:
        nonlocal first, last, logged
        now = time.perf_counter()
        if place is not None and now - logged >= LOGGED_EVERY_S:
            logged = now
            logger.info("%s seed %d: %s", trial.spec.name, trial.seed, moment.what)
        first = moment.done if first is None else first
        if place is not None and now - last >= TOLD_EVERY_S:
            last = now
            share = moment.done - first
            left = (now - began) * (moment.total - moment.done) / share if share > 0 else None
            _tell(place, Moment(what=moment.what, done=moment.done / moment.total, seconds_left=left))
        return moment

    result_of(retold(steps, tell))


def _tell(place: Path | None, moment: Moment) -> None:
    """Write how far a trial is; where that cannot be written nobody is told."""
    if place is not None:
        with contextlib.suppress(OSError, BenchError):
            write_atomically(place, msgspec.json.encode(moment))


def start(trial: Trial) -> Start:
    """The images of a trial and its network as it starts."""
    images = sets.load_images(trial.dataset, trial.folder, draw=trial.seed).seen_at(trial.spec.input_size[1])
    return start_of_training(trial.spec, images, trial.seed, trial.pretrained)


def _result(trial: Trial, images: sets.DataSet, seen: Predictions) -> TrialResult:
    return TrialResult(
        arm=trial.arm,
        model=trial.spec.name,
        attention=trial.spec.attention,
        dataset=images.name,
        recipe=trial.recipe.name,
        lr=trial.recipe.lr,
        epochs=trial.recipe.epochs,
        seed=trial.seed,
        precision=trial.precision,
        images=len(seen),
        top1_err=seen.top1_err,
        top5_err=seen.top5_err,
        test_loss=seen.loss,
        processes=trial.processes,
        **trained_place(trial.device),
    )


def trained_place(device: str) -> dict[str, Any]:
    """What a result says of where it was trained."""
    return {"device": device, "hardware": card_of(device), "torch": str(torch.__version__)}
