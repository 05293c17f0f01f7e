"""What runs plain operators: torch.compile with its weights frozen, ONNX Runtime, OpenVINO; and their files."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.core.runtimes import ENGINES, DeployEngine, check_extra
from senet_bench.errors import UsageError, first_line

EngineCall = Callable[[Tensor], Any]
"""Images (N, C, H, W) to what the network returns."""
OPSET = 17
_numbered = itertools.count()


class Running:
    """An exported model as a call of what runs it, begun at the first call; a copy begins the same model once more."""

    def __init__(self, model: Any, begin: Callable[[Any], EngineCall]) -> None:
        self.model, self.begin = model, begin

    @functools.cached_property
    def _call(self) -> EngineCall:
        return self.begin(self.model)

    def __call__(self, x: Tensor) -> Any:
        """Images (N, C, H, W) to what the network returns."""
        return self._call(x)

    def __deepcopy__(self, memo: dict[int, object]) -> Running:
        return Running(self.model, self.begin)


def openvino_module() -> Any:
    """OpenVINO without its telemetry, which forks this process for each model that it tells the network of."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@functools.cache
def openvino_core() -> Any:
    """The one Core of this process, kept to its end.

    Each Core has handlers of signals run on a stack of its own, and where several are freed one that is gone stays in
    use: the next signal, such as Ctrl-C, would end the process without a word.
    """
    return openvino_module().Core()


def check_engine(engine: DeployEngine) -> None:
    """Raise `UsageError` for an engine that is unknown or not installed."""
    if engine not in ENGINES:
        raise UsageError(f"deploy knows no runtime {engine!r}", f"choose from {', '.join(ENGINES)}")
    check_extra(ENGINES[engine])


def running(engine: DeployEngine, network: nn.Module, images: Tensor, *, dynamic: bool = False) -> EngineCall:
    """The network in evaluation as a call of the engine, with torch's number of threads.

    It takes images of the shape of `images`, with `dynamic` of any number and sides.
    """
    if engine in ("torch", "eager"):
        return network
    if engine == "compile":
        return torch_compiled(network, frozen=True, dynamic=dynamic)
    with _quiet():
        return (_onnxruntime if engine == "onnxruntime" else _openvino)(network, images, dynamic)


def torch_compiled(network: nn.Module, *, frozen: bool = False, dynamic: bool = False) -> EngineCall:
    """torch.compile of the whole graph, each network with a code object of its own; `frozen`: weights are constants.

    Dynamo's recompile limit counts by code object, and the guards of one network must not be walked through by another.
    """

    def run(x: Tensor) -> Any:
        return network(x)

    run.__code__ = run.__code__.replace(co_name=f"run_{next(_numbered)}")
    call: EngineCall = torch.compile(
        run, fullgraph=True, dynamic=dynamic, options={"freezing": True} if frozen else None
    )
    return call


def write_onnx(network: nn.Module, images: Tensor, path: Path, *, dynamic: bool = False) -> None:
    """The network as an ONNX file; with `dynamic` for any number and sides of images."""
    whole = nn.Sequential(network)  # the exporter takes a module with a `graph` for one of TorchScript
    axes = {"image": {0: "images", 2: "height", 3: "width"}, "output": {0: "images"}} if dynamic else None
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                whole, (images,), str(path), dynamo=False, opset_version=OPSET, input_names=["image"],
                output_names=["output"], dynamic_axes=axes,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        remedy = "leave out dynamic" if dynamic else "use another runtime"
        raise UsageError(f"ONNX cannot express the network: {first_line(error)}", remedy) from error


def write_openvino(network: nn.Module, images: Tensor, path: Path, *, dynamic: bool = False) -> None:
    """The network as OpenVINO's .xml, with its weights beside it in a .bin."""
    with _quiet():
        openvino_module().save_model(_openvino_model(network, images, dynamic), str(path), compress_to_fp16=False)


def _onnxruntime(network: nn.Module, images: Tensor, dynamic: bool) -> EngineCall:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(network, images, path, dynamic=dynamic)
        return Running(path.read_bytes(), onnxruntime_session)


def onnxruntime_session(model: bytes) -> EngineCall:
    """The content of an ONNX file as a call of ONNX Runtime, with torch's number of threads."""
    session = inference_session(model)
    name = session.get_inputs()[0].name
    return lambda x: _tensors(session.run(None, {name: arrays_of(x)}))


def inference_session(model: bytes, *, quiet: bool = False) -> Any:
    """The content of an ONNX file in ONNX Runtime on the CPU; `quiet` without its warnings of the exporter's work."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3 if quiet else options.log_severity_level
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _openvino(network: nn.Module, images: Tensor, dynamic: bool) -> EngineCall:
    request = functools.partial(openvino_request, bf16=images.dtype is torch.bfloat16)
    return Running(_openvino_model(network, images.float(), dynamic), request)


def openvino_request(model: Any, *, bf16: bool = False) -> EngineCall:
    """A model of OpenVINO as a call on the CPU, with torch's number of threads; its outputs are fp32.

    It calculates in fp32, or what the model is quantised to, or with `bf16` in that, and then takes images of either.
    """
    core = openvino_core()
    if bf16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UsageError("OpenVINO has no bf16 on this CPU", "use fp32")
    precision = "bf16" if bf16 else "f32"
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda x: _tensors(request.infer([arrays_of(x.float() if bf16 else x)], share_inputs=True).to_tuple())


def _openvino_model(network: nn.Module, images: Tensor, dynamic: bool) -> Any:
    shape = [-1, images.shape[1], -1, -1] if dynamic else list(images.shape)
    network = copy.deepcopy(network).float() if _is_reduced(network) else network
    with torch.no_grad():
        script: Any = torch.jit.trace(network, images, check_trace=False)  # type: ignore[no-untyped-call]
    return openvino_module().convert_model(script, example_input=images, input=[shape])


def _is_reduced(network: nn.Module) -> bool:
    return any(p.dtype.is_floating_point and p.dtype is not torch.float32 for p in network.parameters())


def arrays_of(x: Tensor) -> Any:
    """The images as an array; `UsageError` where these runtimes cannot take them."""
    if x.device.type != "cpu" or x.dtype is not torch.float32:
        raise UsageError(f"this runtime takes fp32 images on the CPU, not {x.dtype} on {x.device}", "convert them")
    return x.detach().contiguous().numpy()


def _tensors(arrays: Sequence[Any]) -> Any:
    outputs = tuple(map(torch.from_numpy, arrays))
    return outputs[0] if len(outputs) == 1 else outputs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of what is on purpose: sizes that are known become constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
