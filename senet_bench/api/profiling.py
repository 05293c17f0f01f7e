"""`profile`: where the time of one network goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from senet_bench.api import options as o
from senet_bench.api.measuring import Running, formulas_of
from senet_bench.api.networks import Switches
from senet_bench.api.parameters import within
from senet_bench.api.reading import RESULTS, Results
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.core.specs import Conditions
from senet_bench.errors import UsageError


def profile(
    model: Annotated[str, typer.Argument(help="The network.")],
    switches: Switches = Switches(),
    img_size: o.ImageSide = None,
    input_size: o.InputShape = None,
    running: Running = Running(),
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
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Result:
    """Where the time of a network goes, and SE's share: squeeze, excitation, scale, per stage."""
    conditions, formulas = _one(running), formulas_of(flops_of)
    from senet_bench.breakdown import tables
    from senet_bench.breakdown.profile import run_profile
    from senet_bench.core.store import Store

    store = Store(results)
    spec = switches.network(model, img_size, input_size)
    steps = run_profile(spec, store, conditions=conditions, budget_s=budget, seed=seed, formulas=formulas)
    record = watch.follow(steps)
    return Result.of(tables.profile_document(record.document), record)


def _one(running: Running) -> Conditions:
    """The one set of conditions that a profile is taken under; `UsageError` where several are asked for."""
    if running.cold_l2:
        raise UsageError("a profile is taken with a warm cache", "leave out --cold-l2")
    named = running.runtime or running.torchcompile
    conditions = (running if named else replace(running, runtime="eager")).conditions()
    if len({(each.runtime, each.batch_size) for each in conditions}) > 1:
        raise UsageError("a profile is of one runtime and one batch size", "name one --runtime and one --batch-size")
    return conditions[0]
