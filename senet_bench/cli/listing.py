"""The commands that measure no network: `models`, `doctor`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from senet_bench.cli import options as o
from senet_bench.errors import MeasurementError


def models(
    family: Annotated[list[str] | None, typer.Argument(help="Only these families.", show_default=False)] = None,
    printing: o.Printing = o.Printing(),
) -> None:
    """All networks with family, layout, parameters and the paper's tables they stand in."""
    printing.check()
    from senet_bench.run import tables

    printing.emit(tables.catalog(family or ()))


def doctor(
    device: Annotated[
        str | None, typer.Option("--device", help="Also try every branch of measuring on this device: cuda, cpu.")
    ] = None,
    printing: o.Printing = o.Printing(),
) -> None:
    """What this machine offers, what is missing and how to get it."""
    printing.check()
    from senet_bench.bench import doctor
    from senet_bench.bench.machine import environment
    from senet_bench.run import tables

    found, failed = doctor.diagnose(device)
    printing.emit(tables.doctor_document(found, environment()))
    if failed:
        raise MeasurementError(f"{failed} of the branches of measuring failed on {device}", "see the lines above")


def report(results: o.Results = Path("results"), any_protocol: o.AnyProtocol = False, quiet: o.Quiet = False) -> None:
    """Rebuild every table, every plot and the page from the stored runs, and tell them in short."""
    from senet_bench.core.store import Store
    from senet_bench.gallery import report
    from senet_bench.show import terminal

    found = report.read_gallery(Store(results), any_protocol=any_protocol)
    for path in report.write_gallery(found, results):
        terminal.remark(str(path), quiet=quiet)
    for one in found.collection.left_out:
        terminal.remark(f"left out: {one.error}")
    if not quiet:
        terminal.show(found.summary)
    if found.collection.left_out:
        raise report.IncompleteReportError(found.collection.left_out)
