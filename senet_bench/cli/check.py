"""The commands `check` and `baseline record / accept / show`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from senet_bench.api import options as o
from senet_bench.api.parameters import Command, choice, flat
from senet_bench.api.reading import RESULTS, Results
from senet_bench.cli.showing import Printing, Showing, check_output, emit
from senet_bench.core.files import check_folder
from senet_bench.core.specs import Allocator
from senet_bench.errors import BenchError, InterruptedRunError, UsageError

HEAD = "head"
"""What --config is called with where this checkout's configuration is to judge."""

if TYPE_CHECKING:
    from senet_bench.regression.baselines import Baselines
    from senet_bench.regression.config import Config
    from senet_bench.regression.outcome import Report


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

    def config(self, path: Path | None, inconclusive: str | None = None) -> Config:
        """The config of a file, with what is typed in place of its own."""
        from senet_bench.regression import configfile

        config = replace(configfile.load_config(path), path=path)
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


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Where else the report goes, for the machines of a CI."""

    PANEL: ClassVar[str] = "For a CI"
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")] = None
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write a comment's Markdown to this file.")] = None
    html: Annotated[Path | None, typer.Option("--html", help="Write a page to this file.")] = None
    benchmark_json: Annotated[Path | None, typer.Option("--benchmark-json", help="Write pytest-benchmark's JSON.")] = (
        None
    )
    annotations: Annotated[bool, typer.Option("--annotations", help="Write GitHub's ::error lines to stderr.")] = False

    def check(self) -> None:
        """Raise `UsageError` if one of them could not be written."""
        for path in (self.junit, self.markdown, self.html, self.benchmark_json):
            check_output(path)

    def write_failure(self, error: BenchError, showing: Showing) -> None:
        """Write why there is no report, to the files that were named and where GitHub shows it."""
        from senet_bench.core.files import write_atomically
        from senet_bench.regression import ci

        texts = ci.failure_files(error, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"))
        for path, kind in ((self.junit, "junit"), (self.markdown, "markdown"), (self.html, "html")):
            if path is not None:
                write_atomically(path, texts[kind])
        if showing.output is not None:
            kind = {"md": "markdown", "html": "html"}.get(showing.format, "json")
            write_atomically(showing.output, texts[kind])
        if self.annotations or os.environ.get("GITHUB_ACTIONS") == "true":
            typer.echo(ci.failure_line(error), err=True)
        _write_for_github(texts["markdown"], showing.quiet)

    def write(self, report: Report, *, strict: bool) -> None:
        """Write those that were named."""
        from senet_bench.core.files import write_atomically
        from senet_bench.core.results import to_json
        from senet_bench.regression import ci, text

        if self.junit is not None:
            write_atomically(self.junit, ci.junit(report, strict=strict))
        if self.markdown is not None:
            write_atomically(self.markdown, text.report_markdown(report))
        if self.html is not None:
            write_atomically(self.html, text.report_page(report))
        if self.benchmark_json is not None:
            write_atomically(self.benchmark_json, to_json(ci.exported(report)))


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where what is recorded lies, and what is said."""

    PANEL: ClassVar[str] = Showing.PANEL
    results: Results = RESULTS
    quiet: o.Quiet = False
    no_progress: o.NoProgress = False

    def check(self) -> None:
        """Raise `UsageError` if nothing could be written there."""
        check_folder(self.results)

    @property
    def baselines(self) -> Baselines:
        """The recorded facts."""
        from senet_bench.regression.baselines import Baselines

        return Baselines(self.results / "baselines")


class FailedCheckError(BenchError):
    """A check that does not pass, ended with its exit code and the verdict line."""

    def __init__(self, report: Report) -> None:
        from senet_bench.regression.text import verdict_line

        super().__init__(f"check: {verdict_line(report)}", "see the report")
        self.exit_code = report.exit_code


class SkippedCommitError(BenchError):
    """A commit that `git bisect run` is to skip."""

    exit_code = 125


def check(selection: Selection, judging: Judging, timing: Launching, files: ReportFiles, showing: Showing) -> None:
    """Compare this checkout with a base: is a network bigger, slower or worse; for CI."""
    showing.check()
    files.check()
    try:
        report = _checked(selection, judging, timing, showing)
    except BenchError as error:
        files.write_failure(error, showing)
        if judging.bisect and not isinstance(error, InterruptedRunError):
            raise SkippedCommitError(str(error)) from error
        raise
    files.write(report, strict=judging.strict or judging.inconclusive == "fail")
    _show(report, showing)
    _write_for_github(text_of_summary(report), showing.quiet)
    if files.annotations:
        _annotate(report)
    if report.exit_code > 1 and judging.bisect:
        raise SkippedCommitError(str(FailedCheckError(report)))
    if report.exit_code:
        raise FailedCheckError(report)


def _checked(selection: Selection, judging: Judging, timing: Launching, showing: Showing) -> Report:
    """The report, once everything was measured."""
    by_head = str(selection.config) == HEAD
    path = None if by_head else selection.config
    if by_head and judging.base is None:
        raise UsageError("--config head judges against a commit", "name it with --base")
    config = timing.config(path, "fail" if judging.strict else judging.inconclusive)
    from senet_bench.regression import check
    from senet_bench.regression.baselines import Baselines
    from senet_bench.regression.comparison import Options
    from senet_bench.show import terminal

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
    steps = check.run_check(config, Baselines(showing.results / "baselines"), options)
    return terminal.run_steps(steps, quiet=showing.quiet or showing.no_progress)


def _show(report: Report, showing: Showing) -> None:
    """The report itself; as Markdown and as a page in forms of its own."""
    from senet_bench.core.files import write_atomically
    from senet_bench.regression import text
    from senet_bench.show import terminal

    own = {"md": text.report_markdown, "html": text.report_page}.get(showing.format)
    if own is None:
        emit(text.report_document(report), showing.format, showing.output)
    elif showing.output is None:
        terminal.print_text(own(report))
    else:
        write_atomically(showing.output, own(report))


def text_of_summary(report: Report) -> str:
    """What a job's summary shows of a report."""
    from senet_bench.regression import text

    return text.job_summary(report)


def _annotate(report: Report) -> None:
    from senet_bench.regression import ci

    for line in ci.error_lines(report):
        typer.echo(line, err=True)


def _write_for_github(text: str, quiet: bool) -> None:
    """The job summary, where GitHub asks for one; failing to write it is no verdict."""
    from senet_bench.show import terminal

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    try:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        terminal.remark(f"the job summary was not written ({error.strerror})", quiet=quiet)


def baseline_record(selection: Selection, timing: Launching, keeping: Keeping) -> None:
    """Store what checks compare with: portable facts, and this machine's memory and latency. Overwrites nothing."""
    from senet_bench.regression import record
    from senet_bench.show import terminal

    keeping.check()
    config = timing.config(selection.config)
    steps = record.record_facts(config, keeping.baselines, only=selection.only, seed=timing.seed)
    recorded = terminal.run_steps(steps, quiet=keeping.quiet or keeping.no_progress)
    terminal.remark(_summary("recorded", recorded.ids, recorded.paths), quiet=keeping.quiet)


def baseline_accept(
    timing: Launching,
    keeping: Keeping,
    rows: Annotated[
        list[str] | None, typer.Argument(help="seresnet50:params, or a whole network.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why the change is right; kept in the history.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The file that says what to check; default: senet-bench.toml, pyproject.toml."),
    ] = None,
) -> None:
    """Replace the rows named by what this checkout has, and write down who, when and why."""
    from senet_bench.regression import record
    from senet_bench.show import terminal

    keeping.check()
    whole = timing.config(config)
    steps = record.accept(whole, keeping.baselines, rows or (), reason, every=every, seed=timing.seed)
    recorded = terminal.run_steps(steps, quiet=keeping.quiet or keeping.no_progress)
    terminal.remark(_summary("accepted", recorded.ids, recorded.paths), quiet=keeping.quiet)


def baseline_show(
    printing: Printing = Printing(),
    results: Results = RESULTS,
) -> None:
    """What is recorded, and who accepted which change."""
    printing.check()
    from senet_bench.regression.baselines import Baselines
    from senet_bench.regression.record import recorded_document

    printing.emit(recorded_document(Baselines(results / "baselines")))


def _summary(what: str, ids: Sequence[str], paths: Iterable[Path]) -> str:
    names = ", ".join(ids) or "nothing: all is recorded as it is now"
    files = " ".join(shlex.quote(str(path)) for path in paths if path.exists())
    return f"{what} {names}; commit them: git add {files}"


baseline = typer.Typer(
    name="baseline",
    help="What `check` compares with.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
baseline.command("record", cls=Command)(flat(baseline_record))
baseline.command("accept", cls=Command)(flat(baseline_accept))
baseline.command("show", cls=Command)(flat(baseline_show))
