"""The commands that measure no network: `models` and `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from senet_bench.api.parameters import read_by
from senet_bench.cli.showing import Printing
from senet_bench.core.devices import check_name
from senet_bench.errors import MeasurementError


def models(
    family: Annotated[list[str] | None, typer.Argument(help="Only these families.", show_default=False)] = None,
    printing: Printing = Printing(),
) -> None:
    """All networks with family, layout, parameters and the paper's tables they stand in."""
    printing.check()
    from senet_bench.run import listing

    printing.emit(listing.catalog(family or ()))


def doctor(
    device: Annotated[
        str | None,
        typer.Option(
            "--device", help="Also try every branch of measuring on this device: cuda, cpu.", **read_by(check_name)
        ),
    ] = None,
    printing: Printing = Printing(),
) -> None:
    """What this machine offers, what is missing and how to get it."""
    printing.check()
    from senet_bench.bench import doctor
    from senet_bench.bench.machine import environment
    from senet_bench.run import listing

    findings, failed = doctor.diagnose(device)
    printing.emit(listing.machine(findings, environment()))
    if failed:
        raise MeasurementError(f"{failed} of the branches of measuring failed on {device}", "see the lines above")
