"""The form that torch runs: a convolution takes the gate, sum and ReLU after it, and memory is used again."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from senet_bench.deployment.convolution import Convolution, gated_sum
from senet_bench.deployment.early_squeeze import is_mean
from senet_bench.deployment.gate import Gate, joins
from senet_bench.deployment.graph import cleaned, kind, only, put, submodule
from senet_bench.deployment.parts import EarlySqueeze, Product

WRITERS = {
    *(Convolution, EarlySqueeze, Gate, Product, nn.Conv2d, nn.Linear, nn.BatchNorm2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.max_pool2d, F.avg_pool2d),
    *(operator.add, operator.mul, F.relu, gated_sum, torch.cat, torch.sigmoid, torch.tanh),
}
"""Operators that write their result to memory of its own and hand on no view of what they read."""


def fuse(module: fx.GraphModule) -> fx.GraphModule:
    """Every convolution becomes a `Convolution` with what can be joined to it; other gates and ReLUs work in place.

    A squeeze and the product after it become a `Gate`.
    """
    _join_gates(module)
    for node in list(module.graph.nodes):
        if kind(module, node) is operator.add and all(isinstance(term, fx.Node) for term in node.args):
            _fuse_sum(module, node)
    cleaned(module)
    for node in list(module.graph.nodes):
        if _convolves(module, node):
            end = _relu_after(module, node)
            put(module, end, "conv", Convolution(submodule(module, node), relu=end is not node), node.args)
    cleaned(module)
    _reuse(module)
    return cleaned(module)


def _join_gates(module: fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        squeeze = node.args[0] if kind(module, node) is Product else None
        if isinstance(squeeze, fx.Node) and kind(module, squeeze) is EarlySqueeze and only(squeeze):
            parts = submodule(module, squeeze), submodule(module, node)
            if joins(*parts):
                put(module, node, "gate", Gate(*parts), squeeze.args)
    cleaned(module)


def _fuse_sum(module: fx.GraphModule, node: fx.Node) -> None:
    """relu(a + b), where a or b may be a convolution, a gated convolution or another gated map."""
    end = _relu_after(module, node)
    relu = end is not node
    b, a = sorted(node.all_input_nodes) if len(node.all_input_nodes) == 2 else node.all_input_nodes * 2
    for last, other in ((a, b), (b, a)):
        conv, gate = _gated_convolution(module, last)
        if conv is not None:
            fused = Convolution(submodule(module, conv), relu=relu)
            put(module, end, "conv", fused, (conv.args[0], other, gate))
            return
    for last, other in ((a, b), (b, a)):
        if _convolves(module, last) and only(last):
            put(module, end, "conv", Convolution(submodule(module, last), relu=relu), (last.args[0], other))
            return
    for last, other in ((a, b), (b, a)):
        factors = _factors(module, last)
        if factors:
            with module.graph.inserting_before(end):
                new = module.graph.call_function(gated_sum, (*factors, other), {"relu": relu})
            end.replace_all_uses_with(new)
            return


def _gated_convolution(module: fx.GraphModule, node: Any) -> tuple[fx.Node | None, fx.Node | None]:
    factors = _factors(module, node)
    for map_, gate in (factors, factors[::-1]) if factors else ():
        if _convolves(module, map_) and only(map_):
            return map_, gate
    return None, None


def _factors(module: fx.GraphModule, node: Any) -> tuple[fx.Node, ...]:
    """The two factors of a product that one node uses."""
    if kind(module, node) is operator.mul and only(node) and all(isinstance(factor, fx.Node) for factor in node.args):
        return tuple(node.args)
    return ()


def _convolves(module: fx.GraphModule, node: Any) -> bool:
    if kind(module, node) is not nn.Conv2d:
        return False
    conv = submodule(module, node)
    return conv.padding_mode == "zeros" and isinstance(conv.padding, tuple)


def _relu_after(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The ReLU that alone uses the node, else the node."""
    follower = next(iter(node.users), None)
    return follower if follower is not None and only(node) and kind(module, follower) is F.relu else node


def _reuse(module: fx.GraphModule) -> None:
    """Let sums, gates and ReLUs write over what no later node reads."""
    for node in module.graph.nodes:
        what, args = kind(module, node), node.args
        if what is Convolution and len(args) > 1 and _dies(module, args[1], node):
            node.kwargs = {**node.kwargs, "reuse": True}
        elif what is gated_sum:
            free = [a for a in (args[0], args[2]) if _dies(module, a, node)]
            node.kwargs = {**node.kwargs, "out": free[0] if free else None}
        elif (
            what is operator.mul
            and all(isinstance(factor, fx.Node) for factor in args)
            and _dies(module, args[0], node)
        ):
            node.target, node.args = gated_sum, (*args, None)
            node.kwargs = {"out": args[0]}
        elif what is F.relu and _dies(module, args[0], node):
            node.kwargs = {"inplace": True}


def _dies(module: fx.GraphModule, node: Any, at: fx.Node) -> bool:
    """Whether the memory of `node` is its own and nobody reads it after `at`, which reads it once."""
    if kind(module, node) not in WRITERS or [*at.args].count(node) != 1:
        return False
    return all(user is at or (user < at and _only_reads(module, user)) for user in node.users)


def _only_reads(module: fx.GraphModule, node: fx.Node) -> bool:
    return kind(module, node) in WRITERS or is_mean(node)
