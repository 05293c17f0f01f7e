"""How the rows of a profile follow from what was measured.

Attention is measured by leaving it out. The whole network and copies of the same shapes with parts left out run in
the same rounds: without attention (W), with the squeeze alone (S), with squeeze and excitation but no scale (G), and
whole (F). In the order of execution squeeze = S - W, excitation = G - S and scale = F - G add up to all of F - W.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from senet_bench.bench.device import card_of
from senet_bench.bench.latency import NetworkLatency
from senet_bench.bench.rounds import CONTROL, Plan
from senet_bench.bench.runtimes import REDUCED
from senet_bench.bench.samples import Samples
from senet_bench.breakdown.parts import ATTENTION_PARTS, Stage, Traced
from senet_bench.breakdown.roofline import Demand, limits
from senet_bench.breakdown.rows import (
    Ceilings,
    DeviceCall,
    DevicePart,
    Estimate,
    Part,
    PartRow,
    Profile,
    ProfileSummary,
    StageRow,
)
from senet_bench.breakdown.timeline import WHOLE_CALL, Profiled, StageTimes
from senet_bench.core import statistics
from senet_bench.core.specs import Conditions
from senet_bench.core.statistics import Floats

BETWEEN = "(between)"
NOT_SPLIT = "a block that does not call a squeeze(x) and an excitation(z) of its own once each is measured as a whole"
EAGER_ONLY = "told apart in eager inference only"
LEFT_OUT, BY_MARKS = " of the fastest call by leaving out", " of the fastest call between marks"
NOT_THE_SAME = "the operators and bytes counted are those of eager inference"
ALONE: dict[Part, str] = {"squeeze": "squeeze", "scale": "scale"}
"""The arm in which the part is all that there is of attention."""
ORDER: dict[Part, tuple[str, str]] = {
    "squeeze": ("squeeze", "without"),
    "excitation": ("gate", "squeeze"),
    "scale": ("full", "gate"),
    "attention": ("full", "without"),
}
"""The part is what the first arm takes longer than the second."""


@dataclass(slots=True)
class Seen:
    """What was measured so far of a network; `split` says whether its blocks were taken apart.

    `weight_bytes` are in the precision of the conditions.
    """

    input_size: tuple[int, ...]
    conditions: Conditions
    stages: Sequence[Stage]
    traced: Mapping[str, Traced]
    plan: Plan
    weight_bytes: int
    split: bool
    not_split: str = ""
    latency: NetworkLatency | None = None
    times: StageTimes | None = None
    profiled: Profiled | None = None
    device: Ceilings | None = None
    launch: Mapping[Part, float] = field(default_factory=dict)
    on_device: NetworkLatency | None = None
    launch_on_device: Mapping[Part, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def same_work(self) -> bool:
        """Whether what runs are the operators that were traced."""
        return self.conditions.mode == "infer" and self.conditions.runtime in ("eager", "cudagraph")

    @property
    def seconds(self) -> float | None:
        """The median of a call of the whole network."""
        if self.latency is not None:
            return self.latency.comparison.arms["full"].seconds
        return float(np.median(self.times.whole)) if self.times is not None else None

    def share(self, weights: Mapping[str, int], *, cpu: bool = False, on_device: bool = False) -> Estimate | None:
        """The weighted sum of arms as a share of the network's time; None where it was not measured."""
        latency = self.on_device if on_device else self.latency
        if latency is None:
            return None
        return combined(latency.comparison.samples, weights, "full", self.plan.alpha, cpu=cpu)

    @property
    def floor(self) -> float | None:
        """The fastest call of the whole network: what the bounds, fastest themselves, are held against."""
        return self.latency.comparison.arms["full"].floor if self.latency is not None else None

    def time_of(self, share: Estimate | None) -> float | None:
        """A share in seconds."""
        return None if share is None or self.seconds is None else share.value * self.seconds

    def profiler_share(self, kind: str, names: Sequence[str]) -> tuple[float | None, float | None]:
        """Seconds of the operators in these ranges by the profiler, and their share of all operators."""
        whole = self.profiled.seconds.get(WHOLE_CALL, 0.0) if self.profiled is not None else 0.0
        if self.profiled is None or not whole:
            return None, None
        seconds = self.profiled.sum(kind, names)
        return seconds, seconds / whole


def profile_of(seen: Seen) -> Profile:
    """The rows."""
    return Profile(
        parts=tuple(_part_row(seen, part) for part in (*ATTENTION_PARTS, "attention")) if seen.traced else (),
        stages=(*(_stage_row(seen, stage) for stage in seen.stages), *_between(seen)),
        summary=_summary(seen),
    )


def _summary(seen: Seen) -> ProfileSummary:
    """What is said of the network's call as a whole."""
    comparison = seen.latency.comparison if seen.latency is not None else None
    without = comparison.arms.get("without") if comparison is not None else None
    samples = comparison.samples if comparison is not None else None
    return ProfileSummary(
        input_size=seen.input_size,
        conditions=seen.conditions,
        seconds=seen.seconds,
        cpu_seconds=comparison.arms["full"].cpu_seconds if comparison is not None else None,
        blocks=len(seen.traced),
        control=seen.share({CONTROL: 1, "full": -1}),
        interaction=seen.share({"full": 1, "gate": -1, "scale": -1, "without": 1}) if seen.split else None,
        unattributed=_unattributed(seen),
        rounds=samples.kept if samples is not None else 0,
        dropped=dict(comparison.dropped) if comparison is not None else {},
        settled=comparison.settled if comparison is not None else None,
        reason=without.judgement.reason if without is not None and without.judgement is not None else "",
        device=seen.device,
        on_device=_device_call(seen),
        profiler_slowdown=seen.profiled.slowdown if seen.profiled is not None else None,
        samples={arm: samples.of(arm).tolist() for arm in samples.arms} if samples is not None else {},
        hardware=card_of(seen.conditions.device),
        missing=seen.missing,
    )


def _device_call(seen: Seen) -> DeviceCall | None:
    """The whole call in the device's own time."""
    if seen.on_device is None:
        return None
    comparison = seen.on_device.comparison
    return DeviceCall(
        seconds=comparison.arms["full"].seconds,
        control=seen.share({CONTROL: 1, "full": -1}, on_device=True),
        rounds=comparison.samples.kept,
        dropped=dict(comparison.dropped),
        kernels=seen.profiled.kernels.get(WHOLE_CALL) if seen.profiled is not None else None,
    )


def _device_part(seen: Seen, part: Part) -> DevicePart | None:
    """A part in the device's own time."""
    if seen.on_device is None:
        return None
    upper, lower = ORDER[part]
    share, full = seen.share({upper: 1, lower: -1}, on_device=True), seen.on_device.comparison.arms["full"]
    bound = None
    if seen.device is not None and seen.same_work:
        estimate, how = _sharper(share, None)
        demand = replace(_demand(seen, part), launch_s=seen.launch_on_device.get(part))
        bound = limits(demand, None if estimate is None else estimate.value * full.floor, seen.device, how)
    return DevicePart(
        seconds=None if share is None else share.value * full.seconds,
        share=share,
        kernels=_kernels(seen, part),
        limits=bound,
    )


def _kernels(seen: Seen, part: Part) -> int | None:
    """Kernels of a part in a call, by the profiler."""
    if seen.profiled is None or not seen.profiled.kernels:
        return None
    names = tuple(seen.traced)
    if part != "scale":
        return seen.profiled.count(part, names)
    attention, squeeze, excitation = (seen.profiled.count(k, names) for k in ("attention", "squeeze", "excitation"))
    return attention - squeeze - excitation


def _part_row(seen: Seen, part: Part) -> PartRow:
    """The row of squeeze, excitation or scale over all blocks, or of attention as a whole."""
    if part != "attention" and not seen.split:
        return PartRow(part=part, missing={"share": seen.not_split})
    upper, lower = ORDER[part]
    share, cpu_share = (seen.share({upper: 1, lower: -1}, cpu=cpu) for cpu in (False, True))
    seconds, profiler_share = _profiled_part(seen, part)
    demand = _demand(seen, part)
    marked = _marked(seen, part, tuple(seen.traced))
    bound = None
    if seen.device is not None and seen.same_work:
        estimate, how = _sharper(share, marked)
        took = estimate.value * seen.floor if estimate is not None and seen.floor is not None else None
        bound = limits(demand, took, seen.device, how)
    return PartRow(
        part=part,
        seconds=seen.time_of(share),
        share=share,
        cpu_share=cpu_share,
        alone=seen.share({ALONE[part]: 1, "without": -1}) if part in ALONE and seen.split else None,
        marked_share=marked,
        profiler_seconds=seconds,
        profiler_share=profiler_share,
        bytes=demand.bytes if seen.same_work else None,
        operators=demand.operators if seen.same_work else None,
        operations=demand.operations if seen.same_work else None,
        limits=bound,
        on_device=_device_part(seen, part),
        missing={} if seen.same_work else {"bytes": NOT_THE_SAME, "limits": NOT_THE_SAME},
    )


def _sharper(share: Estimate | None, marked: Estimate | None) -> tuple[Estimate | None, str]:
    """Of the estimates told from zero, the one with the narrower interval, and how it was made."""
    estimates = [
        (e.ci[1] - e.ci[0], e, how) for e, how in ((share, LEFT_OUT), (marked, BY_MARKS)) if e and e.ci and e.ci[0] > 0
    ]
    return min(estimates, key=lambda one: one[0])[1:] if estimates else (None, "")


def _profiled_part(seen: Seen, part: Part) -> tuple[float | None, float | None]:
    names = tuple(seen.traced)
    seconds, share = seen.profiler_share("attention" if part == "scale" else part, names)
    if part != "scale" or seconds is None or share is None:
        return seconds, share
    for other in ("squeeze", "excitation"):
        more, fraction = seen.profiler_share(other, names)
        seconds, share = seconds - (more or 0.0), share - (fraction or 0.0)
    return seconds, share


def _marked(seen: Seen, part: Part, names: Sequence[str]) -> Estimate | None:
    """The share between the marks around a part of these blocks; the scale is what the two others leave."""
    if seen.times is None:
        return None
    kinds = ("squeeze", "excitation") if part == "scale" else ()
    share = seen.times.block_shares("attention" if part == "scale" else part, names)
    for kind in kinds:
        share = share - seen.times.block_shares(kind, names)
    return of_calls(share, seen.plan.alpha)


def _demand(seen: Seen, part: Part) -> Demand:
    """What the part asks for in all blocks. Maps count as cached where those of a block fit the last-level cache."""
    cache = seen.device.cache_bytes if seen.device is not None else 0
    item = 2 if seen.conditions.precision in REDUCED else 4
    total: Counter[str] = Counter()
    for block in seen.traced.values():
        for kind, work in block.work.items():
            if part not in ("attention", kind):
                continue
            maps = work.bytes(seen.conditions.batch_size, item) - item * work.parameters
            total["cached_bytes" if maps <= cache else "memory_bytes"] += maps
            total["cached_bytes" if seen.weight_bytes <= cache else "memory_bytes"] += item * work.parameters
            total["operators"] += work.operators
        total["operations"] += block.operations(part) * seen.conditions.batch_size
    names = ("cached_bytes", "memory_bytes", "operators", "operations")
    return Demand(**{name: total[name] for name in names}, calls=len(seen.traced), launch_s=seen.launch.get(part))


def _stage_row(seen: Seen, stage: Stage) -> StageRow:
    share = of_calls(seen.times.shares(stage.name), seen.plan.alpha) if seen.times is not None else None
    seconds, profiler_share = seen.profiler_share("stage", (stage.name,))
    attention: tuple[Estimate | None, ...] = (None, None, None)
    if stage.blocks:
        lower = f"without {stage.name}" if _several(seen) else "without"
        weights = {"full": 1, lower: -1}
        attention = seen.share(weights), seen.share(weights, cpu=True), seen.share(weights, on_device=True)
    return StageRow(
        stage=stage.name,
        output_size=stage.output_size,
        blocks=len(stage.blocks),
        seconds=seen.time_of(share),
        share=share,
        profiler_seconds=seconds,
        profiler_share=profiler_share,
        attention_seconds=seen.time_of(attention[0]),
        attention_share=attention[0],
        attention_cpu_share=attention[1],
        attention_device_share=attention[2],
        marked_attention_share=_marked(seen, "attention", stage.blocks) if stage.blocks else None,
        profiler_attention_share=seen.profiler_share("attention", stage.blocks)[1] if stage.blocks else None,
        missing={"share": seen.missing["stages"]} if "stages" in seen.missing else {},
    )


def _between(seen: Seen) -> tuple[StageRow, ...]:
    """The row of what happens outside the stages: the whole less the sum, call by call."""
    if seen.times is None:
        return ()
    outside = 1 - sum((seen.times.shares(stage.name) for stage in seen.stages), np.zeros(seen.times.whole.size))
    share = of_calls(outside, seen.plan.alpha)
    return (StageRow(stage=BETWEEN, seconds=seen.time_of(share), share=share),)


def _several(seen: Seen) -> bool:
    return sum(bool(stage.blocks) for stage in seen.stages) > 1


def _unattributed(seen: Seen) -> Estimate | None:
    """Attention's share less the sum of its shares by stage."""
    if not _several(seen):
        return None
    with_blocks = [f"without {stage.name}" for stage in seen.stages if stage.blocks]
    weights = {"full": 1 - len(with_blocks), "without": -1, **dict.fromkeys(with_blocks, 1)}
    return seen.share(weights)


def combined(
    samples: Samples, weights: Mapping[str, int], baseline: str, alpha: float, *, cpu: bool = False
) -> Estimate | None:
    """The weighted sum of arms' times, as a fraction of `baseline`'s time; None where an arm never ran.

    The estimate combines the arms' Hodges-Lehmann ratios, so that estimates add up; the interval is that of the
    combination round by round (Walsh averages, `alpha` on each side), widened to hold the estimate.
    """
    ratios = {arm: _ratios(samples, arm, baseline, cpu=cpu) for arm in weights if arm != baseline}
    sizes = {column.size for column in ratios.values()}
    if len(sizes) != 1 or 0 in sizes:
        return None
    rounds = sizes.pop()
    value, each = float(weights.get(baseline, 0)), np.full(rounds, float(weights.get(baseline, 0)))
    for arm, column in ratios.items():
        value += weights[arm] * math.exp(statistics.hodges_lehmann(column))
        each += weights[arm] * np.exp(column)
    return _estimate(value, each, alpha)


def of_calls(shares: Floats, alpha: float) -> Estimate | None:
    """The Hodges-Lehmann estimate of a share from its value in each call; None without any call."""
    return _estimate(statistics.hodges_lehmann(shares), shares, alpha) if shares.size else None


def _estimate(value: float, each: Floats, alpha: float) -> Estimate:
    bounds = statistics.interval(each, alpha)
    ci = (min(bounds[0], value), max(bounds[1], value)) if bounds else None
    return Estimate(value, ci, 1 - 2 * alpha, each.size)


def _ratios(samples: Samples, arm: str, baseline: str, *, cpu: bool) -> Floats:
    """ln(arm / baseline) of each kept round in which both ran."""
    return samples.log_ratios(arm, baseline, cpu=cpu) if arm in samples.arms else np.empty(0)
