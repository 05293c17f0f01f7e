"""Training attention blocks alone, in a network that is trained already, before everything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import nn

from senet_bench.models import attention_blocks


@dataclass(frozen=True, slots=True, eq=False)
class Learners:
    """The parameters of a network outside its attention blocks that learn, and the modules there."""

    others: tuple[nn.Parameter, ...]
    modules: tuple[nn.Module, ...]

    @classmethod
    def of(cls, network: nn.Module) -> Self | None:
        """Those of a network; None where no attention block has a parameter that could be trained first."""
        blocks = attention_blocks(network).values()
        inside = {id(part) for block in blocks for part in block.modules()}
        own = {id(parameter) for block in blocks for parameter in block.parameters() if parameter.requires_grad}
        if not own:
            return None
        learning = (parameter for parameter in network.parameters() if parameter.requires_grad)
        return cls(
            others=tuple(parameter for parameter in learning if id(parameter) not in own),
            modules=tuple(module for module in network.modules() if id(module) not in inside),
        )

    def choose(self, *, blocks_alone: bool) -> None:
        """Let the blocks alone learn, or everything."""
        for parameter in self.others:
            parameter.requires_grad_(not blocks_alone)

    def keep_statistics(self) -> None:
        """Keep what BatchNorm outside the blocks has seen, and use it: the network around them stays what it was."""
        for module in self.modules:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
