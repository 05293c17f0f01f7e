"""What an overhead buys: from stored and printed errors, with attention and with a wider or deeper plain network."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from senet_bench.core.progress import Progress, Steps, retold
from senet_bench.core.results import Latency, Row, Run, RunConditions
from senet_bench.core.sizing import WIDEST, resized, sizes_of
from senet_bench.core.specs import Conditions, ModelSpec
from senet_bench.core.store import Store
from senet_bench.core.studies import STUDIES
from senet_bench.errors import UsageError
from senet_bench.overhead.budget import BudgetVerdict, Candidate, Cost, interpolated, kind_of_candidate, rank_candidates
from senet_bench.overhead.fitting import cost_ratios
from senet_bench.overhead.origins import (
    Error,
    ErrorOrigin,
    PlainKey,
    latest_latencies,
    printed,
    printed_error,
    stored,
    subjects_of,
)
from senet_bench.run.cases import TABLES_2_AND_3, Case, baselines, label, select, spec_of
from senet_bench.run.compare import Measure, check_measures, measured
from senet_bench.run.count import Count
from senet_bench.run.record import Record, new_run

AT_ONCE = 5
"""Networks that are timed in the same rounds as their baseline."""
STEP = 0.001
"""The finest change of width that is tried."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a network may cost, as ratios to its baseline, and the conditions that its latency is looked up under."""

    limits: Mapping[Cost, float]
    conditions: Conditions = field(default_factory=Conditions)

    @property
    def counted(self) -> dict[Cost, float]:
        """The limits that a network can be sized by: for a latency, the same ratio of FLOPs stands in."""
        counted: dict[Cost, float] = {cost: most for cost, most in self.limits.items() if cost != "latency"}
        return counted or {"flops": self.limits["latency"]}

    def plain(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """What the budget buys each baseline of the cases without attention."""
        pairs = ((base, spec) for base in baselines(cases) for spec in plain_networks(base, self))
        return tuple(Case(spec, "plain", base, (None,)) for base, spec in pairs if _fits(spec, base, self))


def plain_networks(base: ModelSpec, budget: Budget) -> Iterator[ModelSpec]:
    """The widest form of a baseline inside the budget, and the deepest, or that with one unit more if that is outside.

    Costs are counted exactly. Nothing for a network that has no other size here.
    """
    for what in () if "@" in base.name else sizes_of(base):
        step = STEP if what == "width" else 1
        most = _largest(base, what, step, budget)
        if most or what == "depth":
            yield _sized(base, what, step, max(1, most))


def _largest(base: ModelSpec, what: str, step: float, budget: Budget) -> int:
    """How many steps wider or deeper a network can be inside the budget; found by halving, as costs only rise."""
    widest = min(max(budget.counted.values()), WIDEST)
    low, high = 0, round((widest - 1) / STEP) if what == "width" else 32
    while low < high:
        middle = (low + high + 1) // 2
        inside = _fits(_sized(base, what, step, middle), base, budget)
        low, high = (middle, high) if inside else (low, middle - 1)
    same = low and _counted(_sized(base, what, step, low)).params == _counted(base).params
    return 0 if same else low


def _fits(spec: ModelSpec, base: ModelSpec, budget: Budget) -> bool:
    """Whether a network's counts are inside the budget; no latency is asked."""
    ratios = _ratios(_counted(spec), _counted(base))
    return all(ratios[cost] <= most for cost, most in budget.counted.items())


def _sized(base: ModelSpec, what: str, step: float, steps: int) -> ModelSpec:
    return resized(base, f"{what}={1 + step * steps:.3f}" if what == "width" else f"{what}={steps}")


@functools.cache
def _counted(spec: ModelSpec) -> Row:
    return Count().row(Case(spec, "baseline" if spec.attention is None else "variant"))


def _ratios(row: Row, base: Row) -> dict[Cost, float]:
    assert row.params is not None
    assert base.params is not None
    return {"flops": row.flops["macs"] / base.flops["macs"], "params": row.params / base.params}


def budget_verdicts(what: Sequence[str], store: Store, budget: Budget) -> list[BudgetVerdict]:
    """The verdicts on what `compare`'s arguments name, from what is stored and printed; nothing is measured."""
    return [verdict for base in baselines(select(what)) for verdict in verdicts(base, store, budget)]


def untimed(what: Sequence[str], store: Store, budget: Budget) -> list[tuple[Case, ...]]:
    """The networks with attention whose latency an answer lacks, a few with their baseline at a time."""
    groups: dict[ModelSpec, list[Case]] = {}
    for base in baselines(select(what)) if "latency" in budget.limits else ():
        for origin in (*stored(base, store), *printed(base)):
            times, _ = latest_latencies(base, origin, store, budget.conditions)
            sized = origin.changes.apply(base)
            for model, attention in origin.errors:
                if attention is not None and not attention.is_constant and (model, attention) not in times:
                    spec = replace(spec_of(model, origin.changes), attention=attention)
                    groups.setdefault(sized, []).append(Case(spec, "variant", sized, (None,)))
    return [
        (Case(base, "baseline", None, (None,)), *part)
        for base, cases in groups.items()
        for part in _parts(list({case.spec: case for case in cases}.values()))
    ]


def _parts(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    yield from (cases[start : start + AT_ONCE] for start in range(0, len(cases), AT_ONCE))


def time_missing(
    groups: Sequence[tuple[Case, ...]], store: Store, budget: Budget, timing: Mapping[str, Measure]
) -> Steps[list[Record[Run]]]:
    """The stored runs in which what an answer lacks is counted and timed."""
    for cases in groups:
        check_measures(cases, timing)
    records: list[Record[Run]] = []
    conditions = RunConditions(what=list(dict.fromkeys(cases[0].spec.name for cases in groups)), budget=_limits(budget))
    for number, cases in enumerate(groups):
        steps = measured("compare", cases, store, conditions, Count(), timing)
        records.append((yield from retold(steps, partial(_part_of, number, len(groups)))))
    return records


def _part_of(number: int, total: int, moment: Progress) -> Progress:
    """A moment of one of several runs, as one of all."""
    return replace(moment, done=number + moment.done / moment.total, total=total)


def _limits(budget: Budget) -> dict[str, float]:
    return {str(cost): most for cost, most in budget.limits.items()}


def answer(what: Sequence[str], store: Store, budget: Budget) -> tuple[Run, list[BudgetVerdict]]:
    """`budget_verdicts`, and an empty run for its document; `UsageError` where no error is known."""
    store.check()
    answers = budget_verdicts(what, store, budget)
    if not answers:
        names = [base.name for base in baselines(select(what))]
        raise UsageError(
            f"no error of {', '.join(names)} with attention is stored under {store.root} or printed in the paper",
            f"train: {_command(names[0], budget, 'digits')}",
        )
    return new_run(
        "compare",
        RunConditions(what=list(what) or list(TABLES_2_AND_3), budget=_limits(budget)),
    ), answers


def _command(model: str, budget: Budget, dataset: str) -> str:
    """What trains a network, its variant and its plain forms of the same cost."""
    limits = " ".join(f"--budget-{cost} {most:g}" for cost, most in budget.limits.items())
    return f"senet-bench compare {model} {limits} --dataset {dataset}{_folder(dataset)}"


def _folder(dataset: str) -> str:
    """What names the data set's files, where it has any."""
    return "" if dataset.startswith("digits") else " --data DIR"


def verdicts(base: ModelSpec, store: Store, budget: Budget) -> Iterator[BudgetVerdict]:
    """A verdict for each origin of errors that has the baseline's variants: measured ones first, then the paper's."""
    for origin in (*stored(base, store), *printed(base)):
        if any(attention is not None and attention.block != "constant" for _, attention in origin.errors):
            timed = "latency" in budget.limits
            times, about = latest_latencies(base, origin, store, budget.conditions) if timed else ({}, "")
            ranking = rank_candidates(budget.limits, tuple(_candidates(base, origin, budget, times)))
            yield BudgetVerdict(base.name, base.label, origin.source, origin.table, budget.limits, about, ranking)


def _candidates(
    base: ModelSpec, origin: ErrorOrigin, budget: Budget, times: Mapping[PlainKey, Latency]
) -> Iterator[Candidate]:
    base = origin.changes.apply(base)
    counted = _counted(base)
    plain = [(spec.name, None) for spec in plain_networks(base, budget)]
    for model, attention in dict.fromkeys([(base.name, None), *origin.errors, *plain]):
        spec = replace(spec_of(model, origin.changes), attention=attention)
        ratios, intervals = cost_ratios(_ratios(_counted(spec), counted), times.get((model, attention)))
        kind = kind_of_candidate(attention, is_baseline=model == base.name)
        error = origin.errors.get((model, attention), Error(float("nan")))
        known = (model, attention) in origin.errors
        yield Candidate(
            model=model,
            label=label(spec),
            kind=kind,
            ratios={**ratios, "latency": 1.0} if kind == "baseline" else ratios,
            intervals=intervals,
            error=error.value if known else None,
            ci=error.interval,
            errors=error.by_seed or {},
            basis="printed" if origin.table else "measured",
            command=_command(base.name, budget, origin.dataset)
            if kind != "plain" or _fits(spec, base, budget)
            else f"senet-bench compare {model} --dataset {origin.dataset}{_folder(origin.dataset)}",
        )
    yield from _between(base, origin, budget, counted)


def _between(base: ModelSpec, origin: ErrorOrigin, budget: Budget, counted: Row) -> Iterator[Candidate]:
    """What the paper's next deeper network lets expect of a plain one that uses the budget up."""
    study = STUDIES.get(f"table{origin.table}")
    if study is None or study.kind == "ablation":
        return
    (cost, most), *_ = budget.counted.items()
    points: list[tuple[float, float, str]] = []
    for subject, spec in subjects_of(study):
        value = printed_error(study, subject)
        if value is not None and spec.attention is None and (spec.builder, spec.family) == (base.builder, base.family):
            points.append((_ratios(_counted(origin.changes.apply(spec)), counted)[cost], value, spec.label))
    error = interpolated(most, [(at, value) for at, value, _ in points])
    if error is not None:
        above = min(point for point in points if point[0] >= most)[2]
        names = f"{base.label} and {above}"
        note = f"on the straight line in {cost} between the printed errors of {names}; nothing was trained"
        yield Candidate(
            "", f"plain, between {names}", "plain", {cost: most}, error=error, basis="interpolated", note=note
        )
