"""The gates of any network: our own attention blocks, or modules of others that scale each channel of a map.

timm's and torchvision's own blocks have no mark. They are recognised in the graph: a module that multiplies the map it
is given, (N, C, H, W), by (N, C, 1, 1) made from that map, whatever its class is called.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, fx, nn

from senet_bench.errors import UsageError
from senet_bench.models.attention import attention_blocks
from senet_bench.models.graph import open_shapes, shell, trace
from senet_bench.models.places import around, own_gates

Act = Callable[[nn.Module, Tensor, Tensor], Tensor | None]
"""What is done at each call of a block, with its map and what it made of that; a tensor takes the place of that."""


@contextlib.contextmanager
def acting(acts: Iterable[tuple[nn.Module, Act]]) -> Iterator[None]:
    """Let something be done at each call of some blocks; each is seen with its map as it was before the call.

    Where a block writes over its map, what takes the place of its output is written there too.
    """
    with contextlib.ExitStack() as stack:
        for block, act in acts:
            maps: list[Tensor] = []
            stack.callback(block.register_forward_pre_hook(partial(_keep, maps)).remove)
            stack.callback(block.register_forward_hook(partial(_act, maps, act)).remove)
        yield


def _keep(maps: list[Tensor], block: nn.Module, inputs: Sequence[Tensor]) -> None:
    maps.append(inputs[0].clone())


def _act(maps: list[Tensor], act: Act, block: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> Tensor | None:
    before = maps.pop()
    put = act(block, before, output)
    if put is None or output.data_ptr() != inputs[0].data_ptr() or torch.equal(inputs[0], before):
        return put
    return output.copy_(put)


def held_at(gate: Tensor) -> Act:
    """What a block gives whose gates (C,) are fixed."""

    def hold(block: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return x * gate.to(x).reshape(-1, *(1 for _ in x.shape[2:]))

    return hold


def gate_blocks(network: nn.Module, input_size: tuple[int, ...]) -> dict[str, nn.Module]:
    """The attention blocks of a network by their dotted names, else the modules by which it gates its maps itself.

    `input_size` is (C, H, W) of one image. Empty for a network that has neither, or that torch.fx cannot trace.
    """
    return attention_blocks(network) or {name: network.get_submodule(name) for name in _own(network, input_size)}


def gate_stages(network: nn.Module, input_size: tuple[int, ...]) -> dict[str, int]:
    """The stage of each of those blocks: what its builder says, else s where the map has 1/2^s of the image's side."""
    ours = attention_blocks(network)
    if ours:
        return {name: getattr(block, "attention_stage", 0) for name, block in ours.items()}
    return _own(network, input_size)


def _own(network: nn.Module, input_size: tuple[int, ...]) -> dict[str, int]:
    """The network's own gates that are a module each, in the order of its graph, with their stages."""
    bare = shell(network)
    try:
        graph = trace(bare, input_size)
        size, sizes = open_shapes(bare, graph, input_size)
        places = own_gates(bare, graph, sizes)
    except UsageError:
        return {}
    stages: dict[str, int] = {}
    for place in places:
        assert place.product is not None
        name = around(place.product)[1]
        if name and _is_whole(name, place.value, place.product):
            stages[name] = max(0, round(math.log2(size[-1] / place.shape[-1])))
    return stages


def _is_whole(module: str, value: fx.Node, product: fx.Node) -> bool:
    """Whether a module takes the value from outside and gives nothing but the product."""
    return not _within(value, module) and all(not _within(user, module) for user in product.users)


def _within(node: fx.Node, module: str) -> bool:
    return f"{around(node)[1]}.".startswith(f"{module}.")
