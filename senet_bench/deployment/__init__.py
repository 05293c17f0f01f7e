"""`deploy`: the network as it is run when only its outputs count."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from senet_bench.deployment.convolution import has_prepacked
from senet_bench.deployment.cuda_graph import Captured
from senet_bench.deployment.dead_pixels import drop_dead_pixels
from senet_bench.deployment.early_squeeze import make_early
from senet_bench.deployment.fold import fold_factors, fold_norms
from senet_bench.deployment.fuse import fuse
from senet_bench.deployment.graph import traced

__all__ = ["Deployed", "deploy", "has_prepacked"]


class Deployed(nn.Module):
    """A network for inference; `rewritten` says whether it is more than a copy in evaluation.

    It stays in evaluation whatever mode it is put into: without its BatchNorms it cannot be trained.
    """

    def __init__(self, body: nn.Module, rewritten: bool) -> None:
        super().__init__()
        self.body = body
        self.rewritten = rewritten
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to what the network it was made from gives in evaluation, without gradients."""
        with torch.no_grad():
            images = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
            return self.body(images)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Deployed:
        """Itself, in evaluation."""
        return super().train(False)


def deploy(network: nn.Module, *, early_gate: bool = True, graph: bool = False) -> nn.Module:
    """The network for inference: the same outputs to rounding, faster; `network` is not changed.

    BatchNorm is folded into the convolutions, an average squeeze is taken from what the convolution before it reads
    (`early_gate`), convolutions take the gate, sum and ReLU that follow them, and maps nobody reads again are written
    over. On a CPU the convolutions are oneDNN's prepacked ones where torch has them, packed at the first call with a
    shape; elsewhere torch's own. With `graph` CUDA images are run as a CUDA graph for each shape. The form follows
    `.to(device or dtype)`. A network that has no static graph becomes its plain copy in evaluation.
    """
    module = traced(network)
    if module is None:
        deployed = Deployed(copy.deepcopy(network).eval().requires_grad_(False), rewritten=False)
    else:
        deployed = Deployed(fuse(transformed(module, early_gate=early_gate)), rewritten=True)
        for tensor in (*deployed.parameters(), *deployed.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return Captured(deployed) if graph else deployed


def transformed(module: fx.GraphModule, *, early_gate: bool = True) -> fx.GraphModule:
    """The graph of a network for inference, in plain operators: norms folded, gates early, dead pixels dropped."""
    module = fold_norms(module)
    module = make_early(module) if early_gate else module
    return fold_factors(drop_dead_pixels(module))
