"""What was measured here, a table for each protocol: what a network costs, how it errs, what of that is decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from senet_bench.core import comparisons, union
from senet_bench.core.comparisons import LEVEL
from senet_bench.core.metrics import METRICS
from senet_bench.core.results import Difference, Row
from senet_bench.core.union import Timed
from senet_bench.core.yardstick import Yardstick
from senet_bench.gallery.collection import Collection, conditions_label, main_timing
from senet_bench.show.layout import Layout
from senet_bench.show.measurements import Trained, error_fields, to_baseline
from senet_bench.show.networks import increase
from senet_bench.show.tables import EMPTY, Cell, Column, Field, Table, interval_text, points_text, table_of

MOST = 40
"""Lines of one table."""
DECIDED_NOTE = (
    "decided: p by Holm, over the rows compared in that column, of at most 0.05; what is not decided may be so or not"
)
COST_NOTE = "costs: more than the baseline's, counted; time: the ratio of paired rounds with its interval"


def own_tables(collection: Collection) -> list[Table]:
    """The tables, that of the most seeds first, then the networks of no table of the paper that were only counted."""
    timed = main_timing(collection.timings)
    tables = [_trained(errors, timed, collection) for errors in collection.errors]
    trained = {union.identity(row) for errors in collection.errors for row in errors.rows}
    counted = [row for row in collection.rows("compare", "ablate") if row.role != "control" and not row.paper]
    others = [row for row in counted if union.identity(row) not in trained and (row.outside or row.attention)]
    others = collection.layout.asked(others)
    return [*tables, *([_counted(others, counted, timed, collection)] if others else [])]


def _trained(errors: union.Errors, timed: Timed | None, collection: Collection) -> Table:
    layout, rows = collection.layout, collection.asked(errors.rows)[:MOST]
    fields = [*_cost_fields(rows, timed, errors.rows), *_error_fields(rows, layout)]
    if any(to_baseline(row.accuracy) for row in rows if row.accuracy):
        fields += [
            (Column("minus the baseline"), lambda row: _points(_to_baseline(row), layout)),
            (Column("decided", numeric=False), lambda row: decision(_to_baseline(row))),
        ]
    yardstick = collection.yardstick(errors, name="SE")
    beside = _beside(errors.rows, yardstick, asked=layout.against is not None)
    if yardstick and any(id(row) in beside for row in rows):
        fields += [
            (Column(f"minus {yardstick.name}"), lambda row: _points(beside.get(id(row)), layout)),
            (Column(f"against {yardstick.name}", numeric=False), lambda row: decision(beside.get(id(row)))),
        ]
    size = "x".join(map(str, errors.size[1:]))
    title = f"On {collection.protocol_name(errors.protocol)}, {size} px"
    more = len(collection.asked(errors.rows)) - len(rows)
    shown = [f"{more} more rows stand in the table of errors"] if more else []
    notes = (*shown, *errors.notes, DECIDED_NOTE, *_cost_notes(timed, rows, collection))
    return table_of(title, fields, rows, notes)


def _counted(others: Sequence[Row], known: Sequence[Row], timed: Timed | None, collection: Collection) -> Table:
    rows = collection.layout.labelled(others[:MOST])
    more = len(others) - len(rows)
    notes = ([f"{more} more are not listed"] if more else []) + _cost_notes(timed, rows, collection)
    return table_of("Counted, and not trained", _cost_fields(rows, timed, known), rows, notes)


def _cost_notes(timed: Timed | None, rows: Sequence[Row], collection: Collection) -> list[str]:
    known = timed is not None and any(timed.latency_of(row) for row in rows)
    where = f" ({collection.name_of(timed.machine)}, {conditions_label(timed.conditions)})" if timed and known else ""
    return [COST_NOTE + where if known else COST_NOTE.partition(";")[0]]


def _cost_fields(rows: Sequence[Row], timed: Timed | None, known: Sequence[Row] | None = None) -> list[Field[Row]]:
    """Parameters and FLOPs, over the baseline's where that is there, else as they are, and the ratio of times."""
    others = comparisons.References(known or rows)
    bases = {id(row): others.baseline_of(row) for row in rows}
    fields: list[Field[Row]] = [(Column("network", numeric=False), union.labels(known or rows))]
    for key in ("params", "flops"):
        metric = METRICS[key]
        form = metric.form_for(rows)
        if any(bases.values()):
            fields.append((Column(f"{metric.name} +%"), _more(bases, key)))
        else:
            fields.append((Column(form.heading), _form_of(form.text, metric.of)))
    if timed is not None and any(timed.latency_of(row) for row in rows):
        fields.append((Column("time"), lambda row: _time(timed, row)))
    return fields


def _form_of(text: Callable[[float | None], str], of: Callable[[Row], float | None]) -> Callable[[Row], str]:
    return lambda row: text(of(row))


def _more(bases: dict[int, Row | None], key: str) -> Callable[[Row], str]:
    return lambda row: increase(row, bases[id(row)], METRICS[key])


def _time(timed: Timed, row: Row) -> str:
    latency = timed.latency_of(row)
    if latency is None or latency.ratio is None or latency.reason:
        return EMPTY
    return f"{latency.ratio:.3f}" + (f" [{interval_text(latency.ci, '.3f', 1, ', ')}]" if latency.ci else EMPTY)


def _error_fields(rows: Sequence[Row], layout: Layout) -> Iterator[Field[Row]]:
    trained = {id(row): (row, row.accuracy) for row in rows if row.accuracy}
    for column, text in error_fields(list(trained.values()), narrow=False, layout=layout):
        yield column, _of_trained(trained, text)


def _of_trained(trained: Mapping[int, Trained], text: Callable[[Trained], str | Cell]) -> Callable[[Row], str | Cell]:
    return lambda row: text(trained[id(row)]) if id(row) in trained else EMPTY


def _to_baseline(row: Row) -> Difference | None:
    return to_baseline(row.accuracy) if row.accuracy else None


def _beside(rows: Sequence[Row], yardstick: Yardstick | None, *, asked: bool) -> dict[int, Difference]:
    """The differences to the row of a yardstick, by the row's id; empty where there is none.

    With SE, where it was not asked for, empty too where there is no other block.
    """
    others = [row for row in rows if row.role == "variant" and row.attention and row.attention.block != "se"]
    if yardstick is None or not (others or asked):
        return {}
    differences = comparisons.differences(rows, [yardstick.of(row) for row in rows])
    kept = ("variant", "plain", "baseline") if asked else ("variant", "plain")
    return {id(row): one for row, one in zip(rows, differences) if one is not None and row.role in kept}


def _points(difference: Difference | None, layout: Layout) -> str:
    return points_text(difference.value, difference.ci, f"+.{layout.decimals}f") if difference else EMPTY


def decision(difference: Difference | None) -> str:
    """What the corrected test of a difference says, empty where there is none."""
    if difference is None or difference.p_holm is None:
        return EMPTY
    if difference.p_holm > LEVEL:
        return f"not decided (p {difference.p_holm:.2g})"
    return f"{'lower' if difference.value < 0 else 'higher'} (p {difference.p_holm:.2g})"


def decided(collection: Collection) -> list[tuple[union.Errors, Row, Difference]]:
    """The rows that are told from their baseline, code from outside first, then those with the largest differences."""
    decisions = [
        (errors, row, difference)
        for errors in collection.errors
        for row in errors.rows
        if row.role != "control"
        and row.accuracy is not None
        and row.accuracy.p_holm is not None
        and row.accuracy.p_holm <= LEVEL
        and (difference := to_baseline(row.accuracy))
    ]
    return sorted(decisions, key=lambda one: (not one[1].source, -abs(one[2].value), one[1].label))
