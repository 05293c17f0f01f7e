"""What SE costs by how a network is run: SE / baseline in every runtime at hand, in one interleaved run a cell.

Run `python -m benchmarks.bench_runtimes [--pairs resnet50_v1_5,...] [--batch 1,8] [--threads 1,2]`, with
`--precision fp32,bf16`, `--budget SECONDS` a cell, `--fresh`, `--compile`, `--out FOLDER`. A cell is a pair of networks
at a batch size, a precision and a number of threads. It is stored in se_cost.json when it is measured, and not measured
again without `--fresh`, so that a run which was stopped goes on where it was. In a round every runtime runs the
baseline and the SE network once, in random order, on images drawn anew. Ratios are of CPU time with one thread, of wall
time with more. se_cost.md is the table.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
import torch
from torch import nn

from senet_bench.bench.agreement import array, calibrated, distance
from senet_bench.bench.machine import check_conditions, environment, session
from senet_bench.bench.runtimes import TOLERANCE, call_of, example
from senet_bench.core.catalog import pair, resolve
from senet_bench.core.environment import Environment
from senet_bench.core.files import write_atomically
from senet_bench.core.results import to_json
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import Conditions, Precision, Runtime
from senet_bench.errors import UsageError
from senet_bench.models import attention_blocks, build_spec

PAIRS = (
    *("resnet50", "resnet50_v1_5", "mobilenet_v1", "shufflenet_v1_g3"),
    *("mobilenet_v2", "mobilenet_v3_large_nose", "efficientnet_b0_nose"),
)
"""By the baseline's name."""
COMPILED: tuple[Runtime, ...] = ("compile", "deploy:compile")
LEAST_ROUNDS = 6
READ_BYTES = 1 << 28
ABOUT = (
    "What SE costs, by how a network is run: medians of ratios of interleaved calls, of CPU time with one thread, of"
    " wall time with more; static shapes, weights at random, images drawn anew before every call. `deploy...` runs the"
    " deploy form: BatchNorm folded, gates early, dead pixels dropped. Floor: the weights of the gates, read at this"
    " machine's bandwidth, beside the fastest baseline. A load above 1 means neighbours: absolute ratios are not to be"
    " quoted then."
)
COLUMNS = ("runtime", "SE / base", "quartiles", "SE network / its own eager", "base ms", "SE ms", "floor")


@dataclass(frozen=True, slots=True)
class Side:
    """Seconds by round of one network in one runtime."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A pair under its conditions: seconds by runtime, of the baseline, the SE network, and a second eager baseline.

    `left_out` says why a runtime is not in it. `gate_bytes` are the weights of SE's blocks, `bytes_per_s` is how fast
    the threads read memory. `load` is the machine's at the beginning and the end, `seconds` what all of it took.
    """

    pair: str
    label: str
    batch: int
    precision: Precision
    threads: int
    created: str
    load: tuple[float, float]
    seconds: float
    gate_bytes: int
    bytes_per_s: float
    base: dict[str, Side]
    se: dict[str, Side]
    control: Side
    left_out: dict[str, str]

    @property
    def key(self) -> tuple[str, int, str, int]:
        """Which cell it is."""
        return self.pair, self.batch, self.precision, self.threads

    def times(self, side: Side) -> list[float]:
        """The seconds that ratios are made of."""
        return side.cpu if self.threads == 1 else side.wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The machine, and every cell that was measured on it."""

    environment: Environment
    cells: list[Cell] = field(default_factory=list)


@dataclass(slots=True)
class Arm:
    """A network in a runtime, ready to be called on images drawn anew."""

    call: Callable[[], object]
    images: torch.Tensor
    side: Side = field(default_factory=Side)

    def time(self) -> None:
        """Draw images and add the seconds of a call on them."""
        self.images.normal_()
        wall, cpu = time.perf_counter(), time.process_time()
        self.call()
        self.side.cpu.append(round(time.process_time() - cpu, 6))
        self.side.wall.append(round(time.perf_counter() - wall, 6))


def arm(network: nn.Module, conditions: Conditions, images: torch.Tensor, expected: torch.Tensor) -> Arm:
    """A fresh copy of the network under the conditions, whose outputs are those of eager fp32."""
    held: list[torch.Tensor] = []
    call = call_of(network, conditions, images, held)
    apart, allowed = distance(array(call()), array(expected)), TOLERANCE[conditions.precision]
    if apart > allowed:
        raise UsageError(f"outputs differ by {apart:.2g} of the largest, more than {allowed:g}", "look at the runtime")
    return Arm(call, held[0])


def measured(conditions: Conditions, name: str, runtimes: Sequence[Runtime], budget_s: float) -> Cell:
    """The cell of a pair: rounds for `budget_s` seconds after the networks were made ready."""
    begun, load = time.perf_counter(), os.getloadavg()[0]
    specs, arms, left_out = pair(resolve(name)), dict[tuple[str, str], Arm](), dict[str, str]()
    images = example(specs[0].input_size, conditions.batch_size)
    networks = {what: calibrated(build_spec(spec), images).eval() for what, spec in zip(("base", "se"), specs)}
    with session(conditions), torch.inference_mode():
        expected = {what: network(images) for what, network in networks.items()}
        for runtime in runtimes:
            try:
                under = replace(conditions, runtime=runtime)
                check_conditions(under)
                made = {what: arm(network, under, images, expected[what]) for what, network in networks.items()}
            except Exception as error:  # noqa: BLE001 - whatever a runtime raises stands in the table
                left_out[runtime] = str(error).splitlines()[0]
            else:
                arms |= {(what, runtime): one for what, one in made.items()}
        arms["control", "eager"] = arm(networks["base"], conditions, images, expected["base"])
        run_rounds(list(arms.values()), budget_s)
        bytes_per_s = reading_speed()
    gates = [p for block in attention_blocks(networks["se"]).values() for p in block.parameters()]
    sides = {what: {name: arms[w, name].side for w, name in arms if w == what} for what in networks}
    return Cell(
        pair=name, label=specs[0].label, batch=conditions.batch_size, precision=conditions.precision,
        threads=conditions.threads, created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        load=(round(load, 2), round(os.getloadavg()[0], 2)), seconds=round(time.perf_counter() - begun, 1),
        gate_bytes=sum(p.numel() * p.element_size() for p in gates), bytes_per_s=bytes_per_s, **sides,
        control=arms["control", "eager"].side, left_out=left_out,
    )  # fmt: skip


def run_rounds(arms: Sequence[Arm], budget_s: float) -> None:
    """Time every arm once a round, in random order, after two calls that are thrown away."""
    for one in (*arms, *arms):
        one.time()
    for one in arms:
        one.side = Side()
    until = time.perf_counter() + budget_s
    for count in itertools.count(1):
        for one in random.sample(arms, len(arms)):
            one.time()
        if count >= LEAST_ROUNDS and time.perf_counter() > until:
            return


def reading_speed() -> float:
    """Bytes a second at which memory beyond the caches is read, the best of five."""
    values, best = torch.ones(READ_BYTES // 4), 0.0
    for _ in range(5):
        begun = time.perf_counter()
        values.sum()
        best = max(best, READ_BYTES / (time.perf_counter() - begun))
    return round(best)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median, the upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def lines_of(cell: Cell) -> list[tuple[str, ...]]:
    """The lines of a cell, the runtime with the fastest SE network first."""
    eager, lines = cell.times(cell.se["eager"]), []
    fastest = min(statistics.median(cell.times(side)) for side in cell.base.values())
    floor = 1 + cell.gate_bytes / cell.bytes_per_s / fastest
    for runtime in sorted(cell.se, key=lambda name: statistics.median(cell.times(cell.se[name]))):
        se, base = cell.times(cell.se[runtime]), cell.times(cell.base[runtime])
        low, middle, high = quartiles([a / b for a, b in zip(se, base)])
        own = statistics.median(a / b for a, b in zip(se, eager))
        times = (f"{1e3 * statistics.median(seconds):.3g}" for seconds in (base, se))
        lines.append((runtime, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{own:.3f}", *times, f"{floor:.3f}"))
    return lines


def table(costs: Costs) -> str:
    """Every cell as a table in Markdown, with the machine it was measured on."""
    hard, packages = costs.environment.hard, costs.environment.packages
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "onnxruntime", "openvino") if packages.get(name)
    )
    parts = [
        ABOUT,
        f"{hard.cpu}, {hard.cores} cores, {hard.isa}, {versions}.",
    ]
    for cell in sorted(
        costs.cells, key=lambda cell: (PAIRS.index(cell.pair), cell.batch, cell.precision, cell.threads)
    ):
        base = cell.times(cell.base["eager"])
        low, middle, high = quartiles([a / b for a, b in zip(cell.times(cell.control), base)])
        about = (
            f"{cell.created}, load {cell.load[0]:.1f} to {cell.load[1]:.1f}, {len(base)} rounds;"
            f" control (eager against itself) {middle:.3f}, {low:.3f} to {high:.3f}"
        )
        without = [f"{runtime}: {why}" for runtime, why in cell.left_out.items()]
        head = f"## {cell.label}, batch {cell.batch}, {cell.precision}, {cell.threads} thread(s)"
        rows = ["| " + " | ".join(line) + " |" for line in (COLUMNS, ("---", *["--:"] * 6), *lines_of(cell))]
        parts += [head, f"{about}.", "\n".join(rows), *(["Left out: " + "; ".join(without) + "."] if without else [])]
    return "\n\n".join(parts) + "\n"


def write(costs: Costs, folder: Path) -> None:
    """The cells, and the table that is made of them."""
    write_atomically(folder / "se_cost.json", to_json(costs))
    write_atomically(folder / "se_cost.md", table(costs))


def stored(folder: Path) -> Costs:
    """What was measured before; nothing where that was on another machine or is in an older form."""
    here = environment()
    try:
        costs = msgspec.json.decode((folder / "se_cost.json").read_bytes(), type=Costs)
    except (OSError, msgspec.MsgspecError):
        return Costs(environment=here)
    return costs if costs.environment.machine == here.machine else Costs(environment=here)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("pairs", ",".join(PAIRS)), ("batch", "1,8"), ("threads", "1"), ("precision", "fp32")):
        parser.add_argument(f"--{name}", default=usual)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of rounds a cell")
    parser.add_argument("--fresh", action="store_true", help="measure again what is stored")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which takes minutes a cell")
    parser.add_argument("--out", type=Path, default=Path("results/tables"))
    options = parser.parse_args()
    costs, runtimes = stored(options.out), [name for name, facts in RUNTIMES.items() if not facts.graphs]
    runtimes = [name for name in runtimes if options.compile or name not in COMPILED]
    axes = (
        options.threads.split(","),
        options.batch.split(","),
        options.precision.split(","),
        options.pairs.split(","),
    )
    for threads, batch, precision, name in itertools.product(*axes):
        key = name, int(batch), precision, int(threads)
        if precision not in get_args(Precision) or name not in PAIRS:
            parser.error(f"choose pairs from {', '.join(PAIRS)}; precisions from {', '.join(get_args(Precision))}")
        if any(cell.key == key for cell in costs.cells) and not options.fresh:
            print(f"{key}: stored")  # noqa: T201
            continue
        conditions = Conditions(batch_size=key[1], threads=key[3], precision=precision)
        try:
            check_conditions(conditions)
        except UsageError as error:
            print(f"{key}: {error}")  # noqa: T201
            continue
        cell = measured(conditions, name, runtimes, options.budget)
        costs = replace(costs, cells=[*(other for other in costs.cells if other.key != key), cell])
        write(costs, options.out)
        print(f"{key}: {cell.seconds:.0f} s", *("  ".join(line) for line in lines_of(cell)), sep="\n  ", flush=True)  # noqa: T201


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
