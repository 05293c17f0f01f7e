"""Attention for a network that was never written for it: its places found with torch.fx, its channels by shape.

Where a network has residual sums, a block acts on the branch that is added to its skip, as the paper puts it
(section 3.2, Figure 3); in a plain network it follows each convolution's activation (section 3.2, on VGG). What is
returned is a `torch.fx.GraphModule` that shares the network's tensors and keeps their names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx, nn

from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import UsageError
from senet_bench.models.attention import Attend, attend_with
from senet_bench.models.places import IN_PLACE, Kind, Place, places
from senet_bench.models.tracing import check_same_in_training, shapes, shell, trace


@dataclass(frozen=True, slots=True)
class Position:
    """A place for a block: the module or value it follows, the map there, and what makes it a place.

    `stage` s has 1/2^s of the image's height. `kind` branch is the branch of a residual sum before the sum,
    activation a convolution's activation in a network without such sums.
    """

    name: str
    channels: int
    size: tuple[int, int]
    stage: int
    kind: Kind


def positions(network: nn.Module, input_size: tuple[int, int, int]) -> list[Position]:
    """Where `attach` would put blocks into the network for images of `input_size` (C, H, W), in order.

    Nothing is computed and the network is not changed. Raises `UsageError`, with the reason, for a network that
    torch.fx cannot trace or that has no place.
    """
    return [_position(place, input_size) for place in _places(network, input_size)[2]]


def _places(network: nn.Module, input_size: tuple[int, int, int]) -> tuple[nn.Module, fx.Graph, list[Place]]:
    """A shell of the network, its graph, and the places in it."""
    of_network = shell(network)
    graph = trace(of_network)
    found = places(of_network, graph, shapes(of_network, graph, input_size))
    check_same_in_training(network, graph)
    return of_network, graph, found


def attach(
    network: nn.Module, attention: AttentionSpec, input_size: tuple[int, int, int]
) -> tuple[nn.Module, list[Position]]:
    """A network with attention at its positions, and those that were given a block.

    The network stays as it is; the result shares its parameters. Built-in blocks are He-initialised, others as their
    class does it. `attention.stages` and a reduction for each stage refer to the stages of the positions. Raises
    `UsageError` as `positions` does, and for an integration other than the standard one.
    """
    if attention.place != "standard":
        raise UsageError(
            f"a block is attached at the standard place, not at {attention.place!r}", "leave out --integration"
        )
    found = positions(network, input_size)
    attend = attend_with(attention, tuple(sorted({position.stage for position in found})))
    return attach_with(network, attend, input_size)


def attach_with(
    network: nn.Module, attend: Attend, input_size: tuple[int, int, int]
) -> tuple[nn.Module, list[Position]]:
    """`attach` with the blocks that `attend` hands out at the place `standard`."""
    from senet_bench.models import initialise

    of_network, graph, found = _places(network, input_size)
    tensor = next(iter(network.parameters()), torch.empty(0))
    attached, given = fx.GraphModule(of_network, graph, type(network).__name__), []
    for place in found:
        position = _position(place, input_size)
        with torch.device(tensor.device):
            block = attend("standard", position.channels, stage=position.stage)
            if isinstance(block, nn.Identity):
                continue
            if not tensor.is_meta:
                initialise(block)
        _insert(attached, place, block.to(tensor.dtype), f"{position.name}_attention")
        given.append(position)
    _keep_unused(attached, of_network)
    attached.recompile()
    return attached.train(network.training), given


def _position(place: Place, input_size: tuple[int, int, int]) -> Position:
    _, channels, height, width = place.shape
    stage = max(0, round(math.log2(input_size[1] / height)))
    return Position(place.name, channels, (height, width), stage, place.kind)


def _insert(network: fx.GraphModule, place: Place, block: nn.Module, name: str) -> None:
    """Let the block act on the value of a place."""
    network.add_submodule(name, block)
    graph, value, reader = network.graph, place.value, place.reader
    if place.total is not None and place.total.target in IN_PLACE:
        _out_of_place(place.total, graph)
    # right before it is read, after whatever changes the value in place
    with graph.inserting_after(value) if reader is None else graph.inserting_before(reader):
        acted = graph.call_module(name, (value,))
    if reader is None:
        value.replace_all_uses_with(acted, delete_user_cb=lambda user: user is not acted)
    else:
        reader.replace_input_with(value, acted)


def _out_of_place(total: fx.Node, graph: fx.Graph) -> None:
    """`a += b` as `a = a + b`, so that nothing a block keeps is overwritten; who reads a later reads the sum."""
    target = total.args[0]
    assert isinstance(target, fx.Node)
    order = {node: index for index, node in enumerate(graph.nodes)}
    total.op, total.target = "call_function", torch.add
    target.replace_all_uses_with(total, delete_user_cb=lambda user: order[user] > order[total])


def _keep_unused(attached: nn.Module, network: nn.Module) -> None:
    """Parts of the network that its forward pass does not use stay in it."""
    for name, child in network.named_children():
        if name not in dict(attached.named_children()):
            attached.add_module(name, child)
