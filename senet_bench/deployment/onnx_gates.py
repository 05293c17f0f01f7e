"""The gates of an ONNX graph: products of a map with what is made of its own mean over the places, by pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ONNX_SQUEEZES = frozenset(("GlobalAveragePool", "ReduceMean"))
MOST_NODES = 40
"""What lies between a squeeze and its product is shorter than this."""


@dataclass(frozen=True, slots=True)
class OnnxGate:
    """A product (the name of its node), the value that gates the map, and the names of the nodes that make it."""

    product: str
    map: str
    value: str
    nodes: tuple[str, ...]


def name_nodes(model: Any) -> None:
    """Give every node of the graph without a name one."""
    taken = {node.name for node in model.graph.node}
    for place, node in enumerate(model.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{place}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)


def gates_of(model: Any) -> list[OnnxGate]:
    """The gates in the order of the graph, whose nodes have names."""
    made_by = {output: node for node in model.graph.node for output in node.output}
    gates = []
    for node in model.graph.node:
        if node.op_type == "Mul":
            for value, map_ in (tuple(node.input), tuple(node.input)[::-1]):
                nodes = _excitation(value, map_, made_by)
                if nodes:
                    gates.append(OnnxGate(node.name, map_, value, nodes))
                    break
    return gates


def _excitation(value: str, map_: str, made_by: dict[str, Any]) -> tuple[str, ...]:
    """The nodes that make the value of nothing but the map and constants, where they squeeze it; else none."""
    nodes: dict[str, Any] = {}
    open_ = [value]
    while open_:
        name = open_.pop()
        node = made_by.get(name)
        if name == map_ or node is None or node.name in nodes:
            continue
        nodes[node.name] = node
        if len(nodes) > MOST_NODES:
            return ()
        open_ += node.input
    read = {name for node in nodes.values() for name in node.input}
    squeezed = any(node.op_type in ONNX_SQUEEZES and map_ in node.input for node in nodes.values())
    return tuple(nodes) if squeezed and map_ in read else ()
