"""The commands `check` and `baseline record / accept / show`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from senet_bench.cli import options as o
from senet_bench.errors import BenchError, UsageError
from senet_bench.regression import configfile
from senet_bench.regression.baselines import Baselines

if TYPE_CHECKING:
    from senet_bench.regression.outcome import Report

OUTCOMES = {1: "a confirmed regression", 3: "not decided", 4: "not comparable", 5: "not measured"}


class Compare(StrEnum):
    """What latency is judged against."""

    base = "base"
    stored = "stored"


ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", help="The file that says what to check; default: senet-bench.toml, pyproject.toml."),
]
Only = Annotated[str | None, typer.Option("--only", help="Networks whose name fits: 'seresnet*'.")]
BudgetOption = Annotated[float | None, typer.Option("--budget", help="Seconds of timing for a network in a launch.")]
AllocatorOption = Annotated[
    o.AllocatorName | None,
    typer.Option("--allocator", help="as-is, or tuned: let glibc keep freed memory (Linux) in base and head."),
]
Launches = Annotated[int | None, typer.Option("--launches", help="Launches of base and head.")]


def check(
    base: Annotated[str | None, typer.Option("--base", help="Compare with this commit, in worker processes.")] = None,
    config: ConfigPath = None,
    only: Only = None,
    budget: BudgetOption = None,
    launches: Launches = None,
    allocator: AllocatorOption = None,
    compare: Annotated[
        Compare, typer.Option("--compare", help="stored: judge latency by recorded numbers.")
    ] = Compare.base,
    inconclusive: Annotated[str | None, typer.Option("--inconclusive", help="warn, pass or fail.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="What could not be decided fails.")] = False,
    seed: o.Seed = 0,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write a comment's Markdown to this file.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page to this file.")] = None,
    benchmark_json: Annotated[
        Path | None, typer.Option("--benchmark-json", help="Write pytest-benchmark's JSON.")
    ] = None,
    benchmark_base: Annotated[
        Path | None,
        typer.Option("--benchmark-base", help="pytest-benchmark's JSON of the base; with --benchmark-head."),
    ] = None,
    benchmark_head: Annotated[
        Path | None, typer.Option("--benchmark-head", help="pytest-benchmark's JSON of this checkout.")
    ] = None,
    annotations: Annotated[bool, typer.Option("--annotations", help="Write GitHub's ::error lines to stderr.")] = False,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Compare this checkout with a base: is a network bigger, slower or worse; for CI."""
    for path in (output, junit, markdown, html, benchmark_json):
        o.check_output(path)
    found = configfile.load(config).overridden(
        budget, launches, allocator.value if allocator else None, "fail" if strict else inconclusive
    )
    from senet_bench.regression import check
    from senet_bench.regression.comparison import Options
    from senet_bench.show import terminal

    asked = Options(
        base=base,
        only=only,
        stored=compare is Compare.stored,
        seed=seed,
        config_path=config,
        benchmarks=_both(benchmark_base, benchmark_head),
    )
    steps = check.check(found, Baselines(results / "baselines"), asked)
    report = terminal.run(steps, quiet=quiet or no_progress)
    _write(report, format, output, junit, markdown, html, benchmark_json, strict=found.inconclusive == "fail")
    _write_for_github(report, annotations, quiet)
    if report.exit_code:
        raise FailedCheckError(report)


def _both(base: Path | None, head: Path | None) -> tuple[Path, Path] | None:
    """The two files of pytest-benchmark, None when there are none; `UsageError` for one alone."""
    if base is None and head is None:
        return None
    if base is None or head is None:
        raise UsageError("--benchmark-base and --benchmark-head go together", "give both files")
    return base, head


class FailedCheckError(BenchError):
    """A check that does not pass, ended with its exit code and the verdict line."""

    def __init__(self, report: Report) -> None:
        from senet_bench.regression.text import verdict_line

        super().__init__(f"check: {verdict_line(report)}", "see the report")
        self.exit_code = report.exit_code


def _write(
    report: Report,
    format: o.Format,  # noqa: A002
    output: Path | None,
    junit: Path | None,
    markdown: Path | None,
    html: Path | None,
    benchmark_json: Path | None,
    *,
    strict: bool,
) -> None:
    """Everything that was asked for on files, then the report itself."""
    from senet_bench.core.results import to_json
    from senet_bench.core.store import write_atomically
    from senet_bench.regression import ci, text
    from senet_bench.regression.pytest_benchmark import exported
    from senet_bench.show import terminal

    if junit is not None:
        write_atomically(junit, ci.junit(report, strict=strict))
    if markdown is not None:
        write_atomically(markdown, text.markdown(report))
    if html is not None:
        write_atomically(html, text.page(report))
    if benchmark_json is not None:
        write_atomically(benchmark_json, to_json(exported(report)))
    own = {o.Format.md: text.markdown, o.Format.html: text.page}.get(format)
    if own is None:
        o.emit(text.document(report), format, output)
    elif output is None:
        terminal.write(own(report))
    else:
        write_atomically(output, own(report))


def _write_for_github(report: Report, annotations: bool, quiet: bool) -> None:
    """The job summary, where GitHub asks for one, and annotations; failing to write them is no verdict."""
    from senet_bench.regression import ci, text
    from senet_bench.show import terminal

    if annotations:
        for line in ci.error_lines(report):
            typer.echo(line, err=True)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    try:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text.summary(report))
    except OSError as error:
        terminal.remark(f"the job summary was not written ({error.strerror})", quiet=quiet)


def baseline_record(
    config: ConfigPath = None,
    only: Only = None,
    budget: BudgetOption = None,
    launches: Launches = None,
    allocator: AllocatorOption = None,
    seed: o.Seed = 0,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Store what checks compare with: portable facts, and this machine's memory and latency. Overwrites nothing."""
    from senet_bench.regression import record
    from senet_bench.show import terminal

    found = configfile.load(config).overridden(budget, launches, allocator.value if allocator else None)
    steps = record.record(found, Baselines(results / "baselines"), only=only, seed=seed)
    recorded = terminal.run(steps, quiet=quiet or no_progress)
    terminal.remark(_told("recorded", recorded.ids, recorded.paths), quiet=quiet)


def baseline_accept(
    rows: Annotated[
        list[str] | None, typer.Argument(help="seresnet50:params, or a whole network.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why the change is right; kept in the history.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    config: ConfigPath = None,
    budget: BudgetOption = None,
    launches: Launches = None,
    allocator: AllocatorOption = None,
    seed: o.Seed = 0,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Replace the rows named by what this checkout has, and write down who, when and why."""
    from senet_bench.regression import accept
    from senet_bench.show import terminal

    found = configfile.load(config).overridden(budget, launches, allocator.value if allocator else None)
    steps = accept.accept(found, Baselines(results / "baselines"), rows or (), reason, every=every, seed=seed)
    recorded = terminal.run(steps, quiet=quiet or no_progress)
    terminal.remark(_told("accepted", recorded.ids, recorded.paths), quiet=quiet)


def baseline_show(
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    results: o.Results = Path("results"),
) -> None:
    """What is recorded, and who accepted which change."""
    o.check_output(output)
    from senet_bench.regression.record import shown

    o.emit(shown(Baselines(results / "baselines")), format, output)


def _told(what: str, ids: Iterable[str], paths: Iterable[Path]) -> str:
    names = ", ".join(ids) or "nothing: all is recorded as it is now"
    return f"{what} {names}; see {' and '.join(str(path) for path in paths if path.exists())}"
