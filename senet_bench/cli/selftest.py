"""The command `selftest`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer

from senet_bench.api import options as o
from senet_bench.api.parameters import choice
from senet_bench.cli.showing import Showing


@dataclass(frozen=True, slots=True)
class Comparisons:
    """How many comparisons of each kind are made."""

    PANEL: ClassVar[str] = "What is measured"
    null: Annotated[
        int, typer.Option("--null", min=0, max=10**6, help="A/A comparisons (identical sides), for the false alarms.")
    ] = 40
    slower: Annotated[int, typer.Option("--slower", min=0, max=10**6, help="Comparisons with a +5 % slowdown.")] = 20
    visible: Annotated[int, typer.Option("--visible", min=0, max=10**6, help="Comparisons with a +2 % slowdown.")] = 20
    peers: Annotated[
        int, typer.Option("--peers", min=0, max=10**6, help="Comparisons of each kind for the other tools' rules.")
    ] = 10


def selftest(
    comparisons: Comparisons = Comparisons(),
    allocator: Annotated[
        o.AllocatorChoice, typer.Option("--allocator", help=o.ALLOCATOR, **choice("as-is", "tuned"))
    ] = "as-is",
    device: Annotated[str, o.device_option("Where and how it runs")] = "cpu",
    seed: o.Seed = 0,
    showing: Showing = Showing(),
) -> None:
    """How trustworthy timing is on this machine: false alarms, smallest visible change, time to verdict."""
    showing.check()
    from senet_bench.run import selftest, tables

    amounts = selftest.Amounts(
        same=comparisons.null,
        slower=comparisons.slower,
        visible=comparisons.visible,
        peers=comparisons.peers,
        seed=seed,
        device=device,
    )
    record = showing.follow(selftest.run(showing.store, amounts, allocator=allocator))
    showing.emit(tables.selftest_document(record.document))
    showing.stored(record.path)
