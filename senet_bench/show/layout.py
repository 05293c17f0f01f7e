"""How tables are laid out for their readers: which rows and columns, under which names, compared with which row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from senet_bench.core import comparisons
from senet_bench.core.results import Row
from senet_bench.core.specs import Spread
from senet_bench.core.union import identity
from senet_bench.core.yardstick import Yardstick
from senet_bench.errors import UsageError, nearest
from senet_bench.show.records import fields_of, plainly
from senet_bench.show.tables import Column, Document, Table


@dataclass(frozen=True, slots=True)
class Layout:
    """What a reader wants of tables; what is empty leaves them as they are.

    `against` names the row that errors, times and counts are compared with, `rows` and `columns` what is kept (columns
    also in that order), `labels` the names that rows are given. `spread` says how errors show their spread: sd in a
    column of its own, behind the mean, or the mean's 95 % interval instead; `decimals` is of errors and their
    differences. `yardstick` is the row of `against`, once it was looked up.
    """

    against: str | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    spread: Spread = "columns"
    decimals: int = 2
    yardstick: Yardstick | None = None

    def check(self, rows: Sequence[Row]) -> None:
        """Raise `UsageError` where a name means none of the rows, or one to compare with means several."""
        for name in (*self.labels, *self.found(rows).rows):
            matching(rows, name)
        if self.against:
            comparisons.rows_named(rows, self.against)

    def absent(self, rows: Sequence[Row]) -> list[str]:
        """The names that mean none of the rows: of those that were to be measured, some may not have been."""
        missing = [name for name in (*self.rows, *self.labels) if not meant(rows, name)]
        lost = [self.against] if self.against and self.yardstick_of(rows) is None else []
        return list(dict.fromkeys((*lost, *missing)))

    def yardstick_of(self, rows: Sequence[Row]) -> Yardstick | None:
        """What rows under their own names are compared with, under the name given; None where no row is called so."""
        try:
            chosen = comparisons.rows_named(rows, self.against) if self.against else []
        except UsageError:
            return None
        if self.against is None or not chosen:
            return None
        shown = {id(own): new for own, new in zip(rows, self.labelled(rows))}
        given = {shown[id(row)].label if shown[id(row)] is not row else self.against for row in chosen}
        name = given.pop() if len(given) == 1 else self.against
        title = shown[id(chosen[0])].label if len(chosen) == 1 else name
        others = zip(rows, comparisons.references(rows, self.against))
        return Yardstick(name, title, {identity(row): other for row, other in others if other is not None})

    def compared(self, rows: Sequence[Row]) -> list[Row]:
        """The rows, each with its difference to the row of the yardstick where there is one."""
        if self.yardstick is None:
            return list(rows)
        return comparisons.rows_against(rows, [self.yardstick.of(row) for row in rows])

    def labelled(self, rows: Sequence[Row]) -> list[Row]:
        """The rows under the names that they were given, which stand in the place of a setting too."""
        names = {id(row): text for name, text in self.labels.items() for row in meant(rows, name)}
        return [replace(row, label=names[id(row)], axes=None) if id(row) in names else row for row in rows]

    def asked(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that are asked for, of a table that may have none of them; all where none is named."""
        chosen = {id(row) for name in self.rows for row in meant(rows, name)}
        return [row for row in rows if not self.rows or id(row) in chosen]

    def found(self, *tables: Sequence[Row]) -> Layout:
        """The layout with the parts of `rows` put together that are the name of one row of the tables."""
        return replace(self, rows=together(self.rows, lambda name: any(meant(rows, name) for rows in tables)))

    def of_table(self, table: Table) -> Table:
        """The table with the columns asked for, in that order, behind its first one; itself where it has none.

        What its notes say of the columns that are left out goes with them.
        """
        names = together(self.columns, lambda name: bool(_places(table.columns, name)))
        places = [place for name in names for place in _places(table.columns, name) if place]
        if not places:
            return table
        chosen = [0, *dict.fromkeys(places)]
        columns = tuple(table.columns[place] for place in chosen)
        gone = {column.name for column in table.columns} - {column.name for column in columns}
        rows = tuple(tuple(row[place] for place in chosen) for row in table.rows)
        notes = tuple(note for note in table.notes if note.partition(":")[0] not in gone)
        return replace(table, columns=columns, rows=rows, notes=notes)

    def of_tables(self, tables: Iterable[Table], records: Sequence[Mapping[str, Any]] = ()) -> tuple[Table, ...]:
        """The tables that have a column which was asked for, all where none has.

        `UsageError` for a column that is none, nor a field of the records.
        """
        tables = tuple(tables)

        def has(table: Table, name: str) -> bool:
            return bool(_places(table.columns, name))

        def known(name: str) -> bool:
            return any(has(table, name) for table in tables) or bool(fields_of(records, name))

        names = together(self.columns, known)
        for name in names:
            if not known(name):
                columns = list(dict.fromkeys(column.full for table in tables for column in table.columns))
                hint = nearest(name, columns, most=1) or f"choose from {', '.join(columns)}"
                raise UsageError(f"no table has a column {name!r}", hint)
        kept = [table for table in tables if any(has(table, name) for name in names)]
        return tuple(map(self.of_table, kept)) if kept else tables

    def of_records(self, records: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
        """The records with the fields asked for behind their names, all where no name of a column is one of a field."""
        names = together(self.columns, lambda name: bool(fields_of(records, name)))
        fields = dict.fromkeys(field for name in names for field in fields_of(records, name))
        chosen = list(dict.fromkeys(("label", *fields)))
        return tuple({name: record.get(name) for name in chosen} if fields else record for record in records)

    def unheeded(self, document: Document, format: str) -> list[str]:  # noqa: A002 - the option's name
        """The columns asked for that change nothing of a document in a format; JSON has all of its fields."""
        if format == "json":
            return list(self.columns)

        def heeded(name: str) -> bool:
            if format == "csv":
                return bool(fields_of(document.records, name))
            return any(_places(table.columns, name) for table in document.wide)

        return [name for name in together(self.columns, heeded) if not heeded(name)]


AS_IS = Layout()


def matching(rows: Sequence[Row], name: str) -> list[Row]:
    """Every row that a name means; `UsageError` where it means none."""
    return meant(rows, name) or comparisons.rows_named(rows, name)


def meant(rows: Sequence[Row], name: str) -> list[Row]:
    """Every row that a name means, none where it means none or several of one baseline."""
    wanted = name.strip().lower()
    matches = [row for row in rows if wanted in comparisons.names(row)]
    try:
        return matches or comparisons.rows_named(rows, name)
    except UsageError:
        return []


def together(parts: Sequence[str], known: Callable[[str], bool]) -> tuple[str, ...]:
    """The names that a text between commas has, of its parts: of neighbours as many as possible are a known name."""
    names, start = [], 0
    while start < len(parts):
        ends = range(len(parts), start + 1, -1)
        end = next((end for end in ends if known(", ".join(parts[start:end]))), start + 1)
        names.append(", ".join(parts[start:end]))
        start = end
    return tuple(names)


def _places(columns: Sequence[Column], name: str) -> list[int]:
    """The places of the columns of a name; a group's name means all of its columns, `difference` that to any row.

    Both are called by what stands before their comma too: `params` is `params, M`.
    """
    wanted = plainly(name)
    if wanted in ("difference", "minus"):
        wanted = next((plainly(column.name) for column in columns if column.name.startswith("minus ")), wanted)

    def called(text: str) -> bool:
        return wanted in (plainly(text), plainly(text.partition(",")[0]))

    exact = [place for place, column in enumerate(columns) if wanted in (plainly(column.full), plainly(column.name))]
    short = [place for place, column in enumerate(columns) if called(column.group) or called(column.name)]
    return exact or short if wanted else []


def labels(typed: Iterable[str]) -> dict[str, str]:
    """The names given to rows by what they are called, of texts `KEY=TEXT`; KEY may hold equals signs itself."""
    names: dict[str, str] = {}
    for text in typed:
        key, equals, name = text.rpartition("=")
        if not (key and equals and name):
            raise UsageError(f"--label {text!r} is not KEY=TEXT", "use 'mine:Gate=Gate', for example")
        names[key] = name
    return names
