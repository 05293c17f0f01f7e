"""The engine of `profile`: where the time of a network goes, by stage and by what attention does (see `breakdown`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.bench.clock import Clock
from senet_bench.bench.count import weight_bytes
from senet_bench.bench.device import device_of
from senet_bench.bench.latency import NetworkLatency, measure_networks
from senet_bench.bench.machine import session, settled
from senet_bench.bench.rounds import Plan
from senet_bench.bench.runtimes import FAILURES, example, weight_type
from senet_bench.breakdown.estimates import EAGER_ONLY, NOT_SPLIT, Seen, profile_of
from senet_bench.breakdown.parts import Stage, Traced, replaced, trace_parts
from senet_bench.breakdown.roofline import launch_seconds, measure_device
from senet_bench.breakdown.rows import Profile, ProfileConditions, ProfileFacts
from senet_bench.breakdown.timeline import profiled, time_stages
from senet_bench.breakdown.unread import unread_shares
from senet_bench.core.foreign import contained
from senet_bench.core.formulas import Formulas
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.results import Facts
from senet_bench.core.specs import Conditions, ModelSpec
from senet_bench.core.store import Store
from senet_bench.errors import BenchError, UsageError, first_line, out_of_memory
from senet_bench.models import attention_blocks, build_spec
from senet_bench.run.record import Record, header

BUDGET_S = 20.0
WITNESS_SHARE = 0.1
"""Of the plan's budget, what the stage times and the profiler each take in addition."""
DEVICE_SHARE = 0.5
"""The same of the rounds in a GPU's own time."""


def profile_network(
    network: nn.Module,
    input_size: tuple[int, ...],
    *,
    conditions: Conditions | None = None,
    plan: Plan | None = None,
    clock: Clock | None = None,
    formulas: Formulas | None = None,
) -> Steps[Profile]:
    """The profile of a network of (C, H, W) images, which is not changed; yields what is done and the budget's use.

    The plan's budget goes to the rounds; stages, profiler and device take about a third of it more, the same rounds in
    the own time of a GPU half of it. All arms run to the end: `gate` and `looks` of the plan play no role. A network
    without attention has stages only, and those in eager inference only. Raises `UsageError` for conditions that are
    not to be had, `MeasurementError` where the budget holds no round, else as `measure_networks`.
    """
    conditions, plan = settled(conditions or Conditions()), plan or Plan(budget_s=BUDGET_S)
    yield Progress("trace", 0.0, plan.budget_s)
    with session(conditions):
        with contained(type(network).__name__, draws=True):
            traced = trace_parts(network, input_size, formulas)
        seen = _seen(network, traced, input_size, conditions, replace(plan, looks=1, gate=None, family=False))
    if seen.traced:
        made = arms(network, seen.traced, seen.stages, conditions.batch_size, split=seen.split)
        seen.latency = yield from measure_networks(
            made, "full", input_size, conditions=conditions, plan=seen.plan, clock=clock
        )
        seen.latency.latency("full")  # raises where no round counts
        seen.missing.update(seen.latency.failed)
        seen.conditions = seen.latency.conditions
        seen.on_device = yield from _device_time(seen, made)
    with session(seen.conditions):
        yield from _witnesses(seen, network, clock)
    return profile_of(seen)


def _seen(
    network: nn.Module,
    parts: tuple[tuple[Stage, ...], dict[str, Traced]],
    input_size: tuple[int, ...],
    conditions: Conditions,
    plan: Plan,
) -> Seen:
    """The network's structure, and whether its attention can be taken apart under these conditions."""
    stages, traced = parts
    if not traced and not _by_module(conditions):
        raise UsageError("a network without attention is profiled in eager inference only", "use --runtime eager")
    apart = all(block.apart for block in traced.values())
    weights = weight_bytes(network, weight_type(conditions))
    seen = Seen(input_size, conditions, stages, traced, plan, weights, split=False)
    seen.split = bool(traced) and apart and seen.same_work
    seen.not_split = "" if seen.split else NOT_SPLIT if not apart else EAGER_ONLY
    return seen


def _by_module(conditions: Conditions) -> bool:
    """Whether modules run one after the other, so that they can be timed by themselves."""
    return conditions.mode == "infer" and conditions.runtime == "eager"


def _device_time(seen: Seen, made: Mapping[str, nn.Module]) -> Steps[NetworkLatency | None]:
    """The arms in the device's own time, by events around work that is queued; None where it has none at that batch."""
    if not device_of(seen.conditions.device).captures or seen.conditions.timing == "device":
        return None
    alone, plan = (
        replace(seen.conditions, timing="device"),
        replace(seen.plan, budget_s=DEVICE_SHARE * seen.plan.budget_s),
    )
    try:
        measured = yield from measure_networks(made, "full", seen.input_size, conditions=alone, plan=plan)
        measured.comparison.latency("full")
    except BenchError as error:
        seen.missing["device time"] = first_line(error)
        return None
    if measured.halved_to is not None:
        seen.missing["device time"] = f"out of memory with batch {alone.batch_size}"
        return None
    seen.missing.update({f"{arm} in device time": why for arm, why in measured.failed.items()})
    return measured


def _witnesses(seen: Seen, network: nn.Module, clock: Clock | None) -> Iterator[Progress]:
    """Stage times, profiler and device limits; what fails is noted and left out."""
    conditions, images = seen.conditions, example(seen.input_size, seen.conditions.batch_size)
    device, whole = device_of(conditions.device), seen.plan.budget_s
    clock = clock or device.clock(conditions)
    budget_s = WITNESS_SHARE * whole
    if _by_module(conditions):
        yield Progress("stages", whole, whole)
        _try(seen, "stages", lambda: _time_stages(seen, network, images, clock, budget_s))
        yield Progress("profiler", whole, whole)
        _try(seen, "profiler", lambda: _profile(seen, network, images, budget_s))
    else:
        seen.missing.update(stages=EAGER_ONLY, profiler=EAGER_ONLY)
    if seen.traced and seen.same_work:
        yield Progress("device", whole, whole)
        alone = replace(conditions, timing="device", cache="warm")
        busy = device.clock(alone) if device.captures else clock
        seen.device = measure_device(conditions, clock, busy)
        block = network.get_submodule(next(iter(seen.traced)))
        seen.launch = launch_seconds(block, conditions, clock, split=seen.split)
        if seen.on_device is not None:
            seen.launch_on_device = launch_seconds(block, alone, busy, split=seen.split)


def _time_stages(seen: Seen, network: nn.Module, images: Tensor, clock: Clock, budget_s: float) -> None:
    seen.times = time_stages(network, seen.stages, seen.conditions, images, clock.now, budget_s)


def _profile(seen: Seen, network: nn.Module, images: Tensor, budget_s: float) -> None:
    seen.profiled = profiled(network, seen.stages, seen.conditions, images, budget_s)


def _try(seen: Seen, name: str, measure: Callable[[], None]) -> None:
    try:
        measure()
    except (*FAILURES, BenchError, MemoryError) as error:
        seen.missing[name] = "out of memory" if out_of_memory(error) else first_line(error)


def run_profile(
    spec: ModelSpec,
    store: Store,
    *,
    conditions: Conditions,
    budget_s: float,
    seed: int,
    formulas: Formulas | None = None,
) -> Steps[Record[ProfileFacts]]:
    """The record of a profile: the parts of attention as rows, the stages as details; yields the budget's use."""
    store.check()
    if not 0 < budget_s <= 3600:
        raise UsageError(f"a budget of {budget_s:g} s measures nothing or too much", "give some seconds, such as 30")
    conditions = settled(conditions)
    if spec.trunk is not None:
        raise UsageError(f"{spec.name} is a detector, of which SE's share is not taken apart", f"profile {spec.trunk}")
    network = ProfileConditions(
        model=spec.name,
        label=spec.label,
        budget_s=budget_s,
        flops_of=formulas.source if formulas else None,
        guessed_side=spec.input_size[-1] if spec.guessed_size else None,
        **asdict(conditions),
    )
    begun, plan = header("profile", network), Plan(budget_s=budget_s, seed=seed)
    built = build_spec(spec)
    profile = yield from profile_network(built, spec.input_size, conditions=conditions, plan=plan, formulas=formulas)
    rows, stages = list(profile.parts), list(profile.stages)
    summary = replace(profile.summary, unread=unread_shares(built, attention_blocks(built), spec.input_size))
    facts: ProfileFacts = Facts(**begun, rows=rows, details=stages, summary=summary)
    record = Record.begin(store, facts)
    record.change()
    return record


class SqueezeOnly(nn.Module):
    """Computes the block's squeeze and hands the map on as it came."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), unchanged."""
        self.block.squeeze(x)
        return x


class GateOnly(SqueezeOnly):
    """Computes the block's gate and hands the map on as it came: no scale."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), unchanged."""
        self.block.excitation(self.block.squeeze(x))
        return x


class ScaleOnly(nn.Module):
    """Scales by a gate that is there already: 0.5 everywhere, of the shape of the block's own."""

    def __init__(self, gate_size: tuple[int, ...], batch_size: int) -> None:
        super().__init__()
        self.gate: Tensor
        self.register_buffer("gate", torch.full((batch_size, *gate_size), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """0.5 x."""
        gate = self.gate if len(self.gate) == len(x) else self.gate[: len(x)]
        return x * (gate[(..., *[None] * (x.dim() - 2))] if gate.dim() == 2 else gate)


def arms(
    network: nn.Module, traced: Mapping[str, Traced], stages: Iterable[Stage], batch_size: int, *, split: bool
) -> dict[str, nn.Module]:
    """The network as `full` and with parts left out, by arm.

    `without` has `nn.Identity` for every block, `without NAME` for those of a stage (where more than one has any);
    with `split` there are `squeeze`, `gate` (squeeze and excitation) and `scale` (a fixed gate).
    """
    names = tuple(traced)
    made = {"full": network, "without": replaced(network, names, lambda *_: nn.Identity())}
    if split:
        made["squeeze"] = replaced(network, names, lambda _, block: SqueezeOnly(block))
        made["gate"] = replaced(network, names, lambda _, block: GateOnly(block))
        made["scale"] = replaced(network, names, lambda name, _: ScaleOnly(_gate_of(traced[name]), batch_size))
    with_blocks = [stage for stage in stages if stage.blocks]
    if len(with_blocks) > 1:
        for stage in with_blocks:
            made[f"without {stage.name}"] = replaced(network, stage.blocks, lambda *_: nn.Identity())
    return made


def _gate_of(traced: Traced) -> tuple[int, ...]:
    assert traced.gate_size is not None  # only blocks whose parts were told apart are asked
    return traced.gate_size
