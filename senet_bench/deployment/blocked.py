"""For ONNX Runtime: gates that stay in the layout of its convolutions.

Its convolutions keep maps in blocks of channels (NCHWc). A mean, a linear layer, a slice and a product that broadcasts
take a map out of that layout, and the next convolution puts it back: two passes over the map for every gate. A global
average pool, 1x1 convolutions, a pool of one pixel, and a product with a map of its own shape work inside the layout;
so the squeeze of equation 2, both layers of equation 3 and the scale of equation 4 are written as those.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from senet_bench.deployment.dead_pixels import POINTWISE, POOLS, slice_step
from senet_bench.deployment.graph import both_ways, cleaned, is_depthwise, kind, only, put, submodule
from senet_bench.deployment.parts import AS_MAP, Activation, EarlySqueeze, Product
from senet_bench.models.graph import Shapes, shapes

WIDEST_BLOCK = 16
"""Channels of a block with AVX-512; 8 elsewhere."""


class PixelLayer(nn.Module):
    """A linear layer and its activation over maps of one pixel: (N, inputs, 1, 1) to (N, outputs, 1, 1)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
        self.conv.weight.data = weight.detach()[:, :, None, None].clone()
        if bias is not None:
            self.conv.bias.data = bias.detach().clone()  # type: ignore[union-attr]
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """One layer of equation 3."""
        y: Tensor = self.conv(x)
        return y if self.activation is None else self.activation(y)


class PixelSqueeze(PixelLayer):
    """An `EarlySqueeze` of 1x1 convolutions: the means of its maps, and the layer over them."""

    def __init__(self, squeeze: EarlySqueeze) -> None:
        super().__init__(squeeze.weight.t(), squeeze.bias, squeeze.activation)
        self.thinnings = nn.ModuleList(every(stride) for _, stride in squeeze.reads)

    def forward(self, *sources: Tensor) -> Tensor:
        """Maps (N, K, H, W) to (N, outputs, 1, 1)."""
        means = [F.adaptive_avg_pool2d(thin(x), 1) for thin, x in zip(self.thinnings, sources)]
        return super().forward(means[0] if len(means) == 1 else torch.cat(means, 1))


def every(step: int) -> nn.Module:
    """Every step-th row and column, by a pool that reads one pixel."""
    return nn.MaxPool2d(1, step) if step > 1 else nn.Identity()


def keep_blocked(module: fx.GraphModule, input_size: tuple[int, ...]) -> fx.GraphModule:
    """A copy for images of `input_size` (C, H, W) whose gated maps stay in blocks of channels, as far as they are."""
    module = copy.deepcopy(module)
    sizes, blocked = shapes(module, module.graph, input_size), set[fx.Node]()
    for node in list(module.graph.nodes):
        made = _in_blocks(module, node, sizes, blocked)
        if made is not None or _is_blocked(module, node, blocked):
            blocked.add(made or node)
    return cleaned(module)


def _in_blocks(module: fx.GraphModule, node: fx.Node, sizes: Shapes, blocked: set[fx.Node]) -> fx.Node | None:
    """What stands for a node that would take a map out of its blocks, None for any other node."""
    what, step = kind(module, node), slice_step(node)
    if what is operator.mul:
        return _gate(module, node, sizes, blocked)
    if what is operator.add:
        return _add_bias(module, node, sizes, blocked)
    thins = step > 1 and node.all_input_nodes[0] in blocked
    return put(module, node, "thin", every(step), node.args[:1]) if thins else None


def _gate(module: fx.GraphModule, node: fx.Node, sizes: Shapes, blocked: set[fx.Node]) -> fx.Node | None:
    """A map times a gate of one pixel, if the map is in blocks and the gate is made of means by layers."""
    for map_, gate in both_ways(node):
        size, layers = sizes.get(map_, ()), _layers(module, gate)
        if len(size) == 4 and sizes.get(gate, ())[2:] == (1, 1) and map_ in blocked and layers:
            pixel = [_as_pixels(module, layer) for layer in reversed(layers)][-1]
            scale = tuple(map(float, size[2:]))
            with module.graph.inserting_before(node):
                wide = module.graph.call_function(F.interpolate, (pixel,), {"scale_factor": scale, "mode": "nearest"})
            node.args = (map_, wide)
            return node
    return None


def _add_bias(module: fx.GraphModule, node: fx.Node, sizes: Shapes, blocked: set[fx.Node]) -> fx.Node | None:
    """A constant for each channel of a map in blocks, as a convolution that does nothing else."""
    for map_, bias in both_ways(node):
        size = sizes.get(bias, ())
        if bias.op == "get_attr" and map_ in blocked and size == (1, *sizes.get(map_, ())[1:2], 1, 1):
            channels = size[1]
            conv = nn.Conv2d(channels, channels, 1, groups=channels)
            nn.init.ones_(conv.weight)
            values = operator.attrgetter(str(bias.target))(module)
            conv.bias = nn.Parameter(values.detach().flatten().to(conv.weight.dtype), requires_grad=False)
            return put(module, node, "biased", conv, (map_,))
    return None


def _layers(module: fx.GraphModule, gate: fx.Node) -> list[fx.Node]:
    """What a gate is made of, from its last operator back to the squeeze; none where another node reads of it."""
    layers = []
    while only(gate):
        what = kind(module, gate)
        layers.append(gate)
        if what is EarlySqueeze:
            return layers if all(kernel == 1 for kernel, _ in submodule(module, gate).reads) else []
        widens = what is operator.getitem and gate.args[1] == AS_MAP
        if not (widens or what in (Product, nn.Linear, *POINTWISE)) or len(gate.all_input_nodes) != 1:
            return []
        gate = gate.all_input_nodes[0]
    return []


def _as_pixels(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node for maps of one pixel."""
    what, source = kind(module, node), node.all_input_nodes[0]
    if what is operator.getitem:
        node.replace_all_uses_with(source)
        return source
    if what not in (EarlySqueeze, Product, nn.Linear):
        return node
    called: Any = submodule(module, node)
    if what is EarlySqueeze:
        layer: nn.Module = PixelSqueeze(called)
    elif what is Product:
        layer = PixelLayer(called.weight.t(), called.bias, called.activation)
    else:
        layer = PixelLayer(called.weight, called.bias, None)
    return put(module, node, "pixels", layer, node.args)


def _is_blocked(module: fx.GraphModule, node: fx.Node, blocked: set[fx.Node]) -> bool:
    """Whether ONNX Runtime makes a map in blocks of channels, by the nodes before it whose maps are."""
    what = kind(module, node)
    if what is nn.Conv2d:
        conv = submodule(module, node)
        sides = conv.in_channels, conv.out_channels
        return conv.groups == 1 or is_depthwise(conv) or all(n // conv.groups % WIDEST_BLOCK == 0 for n in sides)
    follows = what in POINTWISE or what in (F.interpolate, *POOLS)
    return follows and all(source in blocked for source in node.all_input_nodes)
