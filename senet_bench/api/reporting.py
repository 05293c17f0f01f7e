"""`report`: every table, plot and the page of what is stored, or results folders side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from senet_bench.api.parameters import choice, options_typed
from senet_bench.api.reading import RESULTS, AnyProtocol, Results
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.api.tables import TableOptions
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.gallery.collection import Collection, LeftOut
    from senet_bench.show.tables import Document, Table

SplitName = Literal["machine", "torch", "version", "commit"]
Folders = Annotated[
    list[Path] | None,
    typer.Argument(help="Results folders to set side by side; one is that of --results.", show_default=False),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by", help="Set side by side what is stored, by this; commit: the trend too.", **choice(*get_args(SplitName))
    ),
]


@dataclass(frozen=True, slots=True, repr=False)
class Reported(Result):
    """A report: the files that were `written`, none where folders stand side by side, and what was `left_out`."""

    written: tuple[Path, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def report(
    folders: Folders = None,
    by: By = None,
    any_protocol: AnyProtocol = False,
    tables: TableOptions = TableOptions(),
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Reported:
    """Rebuild every table, every plot and the page from the stored runs, and tell them in short."""
    places = [Path(place) for place in folders or [results]]
    conditions = {"folders": list(map(str, places)), "by": by, "any_protocol": any_protocol, **asdict(tables)}
    if by is not None or len(places) > 1:
        if tables != TableOptions() or any_protocol:
            option = "--any-protocol" if any_protocol else options_typed(tables)[0]
            raise UsageError(
                f"{option} is for the report of one folder", "leave it out, or name one folder without --by"
            )
        collections = _held(places)
        sides, beside = _side_by_side(collections, cast(SplitName, by) if by else None)
        document = _document(beside, conditions, sides=sides)
        left_out = tuple(one for folder in collections.values() for one in folder.left_out)
        return Reported(document.wide, document.records, document, left_out=left_out)
    from senet_bench.core.store import Store
    from senet_bench.gallery.report import rebuild

    rebuilt = rebuild(Store(places[0]), any_protocol=any_protocol, layout=tables.layout())
    short = _document(rebuilt.summary, conditions)
    return Reported(short.wide, short.records, short, written=rebuilt.written, left_out=rebuilt.left_out)


def cite(folders: Sequence[Path]) -> str:
    """How what some results folders hold was measured, for a paper; of several, each sentence after its folder."""
    from senet_bench.gallery.citation import citation

    lines = [(place, line) for place, held in _held(folders).items() for line in citation(held).splitlines()]
    return "".join(f"{place}: {line}\n" if len(folders) > 1 else f"{line}\n" for place, line in lines)


def _held(folders: Sequence[Path]) -> dict[str, Collection]:
    from senet_bench.core.store import Store
    from senet_bench.gallery.report import held

    return {str(place): held(Store(place)) for place in folders}


def _document(tables: Sequence[Table], conditions: Mapping[str, object], **about: object) -> Document:
    """Tables under what every document begins with."""
    from senet_bench.core.environment import interpreter
    from senet_bench.run.record import now
    from senet_bench.show.tables import of_tables

    return of_tables("report", tables, created=now(), environment=interpreter(), conditions=conditions, **about)


def _side_by_side(folders: Mapping[str, Collection], by: SplitName | None) -> tuple[list[str], tuple[Table, ...]]:
    """The names of the sides, and their tables."""
    from senet_bench.gallery.report import files_together
    from senet_bench.gallery.sides import side_by_side, split

    sides = folders if by is None else split(files_together(folders.values()), by)
    return list(sides), side_by_side(sides, by, _trend(map(Path, folders)) if by == "commit" else ())


def _trend(places: Iterable[Path]) -> list[Table]:
    """What `check` stored over the commits of results folders."""
    from senet_bench.regression.baselines import Baselines
    from senet_bench.regression.trend import trend_tables

    return [table for place in places for table in trend_tables(Baselines(place / "baselines"))]
