"""Options of what is measured and where it runs: counts, timing, conditions, overheads."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

import typer

from senet_bench.api.options import (
    ALLOCATOR,
    LONGEST_BUDGET_S,
    MOST_SECONDS,
    MOST_THREADS,
    AllocatorChoice,
    FlopsOf,
    Seed,
    Where,
)
from senet_bench.api.parameters import choice, read_by, within
from senet_bench.api.reading import AnyProtocol
from senet_bench.core import specs
from senet_bench.core.devices import kind_of
from senet_bench.core.runtimes import FASTEST, RUNTIMES, check_listed
from senet_bench.core.specs import Conditions, CounterName
from senet_bench.errors import UsageError
from senet_bench.overhead.budget import Cost, limit

if TYPE_CHECKING:
    from senet_bench.core.formulas import Formulas
    from senet_bench.run.compare import Measure
    from senet_bench.run.count import Count

_ERRS_LEAST = "What errs least within this ratio to the baseline's"
_TEXT = "1.03 or '+3 %'"
_FROM = f"{_TEXT}. Without --dataset from what is stored and printed alone."
_FIT = "Which settings cost at most this ratio to the baseline's"


def _ratio(cost: Cost, about: str) -> Any:
    """The option of a ratio to the baseline's cost."""
    return typer.Option(f"--budget-{cost}", help=about, **read_by(partial(limit, cost)))


def formulas_of(path: str | None) -> Formulas | None:
    """The user's formulas at an import string."""
    if path is None:
        return None
    from senet_bench.core.formulas import formulas_at

    return formulas_at(path)


def _batches(text: str) -> list[int]:
    sizes = [item.strip() for item in text.split(",")]
    wrong = next((size for size in sizes if not re.fullmatch("0{0,9}[1-9][0-9]{0,6}", size)), None)
    if wrong is not None:
        shown = f"{wrong[:20]}..." if wrong[20:] else wrong
        raise UsageError(f"--batch-size {shown!r} is no positive integer below 10 million", "give one, or several: 1,8")
    return [int(size) for size in sizes]


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


MaxSeconds = Annotated[
    float | None,
    typer.Option(
        "--max-seconds",
        help="Seconds for all timing together: shorter budgets, and what is not reached is named.",
        rich_help_panel="What is measured",
        **within(0.001, MOST_SECONDS),
    ),
]


@dataclass(frozen=True, slots=True)
class TimingOptions:
    """How long pairs are timed, if they are."""

    PANEL: ClassVar[str] = "What is measured"
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Leave the timing out.")] = False
    budget: Annotated[
        float, typer.Option("--budget", help="Seconds of timing for a pair.", **within(0.001, LONGEST_BUDGET_S))
    ] = 10.0
    max_seconds: MaxSeconds = None
    energy: Annotated[
        bool,
        typer.Option("--energy", help="Joules too, of the GPU's board or the CPU's packages; 8 s a network."),
    ] = False
    seed: Seed = 0

    def measures(self, conditions: tuple[Conditions, ...], *, typed: bool) -> dict[str, Measure]:
        """The timing that these options ask for, under some conditions; `typed` where runtimes were named."""
        from senet_bench.run.latency import Timing as Timer

        if self.no_latency and self.energy:
            raise UsageError("--no-latency and --energy exclude each other", "leave one out")
        timer = Timer(conditions, self.budget, self.seed, energy=self.energy, most_s=self.max_seconds, typed=typed)
        return {} if self.no_latency else {"latency": timer}


@dataclass(frozen=True, slots=True)
class AxisTiming:
    """How long all settings of an ablation are timed together, if they are."""

    PANEL: ClassVar[str] = "What is measured"
    latency: Annotated[bool, typer.Option("--latency", help="Time all settings in the same rounds.")] = False
    budget: Annotated[
        float, typer.Option("--budget", help="Seconds of timing for all settings.", **within(0.001, LONGEST_BUDGET_S))
    ] = 30.0
    max_seconds: MaxSeconds = None
    seed: Seed = 0

    def measures(self, conditions: tuple[Conditions, ...], *, needed: bool, typed: bool) -> dict[str, Measure]:
        """The timing that these options ask for, or that is `needed`, under some conditions; `typed` likewise."""
        from senet_bench.run.latency import Timing as Timer

        timer = Timer(conditions, self.budget, self.seed, most_s=self.max_seconds, typed=typed)
        return {"latency": timer} if self.latency or needed else {}


@dataclass(frozen=True, slots=True)
class Running(Where):
    """Where and how networks run while they are measured."""

    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            help=f"{', '.join(RUNTIMES)}; several: eager,deploy; {FASTEST}: which to ship.",
            **read_by(check_listed),
        ),
    ] = None
    torchcompile: Annotated[bool, typer.Option("--torchcompile", help="Short for --runtime compile.")] = False
    channels_last: Annotated[bool, typer.Option("--channels-last", help="NHWC memory format.")] = False
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=MOST_THREADS, help="Threads of an operator on the CPU.")
    ] = 1
    batch_size: Annotated[
        str,
        typer.Option("-b", "--batch-size", help="Images a call, or several sizes: 1,8.", **read_by(_batches)),
    ] = "1"
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
        """Every combination of runtimes and batch sizes; on a GPU, unless told otherwise, two of each.

        Raises `UsageError` where one of the options would be of no effect.
        """
        kind = kind_of(self.device)
        if self.torchcompile and self.runtime:
            raise UsageError("--torchcompile and --runtime exclude each other", "leave one out")
        if self.cold_l2 and "device" not in kind.clocks:
            raise UsageError(f"--cold-l2 flushes nothing on {self.device}", "add --device cuda, or leave it out")
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

    def check_single(self, limits: Mapping[Cost, float]) -> None:
        """Raise `UsageError` where a latency is limited and several batch sizes or runtimes were typed."""
        typed = {"--batch-size": self.batch_size, "--runtime": self.runtime or ""}
        several = [f"{name} {text}" for name, text in typed.items() if "," in text or text == FASTEST]
        if several and "latency" in limits:
            raise UsageError(
                f"--budget-latency without --dataset is of one batch size and runtime, not {several[0]}", "give one"
            )


@dataclass(frozen=True, slots=True)
class Overhead:
    """Ratios to the baseline that a network may cost."""

    PANEL: ClassVar[str] = "What an overhead buys"
    budget_latency: Annotated[str | None, _ratio("latency", f"{_ERRS_LEAST} latency: {_FROM}")] = None
    budget_flops: Annotated[str | None, _ratio("flops", f"{_ERRS_LEAST} FLOPs: {_FROM}")] = None
    budget_params: Annotated[str | None, _ratio("params", f"{_ERRS_LEAST} parameters: {_FROM}")] = None

    def limits(self) -> dict[Cost, float]:
        """The ratios that were typed."""
        typed: dict[Cost, str | None] = {
            "latency": self.budget_latency,
            "flops": self.budget_flops,
            "params": self.budget_params,
        }
        return {cost: limit(cost, text) for cost, text in typed.items() if text is not None}


@dataclass(frozen=True, slots=True)
class Fitting(Overhead):
    """Ratios to the baseline that a setting may cost."""

    PANEL: ClassVar[str] = "What fits an overhead"
    budget_latency: Annotated[str | None, _ratio("latency", f"{_FIT} latency, {_TEXT}; times them.")] = None
    budget_flops: Annotated[str | None, _ratio("flops", f"{_FIT} FLOPs, {_TEXT}.")] = None
    budget_params: Annotated[str | None, _ratio("params", f"{_FIT} parameters, {_TEXT}.")] = None
