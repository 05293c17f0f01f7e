"""The command line: parse, call one workflow, show. The only place that catches `BenchError`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from senet_bench import __version__
from senet_bench.errors import BenchError, UsageError
from senet_bench.store import Store, check_writable, write_atomically
from senet_bench.studies import AXES

if TYPE_CHECKING:
    from senet_bench.report.documents import Document


class Format(StrEnum):
    """How a result is written."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"
    html = "html"


class CounterName(StrEnum):
    """Who counts operations."""

    shapes = "shapes"
    fvcore = "fvcore"


"""What an axis of `ablate` is given when it stands without a value."""


PAPER = "paper"
"""What an axis of `ablate` is given when it stands without a value."""


PAPER = "paper"
"""What an axis of `ablate` is given when it stands without a value."""


class _Group(typer.core.TyperGroup):
    """Ends a command that raised `BenchError` with its one line and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"senet-bench: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            typer.echo("senet-bench: interrupted", err=True)
            raise typer.Exit(130) from error
        except Exception as error:
            describe = getattr(error, "format_message", None)  # a usage error of the vendored click
            if describe is None:
                raise
            typer.echo(f"senet-bench: {' '.join(describe().split()).rstrip('.')}; see `senet-bench --help`", err=True)
            raise typer.Exit(2) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: `senet-bench ARGUMENTS`."""
    app(args=completed(sys.argv[1:] if arguments is None else arguments), prog_name="senet-bench")


def completed(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--debug` first, and with `paper` after every axis of `ablate` that has no value."""
    rest = [argument for argument in arguments if argument != "--debug"]
    found = ["--debug"] * (len(rest) < len(arguments))
    axes = {f"--{name}" for name in AXES} if rest[:1] == ["ablate"] else set()
    for argument, following in zip(rest, [*rest[1:], "-"]):
        found.append(argument)
        if argument in axes and following.startswith("-"):
            found.append(PAPER)
    return found


app = typer.Typer(
    name="senet-bench",
    cls=_Group,
    help="What channel attention costs and what it buys: Squeeze-and-Excitation networks beside the paper's tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

What = Annotated[
    list[str] | None,
    typer.Argument(help="Model ids, families, or table2, table3, ...; default: Tables 2 and 3.", show_default=False),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How the result is written.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file instead of stdout.")]
Results = Annotated[Path, typer.Option("--results", help="The results folder.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no remarks.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bar.")]
ImgSize = Annotated[int | None, typer.Option("--img-size", help="Image side in pixels instead of the network's own.")]
Classes = Annotated[int | None, typer.Option("--classes", help="Number of classes.")]
Channels = Annotated[int | None, typer.Option("--in-channels", help="Input channels.")]
Cardinality = Annotated[int | None, typer.Option("--cardinality", help="Groups C of ResNeXt-like networks.")]
Counter = Annotated[CounterName, typer.Option("--counter", help="Who counts.")]
Verify = Annotated[bool, typer.Option("--verify", help="Check every count against fvcore and FlopCounterMode.")]


@app.command()
def compare(
    what: What = None,
    reduction: Annotated[str | None, typer.Option("-r", "--reduction", help="r, or one r a stage: 16/16/8/4.")] = None,
    squeeze: Annotated[str | None, typer.Option(help="avg, max or none.")] = None,
    excitation: Annotated[str | None, typer.Option(help="sigmoid, tanh or relu.")] = None,
    integration: Annotated[str | None, typer.Option(help="standard, pre, post or identity.")] = None,
    stages: Annotated[str | None, typer.Option(help="Stages with attention: 2+3, or all.")] = None,
    placement: Annotated[str | None, typer.Option(help="standard or 3x3.")] = None,
    fc_bias: Annotated[bool, typer.Option("--fc-bias/--no-fc-bias", help="Biases in the FCs.")] = True,
    img_size: ImgSize = None,
    classes: Classes = None,
    in_channels: Channels = None,
    cardinality: Cardinality = None,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Leave the timing out.")] = False,
    counter: Counter = CounterName.shapes,
    verify: Verify = False,
    format: FormatOption = Format.table,  # noqa: A002 - the option's name
    output: Output = None,
    results: Results = Path("results"),
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Networks with and without SE side by side, each beside what the paper prints."""
    typed = {"reduction": reduction, "squeeze": squeeze, "excitation": excitation, "integration": integration}
    attention = _switches(typed | {"stages": stages, "placement": placement}) | ({} if fc_bias else {"bias": False})
    _check_output(output)
    from senet_bench import console, workflows
    from senet_bench.report import documents

    changes = workflows.Changes(img_size, classes, in_channels, cardinality, attention)
    events = workflows.compare(what or (), _store(results), changes=changes, counter=counter.value, verify=verify)
    event = console.follow(events, quiet=quiet or no_progress)
    _emit(documents.of_run(event.run, workflows.selected_studies(what or ())), format, output)
    console.remark(f"stored in {event.path}", quiet=quiet)


@app.command()
def ablate(
    model: Annotated[str, typer.Option("-m", "--model", help="The network to vary.")] = "seresnet50",
    reduction: Annotated[
        str | None, typer.Option(help="Reduction ratios: 2,4,8,16,32; 16/16/8/4 is one r a stage.")
    ] = None,
    squeeze: Annotated[str | None, typer.Option(help="avg,max")] = None,
    excitation: Annotated[str | None, typer.Option(help="relu,tanh,sigmoid")] = None,
    integration: Annotated[str | None, typer.Option(help="standard,pre,post,identity")] = None,
    stages: Annotated[str | None, typer.Option(help="2,3,4,all; 2+3 is both in one network.")] = None,
    placement: Annotated[str | None, typer.Option(help="standard,3x3")] = None,
    no_squeeze: Annotated[str | None, typer.Option("--no-squeeze", help="true,false")] = None,
    img_size: ImgSize = None,
    classes: Classes = None,
    in_channels: Channels = None,
    cardinality: Cardinality = None,
    counter: Counter = CounterName.shapes,
    verify: Verify = False,
    format: FormatOption = Format.table,  # noqa: A002 - the option's name
    output: Output = None,
    results: Results = Path("results"),
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Vary SE along one axis or several; an axis without a value takes the paper's."""
    typed = {"reduction": reduction, "squeeze": squeeze, "excitation": excitation, "integration": integration}
    typed |= {"stages": stages, "placement": placement, "no-squeeze": no_squeeze}
    axes = {name: None if text == PAPER else text for name, text in typed.items() if text is not None}
    _check_output(output)
    from senet_bench import console, workflows
    from senet_bench.report import documents

    changes = workflows.Changes(img_size, classes, in_channels, cardinality)
    events = workflows.ablate(model, axes, _store(results), changes=changes, counter=counter.value, verify=verify)
    event = console.follow(events, quiet=quiet or no_progress)
    _emit(documents.of_run(event.run), format, output)
    console.remark(f"stored in {event.path}", quiet=quiet)


@app.command()
def models(
    family: Annotated[list[str] | None, typer.Argument(help="Only these families.", show_default=False)] = None,
    format: FormatOption = Format.table,  # noqa: A002 - the option's name
    output: Output = None,
) -> None:
    """All networks with family, layout, parameters and the paper's tables they stand in."""
    _check_output(output)
    from senet_bench.report import documents

    _emit(documents.of_catalog(family or ()), format, output)


@app.command()
def doctor(
    format: FormatOption = Format.table,  # noqa: A002 - the option's name
    output: Output = None,
) -> None:
    """What this machine offers, what is missing and how to get it."""
    _check_output(output)
    from senet_bench.measure.environment import checks, environment
    from senet_bench.report import documents

    _emit(documents.of_checks(checks(), environment()), format, output)


@app.command()
def report(results: Results = Path("results"), quiet: Quiet = False) -> None:
    """Rebuild every table and plot from the stored runs."""
    from senet_bench import console, workflows

    for path in workflows.report(_store(results)):
        console.remark(str(path), quiet=quiet)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def _switches(typed: dict[str, str | None]) -> dict[str, Any]:
    """The attention switches that were typed, one value each."""
    found: dict[str, Any] = {}
    for name, text in typed.items():
        if text is not None:
            values = AXES[name].parse(text)
            if len(values) > 1:
                raise UsageError(f"--{name} {text} names {len(values)} values", "use `ablate` for more than one")
            found |= AXES[name].switches(values[0])
    return found


def _store(results: Path) -> Store:
    return Store(results)


def _check_output(output: Path | None) -> None:
    if output is not None:
        check_writable(output)


def _emit(document: Document, format: Format, output: Path | None) -> None:  # noqa: A002
    """Show a document, or write it in a machine format."""
    from senet_bench import console
    from senet_bench.report import writers

    if format == "table" and output is None:
        console.show(document)
        return
    text = writers.render(document, "md" if format == "table" else format)
    console.write(text) if output is None else write_atomically(output, text)
