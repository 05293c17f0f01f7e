"""Attention for a network that was never written for it: its places found with torch.fx, its channels by shape.

Where a network has residual sums, a block acts on the branch that is added to its skip, as the paper puts it
(section 3.2, Figure 3); in a plain network it follows each convolution's activation (section 3.2, on VGG). What is
returned is a `torch.fx.GraphModule` that shares the network's tensors and keeps their names.

`gated_input` puts a block on the image itself: it makes the row of a network behind an SE block on the colour channels,
so that it is built, trained, saved and loaded as every other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from senet_bench.core.foreign import contained
from senet_bench.core.source import imported
from senet_bench.core.specs import REPLACE, AttentionSpec, ModelSpec
from senet_bench.errors import UsageError
from senet_bench.models.attention import Attend, SqueezeExcitation, attend_with, restart_identities
from senet_bench.models.graph import check_same_in_training, difference, open_shapes, shapes, shell, trace
from senet_bench.models.modes import evaluating, take_modes
from senet_bench.models.places import IN_PLACE_SUMS, OVERWRITING_PRODUCTS, AttentionPlace, PlaceKind, own_gates, places

SAME_ATTACHED = 1e-3
"""How far a graph's outputs may be from the network's, of the largest."""
INPUT_PLACE = "input"
INPUT_SUFFIX = "+input"


@dataclass(frozen=True, slots=True)
class Position:
    """A place for a block: the module or value it follows, the map there, and what makes it a place.

    `stage` s has 1/2^s of the image's height. `kind` branch is the branch of a residual sum before the sum,
    activation a convolution's activation in a network without such sums, gate a map that the network gates itself.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    stage: int
    kind: PlaceKind


def positions(network: nn.Module, input_size: tuple[int, ...], *, replaces: bool = False) -> list[Position]:
    """Where `attach` would put blocks into the network for images of `input_size` (C, H, W), in order.

    Nothing is computed and the network is not changed. Raises `UsageError`, with the reason, for a network that
    torch.fx cannot trace or that has no place; for one with attention of its own unless that is replaced.
    """
    with contained(type(network).__name__, draws=True):
        return list(_positions(_traced(network, input_size, replaces), input_size).values())


@dataclass(frozen=True, slots=True)
class _Traced:
    """A shell of a network, its graph, and the places in it."""

    shell: nn.Module
    graph: fx.Graph
    places: list[AttentionPlace]


def _traced(network: nn.Module, input_size: tuple[int, ...], replaces: bool) -> _Traced:
    of_network = shell(network)
    graph = trace(of_network, input_size)
    sizes = shapes(of_network, graph, input_size)
    open_sizes = open_shapes(of_network, graph, input_size, sizes)[1]
    own = [replace(place, shape=sizes[place.value]) for place in own_gates(of_network, graph, open_sizes)]
    if own and not replaces:
        raise UsageError(
            f"it has attention of its own at {len(own)} places, {own[0].name} first",
            f"put the block in its place: --replace, or {REPLACE} behind the name",
        )
    if replaces and not own:
        raise UsageError("it has no attention of its own to replace", "use --attach")
    positions = own if replaces else places(of_network, graph, sizes)
    check_same_in_training(network, graph, input_size)
    return _Traced(of_network, graph, positions)


def _positions(traced: _Traced, input_size: tuple[int, ...]) -> dict[tuple[str, int], Position]:
    """A position for each place, those of a module that is called several times once."""
    positions: dict[tuple[str, int], Position] = {}
    for place in traced.places:
        positions.setdefault(place.call, _position(place, input_size))
    return positions


def _check_traced(network: nn.Module, traced: fx.GraphModule, input_size: tuple[int, ...]) -> None:
    """Raise `UsageError` unless the graph gives what the network gives for an image of noise."""
    tensor = next(iter(network.parameters()), torch.empty(0))
    if tensor.is_meta:
        return
    image = torch.rand((2, *input_size), generator=torch.Generator().manual_seed(0)).to(tensor)
    with evaluating(network):
        apart = difference(network, traced.eval(), image)
    if apart > SAME_ATTACHED:
        raise UsageError(
            f"its graph by torch.fx gives other outputs than it does, by {apart:.2g} of the largest",
            "its forward pass has hooks or a state that a graph does not have",
        )


def attach(
    network: nn.Module, attention: AttentionSpec, input_size: tuple[int, ...], *, replaces: bool = False
) -> tuple[nn.Module, list[Position]]:
    """A network with attention at its positions, and those that were given a block.

    The network stays as it is; the result shares its parameters. Where it has attention of its own, the blocks are put
    in the place of that (`replaces`). Built-in blocks are He-initialised, others as their class does it.
    `attention.stages` and a reduction for each stage refer to the stages of the positions. Raises `UsageError` as
    `positions` does, and for an integration other than the standard one.
    """
    if attention.place != "standard":
        raise UsageError(
            f"a block is attached at the standard place, not at {attention.place!r}", "leave out --integration"
        )
    places = positions(network, input_size, replaces=replaces)
    attend = attend_with(attention, tuple(sorted({position.stage for position in places})))
    return attach_with(network, attend, input_size, replaces=replaces)


def attach_with(
    network: nn.Module, attend: Attend, input_size: tuple[int, ...], *, replaces: bool = False
) -> tuple[nn.Module, list[Position]]:
    """`attach` with the blocks that `attend` hands out at the place `standard`."""
    from senet_bench.models import initialise

    with contained(type(network).__name__, draws=True):
        traced = _traced(network, input_size, replaces)
        positions = _positions(traced, input_size)
        attached = fx.GraphModule(traced.shell, traced.graph, type(network).__name__)
        _check_traced(network, attached, input_size)
    tensor = next(iter(network.parameters()), torch.empty(0))
    blocks: dict[tuple[str, int], str] = {}
    for call, position in positions.items():
        with torch.device(tensor.device):
            block = attend("standard", position.channels, stage=position.stage)
            if isinstance(block, nn.Identity):
                continue
            _fit_space(block, position)
            if not tensor.is_meta:
                initialise(block)
        blocks[call] = f"{position.name}_attention"
        attached.add_submodule(blocks[call], block.to(tensor.dtype))
    _keep_unused(attached, traced.shell)
    for place in traced.places:
        if place.call in blocks:
            put = _insert if place.product is None else _replace
            put(attached, place, blocks[place.call])
    given = [positions[call] for call in blocks]
    attached.recompile()
    if not tensor.is_meta:
        restart_identities(attached)
    take_modes(attached, network)
    return attached, given


def _fit_space(block: nn.Module, position: Position) -> None:
    """Let a block know how many dimensions of space its map has; `UsageError` for one that is for images alone."""
    space = len(position.size)
    if space == 2:
        return
    if not (getattr(block, "keeps_start", False) or getattr(block, "takes_any_space", False)):
        raise UsageError(
            f"{type(block).__name__} is for images, and {position.name} gives maps of {space}-D space",
            "use se, or a block of your own: --attention package.module:Class",
        )
    block.space = space  # type: ignore[assignment]


def _position(place: AttentionPlace, input_size: tuple[int, ...]) -> Position:
    channels, size = place.shape[1], place.shape[2:]
    stage = max(0, round(math.log2(input_size[-1] / size[-1])))
    return Position(place.name, channels, size, stage, place.kind)


def _insert(network: fx.GraphModule, place: AttentionPlace, name: str) -> None:
    """Let the block of a name act on the value of a place."""
    graph, value, reader = network.graph, place.value, place.reader
    if place.total is not None and place.total.target in IN_PLACE_SUMS:
        _out_of_place(place.total, graph)
    # right before it is read, after whatever changes the value in place
    with graph.inserting_after(value) if reader is None else graph.inserting_before(reader):
        acted = graph.call_module(name, (value,))
    if reader is None:
        value.replace_all_uses_with(acted, delete_user_cb=lambda user: user is not acted)
    else:
        reader.replace_input_with(value, acted)


def _replace(network: fx.GraphModule, place: AttentionPlace, name: str) -> None:
    """Let the block of a name stand for a product by a gate; what made the gate alone goes."""
    graph, product = network.graph, place.product
    assert product is not None
    value = product.args[place.operand]  # which another block may have replaced
    assert isinstance(value, fx.Node)
    gates = [factor for factor in product.all_input_nodes if factor is not value]
    with graph.inserting_after(product):
        acted = graph.call_module(name, (value,))
    if product.target in OVERWRITING_PRODUCTS:  # who reads the map later reads what was written over it
        order = {node: index for index, node in enumerate(graph.nodes)}
        value.replace_all_uses_with(acted, delete_user_cb=lambda user: order[user] > order[acted])
    product.replace_all_uses_with(acted, delete_user_cb=lambda user: user is not acted)
    graph.erase_node(product)
    for gate in gates:
        _erase_unused(network, gate)


def _erase_unused(network: fx.GraphModule, node: fx.Node) -> None:
    """Take a value that nothing reads out of the graph, with what alone made it and the modules that did."""
    if node.users or node.op == "placeholder":
        return
    sources = list(node.all_input_nodes)
    network.graph.erase_node(node)
    used = {str(other.target) for other in network.graph.nodes if other.op in ("call_module", "get_attr")}
    if node.op == "call_module" and str(node.target) not in used:
        network.delete_submodule(str(node.target))
    elif node.op == "get_attr" and str(node.target) not in used:
        parent, _, leaf = str(node.target).rpartition(".")
        delattr(network.get_submodule(parent), leaf)
    for source in sources:
        _erase_unused(network, source)


def _out_of_place(total: fx.Node, graph: fx.Graph) -> None:
    """`a += b` as `a = a + b`, so that nothing a block keeps is overwritten; who reads a later reads the sum."""
    target = total.args[0]
    assert isinstance(target, fx.Node)
    order = {node: index for index, node in enumerate(graph.nodes)}
    total.op, total.target = "call_function", IN_PLACE_SUMS[total.target]
    target.replace_all_uses_with(total, delete_user_cb=lambda user: order[user] > order[total])


def _keep_unused(attached: nn.Module, network: nn.Module) -> None:
    """Parts of the network that its forward pass does not use stay in it, at whatever depth."""
    for name, module in network.named_modules():  # a module before what is in it
        kept = attached.get_submodule(name)
        for leaf, child in module.named_children():
            if leaf not in kept._modules:
                kept.add_module(leaf, child)
        for leaf, parameter in module._parameters.items():
            if leaf not in kept._parameters:
                kept.register_parameter(leaf, parameter)
        for leaf, buffer in module._buffers.items():
            if leaf not in kept._buffers:
                kept.register_buffer(leaf, buffer, persistent=leaf not in module._non_persistent_buffers_set)


class GatedInput(nn.Module):
    """A network behind an SE block (r = 1) on its image; maps (N, C, H, W) normalised images to logits.

    The block acts on the pixel values in 0..1, so `mean` and `std`, by which they were normalised, are undone before
    it and applied again after it: it squeezes each colour to its mean brightness, and its gate scales the colour.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.gate = SqueezeExcitation(len(mean), AttentionSpec(reduction=1), 1)
        self.gate.attention_place = INPUT_PLACE  # type: ignore[assignment]
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def start_even(self) -> None:
        """Let every gate be 1/2 for every image: what differs from that afterwards was learnt, and is no accident."""
        for parameter in self.gate.fc2.parameters():
            nn.init.zeros_(parameter)

    def gates(self, x: Tensor) -> Tensor:
        """The gates (N, C) of normalised images."""
        return self.gate.excitation(self.gate.squeeze(x * self.std + self.mean))

    def forward(self, x: Tensor) -> Tensor:
        """Gate the pixels, normalise them again, and let the network see them."""
        return self.network((self.gate(x * self.std + self.mean) - self.mean) / self.std)  # type: ignore[no-any-return]


def gated_input(spec: ModelSpec, mean: Sequence[float], std: Sequence[float]) -> ModelSpec:
    """The row of a network with the block on its input, for images normalised by `mean` and `std`."""
    return replace(
        spec,
        name=f"{spec.name}{INPUT_SUFFIX}",
        label=f"{spec.label} behind an SE gate on its input",
        builder=f"{__name__}:network_behind_gate",
        options={"builder": spec.builder, "inner": dict(spec.options), "mean": tuple(mean), "std": tuple(std)},
    )


def network_behind_gate(
    attend: Attend,
    *,
    classes: int,
    in_channels: int,
    builder: str,
    inner: Mapping[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
) -> nn.Module:
    """What the rows of `gated_input` build."""
    make = imported(builder, "network")
    return GatedInput(make(attend, classes=classes, in_channels=in_channels, **inner), mean, std)
