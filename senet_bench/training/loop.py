"""The training loop: a generator of its progress that returns a row for each epoch.

The network is trained in place. A run interrupted at any moment goes on from its checkpoint with the same bits
(on a CPU): order and augmentation are functions of (seed, epoch, step), everything else is in the checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from senet_bench.bench.device import device_of
from senet_bench.bench.machine import arithmetic
from senet_bench.bench.process import tune_allocator
from senet_bench.core.foreign import contained
from senet_bench.core.learning import EpochRow
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.recipes import Recipe
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.training import checkpoint
from senet_bench.training.blocks_first import Learners
from senet_bench.training.distributed import (
    World,
    gathered,
    share_buffers,
    summed,
    watching,
    with_global_batchnorm,
    wrapped,
)
from senet_bench.training.objective import Aim, Classifying, Objective, Settings, Tested
from senet_bench.training.optimisation import Average, LearningRate, Sgd, autocast, compiled


def train(
    network: nn.Module,
    data: Any,
    recipe: Recipe,
    settings: Settings | None = None,
    world: World | None = None,
    task: Aim = Classifying,
    ended: Callable[[EpochRow], None] = lambda row: None,
) -> Steps[list[EpochRow]]:
    """Train the network in place: progress about once a second and after every epoch, and a row for each epoch.

    `ended` is handed the row of an epoch as soon as that is over. Afterwards the network holds the final weights (the
    average where `ema` is on). The loss of another process of the job is a `MeasurementError`; so is a loss that is
    no number.
    """
    settings, world = settings or Settings(), world or World()
    with watching(world, settings.checkpoint), arithmetic(settings.precision == "tf32"):
        run = _Run(network, task(data, recipe, settings, world), recipe, settings, world)
        return (yield from run.epochs(ended))


AGREED_EVERY = 50
"""Steps after which several processes agree on whether it is time for a checkpoint."""


class _Run:
    """One training run: its network, optimizer, schedule and where it stands."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        recipe: Recipe,
        settings: Settings,
        world: World,
    ) -> None:
        tune_allocator()  # else each step pages its activations in anew
        self.recipe, self.settings, self.world = recipe, settings, world
        self.device = torch.device(settings.device)
        autocast(self.device, settings.precision)
        self.network = network.to(self.device)
        if settings.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        if settings.sync_batchnorm:
            self.network = with_global_batchnorm(self.network, world, self.device)
        self.optimizer = Sgd(
            self.network.parameters(), recipe.lr, recipe.momentum, recipe.weight_decay, recipe.nesterov
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.rate = LearningRate(recipe)
        self.average = Average(self.network, settings.ema) if settings.ema is not None else None
        self.objective = objective
        self.batches = self.objective.batches
        self._check_parts()
        self.epoch, self.step, self.saved = 0, 0, time.perf_counter()
        self.loss_sum = torch.zeros((), dtype=device_of(self.device).accumulation, device=self.device)
        torch.manual_seed(settings.seed + 7919 * world.rank)
        self._restore()
        self.learners = Learners.of(self.network) if settings.blocks_first else None
        self._choose_learners()

    def _choose_learners(self) -> None:
        """Let attention blocks alone be trained, or everything, as the epoch has it."""
        if self.learners is not None:
            self.learners.choose(blocks_alone=self._blocks_alone())
        self.model = wrapped(self.network, self.world, self.device)
        self.forward: Any = compiled(self.model) if self.settings.compile else self.model

    def _blocks_alone(self) -> bool:
        return self.learners is not None and self.epoch < self.settings.blocks_first

    def _check_parts(self) -> None:
        if self.batches.batch % (self.world.size * self.settings.accumulate):
            raise UsageError(
                f"a batch of {self.batches.batch} cannot be cut into {self.settings.accumulate} equal parts",
                "choose another --accumulate or --batch-size",
            )

    def epochs(self, ended: Callable[[EpochRow], None]) -> Steps[list[EpochRow]]:
        rows = []
        while self.epoch < self.recipe.epochs and not self.rate.finished:
            started, steps_before = time.perf_counter(), self.step
            yield from self._train_epoch(started)
            seconds = time.perf_counter() - started
            row = self._row(seconds, (self.batches.steps - steps_before) * self.batches.batch)
            self.epoch, self.step = self.epoch + 1, 0
            self.loss_sum.zero_()
            if self.learners is not None and self.epoch == self.settings.blocks_first:
                self._choose_learners()
            if self.settings.checkpoint_epochs or self._is_time():
                self._save()
            rows.append(row)
            ended(row)
            yield Progress(f"epoch {row.epoch}/{row.epochs}", row.epoch, row.epochs)
        if self.average is not None:
            self.average.copy_to(self.network)
        return rows

    def _train_epoch(self, started: float) -> Steps[None]:
        self.network.train()
        if self.epoch >= self.recipe.epochs - self.recipe.frozen_bn:
            share_buffers(self.network, self.world)
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        if self.learners is not None and self._blocks_alone():
            self.learners.keep_statistics()
        shown, first = started, self.step
        name = type(self.network).__name__
        for batch in self.batches.epoch(self.epoch, self.step):
            with contained(name, draws=True), watching(self.world, self.settings.checkpoint):
                self._one_step(batch)
            self.step += 1
            every = self.settings.checkpoint_every
            if self.step < self.batches.steps and ((every and self.step % every == 0) or self._is_time()):
                self._save()
            now = time.perf_counter()
            if now - shown >= self.settings.progress_every:
                shown = now
                yield self._progress(now - started, self.step - first)

    def _one_step(self, batch: Any) -> None:
        parts = self.objective.parts(batch, self.settings.accumulate)
        if not parts:
            raise MeasurementError("not one image of a training batch could be read", "check the files")
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.at(self.epoch + self.step / self.batches.steps)
        for index, part in enumerate(parts):
            with ExitStack() as stack:
                if self.world.distributed and index + 1 < len(parts):
                    stack.enter_context(self.model.no_sync())  # type: ignore[operator]
                loss = self.objective.loss(self.forward, part, batch)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.loss_sum += loss.detach().to(self.loss_sum.dtype)
        self.scaler.step(self.optimizer)  # type: ignore[arg-type]
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.network)

    def _progress(self, seconds: float, steps: int) -> Progress:
        """Where the training stands, with the mean loss of the epoch so far."""
        loss, rate = float(self.loss_sum) / max(1, self.step), self.batches.batch * steps / seconds
        what = f"epoch {self.epoch + 1}/{self.recipe.epochs}, loss {loss:.3f}, {rate:.0f} images/s"
        return Progress(what, self.epoch + self.step / self.batches.steps, self.recipe.epochs)

    def _row(self, seconds: float, images: int) -> EpochRow:
        loss = float(summed(self.loss_sum.clone(), self.world)) / (self.world.size * self.batches.steps)
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise MeasurementError(
                f"the loss is {loss} in epoch {self.epoch + 1}", "use a smaller learning rate, or fp32"
            )
        tested: Tested = self._tested() if self._evaluates() else {}
        row = EpochRow(
            epoch=self.epoch + 1,
            epochs=self.recipe.epochs,
            train_loss=loss,
            lr=float(self.optimizer.param_groups[0]["lr"]),
            images_per_second=images / max(seconds, 1e-9),
            seconds=seconds,
            seconds_left=seconds * (self.recipe.epochs - self.epoch - 1),
            skipped=len(set().union(*gathered(self.objective.unread, self.world))),
            **tested,
        )
        if row.test_loss is not None:
            self.rate.epoch_ended(row.test_loss)
        return row

    def _evaluates(self) -> bool:
        """Whether this epoch ends with a look at the test split."""
        every, done = self.settings.evaluate_every, self.epoch + 1
        if self.recipe.schedule.kind == "plateau":
            return True
        return every > 0 and (done == self.recipe.epochs or done % every == 0)

    def _tested(self) -> Tested:
        """The network, or the average of its weights where that is kept, on the test split."""
        before = self.average.copy_to(self.network) if self.average is not None else None
        tested = self.objective.tested(self.network)
        if before is not None:
            self.network.load_state_dict(before)
        return tested

    def _identity(self) -> dict[str, Any]:
        """What must agree for a checkpoint to be continued; a tuple becomes a list, as it does in a file."""
        settings = self.settings
        known = {
            "recipe": self.recipe.as_dict(),
            "data": self.objective.identity(),
            "seed": settings.seed,
            "precision": settings.precision,
            "ema": settings.ema,
            **({"blocks_first": settings.blocks_first} if settings.blocks_first else {}),
            **settings.identity,
        }
        plain: dict[str, Any] = json.loads(json.dumps(known, default=str))
        return plain

    def _is_time(self) -> bool:
        """Whether the last checkpoint is old enough; of several processes the first decides, now and then."""
        seconds = self.settings.checkpoint_seconds
        if seconds is None or self.settings.checkpoint is None:
            return False
        if self.world.distributed and self.step % AGREED_EVERY:
            return False
        return bool(gathered(time.perf_counter() - self.saved >= seconds, self.world)[0])

    def _save(self) -> None:
        if self.settings.checkpoint is None:
            return
        randoms = gathered(checkpoint.random_state(), self.world)
        if not self.world.is_main:
            return
        content = {
            "identity": self._identity(),
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.rate.state(),
            "scaler": self.scaler.state_dict(),
            "random": randoms,
            "position": {"epoch": self.epoch, "step": self.step, "loss_sum": float(self.loss_sum)},
            "ema": self.average.values if self.average is not None else {},
        }
        checkpoint.write_checkpoint(self.settings.checkpoint, content)
        self.saved = time.perf_counter()

    def _restore(self) -> None:
        path = self.settings.checkpoint
        if path is None or not self.settings.resume or not path.is_file():
            return
        content = checkpoint.read_checkpoint(path, self._identity())
        self.network.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.rate.restore(content["schedule"])
        self.scaler.load_state_dict(content["scaler"])
        if self.average is not None:
            self.average.values = {name: value.to(self.device) for name, value in content["ema"].items()}
        position = content["position"]
        self.epoch, self.step = position["epoch"], position["step"]
        self.loss_sum.fill_(position["loss_sum"])
        if len(content["random"]) == self.world.size:
            checkpoint.restore_random_state(content["random"][self.world.rank])
