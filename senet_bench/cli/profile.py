"""The commands that measure one thing in depth: `profile` and `selftest`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import typer

from senet_bench.cli import options as o
from senet_bench.cli.parameters import choice, within
from senet_bench.cli.showing import Showing
from senet_bench.core.specs import Conditions
from senet_bench.errors import UsageError


def profile(
    model: Annotated[str, typer.Argument(help="The network.")],
    switches: o.Switches = o.Switches(),
    img_size: o.ImageSide = None,
    running: o.Running = o.Running(),
    budget: Annotated[
        float,
        typer.Option(
            "--budget",
            help="Seconds of paired rounds; the whole takes about 1.6x.",
            **within(0.001, o.LONGEST_BUDGET_S),
        ),
    ] = 30.0,
    seed: o.Seed = 0,
    flops_of: o.FlopsOf = None,
    showing: Showing = Showing(),
) -> None:
    """Where the time of a network goes, and SE's share: squeeze, excitation, scale, per stage."""
    conditions, formulas = _one(running), o.formulas_of(flops_of)
    showing.check()
    from senet_bench.breakdown import tables
    from senet_bench.breakdown.profile import run_profile

    spec = switches.network(model, img_size)
    steps = run_profile(spec, showing.store, conditions=conditions, budget_s=budget, seed=seed, formulas=formulas)
    record = showing.follow(steps)
    showing.emit(tables.profile_document(record.document))
    showing.stored(record.path)


def _one(running: o.Running) -> Conditions:
    """The one set of conditions that a profile is taken under; `UsageError` where several are asked for."""
    usual = "compile" if running.torchcompile else "eager"
    conditions = replace(running, runtime=running.runtime or usual).conditions()
    if len({(each.runtime, each.batch_size) for each in conditions}) > 1:
        raise UsageError("a profile is of one runtime and one batch size", "name one --runtime and one --batch-size")
    if running.cold_l2:
        raise UsageError("a profile is taken with a warm cache", "leave out --cold-l2")
    return conditions[0]


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
    device: Annotated[str, typer.Option("--device", help=o.DEVICES, rich_help_panel="Where and how it runs")] = "cpu",
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
