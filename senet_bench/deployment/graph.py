"""A network in evaluation as a graph of operators, spelled in one way and free of what does nothing."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from senet_bench.deployment.convolution import Convolution, gated_sum
from senet_bench.deployment.gate import Gate
from senet_bench.deployment.parts import EarlySqueeze, Product
from senet_bench.models.graph import Tracer, difference

DEPLOYED_PARTS: tuple[type[nn.Module], ...] = (Convolution, EarlySqueeze, Gate, Product)
DEPLOYED_FUNCTIONS = (gated_sum,)
Operator = Callable[..., Any]
"""What an operator is called by in a graph: a function, or the type of a module."""

RELU_SPELLINGS = {F.relu, torch.relu, torch.relu_, "relu", "relu_"}
SUM_SPELLINGS = {operator.add, operator.iadd, torch.add, "add", "add_"}
PRODUCT_SPELLINGS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
DROPOUT_FUNCTIONS = {F.dropout, F.dropout2d}
OVERWRITING = {operator.iadd, operator.imul, operator.isub, operator.itruediv, torch.relu_}
COMPARED_SIDES = (32, 64, 224, 28, 96, 299, 16, 8, 128, 256)
SAME_GRAPH = 1e-3
"""Sides of the images on which a graph is compared with its network, and how far they may be apart, of the largest."""


class _Tracer(Tracer):
    """As `Tracer`; when a saved deploy form is loaded, its parts and its functions are traced as single calls."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=DEPLOYED_FUNCTIONS)

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """The graph; meanwhile, parts that are called without a module's hooks are called with them."""
        direct = {part: part.__dict__["__call__"] for part in DEPLOYED_PARTS}
        for part in direct:
            del part.__call__
        try:
            return super().trace(root, concrete_args)
        finally:
            for part, call in direct.items():
                part.__call__ = call  # type: ignore[method-assign]


def traced(network: nn.Module) -> fx.GraphModule | None:
    """A graph that computes what `network` does in evaluation, on copies of its weights; None if it has no graph.

    Every ReLU, sum and product is `F.relu`, `operator.add` and `operator.mul`; none works in place. A network with
    hooks has none, as they may change what it computes, nor has one whose graph gives other outputs than it does.
    """
    fresh = copy.deepcopy(network).eval().requires_grad_(False)
    if any(module._forward_hooks or module._forward_pre_hooks for module in fresh.modules()):
        return None
    try:
        module = fx.GraphModule(fresh, _Tracer().trace(fresh))
    except Exception:  # noqa: BLE001 - code that depends on its data raises whatever it likes when it is traced
        return None
    if any(_overwrites_what_is_used(module, node) for node in module.graph.nodes) or not _same(fresh, module):
        return None
    for node in list(module.graph.nodes):
        _spell(module, node)
    return cleaned(module)


def _same(network: nn.Module, module: fx.GraphModule) -> bool:
    """Whether a graph gives what its network gives, for the first images that it takes; true where it takes none."""
    tensor = next((p for p in network.parameters() if p.dtype.is_floating_point), torch.empty(0))
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    channels = (3,) if first is None else tuple(dict.fromkeys((first.in_channels, 3)))
    for side in COMPARED_SIDES:
        for depth in channels:
            image = torch.rand((2, depth, side, side), generator=torch.Generator().manual_seed(0)).to(tensor)
            try:
                with torch.no_grad():
                    network(image.clone())
            except Exception:  # noqa: BLE001, S112 - another size or number of channels may do
                continue
            try:
                return difference(network, module, image) <= SAME_GRAPH
            except Exception:  # noqa: BLE001 - the graph fails where the network does not
                return False
    return True


def cleaned(module: fx.GraphModule) -> fx.GraphModule:
    """The same module without dead nodes and unused submodules, compiled anew."""
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()
    return module


def kind(module: fx.GraphModule, node: Any) -> Operator | str | None:
    """The operator of a node: the type of a called module, a function, a method's name; None for anything else."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target)))
    return node.target if node.op in ("call_function", "call_method") else None


def submodule(module: fx.GraphModule, node: fx.Node) -> Any:
    """The module that a `call_module` node calls."""
    return module.get_submodule(str(node.target))


def only(node: fx.Node) -> bool:
    """Whether exactly one node uses this one."""
    return len(node.users) == 1


def both_ways(node: fx.Node) -> tuple[tuple[fx.Node, fx.Node], ...]:
    """The two nodes that a product or sum joins, in either order; nothing where one is a number."""
    a, b = node.args
    return ((a, b), (b, a)) if isinstance(a, fx.Node) and isinstance(b, fx.Node) else ()


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether a convolution works on each channel alone."""
    return conv.groups == conv.in_channels == conv.out_channels


def put(
    module: fx.GraphModule, node: fx.Node, name: str, called: nn.Module, args: tuple[Any, ...], **kwargs: Any
) -> fx.Node:
    """Put a call of a new submodule in the place of `node`; its name is made of `name` and the node's."""
    name = f"{name}_{node.name}"
    module.add_submodule(name, called)
    with module.graph.inserting_before(node):
        new = module.graph.call_module(name, args, kwargs)
    node.replace_all_uses_with(new)
    return new


def _spell(module: fx.GraphModule, node: fx.Node) -> None:
    what, graph = kind(module, node), module.graph
    training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
    if what in NOTHING or (what in DROPOUT_FUNCTIONS and training is False):
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        graph.erase_node(node)
        return
    plain = set(node.kwargs) <= {"inplace"}
    function: Operator | None = None
    if (what is nn.ReLU or what in RELU_SPELLINGS) and plain:
        function, count = F.relu, 1
    elif plain and len(node.args) == 2:
        function, count = (
            (operator.add if what in SUM_SPELLINGS else operator.mul if what in PRODUCT_SPELLINGS else None),
            2,
        )
    if function is not None:
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_function(function, node.args[:count]))
        graph.erase_node(node)


def _overwrites_what_is_used(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node works in place on what a later one reads: then no order but the written one is right."""
    what = kind(module, node)
    if node.op == "call_module":
        overwrites = bool(getattr(submodule(module, node), "inplace", False))
    elif isinstance(what, str):
        overwrites = what.endswith("_") and not what.endswith("__")
    else:
        overwrites = what in OVERWRITING or bool(node.kwargs.get("inplace"))
    if not overwrites or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    given = node.args[0]
    return given.op in ("placeholder", "get_attr") or any(user is not node and node < user for user in given.users)
