"""BatchNorm and factors become part of the convolution before them, in double precision."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from senet_bench.deployment.graph import cleaned, kind, only, put, submodule


def fold_norms(module: fx.GraphModule) -> fx.GraphModule:
    """Every BatchNorm that alone follows a convolution becomes part of it."""
    for node in list(module.graph.nodes):
        if kind(module, node) is nn.BatchNorm2d and kind(module, node.args[0]) is nn.Conv2d and only(node.args[0]):
            norm = submodule(module, node)
            if norm.track_running_stats:
                put(module, node, "folded", _with_norm(submodule(module, node.args[0]), norm), node.args[0].args)
    return cleaned(module)


def fold_factors(module: fx.GraphModule) -> fx.GraphModule:
    """Every product of a number and convolutions, their sum or their gated map becomes part of the convolutions."""
    for node in list(module.graph.nodes):
        for factor, map_ in (node.args, reversed(node.args)) if kind(module, node) is operator.mul else ():
            if isinstance(factor, int | float) and _takes_factor(module, map_):
                _scale(module, map_, float(factor))
                node.replace_all_uses_with(map_)
                break
    return cleaned(module)


def _with_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    fused: nn.Conv2d = fuse_conv_bn_eval(copy.deepcopy(conv).double(), copy.deepcopy(norm).double())
    return fused.to(conv.weight.dtype).requires_grad_(False)


def _takes_factor(module: fx.GraphModule, node: Any) -> bool:
    if not isinstance(node, fx.Node) or not only(node):
        return False
    what = kind(module, node)
    if what is operator.add:
        return all(_takes_factor(module, term) for term in node.args)
    return what is nn.Conv2d or (what is operator.mul and _takes_factor(module, node.args[0]))


def _scale(module: fx.GraphModule, node: Any, factor: float) -> None:
    what = kind(module, node)
    if what is nn.Conv2d:
        conv = copy.deepcopy(submodule(module, node))
        with torch.no_grad():
            for parameter in conv.parameters():
                parameter.mul_(factor)
        name = f"scaled_{node.name}"
        module.add_submodule(name, conv)
        node.target = name
    else:
        for term in node.args if what is operator.add else node.args[:1]:
            _scale(module, term, factor)
