"""Which part of `deploy` pays where: gates early or delayed, dead pixels dropped, blocks kept, in every runtime.

Run `python -m benchmarks.bench_forms [--pairs resnet50,...] [--batch 1,8] [--budget SECONDS] [--out FOLDER]`. For each
pair, batch size and runtime the forms of baseline and SE network are timed in the same rounds (CPU time, one thread);
deploy_forms.md says what each takes of the form in which BatchNorm is only folded. Of that two copies run, since where
a copy lies in memory can make it 8 % faster for as long as it lives: a form pays where it is faster than both. Rows of
other pairs, batch sizes and runtimes of this machine stay in the table.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
FOLDED, ALL, CONTROL = "folded", "all", "folded again"
COLUMNS = ("network", "batch", "runtime", "form", "of folded", "quartiles", "pays", "measured")
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
            by_graph: dict[str, str] = {}
            for form in FORMS:
                by_graph.setdefault(_drawn(made[form], images), form)
            shown = dict.fromkeys((*by_graph.values(), *[ALL] * (len(by_graph) > 1), CONTROL))
            made[CONTROL] = _deployed(network, engine, FOLDED)
            arms = {form: _arm(made[form], images) for form in shown}
            run_rounds(list(arms.values()), budget_s / 2)
        seconds = {form: arm.seconds for form, arm in arms.items()}
        about = f"{datetime.now(UTC):%Y-%m-%d %H:%M}, load {os.getloadavg()[0]:.1f}"
        lines += [(spec.label, str(batch), engine, *line, about) for line in compared(seconds)]
    return lines


def compared(seconds: Mapping[str, Sequence[float]]) -> Iterator[Line]:
    """Each form's time by the two copies of `folded` in the same rounds, and whether it pays; the second by the first.

    `seconds` are by form and round.
    """
    one, other = seconds[FOLDED], seconds[CONTROL]
    for form, taken in seconds.items():
        if form != FOLDED:
            against = (one,) if form == CONTROL else (one, other)
            ratios = [[a / b for a, b in zip(taken, folded)] for folded in against]
            low, middle, high = quartiles([statistics.mean(both) for both in zip(*ratios)])
            yield form, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", "" if form == CONTROL else paid(*ratios)


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


def paid(*ratios: Sequence[float]) -> str:
    """Whether a form takes less time than each of the copies it was held against, by the quartiles of its ratios."""
    bounds = [quartiles(one) for one in ratios]
    if all(high < 1 for _, _, high in bounds):
        return "yes"
    return "no" if all(low > 1 for low, _, _ in bounds) else "as much"


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


def table(lines: Sequence[Line], machine: str) -> str:
    """The lines as Markdown."""
    rows = ("| " + " | ".join(line) + " |" for line in (COLUMNS, ("---",) * len(COLUMNS), *lines))
    head = (
        "What each part of `deploy` takes of the form in which BatchNorm is only folded, two copies of which run beside"
        " it: medians of interleaved ratios. A part pays where it is faster than both; `folded again` is the second"
        " copy by the first. Parts that change nothing in a network, or nothing"
        " more, are left out."
    )
    return f"{head}\n\n{machine}\n\n" + "\n".join(rows) + "\n"


def stored(path: Path, machine: str) -> list[Line]:
    """The lines of a table that this machine wrote."""
    text = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = [tuple(line.strip("| ").split(" | ")) for line in text if line.startswith("| ")]
    return lines[2:] if machine in text and lines[:1] == [COLUMNS] else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default=",".join(PAIRS))
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--runtimes", default=",".join(name for name in ENGINES if name != "compile"))
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of rounds a pair, batch size and runtime")
    parser.add_argument("--out", type=Path, default=Path("results/tables"))
    options = parser.parse_args()
    path, hard = options.out / "deploy_forms.md", environment().hard
    machine = f"{hard.cpu}, {hard.cores} cores."
    lines = stored(path, machine)
    axes = (options.pairs.split(","), options.batch.split(","), options.runtimes.split(","))
    for name, batch, engine in itertools.product(*axes):
        if missing_modules(ENGINES[engine]):
            continue
        new = measured(name, int(batch), engine, options.budget)
        anew = {line[:3] for line in new}
        lines = [line for line in lines if line[:3] not in anew] + new
        write_atomically(path, table(lines, machine))
        print(*("  ".join(line) for line in new), sep="\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
