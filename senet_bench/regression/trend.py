"""What `check` stored over the commits of a checkout: every number that changed, from the first commit to now."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from senet_bench.core.checkout import git
from senet_bench.core.results import json_object, of_type
from senet_bench.errors import BenchError
from senet_bench.regression.baselines import Baselines, MachineBaseline, PortableBaseline
from senet_bench.regression.drift import COUNTS, MOST_COMMITS, line_of, total
from senet_bench.regression.limits import counted_metrics
from senet_bench.regression.text import value
from senet_bench.show.tables import EMPTY, Cell, Column, Table, count_cell

NOT_COMMITTED = "not committed"
LINE_NOTE = "over commits: a bar for each commit that stored the number, the least the lowest; empty where all are one"
TIME_NOTE = "memory and latency are as each commit recorded them, on one machine; no interval is stored with them"
Numbers = Mapping[tuple[str, str, str], float]
"""Numbers by network, metric and unit."""


@dataclass(frozen=True, slots=True)
class CheckMoment:
    """What a commit had stored in one file."""

    commit: str
    day: str
    numbers: Numbers


def trend_tables(baselines: Baselines) -> list[Table]:
    """A table for the portable facts and one for each machine; none where nothing is committed or stored."""
    files = [baselines.portable_path, *sorted(set(baselines.folder.glob("*.json")) - {baselines.portable_path})]
    tables = []
    for path in files:
        moments = list(_moments(path))
        if moments:
            portable = path == baselines.portable_path
            what = "on every machine" if portable else f"machine {path.stem}"
            tables.append(_table(what, moments, (LINE_NOTE,) if portable else (LINE_NOTE, TIME_NOTE)))
    return tables


def _moments(path: Path) -> Iterator[CheckMoment]:
    """A file as the last commits that changed it have it, and as it is here where that is something else."""
    folder, kind = path.parent, PortableBaseline if path.stem == "portable" else MachineBaseline
    log = git(folder, "log", f"--max-count={MOST_COMMITS}", "--format=%h %cs", "--", path.name).splitlines()
    commits = [line.partition(" ")[::2] for line in reversed(log)]
    texts = [(commit, day, git(folder, "show", f"{commit}:./{path.name}")) for commit, day in commits]
    here = os.fsdecode(path.read_bytes()).strip() if path.is_file() else EMPTY
    if here and here not in (text for *_, text in texts[-1:]):
        texts.append((NOT_COMMITTED, EMPTY, here))
    for commit, day, text in texts:
        try:
            document = of_type(json_object(os.fsencode(text), commit), kind, commit)
        except BenchError:
            continue
        yield CheckMoment(commit, day, dict(_counts(document) if kind is PortableBaseline else _measured(document)))


def _counts(document: PortableBaseline) -> Iterator[tuple[tuple[str, str, str], float]]:
    for name, facts in document.networks.items():
        for metric in (*COUNTS, *(key for key, _ in counted_metrics())):
            count = total(metric, facts.portable())
            if count is not None:
                yield (name, metric, "count"), count


def _measured(document: MachineBaseline) -> Iterator[tuple[tuple[str, str, str], float]]:
    for name, facts in document.networks.items():
        if facts.peak_bytes is not None:
            yield (name, "memory", "bytes"), facts.peak_bytes
        if facts.latency is not None:
            yield (name, "latency", "s"), facts.latency.seconds


def _table(what: str, moments: list[CheckMoment], notes: tuple[str, ...]) -> Table:
    """A line for each number: its first and last value, what it changed by, how often and when last."""
    keys = dict.fromkeys(key for moment in moments for key in moment.numbers)
    first, last = moments[0], moments[-1]
    span = first.commit if len(moments) == 1 else f"{len(moments)} commits, {_named(first)} to {_named(last)}"
    columns = ("network", "metric", "first", "last", "change", "changes", "last changed at", "over commits")
    numeric = ("first", "last", "change", "changes")
    headings = tuple(Column(name, numeric=name in numeric) for name in columns)
    rows = tuple(_row(key, [moment for moment in moments if key in moment.numbers]) for key in keys)
    return Table(f"What check stored {what}: {span}", headings, rows, notes)


def _named(moment: CheckMoment) -> str:
    return f"{moment.commit} ({moment.day})" if moment.day else moment.commit


def _row(key: tuple[str, str, str], moments: list[CheckMoment]) -> tuple[str | Cell, ...]:
    network, metric, unit = key
    values = [moment.numbers[key] for moment in moments]
    turns = [after for before, after in itertools.pairwise(moments) if before.numbers[key] != after.numbers[key]]
    was, now = values[0], values[-1]
    part = now / was - 1 if was else None
    change = EMPTY if was == now else f"{now - was:+,}" if part is None else f"{100 * part:+.3g} %"
    return (
        network,
        metric,
        Cell(value(was, unit), value=was),
        Cell(value(now, unit), value=now),
        Cell(change, value=part),
        count_cell(len(turns)),
        turns[-1].commit if turns else EMPTY,
        Cell(line_of(values), value=values),
    )
