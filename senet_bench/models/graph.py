"""The graph of any network's forward pass by torch.fx, and the shapes in it; what cannot be traced is refused.

What is traced is the call `network(image)`: every other argument of its forward pass has its own default, as a value.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from senet_bench.core.devices import kind_of
from senet_bench.core.foreign import guarded, passes, place_of
from senet_bench.errors import MeasurementError, UsageError, first_line
from senet_bench.models.sized import BATCH, Sized

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
DROPOUT_MODULES: dict[Any, Callable[[float], nn.Module]] = {F.dropout: nn.Dropout, F.dropout2d: nn.Dropout2d}
Shapes = dict[fx.Node, tuple[int, ...]]
OPEN_SIDE = 128
"""The side of an image whose maps have several places at every stage, the last at 1/32 of it."""


class Tracer(fx.Tracer):
    """Traces the call of a network with an image alone, so that a branch on a default argument is the one taken."""

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """The function to trace, and its one argument; the root's own forward, also where the object has another.

        It has no annotations: torch 2.11 cannot save a graph whose output has one that is text.
        """
        call = lambda image: self.root.forward(image)  # noqa: E731, PLW0108
        return call, [self.create_proxy("placeholder", "image", (), {})]


class _Tracer(Tracer):
    """Steps into modules that hold others, and over layers and whatever has no modules inside."""

    def __init__(self, over: tuple[type[nn.Module], ...], functions: tuple[Callable[..., Any], ...]) -> None:
        super().__init__(autowrap_functions=functions)
        self.over = over

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the call of a module is one node."""
        return (
            isinstance(m, (*_LAYERS, *self.over))
            or hasattr(m, "attention_place")
            or not any(True for _ in m.children())
            or super().is_leaf_module(m, module_qualified_name)
        )


class _SizedTracer(Sized, _Tracer):
    """Traces for images of one size."""


def difference(network: nn.Module, other: Callable[[Tensor], Any], image: Tensor) -> float:
    """How far the outputs of two networks in evaluation are apart, as a fraction of the largest; random draws agree.

    Infinite where their outputs have other forms. Raises what a forward pass raises.
    """
    devices = [image.device] if kind_of(image.device.type).draws else []
    outputs = []
    with torch.no_grad(), torch.random.fork_rng(devices):
        for called in (network, other):
            torch.manual_seed(0)
            outputs.append(list(tensors(called(image.clone()))))
    pairs = list(zip(*outputs))
    if len(outputs[0]) != len(outputs[1]) or any(a.shape != b.shape for a, b in pairs):
        return math.inf
    return max((_apart(a, b) for a, b in pairs), default=0.0)


def _apart(one: Tensor, other: Tensor) -> float:
    if one.is_meta or torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)):
        return 0.0
    gap = (one.double() - other.double()).abs().max() / one.double().abs().max().clamp(min=1e-30)
    return float(gap.nan_to_num(math.inf))


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a network returns."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors(value)


def on_meta(network: nn.Module) -> nn.Module:
    """A copy of the network without memory for its tensors, in evaluation."""
    memo: dict[int, Any] = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in network.buffers()}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    return copy.deepcopy(network, memo).eval()


def shell(network: nn.Module) -> nn.Module:
    """A copy of the network's modules that shares its tensors."""
    tensors = [*network.parameters(), *network.buffers()]
    try:
        copied: nn.Module = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    except Exception as error:
        raise UsageError(f"it cannot be copied: {first_line(error)}", "make its modules copyable") from error
    return copied


def check_copyable(name: str, module: nn.Module) -> None:
    """Raise `MeasurementError` where a network or block cannot be copied and evaluated, as for every measurement."""
    lacking = "copied"
    with guarded(name):
        try:
            copied = copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})
            lacking = "set to evaluation"
            copied.eval()
        except Exception as error:
            if passes(error):
                raise
            raise MeasurementError(
                f"{name} cannot be {lacking}: {first_line(error)}{place_of(error)}",
                "take files, locks, the module itself and the like out of it, or give its class a __deepcopy__",
            ) from error


def trace(shell: nn.Module, input_size: tuple[int, ...] | None = None) -> fx.Graph:
    """The graph of a shell's forward pass in evaluation; `UsageError` when torch.fx cannot trace it.

    Where the code asks for sizes, it is the graph for images of `input_size`, if that is given. Dropout that is called
    as a function becomes a module of the shell.
    """
    return _graph(shell.eval(), input_size)


def check_same_in_training(network: nn.Module, graph: fx.Graph, input_size: tuple[int, ...] | None = None) -> None:
    """Raise `UsageError` unless the network's graph in training is this one: a graph has no modes."""
    difference = _difference(_graph(shell(network).train(), input_size), graph)
    if difference:
        raise UsageError(
            f"its forward pass is not the same in training and evaluation ({difference})",
            "attention is attached to networks that compute one function",
        )


def _graph(shell: nn.Module, input_size: tuple[int, ...] | None) -> fx.Graph:
    leaves, functions = _timm_leaves(shell)
    bare = tuple(kind for kind in leaves if not any(map(_holds_convolutions, _instances(shell, kind))))
    try:
        try:
            graph = _Tracer(bare, functions).trace(shell)
        except Exception:
            if bare == leaves:
                raise
            graph = _Tracer(leaves, functions).trace(shell)
    except Exception as error:
        sized = None if input_size is None else _sized_graph(shell, _SizedTracer(leaves, functions), input_size)
        if sized is not None:
            return sized
        if input_size is not None and _fails_so(shell, input_size, error):
            raise
        raise UsageError(
            f"torch.fx cannot trace it: {first_line(error)}", "its forward pass depends on values or shapes"
        ) from error
    for node in graph.nodes:
        _as_module(node, shell)
    return graph


def _fails_so(shell: nn.Module, input_size: tuple[int, ...], error: Exception) -> bool:
    """Whether a call of the network itself, without memory for values, ends in the error that tracing it ended in."""
    dtype = next((parameter.dtype for parameter in shell.parameters()), torch.float32)
    try:
        with torch.no_grad(), torch.device("meta"):
            on_meta(shell)(torch.empty((1, *input_size), dtype=dtype))
    except Exception as own:  # noqa: BLE001 - of whatever code the network has
        return (type(own), str(own)) == (type(error), str(error))
    return False


def _sized_graph(shell: nn.Module, tracer: _SizedTracer, input_size: tuple[int, ...]) -> fx.Graph | None:
    """The graph for images of one size, None where that cannot be traced either."""
    dtype = next((parameter.dtype for parameter in shell.parameters()), torch.float32)
    tracer.prepare(on_meta(shell), torch.empty((BATCH, *input_size), dtype=dtype, device="meta"))
    try:
        graph = tracer.trace(shell)
    except UsageError:
        raise
    except Exception:  # noqa: BLE001 - of whatever code the network has; the first error is told
        return None
    graph.eliminate_dead_code(lambda node: node.op != "call_method" or node.target != "size")
    for node in graph.nodes:
        _as_module(node, shell)
    return graph


def _timm_leaves(network: nn.Module) -> tuple[tuple[type[nn.Module], ...], tuple[Callable[..., Any], ...]]:
    """The modules and functions that timm says are not to be traced into, for a network of timm."""
    if not any(type(module).__module__.startswith("timm.") for module in network.modules()):
        return (), ()
    layers: Any = importlib.import_module("timm.layers")
    return tuple(layers.get_notrace_modules()), tuple(layers.get_notrace_functions())


def _instances(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


def _holds_convolutions(module: nn.Module) -> bool:
    return any(isinstance(one, nn.Conv2d) for one in module.modules() if one is not module)


def _as_module(node: fx.Node, shell: nn.Module) -> None:
    """Dropout called as a function, which a trace fixes in one mode, as a module, which follows the network's."""
    kind = DROPOUT_MODULES.get(node.target)
    if node.op == "call_function" and kind is not None:
        given: dict[str, Any] = dict(zip(("input", "p", "training", "inplace"), node.args)) | dict(node.kwargs)
        name = f"{node.name}_module"
        if not hasattr(shell, name):
            shell.add_module(name, kind(float(given.get("p", 0.5))))
        node.op, node.target, node.args, node.kwargs = "call_module", name, (given["input"],), {}


def _difference(one: fx.Graph, other: fx.Graph) -> str:
    """The first operation in which two graphs differ, in words; empty when they are the same."""
    pairs = list(zip(one.nodes, other.nodes))
    for a, b in pairs:
        if a.format_node() != b.format_node():
            return f"{b.op} {b.target}" if b.op != "output" else f"{a.op} {a.target}"
    return "" if len(one.nodes) == len(other.nodes) else "one has more operations"


KEEPS_SHAPE = frozenset((F.batch_norm, F.relu, torch.relu, F.silu, F.hardswish, torch.sigmoid, F.sigmoid))
"""Frequent functions whose answer has the shape of what they are given first."""


class QuickShapes(TorchFunctionMode):
    """Answers such functions of tensors without values by their shape, for forward passes that need no gradient.

    Torch's own batch normalisation takes 45 times as long as a convolution there, and ReLU 7 times.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in KEEPS_SHAPE and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0] if kwargs.get("inplace") else torch.empty_like(args[0])
        return func(*args, **kwargs)


class _Shapes(fx.Interpreter):
    """Runs a graph and notes what shape each node has."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[str, tuple[int, ...]] = {}

    def fetch_attr(self, target: str) -> Any:
        """A tensor that belongs to the graph itself has no values either."""
        value = super().fetch_attr(target)
        return value.to("meta") if isinstance(value, Tensor) else value

    def run_node(self, n: fx.Node) -> Any:
        """The node's value."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n.name] = tuple(value.shape)
        return value


def shapes(shell: nn.Module, graph: fx.Graph, input_size: tuple[int, ...]) -> Shapes:
    """The shape of each tensor in the graph for one image of `input_size`, on `meta` tensors; else `UsageError`."""
    dtype = next((parameter.dtype for parameter in shell.parameters()), torch.float32)
    interpreter = _Shapes(fx.GraphModule(on_meta(shell), copy.deepcopy(graph)))
    try:
        with torch.no_grad(), torch.device("meta"), QuickShapes():
            interpreter.run(torch.empty((1, *input_size), dtype=dtype))
    except Exception as error:
        size = "x".join(map(str, input_size))
        raise UsageError(
            f"it cannot take {size} images ({first_line(error)})", "give another --img-size or --in-channels"
        ) from error
    return {node: interpreter.found[node.name] for node in graph.nodes if node.name in interpreter.found}


def open_shapes(
    shell: nn.Module, graph: fx.Graph, input_size: tuple[int, ...], own: Shapes | None = None
) -> tuple[tuple[int, ...], Shapes]:
    """An image size, and the shapes for it, at which no map has shrunk to one place: there a gate looks as a product.

    It is `input_size`, whose shapes are `own` where they are known, with no side below `OPEN_SIDE`; `input_size`
    itself for a network that takes no other.
    """
    size = (input_size[0], *(max(side, OPEN_SIDE) for side in input_size[1:]))
    if size != input_size:
        try:
            return size, shapes(shell, graph, size)
        except UsageError:
            pass
    return input_size, own or shapes(shell, graph, input_size)
