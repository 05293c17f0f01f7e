"""Options of errors: on what, how and where networks are trained and tested."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from senet_bench.api.options import (
    AUTO,
    MOST_SEEDS,
    MOST_THREADS,
    BlocksFirst,
    DataFolder,
    Detach,
    Download,
    DryRun,
    EngineAddress,
    EngineChoice,
    EngineName,
    EngineOptions,
    Epochs,
    Fresh,
    Rate,
    SeedCount,
    Workers,
    seed_count,
)
from senet_bench.api.parameters import options_typed, read_by, within
from senet_bench.bench.process import cores
from senet_bench.core import specs
from senet_bench.core.datasets import CLASSIFICATION, DATA_VARIABLE, EACH_OF_THE_PAPER, dataset_key
from senet_bench.core.devices import kind_of
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.core.sequential import Stopping
    from senet_bench.run.engines import Engine
    from senet_bench.run.error import Sweep


def _dataset(name: str) -> str:
    return name if name == EACH_OF_THE_PAPER else dataset_key(name)


def _usual_folder() -> Path | None:
    """The folder that the environment names for every command, None where it names none."""
    folder = os.environ.get(DATA_VARIABLE)
    return Path(folder) if folder else None


def _share(text: str) -> tuple[int, int]:
    """Share 2 of 4 of the text `2/4`."""
    share = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
    number, of = (int(share[1]), int(share[2])) if share else (0, 0)
    if not 1 <= number <= of:
        raise UsageError(f"--shard {text[:20]} is no share", "use 1/4 to 4/4")
    return number, of


@dataclass(frozen=True, slots=True)
class Trials:
    """On what, how and where networks are trained and tested."""

    PANEL: ClassVar[str] = "Errors: training and testing"
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help=f"Train and test on {CLASSIFICATION}; {EACH_OF_THE_PAPER}: each table's own.",
            parser=_dataset,
            metavar="TEXT",
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
    shard: Annotated[
        str, typer.Option("--shard", help="Run only share i of n of the trials: 2/4.", **read_by(_share))
    ] = "1/1"
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

    @property
    def on_cluster(self) -> bool:
        """Whether trials wait for a cluster, often longer than anyone watches."""
        return self.dataset is not None and self.engine != "local"

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
            data = None if self.data == _usual_folder() else self.data
            if unused := options_typed(replace(self, data=data, dry_run=False)):
                are = "are" if unused[1:] else "is"
                raise UsageError(f"{', '.join(unused)} {are} for training", "add --dataset, or leave it out")
            return None
        if self.download and self.dataset == EACH_OF_THE_PAPER:
            raise UsageError("--download fetches one data set, not those of all tables", "name it: --dataset cifar10")
        if self.download:
            fetch_data(self.dataset, self.data)
        from senet_bench.run.error import Sweep

        stopping = self.stopping()
        return Sweep(
            engine=engine,
            dataset=self.dataset,
            folder=self.data,
            recipe=self.recipe,
            epochs=self.epochs,
            lr=self.lr,
            seeds=stopping.most if stopping else int(seed_count(self.seeds)),
            stopping=stopping,
            precision=precision,
            device=device,
            shard=_share(self.shard),
            keep_weights=self.keep_weights,
            fresh=self.fresh,
            processes=together,
            weights=self.weights,
            blocks_first=self.blocks_first,
        )


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
    options: dict[str, Any] = {}
    for text in typed:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--engine-option {text!r} is not KEY=VALUE", "use cpus=2, for example")
        whole, number = (re.fullmatch(form, value) for form in ("[0-9]{1,9}", r"[0-9]{0,9}\.?[0-9]{1,9}"))
        options[key] = int(value) if whole else float(value) if number else value
    return options
