"""Options that several commands share, and their bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import typer

from senet_bench.api.parameters import choice, read_by, within
from senet_bench.core import specs
from senet_bench.core.datasets import DATA_VARIABLE, dataset_key
from senet_bench.core.devices import check_name
from senet_bench.errors import UsageError

EngineName = Literal["local", "ray", "slurm"]
AllocatorChoice = Literal["as-is", "tuned"]
PAPER_VALUE = "paper"
"""What an axis of `ablate` is given when it stands without a value."""
DEVICES = "cpu, cuda, cuda:1 or mps."
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no remarks.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bar.")]
ALLOCATOR = "tuned: let glibc keep freed memory (Linux), for all sides alike."
LARGEST_SIDE, MOST_CHANNELS, MOST_CLASSES, MOST_THREADS, MOST_SEEDS = 8192, 4096, 10**6, 1024, 10_000
LARGEST_SEED, MOST_EPOCHS, LARGEST_BATCH = 2**31 - 1, 100_000, 10**6
LONGEST_BUDGET_S = 3600.0
MOST_SECONDS = 7 * 24 * 3600.0
MOST_ELEMENTS = 2**31


def device_option(panel: str | None = None) -> Any:
    """`--device`, under a panel of the help where its group has none."""
    return typer.Option("--device", help=DEVICES, rich_help_panel=panel, **read_by(check_name))


def dataset_option(about: str) -> Any:
    """`--dataset` of a command, with what it says there."""
    return typer.Option("--dataset", help=about, parser=dataset_key, metavar="TEXT")


def batch_option(about: str) -> Any:
    """`--batch-size` of a command that takes one size, with what it says there."""
    return typer.Option("-b", "--batch-size", min=1, max=LARGEST_BATCH, help=about)


FlopsOf = Annotated[
    str | None,
    typer.Option("--flops-of", help="Your formulas for operators that no counter knows: package.module:formulas."),
]
Attach = Annotated[
    bool,
    typer.Option("--attach", help="Put attention into networks from outside (timm:NAME, package.module:callable)."),
]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Put attention into networks from outside in the place of their own."),
]
EmaWeights = Annotated[
    bool | None,
    typer.Option(
        "--ema-weights/--raw-weights",
        help="Of a file with both: the average of the weights, or the raw ones (a trainer's file: raw).",
        show_default=False,
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", envvar=DATA_VARIABLE, help="The folder that holds the data set.", show_envvar=False),
]
Download = Annotated[
    bool,
    typer.Option("--download", help="Fetch what is missing of cifar10, cifar100, imagenette or places365 into --data."),
]
SkipCorrupt = Annotated[bool, typer.Option("--skip-corrupt", help="Leave unreadable images out, and count them.")]
Rate = Annotated[
    float | None, typer.Option("--lr", help="Learning rate instead of the recipe's.", **within(1e-12, 1e6))
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, max=MOST_EPOCHS, help="Epochs instead of the recipe's.")]
ImageSide = Annotated[
    int | None,
    typer.Option("--img-size", min=1, max=LARGEST_SIDE, help="Image side in pixels instead of the network's own."),
]
BlocksFirst = Annotated[
    int,
    typer.Option(
        "--blocks-first",
        min=0,
        max=MOST_EPOCHS,
        help="With --recipe finetune: epochs in which attention blocks alone are trained.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run and how long it is likely to take.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train again what is stored.")]
AUTO = "auto"


def seed_count(text: str | int) -> str:
    """A number of seeds, or that they are added until the differences are known."""
    number = str(text)
    if number == AUTO or (re.fullmatch("[0-9]{1,9}", number, re.ASCII) and 1 <= int(number) <= MOST_SEEDS):
        return number
    raise UsageError(f"--seeds {number[:20]!r} is neither {AUTO} nor a number from 1 to {MOST_SEEDS}", "use 8")


SeedCount = Annotated[
    str,
    typer.Option(
        "--seeds",
        parser=seed_count,
        metavar=f"<int|{AUTO}>",
        help="Runs of each network, paired by seed; auto: added until the differences are known.",
    ),
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, max=MOST_SEEDS, help="Runs of each network, paired by seed.")]
EngineChoice = Annotated[
    EngineName, typer.Option("--engine", help="Where the trials run.", **choice(*get_args(EngineName)))
]
EngineAddress = Annotated[
    str | None, typer.Option("--engine-address", help="Address of a running Ray cluster; default: a local one.")
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Leave Slurm's jobs; the same command, typed again, takes them up.")
]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option("--engine-option", help="For Ray cpus=1, gpus=0.5; for Slurm slurm_partition=gpu, timeout_min=60."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, max=MOST_THREADS, help="Trials at once here, of each GPU; default: the cores, 1 a GPU."
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=LARGEST_SEED,
        help="Seed of the order of rounds.",
        rich_help_panel="What is measured",
    ),
]


def input_size(text: str) -> tuple[int, ...]:
    """Channels and sides of one input: `2x128` is (2, 128)."""
    parts = re.split("[x,]", text)
    sides = tuple(int(part) for part in parts if re.fullmatch("[0-9]{1,9}", part, re.ASCII))
    if not 2 <= len(sides) == len(parts) <= 4 or not 0 < math.prod(sides) <= MOST_ELEMENTS:
        raise UsageError(f"--input-size {text[:40]!r} is no size of an input", "use 3x224x320, or 2x128 or 2x8x32x32")
    return sides


InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-size",
        help="Channels and sides of one input: 3x224x320; 2x128 (1-D) or 2x8x32x32 (3-D).",
        **read_by(input_size),
    ),
]


def _sides(text: str | None, others: Mapping[str, int | None]) -> tuple[int, ...] | None:
    """The size of an input that was typed; `UsageError` where an option that is part of it was typed too."""
    if text is None:
        return None
    twice = next((name for name, value in others.items() if value is not None), None)
    if twice is not None:
        raise UsageError(f"--input-size and {twice} exclude each other", "leave one out")
    return input_size(text)


@dataclass(frozen=True, slots=True)
class Where:
    """Where networks are trained and tested, and in which arithmetic."""

    PANEL: ClassVar[str] = "Where and how it runs"
    device: Annotated[str, device_option()] = "cpu"
    precision: Annotated[
        specs.Precision,
        typer.Option("--precision", help="Arithmetic; fp32 is never TF32.", **choice(*get_args(specs.Precision))),
    ] = "fp32"
