"""Training or evaluation, module by module: parts of a network may be in another mode than the whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[Sequence[nn.Module]]:
    """Put the network into evaluation and afterwards back into what each module was in; gives its modules."""
    modules = list(network.modules())
    modes = [module.training for module in modules]
    network.eval()
    try:
        yield modules
    finally:
        for module, training in zip(modules, modes):
            module.training = training


def take_modes(network: nn.Module, other: nn.Module) -> None:
    """Put each module into the mode of that of its name in another network, the others into that of the whole."""
    modes = {name: module.training for name, module in other.named_modules()}
    for name, module in network.named_modules():
        module.training = modes.get(name, other.training)
