"""The places for attention in the graph of any network: residual branches, or else convolutions' activations."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx, nn

from senet_bench.errors import UsageError
from senet_bench.models.graph import Shapes

PlaceKind = Literal["branch", "activation", "gate"]
IN_PLACE_SUMS: dict[Any, Any] = {
    operator.iadd: torch.add,
    "add_": torch.add,
    "lerp_": torch.lerp,
    "addcmul_": torch.addcmul,
}
"""Sums that write over their first term, and the function that does not."""
SUM_OPERATORS: frozenset[Any] = frozenset({operator.iadd, "add_", operator.add, torch.add, "add"})
BLENDS: frozenset[Any] = frozenset({torch.lerp, "lerp", "lerp_"})
SCALED_SUMS: frozenset[Any] = frozenset({torch.addcmul, "addcmul", "addcmul_"})
TOTALS: frozenset[Any] = frozenset({torch.sum, "sum", torch.mean, "mean"})
PRODUCT_OPERATORS: frozenset[Any] = frozenset({operator.mul, torch.mul, "mul"})
OVERWRITING_PRODUCTS: frozenset[Any] = frozenset({operator.imul, "mul_"})
CONVOLUTIONS: frozenset[Any] = frozenset({F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d})
NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
ACTIVATION_OPERATORS = frozenset(
    ("relu", "relu6", "leakyrelu", "prelu", "elu", "selu", "celu", "softplus", "gelu", "gelutanh", "quickgelu", "silu")
) | {"swish", "mish", "hardswish", "hardmish"}
PASSING = frozenset(("identity", "dropout", "dropout2d", "droppath", "stochasticdepth", "layerscale", "layerscale2d"))


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPlace:
    """A value of a graph that a block may act on, (N, C, H, W), and what it is called.

    `reader` is the operation that is to read what the block gives, None for all; `total` the residual sum, `product`
    the multiplication by a gate of the network's own, whose argument number `operand` is the value. Places of one
    `call` are one place in a module that is called several times.
    """

    name: str
    value: fx.Node
    shape: tuple[int, ...]
    kind: PlaceKind
    call: tuple[str, int]
    reader: fx.Node | None = None
    total: fx.Node | None = None
    product: fx.Node | None = None
    operand: int = 0


class _Graph:
    """A graph with its modules and shapes, and questions about its nodes."""

    def __init__(self, network: nn.Module, graph: fx.Graph, shapes: Shapes) -> None:
        self.nodes = list(graph.nodes)
        self.modules = dict(network.named_modules())
        self.shapes = shapes
        image = next((node for node in self.nodes if node.op == "placeholder"), None)
        self.rank = len(shapes.get(image, ())) if image is not None else 4  # of the image and of every map
        self.calls: dict[fx.Node, tuple[str, int]] = {}  # the module around a node, and its number in a call of that
        seen: Counter[str] = Counter()
        for node in self.nodes:
            instance, path = around(node)
            self.calls[node] = path, seen[instance]
            seen[instance] += 1
        self.uses: dict[str, set[tuple[str, int]]] = {}
        for node in self.nodes:
            if node.op == "call_module":
                self.uses.setdefault(str(node.target), set()).add(self.calls[node])
        self.index = {node: index for index, node in enumerate(self.nodes)}
        self.above: dict[fx.Node, int] = {}  # a bit for each node a value comes from, itself included
        for index, node in enumerate(self.nodes):
            self.above[node] = 1 << index
            for source in node.all_input_nodes:
                self.above[node] |= self.above[source]

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def kind(self, node: fx.Node) -> str:
        """The name of a module's class, of a function or of a method, in lower case and without underscores."""
        module = self.module(node)
        name = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
        return str(name).lower().replace("_", "")

    def is_conv(self, node: fx.Node) -> bool:
        module = self.module(node)
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
        return (isinstance(module, nn.modules.conv._ConvNd) and not transposed) or node.target in CONVOLUTIONS

    @property
    def form(self) -> str:
        """What a map looks like."""
        return {3: "(N, C, L)", 5: "(N, C, D, H, W)"}.get(self.rank, "(N, C, H, W)")

    def is_linear(self, node: fx.Node) -> bool:
        return isinstance(self.module(node), nn.Linear) or node.target is F.linear

    def is_map(self, node: fx.Node) -> bool:
        """Whether the value is a map of more than one place."""
        shape = self.shapes.get(node, ())
        return len(shape) == self.rank > 2 and math.prod(shape[2:]) > 1

    def between(self, fork: fx.Node, value: fx.Node) -> list[fx.Node]:
        """The operations that lead from `fork` to `value`, without the first."""
        bits = self.above[value] & ~self.above[fork]
        return [node for index, node in enumerate(self.nodes) if bits >> index & 1]

    def varies(self, node: fx.Node) -> bool:
        """Whether a value depends on the images, and is no parameter."""
        return any(self.above[node] >> index & 1 for index, one in enumerate(self.nodes) if one.op == "placeholder")

    def name(self, node: fx.Node) -> str:
        """The module that gives a value when it is called in one place, else that around it and the value's name."""
        target = str(node.target)
        if node.op == "call_module" and len(self.uses[target]) == 1:
            return target
        around = self.calls[node][0]
        return f"{around}.{node.name}" if around in self.modules and around else node.name


def around(node: fx.Node) -> tuple[str, str]:
    """The call of the module around a node, and that module's name; both empty for the network itself."""
    stack = list(node.meta.get("nn_module_stack", {}).items())
    stack = stack[:-1] if node.op == "call_module" else stack
    return (str(stack[-1][0]), str(stack[-1][1][0])) if stack else ("", "")


def places(network: nn.Module, graph: fx.Graph, shapes: Shapes) -> list[AttentionPlace]:
    """The residual branches of a network, or without any residual sum its activations; `UsageError` when none."""
    known = _Graph(network, graph, shapes)
    refused: Counter[str] = Counter()
    positions: dict[fx.Node, AttentionPlace] = {}
    for total in known.nodes:
        if _is_sum(total, known):
            place = _branch(total, known)
            if isinstance(place, AttentionPlace):
                positions.setdefault(place.value, place)
            elif known.is_map(total) or len(known.shapes[total]) == 3:
                refused[place] += 1
    if not positions and not refused:
        _check_open(known)
        positions = {place.value: place for place in _activations(known)}
    if positions:
        return list(positions.values())
    reasons = "; ".join(f"{count} {reason}" for reason, count in refused.most_common())
    why = f"of its sums {reasons}" if reasons else "no residual sum, and no convolution followed by an activation"
    raise UsageError(f"it has no place for attention: {why}", "attention acts on (N, C, H, W) maps")


def own_gates(network: nn.Module, graph: fx.Graph, shapes: Shapes) -> list[AttentionPlace]:
    """Where a network has attention of its own: maps (N, C, H, W) multiplied by (N, C, 1, 1) made from them."""
    known = _Graph(network, graph, shapes)
    gates = []
    for product in known.nodes:
        value = gated_map(product, known)
        if value is not None:
            place = AttentionPlace(known.name(value), value, known.shapes[value], "gate", known.calls[value])
            gates.append(replace(place, product=product, operand=product.args.index(value)))
    return gates


def gated_map(product: fx.Node, known: _Graph) -> fx.Node | None:
    """The map that a product scales by a gate which is made from it; None for any other operation."""
    factors = [factor for factor in product.args if isinstance(factor, fx.Node)]
    if product.target not in PRODUCT_OPERATORS | OVERWRITING_PRODUCTS or len(factors) != 2:
        return None
    for value, factor in (factors, factors[::-1]):
        gate = _unexpanded(factor, known)
        made_from = value in known.index and known.above[gate] >> known.index[value] & 1
        if made_from and known.is_map(value) and known.shapes.get(gate) == _gate_shape(known.shapes[value]):
            return value
    return None


def _gate_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], *(1 for _ in shape[2:]))


def _unexpanded(gate: fx.Node, known: _Graph) -> fx.Node:
    """A value before it was expanded to the size of a map."""
    while known.kind(gate) in ("expand", "expandas") and isinstance(gate.args[0], fx.Node):
        gate = gate.args[0]
    return gate


def _is_sum(node: fx.Node, known: _Graph) -> bool:
    """Whether a node adds two tensors of one shape that holds images or sequences."""
    terms, _ = _terms(node, known)
    sizes = [known.shapes.get(term) for term in terms]
    if len(sizes) != 2 or sizes[0] is None or sizes[0] != sizes[1] or sizes[0] != known.shapes.get(node):
        return False
    return len(sizes[0]) >= 3


def _terms(node: fx.Node, known: _Graph) -> tuple[list[fx.Node], fx.Node]:
    """The terms of a sum, and the node that reads them; none for a node that is no sum of two.

    A sum may be weighted (`alpha`, `lerp`), have a product as its second term (`addcmul`) or be of a stack.
    """
    if node.op not in ("call_function", "call_method"):
        return [], node
    given = [*node.args, *(node.kwargs[name] for name in ("other", "end", "tensor1", "tensor2") if name in node.kwargs)]
    values = [value for value in given if isinstance(value, fx.Node)]
    if node.target in SUM_OPERATORS and len(given) == 2:
        return values, node
    if node.target in BLENDS:
        return values[:2], node
    if node.target in SCALED_SUMS and len(values) == 3:
        maps = [value for value in values[1:] if known.shapes.get(value) == known.shapes.get(node)]
        maps = [value for value in maps if known.varies(value)]
        return [values[0], *maps], node
    if node.target in TOTALS and values and values[0].target is torch.stack:
        parts: Any = values[0].args[0] if values[0].args else values[0].kwargs.get("tensors", ())
        return [part for part in parts if isinstance(part, fx.Node)], values[0]
    return [], node


def _branch(total: fx.Node, known: _Graph) -> AttentionPlace | str:
    """The branch of a residual sum, or why the sum is not one.

    The two terms part at one tensor. The branch is the term with more convolutions since then; the other, the skip,
    has one at most.
    """
    terms, reader = _terms(total, known)
    shape = known.shapes[total]
    if len(shape) != known.rank:
        return f"add tensors of {len(shape)} dimensions, not {known.form} maps"
    common = known.above[terms[0]] & known.above[terms[1]]
    fork = known.nodes[common.bit_length() - 1]
    if not common or fork not in known.shapes:
        return "do not add a branch to its skip"
    paths = sorted(((known.between(fork, term), term) for term in terms), key=lambda pair: _convs(pair[0], known))
    skip, branch = (_convs(path, known) for path, _ in paths)
    if not branch:
        return "have no convolution in their branch"
    if skip == branch or skip > 1:
        return "add two branches, and no skip"
    path, term = paths[1]
    if not _channels_second(path, shape, known):
        return "add maps whose channels are not the second dimension"
    value, reader = _before_scale(term, reader, known)
    return AttentionPlace(known.name(value), value, shape, "branch", known.calls[value], reader, total)


def _channels_second(path: list[fx.Node], shape: tuple[int, ...], known: _Graph) -> bool:
    """Whether what a path ends with is (N, C, H, W), seen from its last layer."""
    index = max(i for i, node in enumerate(path) if known.is_conv(node) or known.is_linear(node))
    if known.is_linear(path[index]):
        return known.shapes[path[index]][-1] == shape[1]
    return not any(known.kind(node) in ("permute", "transpose", "movedim", "swapaxes") for node in path[index:])


def _check_open(known: _Graph) -> None:
    """Raise `UsageError` where convolutions are hidden inside modules that could not be traced into."""
    for node in known.nodes:
        module = known.module(node)
        inside = [] if module is None or known.is_conv(node) else module.modules()
        if any(isinstance(one, nn.modules.conv._ConvNd) for one in inside) and not hasattr(module, "attention_place"):
            raise UsageError(
                f"it has no place for attention: its convolutions are inside {type(module).__name__} modules, "
                "which torch.fx cannot trace",
                "attention acts on (N, C, H, W) maps",
            )


def _convs(path: Iterable[fx.Node], known: _Graph) -> int:
    return sum(known.is_conv(node) for node in path)


def _before_scale(value: fx.Node, reader: fx.Node, known: _Graph) -> tuple[fx.Node, fx.Node]:
    """The branch's own output, before it is scaled by a number or a parameter or dropped at random."""
    while len(value.users) == 1:
        if known.kind(value) in PASSING and known.module(value) is not None:
            before = value.args[0]
        elif value.target in PRODUCT_OPERATORS and len(value.args) == 2:
            maps = [arg for arg in value.args if isinstance(arg, fx.Node) and known.varies(arg)]
            before = maps[0] if len(maps) == 1 else None
        else:
            break
        if (
            not isinstance(before, fx.Node)
            or len(before.users) != 1
            or known.shapes.get(before) != known.shapes.get(value)
        ):
            break
        value, reader = before, value
    return value, reader


def _activations(known: _Graph) -> Iterable[AttentionPlace]:
    """The activation after each convolution and its normalisation, if it has one."""
    for conv in known.nodes:
        node = conv
        if not known.is_conv(conv) or not known.is_map(conv):
            continue
        while len(node.users) == 1 and not _activates(node, known):
            follower = next(iter(node.users))
            norm = isinstance(known.module(follower), NORM_LAYERS) or known.kind(follower) in PASSING
            if not norm and not _activates(follower, known):
                break
            node = follower
        if _activates(node, known):
            yield AttentionPlace(known.name(node), node, known.shapes[node], "activation", known.calls[node])


def _activates(node: fx.Node, known: _Graph) -> bool:
    """Whether a node is an activation, or a normalisation that holds one."""
    held = getattr(known.module(node), "act", None)
    within = (
        isinstance(known.module(node), NORM_LAYERS)
        and isinstance(held, nn.Module)
        and not isinstance(held, nn.Identity)
    )
    return known.kind(node) in ACTIVATION_OPERATORS or within
