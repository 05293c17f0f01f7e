"""Tables written as Markdown, CSV, LaTeX and HTML."""

from __future__ import annotations

import csv as comma_separated
import html
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, repeat
from typing import TYPE_CHECKING, Any

from senet_bench.errors import UsageError
from senet_bench.show.latex import latex
from senet_bench.show.style import digest, stylesheet
from senet_bench.show.tables import Cell, Column, Table

if TYPE_CHECKING:
    from senet_bench.show.tables import Document

ENDINGS = (("md", "md"), ("csv", "csv"), ("tex", "latex"), ("html", "html"))
"""The formats that a table is kept in, by the ending of its file."""


def kept(name: str, document: Document) -> Iterator[tuple[str, str]]:
    """A document in every format it is kept in, by the path below the results folder."""
    for ending, format in ENDINGS:  # noqa: A001
        yield f"tables/{name}.{ending}", render(document, format)


def render(document: Document, format: str) -> str:  # noqa: A002 - the option's name
    """A document in one of `FORMATS`."""
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", f"choose from table, {', '.join(FORMATS)}")
    return FORMATS[format](document)


def markdown(tables: Sequence[Table]) -> str:
    """GitHub's Markdown: a heading, a table and its notes, for each."""
    parts = []
    for table in tables:
        parts.append(f"### {table.title}\n\n{_piped(table)}\n")
        parts += [f"- {note}" for note in table.notes] + [""] * bool(table.notes)
    return "\n".join(parts)


def _piped(table: Table) -> str:
    """The lines of a table between pipes, its columns as wide as their longest cells."""
    columns = []
    for column, cells in zip(table.columns, table.texts_of_columns):
        texts = [column.full, *cells]
        whole = "".join(texts)
        if "|" in whole or "\n" in whole:
            texts = [text.replace("|", r"\|").replace("\n", " ") for text in texts]
        wide = max(len(texts[0]) + 2, *map(len, texts))
        rule = f"{'-' * (wide + 1)}:" if column.numeric else f":{'-' * (wide + 1)}"
        aligned = [f" {text} " for text in map(str.rjust if column.numeric else str.ljust, texts, repeat(wide))]
        columns.append([aligned[0], rule, *aligned[1:]])
    return "\n".join(f"|{'|'.join(line)}|" for line in zip(*columns))


def html_page(tables: Sequence[Table], title: str = "") -> str:
    """A page of the tables, every value escaped, nothing loaded from elsewhere; folded tables open on a click."""
    style = stylesheet()
    policy = f"default-src 'none'; style-src '{digest(style)}'; img-src data:"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>{html.escape(title or 'senet-bench')}</title>",
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">',
        f"<style>{style}</style></head><body><main>",
        f"<h1>{html.escape(title)}</h1>" if title else "",
    ]
    parts.append(html_tables(tables))
    return "\n".join([*filter(None, parts), "</main></body></html>", ""])


def html_tables(tables: Sequence[Table]) -> str:
    """The tables under their headings, each with its notes, every value escaped."""
    parts = []
    for table in tables:
        heading, body = html.escape(table.title), _html_table(table)
        if table.folded:
            parts.append(f"<details><summary>{heading}</summary>{body}</details>")
        else:
            parts += [f"<h2>{heading}</h2>" if heading else "", body]
        parts += ["<ul>", *(f"<li>{html.escape(note)}</li>" for note in table.notes), "</ul>"] if table.notes else []
    return "\n".join(filter(None, parts))


def _html_table(table: Table) -> str:
    """The lines of a table; groups of columns stand in a line of their own, a cell's status is its class."""
    if not table.rows:
        return ""
    lines = ['<div class="scroll"><table><thead>']
    if any(column.group for column in table.columns):
        groups = ((name, len(list(columns))) for name, columns in groupby(column.group for column in table.columns))
        cells = (f'<th colspan="{width}">{html.escape(name)}</th>' for name, width in groups)
        lines.append(f'<tr class="groups">{"".join(cells)}</tr>')
    lines.append("<tr>" + "".join(f"<th>{html.escape(column.name)}</th>" for column in table.columns) + "</tr>")
    lines.append("</thead><tbody>")
    columns = [_html_cells(column, cells) for column, cells in zip(table.columns, zip(*table.rows))]
    lines += map("".join, zip(repeat("<tr>"), *columns, repeat("</tr>")))
    return "\n".join([*lines, "</tbody></table></div>"])


def _html_cells(column: Column, cells: Sequence[str | Cell]) -> list[str]:
    """The cells of a column, a number's and a status's of their class."""
    kind = "num " * column.numeric
    whole = "\n".join(map(str, cells))
    apart = whole.count("\n") == len(cells) - 1  # all at once, where a line is a cell
    texts = html.escape(whole).split("\n") if apart else [html.escape(str(cell)) for cell in cells]
    start = f'<td class="{kind.strip()}">'
    if not any(isinstance(cell, Cell) for cell in cells):
        return [f"{start}{text}</td>" for text in texts]
    starts = (f'<td class="{(kind + _status(cell)).strip()}">' if isinstance(cell, Cell) else start for cell in cells)
    return [f"{begun}{text}</td>" for begun, text in zip(starts, texts)]


def _status(cell: Cell) -> str:
    """The class of a cell's status."""
    return cell.status.replace(" ", "-")


def csv(records: Sequence[Mapping[str, Any]]) -> str:
    """One line a record, under the union of their fields; what lies in a field has columns of its own."""
    plain = all(set(map(type, record.values())) <= {str} for record in records)
    lines = records if plain else [dict(_plain(record)) for record in records]
    names = dict.fromkeys(name for line in lines for name in line)
    text = io.StringIO()
    writer = comma_separated.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(
        ([*map(line.get, names)] if plain else [_known(line.get(name)) for name in names]) for line in lines
    )
    return text.getvalue()


def _known(value: Any) -> Any:
    """A value, None for what is no number."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _plain(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The fields with plain values: `FIELD_KEY` for those of a mapping, an interval's two bounds, lists as a text."""
    for field, value in record.items():
        name = f"{before}{field}"
        if isinstance(value, Mapping):
            yield from _plain(value, f"{name}_")
        elif isinstance(value, tuple) and len(value) == 2 and all(isinstance(bound, float) for bound in value):
            yield from ((f"{name}_low", value[0]), (f"{name}_high", value[1]))
        elif isinstance(value, list | tuple):
            yield name, ("x" if name.endswith("size") else "/").join(map(str, value))
        else:
            yield name, value


def _json(document: Document) -> str:
    import msgspec

    from senet_bench.core.results import to_json

    return to_json({**msgspec.to_builtins(document.json), **document.more} if document.more else document.json)


FORMATS: dict[str, Callable[[Document], str]] = {
    "md": lambda document: markdown(document.wide),
    "csv": lambda document: csv(document.records),
    "json": _json,
    "latex": lambda document: latex(document.wide, document.narrow),
    "siunitx": lambda document: latex(document.wide, document.narrow, aligned=True),
    "html": lambda document: html_page(document.wide),
}
"""The machine formats: what `--format` is called with, and the function that writes it."""
