"""A network in evaluation as a graph of operators, spelled in one way and free of what does nothing."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

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
OVERWRITING = {
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod),
    *(operator.ipow, operator.iand, operator.ior, operator.ixor, operator.setitem),
}
VIEWS = {"getitem", "float", "double", "half", "bfloat16", "type", "type_as", "cpu", "cuda"}
VIEW_ATTRIBUTES = {"T", "mT", "H", "mH", "data", "real", "imag"}
VIEW_MODULES = (nn.Flatten, nn.Unflatten, nn.Identity, nn.modules.dropout._DropoutNd)
"""What may hand on the memory that it was given, beside what torch's schemas say; in evaluation, dropout does."""
SIZES = {"size", "dim", "numel", "stride", getattr, len}
COMPARED_SIDES = (32, 64, 224, 28, 96, 299, 16, 8, 128, 256)
SAME_GRAPH, ROUNDINGS = 1e-3, 10
"""Sides of the images on which a graph is compared with its network; how far they may be apart, of the largest output
or of the network's own distance from double precision."""


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

    Every ReLU, sum and product is `F.relu`, `operator.add` and `operator.mul`; none works in place. A view of another
    shape is a reshape, which takes maps of any layout. A network with hooks has none, as they may change what it
    computes, nor has one whose graph gives other outputs than it does.
    """
    fresh = copy.deepcopy(network).eval().requires_grad_(False)
    if any(module._forward_hooks or module._forward_pre_hooks for module in fresh.modules()):
        return None
    try:
        module = fx.GraphModule(fresh, _Tracer().trace(fresh))
    except Exception:  # noqa: BLE001 - code that depends on its data raises whatever it likes when it is traced
        return None
    if any(_overwrites_what_is_used(module, node) for node in module.graph.nodes):
        return None
    for node in list(module.graph.nodes):
        _spell(module, node)
    module = cleaned(module)
    return module if same_outputs(fresh, _Ranks(module).run) else None


class _Ranks(fx.Interpreter):
    """Runs a graph and notes how many dimensions each tensor has."""

    def run_node(self, n: fx.Node) -> Any:
        """The node's value."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta["rank"] = value.dim()
        return value


def same_outputs(network: nn.Module, other: Callable[[Tensor], Any]) -> bool:
    """Whether another form of a network gives its outputs to rounding, for the first images that the network takes.

    True where it takes none.
    """
    for image in _images(network):
        try:
            with torch.no_grad():
                network(image.clone())
        except Exception:  # noqa: BLE001, S112 - another size or number of channels may do
            continue
        try:
            return same_output(network, other, image)
        except Exception:  # noqa: BLE001 - the other form fails where the network does not
            return False
    return True


def same_output(network: nn.Module, other: Callable[[Tensor], Any], image: Tensor) -> bool:
    """Whether another form of a network gives its output for some images to rounding; raises what either raises."""
    apart = difference(network, other, image)
    return apart <= SAME_GRAPH or apart <= ROUNDINGS * _rounding(network, image)


def _images(network: nn.Module) -> Iterator[Tensor]:
    tensor = next((p for p in network.parameters() if p.dtype.is_floating_point), torch.empty(0))
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    channels = (3,) if first is None else tuple(dict.fromkeys((first.in_channels, 3)))
    for side in COMPARED_SIDES:
        for depth in channels:
            yield torch.rand((2, depth, side, side), generator=torch.Generator().manual_seed(0)).to(tensor)


def _rounding(network: nn.Module, image: Tensor) -> float:
    """How far a network is from itself in double precision; 0 where it has no such form."""
    exact = copy.deepcopy(network).double()
    try:
        return difference(network, lambda x: exact(x.double()), image)
    except Exception:  # noqa: BLE001 - of whatever code the network has
        return 0.0


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


def is_map(node: Any) -> bool:
    """Whether a node gives (N, C, H, W), as what a graph's passes make does too."""
    return isinstance(node, fx.Node) and node.meta.get("rank", 4) == 4


def only(node: fx.Node) -> bool:
    """Whether exactly one node uses this one, and once."""
    uses = list[fx.Node]()
    for user in node.users:
        fx.node.map_arg((user.args, user.kwargs), uses.append)
    return uses.count(node) == 1


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
    elif what == "view" and not node.kwargs and not isinstance(node.args[1], torch.dtype):
        node.target = "reshape"
    elif function := _spelling(module, node):
        terms = node.args[:1] if function is F.relu else node.args
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_function(function, terms))
        graph.erase_node(node)


def _spelling(module: fx.GraphModule, node: fx.Node) -> Operator | None:
    """The function by which a ReLU, sum or product is spelled, which works in memory of its own; None for others."""
    what = kind(module, node)
    if not set(node.kwargs) <= {"inplace"}:
        return None
    if what is nn.ReLU or what in RELU_SPELLINGS:
        return F.relu
    if len(node.args) == 2:
        return operator.add if what in SUM_SPELLINGS else operator.mul if what in PRODUCT_SPELLINGS else None
    return None


def _overwrites_what_is_used(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node works in place on what another one reads, so that no order but the written one is right.

    What reads it earlier may, if the node is spelled as a function: that has memory of its own.
    """
    written = _written(module, node)
    memory = _memory(module, written, node)
    if any(member.op in ("placeholder", "get_attr") for member in memory):
        return True
    readers = {user for member in memory for user in member.users if user is not node}
    early = {user for user in readers - memory if user < node and kind(module, user) not in SIZES}
    return any(node < user for user in readers) or (bool(early) and _spelling(module, node) is None)


def _written(module: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """What a node writes over."""
    what, nodes = kind(module, node), list[fx.Node]()
    name = _name(what)
    if node.op == "call_module":
        in_place = bool(getattr(submodule(module, node), "inplace", False))
    else:
        in_place = what in OVERWRITING or bool(node.kwargs.get("inplace"))
        in_place |= name.endswith("_") and not name.endswith("__") and not hasattr(operator, name)
    fx.node.map_arg((node.args[:1] if in_place else (), node.kwargs.get("out")), nodes.append)
    return nodes


def _memory(module: fx.GraphModule, nodes: list[fx.Node], but: fx.Node) -> set[fx.Node]:
    """The nodes that may hold the memory of some nodes: what they are views of, and all views of that but one's."""
    memory, left = set[fx.Node](), [*nodes]
    while left:
        node = left.pop()
        if node not in memory:
            memory.add(node)
            left += node.all_input_nodes if _is_view(module, node) else []
            left += [user for user in node.users if user is not but and _is_view(module, user)]
    return memory


def _is_view(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node may give memory that it was given."""
    what = kind(module, node)
    if node.op == "call_module":
        return isinstance(submodule(module, node), VIEW_MODULES) or _keeps_memory(module, node)
    if what is getattr:
        return node.args[1] in VIEW_ATTRIBUTES
    name = _name(what)
    return name in VIEWS or "dropout" in name or _has_view(name) or _keeps_memory(module, node)


def _keeps_memory(module: fx.GraphModule, node: fx.Node) -> bool:
    return bool(_written(module, node)) and _spelling(module, node) is None


@functools.cache
def _has_view(name: str) -> bool:
    """Whether torch's operator of that name may give a view, by its schemas."""
    overloads = getattr(torch.ops.aten, name, None)
    schemas = [getattr(overloads, each)._schema for each in overloads.overloads()] if overloads else []
    marks = [value.alias_info for schema in schemas for value in schema.returns]
    return any(mark is not None and not mark.is_write for mark in marks)


def _name(what: Operator | str | None) -> str:
    return what if isinstance(what, str) else str(getattr(what, "__name__", ""))
