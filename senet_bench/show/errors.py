"""The table of errors measured here: mean over seeds, paired differences, and what the data can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from senet_bench.core.results import Accuracy, Row
from senet_bench.show.tables import EMPTY, Column, Table

Anything = TypeVar("Anything")

NOTES = (
    "difference: minus the baseline's error over the same seeds and data order, in points, with its 95 % interval",
    "p: two-sided, by Holm over all rows",
    "over fixed gates: minus the error of the network with gates fixed at 0.5: what attention itself brings",
)


def error_table(rows: Sequence[Row], name: Callable[[Row], str], *, narrow: bool = False) -> Table | None:
    """One line a network that was trained; None when none was."""
    trained = [(row, row.accuracy) for row in rows if row.accuracy is not None]
    if not trained:
        return None
    columns: list[tuple[Column, Callable[[Row, Accuracy], str]]] = [
        (Column("network", numeric=False), lambda row, _: name(row)),
        (Column("error %"), lambda _, found: f"{100 * found.top1_err:.2f}"),
        (Column("sd"), lambda _, found: EMPTY if found.sd is None else f"{100 * found.sd:.2f}"),
        (Column("difference"), lambda _, found: _points(found.difference, found.difference_ci)),
        (Column("p"), lambda _, found: EMPTY if found.p_holm is None else f"{found.p_holm:.2g}"),
    ]
    if not narrow:
        columns.insert(3, (Column("seeds"), lambda _, found: str(found.seeds)))
    if any(found.control_difference is not None for _, found in trained):
        columns.append(
            (
                Column("over fixed gates"),
                lambda _, found: _points(found.control_difference, found.control_difference_ci),
            )
        )
    body = tuple(tuple(text(row, found) for _, text in columns) for row, found in trained)
    protocol = trained[0][1].protocol
    recipe = f"{protocol.get('recipe')}, {protocol.get('epochs')} epochs, lr {protocol.get('lr')}"
    missing = tuple(f"{name(row)}: {row.missing['accuracy']}" for row in rows if "accuracy" in row.missing)
    title = f"Top-1 error on {trained[0][1].dataset} ({recipe})"
    return Table(title, tuple(column for column, _ in columns), body, (*missing, *fronts(rows, name), *NOTES))


def fronts(rows: Sequence[Row], name: Callable[[Row], str]) -> tuple[str, ...]:
    """The Pareto front of error against each cost, and which settings the data cannot tell from the best."""
    settings = [row for row in rows if row.accuracy is not None and not _is_control(row)]
    if len(settings) < 2:
        return ()
    costs: dict[str, Callable[[Row], float | None]] = {
        "FLOPs": lambda row: row.flops.get("macs"),
        "parameters": lambda row: row.params,
        "latency": _relative_latency,
    }
    lines = []
    for cost, of in costs.items():
        if all(of(row) is not None for row in settings):
            lines.append(f"Pareto front of error against {cost}: {', '.join(name(row) for row in front(settings, of))}")
    best = min(settings, key=_error)
    tied = [name(row) for row in settings if row is not best and not _told_apart(row, best)]
    lines.append(
        f"lowest error: {name(best)}"
        + (f"; the data cannot tell it from {', '.join(tied)}" if tied else "; the data tell it from all others")
    )
    return tuple(lines)


def front(rows: Sequence[Row], cost: Callable[[Row], float | None]) -> list[Row]:
    """The rows on the Pareto front of error against a cost, by rising cost."""
    return pareto(rows, lambda row: cost(row) or 0.0, _error)


def pareto(
    items: Iterable[Anything], cost: Callable[[Anything], float], loss: Callable[[Anything], float]
) -> list[Anything]:
    """The items that no other beats in one of cost and loss without losing in the other, by rising cost."""
    kept: list[Anything] = []
    for item in sorted(items, key=lambda item: (cost(item), loss(item))):
        if not kept or loss(item) < loss(kept[-1]):
            kept.append(item)
    return kept


def _told_apart(row: Row, best: Row) -> bool:
    """Whether the 95 % t interval of the paired difference leaves out zero."""
    from senet_bench.core.intervals import paired_seeds

    ours, theirs = (one.accuracy.per_seed if one.accuracy else {} for one in (row, best))
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) < 2:
        return False
    interval = paired_seeds([theirs[seed] for seed in shared], [ours[seed] for seed in shared]).ci
    return interval is not None and not interval[0] <= 0 <= interval[1]


def _error(row: Row) -> float:
    return row.accuracy.top1_err if row.accuracy else 1.0


def _is_control(row: Row) -> bool:
    return row.role == "control"


def _relative_latency(row: Row) -> float | None:
    if row.latency is None:
        return None
    return 1.0 if row.baseline is None else row.latency.ratio


def _points(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return EMPTY
    return f"{100 * value:+.2f}" + (f" [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]" if interval else EMPTY)
