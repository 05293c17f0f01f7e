"""How weights change: the steps, their learning rate, their average, and the number formats of a step."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.bench.device import device_of
from senet_bench.core.recipes import Recipe
from senet_bench.core.specs import Precision
from senet_bench.errors import UsageError


class Sgd:
    """v = momentum v + (g + decay w), w = w - lr (v, or g + momentum v with `nesterov`), for parameters with gradients.

    `param_groups` holds the learning rate, as torch's gradient scaler and schedules expect it.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float, nesterov: bool
    ) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.param_groups: list[dict[str, Any]] = [{"params": self.parameters, "lr": lr}]
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """One step along the present gradients."""
        used = [(w, w.grad, v) for w, v in zip(self.parameters, self.velocity) if w.grad is not None]
        if not used:
            return
        weights: list[Tensor] = [weight for weight, _, _ in used]
        gradients, velocity = [gradient for _, gradient, _ in used], [v for _, _, v in used]
        change = torch._foreach_add(gradients, weights, alpha=self.weight_decay)
        torch._foreach_mul_(velocity, self.momentum)
        torch._foreach_add_(velocity, change)
        if self.nesterov:
            torch._foreach_add_(change, velocity, alpha=self.momentum)
        torch._foreach_add_(weights, change if self.nesterov else velocity, alpha=-self.param_groups[0]["lr"])

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"velocity": self.velocity, "lr": self.param_groups[0]["lr"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        for mine, kept in zip(self.velocity, state["velocity"], strict=True):
            mine.copy_(kept)
        self.param_groups[0]["lr"] = state["lr"]


@dataclass(slots=True)
class LearningRate:
    """The learning rate of a recipe as training goes on; `state` and `restore` for checkpoints."""

    recipe: Recipe
    best: float = math.inf
    stalled: int = 0
    drops: int = 0
    finished: bool = False

    def at(self, epoch: float) -> float:
        """Learning rate at a point of training, in epochs from 0, fractions within an epoch."""
        schedule, lr = self.recipe.schedule, self.recipe.lr
        if epoch < schedule.warmup:
            return lr * (epoch + 1e-3) / schedule.warmup
        if epoch < schedule.low:
            return lr * schedule.factor
        match schedule.kind:
            case "steps":
                return lr * schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
            case "plateau":
                return lr * schedule.factor**self.drops
            case "cosine":
                done = (epoch - schedule.warmup) / max(1e-9, self.recipe.epochs - schedule.warmup)
                return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def epoch_ended(self, validation_loss: float) -> None:
        """Note the validation loss of an epoch; a plateau lowers the rate, the last one ends training."""
        schedule = self.recipe.schedule
        if schedule.kind != "plateau":
            return
        if validation_loss < self.best:
            self.best, self.stalled = validation_loss, 0
            return
        self.stalled += 1
        if self.stalled >= schedule.patience:
            self.stalled = 0
            self.finished = self.drops >= schedule.drops
            self.drops = min(self.drops + 1, schedule.drops)

    def state(self) -> dict[str, float | int | bool]:
        """What a checkpoint keeps."""
        return {"best": self.best, "stalled": self.stalled, "drops": self.drops, "finished": self.finished}

    def restore(self, state: dict[str, float | int | bool]) -> None:
        """Continue from what a checkpoint kept."""
        self.best, self.stalled = float(state["best"]), int(state["stalled"])
        self.drops, self.finished = int(state["drops"]), bool(state["finished"])


class Average:
    """Averages the floating-point parameters and buffers of a network; integers are copied.

    After each step: average = decay x average + (1 - decay) x current.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's present weights."""
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value.detach(), 1 - self.decay)
            else:
                self.values[name].copy_(value)

    def copy_to(self, network: nn.Module) -> dict[str, Tensor]:
        """Put the average into the network; what was there before comes back."""
        before = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.values)
        return before


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """A context in which the network computes in `precision`; the weights stay float32."""
    if precision == "fp16" and not device_of(device).trains_in_half:
        raise UsageError("fp16 does not train on a CPU", "use --precision bf16")
    if precision in ("bf16", "fp16"):
        return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)
    return contextlib.nullcontext()


def laid_out(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """(N, C, H, W) on the device in the memory format that the network is run in."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if device_of(device).pins and images.device.type == "cpu":
        images = images.pin_memory()  # else the copy waits for the device
    return images.to(device, non_blocking=True).contiguous(memory_format=layout)


def compiled(network: nn.Module) -> Any:
    """The network behind `torch.compile`, with a cache folder of this process's own unless one is set.

    An empty file left in a shared cache would break every later compilation.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.mkdtemp(prefix="senet-bench-inductor-"))
    return torch.compile(network)
