"""Attention blocks, and the rule that puts them at the named places of a network.

A builder never mentions SE. It asks `attend(place, channels, stage=...)` at each place of the paper's
Figure 5 and gets a block or `nn.Identity`. To add a block: write a class and give it a row in `BLOCKS`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from senet_bench.errors import UsageError
from senet_bench.specs import AttentionSpec

GATES = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


class Attend(Protocol):
    """What a builder is handed: a module for a named place with that many channels, or `nn.Identity`."""

    def __call__(self, place: str, channels: int, *, stage: int) -> nn.Module:
        """Return the module to apply at `place` to a map of shape (N, channels, H, W)."""


class SqueezeExcitation(nn.Module):
    """Squeeze-and-Excitation (Hu et al., arXiv 1709.01507v4, section 3, equations 2 to 4).

    Maps (N, C, H, W) to the same shape: x * gate(W2 relu(W1 squeeze(x))), with W1 of shape (C/r, C) and
    W2 of shape (C, C/r). C/r is rounded down when r does not divide C.
    """

    def __init__(self, channels: int, spec: AttentionSpec, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        if hidden < 1:
            raise UsageError(
                f"reduction {reduction} is larger than the {channels} channels it meets",
                f"use a reduction of at most {channels}",
            )
        self.squeeze_kind = spec.squeeze
        self.gate_kind = spec.excitation
        self.fc1 = self._fc(channels, hidden, spec)
        self.fc2 = self._fc(hidden, channels, spec)

    @staticmethod
    def _fc(inputs: int, outputs: int, spec: AttentionSpec) -> nn.Module:
        if spec.squeeze == "none":
            return nn.Conv2d(inputs, outputs, 1, bias=spec.bias)
        return nn.Linear(inputs, outputs, bias=spec.bias)

    def squeeze(self, x: Tensor) -> Tensor:
        """Equation 2: (N, C, H, W) to (N, C); the map itself where there is no squeeze (Table 16)."""
        if self.squeeze_kind == "none":
            return x
        return x.mean((2, 3)) if self.squeeze_kind == "avg" else x.amax((2, 3))

    def excitation(self, z: Tensor) -> Tensor:
        """Equation 3: the gate, of z's own shape."""
        return GATES[self.gate_kind](self.fc2(torch.relu(self.fc1(z))))

    def forward(self, x: Tensor) -> Tensor:
        """Equation 4: each channel of x times its gate."""
        gate = self.excitation(self.squeeze(x))
        return x * (gate if self.squeeze_kind == "none" else gate[:, :, None, None])


class ConstantGate(nn.Module):
    """The control without attention: every gate fixed at 0.5, the mean of a sigmoid at initialisation.

    Maps (N, C, H, W) to half of it. What SE gains over this block is owed to its attention; what this block
    gains over the baseline is owed to the halved branch alone.
    """

    def __init__(self, channels: int, spec: AttentionSpec, reduction: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """0.5 x."""
        return 0.5 * x


class Block(Protocol):
    """How a built-in block is made: its channels, the whole spec, and the reduction of its stage."""

    def __call__(self, channels: int, spec: AttentionSpec, reduction: int) -> nn.Module:
        """Return a module that maps (N, channels, H, W) to the same shape."""


BLOCKS: dict[str, Block] = {"se": SqueezeExcitation, "constant": ConstantGate}


def attend_with(spec: AttentionSpec | None, stages: tuple[int, ...]) -> Attend:
    """The `attend` of a network with these stages: blocks as `spec` says, `nn.Identity` elsewhere.

    Every block it hands out carries `attention_place`, by which counting and timing know it.
    Raises `UsageError` for a stage or block that does not exist, or one r per stage in the wrong number.
    """
    if spec is None:
        return lambda place, channels, *, stage: nn.Identity()
    _check_stages(spec, stages)
    if spec.block not in BLOCKS:
        raise UsageError(f"attention block {spec.block!r} is unknown", f"choose from {', '.join(BLOCKS)}")
    make = BLOCKS[spec.block]
    ratio = dict(zip(stages, spec.reductions if len(spec.reductions) > 1 else spec.reductions * len(stages)))

    def attend(place: str, channels: int, *, stage: int) -> nn.Module:
        if place != spec.place or stage not in (spec.stages or stages):
            return nn.Identity()
        block = make(channels, spec, ratio[stage])
        block.attention_place = place  # type: ignore[assignment]
        return block

    return attend


def attention_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """The attention blocks of a network by their dotted names, in the order of its modules."""
    return {name: module for name, module in network.named_modules() if hasattr(module, "attention_place")}


def _check_stages(spec: AttentionSpec, stages: tuple[int, ...]) -> None:
    unknown = [stage for stage in spec.stages or () if stage not in stages]
    named = ", ".join(map(str, stages))
    if unknown or spec.stages == ():
        raise UsageError(f"stage {', '.join(map(str, unknown)) or '(none)'} does not exist", f"choose from {named}")
    if len(spec.reductions) not in (1, len(stages)):
        raise UsageError(
            f"{len(spec.reductions)} reductions given for {len(stages)} stages", f"give one, or one for each of {named}"
        )
