"""The commands that measure one thing in depth: `selftest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from senet_bench.cli import options as o
from senet_bench.store import Store


def selftest(
    null: Annotated[int, typer.Option("--null", help="A/A comparisons (identical sides), for the false alarms.")] = 40,
    slower: Annotated[int, typer.Option("--slower", help="Comparisons with a +5 % slowdown.")] = 20,
    visible: Annotated[int, typer.Option("--visible", help="Comparisons with a +2 % slowdown.")] = 20,
    peers: Annotated[int, typer.Option("--peers", help="Comparisons of each kind for the other tools' rules.")] = 10,
    seed: o.Seed = 0,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """How trustworthy timing is on this machine: false alarms, smallest visible change, time to verdict."""
    o.check_output(output)
    from senet_bench import console
    from senet_bench.report import documents
    from senet_bench.workflows import selftesting

    events = selftesting.run(Store(results), null=null, slower=slower, visible=visible, peers=peers, seed=seed)
    event = console.follow(events, quiet=quiet or no_progress)
    o.emit(documents.of_selftest(event.run), format, output)
    console.remark(f"stored in {event.path}", quiet=quiet)
