"""Three ways of timing the same two networks in one run: this package's, torch.utils.benchmark's, timm benchmark.py's.

Run `python -m benchmarks.bench_timers [--device cuda] [--model seresnet50] [--batch 32] [--runs 8] [--seconds 4]`. A
run of a way is its answer to what the network takes beside its baseline: here, paired rounds for some seconds; torch's
Timer, the median of each network for half of them; timm's, the mean of 40 steps after 10, the device awaited at the end
of each. The ways take turns. How far the answers of a way lie apart says how many of its runs tell 2 % (80 % power at
two-sided 5 %); timers.md holds them.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from torch.utils.benchmark import Timer

from senet_bench.bench.clock import Call
from senet_bench.bench.device import card_of, device_of
from senet_bench.bench.machine import environment, session
from senet_bench.bench.rounds import Plan, measure_latency
from senet_bench.bench.runtimes import example, prepare
from senet_bench.core.catalog import pair, resolve
from senet_bench.core.files import write_atomically
from senet_bench.core.progress import result_of
from senet_bench.core.specs import Conditions
from senet_bench.errors import UsageError
from senet_bench.models import build_spec

WARM_STEPS, STEPS = 10, 40
"""What timm's benchmark.py does unless told otherwise."""
CHANGE, NORMAL_QUANTILES = 0.02, 1.96 + 0.84
Factory = Callable[[], Call]


@dataclass(slots=True)
class Way:
    """A way of timing: `ratio` gives its answer for (baseline, network) anew; answers and their seconds are kept."""

    name: str
    ratio: Callable[[Factory, Factory], float]
    ratios: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def run(self, base: Factory, network: Factory) -> None:
        """Add an answer."""
        begun = time.perf_counter()
        self.ratios.append(self.ratio(base, network))
        self.seconds.append(time.perf_counter() - begun)


def ways_on(conditions: Conditions, seconds: float) -> tuple[Way, ...]:
    """The three ways, each of about that many seconds but timm's, which has a number of steps."""
    device = device_of(conditions.device)

    def paired(base: Factory, network: Factory) -> float:
        arms, plan = {"base": base, "network": network}, Plan(budget_s=seconds, seed=random.randrange(1 << 31))
        judged = result_of(measure_latency(arms, "base", plan=plan, clock=device.clock(conditions))).arms["network"]
        assert judged.judgement is not None
        return judged.judgement.ratio

    def by_timer(factory: Factory) -> float:
        known = {"call": factory(), "finish": device.synchronise}
        return float(Timer("call(); finish()", globals=known).blocked_autorange(min_run_time=seconds / 2).median)

    def by_steps(factory: Factory) -> float:
        call, total = factory(), 0.0
        for step in range(WARM_STEPS + STEPS):
            begun = time.perf_counter()
            call()
            device.synchronise()
            total += time.perf_counter() - begun if step >= WARM_STEPS else 0.0
        return total / STEPS

    return (
        Way("senet-bench, paired rounds", paired),
        Way("torch.utils.benchmark, medians", lambda base, network: by_timer(network) / by_timer(base)),
        Way("timm benchmark.py, means", lambda base, network: by_steps(network) / by_steps(base)),
    )


def runs_for(ratios: Sequence[float], change: float = CHANGE) -> int:
    """How many runs tell a change, by how far the logarithms of their answers lie apart."""
    spread = statistics.stdev(map(math.log, ratios))
    return max(1, math.ceil((NORMAL_QUANTILES * spread / math.log1p(change)) ** 2))


def table(ways: Sequence[Way], about: str) -> str:
    """The ways as Markdown."""
    lines = ["| way | runs | ratio | lowest | highest | s a run | runs that tell +2 % | s |", "|" + "---|" * 8]
    for way in ways:
        low, high, middle = min(way.ratios), max(way.ratios), statistics.median(way.ratios)
        each, number = statistics.median(way.seconds), runs_for(way.ratios)
        ratios = " | ".join(f"{ratio:.4f}" for ratio in (middle, low, high))
        lines.append(f"| {way.name} | {len(way.ratios)} | {ratios} | {each:.1f} | {number} | {number * each:.0f} |")
    return f"{about}\n\n" + "\n".join(lines) + "\n"


def measured(model: str, conditions: Conditions, ways: Sequence[Way], runs: int) -> None:
    """Let each way answer that many times, in random order, for a network and its baseline."""
    specs = pair(resolve(model))
    images = example(specs[0].input_size, conditions.batch_size)
    with session(conditions):
        base, network = (prepare(build_spec(spec).eval(), conditions, images).factory for spec in specs)
        for _ in range(runs):
            for way in random.sample(ways, len(ways)):
                way.run(base, network)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="seresnet50")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=8, help="of each way, 2 at least")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a run")
    parser.add_argument("--out", type=Path, default=Path("results/tables"))
    options = parser.parse_args()
    if options.runs < 2:
        raise UsageError("one run does not tell how far runs lie apart", "give --runs 2 or more")
    conditions = Conditions(options.device, batch_size=options.batch)
    ways = ways_on(conditions, options.seconds)
    measured(options.model, conditions, ways, options.runs)
    where = card_of(options.device) or f"{environment().hard.cpu}, one thread"
    about = (
        f"{options.model} beside its baseline, batch {options.batch}, fp32, eager, {where}; "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M}, load {os.getloadavg()[0]:.1f}."
    )
    text = table(ways, about)
    write_atomically(options.out / "timers.md", text)
    print(text)  # noqa: T201


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
