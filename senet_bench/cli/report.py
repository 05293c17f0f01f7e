"""The command `report`."""

from __future__ import annotations

from typing import Annotated

import typer

from senet_bench.api import reporting
from senet_bench.api.parameters import options_typed
from senet_bench.api.reading import AnyProtocol
from senet_bench.api.tables import TableOptions
from senet_bench.cli.showing import Showing, check_output
from senet_bench.core.files import check_folder
from senet_bench.errors import UsageError


def report(
    folders: reporting.Folders = None,
    by: reporting.By = None,
    cite: Annotated[bool, typer.Option("--cite", help="Print how it was measured, for a paper.")] = False,
    any_protocol: AnyProtocol = False,
    tables: TableOptions = TableOptions(),
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name every file that is written.")] = False,
    showing: Showing = Showing(),
) -> None:
    """Rebuild every table, every plot and the page from the stored runs, and tell them in short."""
    from senet_bench.gallery.report import IncompleteReportError
    from senet_bench.show import terminal

    check_output(showing.output)
    root = folders[0] if folders else showing.results
    if cite:
        typed = {
            "--format": showing.format != "table",
            "--output": showing.output,
            "--by": by,
            "--any-protocol": any_protocol,
        }
        if unused := [*(name for name, value in typed.items() if value), *options_typed(tables)]:
            raise UsageError("--cite prints sentences, no tables", f"leave out {unused[0]}")
        terminal.print_text(reporting.cite(folders or [root]))
        return
    if by is None and len(folders or ()) < 2:  # else nothing is written
        check_folder(root)
    result = reporting.report(folders, by, any_protocol, tables, showing.results, showing)
    if verbose:
        for path in result.written:
            showing.remark(str(path))
    if result.written:
        showing.remark(f"{len(result.written)} files in {root}: tables, plots and {result.written[-1].name}")
    for file in result.left_out:
        terminal.remark(f"left out: {file.error}")
    wanted = showing.format != "table" or showing.output is not None
    if wanted or not (showing.quiet and result.written):
        showing.emit(result.document)
    if result.left_out:
        raise IncompleteReportError(result.left_out)
