"""Stochastic gradient descent with momentum, the paper's optimizer (section 5.1).

The steps are those of `torch.optim.SGD`, whose first call imports torch's compiler: 3 CPU seconds in each process,
more than a whole trial on the digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


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
