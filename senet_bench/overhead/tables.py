"""The verdict on an overhead: a table of what fits it, the sentences that follow from it, and both as plain values."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from senet_bench.core.results import Row
from senet_bench.overhead.budget import BudgetVerdict, Candidate, Cost, ErrorDifference, Judged, Ranking, Standing
from senet_bench.show.layout import AS_IS, Layout
from senet_bench.show.tables import EMPTY, Column, Document, Table

COST_NAMES: dict[Cost, str] = {"latency": "latency", "flops": "FLOPs", "params": "parameters"}
CalledBy = tuple[str, str]
"""A network's model and label."""
SHOWN_ATTEMPTS = 4
HINTS: dict[Cost, str] = {"flops": "FLOPs", "params": "params", "latency": "latency"}


def with_verdicts(
    document: Document, verdicts: Sequence[BudgetVerdict], layout: Layout = AS_IS, rows: Sequence[Row] = ()
) -> Document:
    """The document with a table for each verdict, and in its JSON the field `verdict`.

    Tables and records call the networks of `rows` as the layout does and list those that it asks for; what follows is
    of all networks.
    """
    if not verdicts:
        return document
    layout = layout.found(rows)
    names = {(own.model, own.label): new.label for own, new in zip(rows, layout.labelled(rows))}
    asked = {(row.model, row.label) for row in layout.asked(rows) or rows}
    shown = [_shown(one, names, asked if layout.rows else None) for one in verdicts]
    return Document(
        document.json,
        (*document.wide, *(table(one, lines) for one, lines in shown)),
        (*document.narrow, *(table(one, lines, narrow=True) for one, lines in shown)),
        (*document.records, *(record for one, lines in shown for record in _records(one, lines))),
        {"verdict": [as_values(one) for one in verdicts]},
    )


def _shown(
    verdict: BudgetVerdict, names: Mapping[CalledBy, str], asked: Container[CalledBy] | None
) -> tuple[BudgetVerdict, list[Judged]]:
    """A verdict with its networks under the names given, and those of them that were asked for, all where None was."""

    def called(row: Judged) -> CalledBy:
        return row.candidate.model, row.candidate.label

    def named(row: Judged) -> Judged:
        return replace(row, candidate=replace(row.candidate, label=names.get(called(row), row.candidate.label)))

    of = verdict.judgement
    best, tied, untested = of.best and named(of.best), tuple(map(named, of.tied)), tuple(map(named, of.untested))
    ranking = Ranking(tuple(map(named, of.rows)), best, tied, untested)
    lines = [named(row) for row in of.rows if asked is None or called(row) in asked]
    return replace(verdict, judgement=ranking), lines


def as_values(verdict: BudgetVerdict) -> dict[str, Any]:
    """A verdict as JSON has it: fractions and ratios, null where nothing is known."""
    judgement = verdict.judgement
    return {
        "baseline": verdict.baseline,
        "source": verdict.source,
        "table": verdict.table,
        "limits": dict(verdict.limits),
        "latency": verdict.latency or None,
        "best": judgement.best.candidate.label if judgement.best else None,
        "tied": [row.candidate.label for row in judgement.tied],
        "untested": [row.candidate.label for row in judgement.untested],
        "candidates": [_values(row) for row in judgement.rows],
        "sentences": list(sentences(verdict)),
    }


def _values(row: Judged) -> dict[str, Any]:
    return {
        **asdict(row.candidate),
        "place": row.place,
        "to_baseline": row.to_baseline and asdict(row.to_baseline),
        "to_best": row.to_best and asdict(row.to_best),
    }


def _records(verdict: BudgetVerdict, lines: Sequence[Judged]) -> Iterator[Mapping[str, Any]]:
    for row in lines:
        one = row.candidate
        yield {
            "model": one.model,
            "label": one.label,
            "baseline": verdict.baseline,
            "verdict_source": verdict.source,
            "verdict_kind": one.kind,
            **{f"verdict_{cost}_ratio": one.ratios.get(cost) for cost in COST_NAMES},
            "verdict_place": row.place,
            "verdict_top1_err": one.error,
            "verdict_basis": one.basis,
            "verdict_to_baseline": row.to_baseline.value if row.to_baseline else None,
        }


def table(verdict: BudgetVerdict, lines: Sequence[Judged] | None = None, *, narrow: bool = False) -> Table:
    """A line a network: costs over the baseline's, where it stands to the budget, error, difference to the baseline.

    `lines` are those that are listed where not all are; what follows from all of them stands in the notes.
    """
    costs = [cost for cost in COST_NAMES if cost in verdict.limits or (cost != "latency" and not narrow)]
    columns = [Column("network", numeric=False)]
    columns += [Column(f"{HINTS[cost]} +%") for cost in costs]
    columns += [Column("budget", numeric=False)]
    columns += [Column("error %"), Column("to baseline")] if verdict.source else []
    cells = tuple(
        (
            row.candidate.label,
            *(_cost(row.candidate, cost) for cost in costs),
            row.place,
            *(_errors(row) if verdict.source else ()),
        )
        for row in (verdict.judgement.rows if lines is None else lines)
    )
    limits = " and ".join(f"{COST_NAMES[cost]} +{100 * (most - 1):.3g} %" for cost, most in verdict.limits.items())
    errors = f", errors {verdict.source}" if verdict.source else EMPTY
    title = f"{verdict.label} within {limits}{errors}"
    return Table(title, tuple(columns), cells, tuple(sentences(verdict)))


def _errors(row: Judged) -> tuple[str, str]:
    error = row.candidate.error
    return EMPTY if error is None else f"{100 * error:.2f}", _points(row.to_baseline)


def sentences(verdict: BudgetVerdict) -> Iterator[str]:
    """What follows: the best, what may be as good, what is undecided, and what the same costs without attention."""
    judgement = verdict.judgement
    if verdict.latency:
        yield f"latency: {verdict.latency}"
    if not verdict.resized:
        yield from _standings(verdict)
    if verdict.source:
        yield _best(verdict)
    if judgement.tied:
        yield f"the data cannot tell it from {_names(judgement.tied)}"
    if judgement.untested and verdict.table:
        yield "the paper prints no intervals: nothing tells whether these differences would come again"
    elif judgement.untested:
        yield f"no test is possible against {_names(judgement.untested)}: fewer than two seeds in common"
    if not verdict.resized:
        return
    timed = f"senet-bench compare {verdict.baseline} or ablate --latency brings it"
    open_places: tuple[tuple[Standing, str], ...] = (
        ("undecided", "more timing rounds would tell"),
        ("not measured", f"latency; {timed}"),
    )
    for place, what in open_places:
        if rows := judgement.at(place):
            yield f"{place} ({what}): {_names(rows)}"
    yield from _without_attention(verdict)


def _standings(verdict: BudgetVerdict) -> Iterator[str]:
    """What fits, what does not, and what is open, each by all its names."""
    kinds: tuple[tuple[Standing, str], ...] = (
        ("inside", "surely inside"),
        ("outside", "surely outside"),
        ("undecided", "open, a longer --budget tells"),
        ("not measured", "open, not measured"),
    )
    for place, words in kinds:
        labels = [row.candidate.label for row in verdict.judgement.at(place)]
        if labels or words.startswith("surely"):
            yield f"{words}: {', '.join(labels) or 'none'}"


def _best(verdict: BudgetVerdict) -> str:
    best = verdict.judgement.best
    if best is None:
        rows = verdict.judgement.of("attention")
        inside = [row for row in rows if row.place == "inside"]
        why = "their errors are not known" if inside else "none is surely inside the budget"
        return f"no network with attention can be named: {why}"
    one, gain = best.candidate, best.to_baseline
    said = f"lowest error within the budget: {one.label}, {100 * (one.error or 0):.2f} %"
    if one.ci:
        said += f" [{100 * one.ci[0]:.2f}, {100 * one.ci[1]:.2f}]"
    if gain is None:
        return f"{said}; the baseline's error is not known"
    return said + (
        f", {_points(gain)} points to the baseline" if gain.value < 0 else ", no lower than the baseline's: keep that"
    )


def _without_attention(verdict: BudgetVerdict) -> Iterator[str]:
    """The same overhead in width or depth; nothing of networks that have no other size."""
    rows = verdict.judgement.of("plain")
    if not rows:
        yield f"without attention: no wider or deeper {verdict.label} can be built here"
    elif set(verdict.limits) == {"latency"}:
        yield "wider and deeper networks are sized by FLOPs at that ratio: their latency is known where one was timed"
    for row in rows:
        one = row.candidate
        if one.error is not None:
            against = f", {_points(row.to_best)} points to the best" if row.to_best else EMPTY
            note = f" ({one.basis}: {one.note})" if one.note else EMPTY
            yield f"without attention: {_sized(row)}: {100 * one.error:.2f} %{against}{note}"
    unknown = [row for row in rows if row.candidate.error is None]
    for command in dict.fromkeys(row.candidate.command for row in unknown):
        named = ", ".join(_sized(row) for row in unknown if row.candidate.command == command)
        yield f"without attention, error not measured: {named}; {command} brings it"


def _sized(row: Judged) -> str:
    """A plain network with the name to train it by, and what it costs."""
    one = row.candidate
    costs = ", ".join(f"{COST_NAMES[cost]} {_cost(one, cost)} %" for cost in COST_NAMES if cost in one.ratios)
    where = EMPTY if row.place == "inside" else f", {row.place}"
    return f"{one.model or one.label} ({costs}{where})"


def _names(rows: Sequence[Judged]) -> str:
    """The labels, of many the first few."""
    more = f" and {len(rows) - SHOWN_ATTEMPTS} more" if len(rows) > SHOWN_ATTEMPTS + 1 else EMPTY
    return ", ".join(row.candidate.label for row in (rows[:SHOWN_ATTEMPTS] if more else rows)) + more


def _cost(candidate: Candidate, cost: Cost) -> str:
    """A ratio as per cent more, with its interval where it was measured."""
    ratio, interval = candidate.ratios.get(cost), candidate.intervals.get(cost)
    if ratio is None:
        return EMPTY
    if interval is None:
        return f"{100 * (ratio - 1):+.2f}"
    return f"{100 * (ratio - 1):+.1f} [{100 * (interval[0] - 1):+.1f}, {100 * (interval[1] - 1):+.1f}]"


def _points(difference: ErrorDifference | None) -> str:
    if difference is None:
        return EMPTY
    value, ci = difference.value, difference.ci
    return f"{100 * value:+.2f}" + (f" [{100 * ci[0]:+.2f}, {100 * ci[1]:+.2f}]" if ci else EMPTY)
