"""Runtimes outside torch, each an extra: ONNX Runtime and OpenVINO. Inference in fp32 only."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.bench.clock import Call
from senet_bench.core.specs import Conditions
from senet_bench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Extra:
    """The extra of the package that brings a runtime, and the modules it needs."""

    name: str
    modules: tuple[str, ...]


EXTRAS = {
    "onnxruntime": Extra("onnx", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": Extra("openvino", ("openvino",)),
}


def check(conditions: Conditions) -> None:
    """Raise `UsageError` on what these runtimes do not do here."""
    if conditions.mode != "infer" or conditions.precision != "fp32" or conditions.channels_last:
        raise UsageError(
            f"{conditions.runtime} runs inference in fp32 with contiguous images only", "leave the other options out"
        )
    if conditions.device != "cpu":
        raise UsageError(f"{conditions.runtime} runs on the CPU here", "use --device cpu")


def build(network: nn.Module, conditions: Conditions, images: Tensor) -> Call:
    """The exported network as a call returning its logits (N, classes) as a NumPy array."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make = {"onnxruntime": _onnxruntime, "openvino": _openvino}[conditions.runtime]
        return make(network.eval(), conditions, images)


def _onnxruntime(network: nn.Module, conditions: Conditions, images: Tensor) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = conditions.threads
    options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(network, (images,), str(path), dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)[0]


def _openvino(network: nn.Module, conditions: Conditions, images: Tensor) -> Call:
    import openvino

    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": conditions.threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.convert_model(network, example_input=images, input=[list(images.shape)])
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    request, feed = compiled.create_infer_request(), [images.numpy()]
    return lambda: request.infer(feed)[compiled.output(0)]
