"""A network as it is: what every way to run it is held against, and what is kept of that."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from senet_bench.bench.agreement import array, calibrated, fault_of
from senet_bench.bench.clock import Fault
from senet_bench.bench.count import steady
from senet_bench.bench.untouched import honest_exactly, honest_output, repeated_output
from senet_bench.core.statistics import Floats

MOST_KEPT = 32
Output = TypeVar("Output")


class Reference:
    """A network that is timed, in one or several runtimes; each draws the same images, so what it gives is kept.

    `network` is not changed. Not for one that is changed between two measurements: make another then.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = steady(network)
        self._calibrated: nn.Module | None = None
        self._kept: dict[object, Any] = {}

    @classmethod
    def of(cls, network: nn.Module | Reference) -> Reference:
        """Itself, or one of a network."""
        return network if isinstance(network, Reference) else cls(network)

    def calibrated(self, images: Tensor) -> nn.Module:
        """The network, its BatchNorm statistics those of random images of this size where nothing has trained them."""
        if self._calibrated is None:
            self._calibrated = calibrated(self.network, images)
        return self._calibrated

    def kept(self, what: object, images: Tensor, give: Callable[[Tensor], Output]) -> Output:
        """What is given for these images, by name; given anew where it has not been lately."""
        key = what, images.device, hashlib.sha256(array(images).tobytes()).digest()
        if key not in self._kept:
            output = give(images)
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = output
        kept: Output = self._kept[key]
        return kept

    def fault(self, output: object, images: Tensor, allowed: float, dtype: torch.dtype | None = None) -> Fault | None:
        """What is wrong with an output in a precision, None for single, where the network infers: see `fault_of`."""
        network = self.calibrated(images)
        own = self.kept("own", images, functools.partial(honest_output, network))
        again = functools.partial(self.kept, "again", give=functools.partial(honest_output, network))
        exact = functools.partial(self.kept, "exact", give=functools.partial(honest_exactly, network))
        repeated = functools.partial(repeated_output, network)

        def rough(images: Tensor) -> Floats | None:
            return None if dtype is None else self.kept(dtype, images, lambda x: honest_output(network, x.to(dtype)))

        return fault_of(output, images, own, again, exact, repeated, rough, allowed)
