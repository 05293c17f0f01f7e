"""The printed cells that stand beside a row, each judged against what was counted: made here once, shown by others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from senet_bench.core.catalog import resolve
from senet_bench.core.paper import CellStatus, compare_cell
from senet_bench.core.results import Row
from senet_bench.core.studies import STUDIES, Study, paper_cells


def judge(row: Row, studies: Iterable[str | None]) -> list[CellStatus]:
    """The paper's cells of a row in some studies (None: the network's own rows), each beside what was counted.

    Empty for a network whose image size, channels, classes or cardinality are not those of the table.
    """
    if row.outside:  # a network from outside is in no table of the paper
        return []
    spec = replace(resolve(row.model), attention=row.attention)
    if (row.input_size, row.cardinality) != (spec.input_size, None):
        return []
    measured = {**row.flops, **({} if row.params is None else {"trainable": row.params})}
    cells = dict.fromkeys(cell for study in studies for cell in paper_cells(spec, study))
    classes = {study.table: study.classes for study in STUDIES.values()}
    return [compare_cell(cell, measured) for cell in cells if row.classes == (classes.get(cell.table) or spec.classes)]


def judged(rows: Iterable[Row], study: str) -> list[Row]:
    """The rows, each with its cells of one study alone."""
    return [replace(row, paper=judge(row, [study])) for row in rows]


def find(row: Row, number: str | None, metric: str, column: str | None = None) -> CellStatus | None:
    """The paper's cell of a row; without a column the re-implementation's is preferred to the original's."""
    cells = [
        cell
        for cell in row.paper
        if cell.metric == metric and number in (None, cell.table) and column in (None, cell.column)
    ]
    return next((cell for cell in cells if cell.column != "original"), cells[0] if cells else None)


def stands_in(row: Row, study: Study) -> bool:
    """Whether a row has cells in the study's printed table."""
    return any(cell.table == study.table for cell in row.paper)
