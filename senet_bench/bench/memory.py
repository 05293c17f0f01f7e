"""Peak memory of a call: what it holds at most beyond what was there before it (weights, images)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from senet_bench.bench.clock import Call
from senet_bench.errors import MeasurementError

Method = Literal["CUDA allocator", "CPU allocator trace", "MPS allocator at the end of a call"]


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """`bytes` is the most that one call held beyond what was live before it; `method` is who counted.

    Both methods count torch's own allocator, workspaces of operators among it, and give the same number every
    time; memory that a library takes past torch (cuDNN handles, oneDNN scratch, another runtime) is not in it.
    """

    bytes: int
    method: Method


def weight_bytes(network: nn.Module) -> int:
    """Bytes of the parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))


def traced_peak(call: Call) -> PeakMemory:
    """The highest running sum of the allocations and frees on the CPU that torch's profiler saw in a call."""
    with (
        muted(),
        torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
        ) as seen,
    ):
        output = call()
        del output
    profiler = seen.profiler
    results = profiler.kineto_results if profiler is not None else None
    if results is None:
        raise MeasurementError("torch's profiler gave no memory trace")
    changes = sorted((e.start_ns(), i, e.nbytes()) for i, e in enumerate(results.events()) if e.name() == "[memory]")
    live = highest = 0
    for _, _, change in changes:
        live += change
        highest = max(highest, live)
    return PeakMemory(highest, "CPU allocator trace")


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Nothing on file descriptor 2: the profiler's native library logs there, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
