"""Which part of `deploy` pays where: gates early or delayed, dead pixels dropped, blocks kept, in every runtime.

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
from senet_bench.deployment import Deployed, deploy
from senet_bench.models import build_spec

PAIRS = (
    *("resnet50", "resnet50_v1_5", "mobilenet_v1", "shufflenet_v1_g3"),
    *("mobilenet_v2", "mobilenet_v3_large_nose", "efficientnet_b0_nose"),
)
"""By the baseline's name."""
LEAST_ROUNDS = 6
PARTS = ("early_gate", "delayed_gate", "thinned", "blocked")
FORMS: dict[str, tuple[str, ...]] = {
    "folded": (), "early gates": PARTS[:1], "delayed gates": PARTS[1:2], "dead pixels dropped": PARTS[2:3],
    "early gates in blocks": (PARTS[0], PARTS[3]), "all": PARTS,
}  # fmt: skip
"""The parts of `deploy` that a form has, by its name; the first is the yardstick."""
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
            made = {form: _deployed(network, engine, form) for form in FORMS}
            drawn = {form: _drawn(deployed, images) for form, deployed in made.items()}
            arms = {f: _arm(made[f], images) for f in FORMS if f == "folded" or drawn[f] != drawn["folded"]}
            run_rounds(list(arms.values()), budget_s / 2)
        folded = arms["folded"].seconds
        for form in list(arms)[1:]:
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


def _deployed(network: nn.Module, engine: DeployEngine, form: str) -> Deployed:
    deployed = deploy(network, engine, **{part: part in FORMS[form] for part in PARTS})
    assert isinstance(deployed, Deployed)
    return deployed


def _drawn(deployed: Deployed, images: torch.Tensor) -> str:
    """The graph that is run: parts that change nothing in a network are not timed."""
    return str(deployed.form(tuple(images.shape)).graph)


def _arm(deployed: Deployed, images: torch.Tensor) -> Arm:
    held = images.clone()
    return Arm(lambda: deployed(held), held)


def table(lines: Sequence[Line], about: str) -> str:
    """The lines as Markdown."""
    rows = ("| " + " | ".join(line) + " |" for line in (COLUMNS, ("---",) * len(COLUMNS), *lines))
    head = (
        "What each part of `deploy` takes of the form in which BatchNorm is only folded: medians of interleaved ratios."
        " Parts that change nothing in a network are left out."
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
        new = measured(name, int(batch), engine, options.budget)
        lines += new
        hard, load = environment().hard, os.getloadavg()[0]
        about = f"{hard.cpu}, {hard.cores} cores; {datetime.now(UTC):%Y-%m-%d %H:%M}, load {load:.1f}."
        write_atomically(options.out / "deploy_forms.md", table(lines, about))
        print(*("  ".join(line) for line in new), sep="\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
