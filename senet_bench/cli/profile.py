"""The commands that measure one thing in depth: `profile` and `selftest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from senet_bench.cli import options as o
from senet_bench.core.store import Store


def profile(
    model: Annotated[str, typer.Argument(help="The network.")],
    reduction: Annotated[str | None, typer.Option("-r", "--reduction", help="r, or one r a stage.")] = None,
    img_size: o.ImgSize = None,
    budget: Annotated[
        float, typer.Option("--budget", help="Seconds of paired rounds; the whole takes about 1.6x.")
    ] = 30.0,
    device: o.Device = "cpu",
    precision: o.PrecisionOption = o.Precision.fp32,
    runtime: Annotated[str, typer.Option("--runtime", help="eager, compile, deploy or cudagraph.")] = "eager",
    channels_last: o.ChannelsLast = False,
    threads: o.Threads = 1,
    batch_size: o.BatchSize = "1",
    mode: o.ModeOption = o.Mode.infer,
    allocator: o.AllocatorOption = o.AllocatorName.as_is,
    seed: o.Seed = 0,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Where the time of a network goes, and SE's share: squeeze, excitation, scale, per stage."""
    (conditions, *_) = o.conditions_of(
        device, precision, runtime, False, channels_last, threads, batch_size, mode, allocator
    )
    o.check_output(output)
    from senet_bench.breakdown import run, tables
    from senet_bench.run import cases
    from senet_bench.show import terminal

    changes = cases.Changes(img_size=img_size, attention=o.switches({"reduction": reduction}))
    steps = run.run(model, Store(results), conditions=conditions, budget_s=budget, seed=seed, changes=changes)
    record = terminal.run(steps, quiet=quiet or no_progress)
    o.emit(tables.document(record.document), format, output)
    terminal.remark(f"stored in {record.path}", quiet=quiet)


def selftest(
    null: Annotated[int, typer.Option("--null", help="A/A comparisons (identical sides), for the false alarms.")] = 40,
    slower: Annotated[int, typer.Option("--slower", help="Comparisons with a +5 % slowdown.")] = 20,
    visible: Annotated[int, typer.Option("--visible", help="Comparisons with a +2 % slowdown.")] = 20,
    peers: Annotated[int, typer.Option("--peers", help="Comparisons of each kind for the other tools' rules.")] = 10,
    allocator: o.AllocatorOption = o.AllocatorName.as_is,
    seed: o.Seed = 0,
    format: o.FormatOption = o.Format.table,  # noqa: A002 - the option's name
    output: o.Output = None,
    results: o.Results = Path("results"),
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
) -> None:
    """How trustworthy timing is on this machine: false alarms, smallest visible change, time to verdict."""
    o.check_output(output)
    from senet_bench.bench.selftest import Amounts
    from senet_bench.run import selftest, tables
    from senet_bench.show import terminal

    amounts = Amounts(same=null, slower=slower, visible=visible, peers=peers, seed=seed)
    steps = selftest.run(Store(results), amounts, allocator=allocator.value)
    record = terminal.run(steps, quiet=quiet or no_progress)
    o.emit(tables.selftest(record.document), format, output)
    terminal.remark(f"stored in {record.path}", quiet=quiet)
