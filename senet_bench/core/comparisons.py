"""Errors of the rows of one table set against each other: paired by seed, tested, and corrected over the table.

The family of a correction is every row that is compared; the control with its gates fixed at 0.5 is there to compare
with, and in no family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from senet_bench.core.axes import setting_label
from senet_bench.core.results import Accuracy, Difference, Row, TrainingProtocol
from senet_bench.core.specs import USUAL_REDUCTION
from senet_bench.core.statistics import holm
from senet_bench.errors import UsageError, nearest

LEVEL = 0.05
Whom = Literal["baseline", "control"]


def of_seeds(errors: Mapping[int, float], protocol: TrainingProtocol, trained_on: Sequence[str] = ()) -> Accuracy:
    """The mean and the standard deviation of the errors by seed; it is compared with nothing yet."""
    from senet_bench.core.intervals import sd

    values = [value for _, value in sorted(errors.items())]
    return Accuracy(
        dataset=protocol.dataset or "",
        top1_err=sum(values) / len(values),
        sd=sd(values) if len(values) > 1 else None,
        seeds=len(values),
        protocol=protocol,
        per_seed={str(seed): value for seed, value in sorted(errors.items())},
        trained_on=list(trained_on),
    )


def compared(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with its differences to its baseline and to the constant gate of that baseline.

    A row whose errors are not stored by seed keeps the differences that it has.
    """
    to_baseline = differences(rows, [baseline_of(row, rows) for row in rows])
    to_control = differences(rows, [control_of(row, rows) for row in rows])
    return [_with(row, *both) for row, *both in zip(rows, to_baseline, to_control)]


def rows_against(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows, each with its difference to the row that a name means; `UsageError` where it means none or several.

    A row is compared with the one of its own baseline where there is one for each.
    """
    found = differences(rows, references(rows, name))
    return [
        replace(row, accuracy=replace(row.accuracy, against=difference)) if row.accuracy else row
        for row, difference in zip(rows, found)
    ]


def references(rows: Sequence[Row], name: str) -> list[Row | None]:
    """For each row the one that a name means among those of its baseline, None for that row itself."""
    chosen = rows_named(rows, name)
    return [_reference(row, chosen) for row in rows]


def rows_named(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows that a name means: by label, setting, block or network; of SE's settings the plain one is `se`.

    `UsageError` where there is none, or where several belong to one baseline.
    """
    wanted = name.strip().lower()
    by_label = [row for row in rows if wanted in (row.label.lower(), setting_label(row.axes or {}).lower())]
    by_name = [row for row in rows if wanted in names(row)]
    chosen = by_label or by_name
    if not chosen:
        known = list(dict.fromkeys(setting_label(row.axes or {}) or row.label for row in rows))
        hint = nearest(name, known, most=1) or f"choose from {', '.join(known)}"
        raise UsageError(f"no row is called {name!r}", hint)
    usual = [row for row in chosen if row.attention and row.attention.reductions == (USUAL_REDUCTION,)]
    groups = {_group(row): [other for other in chosen if _group(other) == _group(row)] for row in chosen}
    several = next((group for group in groups.values() if len(group) > 1), None)
    if several and len({_group(row) for row in usual}) == len(usual) == len(groups):
        return usual
    if several:
        labels = ", ".join(setting_label(row.axes or {}) or row.label for row in several)
        raise UsageError(f"{name!r} is the name of {len(several)} rows: {labels}", "name one of them")
    return chosen


def names(row: Row) -> set[str]:
    """What a row is called beside its label: its block (with options), or its network where it has none."""
    if row.attention is None or row.role == "plain":
        return {row.model.lower(), *(["none", "baseline"] if row.role == "baseline" else [])}
    options = "".join(f"/{key}={value}" for key, value in row.attention.options)
    return {f"{row.attention.block}{options}".lower(), row.attention.block.lower(), row.model.lower()}


def _group(row: Row) -> tuple[object, ...]:
    """The baseline that a row belongs to, with its sizes."""
    return row.baseline or row.model, row.input_size, row.classes


def _reference(row: Row, chosen: Sequence[Row]) -> Row | None:
    own = [other for other in chosen if _group(other) == _group(row)]
    other = own[0] if own else chosen[0] if len(chosen) == 1 else None
    return None if other is row else other


def baseline_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """The row that a row's differences are to, None where it is not there."""
    known = (
        other
        for other in rows
        if other is not row
        and (other.model, other.input_size, other.classes) == (row.baseline, row.input_size, row.classes)
        and (other.attention is None or other.role == "baseline")
    )
    return next(known, None)


def control_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """The control of the same baseline, None for what is no variant or where there is none."""
    if row.role != "variant":
        return None
    return next((other for other in rows if other.role == "control" and _group(other) == _group(row)), None)


def differences(rows: Sequence[Row], others: Sequence[Row | None]) -> list[Difference | None]:
    """Each row's difference to the other one, None where they share no seed; corrected over the rows that are tested.

    The control is tested alone.
    """
    from senet_bench.core.intervals import paired_seeds

    alone = [_difference(row, other) for row, other in zip(rows, others)]
    family = [
        place for place, one in enumerate(alone) if one and one.p_value is not None and rows[place].role != "control"
    ]
    p_values = [one.p_value or 0.0 for place in family if (one := alone[place])]
    adjusted = dict(zip(family, holm(p_values)))
    found: list[Difference | None] = []
    for place, one in enumerate(alone):
        other = others[place]
        if one is None or other is None or place not in adjusted:
            found.append(one)
            continue
        ours, theirs = pairs_of(rows[place], other)
        joint = paired_seeds(theirs, ours, 1 - LEVEL / len(family)).ci
        found.append(replace(one, joint_ci=joint, p_holm=adjusted[place], family=len(family)))
    return found


def pairs_of(row: Row, other: Row) -> tuple[list[float], list[float]]:
    """The errors of two rows over the seeds that both have, in the order of the seeds."""
    ours, theirs = (one.accuracy.per_seed if one.accuracy else {} for one in (row, other))
    shared = sorted(ours.keys() & theirs.keys(), key=lambda seed: (len(seed), seed))
    return [ours[seed] for seed in shared], [theirs[seed] for seed in shared]


def _difference(row: Row, other: Row | None) -> Difference | None:
    from senet_bench.core.intervals import paired_seeds

    if other is None:
        return None
    ours, theirs = pairs_of(row, other)
    if not ours:
        return None
    paired = paired_seeds(theirs, ours)
    return Difference(row=other.label, value=paired.difference, pairs=paired.n, ci=paired.ci, p_value=paired.p_value)


def _with(row: Row, baseline: Difference | None, control: Difference | None) -> Row:
    """The row with what was found of it put into its accuracy."""
    if row.accuracy is None or not row.accuracy.per_seed:
        return row
    accuracy = replace(
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
    return replace(row, accuracy=accuracy)


@dataclass(frozen=True, slots=True)
class Lowest:
    """The row with the lowest mean error; `worse` are told not to be the lowest, of the `tied` nothing is told."""

    row: Row
    tied: tuple[Row, ...]
    worse: tuple[Row, ...]


def lowest(rows: Sequence[Row]) -> Lowest | None:
    """Which row errs least over the seeds that all have, and which of the others are told not to.

    None below two rows with errors.

    A row is told where its error is above that of another by a one-sided paired test at 5 % over the number of other
    rows. Hsu's multiple comparisons with the best: of all such claims together, one is wrong at most once in 20 times,
    whichever row the data made the lowest.
    """
    known = [row for row in rows if row.accuracy is not None and row.role != "control"]
    if len(known) < 2:
        return None
    shared = set.intersection(*(set(row.accuracy.per_seed) for row in known if row.accuracy))

    def error(row: Row) -> float:
        """The mean over the seeds that all rows have, where those are two or more."""
        seeds = [row.accuracy.per_seed[seed] for seed in shared] if row.accuracy else []
        return sum(sorted(seeds)) / len(seeds) if len(seeds) > 1 else _error(row)

    best = min(known, key=error)
    above = _above_another(known)
    worse = tuple(row for row, told in zip(known, above) if told and row is not best)
    tied = tuple(row for row, told in zip(known, above) if not told and row is not best)
    return Lowest(best, tied, worse)


def _error(row: Row) -> float:
    return row.accuracy.top1_err if row.accuracy else 1.0


def _above_another(rows: Sequence[Row]) -> list[bool]:
    """Which rows are shown to have a higher error than some other: one-sided t over shared seeds, by Bonferroni.

    Differences that are equal over all seeds have the p of their signs.
    """
    import numpy as np
    from scipy.special import stdtr

    from senet_bench.core.intervals import EQUAL

    seeds = sorted({seed for row in rows if row.accuracy for seed in row.accuracy.per_seed})
    errors = np.array(
        [[row.accuracy.per_seed.get(seed, np.nan) if row.accuracy else np.nan for seed in seeds] for row in rows]
    )
    level, told = LEVEL / (len(rows) - 1), []
    for own in errors:
        apart = own - errors if seeds else np.empty((len(rows), 0))
        n = np.count_nonzero(~np.isnan(apart), axis=1)
        some = np.maximum(n, 1)
        mean = np.nansum(apart, axis=1) / some
        spread = np.sqrt(np.nansum((apart - mean[:, None]) ** 2, axis=1) / np.maximum(n - 1, 1) / some)
        equal = spread <= EQUAL * np.nanmax(np.abs(errors), initial=0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = np.where(equal, 0.5**some, stdtr(np.maximum(n - 1, 1), -mean / spread))
        told.append(bool(np.any((n > 1) & (mean > 0) & (p <= level))))
    return told
