"""A network as a CUDA graph for each shape of images it meets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class _Capture:
    graph: torch.cuda.CUDAGraph
    given: Tensor
    output: Tensor


class Captured(nn.Module):
    """Runs a network on CUDA images by replaying a graph, captured at the first call with their shape.

    On other devices it calls the network. The weights must stay where they were at the capture.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.captures: dict[tuple[object, ...], _Capture] = {}

    def forward(self, x: Tensor) -> Tensor:
        """The network's output, in memory of its own."""
        if not x.is_cuda or torch.compiler.is_compiling():
            return self.body(x)  # type: ignore[no-any-return]
        key = (x.shape, x.dtype, x.device)
        if key not in self.captures:
            self.captures[key] = self._capture(x)
        found = self.captures[key]
        found.given.copy_(x)
        found.graph.replay()
        return found.output.clone()

    def _capture(self, x: Tensor) -> _Capture:
        given = x.clone(memory_format=torch.channels_last)
        stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.body(given)
        torch.cuda.current_stream(x.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.body(given)
        return _Capture(graph, given, output)
