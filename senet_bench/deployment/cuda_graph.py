"""Capturing calls as CUDA graphs: any call, and a network for each shape of images it meets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from senet_bench.core.devices import kind_of


@dataclass(frozen=True, slots=True)
class Graph:
    """A captured call; `output` is what each replay fills anew, in a pool of `pool_bytes`, held as long as it lives."""

    graph: torch.cuda.CUDAGraph
    output: object
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
    with torch.cuda.graph(graph):
        output = call()
    return Graph(graph, output, torch.cuda.max_memory_allocated(device) - before)


class Captured(nn.Module):
    """Runs a network on CUDA images by replaying a graph, captured at the first call with their shape.

    On other devices it calls the network. The weights must stay where they were at the capture.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.captures: dict[tuple[object, ...], tuple[Tensor, Graph]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """The network's output, in memory of its own."""
        if torch.compiler.is_compiling() or not kind_of(x.device.type).graphs:
            return self.body(x)  # type: ignore[no-any-return]
        key = (x.shape, x.dtype, x.device)
        if key not in self.captures:
            given = x.clone(memory_format=torch.channels_last)
            self.captures[key] = given, captured(lambda: self.body(given), x.device)
        given, graph = self.captures[key]
        given.copy_(x)
        output: Tensor = graph.replay()  # type: ignore[assignment]
        return output.clone()
