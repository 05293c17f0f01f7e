"""Errors of the rows of one table set against each other: paired by seed, tested, and corrected over the table.

The family of a correction is every row that is compared; the control with its gates fixed at 0.5 is there to compare
with, and in no family.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from senet_bench.core.axes import setting_label
from senet_bench.core.blocks import constant_words
from senet_bench.core.catalog import usual_attention
from senet_bench.core.changes import changed
from senet_bench.core.intervals import Paired, paired_seeds, sd, t_quantile
from senet_bench.core.results import Accuracy, Difference, Row, TrainingProtocol
from senet_bench.core.specs import USUAL_REDUCTION
from senet_bench.core.statistics import holm
from senet_bench.errors import UsageError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.05
Whom = Literal["baseline", "control"]


def of_seeds(
    errors: Mapping[int, float],
    protocol: TrainingProtocol,
    trained_on: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> Accuracy:
    """The mean and the standard deviation of the errors by seed; it is compared with nothing yet."""
    ordered = dict(sorted(errors.items()))
    values = [*ordered.values()]
    return Accuracy(
        dataset=protocol.dataset or "",
        top1_err=sum(values) / len(values),
        sd=sd(values) if len(values) > 1 else None,
        seeds=len(values),
        protocol=protocol,
        per_seed={str(seed): value for seed, value in ordered.items()},
        trained_on=list(trained_on),
        remarks=list(remarks),
    )


def compared(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with its differences to its baseline and to the constant gate of that baseline.

    A row whose errors are not stored by seed keeps the differences that it has.
    """
    known = References(rows)
    to_baseline = differences(rows, [known.baseline_of(row) for row in rows])
    to_control = differences(rows, [known.control_of(row) for row in rows])
    return [_with(row, *both) for row, *both in zip(rows, to_baseline, to_control)]


def rows_against(rows: Sequence[Row], others: Sequence[Row | None]) -> list[Row]:
    """The rows, each with its difference to the other one."""
    measured = differences(rows, others)
    return [
        replace(row, accuracy=replace(row.accuracy, against=difference)) if row.accuracy else row
        for row, difference in zip(rows, measured)
    ]


def references(rows: Sequence[Row], name: str) -> list[Row | None]:
    """For each row the one that a name means, None for that row itself; `UsageError` where it means none or several.

    A row is compared with the one of its own baseline where there is one for each.
    """
    chosen = rows_named(rows, name)
    return [_reference(row, chosen) for row in rows]


def rows_named(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows that a name means: by label, setting, block or network; of SE's settings the plain one is `se`.

    `UsageError` where there is none, or where several belong to one baseline.
    """
    wanted = name.strip().lower()
    by_label = [
        row for row in rows if wanted in map(str.lower, (row.label, setting_of(row), setting_label(row.axes or {})))
    ]
    by_name = [row for row in rows if wanted in names(row)]
    chosen = by_label or by_name
    if not chosen:
        known = list(dict.fromkeys(map(setting_of, rows)))
        hint = nearest(name, known, most=1) or f"choose from {', '.join(known)}"
        raise UsageError(f"no row is called {name!r}", hint)
    usual = [row for row in chosen if row.attention and row.attention.reductions == (USUAL_REDUCTION,)]
    groups = {group_of(row): [other for other in chosen if group_of(other) == group_of(row)] for row in chosen}
    several = next((group for group in groups.values() if len(group) > 1), None)
    if several and len({group_of(row) for row in usual}) == len(usual) == len(groups):
        return usual
    if several:
        labels = ", ".join(map(setting_of, several))
        raise UsageError(f"{name!r} is the name of {len(several)} rows: {labels}", "name one of them")
    return chosen


def setting_of(row: Row) -> str:
    """A row of an ablation by its setting; the baseline, and a row of no ablation, by its name."""
    if row.attention is not None and row.attention.is_constant and row.axes is not None:
        return constant_words(row.attention, usual_attention(row.model))
    return setting_label(row.axes) if row.axes else row.label


def names(row: Row) -> set[str]:
    """What a row is called beside its label: its block (with options), or its network where it has none."""
    if row.attention is None or row.role == "plain":
        return {row.model.lower(), *(["none", "baseline"] if row.role == "baseline" else [])}
    options = "".join(f"/{key}={value}" for key, value in row.attention.options)
    typed = {str(value).lower() for axis, value in (row.axes or {}).items() if axis == "attention"}
    return {f"{row.attention.block}{options}".lower(), row.attention.block.lower(), row.model.lower()} | typed


def group_of(row: Row) -> tuple[object, ...]:
    """The baseline that a row belongs to, with its sizes."""
    return row.baseline or row.model, *_sizes(row)


def _sizes(row: Row) -> tuple[object, ...]:
    """What a row shares with its baseline: the images, the classes, and the number of groups."""
    return row.input_size, row.classes, row.cardinality


def _sites(row: Row) -> tuple[object, ...]:
    """Where in its network the blocks of a row stand."""
    return row.attention.sites if row.attention else ()


def _reference(row: Row, chosen: Sequence[Row]) -> Row | None:
    own = [other for other in chosen if group_of(other) == group_of(row)]
    other = own[0] if own else chosen[0] if len(chosen) == 1 else None
    return None if other is row else other


class References:
    """What each row of a table is compared with: its baseline, and the control whose gates stand where its own do."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._baselines: dict[tuple[object, ...], list[Row]] = {}
        self._controls: dict[tuple[object, ...], Row] = {}
        for row in rows:
            if row.attention is None or row.role == "baseline":
                self._baselines.setdefault((row.model, *_sizes(row)), []).append(row)
            if row.role == "control":
                self._controls.setdefault((group_of(row), _sites(row)), row)

    def baseline_of(self, row: Row) -> Row | None:
        """The row that a row's differences are to, None where it is not there."""
        known = self._baselines.get((row.baseline, *_sizes(row)), ())
        return next((other for other in known if other is not row), None)

    def control_of(self, row: Row) -> Row | None:
        """The control of the same baseline, stages and place; None for what is no variant or where there is none."""
        return self._controls.get((group_of(row), _sites(row))) if row.role == "variant" else None


def differences(rows: Sequence[Row], others: Sequence[Row | None]) -> list[Difference | None]:
    """Each row's difference to the other one, None where they share no seed; corrected over the rows that are tested.

    The control is tested alone.
    """
    alone = _paired(rows, others)
    family = [
        place
        for place, paired in enumerate(alone)
        if paired and paired.p_value is not None and rows[place].role != "control"
    ]
    adjusted = dict(zip(family, holm([paired.p_value or 0.0 for place in family if (paired := alone[place])])))
    return [
        _difference(paired, other, adjusted.get(place), len(family)) if paired and other else None
        for place, (paired, other) in enumerate(zip(alone, others))
    ]


def _paired(rows: Sequence[Row], others: Sequence[Row | None]) -> list[Paired | None]:
    """Each row against the other one over the seeds that both have, None where there are none."""
    pairs = [pairs_of(row, other) if other is not None else ([], []) for row, other in zip(rows, others)]
    return [paired_seeds(theirs, ours) if ours else None for ours, theirs in pairs]


def _difference(paired: Paired, other: Row, adjusted: float | None, family: int) -> Difference:
    """A difference to a row, corrected over a family where it is of one."""
    alone = adjusted is None
    return Difference(
        row=other.label,
        value=paired.difference,
        pairs=paired.n,
        ci=paired.ci,
        p_value=paired.p_value,
        joint_ci=None if alone else paired.interval(1 - LEVEL / family),
        p_holm=adjusted,
        family=1 if alone else family,
    )


def pairs_of(row: Row, other: Row) -> tuple[list[float], list[float]]:
    """The errors of two rows over the seeds that both have, in the order in which the first has them.

    None where they are of other data: the same seed is another draw there.
    """
    if row.accuracy is None or other.accuracy is None or row.accuracy.dataset != other.accuracy.dataset:
        return [], []
    ours, theirs = row.accuracy.per_seed, other.accuracy.per_seed
    shared = [seed for seed in ours if seed in theirs]
    return [ours[seed] for seed in shared], [theirs[seed] for seed in shared]


def _with(row: Row, baseline: Difference | None, control: Difference | None) -> Row:
    """The row with what was found of it put into its accuracy."""
    if row.accuracy is None or not row.accuracy.per_seed:
        return row
    accuracy = changed(
        row.accuracy,
        difference=baseline.value if baseline else None,
        difference_ci=baseline.ci if baseline else None,
        difference_joint_ci=baseline.joint_ci if baseline else None,
        pairs=baseline.pairs if baseline else None,
        p_value=baseline.p_value if baseline else None,
        p_holm=baseline.p_holm if baseline else None,
        family=baseline.family if baseline and baseline.p_holm is not None else None,
        control_difference=control.value if control else None,
        control_difference_ci=control.ci if control else None,
        control_p_value=control.p_value if control else None,
        control_p_holm=control.p_holm if control else None,
    )
    return changed(row, accuracy=accuracy)


@dataclass(frozen=True, slots=True)
class Lowest:
    """The row with the lowest mean error; `worse` are told not to be the lowest, of the `tied` nothing is told."""

    row: Row
    tied: tuple[Row, ...]
    worse: tuple[Row, ...]


def ranked(rows: Iterable[Row]) -> list[Row]:
    """The rows with errors of which one is the lowest: all but controls."""
    return [row for row in rows if row.accuracy is not None and row.role != "control"]


def lowest(rows: Sequence[Row], among: int = 0) -> Lowest | None:
    """Which row errs least over the seeds that all have, and which of the others are told not to.

    None below two rows with errors. Where the rows were chosen from more, `among` says from how many, and the tests
    are corrected for those: a choice of rows decides nothing that all of them leave open.

    A row is told where its error is above that of another by a one-sided paired test at 5 % over the number of other
    rows. Hsu's multiple comparisons with the best: of all such claims together, one is wrong at most once in 20 times,
    whichever row the data made the lowest.
    """
    known = ranked(rows)
    if len(known) < 2:
        return None
    shared = set.intersection(*(set(row.accuracy.per_seed) for row in known if row.accuracy))

    def error(row: Row) -> float:
        """The mean over the seeds that all rows have, where those are two or more."""
        seeds = [row.accuracy.per_seed[seed] for seed in shared] if row.accuracy else []
        return sum(sorted(seeds)) / len(seeds) if len(seeds) > 1 else _error(row)

    best = min(known, key=error)
    above = _above_another(known, LEVEL / (max(len(known), among) - 1))
    worse = tuple(row for row, surely in zip(known, above) if surely and row is not best)
    tied = tuple(row for row, surely in zip(known, above) if not surely and row is not best)
    return Lowest(best, tied, worse)


def _error(row: Row) -> float:
    return row.accuracy.top1_err if row.accuracy else 1.0


def _above_another(rows: Sequence[Row], level: float) -> list[bool]:
    """Which rows are shown to have a higher error than some other: one-sided t over shared seeds, each at a level.

    Differences that are equal over all seeds have the p of their signs. Sums of products tell nearly all pairs; what is
    close to the level, or has hardly any spread, is looked at pair by pair.
    """
    import numpy as np

    seeds = sorted({seed for row in rows if row.accuracy for seed in row.accuracy.per_seed})
    if not seeds:
        return [False] * len(rows)
    per_seed = [row.accuracy.per_seed if row.accuracy else {} for row in rows]
    errors = np.array([[known.get(seed, math.nan) for seed in seeds] for known in per_seed])
    largest = np.nanmax(np.abs(errors))
    known = (~np.isnan(errors)).astype(float)
    centred = np.nan_to_num(errors - np.nanmean(errors))
    bounds = np.array([-t_quantile(max(count - 1, 1), level) for count in range(len(seeds) + 1)])
    shown = []
    for first in range(0, len(rows), ROWS_AT_ONCE):
        own = slice(first, first + ROWS_AT_ONCE)
        n = np.rint(known[own] @ known.T).astype(int)
        some = np.maximum(n, 1)
        mean = (centred[own] @ known.T - known[own] @ centred.T) / some
        squares = centred[own] ** 2 @ known.T + known[own] @ (centred**2).T - 2 * centred[own] @ centred.T
        error = np.sqrt(np.maximum(squares / some - mean**2, 0) / np.maximum(n - 1, 1))
        bound = bounds[n] * error
        near = (n > 1) & (mean > bound * (1 - NEAR) - NEAR * largest)
        surely = near & (mean > bound * (1 + NEAR)) & (error > NEAR * largest)
        unsure = near & ~surely
        np.fill_diagonal(unsure[:, own], val=False)  # each against itself
        for row, above, doubtful in zip(errors[own], surely.any(axis=1), unsure):
            shown.append(above or any(_is_above(row, errors[other], level) for other in np.flatnonzero(doubtful)))
    return shown


ROWS_AT_ONCE = 32
NEAR = 1e-6
"""How close to a bound, as a fraction, sums of products do not tell on which side of it a number is."""


def _is_above(own: NDArray[np.float64], other: NDArray[np.float64], level: float) -> bool:
    """Whether errors by seed are shown to be higher than others, NaN where there is none."""
    both = (own == own) & (other == other)  # NaN is unlike itself
    paired = paired_seeds(other[both].tolist(), own[both].tolist())
    return paired.difference > 0 and paired.p_value is not None and paired.p_value / 2 <= level
