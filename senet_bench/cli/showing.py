"""How a result is shown and where it is kept: options that every command has, loaded without any other's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from senet_bench.api.parameters import choice
from senet_bench.api.reading import RESULTS, Results
from senet_bench.core.files import check_folder, check_writable, write_atomically
from senet_bench.core.progress import Result, Steps
from senet_bench.show import writers

if TYPE_CHECKING:
    from senet_bench.core.store import Store
    from senet_bench.show.tables import Document

FORMAT_NAMES = ("table", *writers.FORMATS)


@dataclass(frozen=True, slots=True)
class Printing:
    """How a result is shown that is not kept."""

    PANEL: ClassVar[str] = "How it is shown and kept"
    format: Annotated[str, typer.Option("--format", help="How the result is written.", **choice(*FORMAT_NAMES))] = (
        "table"
    )
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file instead of stdout.")] = None

    def check(self) -> None:
        """Raise `UsageError` if the output could not be written."""
        check_output(self.output)

    def emit(self, document: Document) -> None:
        """Show a document, or write it in a machine format."""
        emit(document, self.format, self.output)


@dataclass(frozen=True, slots=True)
class Showing(Printing):
    """How a result is shown and where it is kept."""

    results: Results = RESULTS
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no remarks.")] = False
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False

    def check(self) -> None:
        """Raise `UsageError` if the output or the results could not be written."""
        check_output(self.output)
        check_folder(self.results)

    @property
    def store(self) -> Store:
        """The results folder."""
        from senet_bench.core.store import Store

        return Store(self.results)

    def follow(self, steps: Steps[Result], *, in_lines: bool = False) -> Result:
        """Draw the progress to its end and return the result."""
        from senet_bench.show import terminal

        return terminal.run_steps(steps, quiet=self.quiet or self.no_progress, in_lines=in_lines)

    def remark(self, text: str) -> None:
        """Say something beside the result."""
        from senet_bench.show import terminal

        terminal.remark(text, quiet=self.quiet)

    def stored(self, path: Path) -> None:
        """Say where the run is stored."""
        self.remark(f"stored in {path}")


def check_output(output: Path | None) -> None:
    """Raise `UsageError` if the output could not be written, before anything is measured for it."""
    if output is not None:
        check_writable(output)


def emit(document: Document, format: str, output: Path | None) -> None:  # noqa: A002
    """Show a document, or write it in a machine format."""
    from senet_bench.show import terminal

    if format == "table" and output is None:
        terminal.show(document)
        return
    text = writers.render(document, "md" if format == "table" else format)
    terminal.print_text(text) if output is None else write_atomically(output, text)
