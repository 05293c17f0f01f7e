"""Which rows of a run fit an overhead: surely inside, surely outside, or open; from what the run measured alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from senet_bench.core.results import Latency, Row
from senet_bench.core.specs import Conditions
from senet_bench.overhead.budget import BudgetVerdict, Candidate, Cost, kind_of_candidate, rank_candidates
from senet_bench.overhead.origins import told


def fitting_rows(rows: Sequence[Row], limits: Mapping[Cost, float]) -> list[BudgetVerdict]:
    """A verdict for each baseline among the rows, under each of the conditions where a latency is limited."""
    return [
        _verdict(base, [row for row in rows if row is base or row.baseline == base.model], limits, conditions)
        for base in rows
        if base.attention is None and base.baseline is None and base.params and base.flops.get("macs")
        for conditions in (_conditions(rows) if "latency" in limits else (None,))
    ]


def _conditions(rows: Sequence[Row]) -> Sequence[Conditions | None]:
    """All conditions under which a row was timed, None where none was."""
    return tuple(dict.fromkeys(latency.conditions for row in rows for latency in row.latencies)) or (None,)


def _verdict(
    base: Row, rows: Sequence[Row], limits: Mapping[Cost, float], conditions: Conditions | None
) -> BudgetVerdict:
    candidates = tuple(_candidate(row, base, conditions) for row in rows)
    errors = "measured in this run" if any(one.error is not None for one in candidates) else ""
    about = "" if conditions is None else told(conditions)
    return BudgetVerdict(
        base.model, base.label, errors, None, limits, about, rank_candidates(limits, candidates), resized=False
    )


def _candidate(row: Row, base: Row, conditions: Conditions | None) -> Candidate:
    latency = next((one for one in row.latencies if one.conditions == conditions), None)
    counted: dict[Cost, float] = {}
    if row.params and base.params:
        counted = {"params": row.params / base.params, "flops": row.flops["macs"] / base.flops["macs"]}
    ratios, intervals = cost_ratios(counted, latency)
    accuracy = row.accuracy
    return Candidate(
        model=row.model,
        label=row.label,
        kind=kind_of_candidate(row.attention, is_baseline=row is base),
        ratios={**ratios, "latency": 1.0} if row is base else ratios,
        intervals=intervals,
        error=accuracy.top1_err if accuracy else None,
        ci=accuracy.ci if accuracy else None,
        errors=accuracy.per_seed if accuracy else {},
    )


def cost_ratios(
    ratios: dict[Cost, float], latency: Latency | None
) -> tuple[dict[Cost, float], dict[Cost, tuple[float, float]]]:
    """The ratios with that of the latency, and its interval where that is to be relied on."""
    if latency is None or latency.ratio is None:
        return ratios, {}
    sure = latency.ci is not None and not latency.reason
    return {**ratios, "latency": latency.ratio}, {"latency": latency.ci} if sure and latency.ci else {}
