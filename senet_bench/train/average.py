"""An exponential moving average of a network's weights and statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
