"""The paper's tables as printed, cell by cell, each with its status and what explains it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from senet_bench.core.paper import TABLES, CellStatus, Status, cells, compare_cell
from senet_bench.core.reproduction import judged
from senet_bench.core.results import Row
from senet_bench.core.studies import STUDIES
from senet_bench.show.networks import HEADINGS, counted, delta

SIGNS: dict[Status, str] = {"match": "✓", "near": "≈", "differs": "≠", "not reproduced": "✗", "not measured": "–"}
WORDS = {"top1_gain": "top-1 gain", "top5_gain": "top-5 gain", "crop": "crop, px", "extra_data": "extra data"}
GROUPS = {
    "reimplementation": "re-implementation",
    "senet": "SENet",
    "reported": "",
    "224": "224 px",
    "320/299": "320/299 px",
}
COMPARED = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16")


@dataclass(frozen=True, slots=True)
class GridCell:
    """One printed number, what stands against it here, and why; empty where the paper has no such cell."""

    printed: str = ""
    ours: str = ""
    status: Status | None = None
    sign: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A printed table: its columns as (group, name), a line a printed row, and how many cells have which status."""

    id: str
    title: str
    protocol: str
    columns: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, tuple[GridCell, ...]], ...]
    counts: tuple[tuple[Status, int], ...]
    known: bool
    command: str


def grids(rows: Sequence[Row]) -> list[Grid]:
    """Every table of numbers that the paper prints, judged against the newest counts."""
    return [grid(number, rows) for number in COMPARED]


def grid(number: str, rows: Sequence[Row]) -> Grid:
    """One printed table; cells that nothing was measured for are there too, with the reason."""
    printed = cells(number)
    known = {(one.row, one.column, one.metric): one for one in statuses(number, rows)}
    found = {
        (cell.row, cell.column, cell.metric): known.get((cell.row, cell.column, cell.metric)) or compare_cell(cell)
        for cell in printed
    }
    columns = tuple(dict.fromkeys((cell.column, cell.metric) for cell in printed))
    names = tuple(dict.fromkeys(cell.row for cell in printed))
    study = f"table{number}" if f"table{number}" in STUDIES else None
    counts = tuple((status, sum(one.status == status for one in found.values())) for status in SIGNS)
    return Grid(
        id=f"table{number}",
        title=f"Table {number}. {TABLES[number].title}",
        protocol=TABLES[number].protocol,
        columns=tuple(
            (GROUPS.get(group, group), HEADINGS.get(name) or WORDS.get(name, name)) for group, name in columns
        ),
        lines=tuple((name, tuple(_cell(found.get((name, *column))) for column in columns)) for name in names),
        counts=tuple((status, count) for status, count in counts if count),
        known=bool(known),
        command=f"senet-bench compare {study}" if study and not known else "",
    )


def statuses(number: str, rows: Iterable[Row]) -> list[CellStatus]:
    """The cells of a printed table that a stored row stands beside."""
    study = f"table{number}"
    if study not in STUDIES:
        return []
    return [cell for row in judged(rows, study) for cell in row.paper if cell.table == number]


def tally(found: Iterable[Grid]) -> Mapping[Status, int]:
    """How many cells of all tables have which status."""
    total: dict[Status, int] = dict.fromkeys(SIGNS, 0)
    for one in found:
        for status, count in one.counts:
            total[status] += count
    return total


def _cell(one: CellStatus | None) -> GridCell:
    if one is None:
        return GridCell()
    ours = counted(one)
    tip = [f"{one.row}: {HEADINGS.get(one.metric) or WORDS.get(one.metric, one.metric)}, {one.status}"]
    tip.append(f"printed {one.printed}" + (f", counted {ours} ({delta(one)})" if ours else ""))
    if one.explanation:
        tip.append(one.explanation)
    sign = "" if one.printed == "-" else SIGNS[one.status]
    return GridCell(one.printed, ours, one.status, sign, "\n".join(tip))
