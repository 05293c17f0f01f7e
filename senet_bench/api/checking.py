"""`check`: this checkout against a base."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from senet_bench.api import options as o
from senet_bench.api.parameters import choice
from senet_bench.api.reading import RESULTS, Results
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.core.specs import Allocator
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.regression.config import Config
    from senet_bench.regression.outcome import Report

HEAD = "head"
"""What --config is called with where this checkout's configuration is to judge."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which networks, and the file that says so."""

    PANEL: ClassVar[str] = "What is checked"
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="The file that says what to check; default: senet-bench.toml, pyproject.toml. With --base the base's"
            " own judges; head: this checkout's.",
        ),
    ] = None
    only: Annotated[str | None, typer.Option("--only", help="Networks whose name fits: 'seresnet*'.")] = None


@dataclass(frozen=True, slots=True)
class Launching:
    """How networks are timed, where that is not as the config says."""

    PANEL: ClassVar[str] = "How it is timed"
    budget: Annotated[float | None, typer.Option("--budget", help="Seconds of timing for a network in a launch.")] = (
        None
    )
    launches: Annotated[int | None, typer.Option("--launches", help="Launches of base and head.")] = None
    allocator: Annotated[
        Allocator | None,
        typer.Option(
            "--allocator",
            help="as-is, or tuned: let glibc keep freed memory (Linux) in base and head.",
            **choice("as-is", "tuned"),
        ),
    ] = None
    seed: Annotated[int, typer.Option("--seed", min=0, max=o.LARGEST_SEED, help="Seed of the order of rounds.")] = 0

    def config(self, path: Path | None, inconclusive: str | None = None, *, optional: bool = False) -> Config:
        """The config of a file, with what is typed in place of its own; of no network where it is `optional`."""
        from senet_bench.regression import configfile

        config = replace(configfile.load_config(path, optional=optional), path=path)
        return config.overridden(self.budget, self.launches, self.allocator, inconclusive)


@dataclass(frozen=True, slots=True)
class Judging:
    """What is compared with, and what an undecided row means."""

    PANEL: ClassVar[str] = "What it is compared with"
    base: Annotated[str | None, typer.Option("--base", help="Compare with this commit, in worker processes.")] = None
    compare: Annotated[
        Literal["base", "stored"],
        typer.Option("--compare", help="stored: judge latency by recorded numbers.", **choice("base", "stored")),
    ] = "base"
    inconclusive: Annotated[str | None, typer.Option("--inconclusive", help="warn, pass or fail.")] = None
    strict: Annotated[bool, typer.Option("--strict", help="What could not be decided fails.")] = False
    bisect: Annotated[
        bool,
        typer.Option("--bisect", help="For git bisect run: exit 125, which skips a commit, where nothing was decided."),
    ] = False
    benchmark_base: Annotated[
        Path | None,
        typer.Option("--benchmark-base", help="pytest-benchmark's JSON of the base; with --benchmark-head."),
    ] = None
    benchmark_head: Annotated[
        Path | None, typer.Option("--benchmark-head", help="pytest-benchmark's JSON of this checkout.")
    ] = None

    def benchmarks(self) -> tuple[Path, Path] | None:
        """The two files of pytest-benchmark, None when there are none; `UsageError` for one alone."""
        if self.benchmark_base is None and self.benchmark_head is None:
            return None
        if self.benchmark_base is None or self.benchmark_head is None:
            raise UsageError("--benchmark-base and --benchmark-head go together", "give both files")
        return self.benchmark_base, self.benchmark_head


@dataclass(frozen=True, slots=True, repr=False)
class Checked(Result):
    """What a check found: `report` has its verdict, its exit code and its rows."""

    report: Report = field(kw_only=True)


def check(
    selection: Selection = Selection(),
    judging: Judging = Judging(),
    timing: Launching = Launching(),
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Checked:
    """Compare this checkout with a base: is a network bigger, slower or worse; for CI."""
    by_head = str(selection.config) == HEAD
    path = None if by_head else selection.config
    if by_head and judging.base is None:
        raise UsageError("--config head judges against a commit", "name it with --base")
    alone = judging.benchmarks() is not None and judging.base is None and path is None
    config = timing.config(path, "fail" if judging.strict else judging.inconclusive, optional=alone)
    from senet_bench.regression.baselines import Baselines
    from senet_bench.regression.check import run_check
    from senet_bench.regression.comparison import Options
    from senet_bench.regression.text import report_document

    options = Options(
        base=judging.base,
        only=selection.only,
        stored=judging.compare == "stored",
        seed=timing.seed,
        config_path=path,
        by_head=by_head,
        inconclusive=config.inconclusive if judging.strict or judging.inconclusive else None,
        benchmarks=judging.benchmarks(),
    )
    steps = run_check(config, Baselines(results / "baselines"), options)
    report = watch.follow(steps)
    document = report_document(report)
    return Checked(document.wide, document.records, document, report=report)
