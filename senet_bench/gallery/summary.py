"""The page's story for a terminal: what SE costs and buys, the paper's cells by status, and what is missing."""

from __future__ import annotations

from senet_bench.gallery.evidence import Evidence
from senet_bench.gallery.page.content import Content, main
from senet_bench.gallery.page.grid import SIGNS
from senet_bench.gallery.page.lead import lead
from senet_bench.show.documents import Document
from senet_bench.show.tables import EMPTY, Column, Table


def story(evidence: Evidence, content: Content) -> Document:
    """Three tables at most, in one width that fits 80 columns."""
    told = lead(evidence, main(evidence.timings()))
    tables = []
    if told.figures:
        columns: tuple[Column, ...] = (
            Column("what", numeric=False),
            Column("median"),
            Column("from", numeric=False),
        )
        lines = tuple((figure.what, figure.value, figure.origin) for figure in told.figures)
        tables.append(Table("What SE costs and buys", columns, lines, told.sentences))
    counts = {grid.id: dict(grid.counts) for grid in content.grids if grid.known}
    if counts:
        columns = (Column("table", numeric=False), *(Column(status) for status in SIGNS))
        body = tuple(
            (name.replace("table", "Table "), *(str(found.get(status, EMPTY)) for status in SIGNS))
            for name, found in counts.items()
        )
        tables.append(Table("The paper's cells beside what was counted here", columns, body))
    if content.missing:
        columns = (Column("missing", numeric=False), Column("brought by", numeric=False))
        tables.append(Table("What is not there yet", columns, tuple(content.missing.values())))
    return Document({}, tuple(tables), tuple(tables), ())
