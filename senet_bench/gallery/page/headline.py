"""What the stored facts say in short: the paper's cells reproduced or not, and the first words of the page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from senet_bench.core.comparisons import LEVEL
from senet_bench.core.paper import TABLES, CellStatus, Status, cells, compare_cell
from senet_bench.core.reproduction import find, of_study
from senet_bench.core.results import Difference, Row
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.studies import STUDIES
from senet_bench.core.union import Errors, Timed
from senet_bench.gallery import here
from senet_bench.gallery.collection import Collection, conditions_label, main_timing
from senet_bench.show.measurements import to_baseline
from senet_bench.show.networks import HEADINGS, counted, delta
from senet_bench.show.tables import EMPTY, Cell, Column, Table, count_cell

SIGNS: dict[Status, str] = {
    "match": "✓",
    "near": "≈",
    "differs": "≠",
    "not reproduced": "✗",
    "not measured": "–",
    "other protocol": "≁",
    "released weights": "◇",
    "same sign and inside": "✓",
    "same sign": "≈",
    "not shown": "?",
    "opposite": "≠",
}
CELL_WORDS = {"top1_gain": "top-1 gain", "top5_gain": "top-5 gain", "crop": "crop, px", "extra_data": "extra data"}
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


def grids(collection: Collection) -> list[Grid]:
    """Every table of numbers that the paper prints, judged against the newest counts and the stored errors."""
    return [grid(number, collection) for number in COMPARED]


def grid(number: str, collection: Collection) -> Grid:
    """One printed table; cells that nothing was measured for are there too, with the reason."""
    printed = cells(number)
    known = {(one.row, one.column, one.metric): one for one in statuses(number, collection)}
    found = {
        (cell.row, cell.column, cell.metric): known.get((cell.row, cell.column, cell.metric)) or compare_cell(cell)
        for cell in printed
    }
    found |= {key: one for key, one in known.items() if key not in found}  # gains that are not printed
    columns = tuple(dict.fromkeys((one.column, one.metric) for one in found.values()))
    names = tuple(dict.fromkeys(cell.row for cell in printed))
    study = f"table{number}" if f"table{number}" in STUDIES else None
    counts = tuple((status, sum(one.status == status for one in found.values())) for status in SIGNS)
    return Grid(
        id=f"table{number}",
        title=f"Table {number}. {TABLES[number].title}",
        protocol=TABLES[number].protocol,
        columns=tuple(
            (GROUPS.get(group, group), HEADINGS.get(name) or CELL_WORDS.get(name, name)) for group, name in columns
        ),
        lines=tuple((name, tuple(_cell(found.get((name, *column))) for column in columns)) for name in names),
        counts=tuple((status, count) for status, count in counts if count),
        known=bool(known),
        command=f"senet-bench compare {study}" if study and not known else "",
    )


def statuses(number: str, collection: Collection) -> list[CellStatus]:
    """The cells of a printed table that a stored row stands beside."""
    study = f"table{number}"
    if study not in STUDIES:
        return []
    return [cell for row in collection.of_study(study) for cell in row.paper if cell.table == number]


def tally(grids: Iterable[Grid]) -> Mapping[Status, int]:
    """How many cells of all tables have which status."""
    total: dict[Status, int] = dict.fromkeys(SIGNS, 0)
    for one in grids:
        for status, count in one.counts:
            total[status] += count
    return total


def _cell(one: CellStatus | None) -> GridCell:
    if one is None:
        return GridCell()
    ours = counted(one)
    tip = [f"{one.row}: {HEADINGS.get(one.metric) or CELL_WORDS.get(one.metric, one.metric)}, {one.status}"]
    how = "measured" if one.ci or one.differs_in else "counted"
    interval = f", {one.ci[0]:.2f} to {one.ci[1]:.2f}" if one.ci else ""
    tip.append(f"printed {one.printed}" + (f", {how} {ours} ({delta(one)}){interval}" if ours else ""))
    if one.explanation:
        tip.append(one.explanation)
    sign = "" if one.printed == "-" else SIGNS[one.status]
    return GridCell(one.printed, ours, one.status, sign, "\n".join(tip))


PAIRS_OF = "table2"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number to be seen from afar: its value, what it is, and where it comes from; `key` is its metric's.

    `median` and `between`, the least and the largest, are changes as fractions.
    """

    key: str
    value: str
    what: str
    origin: str
    source: str
    median: float
    between: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Headline:
    """Title, sentences and figures."""

    title: str
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...]


def headline(collection: Collection, timed: Timed | None) -> Headline:
    """What is decided of the networks measured here; else what the paper prints of Table 2's pairs that are stored."""
    pairs = _pairs(collection.rows())
    figures = [_gain(pairs), _more(pairs, "flops"), _more(pairs, "params"), _time(pairs, timed, collection)]
    shown = tuple(figure for figure in figures if figure is not None) if len(pairs) > 1 else ()
    sentences = [sentence for errors in collection.errors for sentence in _of_errors(errors, collection)]
    if shown:
        sentences.append(f"Medians over {len(pairs)} pairs of the paper's Table 2, each network with and without SE.")
    own = here.decided(collection)
    return Headline(_own_title(*own[0]) if own else _title(shown), tuple(sentences), shown)


def _own_title(errors: Errors, row: Row, difference: Difference) -> str:
    """A row that is told from its baseline, with the interval of its difference."""
    points = f"{abs(100 * difference.value):.2f} points"
    what = f"takes {points} off" if difference.value < 0 else f"adds {points} to"
    between = _between(difference.ci).replace("-", "−")
    return _unbroken(f"{row.label} {what} the top-1 error on {errors.protocol.dataset}{between}")


def _of_errors(errors: Errors, collection: Collection) -> Iterator[str]:
    """What a protocol's table decides, of each row that is told from its baseline or of none."""
    compared = [(row, one) for row in errors.rows if row.role != "control" and (one := _difference(row))]
    if not compared:
        return
    decided = [(row, one) for row, one in compared if one.p_holm is not None and one.p_holm <= LEVEL]
    rows = f"{len(compared)} row{'s' * (len(compared) != 1)}"
    seeds = f"{errors.protocol.seeds} seed{'s' * (errors.protocol.seeds != 1)}"
    begin = f"On {collection.protocol_name(errors.protocol)}, by up to {seeds}, of {rows} compared with a baseline"
    listed = [f"{row.label} {_minus(100 * one.value, 2)} points{_between(one.ci)}" for row, one in decided]
    yield f"{begin} {len(decided) or 'none'} {'are' if len(decided) > 1 else 'is'} told from it" + (
        f": {'; '.join(listed)}." if listed else "."
    )


def _difference(row: Row) -> Difference | None:
    return to_baseline(row.accuracy) if row.accuracy else None


def _title(figures: Sequence[Figure]) -> str:
    bought = next((figure.value for figure in figures if figure.key == "accuracy"), None)
    costs = [one for one in figures if one.key in ("flops", "params")]
    spent = [f"{one.value[1:]} {'more' if one.value[0] == '+' else 'fewer'} {one.what}" for one in costs]
    if bought is None or not spent:
        return "What Squeeze-and-Excitation costs and buys"
    listed = spent[0] if len(spent) == 1 else f"{', '.join(spent[:-1])} and {spent[-1]}"
    return _unbroken(f"In the paper SE takes {bought.lstrip('−-')} off the top-1 error, for {listed}")


def _unbroken(title: str) -> str:
    """The title with no line ending inside a number or a name."""
    return title.replace("-", "\u2011").replace(" %", "\u00a0%")


def _pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Baseline and SE variant of each printed row of Table 2."""
    printed = of_study(rows, PAIRS_OF)
    bases = {row.model: row for row in printed if row.paper and row.attention is None}
    return [
        (bases[row.baseline], row)
        for row in printed
        if row.paper and row.attention == AttentionSpec() and row.baseline in bases
    ]


def _gain(pairs: Sequence[tuple[Row, Row]]) -> Figure | None:
    gains = []
    for base, variant in pairs:
        cells = [find(row, "2", "top1_err") for row in (base, variant)]
        numbers = [float(cell.printed) for cell in cells if cell and cell.printed != "-"]
        gains += [numbers[1] - numbers[0]] if len(numbers) == 2 else []
    if not gains:
        return None
    origin = f"{_minus(min(gains), 2)} to {_minus(max(gains), 2)}, as the paper prints them"
    value = f"{_minus(statistics.median(gains), 2)} points"
    what = "top-1 error on ImageNet"
    return Figure("accuracy", value, what, origin, "paper", *_spread([gain / 100 for gain in gains]))


def _more(pairs: Sequence[tuple[Row, Row]], metric: str) -> Figure | None:
    def of(row: Row) -> float:
        return float((row.flops.get("macs") if metric == "flops" else row.params) or 0)

    percents = [100 * (of(variant) / of(base) - 1) for base, variant in pairs if of(base) and of(variant)]
    if not percents:
        return None
    what = "multiply-adds" if metric == "flops" else "parameters"
    digits = 2 if metric == "flops" else 1
    origin = f"{min(percents):+.{digits}f} % to {max(percents):+.{digits}f} %, counted here"
    shares = _spread([percent / 100 for percent in percents])
    return Figure(metric, f"{statistics.median(percents):+.{digits}f} %", what, origin, "here", *shares)


def _time(pairs: Sequence[tuple[Row, Row]], timed: Timed | None, collection: Collection) -> Figure | None:
    latencies = [timed.latency_of(variant) for _, variant in pairs] if timed else []
    ratios = [latency.ratio for latency in latencies if latency and latency.ratio and not latency.reason]
    if len(ratios) < 2 or timed is None:
        return None
    where = f"{collection.name_of(timed.machine)} ({conditions_label(timed.conditions)})"
    median, between = _spread([ratio - 1 for ratio in ratios])
    low, high = (f"{100 * edge:+.1f} %" for edge in between)
    origin = f"{low} to {high} over {len(ratios)} pairs, measured on {where}"
    return Figure("latency", f"{100 * median:+.1f} %", "time a call", origin, "here", median, between)


def _spread(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The median, the least and the largest."""
    return statistics.median(values), (min(values), max(values))


def _between(interval: tuple[float, float] | None) -> str:
    return f" ({_minus(100 * interval[0], 2)} to {_minus(100 * interval[1], 2)})" if interval else ""


def _minus(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


MOST_TOLD = 5
"""Protocols that a terminal is told of."""
TOLD_NOTE = "told: rows told from their baseline, by tests corrected over the rows compared"


def summary(collection: Collection, grids: Sequence[Grid], missing: Mapping[str, tuple[str, str]]) -> tuple[Table, ...]:
    """Four tables at most, in one width that fits 80 columns; what was found comes last."""
    tables = []
    if missing:
        columns: tuple[Column, ...] = (Column("missing", numeric=False), Column("brought by", numeric=False))
        tables.append(Table("What is not there yet", columns, tuple(missing.values())))
    counts = {grid.id: dict(grid.counts) for grid in grids if grid.known}
    if counts:
        signs = [status for status in SIGNS if any(status in number for number in counts.values())]
        columns = (Column("table", numeric=False), *(Column(status, status=status) for status in signs))
        body: tuple[tuple[str | Cell, ...], ...] = tuple(
            (name.replace("table", "Table "), *(_count(number.get(status, 0)) for status in signs))
            for name, number in counts.items()
        )
        tables.append(Table("The paper's cells beside what was counted here", columns, body))
    first = headline(collection, main_timing(collection.timings))
    if first.figures:
        columns = (Column("what", numeric=False), Column("median"), Column("from", numeric=False))
        lines = tuple((one.what, Cell(one.value, value=one.median), _origin(one)) for one in first.figures)
        tables.append(Table("What SE costs and buys", columns, lines, first.sentences[-1:]))
    return (*tables, *_own(collection))


def _count(value: int) -> Cell:
    """A number of cells, empty where there are none."""
    return Cell(str(value or EMPTY), value=value)


def _origin(figure: Figure) -> Cell:
    value = {"low": figure.between[0], "high": figure.between[1], "source": figure.source}
    return Cell(figure.origin, value=value)


def _own(collection: Collection) -> Iterator[Table]:
    """What was measured here of each protocol; whose rows are told from their baseline stands in the notes."""
    lines, notes = list[tuple[str | Cell, ...]](), list[str]()
    for errors in collection.errors:
        compared = [one for row in errors.rows if row.role != "control" and (one := _difference(row))]
        told = sum(one.p_holm is not None and one.p_holm <= LEVEL for one in compared)
        where = collection.protocol_name(errors.protocol)
        counts = (errors.protocol.seeds, len(compared), told)
        lines.append((where, *map(count_cell, counts)))
        notes += _of_errors(errors, collection) if told else ()
    more = [f"{len(lines) - MOST_TOLD} more protocols: see the page"] * (len(lines) > MOST_TOLD)
    columns = (Column("errors on", numeric=False), Column("seeds"), Column("compared"), Column("told"))
    if lines:
        yield Table("What was measured here", columns, tuple(lines[:MOST_TOLD]), (*notes[:MOST_TOLD], *more, TOLD_NOTE))
