"""A table of text cells, the one set of forms in which numbers stand in them, and a document of tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from senet_bench import __version__
from senet_bench.core.schemas import schema_of

EMPTY = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, under a group where neighbours share one; `status` colours the whole of it."""

    name: str
    group: str = ""
    numeric: bool = True
    status: str = ""

    @property
    def full(self) -> str:
        """The heading behind its group's."""
        return f"{self.group} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with the status that colours it, and a note that its table carries once.

    `value` is what the text says, for machines: in SI units and fractions, None where that is the text itself.
    """

    text: str
    status: str = ""
    note: str = ""
    value: object = None

    def __str__(self) -> str:
        """The text alone."""
        return self.text


@dataclass(frozen=True)
class Table:
    """A table of cells with its notes; every writer draws it, and a page shows a `folded` one on a click."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    notes: tuple[str, ...] = ()
    folded: bool = False

    @cached_property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The cells as text alone."""
        return tuple(tuple(map(str, row)) for row in self.rows)

    @cached_property
    def texts_of_columns(self) -> tuple[tuple[str, ...], ...]:
        """The same, a column at a time."""
        return tuple(zip(*self.texts)) if self.rows else ((),) * len(self.columns)

    @cached_property
    def longest(self) -> tuple[int, ...]:
        """The characters of the longest cell of each column, its heading aside."""
        return tuple(max(map(len, cells), default=0) for cells in self.texts_of_columns)

    def of_columns(self, chosen: Sequence[int]) -> Table:
        """The table with some of its columns, by their places."""
        rows = tuple(tuple(row[index] for index in chosen) for row in self.rows)
        part = replace(self, columns=tuple(self.columns[index] for index in chosen), rows=rows)
        part.__dict__["texts_of_columns"] = tuple(self.texts_of_columns[index] for index in chosen)
        part.__dict__["longest"] = tuple(self.longest[index] for index in chosen)
        return part


def in_parts(table: Table, fits: Callable[[Sequence[int]], bool]) -> Iterator[Table]:
    """The table, or as many of its columns at a time as fit by their places, each time behind the first one."""
    whole = range(len(table.columns))
    chosen, parts = [0], []
    for index in whole[1:]:
        if len(chosen) > 1 and not fits([*chosen, index]):
            parts.append(chosen)
            chosen = [0]
        chosen.append(index)
    yield from [table.of_columns(part) for part in (*parts, chosen)] if parts else [table]


Item = TypeVar("Item")
Field = tuple[Column, Callable[[Item], str | Cell]]
"""A column and how an item fills it."""


def table_of(title: str, fields: Sequence[Field[Item]], items: Iterable[Item], notes: Iterable[str] = ()) -> Table:
    """A table of a line an item; the notes of its cells come first, each once."""
    known = list(items)
    columns = [[text(item) for item in known] for _, text in fields]
    rows = tuple(zip(*columns))
    plain = all(set(map(type, cells)) <= {str} for cells in columns)
    noted = [] if plain else [cell.note for row in rows for cell in row if isinstance(cell, Cell) and cell.note]
    return Table(title, tuple(column for column, _ in fields), rows, (*dict.fromkeys(noted), *notes))


def number(value: float | None, form: str = ".2f", scale: float = 1) -> str:
    """A number times `scale` in a format of Python's, empty where there is none."""
    return EMPTY if value is None else format(scale * value, form)


def interval_text(bounds: Sequence[float] | None, form: str = ".2f", scale: float = 1, between: str = " to ") -> str:
    """The two bounds of an interval, empty where there is none."""
    return EMPTY if bounds is None else between.join(number(bound, form, scale) for bound in bounds)


def points_text(value: float | None, bounds: Sequence[float] | None = None, form: str = "+.2f") -> str:
    """A fraction in points, signed, with its interval in brackets where there is one."""
    return number(value, form, 100) + bracketed(None if value is None else bounds, form, 100)


def bracketed(bounds: Sequence[float] | None, form: str = ".2f", scale: float = 1) -> str:
    """An interval in brackets, to stand behind its number; empty where there is none."""
    return f" [{interval_text(bounds, form, scale, ', ')}]" if bounds else EMPTY


def count_cell(value: int | None) -> Cell:
    """A count, in JSON as a number; empty where there is none."""
    return Cell(EMPTY if value is None else str(value), value=value)


def unreadable(skipped: Sequence[object]) -> list[str]:
    """The note of images that could not be read; none where all could."""
    return [f"{len(skipped)} unreadable image{'s' * (len(skipped) != 1)} left out"] if skipped else []


@dataclass(frozen=True, slots=True)
class Document:
    """What a command hands to the writers: its JSON, its tables in two widths, and its flat records.

    `narrow` is for a terminal on which a table of `wide` does not fit; `more` are fields of the JSON beside its own.
    """

    json: object
    wide: tuple[Table, ...]
    narrow: tuple[Table, ...]
    records: tuple[Mapping[str, Any], ...]
    more: Mapping[str, Any] = field(default_factory=dict)


def of_table(table: Table) -> Document:
    """One table by itself; its records are its lines under their headings."""
    records = _lines(table)
    return Document({"title": table.title, "rows": records, "notes": table.notes}, (table,), (table,), records)


def of_tables(command: str, tables: Sequence[Table], **about: object) -> Document:
    """What a command has to say in tables alone: they are the rows of its JSON, and their lines its records."""
    lines = [_values(table) for table in tables]
    rows = [{"title": table.title, "lines": own, "notes": table.notes} for table, own in zip(tables, lines)]
    records = tuple({"table": table.title, **line} for table, own in zip(tables, lines) for line in own)
    json = {"schema": schema_of(command), "version": __version__, **about, "rows": rows}
    return Document(json, tuple(tables), tuple(tables), records)


def _lines(table: Table) -> tuple[dict[str, str], ...]:
    """The lines of a table under their headings, as texts."""
    names = [column.full for column in table.columns]
    return tuple(dict(zip(names, row)) for row in table.texts)


def _values(table: Table) -> tuple[dict[str, object], ...]:
    """The lines of a table under their headings, for machines; None where nothing is known."""
    names = [column.full for column in table.columns]
    return tuple(dict(zip(names, map(_value, row))) for row in table.rows)


def _value(cell: str | Cell) -> object:
    value = cell.value if isinstance(cell, Cell) else None
    return (str(cell) or None) if value is None else value
