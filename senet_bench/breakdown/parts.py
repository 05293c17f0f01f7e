"""A network in parts: its stages and attention blocks, and copies with parts left out or named.

An attention block is a module that carries `attention_place`. One with `squeeze(x)` and `excitation(z)` splits
into squeeze, excitation and scale; of any other only the whole is known. Copies made here share the network's
parameters, and the network itself is never changed.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Part = Literal["squeeze", "excitation", "scale", "attention"]
PARTS: tuple[Part, ...] = ("squeeze", "excitation", "scale")
Around = Callable[[str], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of modules of the network: dotted names, output (C, H, W) or (C,) and the names of its attention blocks."""

    name: str
    members: tuple[str, ...]
    output_size: tuple[int, ...]
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What operators do: their number, elements they read and write (`activations` of one image, `parameters` once).

    Every operator is taken to read its inputs and write its output once, as eager torch does; views move nothing.
    `operations` of one image are floating-point: two per multiply-add, one per element of any other operator.
    """

    operators: int = 0
    activations: int = 0
    parameters: int = 0
    operations: int = 0

    def bytes(self, batch_size: int, item: int = 4) -> int:
        """Bytes read and written for a batch, `item` bytes an element."""
        return item * (batch_size * self.activations + self.parameters)


@dataclass(frozen=True, slots=True)
class Traced:
    """One attention block in a forward pass: the (C, H, W) map it takes, the gate's shape, and its work by part."""

    name: str
    map_size: tuple[int, ...]
    gate_size: tuple[int, ...] | None
    work: Mapping[Part, Work]


def attention_names(network: nn.Module) -> tuple[str, ...]:
    """The dotted names of the attention blocks, in the order of the modules."""
    return tuple(name for name, module in network.named_modules() if hasattr(module, "attention_place"))


def splits(block: nn.Module) -> bool:
    """Whether the block says what its squeeze and its excitation are."""
    return callable(getattr(block, "squeeze", None)) and callable(getattr(block, "excitation", None))


def shared_copy(network: nn.Module) -> nn.Module:
    """A copy of the modules over the same parameters and buffers."""
    memo = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, memo)


def replaced(network: nn.Module, names: Iterable[str], make: Callable[[str, nn.Module], nn.Module]) -> nn.Module:
    """A copy with `make(name, module)` in the place of each named module."""
    changed = shared_copy(network)
    for name in names:
        changed.set_submodule(name, make(name, changed.get_submodule(name)))
    return changed


class SqueezeOnly(nn.Module):
    """Computes the block's squeeze and hands the map on as it came."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), unchanged."""
        self.block.squeeze(x)
        return x


class GateOnly(SqueezeOnly):
    """Computes the block's gate and hands the map on as it came: no scale."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), unchanged."""
        self.block.excitation(self.block.squeeze(x))
        return x


class ScaleOnly(nn.Module):
    """Scales by a gate that is there already: 0.5 everywhere, of the shape of the block's own."""

    def __init__(self, gate_size: tuple[int, ...], batch_size: int) -> None:
        super().__init__()
        self.gate: Tensor
        self.register_buffer("gate", torch.full((batch_size, *gate_size), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """0.5 x."""
        gate = self.gate if len(self.gate) == len(x) else self.gate[: len(x)]
        return x * (gate[:, :, None, None] if gate.dim() == 2 else gate)


def arms(
    network: nn.Module, traced: Mapping[str, Traced], stages: Iterable[Stage], batch_size: int, *, split: bool
) -> dict[str, nn.Module]:
    """The network as `full` and with parts left out, by arm.

    `without` has `nn.Identity` for every block, `without NAME` for those of a stage (where more than one has any);
    with `split` there are `squeeze`, `gate` (squeeze and excitation) and `scale` (a fixed gate).
    """
    names = tuple(traced)
    made = {"full": network, "without": replaced(network, names, lambda *_: nn.Identity())}
    if split:
        made["squeeze"] = replaced(network, names, lambda _, block: SqueezeOnly(block))
        made["gate"] = replaced(network, names, lambda _, block: GateOnly(block))
        made["scale"] = replaced(network, names, lambda name, _: ScaleOnly(_gate_of(traced[name]), batch_size))
    with_blocks = [stage for stage in stages if stage.blocks]
    if len(with_blocks) > 1:
        for stage in with_blocks:
            made[f"without {stage.name}"] = replaced(network, stage.blocks, lambda *_: nn.Identity())
    return made


def _gate_of(traced: Traced) -> tuple[int, ...]:
    assert traced.gate_size is not None  # only blocks that split are asked
    return traced.gate_size


def annotated(network: nn.Module, stages: Iterable[Stage], around: Around) -> nn.Module:
    """A copy whose stages, attention blocks and their parts run inside `around(what)`.

    `what` is `stage:NAME`, `attention:NAME`, `squeeze:NAME` or `excitation:NAME`. The copy stays so when copied.
    """
    changed = shared_copy(network)
    for stage in stages:
        wrap(changed.get_submodule(stage.members[0]), changed.get_submodule(stage.members[-1]), stage.name, around)
    for name in attention_names(changed):
        block = changed.get_submodule(name)
        if splits(block):
            block.__class__ = _split_class(type(block), name, around)
        wrap(block, block, name, around, "attention")
    return changed


def wrap(first: nn.Module, last: nn.Module, name: str, around: Around, kind: str = "stage") -> None:
    """Enter `around` when `first` is called and leave it when `last` has returned; by functions, which copies share."""
    entered: list[contextlib.AbstractContextManager[object]] = []

    def enter(*_: Any) -> None:
        entered.append(around(f"{kind}:{name}"))
        entered[-1].__enter__()

    def leave(*_: Any) -> None:
        entered.pop().__exit__(None, None, None)

    first.register_forward_pre_hook(enter)
    last.register_forward_hook(leave)


def _split_class(kind: type[Any], name: str, around: Around) -> type[Any]:
    class Split(kind):  # type: ignore[misc]
        def squeeze(self, x: Tensor) -> Tensor:
            with around(f"squeeze:{name}"):
                return super().squeeze(x)  # type: ignore[no-any-return]

        def excitation(self, z: Tensor) -> Tensor:
            with around(f"excitation:{name}"):
                return super().excitation(z)  # type: ignore[no-any-return]

    return Split
