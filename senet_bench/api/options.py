"""Options that several commands share, and how a document is shown or written."""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import typer

from senet_bench.api.parameters import choice, within
from senet_bench.api.reading import Against, AnyProtocol
from senet_bench.bench.process import cores
from senet_bench.core import specs
from senet_bench.core.axes import AXES
from senet_bench.core.datasets import CLASSIFICATION
from senet_bench.core.devices import kind_of
from senet_bench.core.runtimes import FASTEST, RUNTIMES
from senet_bench.core.specs import Conditions, CounterName, ModelSpec, Spread, is_outside
from senet_bench.errors import UsageError
from senet_bench.overhead.budget import Cost, limit

if TYPE_CHECKING:
    from senet_bench.core.formulas import Formulas
    from senet_bench.core.sequential import Stopping
    from senet_bench.run.cases import Changes, Reference
    from senet_bench.run.compare import Measure
    from senet_bench.run.count import Count
    from senet_bench.run.engines import Engine
    from senet_bench.run.error import Sweep
    from senet_bench.show.layout import Layout


EngineName = Literal["local", "ray", "slurm"]
AllocatorChoice = Literal["as-is", "tuned"]
PAPER_VALUE = "paper"
"""What an axis of `ablate` is given when it stands without a value."""


DEVICES = "cpu, cuda, cuda:1 or mps."
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no remarks.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bar.")]
ALLOCATOR = "tuned: let glibc keep freed memory (Linux), for all sides alike."
_ERRS_LEAST = "What errs least within this ratio to the baseline's"
_FROM = "1.03 or '+3 %'. Without --dataset from what is stored and printed alone."
LARGEST_SIDE, MOST_CHANNELS, MOST_CLASSES, MOST_THREADS, MOST_SEEDS = 8192, 4096, 10**6, 1024, 10_000
LARGEST_SEED, MOST_EPOCHS, LARGEST_BATCH = 2**31 - 1, 100_000, 10**6
LONGEST_BUDGET_S = 3600.0
LARGEST_INPUT = 2**31


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
    typer.Option("--data", envvar="SENET_BENCH_DATA", help="The folder that holds the data set.", show_envvar=False),
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


def _seed_count(text: str | int) -> str:
    """A number of seeds, or that they are added until the differences are known."""
    number = str(text)
    if number == AUTO or (re.fullmatch("[0-9]{1,9}", number, re.ASCII) and 1 <= int(number) <= MOST_SEEDS):
        return number
    raise UsageError(f"--seeds {number[:20]!r} is neither {AUTO} nor a number from 1 to {MOST_SEEDS}", "use 8")


SeedCount = Annotated[
    str,
    typer.Option(
        "--seeds",
        parser=_seed_count,
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
    if not 2 <= len(sides) == len(parts) <= 4 or not 0 < math.prod(sides) <= LARGEST_INPUT:
        raise UsageError(f"--input-size {text[:40]!r} is no size of an input", "use 3x224x320, or 2x128 or 2x8x32x32")
    return sides


InputSize = Annotated[
    str | None,
    typer.Option("--input-size", help="Channels and sides of one input: 3x224x320; 2x128 (1-D) or 2x8x32x32 (3-D)."),
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
class Sizes:
    """What is changed in every network: images, classes, channels, groups."""

    PANEL: ClassVar[str] = "What is built"
    img_size: ImageSide = None
    input_size: InputSize = None
    classes: Annotated[int | None, typer.Option("--classes", min=1, max=MOST_CLASSES, help="Number of classes.")] = None
    in_channels: Annotated[
        int | None, typer.Option("--in-channels", min=1, max=MOST_CHANNELS, help="Input channels.")
    ] = None
    cardinality: Annotated[
        int | None,
        typer.Option("--cardinality", min=1, max=MOST_CHANNELS, help="Groups C of ResNeXt-like networks."),
    ] = None

    def changes(self, switches: Mapping[str, Any] | None = None) -> Changes:
        """The changes, with attention switches where there are any."""
        from senet_bench.run.cases import Changes

        size = _sides(self.input_size, {"--img-size": self.img_size, "--in-channels": self.in_channels})
        return Changes(self.img_size, self.classes, self.in_channels, self.cardinality, switches or {}, input_size=size)


def axis_options(names: Iterable[str], *, several: bool) -> dict[str, Any]:
    """An option for each axis, by the name of its parameter: one value, or several."""
    made: dict[str, Any] = {}
    for name in names:
        flags = [f"--{name}"] if several or name != "reduction" else ["-r", f"--{name}"]
        text = AXES[name].several if several else AXES[name].help
        made[name.replace("-", "_")] = Annotated[str | None, typer.Option(*flags, help=text)]
    return made


@dataclass(frozen=True, slots=True)
class Switches:
    """The attention that networks are built with, one value a switch; `values` are those typed, None elsewhere."""

    PANEL: ClassVar[str] = "What is built"
    OPTIONS: ClassVar[dict[str, Any]] = axis_options((name for name in AXES if name != "no-squeeze"), several=False)
    values: dict[str, str | None] = field(default_factory=dict)
    attach: Attach = False
    replace: Replace = False
    fc_bias: Annotated[bool, typer.Option("--fc-bias/--no-fc-bias", help="Biases in the FCs.")] = True

    def typed(self) -> dict[str, Any]:
        """The switches of the attention that were typed."""
        return switches(self.values) | ({} if self.fc_bias else {"bias": False})

    def named(self, names: Sequence[str] | None) -> list[str]:
        """The networks' names; those from outside with attention attached where that is asked for."""
        return [attached_name(name, attach=self.attach, replace=self.replace) for name in names or ()]

    def network(self, model: str, img_size: int | None, size: str | None = None) -> ModelSpec:
        """One network so built; `UsageError` on switches that would change nothing in it."""
        from senet_bench.run.cases import Changes, spec_of

        typed, (name,) = self.typed(), self.named([model])
        sides = _sides(size, {"--img-size": img_size})
        spec = spec_of(name, Changes(img_size=img_size, attention=typed, input_size=sides))
        if typed and spec.attention is None:
            usual = f"name a network with attention, or leave out {', '.join(typed)}"
            raise UsageError(f"{spec.name} has no attention to switch", "add --attach" if spec.outside else usual)
        return spec


def attached_name(name: str, *, attach: bool, replace: bool) -> str:
    """The name of a network from outside with attention put in as asked; a network of the catalog keeps its own."""
    if attach and replace:
        raise UsageError("--attach and --replace exclude each other", "leave one out")
    ending = specs.REPLACE if replace else specs.ATTACH if attach else ""
    return f"{name}{ending}" if is_outside(name) and specs.bare_name(name) == name else name


@dataclass(frozen=True, slots=True)
class Where:
    """Where networks are trained and tested, and in which arithmetic."""

    PANEL: ClassVar[str] = "Where and how it runs"
    device: Annotated[str, typer.Option("--device", help=DEVICES)] = "cpu"
    precision: Annotated[
        specs.Precision,
        typer.Option("--precision", help="Arithmetic; fp32 is never TF32.", **choice(*get_args(specs.Precision))),
    ] = "fp32"


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of an ablation, each with several values; without a value an axis takes the paper's."""

    PANEL: ClassVar[str] = "What is varied"
    OPTIONS: ClassVar[dict[str, Any]] = axis_options(AXES, several=True)
    values: dict[str, str | None] = field(default_factory=dict)
    attach: Attach = False
    replace: Replace = False

    def named(self, model: str) -> str:
        """The network's name; that of one from outside says whether its own attention is replaced."""
        return attached_name(model, attach=self.attach, replace=self.replace)

    def chosen(self) -> dict[str, str | None]:
        """The axes that were typed, with their values, None for the paper's."""
        typed = {name.replace("_", "-"): text for name, text in self.values.items() if text is not None}
        return {name: None if text == PAPER_VALUE else text for name, text in typed.items()}


def formulas_of(path: str | None) -> Formulas | None:
    """The user's formulas at an import string."""
    if path is None:
        return None
    from senet_bench.core.formulas import formulas_at

    return formulas_at(path)


@dataclass(frozen=True, slots=True)
class Counting:
    """Who counts."""

    PANEL: ClassVar[str] = "What is measured"
    flops_of: FlopsOf = None
    counter: Annotated[CounterName, typer.Option("--counter", help="Who counts.", **choice("shapes", "fvcore"))] = (
        "shapes"
    )
    verify: Annotated[bool, typer.Option("--verify", help="Check every count against fvcore and FlopCounterMode.")] = (
        False
    )
    any_protocol: AnyProtocol = False

    def count(self) -> Count:
        """The measure that these options ask for."""
        from senet_bench.run.count import Count

        if self.flops_of is not None and self.counter != "shapes":
            raise UsageError("--flops-of and --counter fvcore exclude each other", "leave out --counter fvcore")
        return Count(self.counter, self.verify, formulas_of(self.flops_of), any_protocol=self.any_protocol)


@dataclass(frozen=True, slots=True)
class TimingOptions:
    """How long pairs are timed, if they are."""

    PANEL: ClassVar[str] = "What is measured"
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Leave the timing out.")] = False
    budget: Annotated[
        float, typer.Option("--budget", help="Seconds of timing for a pair.", **within(0.001, LONGEST_BUDGET_S))
    ] = 10.0
    energy: Annotated[
        bool,
        typer.Option("--energy", help="Joules too, of the GPU's board or the CPU's packages; 8 s a network."),
    ] = False
    seed: Seed = 0

    def measures(self, conditions: tuple[Conditions, ...]) -> dict[str, Measure]:
        """The timing that these options ask for, under some conditions."""
        from senet_bench.run.latency import Timing as Timer

        if self.no_latency and self.energy:
            raise UsageError("--no-latency and --energy exclude each other", "leave one out")
        return {} if self.no_latency else {"latency": Timer(conditions, self.budget, self.seed, energy=self.energy)}


@dataclass(frozen=True, slots=True)
class Partners:
    """What the networks of a comparison are compared with."""

    PANEL: ClassVar[str] = Switches.PANEL
    pair: Annotated[bool, typer.Option("--pair", help="Compare the networks as named with the first of them.")] = False
    alone: Annotated[bool, typer.Option("--alone", help="The networks as named, without partners.")] = False
    only: Annotated[
        str | None,
        typer.Option("--only", help="Only networks whose name, label or printed row matches: 'ResNet-110*'."),
    ] = None

    def reference(self) -> Reference:
        """What each network is compared with."""
        if self.pair and self.alone:
            raise UsageError("--pair and --alone exclude each other", "leave one out")
        return "first" if self.pair else "none" if self.alone else "partner"


@dataclass(frozen=True, slots=True)
class Running(Where):
    """Where and how networks run while they are measured."""

    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            help=f"{', '.join(RUNTIMES)}; several: eager,deploy; {FASTEST}: which to ship.",
        ),
    ] = None
    torchcompile: Annotated[bool, typer.Option("--torchcompile", help="Short for --runtime compile.")] = False
    channels_last: Annotated[bool, typer.Option("--channels-last", help="NHWC memory format.")] = False
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=MOST_THREADS, help="Threads of an operator on the CPU.")
    ] = 1
    batch_size: Annotated[str, typer.Option("-b", "--batch-size", help="Images a call, or several sizes: 1,8.")] = "1"
    mode: Annotated[
        specs.Mode,
        typer.Option("--mode", help="A forward pass, or a whole training step.", **choice(*get_args(specs.Mode))),
    ] = "infer"
    cold_l2: Annotated[
        bool, typer.Option("--cold-l2", help="On CUDA, flush the L2 cache before each device timing.")
    ] = False
    allocator: Annotated[
        AllocatorChoice,
        typer.Option(
            "--allocator",
            help=ALLOCATOR,
            **choice(*get_args(AllocatorChoice)),
        ),
    ] = "as-is"

    def conditions(self) -> tuple[Conditions, ...]:
        """Every combination of runtimes and batch sizes; on a GPU, unless told otherwise, two of each."""
        kind = kind_of(self.device)
        names = self.runtime.split(",") if self.runtime else ["compile"] if self.torchcompile else kind.runtimes
        return tuple(
            Conditions(
                device=self.device,
                precision=self.precision,
                runtime=name.strip(),  # type: ignore[arg-type]  # checked against this machine before anything is timed
                channels_last=self.channels_last,
                threads=self.threads,
                batch_size=batch,
                mode=self.mode,
                cache="cold" if self.cold_l2 and clock == "device" else "warm",
                allocator=self.allocator,
                timing=clock,
            )
            for batch, name, clock in itertools.product(_batches(self.batch_size), names, kind.clocks)
        )


@dataclass(frozen=True, slots=True)
class Trials:
    """On what, how and where networks are trained and tested."""

    PANEL: ClassVar[str] = "Errors: training and testing"
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help=f"Train and test on {CLASSIFICATION}; paper: each table's own.",
        ),
    ] = None
    data: DataFolder = None
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="How to train; default: that of the row in its table, else the data set's own."),
    ] = None
    epochs: Epochs = None
    lr: Rate = None
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="Fine-tune from trained weights: a file, a name, or timm for a network's own."),
    ] = None
    blocks_first: BlocksFirst = 0
    seeds: SeedCount = "8"
    width: Annotated[
        float | None,
        typer.Option(
            "--width", help="With --seeds auto: points to which a difference is to be known; 0.5.", **within(0.001, 100)
        ),
    ] = None
    max_seeds: Annotated[
        int | None,
        typer.Option("--max-seeds", min=1, max=MOST_SEEDS, help="With --seeds auto: the most seeds of a network; 30."),
    ] = None
    engine: EngineChoice = "local"
    engine_address: EngineAddress = None
    engine_option: EngineOptions = None
    workers: Workers = None
    detach: Detach = False
    shard: Annotated[str, typer.Option("--shard", help="Run only share i of n of the trials: 2/4.")] = "1/1"
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Leave every trained network in results/weights.")
    ] = False
    download: Download = False
    fresh: Fresh = False
    gpus_per_trial: Annotated[
        int,
        typer.Option(
            "--gpus-per-trial",
            min=1,
            max=MOST_THREADS,
            help="Processes that train a trial together, each on a GPU of its own; on a CPU too.",
        ),
    ] = 1
    dry_run: DryRun = False

    def stopping(self) -> Stopping | None:
        """When seeds are enough; None where their number is given."""
        if self.seeds == AUTO:
            from senet_bench.core.sequential import Stopping

            usual = Stopping()
            width = usual.width if self.width is None else self.width / 100
            return Stopping(width, usual.most if self.max_seeds is None else self.max_seeds)
        given = {"--width": self.width, "--max-seeds": self.max_seeds}
        unused = next((name for name, value in given.items() if value is not None), None)
        if unused:
            raise UsageError(f"{unused} is for --seeds auto", f"add it, or leave out {unused}")
        return None

    def sweep(self, precision: specs.Precision, device: str, results: Path) -> Sweep | None:
        """The sweep that these options ask for, None without a data set."""
        typed, together = self.engine_option or (), self.gpus_per_trial
        engine = engine_of(
            self.engine, self.engine_address, typed, self.workers, device, results, together, detach=self.detach
        )
        if self.dataset is None:
            if self.weights is not None or self.blocks_first:
                unused = "--blocks-first" if self.weights is None else "--weights"
                raise UsageError(f"{unused} is for training", "add --dataset, or leave it out")
            return None
        if self.download:
            fetch_data(self.dataset.lower(), self.data)
        from senet_bench.run.error import Sweep

        stopping = self.stopping()
        share = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", self.shard)
        if share is None:
            raise UsageError(f"--shard {self.shard} is no share", "use 1/4 to 4/4")
        return Sweep(
            engine=engine,
            dataset=self.dataset.lower(),
            folder=self.data,
            recipe=self.recipe,
            epochs=self.epochs,
            lr=self.lr,
            seeds=stopping.most if stopping else int(_seed_count(self.seeds)),
            stopping=stopping,
            precision=precision,
            device=device,
            shard=(int(share[1]), int(share[2])),
            keep_weights=self.keep_weights,
            fresh=self.fresh,
            processes=together,
            weights=self.weights,
            blocks_first=self.blocks_first,
        )


@dataclass(frozen=True, slots=True)
class Overhead:
    """Ratios to the baseline that a network may cost."""

    PANEL: ClassVar[str] = "What an overhead buys"
    budget_latency: Annotated[str | None, typer.Option("--budget-latency", help=f"{_ERRS_LEAST} latency: {_FROM}")] = (
        None
    )
    budget_flops: Annotated[str | None, typer.Option("--budget-flops", help=f"{_ERRS_LEAST} FLOPs: {_FROM}")] = None
    budget_params: Annotated[str | None, typer.Option("--budget-params", help=f"{_ERRS_LEAST} parameters: {_FROM}")] = (
        None
    )

    def limits(self) -> dict[Cost, float]:
        """The ratios that were typed."""
        typed: dict[Cost, str | None] = {
            "latency": self.budget_latency,
            "flops": self.budget_flops,
            "params": self.budget_params,
        }
        return {cost: limit(cost, text) for cost, text in typed.items() if text is not None}


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Which rows and columns tables have, under which names, and what they are compared with."""

    PANEL: ClassVar[str] = "How it is shown and kept"
    against: Against = None
    rows: Annotated[
        str | None, typer.Option("--rows", help="Only these rows, by label, setting, block or network: none,se,eca.")
    ] = None
    columns: Annotated[
        str | None, typer.Option("--columns", help="Only these columns, in this order: 'params,error %,difference'.")
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Another name for a row, KEY=TEXT: 'mine:Gate=Gate'. Several times for several."),
    ] = None
    spread: Annotated[
        Spread,
        typer.Option(
            "--spread",
            help="Errors with sd in a column of its own, behind the mean, or with the mean's interval.",
            **choice(*get_args(Spread)),
        ),
    ] = "columns"
    decimals: Annotated[
        int, typer.Option("--decimals", min=0, max=6, help="Digits after the point of errors and differences.")
    ] = 2

    def layout(self) -> Layout:
        """What these options ask for."""
        from senet_bench.show.layout import Layout, labels

        return Layout(
            against=self.against,
            rows=listed(self.rows),
            columns=listed(self.columns),
            labels=labels(self.label or ()),
            spread=self.spread,
            decimals=self.decimals,
        )


def listed(text: str | None) -> tuple[str, ...]:
    """The parts of a text between its commas, none for no text."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def engine_of(
    name: EngineName,
    address: str | None,
    typed: Sequence[str],
    workers: int | None,
    device: str,
    results: Path,
    together: int = 1,
    *,
    detach: bool = False,
) -> Engine:
    """The engine that the options ask for, with room for the processes that train a trial together."""
    from senet_bench.run.local import Local
    from senet_bench.run.ray_cluster import RayCluster
    from senet_bench.run.slurm import GPU_OPTIONS, Slurm

    options, gpu = _engine_options(typed), kind_of(device).gpu
    if detach and name != "slurm":
        raise UsageError(f"--detach leaves jobs with a cluster, and {name} has none to leave", "add --engine slurm")
    match name:
        case "local":
            apart = sys.stderr.isatty()  # or nobody could be told how far a trial is
            return Local(workers or (1 if gpu else max(1, cores() // together)), device, together, apart)
        case "ray":
            unknown = options.keys() - {"cpus", "gpus"}
            if unknown:
                raise UsageError(f"Ray has no option {min(unknown)!r} here", "use cpus=1 or gpus=0.5")
            wrong = next((key for key, value in options.items() if isinstance(value, str)), None)
            if wrong is not None:
                raise UsageError(f"--engine-option {wrong}={options[wrong]} is no number", f"use {wrong}=1")
            options = ({"gpus": together} if gpu else {}) | ({"cpus": together} if together > 1 else {}) | options
            return RayCluster(address, **{key: float(value) for key, value in options.items()})
        case "slurm":
            cluster = str(options.pop("cluster", "slurm"))
            options |= {"gpus_per_node": together} if gpu and not GPU_OPTIONS & options.keys() else {}
            options |= {"cpus_per_task": together} if together > 1 and "cpus_per_task" not in options else {}
            at_once = options.pop("at_once", Slurm.AT_ONCE)
            if not isinstance(at_once, int) or at_once < 1:
                raise UsageError(f"--engine-option at_once={at_once} is no number of jobs", "use at_once=64")
            return Slurm(results / "slurm", at_once, cluster, options, detach)


def fetch_data(dataset: str, folder: Path | None) -> None:
    """Fetch what is missing of a data set."""
    from senet_bench.data.downloads import download

    download(dataset, folder)


def _engine_options(typed: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in typed:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--engine-option {text!r} is not KEY=VALUE", "use cpus=2, for example")
        whole, number = (re.fullmatch(form, value) for form in ("[0-9]{1,9}", r"[0-9]{0,9}\.?[0-9]{1,9}"))
        found[key] = int(value) if whole else float(value) if number else value
    return found


def _batches(text: str) -> list[int]:
    sizes = [item.strip() for item in text.split(",")]
    wrong = next((size for size in sizes if not re.fullmatch("0{0,9}[1-9][0-9]{0,6}", size)), None)
    if wrong is not None:
        shown = f"{wrong[:20]}..." if wrong[20:] else wrong
        raise UsageError(f"--batch-size {shown!r} is no positive integer below 10 million", "give one, or several: 1,8")
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
