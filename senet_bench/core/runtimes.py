"""What is known of the ways to run a network before torch is loaded: a row each."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from senet_bench.core.specs import Runtime
from senet_bench.errors import UsageError

DeployEngine = Literal["torch", "eager", "compile", "onnxruntime", "openvino"]
"""What runs a deployed network: torch with convolutions packed beforehand, or its plain operators in one of these."""


FASTEST: Runtime = "fastest"
"""What stands for the fastest runtime that is installed, where networks are compared."""


@dataclass(frozen=True, slots=True)
class Extra:
    """The extra of the package that brings a runtime, and the modules it needs."""

    name: str
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """A way to run a network: what runs it, and whether what is run is the deploy form.

    `trains`: it makes training steps too. `graphs`: it replays CUDA graphs. A runtime with an `extra` is not torch: it
    infers on a CPU with contiguous images, in fp32 or with `bf16` in that too, and its memory is its own. `int8`: what
    it is given in fp32 it quantises, all of it or, with `gates_fp32`, all but the gates.
    """

    about: str
    engine: DeployEngine = "eager"
    deployed: bool = False
    trains: bool = False
    graphs: bool = False
    extra: Extra | None = None
    bf16: bool = False
    int8: bool = False
    gates_fp32: bool = False


ONNX = Extra("onnx", ("onnx", "onnxruntime"))
OPENVINO = Extra("openvino", ("openvino",))
NNCF = Extra("int8", ("onnx", "openvino", "nncf"))
RUNTIMES: dict[Runtime, RuntimeFacts] = {
    "eager": RuntimeFacts("torch, operator by operator", trains=True),
    "compile": RuntimeFacts("torch.compile", "compile", trains=True),
    "cudagraph": RuntimeFacts("torch, replayed as a CUDA graph", trains=True, graphs=True),
    "onnxruntime": RuntimeFacts("ONNX Runtime", "onnxruntime", extra=ONNX),
    "openvino": RuntimeFacts("OpenVINO", "openvino", extra=OPENVINO, bf16=True),
    "deploy": RuntimeFacts("the deploy form in torch, convolutions packed beforehand", "torch", deployed=True),
    "deploy:eager": RuntimeFacts("the deploy form in torch, operator by operator", "eager", deployed=True),
    "deploy:compile": RuntimeFacts("the deploy form in torch.compile, weights frozen", "compile", deployed=True),
    "deploy:onnxruntime": RuntimeFacts("the deploy form in ONNX Runtime", "onnxruntime", deployed=True, extra=ONNX),
    "deploy:openvino": RuntimeFacts(
        "the deploy form in OpenVINO", "openvino", deployed=True, extra=OPENVINO, bf16=True
    ),
    "onnxruntime:int8": RuntimeFacts("ONNX Runtime, static QDQ", "onnxruntime", extra=ONNX, int8=True),
    "onnxruntime:int8-fp32gates": RuntimeFacts(
        "ONNX Runtime, static QDQ but for the gates", "onnxruntime", extra=ONNX, int8=True, gates_fp32=True
    ),
    "openvino:int8": RuntimeFacts("OpenVINO, quantised by NNCF", "openvino", extra=NNCF, int8=True),
    "openvino:int8-fp32gates": RuntimeFacts(
        "OpenVINO, quantised by NNCF but for the gates", "openvino", extra=NNCF, int8=True, gates_fp32=True
    ),
}
ENGINES: dict[DeployEngine, RuntimeFacts] = {facts.engine: facts for facts in RUNTIMES.values() if facts.deployed}
"""By what `deploy` takes as its `runtime`."""


def check_known(name: str) -> None:
    """Raise `UsageError` for what is no runtime; TensorRT is read from a file that `deploy(...).save` writes."""
    if name in RUNTIMES:
        return
    remedy = f"choose from {', '.join(RUNTIMES)}"
    if name == FASTEST:
        raise UsageError("the fastest runtime is looked for where networks are compared", remedy)
    remedy = f"{remedy}, {FASTEST}"
    if name.removeprefix("deploy:") == "tensorrt":
        raise UsageError("TensorRT is not run from here", f"{remedy}, or give trtexec deploy(network).save('x.onnx')")
    raise UsageError(f"runtime {name!r} is unknown", remedy)


def check_listed(text: str) -> None:
    """Raise `UsageError` for a list, parted by commas, with what is neither a runtime nor `fastest`."""
    for name in text.split(","):
        if name.strip() != FASTEST:
            check_known(name.strip())


def entrants(*, training: bool = False, graphs: bool = False) -> tuple[Runtime, ...]:
    """The runtimes among which the fastest is looked for: eager, and all in fp32 that are made ready in seconds.

    With `training` those that make training steps; CUDA graphs where the device has `graphs`.
    """
    left = {name: facts for name, facts in RUNTIMES.items() if facts.engine != "compile" and not facts.int8}
    return tuple(n for n, facts in left.items() if (facts.trains or not training) and (graphs or not facts.graphs))


def missing_modules(facts: RuntimeFacts) -> tuple[str, ...]:
    """What a runtime needs and is not installed."""
    modules = facts.extra.modules if facts.extra else ()
    return tuple(name for name in modules if importlib.util.find_spec(name) is None)


def check_extra(facts: RuntimeFacts) -> None:
    """Raise `UsageError` that tells how to install what a runtime lacks."""
    missing = missing_modules(facts)
    if facts.extra and missing:
        install = f'run: python -m pip install "senet-bench[{facts.extra.name}]"'
        raise UsageError(f"{facts.engine} needs {', '.join(missing)}", install)
