"""Options that several commands share, and how a document is shown or written."""

from __future__ import annotations

import itertools
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet_bench.errors import UsageError
from senet_bench.specs import Conditions
from senet_bench.store import check_writable, write_atomically
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


class Mode(StrEnum):
    """What a timed call does."""

    infer = "infer"
    train = "train"


class Precision(StrEnum):
    """The arithmetic of a timed call; fp32 is never TF32."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"


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
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 or mps.")]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="Arithmetic; fp32 is never TF32.")]
Runtime = Annotated[
    str | None,
    typer.Option("--runtime", help="eager, compile, cudagraph, onnxruntime or openvino, or several: eager,compile."),
]
TorchCompile = Annotated[bool, typer.Option("--torchcompile", help="Short for --runtime compile.")]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="NHWC memory format.")]
Threads = Annotated[int, typer.Option("--threads", help="Threads of an operator on the CPU.")]
BatchSize = Annotated[str, typer.Option("-b", "--batch-size", help="Images a call, or several sizes: 1,8.")]
ModeOption = Annotated[Mode, typer.Option("--mode", help="A forward pass, or a whole training step.")]
Budget = Annotated[float, typer.Option("--budget", help="Seconds of timing for a pair.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the order of rounds.")]


def conditions_of(
    device: str,
    precision: Precision,
    runtime: str | None,
    torchcompile: bool,
    channels_last: bool,
    threads: int,
    batch_size: str,
    mode: Mode,
) -> tuple[Conditions, ...]:
    """Every combination of runtimes and batch sizes; on CUDA, unless told otherwise, eager and graph, on two clocks."""
    on_gpu = device.startswith("cuda")
    names = (
        runtime.split(",")
        if runtime
        else ["compile"]
        if torchcompile
        else ["eager", "cudagraph"]
        if on_gpu
        else ["eager"]
    )
    clocks = ("end-to-end", "device") if on_gpu else ("end-to-end",)
    return tuple(
        Conditions(
            device=device,
            precision=precision.value,
            runtime=name.strip(),  # type: ignore[arg-type]  # checked against this machine before anything is timed
            channels_last=channels_last,
            threads=threads,
            batch_size=batch,
            mode=mode.value,
            timing=clock,  # type: ignore[arg-type]
        )
        for batch, name, clock in itertools.product(_batches(batch_size), names, clocks)
    )


def _batches(text: str) -> list[int]:
    sizes = [item.strip() for item in text.split(",")]
    wrong = next((size for size in sizes if not (size.isascii() and size.isdigit() and int(size))), None)
    if wrong is not None:
        raise UsageError(f"--batch-size {wrong!r} is no positive integer", "give one, or several: 1,8")
    return [int(size) for size in sizes]


def switches(typed: dict[str, str | None]) -> dict[str, Any]:
    """The attention switches that were typed, one value each."""
    found: dict[str, Any] = {}
    for name, text in typed.items():
        if text is not None:
            values = AXES[name].parse(text)
            if len(values) > 1:
                raise UsageError(f"--{name} {text} names {len(values)} values", "use `ablate` for more than one")
            found |= AXES[name].switches(values[0])
    return found


def check_output(output: Path | None) -> None:
    """Raise `UsageError` if the output could not be written, before anything is measured for it."""
    if output is not None:
        check_writable(output)


def emit(document: Document, format: Format, output: Path | None) -> None:  # noqa: A002
    """Show a document, or write it in a machine format."""
    from senet_bench import console
    from senet_bench.report import writers

    if format == "table" and output is None:
        console.show(document)
        return
    text = writers.render(document, "md" if format == "table" else format)
    console.write(text) if output is None else write_atomically(output, text)
