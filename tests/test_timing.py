from __future__ import annotations

import functools
import gc
import hashlib
import itertools
import math
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from senet_bench.bench import process, turns
from senet_bench.bench.clock import Call, FreshCall, HostClock, TimedCalls
from senet_bench.bench.rounds import Factory, Plan, gated_plan, measure_latency
from senet_bench.bench.samples import Comparison, Samples, comparison_of
from senet_bench.core import statistics
from senet_bench.core.progress import Progress, Steps, in_turn, result_of, retold
from senet_bench.core.statistics import Judgement
from senet_bench.errors import ArmError, LostError, MeasurementError, UsageError

MS = 1e-3


@dataclass
class Machine:
    """A machine whose time passes only while calls run; `load(t)` multiplies what a call takes."""

    seed: int = 0
    noise: float = 0.01
    load: Callable[[float], float] = lambda _: 1.0
    t: float = 0.0
    built: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def now(self) -> float:
        return self.t

    def arm(self, seconds: float) -> Factory:
        def build() -> Call:
            self.built.append(seconds)

            def call() -> float:
                self.t += seconds * self.load(self.t) * (1 + self.noise * self.rng.exponential())
                return 1.0

            return call

        return build

    def clock(self) -> HostClock:
        return HostClock(wall=self.now, cpu=self.now)

    def run(self, slower: float = 1.0, plan: Plan | None = None, base: float = MS) -> Comparison:
        arms = {"base": self.arm(base), "new": self.arm(base * slower)}
        steps = measure_latency(arms, "base", plan=plan or gated_plan(), clock=self.clock(), witness=witness)
        return result_of(steps)


@pytest.fixture(autouse=True)
def _no_slow_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", lambda: 0)


def shared(machine: Machine, taken: Callable[[float], float]) -> process.CoreTimes:
    """The time of a machine's one core, of which other guests take some."""
    return process.CoreTimes((machine.t,), (taken(machine.t),))


def witness(output: object) -> float:
    assert isinstance(output, float)
    return output


def verdict_of(found: Comparison) -> str:
    judged = found.arms["new"].judgement
    assert judged is not None
    return judged.verdict


def drift(t: float) -> float:
    return 1 + 0.5 * t


def burst(t: float) -> float:
    return 3.0 if (t * 7.3) % 1 < 0.2 else 1.0


def slow_half(t: float) -> float:
    return 1.35 if t > 1.0 else 1.0


@pytest.mark.parametrize("load", [lambda _: 1.0, drift, burst, slow_half])
def test_equal_arms_are_ok_and_a_slower_one_is_found_whatever_the_machine_does(load: Callable[[float], float]) -> None:
    same = [verdict_of(Machine(seed, load=load).run()) for seed in range(8)]
    slower = [verdict_of(Machine(seed, load=load).run(1.05)) for seed in range(8)]
    assert "regressed" not in same
    assert same.count("ok") >= 7
    assert slower.count("regressed") == 8


@pytest.mark.parametrize(("sessions", "most"), [(100, 4), pytest.param(300, 7, marks=pytest.mark.slow)])
def test_false_alarms_without_any_margin_stay_within_alpha_on_a_bursty_machine(sessions: int, most: int) -> None:
    def verdict_at(seed: int) -> str:
        # the order, too, differs from session to session
        plan = gated_plan(0.0, budget_s=0.3, epochs=1, seed=10_000 + seed)
        return verdict_of(Machine(seed, noise=0.05, load=burst).run(plan=plan))

    verdicts = [verdict_at(seed) for seed in range(sessions)]
    assert verdicts.count("regressed") <= most  # at most 1 of 100 expected
    assert verdicts.count("ok") <= most


def test_the_interval_covers_the_true_ratio() -> None:
    covered = 0
    for seed in range(60):
        judged = Machine(seed, 0.1).run(1.03, Plan(budget_s=0.6, target=0.0, epochs=1)).arms["new"].judgement
        assert judged is not None
        covered += judged.ci[0] <= 1.03 <= judged.ci[1]
    assert covered >= 56


@pytest.mark.parametrize("base", [0.2 * MS, 5 * MS, 400 * MS])
@pytest.mark.parametrize("budget", [0.5, 3.0])
def test_the_budget_is_never_passed_by_more_than_one_round(base: float, budget: float) -> None:
    found = Machine(noise=0.3).run(1.02, gated_plan(budget_s=budget), base)
    one_round = 3 * base * HostClock().repeats(base)  # its noise apart
    assert found.elapsed_s <= budget + 2 * one_round


def test_a_clear_slowdown_is_found_long_before_the_budget_ends() -> None:
    assert Machine().run(1.2).elapsed_s <= 0.5


def test_without_a_gate_it_stops_when_the_interval_is_narrow_enough() -> None:
    narrow = Machine(noise=0.001).run(1.03, Plan(budget_s=10, target=0.005))
    assert narrow.elapsed_s < 2
    judged = narrow.arms["new"].judgement
    assert judged is not None
    assert judged.half_width <= 0.005
    assert judged.verdict == "estimated"


def test_every_round_runs_every_arm_once_in_changing_order() -> None:
    machine, order = Machine(), []

    def arm(name: str) -> Factory:
        def build() -> Call:
            call = machine.arm(25 * MS)()

            def noted() -> object:
                order.append(name)
                return call()

            return noted

        return build

    arms = {"base": arm("base"), "x": arm("x"), "y": arm("y")}
    plan = Plan(budget_s=5, target=0, epochs=1)
    samples = result_of(measure_latency(arms, "base", plan=plan, clock=machine.clock())).samples
    tail = order[-4 * samples.rounds :]
    groups = [tuple(tail[i : i + 4]) for i in range(0, len(tail), 4)]
    assert all(sorted(group) == ["base", "base", "x", "y"] for group in groups)
    assert len(set(groups)) > 6
    assert samples.arms == ("base", "x", "y", "control")
    assert not any(map(math.isnan, samples.seconds[0]))


def test_several_arms_share_the_rounds_and_a_decided_one_leaves() -> None:
    machine = Machine(noise=0.05)
    arms = {"base": machine.arm(MS), "much": machine.arm(1.5 * MS), "close": machine.arm(1.02 * MS)}
    found = result_of(measure_latency(arms, "base", plan=gated_plan(budget_s=3, family=True), clock=machine.clock()))
    much, close = (found.arms[name].judgement for name in ("much", "close"))
    assert much is not None
    assert close is not None
    assert much.verdict == "regressed"
    assert much.rounds < close.rounds
    assert [name for name, arm in found.arms.items() if arm.judgement is None] == ["base"]


def test_epochs_rebuild_every_arm() -> None:
    machine = Machine()
    machine.run(1.02, Plan(budget_s=4, target=0))
    assert len(machine.built) == 4 * 3


def test_verifying_outputs_costs_no_epoch() -> None:
    machine, verified = Machine(), list[object]()

    def fault(output: object) -> None:
        verified.append(output)
        machine.t += 1.0

    def fresh() -> Call:
        return FreshCall(machine.arm(MS)(), lambda: None, fault, lambda: None)

    plan = Plan(budget_s=4, target=0)
    steps = measure_latency({"base": fresh, "new": fresh}, "base", plan=plan, clock=machine.clock(), witness=witness)
    assert result_of(steps).epochs == 4
    assert len(verified) >= 3 * 3


def test_raw_samples_stay_with_the_result() -> None:
    samples = Machine().run().samples
    assert samples.arms == ("base", "new", "control")
    assert len(samples.seconds) == len(samples.cpu_seconds) == len(samples.dropped) == samples.rounds > 0


def test_what_is_stored_has_the_names_of_the_interface_and_no_infinite_number() -> None:
    latency = Machine().run().latency("new")
    row = {name: value for name, value in asdict(latency).items() if value is not None}
    assert {"seconds", "ratio", "ci", "confidence", "rounds", "mde", "control_ratio"} <= row.keys()
    assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))
    assert Machine().run().latency("base").ratio is None


def test_comparisons_that_take_turns_have_as_many_rounds_each_as_alone() -> None:
    plan = Plan(budget_s=0.5, target=0)
    alone = Machine().run(1.02, plan).rounds
    machine = Machine()

    def comparison() -> Steps[Comparison]:
        arms = {"base": machine.arm(MS), "new": machine.arm(1.02 * MS)}
        return measure_latency(arms, "base", plan=plan, clock=machine.clock(), witness=witness)

    told: list[float] = []

    def tell(step: Progress) -> Progress:
        told.append(step.done)
        return step

    found = result_of(retold(in_turn([retold(comparison(), _of_one) for _ in range(3)], 0), tell))
    assert [one.rounds for one in found] == pytest.approx([alone] * 3, rel=0.05)
    assert told == sorted(told)
    assert 2.9 < told[-1] <= 3


def _of_one(step: Progress) -> Progress:
    return replace(step, done=step.done / step.total, total=1)


def test_steps_take_turns_and_their_results_keep_their_order() -> None:
    went: list[str] = []

    def steps(name: str, count: int) -> Steps[str]:
        try:
            for place in range(count):
                went.append(f"{name}{place}")
                yield Progress(name, 5 + place / count, 9)
            return name
        finally:
            went.append(f"{name} ended")

    assert result_of(in_turn([steps("a", 3), steps("b", 2), steps("c", 3)], 5)) == ["a", "b", "c"]
    firsts, seconds = ({f"{name}{place}" for name in "abc"} for place in (0, 1))
    assert (set(went[:3]), set(went[3:6])) == (firsts, seconds)
    went.clear()
    turns = in_turn([steps("a", 2), steps("b", 2)], 5)
    next(turns)
    turns.close()
    assert [one for one in went if "ended" in one] in (["a ended"], ["b ended"])


def test_the_quartiles_are_those_of_the_ratios_of_rounds() -> None:
    comparison = Machine(noise=0.1).run(1.2)
    arms = comparison.samples.arms
    new, base = (np.array([row[arms.index(name)] for row in comparison.samples.seconds]) for name in ("new", "base"))
    latency = comparison.latency("new")
    assert latency.quartiles == pytest.approx(np.percentile(new / base, [25, 75]))
    assert latency.quartiles[0] < latency.quartiles[1]  # type: ignore[index]


def test_an_absolute_margin_must_be_exceeded_too() -> None:
    assert verdict_of(Machine().run(1.05, gated_plan(min_abs_s=0.1 * MS))) == "ok"


def test_a_budget_too_short_for_one_look_is_inconclusive_not_an_error() -> None:
    assert verdict_of(Machine().run(1.5, gated_plan(budget_s=0.5), base=0.4)) == "inconclusive"


# --- trouble ------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards_is_no_verdict_and_ends() -> None:
    machine = Machine()
    ticks = iter(range(10**9))

    def wall() -> float:
        return machine.t - (50 * MS if next(ticks) % 9 == 0 else 0)

    arms = {"base": machine.arm(MS), "new": machine.arm(MS * 2)}
    clock = HostClock(wall=wall, cpu=machine.now)
    found = result_of(measure_latency(arms, "base", plan=gated_plan(budget_s=1, max_rounds=300), clock=clock))
    judged = found.arms["new"].judgement
    assert judged is not None
    assert judged.verdict == "inconclusive"
    assert "the clock went backwards" in found.dropped


def test_a_clock_that_stands_still_is_an_error() -> None:
    arms: dict[str, Factory] = {"base": lambda: lambda: None, "new": lambda: lambda: None}
    with pytest.raises(MeasurementError, match="stands still"):
        result_of(measure_latency(arms, "base", clock=HostClock(wall=lambda: 0.0, cpu=lambda: 0.0)))


@pytest.mark.parametrize("arm", ["base", "new"])
def test_an_output_that_is_not_finite_is_an_error_of_its_arm(arm: str) -> None:
    arms: dict[str, Factory] = {"base": lambda: lambda: 1.0, "new": lambda: lambda: 1.0, arm: lambda: lambda: math.nan}
    with pytest.raises(ArmError, match="its output is not finite") as raised:
        result_of(measure_latency(arms, "base", witness=witness))
    assert raised.value.arm == arm


@pytest.mark.parametrize("error", [MeasurementError("other outputs", "use eager"), LostError("the device failed")])
def test_what_a_call_says_of_itself_is_its_arms_and_a_lost_device_is_everybodys(error: MeasurementError) -> None:
    def raises() -> object:
        raise error

    arms: dict[str, Factory] = {"base": lambda: lambda: 1.0, "new": lambda: raises}
    with pytest.raises(MeasurementError) as raised:
        result_of(measure_latency(arms, "base", witness=witness))
    assert str(raised.value) == str(error)
    assert isinstance(raised.value, ArmError) is not isinstance(error, LostError)


def test_an_output_that_changes_between_rounds_is_no_verdict() -> None:
    machine = Machine()

    def build() -> Call:
        call = machine.arm(2 * MS)()

        def changing() -> float:
            call()
            return 1.0 + machine.t

        return changing

    arms = {"base": machine.arm(MS), "new": build}
    plan = gated_plan(budget_s=0.5)
    found = result_of(measure_latency(arms, "base", plan=plan, clock=machine.clock(), witness=witness))
    judged = found.arms["new"].judgement
    assert judged is not None
    assert judged.verdict == "inconclusive"
    assert "changed" in judged.reason


def test_a_machine_taken_by_others_is_no_verdict() -> None:
    machine = Machine()
    cores = functools.partial(shared, machine, lambda t: 0.5 * t)
    clock = HostClock(wall=machine.now, cpu=machine.now, cores=cores)
    arms = {"base": machine.arm(MS), "new": machine.arm(2 * MS)}
    found = result_of(measure_latency(arms, "base", plan=gated_plan(budget_s=0.5), clock=clock))
    judged = found.arms["new"].judgement
    assert judged is not None
    assert (judged.verdict, judged.rounds) == ("inconclusive", 0)
    assert found.dropped == {"steal": found.rounds}


def test_a_control_that_differs_stops_every_verdict() -> None:
    machine, copies = Machine(), iter([1.0, 1.1] * 50)

    def base() -> Call:
        return machine.arm(MS * next(copies))()

    plan = gated_plan(budget_s=1, epochs=1)
    found = result_of(
        measure_latency({"base": base, "new": machine.arm(2 * MS)}, "base", plan=plan, clock=machine.clock())
    )
    judged = found.arms["new"].judgement
    assert judged is not None
    assert judged.verdict == "inconclusive" or found.control.rounds < 8
    assert found.control.ratio == pytest.approx(1.1, rel=0.02) or found.control.ratio == pytest.approx(
        1 / 1.1, rel=0.02
    )


def _steadily(machine: Machine) -> dict[str, Factory]:
    return {"base": machine.arm(MS), "new": machine.arm(2 * MS)}


def _with_a_slow_copy(machine: Machine) -> dict[str, Factory]:
    copies = itertools.cycle([1.0, 1.1])

    def build() -> Call:
        return machine.arm(MS * next(copies))()

    return {"base": build, "new": machine.arm(2 * MS)}


def _changing(machine: Machine) -> dict[str, Factory]:
    def build() -> Call:
        call = machine.arm(2 * MS)()
        return lambda: (call(), 1.0 + machine.t)[1]

    return {"base": machine.arm(MS), "new": build}


@pytest.mark.parametrize(
    ("made", "stolen", "reason"),
    [
        (_with_a_slow_copy, 0.0, "control failed"),
        (_changing, 0.0, "the output of an arm changed"),
        (_steadily, 1.0, "environment: "),
    ],
)
def test_an_estimate_carries_the_reason_to_doubt_it_however_soon_it_is_narrow(
    made: Callable[[Machine], dict[str, Factory]], stolen: float, reason: str
) -> None:
    machine = Machine(noise=0.001)
    cores = functools.partial(shared, machine, lambda t: stolen * (t // (40 * MS)))
    clock = HostClock(wall=machine.now, cpu=machine.now, cores=cores)
    plan = Plan(budget_s=2, epochs=1)
    found = result_of(measure_latency(made(machine), "base", plan=plan, clock=clock, witness=witness))
    judged = found.arms["new"].judgement
    assert judged is not None
    assert (judged.verdict, judged.half_width <= plan.target) == ("estimated", True)
    assert judged.reason.startswith(reason)


@pytest.mark.parametrize("budget", [0, -1, math.nan, math.inf])
def test_a_budget_that_measures_nothing_is_a_usage_error(budget: float) -> None:
    with pytest.raises(UsageError, match="budget"):
        Plan(budget_s=budget)


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"gate": -0.1}, {"looks": 0}])
def test_other_impossible_plans_are_usage_errors(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Plan(**options)  # type: ignore[arg-type]


def test_a_lone_arm_is_timed_and_arms_without_the_baseline_are_a_usage_error() -> None:
    machine = Machine()
    steps = measure_latency({"base": machine.arm(MS)}, "base", plan=Plan(budget_s=1.0), clock=machine.clock())
    found = result_of(steps)
    assert found.latency("base").ratio is None
    assert found.latency("base").seconds == pytest.approx(MS, rel=0.1)
    assert found.control.half_width <= 0.005
    with pytest.raises(UsageError, match="baseline"):
        result_of(measure_latency({"new": machine.arm(MS)}, "base", clock=machine.clock()))


def test_garbage_collection_is_off_meanwhile_and_restored_when_interrupted() -> None:
    machine = Machine()
    arms = {"base": machine.arm(MS), "new": machine.arm(MS)}
    events = measure_latency(arms, "base", clock=machine.clock())
    assert isinstance(next(events), Progress)
    assert not gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt())
    assert gc.isenabled()


# --- the clock ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "calls"), [(1e-5, 64), (0.5 * MS, 4), (0.1 * MS, 20), (8 * MS, 2), (0.4, 1), (0, 64)]
)
def test_a_block_holds_two_milliseconds_of_calls_and_one_call_of_a_slow_network(seconds: float, calls: int) -> None:
    assert HostClock().repeats(seconds) == calls


def test_a_block_is_its_fastest_call() -> None:
    t, costs = 0.0, iter([3.0, 1.0, 2.0])

    def call() -> str:
        nonlocal t
        t += next(costs)
        return "out"

    assert HostClock(wall=lambda: t, cpu=lambda: t).round([call], 3) == [TimedCalls(1.0, 2.0, "out", 2.0)]


class Spinning:
    """The clocks of a machine on which a thread spins until some time."""

    def __init__(self, until: float) -> None:
        self.until, self.wall = until, 0.0

    def perf_counter(self) -> float:
        return self.wall

    def sleep(self, seconds: float) -> None:
        self.wall += seconds

    def others_run(self) -> bool:
        return self.wall < self.until


@pytest.mark.parametrize(
    ("before", "until", "waits"),
    [("a session", 0.045, 0.045), ("torch", 0.045, 0.0), ("a session", 0.0, 0.0), ("a session", math.inf, 0.1)],
)
def test_a_block_begins_when_the_threads_of_another_runtime_spin_no_more(
    monkeypatch: pytest.MonkeyPatch, before: str, until: float, waits: float
) -> None:
    machine = Spinning(until)
    monkeypatch.setattr(turns, "time", machine)
    monkeypatch.setattr(turns, "others_run", machine.others_run)
    turns.worked(before)
    call = FreshCall(lambda: machine.wall, lambda: None, lambda _: None, lambda: None, threads="torch")
    first, second = HostClock().round([call, call], 1)
    assert first.output == pytest.approx(waits, abs=2.5 * MS)
    assert second.output == first.output


def test_a_thread_that_works_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not turns.TASKS.exists():
        pytest.skip("nobody tells here")
    over, much = threading.Event(), bytes(1 << 24)

    def work() -> None:
        while not over.is_set():
            hashlib.sha256(much)  # lets other threads run

    working = threading.Thread(target=work)
    working.start()
    assert any(turns.others_run() for _ in range(1000))
    over.set()
    working.join()
    assert not all(turns.others_run() for _ in range(1000))
    monkeypatch.setattr(turns, "TASKS", tmp_path / "nothing")
    assert turns.others_run()


def test_stolen_time_is_read_where_the_system_tells_it(tmp_path: Path) -> None:
    found = process.core_times()
    assert len(found.ran) == len(found.stolen) in (0, process.cores())
    assert found.share_stolen(found) == 0
    assert process.core_times(tmp_path / "nothing") == process.CoreTimes()


@pytest.mark.parametrize(
    ("first", "others", "share"),
    [((998, 2), (998, 2), 0.002), ((1000, 0), (0, 2), 0.0), ((500, 500), (0, 2), 0.5), ((0, 1), (0, 0), 1.0)],
)
def test_of_many_cores_those_that_work_are_asked_what_was_stolen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: tuple[int, int], others: tuple[int, int], share: float
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    times = []
    for scale in (1, 2):
        cores = enumerate([first, *[others] * 63, (7, 7**scale)])  # the last one is not for this process
        rows = [f"cpu{core} {ran * scale} 0 0 9 9 0 0 {lost * scale} 0 0" for core, (ran, lost) in cores]
        (tmp_path / "stat").write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 9 0", *rows, "intr 1"]))
        times.append(process.core_times(tmp_path / "stat"))
    assert times[1].share_stolen(times[0]) == pytest.approx(share)


def test_pinning_is_undone() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no affinity here")
    before = os.sched_getaffinity(0)
    with process.quiet(pin=True):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_the_cpu_ratio_s_interval_takes_epochs_for_replicates() -> None:
    rng, missed = np.random.default_rng(3), 0
    for _ in range(300):  # two copies that differ by 1 % as long as they live, and are built anew four times
        samples = Samples(("base", "new"))
        for epoch in range(4):
            apart = rng.normal(0, 0.01)
            for _ in range(10):
                cpu = np.exp(rng.normal(0, 0.005, 2) + np.array([0, apart]))
                blocks = {arm: TimedCalls(1.0, float(one)) for arm, one in zip(samples.arms, cpu)}
                samples.add(blocks, "", epoch)
        bounds = comparison_of(samples, "base", "base", {"new": judge([0.0] * 40)}, True, 1.0, 4).latency("new").cpu_ci
        assert bounds is not None
        missed += not bounds[0] <= 1 <= bounds[1]
    assert missed <= 26  # 15 expected
    samples.epoch = [0] * 40
    lone = comparison_of(samples, "base", "base", {"new": judge([0.0] * 40)}, True, 1.0, 1).latency("new")
    assert lone.cpu_ratio is not None
    assert lone.cpu_ci is None


def judge(log_ratios: list[float]) -> Judgement:
    return statistics.judge(log_ratios, gate=None, level=0.025, alpha=0.025)
