"""The probe's network: 4 x 4 pixels a cell, two residual units that see one cell each, a block in each of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.errors import MeasurementError
from senet_bench.models.attention import Attend
from senet_bench.probing.tasks import CELL, CELLS, GRID_CELLS

WIDTH, UNITS = 32, 2
"""Channels, and residual units."""


class RandomGate(nn.Module):
    """The control with gates as unequal as a block's that depend on nothing: sigmoids of normal draws, never trained.

    Maps (N, C, H, W) to each channel times its gate; torch's random state decides the draws.
    """

    gate: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("gate", torch.sigmoid(torch.randn(channels, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Each channel times its gate."""
        return x * self.gate


class ProbeUnit(nn.Module):
    """A residual unit of two layers that see a cell each: relu(x + block(BN(W2 relu(BN(W1 x))))), twice as wide inside.

    Cells are rows, (N * 16, C): a linear layer on them is a 1x1 convolution, several times faster on maps this small.
    """

    def __init__(self, channels: int, block: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Linear(channels, 2 * channels, bias=False)
        self.norm1 = nn.BatchNorm1d(2 * channels)
        self.conv2 = nn.Linear(2 * channels, channels, bias=False)
        self.norm2 = nn.BatchNorm1d(channels)
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """The unit's rows, of x's own shape."""
        branch = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)), inplace=True)))
        return F.relu(x + (branch if isinstance(self.block, nn.Identity) else self._gated(branch)), inplace=True)

    def _gated(self, branch: Tensor) -> Tensor:
        """What the block makes of the branch, which it is handed as a map, (N, C, 4, 4)."""
        maps = branch.view(-1, CELLS, CELLS, branch.shape[1]).permute(0, 3, 1, 2).contiguous()
        gated = self.block(maps)
        if not isinstance(gated, Tensor) or gated.shape != maps.shape:
            given = "x".join(map(str, gated.shape)) if isinstance(gated, Tensor) else f"a {type(gated).__name__}"
            raise MeasurementError(
                f"the block turns a map of {'x'.join(map(str, maps.shape))} into {given}",
                "a block maps (N, C, H, W) to the same shape",
            )
        return gated.permute(0, 2, 3, 1).flatten(0, 2)


class ProbeNetwork(nn.Module):
    """A stem of one filter bank a cell, two units, the average over cells, and a linear layer.

    Without blocks its logits are an average over cells, each of a function of that cell alone.
    """

    def __init__(self, in_channels: int, classes: int, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(in_channels * CELL * CELL, width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.units = nn.Sequential(*(ProbeUnit(width, block) for block in blocks))
        self.fc = nn.Linear(width, classes)

    def forward(self, cells: Tensor) -> Tensor:
        """The logits, (N, classes), of images as `in_cells` gives them."""
        rows = self.units(F.relu(self.norm(self.stem(cells.flatten(0, 1))), inplace=True))
        return self.fc(rows.view(-1, GRID_CELLS, rows.shape[1]).mean(1))  # type: ignore[no-any-return]


def keep_as_drawn(network: nn.Module) -> None:
    """Train blocks, norms and the last layer alone: filters and the units' layers keep the weights they have."""
    for module in network.modules():
        if isinstance(module, ProbeNetwork):
            module.stem.requires_grad_(False)
        if isinstance(module, ProbeUnit):
            module.conv1.requires_grad_(False)
            module.conv2.requires_grad_(False)


def in_cells(images: Tensor) -> Tensor:
    """The pixels of each cell side by side, (N, 16, C * 16), of images (N, C, 16, 16)."""
    count, channels = images.shape[:2]
    grid = images.reshape(count, channels, CELLS, CELL, CELLS, CELL)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(count, GRID_CELLS, -1)


def probe_network(
    attend: Attend, *, classes: int, in_channels: int, width: int, units: int, random_gates: bool = False
) -> ProbeNetwork:
    """The network with the block that `attend` gives in each unit, or with random gates that are never trained."""
    blocks = [
        RandomGate(width) if random_gates else attend("standard", width, stage=stage) for stage in range(1, units + 1)
    ]
    return ProbeNetwork(in_channels, classes, blocks, width)
