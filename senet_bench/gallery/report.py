"""Every table, every plot and the page, rebuilt from the stored documents alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from senet_bench import __version__
from senet_bench.core.files import write_atomically
from senet_bench.core.reproduction import of_study
from senet_bench.core.results import AnyFacts, Run, schema_of
from senet_bench.core.store import Store
from senet_bench.core.studies import STUDIES
from senet_bench.errors import BenchError, UsageError
from senet_bench.gallery.collection import Collection, LeftOut, gather
from senet_bench.gallery.page.build import build_page
from senet_bench.gallery.page.content import Content, content
from senet_bench.gallery.page.headline import summary
from senet_bench.gates import colour_tables, tables
from senet_bench.show import chart, documents, writers

PAGE = "index.html"


@dataclass(frozen=True, slots=True)
class Gallery:
    """What is stored and what is shown of it."""

    collection: Collection
    content: Content

    @property
    def summary(self) -> documents.Document:
        """The same in short, for a terminal."""
        return summary(self.collection, self.content.grids, self.content.missing)


class IncompleteReportError(BenchError):
    """A report that is written, but from which some stored files had to be left out; the first decides the code."""

    def __init__(self, left_out: Sequence[LeftOut]) -> None:
        first = left_out[0]
        more = f", and {len(left_out) - 1} more" * (len(left_out) > 1)
        super().__init__(f"the report is written without {first.path}{more}", first.error.remedy)
        self.exit_code = first.error.exit_code


def read_gallery(store: Store) -> Gallery:
    """Everything that is stored; what cannot be read is left out and named. `UsageError` where there is nothing."""
    collection = gather(store.root, store.survey())
    if not collection.sources and not collection.left_out:
        raise UsageError(f"no runs are stored under {store.root}", "run `senet-bench compare` first")
    return Gallery(collection, content(collection))


def write_gallery(report: Gallery, root: Path) -> Iterator[Path]:
    """Rewrite `tables/`, `plots/` and the page under `root`; yields each path as it is written."""
    for name, document in _tables(report):
        for place, text in writers.kept(name, document):
            yield _written(root / place, text)
    for facts in report.collection.observations("excitations"):
        for place, text in tables.tables(facts):
            yield _written(root / place, text)
    for facts in report.collection.observations("input-channels"):
        yield from observation_files(facts, root)
    charts = report.content.charts()
    rendered = dict(chart.files_of(charts))
    for place, data in rendered.items():
        yield _written(root / place, data)
    drawn = {one.name: rendered[f"plots/{one.name}.svg"] for one in charts}
    yield _written(root / PAGE, build_page(report.collection, report.content, drawn))


def _tables(report: Gallery) -> Iterator[tuple[str, documents.Document]]:
    """The paper's tables beside what was counted, then what was measured, each under its file name."""
    rows = report.collection.rows()
    for study in STUDIES.values():
        run = Run(schema=schema_of("compare"), version=__version__, created="")
        document = documents.of_run(replace(run, rows=[row for row in of_study(rows, study.id) if row.paper]), [study])
        if document.wide:
            yield study.id, document
    for name, table in report.content.tables():
        yield name, documents.of_table(table)


def observation_files(facts: AnyFacts, root: Path) -> Iterator[Path]:
    """Write the tables and plots of a run of `excitations`; yields each path."""
    files = tables.gate_files if facts.schema == schema_of("excitations") else colour_tables.colour_files
    for place, data in files(facts):
        yield _written(root / place, data)


def _written(path: Path, data: str | bytes) -> Path:
    write_atomically(path, data)
    return path
