"""The commands `compare` and `ablate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from senet_bench.cli import options as o
from senet_bench.core.store import Store
from senet_bench.errors import MeasurementError

if TYPE_CHECKING:
    from senet_bench.core.results import Run
    from senet_bench.core.studies import Study
    from senet_bench.overhead.answer import Budget
    from senet_bench.overhead.budget import Verdict
    from senet_bench.run.record import Event
    from senet_bench.show.documents import Document

PAPER = "paper"
"""What an axis of `ablate` is given when it stands without a value."""


def compare(
    what: o.What = None,
    reduction: Annotated[str | None, typer.Option("-r", "--reduction", help="r, or one r a stage: 16/16/8/4.")] = None,
    squeeze: Annotated[str | None, typer.Option(help="avg, max or none.")] = None,
    excitation: Annotated[str | None, typer.Option(help="sigmoid, tanh or relu.")] = None,
    integration: Annotated[str | None, typer.Option(help="standard, pre, post or identity.")] = None,
    stages: Annotated[str | None, typer.Option(help="Stages with attention: 2+3, or all.")] = None,
    placement: Annotated[str | None, typer.Option(help="standard or 3x3.")] = None,
    attention: Annotated[
        str | None, typer.Option("--attention", help="Another block: eca, cbam, ..., or package.module:Class.")
    ] = None,
    attach: Annotated[
        bool,
        typer.Option("--attach", help="Put attention into networks from outside (timm:NAME, package.module:callable)."),
    ] = False,
    fc_bias: Annotated[bool, typer.Option("--fc-bias/--no-fc-bias", help="Biases in the FCs.")] = True,
    img_size: o.ImgSize = None,
    classes: o.Classes = None,
    in_channels: o.Channels = None,
    cardinality: o.Cardinality = None,
    counter: o.Counter = o.CounterName.shapes,
    verify: o.Verify = False,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Leave the timing out.")] = False,
    budget: o.Budget = 10.0,
    budget_latency: o.BudgetLatency = None,
    budget_flops: o.BudgetFlops = None,
    budget_params: o.BudgetParams = None,
    device: o.Device = "cpu",
    precision: o.PrecisionOption = o.Precision.fp32,
    runtime: o.Runtime = None,
    torchcompile: o.TorchCompile = False,
    channels_last: o.ChannelsLast = False,
    threads: o.Threads = 1,
    batch_size: o.BatchSize = "1",
    mode: o.ModeOption = o.Mode.infer,
    cold_l2: o.ColdCache = False,
    allocator: o.AllocatorOption = o.AllocatorName.as_is,
    seed: o.Seed = 0,
    dataset: o.Dataset = None,
    data: o.Data = None,
    recipe: o.RecipeOption = None,
    epochs: o.Epochs = None,
    lr: o.LearningRate = None,
    seeds: o.Seeds = 8,
    engine: o.EngineOption = o.EngineName.local,
    engine_address: o.EngineAddress = None,
    engine_option: o.EngineOptions = None,
    workers: o.Workers = None,
    shard: o.Shard = "1/1",
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Networks with and without SE side by side, each beside what the paper prints."""
    typed = {"reduction": reduction, "squeeze": squeeze, "excitation": excitation, "integration": integration}
    typed |= {"stages": stages, "placement": placement, "attention": attention}
    switches = o.switches(typed) | ({} if fc_bias else {"bias": False})
    named = [f"{name}+attach" if attach and ":" in name else name for name in what or ()]
    conditions = o.conditions_of(
        device, precision, runtime, torchcompile, channels_last, threads, batch_size, mode, allocator, cold_l2
    )
    where = o.engine_of(engine, engine_address, engine_option or (), workers, results)
    sweep = o.sweep_of(dataset, data, recipe, epochs, lr, seeds, precision, where, shard)
    limits = o.limits_of({"latency": budget_latency, "flops": budget_flops, "params": budget_params})
    o.check_output(output)
    from senet_bench.overhead import answer
    from senet_bench.run import cases, compare
    from senet_bench.run import latency as timing

    overhead = answer.Budget(limits, conditions) if limits else None
    if overhead is not None and sweep is None:
        o.emit(_answer(named, results, overhead), format, output)
        return
    events = compare.compare(
        named,
        Store(results),
        changes=cases.Changes(img_size, classes, in_channels, cardinality, switches),
        counting=compare.Counting(counter.value, verify),
        timing=None if no_latency else timing.Timing(conditions, budget, seed),
        sweep=sweep,
        more=overhead.with_plain if overhead else None,
    )
    judge = partial(answer.judged, named, Store(results), overhead) if overhead else None
    _finish(events, cases.selected_studies(what or ()), format, output, quiet, no_progress, judge)


def _answer(what: Sequence[str], results: Path, budget: Budget) -> Document:
    """What is known of an overhead from stored and printed errors."""
    from senet_bench.overhead import answer, tables
    from senet_bench.show import documents

    run, verdicts = answer.answer(what, Store(results), budget)
    return tables.with_verdicts(documents.Document(run, (), (), ()), verdicts)


def ablate(
    model: Annotated[str, typer.Option("-m", "--model", help="The network to vary.")] = "seresnet50",
    reduction: Annotated[
        str | None, typer.Option(help="Reduction ratios (bare: 2,4,8,16,32); 16/16/8/4 is one r a stage.")
    ] = None,
    squeeze: Annotated[str | None, typer.Option(help="max,avg,none (bare: max,avg).")] = None,
    excitation: Annotated[str | None, typer.Option(help="Bare: relu,tanh,sigmoid.")] = None,
    integration: Annotated[str | None, typer.Option(help="Bare: standard,pre,post,identity.")] = None,
    stages: Annotated[str | None, typer.Option(help="Bare: 2,3,4,all; 2+3 is both in one network.")] = None,
    placement: Annotated[str | None, typer.Option(help="Bare: standard,3x3.")] = None,
    no_squeeze: Annotated[str | None, typer.Option("--no-squeeze", help="Bare: true,false.")] = None,
    attention: Annotated[
        str | None, typer.Option("--attention", help="Bare: every built-in block; or eca,cbam,package.module:Class.")
    ] = None,
    img_size: o.ImgSize = None,
    classes: o.Classes = None,
    in_channels: o.Channels = None,
    cardinality: o.Cardinality = None,
    counter: o.Counter = o.CounterName.shapes,
    verify: o.Verify = False,
    latency: Annotated[bool, typer.Option("--latency", help="Time all settings in the same rounds.")] = False,
    budget: Annotated[float, typer.Option("--budget", help="Seconds of timing for all settings.")] = 30.0,
    device: o.Device = "cpu",
    precision: o.PrecisionOption = o.Precision.fp32,
    runtime: o.Runtime = None,
    torchcompile: o.TorchCompile = False,
    channels_last: o.ChannelsLast = False,
    threads: o.Threads = 1,
    batch_size: o.BatchSize = "1",
    mode: o.ModeOption = o.Mode.infer,
    cold_l2: o.ColdCache = False,
    allocator: o.AllocatorOption = o.AllocatorName.as_is,
    seed: o.Seed = 0,
    dataset: o.Dataset = None,
    data: o.Data = None,
    recipe: o.RecipeOption = None,
    epochs: o.Epochs = None,
    lr: o.LearningRate = None,
    seeds: o.Seeds = 8,
    engine: o.EngineOption = o.EngineName.local,
    engine_address: o.EngineAddress = None,
    engine_option: o.EngineOptions = None,
    workers: o.Workers = None,
    shard: o.Shard = "1/1",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and how long it is likely to take.")
    ] = False,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Vary SE along one axis or several; an axis without a value takes the paper's."""
    typed = {"reduction": reduction, "squeeze": squeeze, "excitation": excitation, "integration": integration}
    typed |= {"stages": stages, "placement": placement, "no-squeeze": no_squeeze, "attention": attention}
    axes = {name: None if text == PAPER else text for name, text in typed.items() if text is not None}
    conditions = o.conditions_of(
        device, precision, runtime, torchcompile, channels_last, threads, batch_size, mode, allocator, cold_l2
    )
    where = o.engine_of(engine, engine_address, engine_option or (), workers, results)
    sweep = o.sweep_of(dataset, data, recipe, epochs, lr, seeds, precision, where, shard)
    o.check_output(output)
    from senet_bench.run import cases, compare, forecast, tables
    from senet_bench.run import latency as timing

    changes = cases.Changes(img_size, classes, in_channels, cardinality)
    if dry_run:
        seconds = budget * len(conditions) if latency else 0.0
        facts = forecast.forecast(model, axes, Store(results), changes, sweep, seconds)
        o.emit(tables.forecast(facts), format, output)
        return
    events = compare.ablate(
        model,
        axes,
        Store(results),
        changes=changes,
        counting=compare.Counting(counter.value, verify),
        timing=timing.Timing(conditions, budget, seed) if latency else None,
        sweep=sweep,
    )
    _finish(events, (), format, output, quiet, no_progress)


def _finish(
    events: Iterator[Event[Run]],
    studies: Sequence[Study],
    format: o.Format,  # noqa: A002
    output: Path | None,
    quiet: bool,
    no_progress: bool,
    judge: Callable[[], Sequence[Verdict]] | None = None,
) -> None:
    """Follow a run to its end, show it, and end with exit code 5 if something could not be measured."""
    from senet_bench.overhead import tables
    from senet_bench.show import documents, terminal

    event = terminal.follow(events, quiet=quiet or no_progress)
    document = documents.of_run(event.run, studies)
    o.emit(tables.with_verdicts(document, judge()) if judge else document, format, output)
    terminal.remark(f"stored in {event.path}", quiet=quiet)
    if event.failures:
        raise MeasurementError(
            f"not measured: {event.failures[0]}" + f", and {len(event.failures) - 1} more" * (len(event.failures) > 1)
        )
