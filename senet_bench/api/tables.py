"""Options of tables for people: which rows and columns they have, under which names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, get_args

import typer

from senet_bench.api.parameters import choice
from senet_bench.api.reading import Against
from senet_bench.core.specs import Spread

if TYPE_CHECKING:
    from senet_bench.show.layout import Layout
    from senet_bench.show.tables import Document


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Which rows and columns tables have, under which names, and what they are compared with."""

    PANEL: ClassVar[str] = "How it is shown and kept"
    against: Against = None
    rows: Annotated[
        str | None, typer.Option("--rows", help="Only these rows, by label, setting, block or network: none,se,eca.")
    ] = None
    columns: Annotated[
        str | None, typer.Option("--columns", help="Only these columns, in this order: 'params,error %,difference'.")
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Another name for a row, KEY=TEXT: 'mine:Gate=Gate'. Several times for several."),
    ] = None
    spread: Annotated[
        Spread,
        typer.Option(
            "--spread",
            help="Errors with sd in a column of its own, behind the mean, or with the mean's interval.",
            **choice(*get_args(Spread)),
        ),
    ] = "columns"
    decimals: Annotated[
        int, typer.Option("--decimals", min=0, max=6, help="Digits after the point of errors and differences.")
    ] = 2

    def layout(self) -> Layout:
        """What these options ask for."""
        from senet_bench.show.layout import Layout, labels, together

        given = labels(self.label or ())
        keys = {text.lower(): key for key, text in given.items()}  # a row may be asked for by the name it is given

        def given_to_a_row(name: str) -> bool:
            return name.lower() in keys

        return Layout(
            against=keys.get((self.against or "").strip().lower(), self.against),
            rows=tuple(keys.get(name.lower(), name) for name in together(listed(self.rows), given_to_a_row)),
            columns=listed(self.columns),
            labels=given,
            spread=self.spread,
            decimals=self.decimals,
        )

    def unheeded(self, document: Document, format: str) -> str:  # noqa: A002 - the option's name
        """What is to be said of columns that change nothing in a format, empty where all do."""
        names = self.layout().unheeded(document, format) if self.columns else []
        if not names:
            return ""
        if format == "json":
            return "--columns is of tables and CSV: JSON has everything"
        words = ", ".join(names)
        if format == "csv":
            return f"--columns: CSV has no field for {words}"
        return f"--columns: no table here has {words}, which --format csv has"


def listed(text: str | None) -> tuple[str, ...]:
    """The parts of a text between its commas, none for no text."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
