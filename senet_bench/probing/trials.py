"""A trial of the probe: one network trained on one task's images from one seed, and its error on others of them."""

from __future__ import annotations

import functools
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.bench.device import present
from senet_bench.bench.machine import on_threads
from senet_bench.core.foreign import contained
from senet_bench.core.identity import Data, Identity, NetworkIdentity
from senet_bench.core.learning import TrialResult
from senet_bench.core.specs import ModelSpec
from senet_bench.errors import MeasurementError
from senet_bench.models import build_spec
from senet_bench.probing.network import in_cells, keep_as_drawn
from senet_bench.probing.tasks import CELL, IMAGE_SIDE, TASKS, ProbeTask
from senet_bench.training.start import initialise_by_name
from senet_bench.training.trials import trained_place

CLASSES = 2
PROBE_REVISION = 2
"""Of the probe's network and training: raised by a change after which a trial ends in other numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLesson:
    """How every network is trained: AdamW, its rate raised over `warmup` steps, then lowered to 0 in a line."""

    steps: int = 60
    batch: int = 128
    lr: float = 0.02
    warmup: int = 10
    weight_decay: float = 0.01
    tested: int = 2000


LESSON = TaskLesson()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTrial:
    """One network, one task at one difficulty, one seed; `arm` says whose it is, `device` where it is trained."""

    arm: str
    spec: ModelSpec
    task: str
    difficulty: float
    seed: int
    device: str = "cpu"


def probe_definition(trial: ProbeTrial) -> dict[str, Any]:
    """What decides a trial's result, and so its key. Imports the block of a user."""
    task = TASKS[trial.task]
    data = Data(
        name=f"probe:{task.name}",
        size=IMAGE_SIDE,
        channels=0,
        classes=CLASSES,
        train=LESSON.steps * LESSON.batch,
        test=LESSON.tested,
        labels=f"revision {task.revision}",
        images=f"{trial.difficulty:g}",
    )
    recipe = {name: value for name, value in asdict(LESSON).items() if name not in ("batch", "tested")}
    recipe |= {"drawn": True} if task.drawn else {}
    network = NetworkIdentity.of(trial.spec)
    return Identity(
        network=network, data=data, recipe=recipe, batch=LESSON.batch, seed=trial.seed, revision=PROBE_REVISION
    ).as_dict()


@functools.lru_cache(maxsize=2)
def _images(task: ProbeTask, seed: int, difficulty: float) -> tuple[Tensor, Tensor]:
    """The images, in cells, and labels of a seed, those to train on first; the arms of a seed have the same."""
    images, labels = task.images(seed, LESSON.steps * LESSON.batch + LESSON.tested, difficulty)
    return in_cells(torch.from_numpy(images)), torch.from_numpy(labels)


def trial_start(trial: ProbeTrial, channels: int) -> nn.Module:
    """The network of a trial as it starts: what the arms of a seed share starts out equal, and may stay as it is."""
    torch.manual_seed(trial.seed)
    network = build_spec(trial.spec, CLASSES, in_channels=channels)
    initialise_by_name(network, trial.seed)
    if TASKS[trial.task].drawn:
        keep_as_drawn(network)
    return network


def run_probe_trial(trial: ProbeTrial, device: str | None = None) -> TrialResult:
    """Train and test one trial, on a worker's own `device` where it has one.

    Raises `MeasurementError` where a user's block fails, gives another shape, or what is no number.
    """
    with on_threads(1):
        return _result(trial if device is None else replace(trial, device=device))


def _result(trial: ProbeTrial) -> TrialResult:
    present(trial.device).use(torch.device(trial.device).index or 0)
    images, labels = (part.to(trial.device) for part in _images(TASKS[trial.task], trial.seed, trial.difficulty))
    started, cpu = time.perf_counter(), time.process_time()
    attention = trial.spec.attention
    with contained(f"attention block {attention.block!r}" if attention else trial.spec.name, draws=True):
        network = trial_start(trial, images.shape[2] // CELL**2).to(trial.device)
        _train(network, images, labels)
        error, loss = _tested(network, images[-LESSON.tested :], labels[-LESSON.tested :])
    return TrialResult(
        arm=trial.arm,
        model=trial.spec.name,
        attention=attention,
        dataset=f"probe:{trial.task}",
        lr=LESSON.lr,
        seed=trial.seed,
        precision="fp32",
        images=LESSON.tested,
        top1_err=error,
        test_loss=loss,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        **trained_place(trial.device),
    )


def _train(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """One pass over the images to train on, none of which is seen twice."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=LESSON.lr, weight_decay=LESSON.weight_decay, fused=True)
    for step in range(LESSON.steps):
        optimiser.param_groups[0]["lr"] = LESSON.lr * min(1, (step + 1) / LESSON.warmup) * (1 - step / LESSON.steps)
        batch = slice(step * LESSON.batch, (step + 1) * LESSON.batch)
        optimiser.zero_grad()
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        if not torch.isfinite(loss):
            raise MeasurementError(f"its loss is no number at step {step + 1}", "see what the block does to its map")
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _tested(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """The error and the loss on images that were not trained on."""
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(part) for part in torch.split(images, LESSON.batch)])
        loss = float(F.cross_entropy(logits, labels))
    if not torch.isfinite(logits).all():
        raise MeasurementError("it gives what is no number on the images of the test", "see what the block does")
    return float((logits.argmax(1) != labels).double().mean()), loss
