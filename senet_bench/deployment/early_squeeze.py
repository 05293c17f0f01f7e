"""Gates computed early: the mean of a convolution's output is an affine function of sums over its input.

For a 1x1 convolution and the BatchNorm folded into it, mean(W h + b) = W mean(h) + b, so the squeeze of equation 2
reads the convolution's input, which in a bottleneck has a quarter of the channels, and W goes into the first FC of
equation 3. A 3x3 convolution of stride 1 needs nine sums, each without the row and column that a tap does not see.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from senet_bench.deployment.graph import cleaned, is_map, kind, only, put, submodule
from senet_bench.deployment.parts import AS_MAP, Activation, Affine, EarlySqueeze, Product, Term

MAP_SIDES = (["2", "3"], ["-1", "-2"])
IN_PLACE_ACTIVATIONS: dict[object, Activation] = {
    F.relu: torch.relu_,
    torch.sigmoid: torch.sigmoid_,
    nn.Sigmoid: torch.sigmoid_,
    torch.tanh: torch.tanh_,
    nn.Tanh: torch.tanh_,
    F.silu: functools.partial(F.silu, inplace=True),
    F.hardsigmoid: functools.partial(F.hardsigmoid, inplace=True),
}


def make_early(module: fx.GraphModule) -> fx.GraphModule:
    """Every mean over the map of a convolution, or of a sum of them, is taken from what the convolutions read.

    Any mean becomes one with the linear layer after it, and linear layers take their activation.
    """
    for node in list(module.graph.nodes):
        if is_mean(node):
            _squeeze(module, node)
    cleaned(module)
    for node in list(module.graph.nodes):
        if kind(module, node) is nn.Linear and _is_flat(module, node.args[0]):
            end, activation = _activation_after(module, node)
            if activation is not None:
                after = next(iter(end.users), end)
                wide = only(end) and kind(module, after) is operator.getitem and after.args[1] == AS_MAP
                product = Product(submodule(module, node), activation, wide)
                put(module, after if wide else end, "product", product, node.args)
    return cleaned(module)


def _squeeze(module: fx.GraphModule, node: fx.Node) -> None:
    mean = affine_mean(module, node.args[0])
    follower = next(iter(node.users))
    if only(node) and kind(module, follower) is nn.Linear and not _keeps(node):
        linear = submodule(module, follower)
        if mean is None:
            mean = _late_mean(linear, node.args[0])
        end, activation = _activation_after(module, follower)
        _put(module, end, _through(mean, linear), activation)
    elif mean is not None and all(term.kernel == 1 for term in mean.terms):
        _put(module, node, mean, None)


def _late_mean(linear: nn.Linear, source: Any) -> Affine:
    """The mean of the source itself."""
    identity = torch.eye(linear.in_features, dtype=torch.float64, device=linear.weight.device)
    return Affine((Term(source, 1, 1, identity),), identity.new_zeros(linear.in_features), early=False)


def _activation_after(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, Activation | None]:
    """The activation that alone uses a node, in place, and its node; else the node and None."""
    follower = next(iter(node.users), None)
    if (
        follower is None
        or not only(node)
        or follower.args != (node,)
        or follower.kwargs not in ({}, {"inplace": False})
    ):
        return node, None
    activation = IN_PLACE_ACTIVATIONS.get(kind(module, follower))
    return (node, None) if activation is None else (follower, activation)


def _is_flat(module: fx.GraphModule, node: Any) -> bool:
    return kind(module, node) in (EarlySqueeze, Product)


def is_mean(node: fx.Node) -> bool:
    """Whether a node is a mean over height and width of a map."""
    if (node.op, node.target) not in (("call_method", "mean"), ("call_function", torch.mean)):
        return False
    given = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    sides = isinstance(given, tuple | list) and sorted(map(str, given)) in MAP_SIDES
    return sides and is_map(node.all_input_nodes[0]) and "dtype" not in node.kwargs


def affine_mean(module: fx.GraphModule, node: Any) -> Affine | None:
    """The mean of a node's map over height and width as an affine function, None where it is none of use."""
    what = kind(module, node)
    if what is nn.Conv2d:
        return _mean_of(submodule(module, node), node.args[0])
    if what is operator.add:
        a, b = (affine_mean(module, term) for term in node.args)
        if a is None or b is None or a.bias.shape != b.bias.shape:
            return None
        return Affine(a.terms + b.terms, a.bias + b.bias)
    if what is operator.mul:
        for factor, map_ in (node.args, reversed(node.args)):
            if isinstance(factor, int | float) and (mean := affine_mean(module, map_)):
                return _mapped(mean, lambda matrix, factor=factor: factor * matrix, factor * mean.bias)
    return None


def _mean_of(conv: nn.Conv2d, source: fx.Node) -> Affine | None:
    kernel, padding, (height, width) = conv.kernel_size, conv.padding, conv.stride
    point = kernel == (1, 1) and padding == (0, 0)
    three = kernel == (3, 3) and padding == (1, 1) and (height, width) == (1, 1)
    if not (point or three) or height != width or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
        return None
    weight = conv.weight.detach().double()  # (outputs, inputs / groups, rows, columns)
    per = conv.out_channels // conv.groups
    dense = weight.new_zeros(conv.out_channels, conv.groups, *weight.shape[1:])
    for group in range(conv.groups):
        dense[group * per : (group + 1) * per, group] = weight[group * per : (group + 1) * per]
    bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().double()
    return Affine((Term(source, kernel[0], height, dense.transpose(-1, -2).flatten(1)),), bias)


def _through(mean: Affine, linear: nn.Linear) -> Affine:
    weight = linear.weight.detach().double()
    bias = weight @ mean.bias
    return _mapped(mean, lambda matrix: weight @ matrix, bias if linear.bias is None else bias + linear.bias.detach())


def _mapped(mean: Affine, change: Any, bias: Tensor) -> Affine:
    return Affine(tuple(Term(t.source, t.kernel, t.stride, change(t.matrix)) for t in mean.terms), bias, mean.early)


def _keeps(node: fx.Node) -> bool:
    return bool(node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False))


def _put(module: fx.GraphModule, node: fx.Node, mean: Affine, activation: Activation | None) -> None:
    squeeze = EarlySqueeze(mean, next(module.parameters()).dtype, activation)
    keeps = is_mean(node) and _keeps(node)
    new = put(module, node, "squeeze", squeeze, tuple(term.source for term in mean.terms))
    if keeps:
        with module.graph.inserting_after(new):
            wide = module.graph.call_function(operator.getitem, (new, AS_MAP))
        new.replace_all_uses_with(wide, delete_user_cb=lambda user: user is not wide)
