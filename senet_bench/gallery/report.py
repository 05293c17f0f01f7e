"""Every table, every plot and the page, rebuilt from the stored documents alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from senet_bench import __version__
from senet_bench.core.files import write_anew
from senet_bench.core.garbage import uncollected
from senet_bench.core.results import RESTORE, AnyFacts, Run
from senet_bench.core.schemas import schema_of
from senet_bench.core.store import Store
from senet_bench.core.stored_errors import stored_errors
from senet_bench.core.studies import STUDIES
from senet_bench.core.union import StoredRun
from senet_bench.errors import BenchError, UsageError, one_line
from senet_bench.gallery.collection import Collection, LeftOut, gather, main_timing
from senet_bench.gallery.page.build import build_page
from senet_bench.gallery.page.content import Content, content
from senet_bench.gallery.page.headline import summary
from senet_bench.gates import colour_tables, tables
from senet_bench.show import chart, documents, writers
from senet_bench.show.layout import AS_IS, Layout, matching, meant
from senet_bench.show.svg import inline
from senet_bench.show.tables import Document, Table, of_table

PAGE, WRITTEN = "index.html", "files.txt"
"""The page, and the list of what the last report wrote."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """What is stored, what is shown of it, in short for a terminal, and as files by their places below the folder."""

    collection: Collection
    content: Content
    summary: tuple[Table, ...]
    files: tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a report has to say in short, the files that it wrote, and those that it had to leave out."""

    summary: tuple[Table, ...]
    written: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


class IncompleteReportError(BenchError):
    """A report that is written, but from which some stored files had to be left out; the first decides the code."""

    def __init__(self, left_out: Sequence[LeftOut]) -> None:
        first = left_out[0]
        more = f", and {len(left_out) - 1} more" * (len(left_out) > 1)
        super().__init__(f"the report is written without {first.path}{more}", first.error.remedy)
        self.exit_code = first.error.exit_code


class UnreadableError(BenchError):
    """Stored files of which none can be read, each named with its reason; the first decides the code."""

    def __init__(self, root: Path, left_out: Sequence[LeftOut]) -> None:
        first, reasons = left_out[0].error, ", ".join(one.error.problem for one in left_out)
        super().__init__(f"no stored file under {root} can be read: {reasons}", first.remedy)
        self.exit_code = first.exit_code


@uncollected()
def rebuild(store: Store, *, any_protocol: bool = False, layout: Layout = AS_IS) -> Rebuilt:
    """Write every table, every plot and the page of what is stored anew, as `read_gallery` and `write_gallery` do."""
    gallery = read_gallery(store, any_protocol=any_protocol, layout=layout)
    written = tuple(write_gallery(gallery, store.root))
    return Rebuilt(gallery.summary, written, gallery.collection.left_out)


def read_gallery(store: Store, *, any_protocol: bool = False, layout: Layout = AS_IS) -> Gallery:
    """Everything that is stored; what cannot be read or shown is left out and named.

    With `any_protocol` errors of another protocol than a table's stand in its cells too; `layout` says how the tables
    of errors and times are laid out. Raises `UsageError` where there is nothing, or no row or column of a name in it.
    """
    collection = gather(store.root, store.survey())
    read = (source.document for source in collection.sources)
    stored = stored_errors(store, read)
    damaged = (LeftOut(path.relative_to(store.root).as_posix(), error) for path, error in stored.left_out)
    left_out = (*collection.left_out, *damaged)
    collection = replace(collection, left_out=left_out, stored=stored, any_protocol=any_protocol, layout=layout)
    if not collection.sources and not collection.left_out:
        raise UsageError(f"no runs are stored under {store.root}", "run `senet-bench compare` first")
    found = layout.found(*collection.as_named) if layout.rows[1:] else layout
    collection = collection if found == layout else replace(collection, layout=found)
    _check_named(collection)
    try:
        return _gallery(collection)
    except Exception:  # whatever a damaged value does where it is laid out
        bad = tuple(_damaged(collection.sources))
        if not bad:
            raise
        paths = {one.path for one in bad}
        kept = tuple(source for source in collection.sources if source.path not in paths)
        return _gallery(replace(collection, sources=kept, left_out=(*collection.left_out, *bad)))


def _check_named(collection: Collection) -> None:
    """Raise `UsageError` where no table of errors or times has a row of a name."""
    layout = collection.layout
    for name in (*([layout.against] if layout.against else []), *layout.rows, *layout.labels):
        tables = collection.as_named
        if tables and not any(meant(rows, name) for rows in tables):
            matching(tables[0], name)


def held(store: Store) -> Collection:
    """What is stored, nothing of it laid out.

    Raises `UsageError` where there is nothing, `UnreadableError` where nothing of it can be read.
    """
    collection = gather(store.root, store.survey())
    if not collection.sources and collection.left_out:
        raise UnreadableError(store.root, collection.left_out)
    if not collection.sources:
        raise UsageError(f"no runs are stored under {store.root}", "run `senet-bench compare` first")
    return collection


def files_together(collections: Iterable[Collection]) -> Collection:
    """Everything that some folders hold."""
    sources = [source for one in collections for source in one.sources]
    return Collection(tuple(sorted(sources, key=lambda source: source.age)))


def _gallery(collection: Collection) -> Gallery:
    """What is shown of a collection, every file of it made."""
    shown = content(collection)
    short = summary(collection, shown.grids, shown.missing)
    return Gallery(collection, shown, short, tuple(_files(collection, shown)))


def _damaged(sources: Sequence[StoredRun]) -> Iterator[LeftOut]:
    """The documents that cannot be shown though their types are right; halves are tried, and halves of those."""
    try:
        _gallery(Collection(tuple(sources)))
    except Exception as error:  # noqa: BLE001 - it is named, and the others are shown
        if len(sources) == 1:
            path = sources[0].path
            yield LeftOut(path, UsageError(f"{path} is damaged (it cannot be shown: {one_line(error)})", RESTORE))
        else:
            middle = len(sources) // 2
            yield from _damaged(sources[:middle])
            yield from _damaged(sources[middle:])


def write_gallery(report: Gallery, root: Path) -> Iterator[Path]:
    """Rewrite `tables/`, `plots/` and the page under `root`; yields each path as it is written.

    What an earlier report wrote there of runs that are no more is removed, unless files are left out: what is damaged
    now may have been shown there.
    """
    places, earlier = {place for place, _ in report.files}, _earlier(root)
    kept = places | earlier if report.collection.left_out else places
    for place in earlier - kept:
        (root / place).unlink(missing_ok=True)
    write_anew(root / WRITTEN, "".join(f"{place}\n" for place in sorted(kept)))
    for place, data in report.files:
        yield _written(root / place, data)


def _earlier(root: Path) -> set[str]:
    """The tables and plots that earlier reports wrote under `root`, by their places there."""
    path = root / WRITTEN
    listed = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ()
    return {place for place in listed if place.rpartition("/")[0] in ("tables", "plots") and (root / place).is_file()}


def _files(collection: Collection, shown: Content) -> Iterator[tuple[str, str | bytes]]:
    """Every file below the results folder, by its place there."""
    for name, document in _tables(collection, shown):
        yield from writers.kept(name, document)
    for facts in collection.observations("excitations"):
        yield from tables.tables(facts)
    for facts in collection.observations("input-channels"):
        yield from colour_tables.colour_files(facts)
    charts = shown.charts()
    drawn = {one.name: inline(one) for one in charts}
    yield from chart.files_of(charts, drawn)
    yield PAGE, build_page(collection, shown, drawn)


def _tables(collection: Collection, shown: Content) -> Iterator[tuple[str, Document]]:
    """The paper's tables beside what was counted, then what was measured, each under its file name.

    The times in one are of one machine and its conditions: those of the most of its networks.
    """
    for study in STUDIES.values():
        run = Run(schema=schema_of("compare"), version=__version__, created="")
        rows = [row for row in collection.of_study(study.id) if row.paper]
        timed = main_timing(collection.timings, rows)
        rows = [timed.beside(row) for row in rows] if timed else rows
        document = documents.of_run(replace(run, rows=rows), [study])
        if document.wide:
            yield study.id, document
    for name, table in shown.tables():
        yield name, of_table(table)


def observation_files(facts: AnyFacts, root: Path) -> Iterator[Path]:
    """Write the tables and plots of a run of `excitations`; yields each path."""
    files = tables.gate_files if facts.schema == schema_of("excitations") else colour_tables.colour_files
    for place, data in files(facts):
        yield _written(root / place, data)


def _written(path: Path, data: str | bytes) -> Path:
    write_anew(path, data)
    return path
