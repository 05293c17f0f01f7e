"""Gates of an ONNX graph held at constants: their products become part of the layers around them.

A product by a constant for each channel goes into the weights of all that read it, else of what made its map; where
neither takes it, a product by the constant stays. What made the gates is gone with them. Exact up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from senet_bench.deployment.onnx_gates import gates_of

Array = npt.NDArray[Any]
ANY_FACTOR = frozenset(
    ("Identity", "Dropout", "AveragePool", "GlobalAveragePool", "ReduceMean", "Flatten", "Reshape", "Pad", "Mul", "Div")
)
"""What any factor of a channel passes through."""
NO_NEGATIVE = frozenset(("Relu", "LeakyRelu", "PRelu", "MaxPool", "GlobalMaxPool"))
"""What a factor that is not negative passes through."""
FLATTENING = frozenset(("Flatten", "Reshape"))
FOLDABLE_LAYERS = frozenset(("Conv", "Gemm", "MatMul", "BatchNormalization"))
FIRST_IR = 4
"""The version of ONNX's format from which on constants need not be inputs of the graph."""


@dataclass(frozen=True, slots=True, eq=False)
class _Scaling:
    """Constants of a node that take a factor (C,): of the channels it reads, of those it gives, or of what it adds."""

    node: Any
    side: Literal["in", "out", "term"]
    factor: Array


class OnnxGraph:
    """A model's graph by what makes, reads and holds its values; it is changed in place."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.graph
        self.outputs = {value.name for value in self.graph.output}
        self.made_by: dict[str, Any] = {}
        self.readers: dict[str, list[Any]] = {}
        self.read_inside: set[str] = set()
        """Read by graphs inside of nodes."""
        for node in self.graph.node:
            self.made_by |= dict.fromkeys(filter(None, node.output), node)
            self.read_inside |= set(_read_inside(node))
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.held = {tensor.name: tensor for tensor in self.graph.initializer}

    def constant(self, name: str) -> Array | None:
        """The number or numbers of that name: an initialiser, or what a node `Constant` holds; None for others."""
        from onnx import numpy_helper

        node = self.made_by.get(name)
        while node is not None and node.op_type == "Identity":
            name = node.input[0]
            node = self.made_by.get(name)
        tensor = self.held.get(name)
        if tensor is None and node is not None and node.op_type == "Constant":
            tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def hold(self, name: str, values: Array) -> str:
        """Add a constant under a name that is free, which comes back."""
        from onnx import numpy_helper

        while name in self.held or name in self.made_by:
            name += "_"
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        self.graph.initializer.append(tensor)
        self.held[name] = tensor
        self.model.ir_version = max(self.model.ir_version, FIRST_IR)
        return name

    def prune(self) -> None:
        """Take away what no output needs."""
        needed, nodes = set(self.outputs), list[bool]()
        for node in reversed(self.graph.node):
            nodes.append(bool(needed & set(node.output)))
            if nodes[-1]:
                needed |= {*node.input, *_read_inside(node)}
        dropped = {tensor.name for tensor in self.graph.initializer if tensor.name not in needed}
        _keep(self.graph.node, nodes[::-1])
        _keep(self.graph.initializer, [tensor.name in needed for tensor in self.graph.initializer])
        _keep(self.graph.input, [value.name not in dropped for value in self.graph.input])
        _keep(self.graph.value_info, [value.name in needed for value in self.graph.value_info])

    def replaced(self, value: str, by: str) -> None:
        """Let all readers of a value read another."""
        for node in self.readers.get(value, ()):
            node.input[:] = [by if name == value else name for name in node.input]


def _keep(field: Any, kept: Sequence[bool]) -> None:
    """Take those out of a list of a graph that are not kept."""
    for place in reversed(range(len(kept))):
        if not kept[place]:
            del field[place]


def _read_inside(node: Any) -> Iterator[str]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from inner.input
                yield from _read_inside(inner)
            yield from (value.name for value in graph.output)


def fold(model: Any, gates: Mapping[str, Array]) -> list[str]:
    """Hold the gates of products, named by their nodes, at constants (1, C, 1, 1), in place.

    The names of those come back whose product by the constant stays. Nodes have names (`name_nodes`).
    """
    operands = {gate.product: (gate.map, gate.value) for gate in gates_of(model) if gate.product in gates}
    products = {node.name: node for node in model.graph.node if node.name in gates}
    for name, gate in gates.items():
        product = products[name]
        place = list(product.input).index(operands[name][1])
        product.input[place] = OnnxGraph(model).hold(f"{name}_gate", gate)
    OnnxGraph(model).prune()
    staying = [name for name, gate in gates.items() if not _folded(OnnxGraph(model), products[name], gate)]
    OnnxGraph(model).prune()
    return staying


def _folded(graph: OnnxGraph, product: Any, gate: Array) -> bool:
    """Take a product by a constant into the layers around it; whether it is gone."""
    map_ = next(name for name in product.input if graph.constant(name) is None)
    output, factor = product.output[0], gate.reshape(-1).astype(np.float64)
    if gate.ndim != 4 or gate.shape[1] != gate.size:
        return False
    scalings = _ahead(graph, output, factor, flat=False)
    if scalings is None:
        scalings = _behind(graph, map_, factor, product) if output not in graph.outputs else None
    if scalings is None or output in graph.read_inside:
        return False
    for scaling in scalings:
        _scale(graph, scaling)
    graph.replaced(output, map_)
    return True


def _ahead(graph: OnnxGraph, value: str, factor: Array, *, flat: bool) -> list[_Scaling] | None:
    """The scalings of all that reads a value which stand for its factor; None where one cannot take it."""
    if value in graph.outputs or value in graph.read_inside:
        return None
    scalings: list[_Scaling] = []
    for node in graph.readers.get(value, ()):
        if _takes(graph, node, value, factor, flat=flat):
            scalings.append(_Scaling(node, "in", factor))
        elif _passes(graph, node, value, factor):
            more = _ahead(graph, node.output[0], factor, flat=flat or node.op_type in FLATTENING)
            if more is None:
                return None
            scalings += more
        else:
            return None
    return scalings


def _behind(graph: OnnxGraph, value: str, factor: Array, reader: Any) -> list[_Scaling] | None:
    """The scalings of what made a value that multiply it; None where there are none, or others read it."""
    node = graph.made_by.get(value)
    alone = graph.readers.get(value, []) == [reader] and value not in graph.outputs | graph.read_inside
    if node is None or not alone:
        return None
    if node.op_type in ("Conv", "BatchNormalization"):
        known = all(graph.constant(name) is not None for name in node.input[1:] if name)
        return [_Scaling(node, "out", factor)] if known else None
    if node.op_type == "Add":
        return _behind_sum(graph, node, factor)
    moved = next((name for name in node.input if graph.constant(name) is None), None)
    if moved is None or node.op_type in FLATTENING or not _passes(graph, node, moved, factor):
        return None
    return _behind(graph, moved, factor, node)


def _behind_sum(graph: OnnxGraph, node: Any, factor: Array) -> list[_Scaling] | None:
    """Those of both terms, one of which may be a constant."""
    scalings: list[_Scaling] = []
    for term in node.input:
        if graph.constant(term) is not None:
            scalings.append(_Scaling(node, "term", factor))
            continue
        more = _behind(graph, term, factor, node)
        if more is None:
            return None
        scalings += more
    return scalings


def _takes(graph: OnnxGraph, node: Any, value: str, factor: Array, *, flat: bool) -> bool:
    """Whether a node is a layer whose weights can take the factor of the value it reads."""
    if node.op_type not in FOLDABLE_LAYERS or node.input[0] != value or list(node.input).count(value) != 1:
        return False
    constants = [graph.constant(name) for name in node.input[1:] if name]
    if any(constant is None for constant in constants):
        return False
    if node.op_type in ("Gemm", "MatMul"):
        plain = constants[0] is not None and constants[0].ndim == 2 and not attribute_of(node, "transA", 0)
        transposed = node.op_type == "Gemm" and attribute_of(node, "transB", 0)
        wide = constants[0].shape[1 if transposed else 0] if plain and constants[0] is not None else 1
        return flat and plain and wide % len(factor) == 0
    return not flat


def _passes(graph: OnnxGraph, node: Any, value: str, factor: Array) -> bool:
    """Whether a node gives as much more of each channel as it is given of it."""
    kind = node.op_type
    if kind in NO_NEGATIVE:
        return bool((factor >= 0).all()) and node.input[0] == value
    if kind not in ANY_FACTOR or list(node.input).count(value) != 1 or len(node.output) != 1:
        return False
    if kind in ("Mul", "Div"):
        other = next(name for name in node.input if name != value)
        numbers = graph.constant(other)
        return numbers is not None and numbers.ndim <= 4 and (kind == "Mul" or node.input[0] == value)
    if kind == "Flatten":
        return bool(attribute_of(node, "axis", 1) == 1)
    if kind == "Reshape":
        shape = graph.constant(node.input[1])
        return shape is not None and shape.size == 2 and shape[0] in (0, 1, -1)
    if kind == "ReduceMean":
        return _over_places(graph, node)
    if kind == "Pad":
        return bool(attribute_of(node, "mode", b"constant") == b"constant") and _pads_by_zero(graph, node)
    return True


def _over_places(graph: OnnxGraph, node: Any) -> bool:
    given = graph.constant(node.input[1]) if len(node.input) > 1 else None
    axes = given.tolist() if given is not None else list(attribute_of(node, "axes", ()))
    return bool(sorted(axis % 4 for axis in axes) == [2, 3]) and bool(attribute_of(node, "keepdims", 1))


def _pads_by_zero(graph: OnnxGraph, node: Any) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return not attribute_of(node, "value", 0.0)
    number = graph.constant(node.input[2])
    return number is not None and not number.any()


def attribute_of(node: Any, name: str, usual: Any) -> Any:
    """An attribute of a node, `usual` where it has none."""
    from onnx import helper

    kept = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return usual if kept is None else helper.get_attribute_value(kept)


def _scale(graph: OnnxGraph, scaling: _Scaling) -> None:
    """Multiply constants of a node by a factor for each channel, in new constants of its own."""
    node, factor, kind = scaling.node, scaling.factor, scaling.node.op_type
    constants = {place: graph.constant(name) for place, name in enumerate(node.input) if name}
    for place, constant in constants.items():
        if constant is None:
            continue
        if scaling.side == "term":
            changed = constant.astype(np.float64) * factor[:, None, None]
        elif kind == "BatchNormalization":
            changed = _normalisation(constants, place, scaling)
        elif place == 1:
            changed = constant.astype(np.float64) * _on_weights(node, constant, scaling)
        elif scaling.side == "out":
            changed = constant.astype(np.float64) * factor
        else:
            continue
        node.input[place] = graph.hold(f"{node.name}_{place}_folded", changed.astype(constant.dtype))


def _normalisation(constants: Mapping[int, Array | None], place: int, scaling: _Scaling) -> Array:
    """A constant of a BatchNormalization (scale, bias, mean, variance) after it took the factor."""
    scale, bias, mean, variance = (np.asarray(constants[index], dtype=np.float64) for index in range(1, 5))
    if place == 1:
        return np.asarray(scale * scaling.factor)
    if place == 2 and scaling.side == "out":
        return np.asarray(bias * scaling.factor)
    if place == 2:
        epsilon = attribute_of(scaling.node, "epsilon", 1e-5)
        return np.asarray(bias + scale * mean * (scaling.factor - 1) / np.sqrt(variance + epsilon))
    return mean if place == 3 else variance


def _on_weights(node: Any, weights: Array, scaling: _Scaling) -> Array:
    """The factor in the shape of a layer's weights."""
    inward, factor = scaling.side == "in", scaling.factor
    if node.op_type in ("Gemm", "MatMul"):  # inward
        transposed = node.op_type == "Gemm" and bool(attribute_of(node, "transB", 0))
        factor = factor.repeat(weights.shape[1 if transposed else 0] // len(factor))
        return factor[None, :] if transposed else factor[:, None]
    ones = (1,) * (weights.ndim - 2)
    if not inward:
        return factor.reshape(-1, 1, *ones)
    groups = int(attribute_of(node, "group", 1))
    wide = factor.reshape(groups, -1).repeat(weights.shape[0] // groups, axis=0)
    return wide.reshape(*wide.shape, *ones)
