"""`deploy`: the network as it is run when only its outputs count."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from senet_bench.core.runtimes import DeployEngine
from senet_bench.deployment.blocked import keep_blocked
from senet_bench.deployment.convolution import has_prepacked
from senet_bench.deployment.cuda_graph import Captured
from senet_bench.deployment.dead_pixels import drop_dead_pixels
from senet_bench.deployment.early_squeeze import make_early
from senet_bench.deployment.engines import EngineCall, check_engine, running, write_onnx, write_openvino
from senet_bench.deployment.fold import fold_factors, fold_norms
from senet_bench.deployment.fuse import fuse
from senet_bench.deployment.graph import same_output, same_outputs, traced
from senet_bench.deployment.per_shape import PerShape
from senet_bench.deployment.strided_gates import delay_gates
from senet_bench.errors import MeasurementError, UsageError

__all__ = ["Deployed", "deploy", "has_prepacked", "transformed"]

ImageShape = tuple[int, int, int, int]
IN_TORCH: tuple[DeployEngine, ...] = ("torch", "eager")
"""What runs a network as torch does, in the layout that `Deployed.channels_last` says."""
FILE_WRITERS: dict[str, tuple[DeployEngine, Callable[..., None]]] = {
    ".onnx": ("onnxruntime", write_onnx),
    ".xml": ("openvino", write_openvino),
}
"""By the ending of a file: what must be installed to write it, and the function that does."""


class Deployed(PerShape[EngineCall]):
    """A network for inference; `rewritten` says whether it is more than a copy in evaluation.

    It stays in evaluation whatever mode it is put into: without its BatchNorms it cannot be trained. Copies and files
    of `torch.save` hold the graph, not what an engine made of it. `channels_last` is the layout in which torch runs it.
    """

    channels_last = True

    def __init__(
        self,
        body: nn.Module,
        rewritten: bool,
        engine: DeployEngine = "torch",
        dynamic: bool = False,
        blocked: bool = True,
    ) -> None:
        super().__init__()
        self.body, self.rewritten, self.engine, self.dynamic = body, rewritten, engine, dynamic
        self.blocked = blocked and engine == "onnxruntime" and not dynamic and isinstance(body, fx.GraphModule)
        self.shape: ImageShape | None = None
        self.train(False)

    def forward(self, x: Tensor) -> Any:
        """Images (N, C, H, W) to what the network it was made from gives in evaluation, without gradients."""
        with torch.no_grad():
            if self.engine in IN_TORCH:
                return self.body(_channels_last(x) if self.channels_last and x.dim() == 4 else x)
            return self.run(x)(x)

    def run(self, x: Tensor) -> EngineCall:
        """What its engine makes of it for images like these; made at the first call."""
        key = None if self.dynamic else x.shape, torch.get_num_threads(), x.dtype
        if key not in self.runs:
            call = running(self.engine, self.form(tuple(x.shape)), x, dynamic=self.dynamic)
            if not self.rewritten and not same_output(self.body, call, x):
                raise MeasurementError(f"{self.engine} gives other outputs than the network", 'deploy it for "torch"')
            self.runs[key] = call
        self.shape = tuple(x.shape)  # type: ignore[assignment]
        return self.runs[key]

    def save(self, path: str | Path, shape: ImageShape | None = None) -> None:
        """Write the network to an .onnx file or an OpenVINO .xml, for images of `shape` (N, C, H, W).

        Without one it is the shape of the last call. `dynamic` networks take any number and sides of images.
        """
        path, shape = Path(path), shape or self.shape
        if path.suffix not in FILE_WRITERS:
            raise UsageError(f"{path.name} ends in none of {', '.join(FILE_WRITERS)}", "or keep it by torch.save")
        if shape is None:
            raise UsageError("the images have no shape yet", "give shape=(1, 3, 224, 224)")
        engine, write = FILE_WRITERS[path.suffix]
        check_engine(engine)
        weight = next(self.parameters(), torch.empty(0))
        write(
            self.form(shape), torch.zeros(shape, dtype=weight.dtype, device=weight.device), path, dynamic=self.dynamic
        )

    def form(self, shape: tuple[int, ...]) -> nn.Module:
        """The body as its engine runs it fastest on images of a shape that is known."""
        return keep_blocked(self.body, shape[1:]) if self.blocked else self.body  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> Deployed:
        """Itself, in evaluation."""
        return super().train(False)


def deploy(
    network: nn.Module,
    runtime: DeployEngine = "torch",
    *,
    early_gate: bool = True,
    delayed_gate: bool = True,
    thinned: bool = True,
    blocked: bool = True,
    graph: bool = False,
    dynamic: bool = False,
) -> nn.Module:
    """The network for inference: the same outputs to rounding, faster; `network` is not changed.

    First its graph: BatchNorm is folded into the convolutions, an average squeeze is taken from what the convolution
    before it reads (`early_gate`), a gate waits behind a strided depthwise convolution (`delayed_gate`), pixels that
    nobody reads are not computed (`thinned`). It holds plain operators; for ONNX Runtime they are those that keep maps
    in its blocks of channels (`blocked`). A network that has no static graph, or gives other outputs than its form for
    small random images, becomes its plain copy in evaluation.

    Then what runs it. `torch`: convolutions take the gate, sum and ReLU that follow them, maps that nobody reads again
    are written over, and on a CPU convolutions are oneDNN's packed ones (private operators of torch, tried before they
    are used), which without other packages is the fastest at hand that need not be compiled; the form follows
    `.to(device or dtype)`, and with `graph` CUDA images are run as a CUDA graph for each shape. `eager`: torch,
    operator by operator. `compile`: torch.compile with frozen weights. `onnxruntime`, `openvino`: fp32 on the CPU, by
    packages of the extras `onnx` and `openvino`; of bf16 images OpenVINO calculates in bf16, where the CPU has it.
    These three are made for each shape at its first call, with `dynamic` once for all. Raises `UsageError` for a
    runtime that is unknown or not installed.
    """
    check_engine(runtime)
    module = traced(network)
    if module is not None:
        module = transformed(module, early_gate=early_gate, delayed_gate=delayed_gate, thinned=thinned)
        module = fuse(module) if runtime == "torch" else module
    if module is None or not _agree(network, module):
        deployed = Deployed(copy.deepcopy(network).eval().requires_grad_(False), False, runtime, dynamic)
        deployed.channels_last = runtime not in IN_TORCH or _agree(network, deployed.body)
    else:
        deployed = Deployed(module, True, runtime, dynamic, blocked)
        for tensor in (*deployed.parameters(), *deployed.buffers()) if runtime in IN_TORCH else ():
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return Captured(deployed) if graph else deployed


def _agree(network: nn.Module, form: nn.Module) -> bool:
    """Whether a form gives in channels-last layout what its network gives; on the CPU, without a gate's kernel."""
    network, form = copy.deepcopy(network).eval(), copy.deepcopy(form)
    if any(parameter.device.type not in ("cpu", "meta") for parameter in network.parameters()):
        network, form = network.cpu(), form.cpu()
    return same_outputs(network, lambda x: form(_channels_last(x)))


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def transformed(
    module: fx.GraphModule, *, early_gate: bool = True, delayed_gate: bool = True, thinned: bool = True
) -> fx.GraphModule:
    """The graph of a network for inference, in plain operators: norms folded, gates moved, dead pixels dropped."""
    module = fold_norms(module)
    module = delay_gates(module) if delayed_gate else module
    module = make_early(module) if early_gate else module
    return fold_factors(drop_dead_pixels(module) if thinned else module)
