"""Options that several commands share, and how a document is shown or written."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet_bench.bench.clock import cores
from senet_bench.core.specs import Conditions
from senet_bench.core.store import check_writable, write_atomically
from senet_bench.core.studies import AXES
from senet_bench.errors import UsageError
from senet_bench.overhead.budget import Cost, limit
from senet_bench.run.engines import Engine, Local, RayCluster, Slurm

if TYPE_CHECKING:
    from senet_bench.run.error import Sweep
    from senet_bench.show.documents import Document


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


class EngineName(StrEnum):
    """Where trials run."""

    local = "local"
    ray = "ray"
    slurm = "slurm"


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


class AllocatorName(StrEnum):
    """The C library's allocator while something is timed."""

    as_is = "as-is"
    tuned = "tuned"


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
    typer.Option(
        "--runtime", help="eager, compile, deploy, cudagraph, onnxruntime or openvino, or several: eager,deploy."
    ),
]
TorchCompile = Annotated[bool, typer.Option("--torchcompile", help="Short for --runtime compile.")]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="NHWC memory format.")]
Threads = Annotated[int, typer.Option("--threads", help="Threads of an operator on the CPU.")]
BatchSize = Annotated[str, typer.Option("-b", "--batch-size", help="Images a call, or several sizes: 1,8.")]
ModeOption = Annotated[Mode, typer.Option("--mode", help="A forward pass, or a whole training step.")]
ColdCache = Annotated[bool, typer.Option("--cold-l2", help="On CUDA, flush the L2 cache before each device timing.")]
AllocatorOption = Annotated[
    AllocatorName,
    typer.Option("--allocator", help="tuned: let glibc keep freed memory (Linux), for all sides alike."),
]
Budget = Annotated[float, typer.Option("--budget", help="Seconds of timing for a pair.")]
_ERRS_LEAST = "What errs least within this ratio to the baseline's"
_FROM = "1.03 or '+3 %'. Without --dataset from what is stored and printed alone."
BudgetLatency = Annotated[str | None, typer.Option("--budget-latency", help=f"{_ERRS_LEAST} latency: {_FROM}")]
BudgetFlops = Annotated[str | None, typer.Option("--budget-flops", help=f"{_ERRS_LEAST} FLOPs: {_FROM}")]
BudgetParams = Annotated[str | None, typer.Option("--budget-params", help=f"{_ERRS_LEAST} parameters: {_FROM}")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the order of rounds.")]


Dataset = Annotated[
    str | None,
    typer.Option("--dataset", help="Train and test on digits, cifar10, cifar100, imagenet, places365 or folder."),
]
Data = Annotated[Path | None, typer.Option("--data", help="The folder that holds the data set.")]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help="How to train; default: the data set's own.")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Epochs instead of the recipe's.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate instead of the recipe's.")]
Seeds = Annotated[int, typer.Option("--seeds", help="Runs of each network, paired by seed.")]
EngineOption = Annotated[EngineName, typer.Option("--engine", help="Where the trials run.")]
EngineAddress = Annotated[
    str | None, typer.Option("--engine-address", help="Address of a running Ray cluster; default: a local one.")
]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option("--engine-option", help="For Ray cpus=1, gpus=0.5; for Slurm slurm_partition=gpu, timeout_min=60."),
]
Workers = Annotated[int | None, typer.Option("--workers", help="Trials at once on this machine; default: its cores.")]
Shard = Annotated[str, typer.Option("--shard", help="Run only share i of n of the trials: 2/4.")]


def sweep_of(
    dataset: str | None,
    data: Path | None,
    recipe: str | None,
    epochs: int | None,
    lr: float | None,
    seeds: int,
    precision: Precision,
    engine: Engine,
    shard: str,
) -> Sweep | None:
    """The sweep that the options ask for, None without a data set."""
    if dataset is None:
        return None
    from senet_bench.run.error import Sweep

    share, _, shares = shard.partition("/")
    if not (share.isdigit() and shares.isdigit()):
        raise UsageError(f"--shard {shard} is no share", "use 1/4 to 4/4")
    return Sweep(
        engine=engine,
        dataset=dataset.lower(),
        folder=data,
        recipe=recipe,
        epochs=epochs,
        lr=lr,
        seeds=seeds,
        precision=precision.value,
        shard=(int(share), int(shares)),
    )


def engine_of(
    name: EngineName, address: str | None, typed: Sequence[str], workers: int | None, results: Path
) -> Engine:
    """The engine that the options ask for."""
    options = _engine_options(typed)
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be a positive integer, not {workers}")
    match name:
        case EngineName.local:
            return Local(workers or cores())
        case EngineName.ray:
            unknown = options.keys() - {"cpus", "gpus"}
            if unknown:
                raise UsageError(f"Ray has no option {min(unknown)!r} here", "use cpus=1 or gpus=0.5")
            return RayCluster(address, **{key: float(value) for key, value in options.items()})
        case EngineName.slurm:
            cluster = str(options.pop("cluster", "slurm"))
            return Slurm(results / "slurm", cluster=cluster, options=options)


def _engine_options(typed: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in typed:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--engine-option {text!r} is not KEY=VALUE", "use cpus=2, for example")
        found[key] = int(value) if value.isdigit() else float(value) if value.replace(".", "", 1).isdigit() else value
    return found


def limits_of(typed: dict[Cost, str | None]) -> dict[Cost, float]:
    """The ratios of the budgets that were typed."""
    return {cost: limit(cost, text) for cost, text in typed.items() if text is not None}


def conditions_of(
    device: str,
    precision: Precision,
    runtime: str | None,
    torchcompile: bool,
    channels_last: bool,
    threads: int,
    batch_size: str,
    mode: Mode,
    allocator: AllocatorName,
    cold_l2: bool = False,
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
            cache="cold" if cold_l2 and clock == "device" else "warm",
            allocator=allocator.value,
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
    from senet_bench.show import terminal, writers

    if format == "table" and output is None:
        terminal.show(document)
        return
    text = writers.render(document, "md" if format == "table" else format)
    terminal.write(text) if output is None else write_atomically(output, text)
