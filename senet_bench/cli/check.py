"""The commands `check` and `baseline record / accept / show`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from senet_bench.api import checking
from senet_bench.api import options as o
from senet_bench.api.checking import Judging, Launching, Selection
from senet_bench.api.parameters import Command, flat
from senet_bench.api.reading import RESULTS, Results
from senet_bench.cli.showing import Printing, Showing, check_output, emit
from senet_bench.core.files import check_folder
from senet_bench.errors import BenchError, InterruptedRunError

if TYPE_CHECKING:
    from senet_bench.regression.baselines import Baselines
    from senet_bench.regression.outcome import Report


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
            kind = {"table": "markdown", "md": "markdown", "html": "html"}.get(showing.format, "json")
            write_atomically(showing.output, texts[kind])
        if self.annotations or os.environ.get("GITHUB_ACTIONS") == "true":
            typer.echo(ci.failure_line(error), err=True)
        _write_for_github(texts["markdown"], showing.quiet)

    def write(self, report: Report) -> None:
        """Write those that were named."""
        from senet_bench.core.files import write_atomically
        from senet_bench.core.results import to_json
        from senet_bench.regression import ci, text

        if self.junit is not None:
            write_atomically(self.junit, ci.junit(report))
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
        report = checking.check(selection, judging, timing, showing.results, showing).report
    except BenchError as error:
        files.write_failure(error, showing)
        if judging.bisect and not isinstance(error, InterruptedRunError):
            raise SkippedCommitError(str(error)) from error
        raise
    files.write(report)
    _show(report, showing)
    _write_for_github(text_of_summary(report), showing.quiet)
    if files.annotations:
        _annotate(report)
    if report.exit_code > 1 and judging.bisect:
        raise SkippedCommitError(str(FailedCheckError(report)))
    if report.exit_code:
        raise FailedCheckError(report)


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
