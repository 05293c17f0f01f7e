"""Tables written as Markdown, CSV, LaTeX (booktabs) and HTML; pandas does the writing."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from senet_bench.core.results import to_json
from senet_bench.errors import UsageError
from senet_bench.show.documents import Document
from senet_bench.show.tables import Table

if TYPE_CHECKING:
    import pandas as pd

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
        align = tuple("right" if column.numeric else "left" for column in table.columns)
        body = _frame(table, _one_line).to_markdown(index=False, colalign=align, disable_numparse=True)
        parts.append(f"### {table.title}\n\n{body}\n")
        parts += [f"- {note}" for note in table.notes] + [""] * bool(table.notes)
    return "\n".join(parts)


def latex(tables: Sequence[Table]) -> str:
    r"""One `table` environment for each, with booktabs rules; needs `\usepackage{booktabs,multirow}`."""
    parts = []
    for table in tables:
        styler = (
            _frame(table, _two_lines)
            .style.hide(axis="index")
            .format(escape="latex")
            .format_index(escape="latex", axis=1)
        )
        text = styler.to_latex(
            hrules=True,
            caption=f"{table.title}",
            column_format="".join("r" if column.numeric else "l" for column in table.columns),
            multicol_align="c",
        )
        parts.append(
            text.replace("Δ", r"$\Delta$").replace("→", r"$\to$").replace("±", r"$\pm$")
            + "".join(f"% {note}\n" for note in table.notes)
        )
    return "\n".join(parts)


def page(tables: Sequence[Table]) -> str:
    """A plain HTML page of the tables, every value escaped."""
    parts = ["<!doctype html>", '<html lang="en"><meta charset="utf-8"><title>senet-bench</title>']
    for table in tables:
        parts += [
            f"<h2>{html.escape(table.title)}</h2>",
            _frame(table, _two_lines).to_html(index=False, escape=True, border=0),
        ]
        parts += ["<ul>", *(f"<li>{html.escape(note)}</li>" for note in table.notes), "</ul>"] if table.notes else []
    return "\n".join([*parts, "</html>", ""])


def csv(records: Sequence[Mapping[str, Any]]) -> str:
    """One line a record, under the union of their fields."""
    import pandas as pd

    return str(pd.DataFrame(list(records), dtype=object).to_csv(index=False, lineterminator="\n"))


def _one_line(group: str, name: str) -> str:
    return f"{group} {name}".strip()


def _two_lines(group: str, name: str) -> tuple[str, str]:
    return group, name


def _frame(table: Table, heading: Callable[[str, str], Any]) -> pd.DataFrame:
    import pandas as pd

    headings = [heading(column.group, column.name) for column in table.columns]
    index = pd.MultiIndex.from_tuples(headings) if isinstance(headings[0], tuple) else pd.Index(headings)
    return pd.DataFrame([list(row) for row in table.texts], columns=index)


FORMATS: dict[str, Callable[[Document], str]] = {
    "md": lambda document: markdown(document.wide),
    "csv": lambda document: csv(document.records),
    "json": lambda document: to_json(document.json),
    "latex": lambda document: latex(document.wide),
    "html": lambda document: page(document.wide),
}
"""The machine formats: what `--format` is called with, and the function that writes it."""
