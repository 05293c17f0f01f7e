"""What fits an overhead, and what errs least among it: pure functions of stored figures, free of torch.

A budget is a ratio to the baseline: 1.03 is 3 % more. Parameters and FLOPs are exact, so a network is inside or
outside; a latency has an interval, and a network whose interval holds the limit is undecided.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import UsageError

Cost = Literal["latency", "flops", "params"]
Standing = Literal["inside", "undecided", "not measured", "outside"]
CandidateKind = Literal["baseline", "attention", "control", "plain"]
Basis = Literal["measured", "printed", "interpolated"]
STANDINGS: tuple[Standing, ...] = ("inside", "undecided", "not measured", "outside")
"""From the best to the worst; a network stands at the worst of its costs."""
LARGEST = 10.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network with its costs as ratios to the baseline and its error (a fraction), None where it is not known.

    `intervals` has those of ratios that were measured, `errors` the error by seed, `kind` what it is compared as: the
    `control` has its gates fixed, a `plain` network is wider or deeper without attention. `command` brings what is
    missing.
    """

    model: str
    label: str
    kind: CandidateKind
    ratios: Mapping[Cost, float]
    intervals: Mapping[Cost, tuple[float, float]] = field(default_factory=dict)
    error: float | None = None
    ci: tuple[float, float] | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    basis: Basis = "measured"
    note: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class ErrorDifference:
    """One network's error minus another's over the seeds both have; no interval where nothing says how sure it is."""

    value: float
    ci: tuple[float, float] | None

    @property
    def told_apart(self) -> bool | None:
        """Whether the interval leaves out zero; without one, equal errors are not told apart, of others it is None."""
        if self.ci is None:
            return None if self.value else False
        return not self.ci[0] <= 0 <= self.ci[1]


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate, where it stands to the budget, and its error minus the baseline's and minus the best's."""

    candidate: Candidate
    place: Standing
    to_baseline: ErrorDifference | None
    to_best: ErrorDifference | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """All candidates; the one with attention and inside the budget that errs least, and what may be as good.

    `tied` are the networks not outside the budget that the data cannot tell from the best, `untested` those for which
    there is nothing to tell by.
    """

    rows: tuple[Judged, ...]
    best: Judged | None
    tied: tuple[Judged, ...]
    untested: tuple[Judged, ...]

    def at(self, place: Standing) -> tuple[Judged, ...]:
        """The rows with attention that stand there."""
        return tuple(row for row in self.rows if row.candidate.kind == "attention" and row.place == place)

    def of(self, kind: CandidateKind) -> tuple[Judged, ...]:
        """The rows of one kind."""
        return tuple(row for row in self.rows if row.candidate.kind == kind)


@dataclass(frozen=True, slots=True)
class BudgetVerdict:
    """The judgement on one baseline and its variants, by errors of one source that may be compared.

    `table` is the printed table that the errors stand in, `latency` the conditions and machine of the latencies.
    `resized` says whether wider and deeper plain networks were looked for, `source` is empty where no error is known.
    """

    baseline: str
    label: str
    source: str
    table: str | None
    limits: Mapping[Cost, float]
    latency: str
    judgement: Ranking
    resized: bool = True


def kind_of_candidate(attention: AttentionSpec | None, *, is_baseline: bool) -> CandidateKind:
    """What a network with this attention is to the baseline."""
    if attention is None:
        return "baseline" if is_baseline else "plain"
    return "control" if attention.is_constant else "attention"


def limit(cost: Cost, text: str) -> float:
    """The ratio that a budget's text means: `1.03`, `+3 %` or `3%`; `UsageError` for what is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)|\+?\s*(\d+(?:\.\d+)?)\s*%", text.strip(), re.ASCII)
    ratio = 0.0 if match is None else float(match[1]) if match[1] else 1 + float(match[2]) / 100
    if not 1 <= ratio <= LARGEST:
        raise UsageError(f"--budget-{cost} {text!r} is no overhead", "write 1.03 or '+3 %' for 3 % more")
    return ratio


def rank_candidates(limits: Mapping[Cost, float], candidates: Sequence[Candidate]) -> Ranking:
    """Where every candidate stands, and which errs least of those with attention that are surely inside.

    Two are compared over the seeds that both have: the best is the one that fewest others err less than, of several
    such the one with the lowest error, of equal ones the first. Networks with other data are not for one call.
    """
    base = next((one for one in candidates if one.kind == "baseline"), None)
    placed = [(one, place(limits, one)) for one in candidates]
    inside = [one for one, where in placed if one.kind == "attention" and where == "inside" and one.error is not None]
    winner = min(inside, key=lambda one: (sum(_errs_less(other, one) for other in inside), one.error), default=None)
    rows = tuple(
        Judged(one, where, error_difference(one, base), error_difference(one, winner)) for one, where in placed
    )
    rivals = [row for row in rows if row.to_best is not None and row.place != "outside"]
    return Ranking(
        rows,
        next((row for row in rows if row.candidate is winner), None),
        tuple(row for row in rivals if row.to_best and row.to_best.told_apart is False),
        tuple(row for row in rivals if row.to_best and row.to_best.told_apart is None),
    )


def place(limits: Mapping[Cost, float], candidate: Candidate) -> Standing:
    """Where a candidate stands to all limits at once: at the worst of its places."""
    places = [_place(candidate, cost, most) for cost, most in limits.items()]
    return max(places, key=STANDINGS.index, default="inside")


def _place(candidate: Candidate, cost: Cost, most: float) -> Standing:
    ratio = candidate.ratios.get(cost)
    if ratio is None:
        return "not measured"
    low, high = candidate.intervals.get(cost, (ratio, ratio))
    if cost == "latency" and cost not in candidate.intervals and candidate.kind != "baseline":
        return "undecided"  # an estimate without an interval decides nothing
    return "inside" if high <= most else "outside" if low > most else "undecided"


def error_difference(candidate: Candidate, other: Candidate | None) -> ErrorDifference | None:
    """The candidate's error minus another's; None of itself and where one has no error.

    Over the seeds that both have, with the 95 % t interval from two on.
    """
    if other is None or candidate is other or candidate.error is None or other.error is None:
        return None
    shared = sorted(candidate.errors.keys() & other.errors.keys())
    if not shared:
        return ErrorDifference(candidate.error - other.error, None)
    from senet_bench.core.intervals import paired_seeds

    paired = paired_seeds([other.errors[seed] for seed in shared], [candidate.errors[seed] for seed in shared])
    return ErrorDifference(paired.difference, paired.ci)


def _errs_less(candidate: Candidate, other: Candidate) -> bool:
    difference = error_difference(candidate, other)
    return difference is not None and difference.value < 0


def interpolated(at: float, known: Sequence[tuple[float, float]]) -> float | None:
    """The error at a cost, on the straight line between its neighbours of (cost, error); None outside them."""
    ordered = sorted(known)
    for (low, first), (high, second) in itertools.pairwise(ordered):
        if low <= at <= high and high > low:
            return first + (second - first) * (at - low) / (high - low)
    return None
