"""Capturing calls as CUDA graphs: any call, and a network for each shape of images it meets."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from senet_bench.core.devices import kind_of
from senet_bench.deployment.per_shape import PerShape


@dataclass(frozen=True, slots=True)
class Graph:
    """A captured call; `output` is what each replay fills anew, in a pool of `pool_bytes`, held as long as it lives.

    `call` is kept because a graph knows the addresses alone of the weights that the call reads.
    """

    graph: torch.cuda.CUDAGraph
    output: object
    call: Callable[[], object]
    pool_bytes: int = 0

    def replay(self) -> object:
        """The output, after the work was enqueued."""
        for seen in _WATCHING:
            seen[id(self)] = self
        self.graph.replay()
        return self.output


_WATCHING: list[dict[int, Graph]] = []


@contextlib.contextmanager
def replays() -> Iterator[dict[int, Graph]]:
    """The graphs that are replayed meanwhile: a replay allocates nothing, its memory was taken at the capture."""
    seen: dict[int, Graph] = {}
    _WATCHING.append(seen)
    try:
        yield seen
    finally:
        _WATCHING.remove(seen)


def captured(call: Callable[[], object], device: torch.device) -> Graph:
    """The call as a CUDA graph with its own memory pool; three calls on a side stream come first, as torch asks."""
    with torch.cuda.device(device):  # a graph is captured on the current one
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream(device).wait_stream(side)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            output = call()
        return Graph(graph, output, call, torch.cuda.max_memory_allocated(device) - before)


REPEATS, TURNS = 20, 11


def device_seconds(calls: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Seconds of each call as the device runs it in a graph: the median of some replays of 20 calls, in turn."""
    graphs = [captured(functools.partial(_repeated, call), device) for call in calls]
    times: list[list[float]] = [[] for _ in graphs]
    with torch.cuda.device(device):
        for _ in range(TURNS):
            for graph, seconds in zip(graphs, times):
                seconds.append(_replay_seconds(graph) / REPEATS)
    return [statistics.median(seconds) for seconds in times]


def _repeated(call: Callable[[], object]) -> list[object]:
    return [call() for _ in range(REPEATS)]


def _replay_seconds(graph: Graph) -> float:
    """Of a replay that is enqueued behind another, so that the host's launch is not in it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    graph.replay()
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


class Captured(PerShape[tuple[Tensor, Graph]]):
    """Runs a network on CUDA images by replaying a graph, captured at the first call with their shape.

    On other devices it calls the network.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Any:
        """The network's output, in memory of its own."""
        if torch.compiler.is_compiling() or not kind_of(x.device.type).graphs:
            return self.body(x)
        key = (x.shape, x.dtype, x.device)
        if key not in self.runs:
            with torch.inference_mode(False), torch.no_grad():  # so that calls in any mode may write to it
                given = x.clone(memory_format=self._layout(x))
            self.runs[key] = given, captured(lambda: self.body(given), x.device)
        given, graph = self.runs[key]
        given.copy_(x)
        output = graph.replay()
        return output.clone() if isinstance(output, Tensor) else tree_map_only(Tensor, torch.clone, output)

    def _layout(self, x: Tensor) -> torch.memory_format:
        """Channels last for maps, unless the network was deployed for its own layout."""
        last = x.dim() == 4 and getattr(self.body, "channels_last", True)
        return torch.channels_last if last else torch.preserve_format
