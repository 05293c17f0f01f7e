"""From errors by seed to verdicts: each block against the controls, and the blocks against each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from senet_bench.core.intervals import interval_of_mean, paired_seeds
from senet_bench.core.statistics import with_holm
from senet_bench.probing.rows import CellVerdict, Gap, PairRow, PairVerdict, ProbeRow
from senet_bench.probing.tasks import TASKS

PROBE_LEVEL = 0.01
MARGIN = 0.02
"""A block whose error lies within 2 points of a control's is as the control."""


def gap_of(own: Mapping[str, float], other: Mapping[str, float]) -> Gap | None:
    """The paired difference in error over the seeds that both have, own minus other; None where they share none."""
    seeds = [seed for seed in own if seed in other]
    if not seeds:
        return None
    paired = paired_seeds([other[seed] for seed in seeds], [own[seed] for seed in seeds])
    return Gap(difference=paired.difference, ci=paired.ci, p=paired.p_value, seeds=paired.n)


def judged(rows: Sequence[ProbeRow], seeds: int) -> list[ProbeRow]:
    """The rows with means, intervals, differences to the controls of their task, Holm's p over blocks, and verdicts.

    A block that lacks one of the seeds, or whose control does, cannot be told: those that failed may be the bad ones.
    """
    rows = [_summarised(row) for row in rows]
    rows = [_compared(row, rows, seeds) if row.role == "block" else row for row in rows]
    rows = with_holm(rows, lambda row: row.p, lambda row, p: replace(row, p_holm=p))
    return [replace(row, verdict=verdict_of(row)) if row.gaps else row for row in rows]


def _summarised(row: ProbeRow) -> ProbeRow:
    errors = list(row.per_seed.values())
    if not errors:
        return row
    return replace(row, error=sum(errors) / len(errors), ci=interval_of_mean(errors))


def _compared(row: ProbeRow, rows: Sequence[ProbeRow], seeds: int) -> ProbeRow:
    """The row with its differences; p is of the hypothesis that some control does as well, or as badly."""
    both = {role: gap_of(row.per_seed, control.per_seed) for role, control in controls_of(row, rows).items()}
    gaps = {role: gap for role, gap in both.items() if gap is not None}
    tested = [gap for gap in both.values() if gap is not None and gap.p is not None and gap.seeds == seeds]
    if not tested or len(tested) < len(both):
        return replace(row, gaps=gaps)
    directed = len({gap.difference > 0 for gap in tested}) == 1
    return replace(row, gaps=gaps, p=max(gap.p or 0.0 for gap in tested) if directed else 1.0)


def controls_of(row: ProbeRow, rows: Sequence[ProbeRow]) -> dict[str, ProbeRow]:
    """The controls of a block on its task and difficulty, by role; of the wider the smallest not below its cost."""
    alike = [other for other in rows if (other.task, other.difficulty) == (row.task, row.difficulty)]
    plain: dict[str, ProbeRow] = {other.role: other for other in alike if other.role not in ("wider", "block")}
    wider = [other for other in alike if other.role == "wider" and (other.params or 0) >= (row.params or 0)]
    return {**plain, **({"wider": min(wider, key=lambda other: other.params or 0)} if wider else {})}


def verdict_of(row: ProbeRow) -> CellVerdict:
    """What a block's row shows: better or worse than every control, within the margin of one, or none of these."""
    gaps = list(row.gaps.values())
    if row.p_holm is None:
        return "cannot tell"
    if row.p_holm <= PROBE_LEVEL:
        if gaps[0].difference > 0:
            return "harms"
        solved = row.ci is not None and row.ci[1] <= TASKS[row.task].solved
        return "solves" if solved or (row.ci is None and row.error == 0) else "helps"
    nearest = min(gaps, key=lambda gap: abs(gap.difference))
    if _within(nearest):
        return "as the control"
    return "cannot tell"


def _within(gap: Gap) -> bool:
    """Whether a difference is shown to be within the margin, both ways."""
    if gap.ci is None:
        return gap.seeds > 1 and abs(gap.difference) <= MARGIN
    return gap.ci[0] >= -MARGIN and gap.ci[1] <= MARGIN


def pairs(rows: Sequence[ProbeRow], seeds: int) -> list[PairRow]:
    """Every two blocks on every task, with Holm's p over all of them that have all of the seeds."""
    blocks = [row for row in rows if row.role == "block" and row.per_seed]
    compared = [
        PairRow(task=a.task, difficulty=a.difficulty, first=a.label, second=b.label, gap=gap)
        for a, b in itertools.combinations(blocks, 2)
        if (a.task, a.difficulty) == (b.task, b.difficulty) and (gap := gap_of(a.per_seed, b.per_seed))
    ]
    adjusted = with_holm(
        compared, lambda pair: pair.gap.p if pair.gap.seeds == seeds else None, lambda pair, p: replace(pair, p_holm=p)
    )
    return [replace(pair, verdict=_pair_verdict(pair)) for pair in adjusted]


def _pair_verdict(pair: PairRow) -> PairVerdict:
    if pair.p_holm is None or pair.p_holm > PROBE_LEVEL:
        return "cannot tell"
    return "errs less" if pair.gap.difference < 0 else "errs more"
