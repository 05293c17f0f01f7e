"""How arithmetic is done: number formats, memory formats, compilation."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.core.specs import Precision
from senet_bench.errors import UsageError


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """A context in which the network computes in `precision`; the weights stay float32."""
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 does not train on a CPU", "use --precision bf16")
    if precision in ("bf16", "fp16"):
        return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)
    return contextlib.nullcontext()


def laid_out(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """(N, C, H, W) on the device in the memory format that the network is run in."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, non_blocking=True).contiguous(memory_format=layout)


def compiled(network: nn.Module) -> Any:
    """The network behind `torch.compile`, with a cache folder of this process's own unless one is set.

    An empty file left in a shared cache would break every later compilation.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.mkdtemp(prefix="senet-bench-inductor-"))
    return torch.compile(network)
