"""What part of a network's multiply-adds is never read, as it is written and in its other forms."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from senet_bench.breakdown.parts import replaced
from senet_bench.breakdown.rows import Unread
from senet_bench.deployment.dead_pixels import unread_share
from senet_bench.deployment.early_squeeze import make_early
from senet_bench.deployment.fold import fold_norms
from senet_bench.deployment.graph import traced


def unread_shares(network: nn.Module, blocks: Iterable[str], input_size: tuple[int, ...]) -> Unread | None:
    """The shares for one image of a size; None where it has no static graph, takes no image, or all is read."""
    names = tuple(blocks)
    graph = traced(network) if len(input_size) == 3 else None
    if graph is None:
        return None
    own, early, without = unread_share(graph, input_size), None, None
    if names:
        early = unread_share(make_early(fold_norms(graph)), input_size)
        bare = traced(replaced(network, names, lambda *_: nn.Identity()))
        without = None if bare is None else unread_share(bare, input_size)
    return Unread(own, early, without) if own or without else None
