"""The documents of runs: a table for each of the paper's that their rows stand in, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from senet_bench.core.axes import AXES
from senet_bench.core.comparisons import ranked, setting_of
from senet_bench.core.paper import TABLES
from senet_bench.core.reproduction import stands_in
from senet_bench.core.results import Row, Run
from senet_bench.core.schemas import schema_of
from senet_bench.core.studies import STUDIES, Study
from senet_bench.core.union import labels
from senet_bench.show.layout import AS_IS, Layout
from senet_bench.show.measurements import error_table, latency_table
from senet_bench.show.networks import HEADINGS, network_table, pairs_in, paper_table
from senet_bench.show.records import records
from senet_bench.show.tables import EMPTY, Document, Table


def of_run(run: Run, studies: Sequence[Study] = (), layout: Layout = AS_IS, notes: Sequence[str] = ()) -> Document:
    """A run: a table for each of `studies` that its rows stand in, and one for the others; `notes` are of errors.

    All columns are there, of which `laid` takes those that were asked for. A name of the layout that means no row is
    told in a note: `Layout.check` refuses it before anything is measured.
    """
    layout = replace(layout.found(run.rows), yardstick=layout.yardstick_of(run.rows))
    rows = layout.compared(run.rows)
    kept = {id(row) for row in layout.asked(rows) or rows}
    named = [new for own, new in zip(rows, layout.labelled(rows)) if id(own) in kept]
    own, shown = replace(run, rows=[row for row in rows if id(row) in kept]), replace(run, rows=named)
    if run.schema == schema_of("ablate"):
        base = next((row for row in run.rows if row.baseline is None), None)
        wide, narrow = _of_ablation(shown, layout, base.label if base else EMPTY)
    else:
        wide, narrow = _of_comparison(shown, studies, layout)
    among = len(ranked(run.rows))
    wide += _measured(shown, layout, notes, among, narrow=False)
    narrow += _measured(shown, layout, notes, among, narrow=True)
    absent = layout.absent(run.rows)
    if absent and wide:
        said = f"not measured, and so neither shown nor compared with: {', '.join(absent)}"
        wide, narrow = ([replace(first, notes=(said, *first.notes)), *more] for first, *more in (wide, narrow))
    lines = tuple(line for row in shown.rows for line in records(row))
    return Document(own, tuple(wide), tuple(narrow), lines)


def laid(document: Document, layout: Layout) -> Document:
    """The document with the columns that were asked for."""
    if not layout.columns:
        return document
    tables = layout.of_tables(document.wide, document.records)
    return replace(document, wide=tables, narrow=tables, records=layout.of_records(document.records))


def _of_comparison(run: Run, studies: Sequence[Study], layout: Layout) -> tuple[list[Table], list[Table]]:
    """What was counted, in both widths."""
    wide, narrow = [], []
    for study in studies:
        rows = _as_printed([row for row in run.rows if stands_in(row, study)], study)
        if not rows:
            continue
        name = partial(_row_name, study)
        lines = partial(network_table, _title(study), rows, study.table, name=name, against=layout.yardstick)
        narrow.append(lines(narrow=True))
        wide.append(paper_table(_title(study), study.table, rows) if _in_pairs(rows, study) else lines())
        for tables in (wide, narrow):
            tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, *_beside(study)))
    rest = [row for row in run.rows if not any(stands_in(row, study) for study in studies)]
    if rest:
        title = "Other networks" if studies else "Networks"
        lines = partial(network_table, title, rest, name=labels(run.rows), against=layout.yardstick)
        wide.append(lines())
        narrow.append(lines(narrow=True))
    return wide, narrow


def _in_pairs(rows: Sequence[Row], study: Study) -> bool:
    """Whether the paper prints a line for each pair, and every row is one of a pair: the other may not be asked for."""
    paired = {id(row) for pair in pairs_in(rows) for row in pair}
    return study.id in ("table2", "table3") and all(id(row) in paired for row in rows)


def _beside(study: Study) -> Iterator[str]:
    """What else the paper says of a comparison with networks or images of its own: other rows, the protocol."""
    if study.kind == "ablation" or study.id in ("table2", "table3"):
        return
    ours = {subject.row for subject in study.subjects}
    others: dict[str, list[str]] = {}
    for cell in TABLES[study.table].cells:
        if cell.row not in ours and cell.value is not None and cell.metric in HEADINGS:
            others.setdefault(cell.row, []).append(f"{HEADINGS[cell.metric]} {cell.printed}")
    for row, figures in others.items():
        yield f"also printed: {row}: {', '.join(figures)}"
    yield f"protocol: {TABLES[study.table].protocol}"


def _as_printed(rows: Sequence[Row], study: Study) -> list[Row]:
    """Rows in the order the paper prints them."""
    order = [(subject.row, subject.column) for subject in study.subjects]

    def position(row: Row) -> int:
        places = [(cell.row, cell.column) for cell in row.paper if cell.table == study.table]
        return min(order.index(place) for place in places if place in order)

    return sorted(rows, key=position)


def _of_ablation(run: Run, layout: Layout, base: str) -> tuple[list[Table], list[Table]]:
    """All rows of an ablation in one table, in both widths, beside the printed one where a single axis has it.

    `base` is what its baseline is called, which need not be among the rows that are shown.
    """
    if not run.rows:
        return [], []
    axes = list(run.conditions.axes or {})
    table = AXES[axes[0]].table if len(axes) == 1 and axes[0] in AXES else None
    study = STUDIES[table] if table and any(stands_in(row, STUDIES[table]) for row in run.rows) else None
    title = _title(study) if study else f"{base or run.rows[0].label} by {' x '.join(axes)}"
    number = study.table if study else None
    lines = partial(network_table, title, run.rows, number, name=setting_of, against=layout.yardstick)
    left_out = tuple(f"left out: {name}: {why}" for name, why in (run.conditions.left_out or {}).items())
    wide, narrow = ([replace(one, notes=(*left_out, *one.notes))] for one in (lines(), lines(narrow=True)))
    return wide, narrow


def _measured(run: Run, layout: Layout, notes: Sequence[str], among: int, *, narrow: bool) -> Iterator[Table]:
    """The tables of latencies and of errors, where there are any; the rows were chosen from `among`."""
    name: Callable[[Row], str] = setting_of if run.schema == schema_of("ablate") else labels(run.rows)
    if times := latency_table(run.rows, narrow=narrow, name=name, against=layout.yardstick):
        yield times
    if errors := error_table(run.rows, narrow=narrow, name=name, layout=layout, among=among):
        yield replace(errors, notes=(*notes, *errors.notes, *_about_trials(run)))


def _about_trials(run: Run) -> tuple[str, ...]:
    """What must be said of batches that are not the recipe's, and of trials of earlier versions that are not taken."""
    smaller = tuple(run.conditions.smaller_batches or ())
    count = run.conditions.trials_left_out
    why = "they do not say which source their code from outside had"
    left_out = (f"left out: {count} trials that earlier versions stored: {why}",) if count else ()
    return (*smaller, *left_out)


def _title(study: Study) -> str:
    return f"Table {study.table}. {TABLES[study.table].title}"


def _row_name(study: Study, row: Row) -> str:
    """An ablation's row as it is printed, a network of a comparison by its name."""
    cell = next(cell for cell in row.paper if cell.table == study.table)
    return cell.row if study.kind == "ablation" else row.label
