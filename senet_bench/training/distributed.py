"""One job on several processes: joining them, sharing batches, adding up what each found, and noticing a death.

Started by `torchrun`, which sets RANK, WORLD_SIZE and the meeting point; NCCL on CUDA devices, gloo otherwise.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from senet_bench.bench.device import device_of, present
from senet_bench.errors import LostError, MeasurementError, UsageError, device_failed, first_line

LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "gloo", "nccl", "timed out")


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a job and which of them this is: `rank` of `size`, `local_rank` on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """Whether there are other processes."""
        return self.size > 1


@contextlib.contextmanager
def joined(device: str = "cpu", timeout_s: float = 600.0) -> Iterator[World]:
    """The job this process was started for: alone, or one of those that torchrun started.

    `timeout_s` is how long to wait for a silent process, in seconds.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    place = device_of(own(device, world))
    place.use(world.local_rank)
    try:
        dist.init_process_group(place.backend, timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        raise MeasurementError(
            f"the {size} processes did not meet ({first_line(error)})", "start with torchrun"
        ) from error
    yield world
    dist.destroy_process_group()  # not after an error: with a process gone it can abort this one at its end


def own(device: str, world: World) -> str:
    """The device of this process: of several GPUs that of its place on its machine."""
    if not (world.distributed and device_of(device).several):
        return device
    if torch.device(device).index is not None:
        raise UsageError(f"{device} cannot be shared by {world.size} processes", "use --device cuda: a GPU for each")
    name = f"{device}:{world.local_rank}"
    present(name)
    return name


@contextlib.contextmanager
def watching(world: World, checkpoint: Path | None) -> Iterator[None]:
    """Turn the failure of a device, or the loss of another process, into a `LostError` that says how to go on."""
    try:
        yield
    except RuntimeError as error:
        seen = f"seen by rank {world.rank} of {world.size}: {first_line(error)}"
        if device_failed(error):
            problem = f"the device failed ({seen if world.distributed else first_line(error)})"
        elif world.distributed and any(word in str(error).lower() for word in LOST):
            problem = f"another process of the job died ({seen})"
        else:
            raise
        remedy = f"resume from {checkpoint} with --resume" if checkpoint else "start it again"
        raise LostError(problem, remedy) from error


def summed(values: Tensor, world: World) -> Tensor:
    """The sum over all processes of a tensor."""
    if world.distributed:
        dist.all_reduce(values)
    return values


def gathered(value: Any, world: World) -> list[Any]:
    """What every process holds, in the order of ranks."""
    if not world.distributed:
        return [value]
    parts: list[Any] = [None] * world.size
    dist.all_gather_object(parts, value)
    return parts


def share(count: int, world: World) -> slice:
    """The rows that this process evaluates: each of `count` falls to exactly one process."""
    return slice(world.rank, count, world.size)


def share_buffers(network: nn.Module, world: World) -> None:
    """Give every process the buffers of rank 0; BatchNorms that are not synchronised know each their own images."""
    if world.distributed:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


def wrapped(network: nn.Module, world: World, device: torch.device) -> nn.Module:
    """The network that averages gradients over all processes; itself when there is one process."""
    if not world.distributed:
        return network
    ids = [device.index or 0] if device_of(device).backend == "nccl" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the option has another name in torch 2.15, not in 2.11
        return nn.parallel.DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the global batch, on any device: what one process would compute with all of it.

    Maps (N, C, H, W) to the same shape. Two sums per call go over the network (torch's own works on CUDA only).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise with the mean and variance of all processes' images together."""
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        count = _Sum.apply(torch.tensor([x.numel() / x.shape[1]], device=x.device))
        mean = _Sum.apply(x.sum((0, 2, 3), dtype=torch.float32)) / count
        centred = x - mean[None, :, None, None]
        variance = _Sum.apply((centred * centred).sum((0, 2, 3))) / count
        if self.track_running_stats:
            self._note(mean.detach(), (variance * count / (count - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        out: Tensor = centred * scale[None, :, None, None] + self.bias[None, :, None, None]
        return out.to(x.dtype)

    def _note(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum or 0.1)
        self.running_var.lerp_(variance, self.momentum or 0.1)


class _Sum(torch.autograd.Function):
    """The sum over processes, and of its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def with_global_batchnorm(network: nn.Module, world: World, device: torch.device | None = None) -> nn.Module:
    """The network with BatchNorms over the images of all processes, where there are several.

    They are torch's SyncBatchNorm on CUDA; elsewhere its own are changed in place to `GlobalBatchNorm2d`.
    """
    if world.distributed and device is not None and device_of(device).backend == "nccl":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return synchronised
    for module in network.modules() if world.distributed else ():
        if type(module) is nn.BatchNorm2d:
            if not module.affine:
                raise UsageError(
                    "a BatchNorm without weights cannot be shared by processes",
                    "train in one process, or set affine=True",
                )
            module.__class__ = GlobalBatchNorm2d
    return network
