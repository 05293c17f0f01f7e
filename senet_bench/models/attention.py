"""Attention blocks, and the rule that puts them at the named places of a network.

A builder never mentions SE. It asks `attend(place, channels, stage=...)` at each place of the paper's
Figure 5 and gets a block or `nn.Identity`. To add a block: write a class and give it a row in `core/blocks.py`, or
name it by its import string.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.core.blocks import Block, find_block
from senet_bench.core.source import imported
from senet_bench.core.specs import USUAL_REDUCTION, AttentionSpec, is_outside
from senet_bench.errors import UsageError
from senet_bench.models.blocks import hidden_channels, twice_hardsigmoid, twice_sigmoid
from senet_bench.models.outside_block import OutsideBlock, made_outside, outside_block
from senet_bench.models.recomputation import map_mean, recalibrated

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "hardsigmoid": F.hardsigmoid,
    "twice sigmoid": twice_sigmoid,
    "twice hardsigmoid": twice_hardsigmoid,
}
FROM_ONE = {"sigmoid": "twice sigmoid", "hardsigmoid": "twice hardsigmoid", "relu": "relu"}
"""The gate that starts at 1 in the place of another; tanh never gets there."""
EXCITATION_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "silu": F.silu}


class Attend(Protocol):
    """What a builder is handed: a module for a named place with that many channels, or `nn.Identity`."""

    def __call__(self, place: str, channels: int, *, stage: int, expansion: int = 1) -> nn.Module:
        """Return the module to apply at `place` to a map of shape (N, channels, H, W).

        `expansion` is how many times the channels are those to which the network's paper relates r.
        """


class SqueezeExcitation(nn.Module):
    """Squeeze-and-Excitation (Hu et al., arXiv 1709.01507v4, section 3, equations 2 to 4).

    Maps (N, C, H, W), or maps of one or three dimensions of space, to the same shape: x * gate(W2 relu(W1 squeeze(x))),
    with W1 of shape (C/r, C) and W2 of shape (C, C/r). C/r is rounded down when r does not divide C, and at least
    `min_width`.

    MobileNetV3 (Howard et al., arXiv 1905.02244, section 5.3) rounds C/r to a multiple of `divisor` 8 and has a hard
    sigmoid, min(max(z + 3, 0), 6) / 6, where the spec says sigmoid (`hard`); EfficientNet (arXiv 1905.11946) has
    SiLU as its `activation` between the layers. With the hidden channels h, each adds 2 C h + C + h.

    As an `identity` it starts with W2 = 0 and twice its sigmoid, a gate of exactly 1; a ReLU's gate starts at 1 by its
    bias.

    Where it `recomputes`, training keeps no copy of the map it multiplies if a BatchNorm made that map, and passes over
    the map less often; its gradients cannot be differentiated again. That is on.
    """

    recomputes = True
    space = 2

    def __init__(
        self,
        channels: int,
        spec: AttentionSpec,
        reduction: int,
        *,
        divisor: int = 1,
        min_width: int = 0,
        hard: bool = False,
        activation: str = "relu",
        identity: bool = False,
    ) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction, divisor, min_width)
        self.squeeze_kind = spec.squeeze
        self.takes_any_space = spec.squeeze != "none"
        self.gate_kind: str = "hardsigmoid" if hard and spec.excitation == "sigmoid" else spec.excitation
        if identity:
            self.gate_kind = _from_one(self.gate_kind, spec)
        self.activation_kind = activation
        self.fc1 = self._fc(channels, hidden, spec)
        self.fc2 = self._fc(hidden, channels, spec)

    def restart(self) -> None:
        """Let every gate be what it is of nothing; a ReLU's is 1."""
        nn.init.zeros_(self.fc2.weight)  # type: ignore[arg-type]
        if self.fc2.bias is not None:
            nn.init.constant_(self.fc2.bias, float(self.gate_kind == "relu"))  # type: ignore[arg-type]

    @staticmethod
    def _fc(inputs: int, outputs: int, spec: AttentionSpec) -> nn.Module:
        if spec.squeeze == "none":
            return nn.Conv2d(inputs, outputs, 1, bias=spec.bias)
        return nn.Linear(inputs, outputs, bias=spec.bias)

    def squeeze(self, x: Tensor) -> Tensor:
        """Equation 2: (N, C, H, W) to (N, C); the map itself where there is no squeeze (Table 16)."""
        if self.squeeze_kind == "none":
            return x
        over = tuple(range(2, 2 + self._space_of(x)))
        if self.squeeze_kind == "max":
            return x.amax(over)
        return map_mean(x) if self.training and over == (2, 3) else x.mean(over)

    def excitation(self, z: Tensor) -> Tensor:
        """Equation 3: the gate, of z's own shape."""
        return GATES[self.gate_kind](self.fc2(EXCITATION_ACTIVATIONS[self.activation_kind](self.fc1(z))))

    def forward(self, x: Tensor) -> Tensor:
        """Equation 4: each channel of x times its gate."""
        space = self._space_of(x)
        if self.squeeze_kind == "avg" and self.training and self.recomputes and space == 2:
            return recalibrated(x, self.squeeze, self.excitation)
        gate = self.excitation(self.squeeze(x))
        return x * (gate if self.squeeze_kind == "none" else gate[(slice(None), slice(None), *[None] * space)])

    def _space_of(self, x: Tensor) -> int:
        """The dimensions of space of a map; those that it was put in for where it is traced."""
        return x.dim() - 2 if isinstance(x, Tensor) else self.space


def _from_one(gate: str, spec: AttentionSpec) -> str:
    """The gate that starts at 1 in the place of another; `UsageError` for one that cannot."""
    if gate not in FROM_ONE:
        raise UsageError(f"{spec.block} cannot start as the identity: a {gate} gate is never 1", "leave out identity")
    if gate == "relu" and not spec.bias:
        raise UsageError(f"{spec.block} cannot start as the identity: a ReLU's gate needs its bias", "leave out one")
    return FROM_ONE[gate]


class ConstantGate(nn.Module):
    """The control without attention: every gate fixed at 0.5, the mean of a sigmoid at initialisation.

    Maps (N, C, H, W) to half of it. What SE gains over this block is owed to its attention; what this block
    gains over the baseline is owed to the halved branch alone. As an `identity` its gates are twice as large: 1.
    Where they are `learned`, each channel has a gate of its own, the same for every image.
    """

    takes_any_space = True

    def __init__(
        self, channels: int, spec: AttentionSpec, reduction: int, *, identity: bool = False, learned: bool = False
    ) -> None:
        super().__init__()
        self.most = 2.0 if identity else 1.0
        self.level = nn.Parameter(torch.zeros(channels)) if learned else None

    def restart(self) -> None:
        """Let every gate be what it is of nothing."""
        if self.level is not None:
            nn.init.zeros_(self.level)

    def forward(self, x: Tensor) -> Tensor:
        """0.5 x, or each channel times its gate."""
        if self.level is None:
            return 0.5 * self.most * x
        return x * (self.most * torch.sigmoid(self.level)).reshape(-1, *(1 for _ in x.shape[2:]))


class Maker(Protocol):
    """How a block is made: its channels, the whole spec, and the reduction of its stage, None for the block's own."""

    def __call__(self, channels: int, spec: AttentionSpec, reduction: int | None) -> nn.Module:
        """Return a module that maps (N, channels, H, W) to the same shape."""


def _built_in(row: Block, channels: int, spec: AttentionSpec, reduction: int | None) -> nn.Module:
    """A block of the list, made as `Class(channels, spec, r, **given)` where it takes SE's switches, else plainly."""
    row.check(spec.options)
    make: Callable[..., nn.Module] = imported(row.factory, "attention block")
    if row.switches:
        return make(channels, spec, reduction, **{**row.given, **dict(spec.options)})
    _refuse_switches(spec)
    if row.reduces and "reduction" in dict(spec.options) and spec.reductions != (USUAL_REDUCTION,):
        raise UsageError(f"{row.name} has an r and an option reduction", "give r once")
    options = {"reduction": reduction} if row.reduces else {}
    return make(channels, **{**options, **row.given, **dict(spec.options)})


def _outside(make: OutsideBlock, channels: int, spec: AttentionSpec, reduction: int | None) -> nn.Module:
    _refuse_switches(spec)
    return made_outside(make, channels, spec, reduction)


def _refuse_switches(spec: AttentionSpec) -> None:
    """Raise `UsageError` for a switch of SE on a block that has none."""
    plain = AttentionSpec()
    for switch in ("squeeze", "excitation", "bias"):
        if getattr(spec, switch) != getattr(plain, switch):
            raise UsageError(f"{spec.block} has no choice of {switch}: that is SE's", f"leave out --{switch}")


def maker(name: str) -> Maker:
    """What makes the block of a name, built in or by its import string; `UsageError` when there is none."""
    if is_outside(name):
        return functools.partial(_outside, outside_block(name))
    return functools.partial(_built_in, find_block(name))


def attend_with(spec: AttentionSpec | None, stages: tuple[int, ...]) -> Attend:
    """The `attend` of a network with these stages: blocks as `spec` says, `nn.Identity` elsewhere.

    Every block it hands out carries `attention_place`, by which counting and timing know it, and `attention_stage`; one
    from outside also `keeps_start`, by which `initialise` leaves it as its class made it.
    Raises `UsageError` for a stage or block that does not exist, or one r per stage in the wrong number.
    """
    if spec is None:
        return lambda place, channels, *, stage, expansion=1: nn.Identity()
    _check_stages(spec, stages)
    make = maker(spec.block)
    ratio = dict(zip(stages, spec.reductions if len(spec.reductions) > 1 else spec.reductions * len(stages)))
    own = spec.reduction is None

    def attend(place: str, channels: int, *, stage: int, expansion: int = 1) -> nn.Module:
        if place != spec.place or stage not in (spec.stages or stages):
            return nn.Identity()
        block = make(channels, spec, None if own else ratio[stage] * expansion)
        block.attention_place = place  # type: ignore[assignment]
        block.attention_stage = stage  # type: ignore[assignment]
        block.keeps_start = is_outside(spec.block)  # type: ignore[assignment]
        block.starts_as_identity = starts_as_identity(spec)  # type: ignore[assignment]
        return block

    return attend


def starts_as_identity(spec: AttentionSpec | None) -> bool:
    """Whether blocks are asked for that give their input until they are trained."""
    return spec is not None and bool(dict(spec.options).get("identity"))


def restart_identities(network: nn.Module) -> None:
    """Let the blocks of a network that start as the identity be it."""
    for block in attention_blocks(network).values():
        if getattr(block, "starts_as_identity", False) and callable(restart := getattr(block, "restart", None)):
            restart()


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
