"""A classifier of an ONNX file, run by ONNX Runtime: its images, its logits, values inside, and what it costs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet_bench.core.runtimes import RUNTIMES, check_extra
from senet_bench.deployment.engines import arrays_of, inference_session
from senet_bench.deployment.onnx_folding import Array, OnnxGraph, attribute_of
from senet_bench.deployment.onnx_gates import gates_of, name_nodes
from senet_bench.errors import MeasurementError, UsageError, first_line

LAYERS = ("Conv", "Gemm", "MatMul")
STATISTIC_INPUTS = (3, 4)
"""Which inputs of a BatchNormalization are no parameters."""
LEAST_PROBABILITY = 1e-30


def read_model(path: Path) -> Any:
    """The model of an ONNX file, its nodes named; `UsageError` for another file."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "name an ONNX file, or a network with its --weights")
    check_extra(RUNTIMES["onnxruntime"])
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:
        raise UsageError(f"{path} is no file of ONNX ({type(error).__name__})", "export it anew") from error
    if not model.graph.node or len(_inputs(model)) != 1:
        raise UsageError(f"{path} has {len(_inputs(model))} inputs", "give a classifier that takes one image")
    name_nodes(model)
    return model


def _inputs(model: Any) -> list[Any]:
    held = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in held]


def input_shape(model: Any) -> tuple[int | None, ...]:
    """(N, C, H, W) of the images that a model takes, None for what may be any; `UsageError` for no images."""
    (value,) = _inputs(model)
    sizes = (size.dim_value for size in value.type.tensor_type.shape.dim)
    shape = tuple(size if size > 0 else None for size in sizes)
    if len(shape) != 4:
        raise UsageError(f"the input {value.name} has {len(shape)} dimensions", "give a network of images (N, C, H, W)")
    return shape


class OnnxNetwork(nn.Module):
    """A model as a network: images (N, C, H, W) to logits (N, classes), in ONNX Runtime with torch's threads.

    Where it ends in Softmax these are the logarithms of its probabilities. `values` names values inside that
    `inside` gives.
    """

    def __init__(self, model: Any, values: Sequence[str] = ()) -> None:
        super().__init__()
        import onnx

        shown = copy.deepcopy(model) if values else model
        known = {value.name for value in shown.graph.output}
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values if name not in known)
        self.most, self.values = input_shape(model)[0], tuple(values)
        self.probabilities = _ends_in_softmax(model)
        self.content: bytes = shown.SerializeToString()
        self.name, self.output = _inputs(model)[0].name, model.graph.output[0].name
        self.session = _session(self.content)

    def __deepcopy__(self, memo: dict[int, object]) -> OnnxNetwork:
        """The same model in a session of its own."""
        other = OnnxNetwork.__new__(OnnxNetwork)
        nn.Module.__init__(other)
        for name in ("most", "values", "probabilities", "content", "name", "output"):
            setattr(other, name, getattr(self, name))
        other.session = _session(self.content)
        return other

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        (output,) = self._run(x, [self.output])
        logits = torch.from_numpy(output).flatten(1)
        return logits.clamp_min(LEAST_PROBABILITY).log() if self.probabilities else logits

    def inside(self, x: Tensor) -> dict[str, Array]:
        """The values inside that the images give, the images first in each."""
        return dict(zip(self.values, self._run(x, list(self.values))))

    def _run(self, x: Tensor, names: list[str]) -> list[Array]:
        """Those values, in batches of the size the model has."""
        images, most = arrays_of(x), self.most or len(x)
        parts = []
        for start in range(0, len(images), most):
            batch = images[start : start + most]
            filled = batch if len(batch) == most or self.most is None else np.resize(batch, (most, *batch.shape[1:]))
            try:
                given = self.session.run(names, {self.name: filled})
            except Exception as error:
                problem = f"ONNX Runtime cannot run the file: {first_line(error)}"
                raise MeasurementError(problem, "check its images' size") from error
            parts.append([array[: len(batch)] for array in given])
        return [np.concatenate(column) for column in zip(*parts)]


def _session(content: bytes) -> Any:
    try:
        return inference_session(content, quiet=True)
    except Exception as error:
        raise MeasurementError(f"ONNX Runtime cannot take the file: {first_line(error)}", "export it anew") from error


def _ends_in_softmax(model: Any) -> bool:
    graph = OnnxGraph(model)
    node = graph.made_by.get(model.graph.output[0].name)
    while node is not None and node.op_type in ("Identity", "Reshape", "Cast"):
        node = graph.made_by.get(node.input[0])
    return node is not None and node.op_type == "Softmax"


def weight_count(model: Any) -> int:
    """Floating-point numbers that the nodes read as constants, without BatchNorm's statistics."""
    graph, constants = OnnxGraph(model), dict[str, int]()
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            statistic = node.op_type == "BatchNormalization" and place in STATISTIC_INPUTS
            values = None if statistic or node.op_type == "Identity" else graph.constant(name)
            if values is not None and values.dtype.kind == "f":
                constants[name] = values.size
    return sum(constants.values())


def multiply_adds(model: Any, image: Tensor, products: Sequence[str]) -> int:
    """Of convolutions and linear layers for one image (1, C, H, W), and one for each element a gate multiplies."""
    graph = OnnxGraph(model)
    layers = [node for node in model.graph.node if node.op_type in LAYERS]
    gated = [node for node in model.graph.node if node.name in products]
    shapes = OnnxNetwork(model, [node.output[0] for node in (*layers, *gated)]).inside(image)
    total = sum(int(shapes[node.output[0]][0].size) for node in gated)
    for node in layers:
        weights = graph.constant(node.input[1])
        if weights is not None:
            total += int(shapes[node.output[0]][0].size) * _inner(node, weights)
    return total


def _inner(node: Any, weights: Array) -> int:
    """Multiply-adds for an element that a layer gives."""
    if node.op_type == "Gemm":
        return int(weights.shape[1 if attribute_of(node, "transB", 0) else 0])
    return int(weights.shape[-2]) if node.op_type == "MatMul" else int(np.prod(weights.shape[1:]))


def channel_gates(model: Any) -> dict[str, str]:
    """The value that gates each product, by the product's node."""
    return {gate.product: gate.value for gate in gates_of(model)}
