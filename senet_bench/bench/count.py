"""Parameters and FLOPs of a network, under the two conventions that reproduce the paper's cells.

`macs`: multiply-adds of convolutions and linear layers; an attention block adds those of its layers and one
operation per element of the map it recalibrates. `bn-inclusive`: `macs` plus one operation per BatchNorm output
element, per input element of max-pools and of the final global pool; it was fitted to the paper's tables and is
not documented by its authors.

A module that carries `attention_place` is an attention block. `shapes.py` counts; `witnesses.py` holds the two
independent counters it is checked against. Of a detector, whose work depends on what it finds, the dense part with
1,000 proposals an image is counted: trunk, pyramid, proposal head, box head. Anchors, NMS and RoIAlign count nothing.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.bench.shapes import ShapeMode
from senet_bench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Counts:
    """Operations for one image, by kind. `conv` and `linear` are those outside attention blocks.

    `bn`, `max_pool` and `global_pool` are in elements, and enter `bn_inclusive` alone.
    """

    conv: int = 0
    linear: int = 0
    se_excitation: int = 0
    se_scale: int = 0
    bn: int = 0
    max_pool: int = 0
    global_pool: int = 0

    @property
    def macs(self) -> int:
        """Multiply-adds under the convention `macs`."""
        return self.conv + self.linear + self.se_excitation + self.se_scale

    @property
    def bn_inclusive(self) -> int:
        """Operations under the convention `bn-inclusive`."""
        return self.macs + self.bn + self.max_pool + self.global_pool

    def by_kind(self) -> dict[str, int]:
        """The counts as a dictionary, in the order of the fields."""
        return asdict(self)


def parameters(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count(network: nn.Module, input_size: tuple[int, int, int]) -> Counts:
    """Operations of one forward pass in evaluation of an image of `input_size` (C, H, W).

    The network is not changed; give it on device `meta` to save a copy. Raises `UsageError` where the network
    cannot take images of that size.
    """
    network = steady(network if _is_meta(network) else copy.deepcopy(network).to("meta"), dense=True)
    tally = Tally()
    image = torch.empty((1, *input_size), device="meta")
    with evaluating(network), tally.inside_attention(network), torch.no_grad(), ShapeMode(tally):
        try:
            network(image)
        except (RuntimeError, ValueError) as error:
            raise cannot_take(input_size, error) from error
    return Counts(**tally.counts)


def steady(network: nn.Module, *, dense: bool = False) -> nn.Module:
    """The network if its work depends on the image's size alone; a detector with its proposals fixed.

    With `dense`, only the detector's convolutions and linear layers and what lies between them.
    """
    fixed = getattr(network, "with_fixed_proposals", None)
    return network if fixed is None else fixed(dense=dense)


def cannot_take(input_size: tuple[int, int, int], error: Exception) -> UsageError:
    """What to say when a forward pass fails on images of `input_size`."""
    shape = "x".join(map(str, input_size))
    return UsageError(
        f"the network cannot take {shape} images ({str(error).splitlines()[0]})", "use a larger --img-size"
    )


class Tally:
    """Counts by kind; what is counted inside an attention block goes to `se_excitation`, its pools nowhere."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.depth = 0

    def add(self, kind: str, amount: int) -> None:
        """Add operations of a kind (a field of `Counts`)."""
        if self.depth == 0:
            self.counts[kind] += amount
        elif kind in ("conv", "linear"):
            self.counts["se_excitation"] += amount

    @contextlib.contextmanager
    def inside_attention(self, network: nn.Module) -> Iterator[None]:
        """While entered, forward passes of `network` know when they are inside an attention block."""

        def enter(*_: Any) -> None:
            self.depth += 1

        def leave(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.depth -= 1
            if self.depth == 0:
                self.counts["se_scale"] += output.numel()

        def normalised(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.add("bn", output.numel())

        with contextlib.ExitStack() as stack:
            for module in network.modules():
                if hasattr(module, "attention_place"):
                    stack.callback(module.register_forward_pre_hook(enter).remove)
                    stack.callback(module.register_forward_hook(leave).remove)
                elif type(module).__name__ == "FrozenBatchNorm2d":  # a product and a sum, by no operator of its own
                    stack.callback(module.register_forward_hook(normalised).remove)
            yield


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network into evaluation and afterwards back into what each module was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _is_meta(network: nn.Module) -> bool:
    return all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
