"""What attention costs by how a network is run, from stored times: the ratios, and the table of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from senet_bench.core.comparisons import References
from senet_bench.core.environment import Environment
from senet_bench.core.results import UNTIMED, Latency, Row, Run
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import Conditions, Runtime
from senet_bench.core.union import Key, StoredRun, Timed, identity, in_order, labels
from senet_bench.gallery.collection import Collection, by_setting, setting_label
from senet_bench.gallery.plots import ratio_text
from senet_bench.show.figures import significant
from senet_bench.show.tables import Column, Field, Table, interval_text, number, table_of

PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
"""By what runs a network the package whose version is told beside torch's."""
NOTES = (
    "with / without: in the same rounds (Hodges-Lehmann) with its interval, and the quartiles of the rounds",
    "CPU: the same of CPU times; control: a second copy of the baseline / the first",
    "of own eager: the network's time / its own in eager torch in the same run; the least first",
    "floor: what reading the gates' weights once adds to the fastest baseline at this machine's bandwidth",
)


@dataclass(frozen=True, slots=True)
class RuntimeCost:
    """What a network with attention takes over its baseline in one runtime at one batch size.

    `baseline_s` are seconds of a call of the baseline, `own_eager` is the network's time over its own in eager torch in
    the same run, `floor` the least ratio that reading the gates' weights allows; None what was not measured.
    """

    network: Key
    row: Row
    latency: Latency
    baseline_s: float | None
    own_eager: float | None
    floor: float | None

    @property
    def runtime(self) -> Runtime:
        """How it was run."""
        return self.latency.conditions.runtime

    @property
    def batch(self) -> int:
        """Images a call."""
        return self.latency.conditions.batch_size


@dataclass(frozen=True)
class RuntimeCosts:
    """Times on one machine, by one version of torch, under conditions that differ in runtime and batch size alone."""

    conditions: Conditions
    timings: tuple[Timed, ...]

    @cached_property
    def costs(self) -> tuple[RuntimeCost, ...]:
        """Every network with a ratio, in the order of tables, by batch size and runtime."""
        by_place = {(one.conditions.batch_size, one.conditions.runtime): _Latencies(one) for one in self.timings}
        order = [(batch, name) for batch in sorted({batch for batch, _ in by_place}) for name in RUNTIMES]
        networks = {identity(row): row for timed in self.timings for row in timed.rows if _is_compared(row)}
        return tuple(
            _cost(row, latency, by_place)
            for row in in_order(networks.values())
            for place in order
            if place in by_place and (latency := by_place[place].of(row)) and _has_ratio(latency)
        )

    @cached_property
    def runtimes(self) -> tuple[Runtime, ...]:
        """The runtimes in it, in the order of their table."""
        known = {cost.runtime for cost in self.costs}
        return tuple(name for name in RUNTIMES if name in known)


def runtime_costs(timings: Sequence[Timed]) -> dict[tuple[str, str], list[RuntimeCosts]]:
    """By machine and version of torch what attention costs in two runtimes or more, most numbers first."""
    places: dict[tuple[str, str], list[RuntimeCosts]] = {}
    for (machine, torch, setting), group in by_setting(timings).items():
        known = RuntimeCosts(setting, tuple(group))
        if len({timed.conditions.runtime for timed in group}) > 1 and len(known.runtimes) > 1:
            places.setdefault((machine, torch), []).append(known)
    return {place: sorted(known, key=lambda one: -len(one.costs)) for place, known in places.items()}


@dataclass(frozen=True)
class _Latencies:
    """The latencies of a table of times, and those of the rows' baselines."""

    timed: Timed

    @cached_property
    def _references(self) -> References:
        return References(self.timed.rows)

    def of(self, row: Row) -> Latency | None:
        """That of the same network."""
        return self.timed.latency_of(row)

    def of_baseline(self, row: Row) -> Latency | None:
        """That of a row's baseline."""
        base = self._references.baseline_of(row)
        return base.latency if base else None


def _is_compared(row: Row) -> bool:
    return row.role == "variant" and row.attention is not None


def _has_ratio(latency: Latency) -> bool:
    return latency.ratio is not None and math.isfinite(latency.ratio)


def _cost(row: Row, latency: Latency, others: Mapping[tuple[int, Runtime], _Latencies]) -> RuntimeCost:
    batch = latency.conditions.batch_size
    eager, bases = others.get((batch, "eager")), {}
    for (size, runtime), known in others.items():
        if size == batch and (base := known.of_baseline(row)):
            bases[runtime] = base
    beside, here = others[batch, latency.conditions.runtime].timed.eager_of(row), bases.get(latency.conditions.runtime)
    own = beside or (eager.of(row) if eager else None)
    return RuntimeCost(
        network=identity(row),
        row=row,
        latency=latency,
        baseline_s=here.seconds if here else None,
        own_eager=latency.seconds / beside.seconds if beside else None,
        floor=_floor(own, bases.get("eager"), [base.seconds for base in bases.values()]),
    )


def _floor(network: Latency | None, base: Latency | None, baselines_s: Sequence[float]) -> float | None:
    """The ratio if attention took no longer than reading its weights beside the fastest baseline."""
    if network is None or base is None or not network.read_bytes_per_s:
        return None
    if network.weight_bytes is None or base.weight_bytes is None:
        return None
    gates = max(0, network.weight_bytes - base.weight_bytes)
    return 1 + gates / network.read_bytes_per_s / min(baselines_s)


def subject_of(costs: Sequence[RuntimeCost]) -> str:
    """What the ratios are of."""
    blocks = {cost.row.attention.block for cost in costs if cost.row.attention}
    return f"Time with {'SE' if blocks == {'se'} else 'attention'} over time without it,"


def conditions_of(costs: RuntimeCosts, collection: Collection, batches: Sequence[int]) -> str:
    """Where and how it was measured, and how much the control moved."""
    machine = collection.name_of(costs.timings[0].machine)
    sizes = f"batch {' and '.join(map(str, batches))}"
    controls = [cost.latency.control_ratio for cost in costs.costs if cost.latency.control_ratio is not None]
    moved = f"a second copy of the baseline took {_range(controls, '.3f')} of the first" if controls else "no control"
    known = [source.document.environment for source in _sources(costs.timings, collection)]
    loads = [one.load_1min for one in known if one.load_1min is not None]
    load = [f"load {_range(loads, '.1f')} when begun"] if loads else []
    return "; ".join((f"{machine}: {setting_label(costs.conditions)}, {sizes}", _versions(costs, known), moved, *load))


def _range(values: Sequence[float], form: str) -> str:
    """The least and the largest of some numbers, one where they print the same."""
    return " to ".join(dict.fromkeys(format(value, form) for value in (min(values), max(values))))


def _sources(timings: Sequence[Timed], collection: Collection) -> list[StoredRun]:
    paths = {path for timed in timings for path in timed.sources}
    return [source for source in collection.sources if source.path in paths]


def _versions(costs: RuntimeCosts, environments: Sequence[Environment]) -> str:
    """The versions of torch and of what else ran the networks."""
    engines = {RUNTIMES[name].engine for name in costs.runtimes}
    packages = ["torch", *(package for engine, package in PACKAGES.items() if engine in engines)]
    known = {one: sorted({env.packages[one] for env in environments if env.packages.get(one)}) for one in packages}
    return ", ".join(f"{package} {' and '.join(versions)}" for package, versions in known.items() if versions)


def row_id(cost: RuntimeCost) -> str:
    """The name of the line of the data table that has this ratio."""
    key = repr((cost.network, cost.latency.conditions))
    return f"row-{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:10]}"


def runtime_table(settings: Sequence[RuntimeCosts], collection: Collection) -> tuple[Table, tuple[str, ...]]:
    """Every ratio on one machine by one version of torch, each network's fastest runtime first, and the lines' ids.

    What was to be timed and was not stands in the notes with its reason.
    """
    lines = [(setting, cost) for setting in settings for cost in _fastest_first(setting.costs)]
    label = labels(cost.row for _, cost in lines)
    fields: list[Field[tuple[RuntimeCosts, RuntimeCost]]] = [
        (Column("network", numeric=False), lambda line: label(line[1].row)),
        (Column("runtime", numeric=False), lambda line: line[1].runtime),
        (Column("batch"), lambda line: str(line[1].batch)),
        (Column("conditions", numeric=False), lambda line: setting_label(line[0].conditions)),
        (Column("with / without"), lambda line: number(line[1].latency.ratio, ".3f")),
        (Column("95 % interval"), lambda line: interval_text(line[1].latency.ci, ".3f")),
        (Column("quartiles"), lambda line: interval_text(line[1].latency.quartiles, ".3f")),
        (Column("CPU"), lambda line: number(line[1].latency.cpu_ratio, ".3f")),
        (Column("control"), lambda line: _control(line[1].latency)),
        (Column("floor"), lambda line: number(line[1].floor, ".3f")),
        (Column("of own eager"), lambda line: number(line[1].own_eager, ".3f")),
        (Column("baseline ms"), lambda line: significant(line[1].baseline_s, scale=1e3)),
        (Column("ms"), lambda line: significant(line[1].latency.seconds, scale=1e3)),
        (Column("reservation", numeric=False), lambda line: line[1].latency.reason or ""),
    ]
    timings = [timed for setting in settings for timed in setting.timings]
    about = (conditions_of(one, collection, sorted({cost.batch for cost in one.costs})) for one in settings)
    left_out = _left_out(timings, collection)
    title = f"{subject_of([cost for _, cost in lines])} by how a network is run"
    table = table_of(title, fields, lines, (*NOTES, *about, *left_out))
    return table, tuple(row_id(cost) for _, cost in lines)


def _fastest_first(costs: Sequence[RuntimeCost]) -> list[RuntimeCost]:
    networks = {network: place for place, network in enumerate(dict.fromkeys(cost.network for cost in costs))}
    return sorted(costs, key=lambda cost: (networks[cost.network], cost.batch, *_rank(cost)))


def _rank(cost: RuntimeCost) -> tuple[bool, float]:
    """By its part of eager's time: seconds of two runs are not to be set beside each other."""
    return cost.own_eager is None, cost.latency.seconds if cost.own_eager is None else cost.own_eager


def _control(latency: Latency) -> str:
    return "" if latency.control_ratio is None else ratio_text(latency.control_ratio, latency.control_ci)


def _left_out(timings: Sequence[Timed], collection: Collection) -> list[str]:
    """Why a network of the same runs has no time under some of the conditions, unless another run has them all."""
    known = {(network, _asked(timed.conditions)) for timed in timings for network in timed.by_network}
    reasons = []
    for document in (source.document for source in _sources(timings, collection)):
        if not isinstance(document, Run):
            continue
        plan = document.conditions.latency
        for row in document.rows:
            wanted = {(identity(row), _asked(one)) for one in plan.conditions} if plan else set()
            if not wanted or not wanted <= known:
                reasons += [f"left out: {row.label}: {row.missing[what]}" for what in UNTIMED if what in row.missing]
    return list(dict.fromkeys(reasons))


def _asked(conditions: Conditions) -> Conditions:
    """Conditions before the allocator was looked at."""
    return replace(conditions, allocator="as-is")
