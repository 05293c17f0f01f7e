"""Pixels that nobody reads: a map read only at every second row and column is computed only there.

A 1x1 convolution of stride 2 reads a quarter of its map, so a ReLU, a sum, a product or a convolution whose result
only such readers take need not compute the rest: their stride moves back through the graph to where it saves work.
The paper's ResNets (stride on the first 1x1 of a stage) end three stages so; a squeeze behind them reads every pixel.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from senet_bench.deployment.early_squeeze import is_mean
from senet_bench.deployment.graph import cleaned, kind, submodule
from senet_bench.deployment.parts import AS_MAP, EarlySqueeze, Product
from senet_bench.models.graph import shapes

POINTWISE = {
    *(operator.add, operator.mul, operator.sub, operator.truediv, torch.cat, torch.clamp, torch.sigmoid, torch.tanh),
    *(F.relu, F.relu6, F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.sigmoid, F.tanh, F.leaky_relu),
    *(nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.BatchNorm2d),
}
"""Operators of which a pixel depends on that pixel alone, and the one that joins maps by channel."""
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
TO_ONE_PIXEL = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
EVERY_PIXEL = slice(None)


@dataclass(frozen=True, slots=True)
class Extent:
    """The nodes known to give maps (N, C, H, W), and those known to give one pixel of an image, (N, C, 1, 1)."""

    maps: frozenset[fx.Node]
    pixels: frozenset[fx.Node]


def drop_dead_pixels(module: fx.GraphModule) -> fx.GraphModule:
    """Every map is computed at the pixels that are read, which changes no output."""
    steps = read_steps(module)
    slices: dict[tuple[fx.Node, int], fx.Node] = {}
    for node in list(module.graph.nodes):
        if any(steps.get(source, 1) > 1 for source in (node, *node.all_input_nodes)):
            _thin(module, node, steps, slices)
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target is operator.getitem and node.args[1] == _every(1):
            node.replace_all_uses_with(node.args[0])
    return cleaned(module)


def read_steps(module: fx.GraphModule) -> dict[fx.Node, int]:
    """By node the step n with which its map is read: every n-th row and column, from the first on; 1 is all of it."""
    extent, steps = _extent(module), dict[fx.Node, int]()
    for node in reversed(module.graph.nodes):
        if node in extent.maps:
            thins = bool(node.users) and _can_be_thinned(module, node, extent)
            steps[node] = math.gcd(*(_step_of(module, user, node, steps) for user in node.users)) if thins else 1
    return steps


def unread_share(module: fx.GraphModule, input_size: tuple[int, ...]) -> float:
    """The part of the multiply-adds of a network's convolutions and linear layers whose results nobody reads."""
    sizes, steps = shapes(module, module.graph, input_size), read_steps(module)
    total = unread = 0.0
    for node in module.graph.nodes:
        if kind(module, node) in (nn.Conv2d, nn.Linear) and node in sizes:
            size, weight = sizes[node], submodule(module, node).weight
            macs = math.prod(size) * weight[0].numel()
            total += macs
            if len(size) == 4:
                read = [-(-side // steps.get(node, 1)) for side in size[2:]]
                unread += macs * (1 - math.prod(read) / math.prod(size[2:]))
    return unread / max(total, 1.0)


def _extent(module: fx.GraphModule) -> Extent:
    maps, pixels = set[fx.Node](), set[fx.Node]()
    for node in module.graph.nodes:
        what, sources = kind(module, node), node.all_input_nodes
        pointwise = _is_pointwise(module, node)
        follows = (what is nn.Conv2d or pointwise) and bool(sources) and all(source in pixels for source in sources)
        if follows or is_mean(node) or _is_one_pixel(module, node):
            pixels.add(node)
        elif what in (nn.Conv2d, *POOLS) or slice_step(node) > 1 or (pointwise and any(n in maps for n in sources)):
            maps.add(node)
    return Extent(frozenset(maps), frozenset(pixels))


def _is_pointwise(module: fx.GraphModule, node: fx.Node) -> bool:
    what = kind(module, node)
    if what is torch.cat:
        return node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0) in (0, 1, -3, -4)
    return what in POINTWISE and (what is not nn.BatchNorm2d or submodule(module, node).track_running_stats)


def _is_one_pixel(module: fx.GraphModule, node: fx.Node) -> bool:
    what = kind(module, node)
    if what is operator.getitem:
        return node.args[1] == AS_MAP
    if what is Product:
        return bool(submodule(module, node).wide)
    if what in TO_ONE_PIXEL:
        return submodule(module, node).output_size in (1, (1, 1))
    return what in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d) and node.args[1:2] in ((1,), ((1, 1),))


def _can_be_thinned(module: fx.GraphModule, node: fx.Node, extent: Extent) -> bool:
    """Whether a map can be computed at fewer pixels; of a pointwise operator, whether all that it reads is known."""
    what = kind(module, node)
    if what in POOLS:
        called = submodule(module, node)
        return not called.ceil_mode and not getattr(called, "return_indices", False)
    if what is nn.Conv2d:
        return isinstance(submodule(module, node).padding, tuple)
    return slice_step(node) > 1 or all(n in extent.maps or n in extent.pixels for n in node.all_input_nodes)


def _step_of(module: fx.GraphModule, user: fx.Node, source: fx.Node, steps: Mapping[fx.Node, int]) -> int:
    """The step with which a node reads one of its maps, if it computes what is read of its own."""
    what, own = kind(module, user), steps.get(user, 1)
    if (step := slice_step(user)) > 1:
        return step * own
    if what is EarlySqueeze:
        reads = [read for read, given in zip(submodule(module, user).reads, user.args) if given is source]
        return math.gcd(*(stride if kernel == 1 else 1 for kernel, stride in reads))
    if what in (nn.Conv2d, *POOLS):
        called = submodule(module, user)
        height, width = _pair(called.stride)
        point = _pair(called.kernel_size) == (1, 1) and _pair(called.padding) == (0, 0)
        return height * own if point and height == width else 1
    return own  # 1 for all but pointwise operators


def _thin(
    module: fx.GraphModule, node: fx.Node, steps: Mapping[fx.Node, int], slices: dict[tuple[fx.Node, int], fx.Node]
) -> None:
    """Let a node compute the pixels of its step from those that its sources compute."""
    what, own = kind(module, node), steps.get(node, 1)
    if (step := slice_step(node)) > 1:
        source = node.all_input_nodes[0]
        node.args = (source, _every(step * own // steps.get(source, 1)))
    elif what is EarlySqueeze:
        squeeze = submodule(module, node)
        sources: Any = node.args
        squeeze.reads = tuple((k, stride // steps.get(n, 1)) for (k, stride), n in zip(squeeze.reads, sources))
    elif what in (nn.Conv2d, *POOLS):
        called = copy.copy(submodule(module, node))  # shares the weights
        height, width = (stride * own // steps.get(node.all_input_nodes[0], 1) for stride in _pair(called.stride))
        called.stride = (height, width)
        node.target = f"thinned_{node.name}"
        module.add_submodule(node.target, called)
    elif own > 1:
        for source in node.all_input_nodes:
            left = own // steps.get(source, 1)
            if left > 1 and source in steps:
                node.replace_input_with(source, _sliced(module, source, left, slices))


def _sliced(module: fx.GraphModule, source: fx.Node, step: int, slices: dict[tuple[fx.Node, int], fx.Node]) -> fx.Node:
    if (source, step) not in slices:
        with module.graph.inserting_after(source):
            slices[source, step] = module.graph.call_function(operator.getitem, (source, _every(step)))
    return slices[source, step]


def _every(step: int) -> tuple[slice, ...]:
    """The index of every step-th row and column."""
    return EVERY_PIXEL, EVERY_PIXEL, slice(None, None, step), slice(None, None, step)


def slice_step(node: fx.Node) -> int:
    """The step with which a node takes rows and columns of a map and does nothing else, 1 for any other node."""
    if node.op != "call_function" or node.target is not operator.getitem or not isinstance(node.args[1], tuple):
        return 1
    rows = node.args[1][2] if len(node.args[1]) == 4 else None
    step = rows.step if isinstance(rows, slice) and isinstance(rows.step, int) else 1
    return step if step > 1 and node.args[1] == _every(step) else 1


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, tuple) else (value, value)
