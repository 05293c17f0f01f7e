"""`probe`: what blocks can do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from senet_bench.api import options as o
from senet_bench.api import trials
from senet_bench.api.reading import RESULTS, Results
from senet_bench.api.result import UNWATCHED, Result, Watch

if TYPE_CHECKING:
    from pathlib import Path

    from senet_bench.run.engines import Engine

Blocks = Annotated[
    list[str] | None,
    typer.Argument(help="Built-in blocks, or package.module:Class; default: every built-in one.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Tasks:
    """What the blocks are to do."""

    PANEL: ClassVar[str] = "What is measured"
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="Only this task; several times for several. Default: all of them."),
    ] = None
    difficulty: Annotated[
        str | None, typer.Option("--difficulty", help="A level of the task's knob, or curve for all of them.")
    ] = None
    seeds: o.Seeds = 8
    reduction: Annotated[
        int | None,
        typer.Option("-r", "--reduction", min=1, max=o.MOST_CHANNELS, help="r of blocks that take one; default: 4."),
    ] = None
    fresh: o.Fresh = False


@dataclass(frozen=True, slots=True)
class Engines:
    """Where the trials run."""

    PANEL: ClassVar[str] = "Where and how it runs"
    device: Annotated[str, o.device_option()] = "cpu"
    engine: o.EngineChoice = "local"
    engine_address: o.EngineAddress = None
    engine_option: o.EngineOptions = None
    workers: o.Workers = None

    def made(self, results: Path) -> Engine:
        """The engine that these options ask for."""
        options = self.engine_option or ()
        return trials.engine_of(self.engine, self.engine_address, options, self.workers, self.device, results)


def probe(
    blocks: Blocks = None,
    tasks: Tasks = Tasks(),
    engines: Engines = Engines(),
    dry_run: o.DryRun = False,
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Result:
    """What a block can do, in minutes: errors on small generated tasks that each need one ability."""
    engine = engines.made(results)
    from senet_bench.core.store import Store
    from senet_bench.probing import measurement, tables

    store = Store(results)
    wanted = measurement.Probe.of(
        engine,
        blocks or (),
        tasks.task or (),
        difficulty=tasks.difficulty,
        reduction=tasks.reduction,
        seeds=tasks.seeds,
        device=engines.device,
        fresh=tasks.fresh,
    )
    if dry_run:
        from senet_bench.run.tables import forecast_document

        return Result.of(forecast_document(measurement.forecast_probe(wanted, store)))
    record = watch.follow(measurement.probe(wanted, store))
    failures = tuple(f"{row.label} on {row.task}: {row.reason}" for row in record.document.rows if row.reason)
    return replace(Result.of(tables.probe_document(record.document), record), failures=failures)
