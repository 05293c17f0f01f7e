"""The latency of a run's cases: every baseline with its variants in the same rounds, under each of the conditions."""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from msgspec import structs

from senet_bench.core.files import append_line
from senet_bench.core.progress import Steps, in_turn, retold
from senet_bench.core.results import Latency, Row, Run, RunConditions, TimingPlan
from senet_bench.core.runtimes import FASTEST, RUNTIMES
from senet_bench.core.specs import Conditions, Runtime
from senet_bench.core.statistics import with_holm
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.run.cases import Case
from senet_bench.run.record import Record

if TYPE_CHECKING:
    from senet_bench.bench.reference import Reference
    from senet_bench.bench.runtimes import Prepared

    Networks = Callable[[], dict[str, Reference]]

MORE_THAN_ENOUGH_S = 3600.0
NOT_REACHED = "not reached within --max-seconds"
NOT_YET = "not reached: the run ended before"


@dataclass(frozen=True, slots=True)
class Timing:
    """What to time: `budget_s` seconds for each baseline with its variants, under each of `conditions`.

    On a CPU the runtimes of one batch size take turns, so that what the machine does meanwhile meets all of them.
    All together take `most_s` seconds, if that is given: what is left of them is shared out before each, and what is
    not reached is named. A detector's calls wait for the device, which no CUDA graph can hold and no device time is
    free of: it is timed without, or refused where the runtimes were `typed`.
    """

    conditions: tuple[Conditions, ...] = (Conditions(),)
    budget_s: float = 10.0
    seed: int = 0
    memory: bool = True
    energy: bool = False
    most_s: float | None = None
    typed: bool = True

    def __post_init__(self) -> None:
        """Raise `UsageError` on a budget that measures nothing."""
        if not 0 < self.budget_s <= MORE_THAN_ENOUGH_S:
            raise UsageError(
                f"a budget of {self.budget_s:g} s for a pair measures nothing or too much",
                "give some seconds, such as 10",
            )

    def check(self, cases: Sequence[Case]) -> None:
        """Raise `UsageError` on conditions that this machine cannot offer."""
        from senet_bench.bench.machine import check_conditions

        detector = next((case.spec.name for case in cases if case.spec.task == "detection"), None)
        if detector:
            self._check_detector(detector)
        for conditions in self.conditions:
            searches = conditions.runtime == FASTEST
            check_conditions(replace(conditions, runtime="eager") if searches else conditions)

    def _check_detector(self, name: str) -> None:
        """Raise `UsageError` on typed conditions that a detector is not timed under."""
        if any(one.mode == "train" for one in self.conditions):
            raise UsageError(f"{name} is a detector: its training step is not timed", "leave out --mode train")
        waits = f"{name} is a detector, whose calls wait for the device"
        graphs = next((one.runtime for one in self.conditions if _is_graph(one)), None)
        if self.typed and graphs:
            raise UsageError(f"{waits}: they are no CUDA graph", f"leave out --runtime {graphs}")
        if any(one.cache == "cold" for one in self.conditions):
            raise UsageError(f"{waits}: they have no device time for a cold cache", "leave out --cold-l2")

    def described(self, conditions: RunConditions, cases: Sequence[Case]) -> RunConditions:
        """What the run was asked, with the plan of its timing."""
        plan = TimingPlan(budget_s=self.budget_s, seed=self.seed, conditions=list(self.conditions))
        return structs.replace(conditions, latency=plan)

    def steps(self, cases: Sequence[Case]) -> int:
        """How many measurements that makes."""
        return sum(len(group.timed_under(self.conditions)) for group in _groups(cases))

    def lasts_s(self, cases: Sequence[Case]) -> float:
        """The seconds that it takes at most, but for building and warming up."""
        whole = self.budget_s * self.steps(cases)
        return whole if self.most_s is None else min(whole, self.most_s)

    def run(self, cases: Sequence[Case], record: Record[Run]) -> Steps[None]:
        """Fill in the rows' latency group by group; raw samples are appended to a file beside the record's."""
        groups, done, total, began = _groups(cases), 0, self.steps(cases), time.monotonic()
        record.change(rows=[_with(row, NOT_YET, first=True) for row in record.document.rows])
        pairs = itertools.product(_side_by_side(self.conditions), groups)
        for several, group in ((group.timed_under(together), group) for together, group in pairs):
            if not several:
                continue
            share_s = self._share_s(time.monotonic() - began, total - done)
            if share_s:
                within = replace(self, budget_s=share_s)
                found = yield from within._group(group, several, record, done, total)
            else:
                found = [self._not_reached(group, conditions) for conditions in several]
            for conditions, latencies in zip(several, found):
                for place, latency in latencies.items():
                    first = conditions == self.conditions[0]
                    record.put(place, _with(record.document.rows[place], latency, first=first))
                record.failures += _failures(group, latencies, record.document.rows)
            done += len(several)
            yield record.progress(group.name, done, total)
        record.change(rows=with_holm(record.document.rows, _p_worse, _with_p))

    def _not_reached(self, group: _Group, conditions: Conditions) -> dict[int, Latency | str]:
        under = f"batch {conditions.batch_size}, {conditions.runtime}"
        return dict.fromkeys(group.places, f"{NOT_REACHED} {self.most_s:g} ({under}); give more")

    def _share_s(self, elapsed_s: float, left: int) -> float:
        """The seconds for the next of some measurements, 0 where those of all are over."""
        return self.budget_s if self.most_s is None else min(self.budget_s, max(0.0, self.most_s - elapsed_s) / left)

    def _group(
        self, group: _Group, several: Sequence[Conditions], record: Record[Run], done: int, total: int
    ) -> Steps[list[dict[int, Latency | str]]]:
        """The latency of each row's place under each of some conditions, or why there is none.

        Several differ in their runtime alone, and take turns: a round of one, then a round of another.
        """
        (first, *others), networks = several, functools.cache(group.networks)
        if first.runtime == FASTEST:
            first = yield from self._fastest(group, networks, first, record, done, total)
        each = [self._timed(group, networks, conditions, record, done, total) for conditions in (first, *others)]
        found = (yield from _taking_turns(each, first, done, self.seed)) if others else [(yield from each[0])]
        for place, latencies in enumerate(found if self.energy else ()):
            found[place] = yield from self._with_energy(group, networks, latencies, record, done, total)
        return found

    def _fastest(
        self, group: _Group, networks: Networks, conditions: Conditions, record: Record[Run], done: int, total: int
    ) -> Steps[Conditions]:
        """The conditions with the fastest runtime for the group's last variant, whose row keeps how all stand."""
        from senet_bench.bench.race import race
        from senet_bench.bench.rounds import Plan

        arms = list(group.arms.items())
        arm, case = next((pair for pair in reversed(arms) if pair[1].role == "variant"), arms[-1])
        place = next(place for place, name in reversed(group.places.items()) if name == arm)
        plan, what = Plan(budget_s=self.budget_s, seed=self.seed), f"the fastest runtime for {case.spec.label}"
        try:
            steps = race(networks()[arm], case.spec.input_size, conditions, plan)
            standings = yield from retold(
                steps, lambda step: record.progress(what, done + step.done / step.total, total)
            )
        except MeasurementError as error:
            record.failures.append(f"the fastest runtime for {case.spec.label}: {error}")
            return replace(conditions, runtime="eager")
        row = record.document.rows[place]
        record.put(place, replace(row, standings=[*row.standings, *standings]))
        return replace(conditions, runtime=cast("Runtime", standings[0].runtime))

    def _timed(
        self,
        group: _Group,
        networks: Networks,
        conditions: Conditions,
        record: Record[Run],
        done: int,
        total: int,
    ) -> Steps[dict[int, Latency | str]]:
        """The latency of each row's place, or why there is none."""
        from senet_bench.bench.latency import measure_networks
        from senet_bench.bench.rounds import Plan

        try:
            size = next(iter(group.arms.values())).spec.input_size
            plan = Plan(budget_s=self.budget_s, seed=self.seed)
            steps = measure_networks(networks(), group.name, size, conditions=conditions, plan=plan)
            what = f"timing {group.name}"
            measured = yield from retold(
                steps, lambda step: record.progress(what, done + step.done / step.total, total)
            )
            peaks = self._peaks(measured.prepared, measured.conditions)
            _keep(record.path.with_suffix(".samples.jsonl"), group.name, measured)
            batch = conditions.batch_size
            return {
                place: measured.failed.get(arm) or _latency(arm, measured, peaks, batch)
                for place, arm in group.places.items()
            }
        except MeasurementError as error:
            return dict.fromkeys(group.places, str(error))

    def _with_energy(
        self,
        group: _Group,
        networks: Networks,
        latencies: dict[int, Latency | str],
        record: Record[Run],
        done: int,
        total: int,
    ) -> Steps[dict[int, Latency | str]]:
        """The same with the energy of what was timed, under the conditions it was timed in; or why there is none."""
        from senet_bench.bench.latency import energy_of

        timed = {place: latency for place, latency in latencies.items() if isinstance(latency, Latency)}
        if not timed:
            return latencies
        conditions = next(iter(timed.values())).conditions
        wanted = {group.name, *(group.places[place] for place in timed)}
        ready = {arm: network for arm, network in networks().items() if arm in wanted}
        steps = energy_of(ready, group.name, group.arms[group.name].spec.input_size, conditions)
        what = f"energy of {group.name}"
        try:
            used = yield from retold(steps, lambda step: record.progress(what, done + step.done / step.total, total))
        except MeasurementError as error:
            record.failures.append(f"{group.name}: {error}")
            missing = {place: replace(latency, energy_missing=str(error)) for place, latency in timed.items()}
            return {**latencies, **missing}
        counted = {place: replace(latency, energy=used[group.places[place]]) for place, latency in timed.items()}
        return {**latencies, **counted}

    def _peaks(self, prepared: Mapping[str, Prepared], conditions: Conditions) -> dict[str, tuple[int, str]]:
        from senet_bench.bench.latency import measure_memory

        if not self.memory or RUNTIMES[conditions.runtime].extra:  # which takes memory of its own
            return {}
        try:
            return {arm: (peak.bytes, peak.method) for arm, peak in measure_memory(prepared, conditions).items()}
        except MeasurementError:
            return {}


@dataclass(frozen=True, slots=True)
class _Group:
    """A baseline and its variants: the cases by the name of their arm, and which arm each row's place shows."""

    name: str
    arms: dict[str, Case]
    places: dict[int, str] = field(default_factory=dict)

    def timed_under(self, conditions: Sequence[Conditions]) -> list[Conditions]:
        """Those of some conditions under which it is timed: detectors neither as CUDA graphs nor in device time."""
        if self.arms[self.name].spec.task != "detection":
            return list(conditions)
        return [one for one in conditions if one.timing != "device" and not _is_graph(one)]

    def networks(self) -> dict[str, Reference]:
        """The networks of the arms."""
        from senet_bench.bench.reference import Reference

        return {arm: Reference(case.build()) for arm, case in self.arms.items()}


def _is_graph(conditions: Conditions) -> bool:
    return conditions.runtime != FASTEST and RUNTIMES[conditions.runtime].graphs


def _groups(cases: Sequence[Case]) -> list[_Group]:
    """One group for each baseline, with what is compared with it."""
    groups: dict[tuple[str, int], _Group] = {}
    for place, case in enumerate(cases):
        base = case.baseline or case.spec
        plain = Case(base, "baseline")
        group = groups.setdefault((base.name, base.classes), _Group(base.name, {base.name: plain}))
        arm = base.name if case.baseline is None else f"{case.spec.name} #{place}"
        group.arms.setdefault(arm, case)
        group.places[place] = arm
    return list(groups.values())


def _side_by_side(conditions: Sequence[Conditions]) -> list[list[Conditions]]:
    """The conditions that are timed in turns: on a CPU those that differ in their runtime alone, else each by itself.

    A GPU holds the networks of one runtime at a time, or its memory would end at a smaller batch.
    """
    groups: dict[object, list[Conditions]] = {}
    for one in conditions:
        alone = one.device != "cpu" or one.runtime == FASTEST
        groups.setdefault(one if alone else replace(one, runtime="eager"), []).append(one)
    return list(groups.values())


def _taking_turns(
    each: Sequence[Steps[dict[int, Latency | str]]], conditions: Conditions, begun: int, seed: int
) -> Steps[list[dict[int, Latency | str]]]:
    """The latencies by runtime, a round of one after a round of another, with how fast memory is read beside them."""
    from senet_bench.bench.machine import reading_speed, session
    from senet_bench.bench.process import quiet

    with session(conditions), quiet():  # which hold until the last of them has ended
        speed = reading_speed()
        found = yield from in_turn(each, begun, seed)
    return [
        {
            place: replace(one, read_bytes_per_s=speed) if isinstance(one, Latency) else one
            for place, one in latencies.items()
        }
        for latencies in found
    ]


def _failures(group: _Group, latencies: Mapping[int, Latency | str], rows: Sequence[Row]) -> list[str]:
    """Why there is no latency: once for all of a group, else by the row that it is wrong with."""
    reasons = {place: why for place, why in latencies.items() if isinstance(why, str)}
    if len(reasons) == len(latencies) and len(set(reasons.values())) == 1:
        return [f"{group.name}: {next(iter(reasons.values()))}"]
    return [f"{rows[place].label}: {why}" for place, why in reasons.items()]


def _latency(arm: str, measured: Any, peaks: dict[str, tuple[int, str]], batch_size: int) -> Latency:
    """The stored latency of one arm of a measurement that was asked for with this batch size."""
    latency: Latency = measured.latency(arm)
    halved = ""
    if measured.halved_to is not None:
        halved = f"out of memory: every network ran with batch {measured.halved_to}, not {batch_size}"
    latency = replace(latency, reason="; ".join(filter(None, (halved, latency.reason))) or None)
    peak, method = peaks.get(arm, (None, None))
    return replace(latency, peak_bytes=peak, peak_method=method)


def _with(row: Row, latency: Latency | str, *, first: bool) -> Row:
    missing = {name: why for name, why in row.missing.items() if name != "latency" or not first}
    if isinstance(latency, str):
        name = "latency" if first else "further latency"
        reasons = dict.fromkeys(filter(None, (missing.get(name), latency)))
        return replace(row, missing={**missing, name: "; ".join(reasons)})
    if row.latency is None and first:
        return replace(row, latency=latency, missing=missing)
    return replace(row, more_latency=[*row.more_latency, latency], missing=missing)


def _p_worse(row: Row) -> float | None:
    return row.latency.p_worse if row.latency else None


def _with_p(row: Row, p: float) -> Row:
    return replace(row, latency=replace(row.latency, p_slower_holm=p)) if row.latency else row


def _keep(path: Path, name: str, event: Any) -> None:
    """Append the raw samples: seconds by arm and round, dropped rounds with their reason."""
    samples = event.comparison.samples
    line = {
        "baseline": name,
        "conditions": asdict(event.conditions),
        "arms": samples.arms,
        "seconds": [[_rounded(value) for value in row] for row in samples.seconds],
        "cpu_seconds": [[_rounded(value) for value in row] for row in samples.cpu_seconds],
        "dropped": {index: why for index, why in enumerate(samples.dropped) if why},
        "epoch": samples.epoch,
    }
    append_line(path, json.dumps(line))


def _rounded(value: float) -> float | None:
    return round(value, 9) if value == value else None
