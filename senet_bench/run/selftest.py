"""`selftest`: how far timing can be trusted on this machine: false alarms, power, time to verdict, with their counts.

The workload is a chain of equal layers, so that a slowdown of 5 % is five more layers on a hundred: real work,
and a truth known by construction. Other rules decide on the same workload in the same session: torch's Timer
is the library itself; of pytest-benchmark (`--benchmark-compare-fail=min:3%`) and of the plain mean the
decision rule is applied to calls timed one side after the other, as these tools do.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np

from senet_bench.bench.clock import Call
from senet_bench.bench.process import applied_allocator
from senet_bench.bench.rounds import Plan, gated_plan, measure_latency
from senet_bench.bench.turns import one_thread
from senet_bench.core.progress import Steps, result_of
from senet_bench.core.results import Facts
from senet_bench.core.specs import Allocator, Conditions
from senet_bench.core.store import Store
from senet_bench.errors import UsageError
from senet_bench.run.record import Record, header

TrialKind = Literal["same", "slower", "visible", "same visible", "peers same", "peers slower"]


LAYERS, SLOWER, VISIBLE = 100, 105, 102


TRIAL_GATE = 0.02


PEER_THRESHOLDS = (0.03, 0.05)


@dataclass(frozen=True, slots=True)
class TimingTrial:
    """One comparison: `alarm` by rule, the true ratio, and (our rule) ratio, interval and seconds to the verdict."""

    kind: TrialKind
    index: int
    of: int
    truth: float
    alarm: dict[str, bool]
    verdict: str
    seconds: float
    budget_s: float
    ratio: float | None = None
    ci: tuple[float, float] | None = None
    mde: float | None = None


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """Counts of one rule: alarms of `same` trials are false, those of `slower` trials are right."""

    rule: str
    same: int
    false_alarms: int
    slower: int
    found: int
    seconds_same: float | None
    seconds_slower: float | None


class SelftestConditions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many comparisons were made of each kind (`null`: of identical sides), what they allocated with, and where."""

    null: int
    slower: int
    visible: int
    peers: int
    seed: int
    allocator: Allocator | None = None
    device: str | None = None


class SelftestSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the paired rule sees; counts are (how many, of how many). Empty until all trials have ended.

    `visible` are the +2 % found without a margin at alpha 0.05 within `visible_s`, `visible_false_alarms` the
    alarms of the same rule on A/A, `mde` the median smallest visible change of these trials.
    """

    covered: tuple[int, int] | None = None
    covered_slower: tuple[int, int] | None = None
    inconclusive_same: tuple[int, int] | None = None
    visible: tuple[int, int] | None = None
    visible_false_alarms: tuple[int, int] | None = None
    visible_s: float | None = None
    mde: float | None = None
    longest_overrun_s: float | None = None
    call_seconds: float | None = None


SelftestFacts = Facts[SelftestConditions, RuleCounts, SelftestSummary, TimingTrial]
"""The document of `selftest`: a row for each rule, every trial as a detail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Numbers of trials by kind, and the seconds that each may take.

    `same`, `slower` (+5 %, gate 2 %, alpha 0.01), `visible` (+2 % and as many A/A, no margin, alpha 0.05) and
    `peers` (of each of A/A and +5 %); `peer_s` is what a side gets from the other tools.
    """

    same: int = 40
    slower: int = 20
    visible: int = 20
    peers: int = 10
    budget_s: float = 6.0
    slower_s: float = 3.0
    visible_s: float = 2.0
    peer_s: float = 1.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Raise `UsageError` where there is nothing to try."""
        numbers = (self.same, self.slower, self.visible, self.peers)
        if min(numbers) < 0 or not sum(numbers):
            raise UsageError("a self-test needs at least one trial", "give a number above 0")

    @property
    def kinds(self) -> list[TrialKind]:
        """The kind of every trial, those of one kind together."""
        counts: dict[TrialKind, int] = {
            "same": self.same,
            "slower": self.slower,
            "visible": self.visible,
            "same visible": self.visible,
            "peers same": self.peers,
            "peers slower": self.peers,
        }
        return [kind for kind, count in counts.items() for _ in range(count)]


def run(store: Store, amounts: Amounts, *, allocator: Allocator = "as-is") -> Steps[Record[SelftestFacts]]:
    """The record of a self-test: every trial as a detail, the counts of each rule as rows."""
    from senet_bench.bench.device import present

    store.check()
    present(amounts.device)
    conditions = SelftestConditions(
        null=amounts.same,
        slower=amounts.slower,
        visible=amounts.visible,
        peers=amounts.peers,
        seed=amounts.seed,
        allocator=applied_allocator(allocator),
        device=None if amounts.device == "cpu" else amounts.device,
    )
    facts: SelftestFacts = Facts(**header("selftest", conditions), summary=SelftestSummary())
    record = Record.begin(store, facts)
    for trial in timing_trials(amounts):
        record.change(details=[*record.document.details, trial])
        yield record.progress("comparing", trial.index, trial.of)
    trials = record.document.details
    record.change(rows=rule_counts(trials), summary=summarise(trials, amounts.visible_s, call_seconds(amounts.device)))
    return record


def timing_trials(amounts: Amounts) -> Iterator[TimingTrial]:
    """Every trial as it ends, the kinds mixed at random."""
    rng, schedule = np.random.default_rng(amounts.seed), amounts.kinds
    plans = {
        "same": gated_plan(TRIAL_GATE, budget_s=amounts.budget_s),
        "slower": gated_plan(TRIAL_GATE, budget_s=amounts.slower_s),
    }
    plans["visible"] = plans["same visible"] = gated_plan(0.0, budget_s=amounts.visible_s, alpha=0.05)
    with one_thread():
        for index, position in enumerate(rng.permutation(len(schedule))):
            kind = schedule[position]
            place = (index + 1, len(schedule))
            if kind.startswith("peers"):
                yield _peer_trial(kind, amounts.peer_s, place, amounts.device)
            else:
                yield _paired_trial(kind, plans[kind], int(rng.integers(2**31)), place, amounts.device)


def call_seconds(device: str = "cpu") -> float:
    """Seconds of a call of the workload on a device."""
    with one_thread():
        return statistics.median(_sequential(chain(LAYERS, device)(), 0.1, device))


def chain(layers: int, device: str = "cpu") -> Callable[[], Call]:
    """A factory of the workload: that many equal 3x3 convolutions, about 1 ms for a hundred."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    images = torch.randn(1, 8, 6, 6).to(device)
    network = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(layers))).eval().to(device)

    def build() -> Call:
        fresh = copy.deepcopy(network)

        def call() -> object:
            with torch.inference_mode():
                return fresh(images)

        return call

    return build


def layers_of(kind: TrialKind) -> int:
    """Layers of the candidate in a kind of trial."""
    return {"slower": SLOWER, "peers slower": SLOWER, "visible": VISIBLE}.get(kind, LAYERS)


def _paired_trial(kind: TrialKind, plan: Plan, seed: int, place: tuple[int, int], device: str) -> TimingTrial:
    from senet_bench.bench.device import device_of

    arms = {"base": chain(LAYERS, device), "candidate": chain(layers_of(kind), device)}
    plan, clock = replace(plan, seed=seed), device_of(device).clock(Conditions(device))
    comparison = result_of(measure_latency(arms, "base", plan=plan, clock=clock))
    judged = comparison.arms["candidate"].judgement
    assert judged is not None
    alarm = {"senet-bench": judged.verdict == "regressed"}
    truth = layers_of(kind) / LAYERS
    return TimingTrial(
        kind,
        *place,
        truth,
        alarm,
        verdict=judged.verdict,
        seconds=comparison.elapsed_s,
        budget_s=plan.budget_s,
        ratio=judged.ratio,
        ci=judged.ci,
        mde=judged.mde,
    )


def _peer_trial(kind: TrialKind, peer_s: float, place: tuple[int, int], device: str) -> TimingTrial:
    """Both sides one after the other, by torch's Timer and as plain calls."""
    from torch.utils.benchmark import Timer

    from senet_bench.bench.device import device_of

    finish = device_of(device).synchronise  # Timer awaits the current GPU alone
    base, candidate = chain(LAYERS, device)(), chain(layers_of(kind), device)()
    began = time.perf_counter()
    calls = [_sequential(call, peer_s, device) for call in (base, candidate)]
    seconds = time.perf_counter() - began
    medians = [
        Timer("call(); finish()", globals={"call": call, "finish": finish})
        .blocked_autorange(min_run_time=peer_s)
        .median
        for call in (base, candidate)
    ]
    ratios = {
        "pytest-benchmark min": min(calls[1]) / min(calls[0]),
        "torch Timer median": medians[1] / medians[0],
        "sequential mean": statistics.fmean(calls[1]) / statistics.fmean(calls[0]),
    }
    alarm = {f"{rule}:{t:.0%}": ratio > 1 + t for rule, ratio in ratios.items() for t in PEER_THRESHOLDS}
    truth = layers_of(kind) / LAYERS
    return TimingTrial(kind, *place, truth, alarm, verdict="", seconds=seconds, budget_s=2 * peer_s)


def _sequential(call: Call, seconds: float, device: str) -> list[float]:
    """Single calls timed one after another, the device waited for after each; five warm-ups before them."""
    from senet_bench.bench.device import device_of

    finish = device_of(device).synchronise
    for _ in range(5):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        finish()
        times.append(time.perf_counter() - start)
    return times


def rule_counts(trials: Sequence[TimingTrial]) -> list[RuleCounts]:
    """The counts of each rule, in the order in which the rules were met."""
    rules = dict.fromkeys(rule for t in trials if "visible" not in t.kind for rule in t.alarm)
    return [_rule_row(rule, trials) for rule in rules]


def summarise(trials: Sequence[TimingTrial], visible_s: float, call_seconds: float) -> SelftestSummary:
    """What the paired rule saw in some trials."""
    kinds = ("same", "slower", "visible", "same visible")
    of: dict[str, list[TimingTrial]] = {kind: [t for t in trials if t.kind == kind] for kind in kinds}
    paired = [t for group in of.values() for t in group]
    visible = of["visible"]
    return SelftestSummary(
        covered=_count(of["same"], _covers),
        covered_slower=_count(of["slower"], _covers),
        inconclusive_same=_count(of["same"], lambda t: t.verdict == "inconclusive"),
        visible=_count(visible, _alarmed),
        visible_false_alarms=_count(of["same visible"], _alarmed),
        visible_s=visible_s,
        mde=statistics.median(t.mde for t in visible if t.mde is not None) if visible else None,
        longest_overrun_s=max((t.seconds - t.budget_s for t in paired), default=0.0),
        call_seconds=call_seconds,
    )


def _rule_row(rule: str, trials: Sequence[TimingTrial]) -> RuleCounts:
    same = [t for t in trials if rule in t.alarm and t.kind in ("same", "peers same")]
    slower = [t for t in trials if rule in t.alarm and t.kind in ("slower", "peers slower")]
    medians = [statistics.median(t.seconds for t in group) if group else None for group in (same, slower)]
    false_alarms, hits = (sum(t.alarm[rule] for t in group) for group in (same, slower))
    return RuleCounts(rule, len(same), false_alarms, len(slower), hits, *medians)


def _alarmed(trial: TimingTrial) -> bool:
    return trial.alarm["senet-bench"]


def _covers(trial: TimingTrial) -> bool:
    return trial.ci is not None and trial.ci[0] <= trial.truth <= trial.ci[1]


def _count(trials: Sequence[TimingTrial], test: Callable[[TimingTrial], bool]) -> tuple[int, int]:
    return sum(map(test, trials)), len(trials)
