"""Which part of `deploy` pays where: gates taken early, dead pixels dropped, both or neither, in every runtime.

Run `python -m benchmarks.bench_forms [--pairs resnet50,...] [--batch 1,8] [--budget SECONDS] [--out FOLDER]`. For each
pair, batch size and runtime the forms of baseline and SE network are timed in the same rounds (CPU time, one thread);
deploy_forms.md says what each takes of the form in which BatchNorm is only folded.
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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from senet_bench.bench.agreement import calibrated
from senet_bench.bench.machine import environment, session
from senet_bench.bench.runtimes import example
from senet_bench.core.catalog import pair, resolve
from senet_bench.core.files import write_atomically
from senet_bench.core.runtimes import ENGINES, DeployEngine, missing_modules
from senet_bench.core.specs import Conditions
from senet_bench.deployment import deploy
from senet_bench.models import build_spec

PAIRS = (
    *("resnet50", "resnet50_v1_5", "mobilenet_v1", "shufflenet_v1_g3"),
    *("mobilenet_v2", "mobilenet_v3_large_nose", "efficientnet_b0_nose"),
)
"""By the baseline's name."""
LEAST_ROUNDS = 6
FORMS = {"folded": (False, False), "early": (True, False), "dropped": (False, True), "early and dropped": (True, True)}
"""Whether gates are early and whether dead pixels are dropped, by the name of the form; the first is the yardstick."""
COLUMNS = ("network", "batch", "runtime", "form", "of folded", "quartiles", "pays")
Line = tuple[str, ...]


@dataclass(slots=True)
class Arm:
    """A form of a network, ready to be called on images drawn anew, and its CPU seconds by round."""

    call: Callable[[], object]
    images: torch.Tensor
    seconds: list[float] = field(default_factory=list)

    def time(self) -> None:
        """Draw images and add the seconds of a call on them."""
        self.images.normal_()
        begun = time.process_time()
        self.call()
        self.seconds.append(time.process_time() - begun)


def measured(name: str, batch: int, engine: DeployEngine, budget_s: float) -> list[Line]:
    """The lines of a pair in one runtime, a form of a network each."""
    lines: list[Line] = []
    for spec in pair(resolve(name)):
        images = example(spec.input_size, batch)
        network = calibrated(build_spec(spec), images).eval()
        with session(Conditions(batch_size=batch)):
            arms = {form: _arm(network, engine, form, images) for form in FORMS}
            run_rounds(list(arms.values()), budget_s / 2)
        folded = arms["folded"].seconds
        for form in list(FORMS)[1:]:
            low, middle, high = quartiles([a / b for a, b in zip(arms[form].seconds, folded)])
            spread = f"{low:.3f} to {high:.3f}"
            lines.append((spec.label, str(batch), engine, form, f"{middle:.3f}", spread, paid(low, high)))
    return lines


def run_rounds(arms: Sequence[Arm], budget_s: float) -> None:
    """Time every arm once a round, in random order, after two calls that are thrown away."""
    for one in (*arms, *arms):
        one.time()
    for one in arms:
        one.seconds.clear()
    until = time.perf_counter() + budget_s
    for count in itertools.count(1):
        for one in random.sample(arms, len(arms)):
            one.time()
        if count >= LEAST_ROUNDS and time.perf_counter() > until:
            return


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median, the upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def paid(low: float, high: float) -> str:
    """Whether a form takes less time, by the quartiles of its ratios."""
    return "yes" if high < 1 else "no" if low > 1 else "as much"


def _arm(network: nn.Module, engine: DeployEngine, form: str, images: torch.Tensor) -> Arm:
    early, dropped = FORMS[form]
    deployed, held = deploy(network, engine, early_gate=early, thinned=dropped), images.clone()
    return Arm(lambda: deployed(held), held)


def table(lines: Sequence[Line], about: str) -> str:
    """The lines as Markdown."""
    rows = ("| " + " | ".join(line) + " |" for line in (COLUMNS, ("---",) * len(COLUMNS), *lines))
    head = (
        "What each part of `deploy` takes of the form in which BatchNorm is only folded: medians of interleaved ratios."
    )
    return f"{head}\n\n{about}\n\n" + "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default=",".join(PAIRS))
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--runtimes", default=",".join(name for name in ENGINES if name != "compile"))
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of rounds a pair, batch size and runtime")
    parser.add_argument("--out", type=Path, default=Path("results/tables"))
    options = parser.parse_args()
    lines: list[Line] = []
    axes = (options.pairs.split(","), options.batch.split(","), options.runtimes.split(","))
    for name, batch, engine in itertools.product(*axes):
        if missing_modules(ENGINES[engine]):
            continue
        lines += measured(name, int(batch), engine, options.budget)
        hard, load = environment().hard, os.getloadavg()[0]
        about = f"{hard.cpu}, {hard.cores} cores; {datetime.now(UTC):%Y-%m-%d %H:%M}, load {load:.1f}."
        write_atomically(options.out / "deploy_forms.md", table(lines, about))
        print(*("  ".join(line) for line in lines[-6:]), sep="\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
