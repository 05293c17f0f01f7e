"""The commands that measure no network: `models`, `doctor`, `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from senet_bench.api.parameters import choice
from senet_bench.api.reading import Against, AnyProtocol
from senet_bench.cli.showing import Printing, Showing
from senet_bench.errors import MeasurementError

if TYPE_CHECKING:
    from senet_bench.show.tables import Table

SplitName = Literal["machine", "torch", "version", "commit"]


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
        str | None, typer.Option("--device", help="Also try every branch of measuring on this device: cuda, cpu.")
    ] = None,
    printing: Printing = Printing(),
) -> None:
    """What this machine offers, what is missing and how to get it."""
    printing.check()
    from senet_bench.bench import doctor
    from senet_bench.bench.machine import environment
    from senet_bench.run import listing

    found, failed = doctor.diagnose(device)
    printing.emit(listing.machine(found, environment()))
    if failed:
        raise MeasurementError(f"{failed} of the branches of measuring failed on {device}", "see the lines above")


def _trend(places: Sequence[Path]) -> list[Table]:
    """What `check` stored over the commits of results folders."""
    from senet_bench.regression.baselines import Baselines
    from senet_bench.regression.trend import trend_tables

    return [table for place in places for table in trend_tables(Baselines(place / "baselines"))]


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Results folders to set side by side; one is that of --results.", show_default=False),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="Set side by side what is stored, by this; commit: the trend too.",
            **choice(*get_args(SplitName)),
        ),
    ] = None,
    cite: Annotated[bool, typer.Option("--cite", help="Print how it was measured, for a paper.")] = False,
    any_protocol: AnyProtocol = False,
    against: Against = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name every file that is written.")] = False,
    showing: Showing = Showing(),
) -> None:
    """Rebuild every table, every plot and the page from the stored runs, and tell them in short."""
    from senet_bench.core.store import Store
    from senet_bench.gallery import report
    from senet_bench.gallery.citation import cite as cited
    from senet_bench.gallery.sides import side_by_side, split
    from senet_bench.show import terminal

    showing.check()
    places = folders or [showing.results]
    if by is not None or cite or len(places) > 1:
        held = {str(place): report.held(Store(place)) for place in places}
        if cite:
            terminal.print_text("".join(map(cited, held.values())))
            return
        sides = held if by is None else split(report.files_together(held.values()), cast(SplitName, by))
        showing.emit(side_by_side(sides, _trend(places) if by == "commit" else ()))
        return
    root = places[0]
    found = report.read_gallery(Store(root), any_protocol=any_protocol, against=against)
    written = list(report.write_gallery(found, root))
    if verbose:
        for path in written:
            terminal.remark(str(path), quiet=showing.quiet)
    terminal.remark(f"{len(written)} files in {root}: tables, plots and {written[-1].name}", quiet=showing.quiet)
    for one in found.collection.left_out:
        terminal.remark(f"left out: {one.error}")
    if not showing.quiet:
        showing.emit(found.summary)
    if found.collection.left_out:
        raise report.IncompleteReportError(found.collection.left_out)
