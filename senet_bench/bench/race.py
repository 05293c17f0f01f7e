"""Which runtime is fastest for a network: all that are installed, in the same rounds."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import nn

from senet_bench.bench.agreement import witness
from senet_bench.bench.device import device_of
from senet_bench.bench.latency import fitting_plan, halved
from senet_bench.bench.machine import session, settled
from senet_bench.bench.reference import Reference
from senet_bench.bench.rounds import Factory, Plan, measure_latency
from senet_bench.bench.runtimes import can_be_graph, example, prepare
from senet_bench.bench.samples import Comparison
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.results import RuntimeStanding
from senet_bench.core.runtimes import entrants
from senet_bench.core.specs import Conditions, Runtime
from senet_bench.core.statistics import hodges_lehmann, interval
from senet_bench.errors import ArmError, MeasurementError, UsageError, out_of_memory

EAGER: Runtime = "eager"
RACE_LEVEL = 0.025
"""The probability with which each bound of an interval is missed."""


def race(
    network: nn.Module | Reference, input_size: tuple[int, ...], conditions: Conditions, plan: Plan
) -> Steps[list[RuntimeStanding]]:
    """How the runtimes stand, fastest first, then those that do not run here; the conditions' own is not looked at.

    The batch is halved while memory runs out. Raises `MeasurementError` when eager torch fails.
    """
    while True:
        try:
            return (yield from _raced(network, input_size, conditions, plan))
        except Exception as error:  # noqa: BLE001 - `halved` raises what is not of memory
            conditions = halved(conditions, error)
            yield Progress(f"batch {conditions.batch_size}: memory ran out", 0.0, plan.budget_s)


def _raced(
    network: nn.Module | Reference, input_size: tuple[int, ...], conditions: Conditions, plan: Plan
) -> Steps[list[RuntimeStanding]]:
    images, ready = example(input_size, conditions.batch_size), dict[str, Factory]()
    out: list[RuntimeStanding] = []
    device, reference = device_of(conditions.device), Reference.of(network)
    graphs = can_be_graph(reference.network, device)
    with session(replace(conditions, runtime=EAGER)):
        for runtime in entrants(training=conditions.mode == "train", graphs=graphs):
            try:
                under = settled(replace(conditions, runtime=runtime))
                ready[runtime] = prepare(reference, under, images).factory
            except (UsageError, MeasurementError) as error:
                if runtime == EAGER or out_of_memory(error):
                    raise
                out.append(RuntimeStanding(runtime=runtime, reason=str(error), batch_size=conditions.batch_size))
            yield Progress(f"preparing {runtime}", 0.0, plan.budget_s)
        plan = fitting_plan(plan, conditions)
        while True:
            clock = device.clock(conditions)
            try:
                comparison = yield from measure_latency(ready, EAGER, plan=plan, clock=clock, witness=witness)
            except ArmError as error:
                if error.arm == EAGER:
                    raise
                del ready[error.arm]
                out.append(RuntimeStanding(runtime=error.arm, reason=str(error), batch_size=conditions.batch_size))
                yield Progress(f"without {error.arm}", 0.0, plan.budget_s)
            else:
                return [*_standings(comparison, conditions.batch_size), *out]


def _standings(comparison: Comparison, batch_size: int) -> list[RuntimeStanding]:
    order = sorted(comparison.arms, key=lambda name: comparison.latency(name).seconds)
    standings = []
    for name, slower in zip(order, [*order[1:], None]):
        latency = comparison.latency(name)
        behind, bounds = (None, None) if slower is None else _apart(comparison, slower, name)
        standings.append(
            RuntimeStanding(
                runtime=name, seconds=latency.seconds, ratio=latency.ratio or 1.0, ci=latency.ci, behind=behind,
                behind_ci=bounds, batch_size=batch_size,
            )
        )  # fmt: skip
    return standings


def _apart(comparison: Comparison, name: str, other: str) -> tuple[float | None, tuple[float, float] | None]:
    """The time of one runtime as a fraction of another's, with its interval."""
    ratios = comparison.samples.log_ratios(name, other)
    if not ratios.size:
        return None, None
    bounds = interval(ratios, RACE_LEVEL)
    return math.exp(hodges_lehmann(ratios)), (math.exp(bounds[0]), math.exp(bounds[1])) if bounds else None
