"""A network as it is: what every way to run it is held against, and what is kept of that."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from senet_bench.bench.agreement import AS_FAR, FARTHEST, SLACK, UNTOLD, array, calibrated, distance, judge_output
from senet_bench.bench.clock import Fault
from senet_bench.bench.count import steady
from senet_bench.bench.machine import arithmetic
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
            with arithmetic(tf32=False):
                self._calibrated = calibrated(self.network, images)
        return self._calibrated

    def kept(self, what: object, images: Tensor, give: Callable[[Tensor], Output]) -> Output:
        """What is given for these images in IEEE arithmetic, by name; given anew where it has not been lately."""
        key = what, images.device, hashlib.sha256(array(images).tobytes()).digest()
        if key not in self._kept:
            with arithmetic(tf32=False):
                output = give(images)
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = output
        kept: Output = self._kept[key]
        return kept

    def fault(self, output: object, images: Tensor, allowed: float, dtype: torch.dtype | None = None) -> Fault | None:
        """What is wrong with an output for these images in a precision, None for single, where the network infers.

        Where the network's single precision is far from double (a deep one with random weights), another order of the
        same sums gives another output; there that of a copy which has answered other images stands for the output. So
        it does where three times the distance of an untouched copy from double, in the precision of this output, is too
        far to be judged by: it can be 0.04 for one image and 0.6 for the next (SE-MobileNet in bf16).
        """
        given, own, most = array(output), self.own(images), min(SLACK * allowed, FARTHEST)
        if given.shape == own.shape and distance(given, own) <= most:
            return None
        again, exact, rough = self.again(images), self.exact(images), self.rough(images, dtype)
        copies = [one for one in (given, again, exact, rough) if one is not None]
        if any(one.shape != own.shape for one in copies):  # one of them is of other images
            return "stale"
        if distance(again, own) > allowed:
            return "random"
        far = rough is not None and AS_FAR * distance(rough, own if exact is None else exact) > most
        if far or (exact is not None and distance(own, exact) > UNTOLD):
            kept = self.repeated(images)
            return "stale" if kept is not None and distance(kept, own) > allowed else None
        allowed, difference = judge_output(given, own, exact, allowed)
        return None if difference <= min(SLACK * allowed, FARTHEST) else "stale"

    def fault_beside(self, output: object, other: object, images: Tensor, allowed: float) -> Fault | None:
        """The same where a runtime is far from single precision, as INT8 is, for images unlike its calibration's too.

        There its output is held against that of another copy of what runs, and the network is seen by itself.
        """
        own, again, kept = self.own(images), self.again(images), self.repeated(images)
        given, beside = array(output), array(other)
        if again.shape != own.shape or given.shape != beside.shape:
            return "stale"
        if distance(again, own) > allowed:
            return "random"
        keeps = kept is not None and distance(kept, own) > allowed
        return "stale" if keeps or distance(given, beside) > SLACK * allowed else None

    def own(self, images: Tensor) -> Floats:
        """What an untouched copy gives in single precision."""
        return self.kept("own", images, functools.partial(honest_output, self.calibrated(images)))

    def again(self, images: Tensor) -> Floats:
        """What another untouched copy gives: the same, unless the network is random."""
        return self.kept("again", images, functools.partial(honest_output, self.calibrated(images)))

    def exact(self, images: Tensor) -> Floats | None:
        """What one gives in double precision, None where it cannot."""
        return self.kept("exact", images, functools.partial(honest_exactly, self.calibrated(images)))

    def rough(self, images: Tensor, dtype: torch.dtype | None) -> Floats | None:
        """What one gives in a reduced precision, None for single."""
        if dtype is None:
            return None
        network = self.calibrated(images)
        return self.kept(dtype, images, lambda images: honest_output(network, images.to(dtype)))

    def repeated(self, images: Tensor) -> Floats | None:
        """What a copy gives that has answered other images, None where it cannot keep anything of them."""
        with arithmetic(tf32=False):
            return repeated_output(self.calibrated(images), images)
