"""Interleaved rounds: every arm once a round in a fresh random order, until it is known or the budget is used.

The protocol of a pair, and of several arms against one baseline in the same rounds. Arms are factories, so
that they can be rebuilt (other addresses) at every epoch; a second copy of the baseline runs along as control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from senet_bench.bench.clock import Call, Clock, FreshCall, host_clock
from senet_bench.bench.process import quiet
from senet_bench.bench.samples import Comparison, Samples, comparison_of
from senet_bench.core import statistics
from senet_bench.core.foreign import blame, guarded, passes
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.statistics import Judgement
from senet_bench.errors import ArmError, LostError, MeasurementError, UsageError, out_of_memory

SETTLED = 0.98
WINDOW = 8
MOST_WARM_CALLS = 10_000
MOST_EPOCH_SHARE = 0.2
"""Rebuilding the arms may take at most this share of the budget."""
MOST_VERIFYING = 0.05
"""Comparing outputs with those of an untouched copy may take this share of the time."""
RARE_CONTROL = 3
FIRST_CONTROLS = 16
ENOUGH_ROUNDS = 100
"""With more rounds than this in the budget the control runs in the first 16 rounds, then in every third only."""
CHANGED = 1e-3

Factory = Callable[[], Call]
Witness = Callable[[object], float]

CONTROL = "control"
"""The name under which the second copy of the baseline appears among the samples."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure and when it is enough.

    `budget_s` covers warming up, rounds and rebuilding (not the first build). Without `gate` an arm is done when
    the half-width of its interval (a fraction) reaches `target`; with one, when it is shown to be beyond or
    inside the gate (a fraction, and `min_abs_s` seconds: both must be exceeded). `alpha` is one-sided, over all
    looks; `family` shares it among the arms after Holm. `steady=False`: outputs may change (training).
    """

    budget_s: float = 10.0
    gate: float | None = None
    alpha: float = 0.025
    target: float = 0.005
    min_abs_s: float = 0.0
    looks: int = 5
    epochs: int = 4
    warmup_s: float = 1.0
    least_warmup_s: float = 0.0
    seed: int = 0
    max_rounds: int = 2000
    family: bool = False
    pin: bool = False
    steady: bool = True

    def __post_init__(self) -> None:
        """Raise `UsageError` on values that cannot be measured with."""
        if not (math.isfinite(self.budget_s) and self.budget_s > 0):
            raise UsageError(f"a budget of {self.budget_s} s measures nothing", "give some seconds, such as 10")
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"alpha must lie between 0 and 0.5, not {self.alpha}", "use 0.01")
        if self.gate is not None and not 0 <= self.gate < 10:
            raise UsageError(f"a gate of {self.gate} is no fraction", "use 0.02 for 2 %")
        if min(self.looks, self.epochs, self.max_rounds) < 1:
            raise UsageError("looks, epochs and rounds must be at least 1")


def gated_plan(gate: float = 0.02, **options: Any) -> Plan:
    """The plan of a gate: alpha 0.01, a budget of 6 s; `options` are those of `Plan`."""
    return Plan(**{"budget_s": 6.0, "alpha": 0.01, "gate": gate, **options})


def measure_latency(
    arms: Mapping[str, Factory],
    baseline: str,
    *,
    plan: Plan | None = None,
    clock: Clock | None = None,
    witness: Witness | None = None,
) -> Steps[Comparison]:
    """The comparison of some arms; yields the part of the budget that is used after each warm-up and round.

    What passes until it is asked to go on is nobody's time: several comparisons can take turns.
    `arms` maps names to factories of a call of no arguments; every arm but `baseline` is judged against it.
    `witness` turns a call's output into a number that must be finite and stay the same. While the generator
    lives, garbage collection is off. Raises `ArmError` on an arm that fails or whose output is not finite, and
    `MeasurementError` on a clock that stands.
    """
    if baseline not in arms or CONTROL in arms:
        raise UsageError(f"arms must hold the baseline {baseline!r} and none named {CONTROL!r}")
    plan = plan or Plan()
    with quiet(plan.pin):
        return (yield from _Session(dict(arms), baseline, plan, clock or host_clock(), witness).steps())


@dataclass(slots=True)
class _Session:
    arms: dict[str, Factory]
    baseline: str
    plan: Plan
    clock: Clock
    witness: Witness | None
    rng: np.random.Generator = field(init=False)
    samples: Samples = field(init=False)
    calls: dict[str, Call] = field(default_factory=dict)
    outputs: dict[str, float] = field(default_factory=dict)
    final: dict[str, Judgement] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    steady: bool = True
    repeats: int = 1
    rare_control: bool = False
    gate: float | None = None
    elapsed: float = 0.0
    build_s: float = 0.0
    epoch: int = 0
    epochs: int = 1
    alpha_spent: float = 0.0
    verifying_s: float = 0.0
    _last: float = 0.0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.plan.seed)
        self.arms[CONTROL] = self.arms[self.baseline]
        self.samples = Samples(tuple(self.arms))
        self.gate = self.plan.gate

    def steps(self) -> Steps[Comparison]:
        """Everything from building to the result."""
        self._build()
        self._verify_others()
        self._last = self.clock.now()
        yield from self._warm_up()
        for fraction in statistics.look_fractions(self.plan.looks):
            yield from self._rounds_until(fraction)
            final = fraction == 1 or self._over()
            self._look(1.0 if final else fraction, final)
            if final or self._known():
                break
        settled = not self.unsettled or self.samples.settled(self.unsettled)
        compared = comparison_of(
            self.samples, self.baseline, CONTROL, self.final, settled, self.elapsed, self.epoch + 1
        )
        return replace(compared, remedy=self.clock.remedy)

    # --- building and warming -------------------------------------------------------------------------------

    def _build(self) -> None:
        """Build the arms that still run, in random order, and call each once."""
        self.calls = {}
        start = self.clock.now()
        for name in self._shuffled(self._open() | {self.baseline, CONTROL}):
            arm = self._arm(name)
            with guarded(arm, draws=True):
                self.calls[name] = _naming(arm, _naming(arm, self.arms[name])())
        for name, call in self.calls.items():
            with guarded(name, draws=True):
                self._check(name, call())
        self.build_s = max(0.0, self.clock.now() - start)

    def _verify_others(self) -> None:
        """Verify each call for other images than its first, of which it may have kept something to answer from."""
        for name, call in self.calls.items():
            if isinstance(call, FreshCall):
                with guarded(name, draws=True):
                    for draw in (call.renew, call.vary, call.vary):
                        draw()
                        output = call()
                        self._check(name, output)
                        self._verify(name, output)

    def _warm_up(self) -> Iterator[Progress]:
        """Call each arm until it gets no faster; then fix block size, epochs and how often the control runs."""
        limit = min(self.plan.warmup_s, self.plan.budget_s / 4 / len(self.arms))
        fastest = {}
        for name in self._shuffled(self.calls):
            fastest[name] = self._warm(name, limit)
            yield self._progress("warming up")
            self._last = self.clock.now()
        self.repeats = self.clock.repeats(fastest[self.baseline])
        round_s = self.repeats * sum(fastest.values())
        self.rare_control = (self.plan.budget_s - self.elapsed) / round_s > ENOUGH_ROUNDS
        affordable = MOST_EPOCH_SHARE * self.plan.budget_s / max(self.build_s, 1e-9)
        self.epochs = min(self.plan.epochs, max(1, int(affordable)))
        if self.gate is not None:
            self.gate = max(self.gate, self.plan.min_abs_s / fastest[self.baseline])

    def _warm(self, name: str, limit_s: float) -> float:
        """Seconds of the fastest call; remembers an arm that did not settle within the limit."""
        times: list[float] = []
        began = self.elapsed
        least_s, settled = min(self.plan.least_warmup_s, limit_s), False
        while not (settled and self.elapsed - began >= least_s) and len(times) < MOST_WARM_CALLS:
            if times and self.elapsed - began >= limit_s:
                break
            with guarded(name, draws=True):
                block = self.clock.round([self.calls[name]], 1)[0]
            self._tick()
            times.append(block.seconds)
            settled = _settled(times, limit_s)
        fastest = min((seconds for seconds in times if seconds > 0), default=0.0)
        if fastest == 0:
            raise MeasurementError(f"the clock stands still while {name} runs", "use a larger batch")
        if not settled:
            self.unsettled.add(name)
        return fastest

    def _rebuild(self) -> None:
        """The next epoch: new copies of every arm, called a few times so that no round pays for their novelty."""
        self.epoch += 1
        self._build()
        for name, call in self.calls.items():
            with guarded(name, draws=True):
                for _ in range(min(self.repeats, 2)):
                    call()
        self._tick()

    # --- rounds ---------------------------------------------------------------------------------------------

    def _rounds_until(self, fraction: float) -> Iterator[Progress]:
        """Rounds until that fraction of the budget, or of the most rounds, is used; at least one."""
        started = False
        while not started or (
            self.elapsed < fraction * self.plan.budget_s and self.samples.rounds < fraction * self.plan.max_rounds
        ):
            started = True
            if self._over():
                return
            if self._epoch_is_over():
                self._rebuild()
                if self._over():
                    return
            self._round()
            yield self._progress("timing")
            self._last = self.clock.now()

    def _round(self) -> None:
        """One round: the open arms, the baseline and (every or every third time) the control, in random order."""
        done = self.samples.rounds
        with_control = not self.rare_control or done < FIRST_CONTROLS or done % RARE_CONTROL == 0
        names = [name for name in self.calls if name != CONTROL or with_control]
        order = self._shuffled([n for n in names if n in (self.baseline, CONTROL) or n in self._open()])
        with guarded("a round", draws=True):
            blocks = dict(zip(order, self.clock.round([self.calls[name] for name in order], self.repeats)))
        dropped = self.clock.disturbance()
        for name, block in blocks.items():
            self._check(name, block.output)
            if block.seconds < 0:
                dropped = "the clock went backwards"
            elif block.seconds == 0:
                raise MeasurementError(f"the clock stands still while {name} runs", "use a larger batch")
        self.samples.add(blocks, dropped, self.epoch)
        if self.verifying_s <= MOST_VERIFYING * self.elapsed:
            name = order[int(self.rng.integers(len(order)))]
            with guarded(name, draws=True):
                self._verify(name, blocks[name].output)
        self._tick()

    def _check(self, name: str, output: object) -> None:
        """Raise `ArmError` on a non-finite output; remember when an output is not what it was."""
        if self.witness is None or output is None:
            return
        value = self.witness(output)
        if not math.isfinite(value):
            raise ArmError(self._arm(name), "its output is not finite", "look at its weights and its precision")
        first = self.outputs.setdefault(name, value)
        fresh = isinstance(self.calls.get(name), FreshCall)
        if self.plan.steady and not fresh and not math.isclose(value, first, rel_tol=CHANGED, abs_tol=1e-30):
            self.steady = False

    def _verify(self, name: str, output: object) -> None:
        """Raise `ArmError` when the output is not the network's; remember when it is random."""
        call, start = self.calls[name], self.clock.now()
        fault = call.fault(output) if isinstance(call, FreshCall) else None
        self.verifying_s += max(0.0, self.clock.now() - start)
        if fault == "stale":
            raise ArmError(
                self._arm(name),
                "its output is not what an untouched copy gives for the same images: it answers from what it kept",
                "it is not ranked; compute every call from its input",
            )
        self.steady &= fault is None

    # --- looking --------------------------------------------------------------------------------------------

    def _look(self, fraction: float, last: bool) -> None:
        """Judge the open arms; decided ones keep their judgement, all get theirs at the last look.

        None is decided before as long as there is a reason to refuse one.
        """
        undecided = sorted(self._open())
        alpha = self.plan.alpha / (len(undecided) if self.plan.family else 1)
        share = statistics.spent(fraction, 1.0) - self.alpha_spent
        refusal = self._refusal()
        reached = False
        for name in undecided:
            ratios = self.samples.log_ratios(name, self.baseline)
            reached |= statistics.critical_rank(len(ratios), share * alpha) >= 0
            judgement = statistics.judge(ratios, gate=self.gate, level=share * alpha, alpha=self.plan.alpha)
            if last or (self._enough(judgement) and not refusal):
                self.final[name] = judgement.refused(refusal) if refusal else judgement
        if reached:
            self.alpha_spent += share

    def _enough(self, judgement: Judgement) -> bool:
        if judgement.verdict == "estimated":
            return judgement.confidence >= 1 - 2 * self.plan.alpha and judgement.half_width <= self.plan.target
        return judgement.verdict != "inconclusive"

    def _refusal(self) -> str:
        return statistics.refusal(
            control=self.samples.log_ratios(CONTROL, self.baseline),
            gate=self.gate or 2 * self.plan.target,
            dropped=self.samples.dropped_share,
            settled=not self.unsettled or self.samples.settled(self.unsettled),
            steady=self.steady,
        )

    # --- small things ---------------------------------------------------------------------------------------

    def _progress(self, what: str) -> Progress:
        budget = self.plan.budget_s
        return Progress(what, min(self.elapsed, budget), budget)

    def _arm(self, name: str) -> str:
        """The arm that a call is of: the control is the baseline."""
        return self.baseline if name == CONTROL else name

    def _open(self) -> set[str]:
        return set(self.arms) - {self.baseline, CONTROL} - set(self.final)

    def _known(self) -> bool:
        """Whether every arm is decided; of a baseline alone, whether its copy is known to the target."""
        if len(self.arms) > 2:
            return not self._open()
        copies = self.samples.log_ratios(CONTROL, self.baseline)
        return self._enough(statistics.judge(copies, gate=None, level=self.plan.alpha, alpha=self.plan.alpha))

    def _shuffled(self, names: Iterable[str]) -> list[str]:
        ordered = sorted(names)
        return [ordered[i] for i in self.rng.permutation(len(ordered))]

    def _epoch_is_over(self) -> bool:
        """Whether to rebuild now: the epoch's share is used, and the budget still holds a rebuild."""
        budget, following = self.plan.budget_s, self.epoch + 1
        due = following < self.epochs and self.elapsed > budget * following / self.epochs
        return due and self.elapsed + self.build_s < budget

    def _over(self) -> bool:
        return self.elapsed >= self.plan.budget_s or self.samples.rounds >= self.plan.max_rounds

    def _tick(self) -> None:
        """Add what has passed to the elapsed time; a clock that went back adds nothing."""
        now = self.clock.now()
        self.elapsed += max(0.0, now - self._last)
        self._last = now


def _naming(arm: str, call: Any) -> Any:
    """The call, or factory of calls, whose failure is an `ArmError` that names the arm; memory runs out as it does."""
    if isinstance(call, FreshCall):
        return replace(call, run=_naming(arm, call.run), fault=_naming(arm, call.fault))

    def named(*arguments: object) -> object:
        try:
            return call(*arguments)
        except BaseException as error:
            if out_of_memory(error) or isinstance(error, ArmError | LostError):
                raise
            if isinstance(error, MeasurementError):
                raise ArmError(arm, error.problem, error.remedy) from error
            if passes(error):
                raise
            raise ArmError(arm, f"a call failed: {blame(error)}") from error

    return named


def _settled(times: list[float], limit_s: float) -> bool:
    """Whether the last window of calls is at most 2 % faster than the one before; two windows fit the limit."""
    window = max(1, min(WINDOW, int(limit_s / max(times[-1], 1e-9) / 2)))
    if len(times) < 2 * window:
        return False
    return min(times[-window:]) >= SETTLED * min(times[-2 * window : -window])
