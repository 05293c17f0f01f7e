"""The commands that measure no network: `models`, `doctor`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from senet_bench.cli import options as o
from senet_bench.core.store import Store
from senet_bench.errors import MeasurementError


def models(
    family: Annotated[list[str] | None, typer.Argument(help="Only these families.", show_default=False)] = None,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
) -> None:
    """All networks with family, layout, parameters and the paper's tables they stand in."""
    o.check_output(output)
    from senet_bench.run import tables

    o.emit(tables.catalog(family or ()), format, output)


def doctor(
    device: Annotated[
        str | None, typer.Option("--device", help="Also try every branch of measuring on this device: cuda, cpu.")
    ] = None,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
) -> None:
    """What this machine offers, what is missing and how to get it."""
    o.check_output(output)
    from senet_bench.run import doctor, tables

    found, failed = doctor.diagnose(device)
    o.emit(tables.checks(found, doctor.environment()), format, output)
    if failed:
        raise MeasurementError(f"{failed} of the branches of measuring failed on {device}", "see the lines above")


def report(results: o.Results = Path("results"), quiet: o.Quiet = False) -> None:
    """Rebuild every table, every plot and the page from the stored runs, and tell them in short."""
    from senet_bench.gallery import report
    from senet_bench.show import terminal

    found = report.read(Store(results))
    for path in report.write(found, results):
        terminal.remark(str(path), quiet=quiet)
    for one in found.collection.left_out:
        terminal.remark(f"left out: {one.error}")
    if not quiet:
        terminal.show(found.summary)
    if found.collection.left_out:
        raise report.IncompleteReportError(found.collection.left_out)
