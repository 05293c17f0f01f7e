"""Tables and plots rebuilt from the stored runs alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from senet_bench import __version__
from senet_bench.errors import UsageError
from senet_bench.report import documents, excitations, input_channels, plots, writers
from senet_bench.results import Facts, Row, Run, schema_of
from senet_bench.store import Store, write_atomically
from senet_bench.studies import STUDIES


def latest_rows(store: Store, command: str) -> list[Row]:
    """The newest stored row of each network, attention and setting, in the order they were first measured."""
    found: dict[object, Row] = {}
    for _, run in store.runs():
        if run.schema == schema_of(command):
            for row in run.rows:
                found[row.model, row.attention, row.input_size, row.classes] = row
    return list(found.values())


def report(store: Store) -> Iterator[Path]:
    """Rewrite `tables/` and `plots/` from the stored runs alone; yields each path as it is written."""
    rows, observed = latest_rows(store, "compare"), latest_observations(store)
    if not rows and not observed:
        raise UsageError(f"no runs are stored under {store.root}", "run `senet-bench compare` first")
    for facts in observed:
        yield from observation_files(facts, store)
    for study in STUDIES.values():
        judged = [replace(row, paper=documents.judge(row, [study.id])) for row in rows]
        run = Run(
            schema=schema_of("compare"), version=__version__, created="", environment={}, conditions={}, rows=judged
        )
        document = documents.of_run(replace(run, rows=[row for row in judged if row.paper]), [study])
        for ending, format in (("md", "md"), ("csv", "csv"), ("tex", "latex"), ("html", "html")):  # noqa: A001
            if document.wide:
                yield _written(store.root / "tables" / f"{study.id}.{ending}", writers.render(document, format))
    rows = [replace(row, paper=documents.judge(row, ["table2", "table3"])) for row in rows]
    for metric in ("flops", "params"):
        figure = plots.tradeoff(rows, metric)
        for format in plots.FORMATS if figure else ():  # noqa: A001
            assert figure is not None
            yield _written(store.root / "plots" / f"error-vs-{metric}.{format}", plots.render(figure, format))


def latest_observations(store: Store) -> list[Facts]:
    """The newest stored run of `excitations` of each kind, network and data set."""
    kinds = {schema_of("excitations"), schema_of("input-channels")}
    found = {
        (document.schema, document.conditions["label"], document.conditions["dataset"]): document
        for _, document in store.documents()
        if isinstance(document, Facts) and document.schema in kinds and document.rows
    }
    return list(found.values())


def observation_files(facts: Facts, store: Store) -> Iterator[Path]:
    """Write the tables and plots of a run of `excitations`; yields each path."""
    files = excitations.files if facts.schema == schema_of("excitations") else input_channels.files
    for name, data in files(facts):
        yield _written(store.root / name, data)


def _written(path: Path, data: str | bytes) -> Path:
    write_atomically(path, data)
    return path
