"""How long `report` takes over a large results folder, and how much memory: 10,200 stored rows of 300 runs.

`python -m benchmarks.bench_report [FOLDER]` writes the folder where it is not there yet and prints seconds of CPU (the
best of three), the peak of memory and the size of the page. Python keeps the bytecode of what it imports, as it does
for users, whatever PYTHONDONTWRITEBYTECODE says here: without it each report compiles some 700 modules anew.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from senet_bench.core import comparisons
from senet_bench.core.results import Run, RunConditions
from senet_bench.core.specs import AttentionSpec, AxisValue, Conditions
from tests.support import stored

RUNS, ROWS, TURNS = 300, 34, 3
Axes = dict[str, AxisValue] | None
BLOCKS = ("se", "eca", "cbam", "gct", *(f"my_blocks:Block{number}" for number in range(200)))
MODELS = ("resnet20_cifar", "resnet110_cifar", "resnet164_cifar", "wrn16_8_cifar", "resnet18")


def folder(root: Path) -> None:
    """Store 300 runs of 34 rows: comparisons and ablations, their errors by 24 protocols, times of two machines."""
    dice = random.Random(7)
    for number in range(RUNS):
        command, machine = ("compare", "ablate")[number % 2], dice.choice(["aaaaaaaaaaaa", "bbbbbbbbbbbb"])
        created = f"2026-11-20T{number // 60:02}:{number % 60:02}:00Z"
        about = stored.made(command, machine) | {"created": created}
        stored.store(root, _run(dice, about, command), f"{re.sub('[-:]', '', created)}-{command}-{number:03}")


def _run(dice: random.Random, about: dict[str, Any], command: str) -> Run:
    seeds, dataset = dice.randint(1, 5), dice.choice(["digits", "cifar10", "cifar100"])
    protocol = replace(stored.PROTOCOL, dataset=dataset, recipe=dataset, epochs=dice.choice([3, 20, 60, 200]))
    timing = Conditions(batch_size=dice.choice([1, 8, 32]), runtime=dice.choice(["eager", "deploy"]))
    model, first = dice.choice(MODELS), dice.randint(0, 9)
    gates = [AttentionSpec(block=name) for name in dice.sample(BLOCKS, ROWS - 2)]
    specs = [None, *gates, AttentionSpec(block="constant")]
    rows = []
    for spec in specs:
        row = stored.row(f"{model} + {spec.block}" if spec else model, spec, 0.1)
        accuracy = comparisons.of_seeds({first + seed: 0.1 + dice.gauss(0, 0.01) for seed in range(seeds)}, protocol)
        latency = stored.latency(1 + dice.random() / 10 if spec else None)
        counts = {"macs": 2_500_000 + dice.randint(0, 90_000), "bn-inclusive": 2_600_000}
        axes: Axes = {"attention": spec.block} if spec and command == "ablate" else None
        row = replace(row, params=270_000 + dice.randint(0, 90_000), flops=counts, accuracy=accuracy, axes=axes)
        row = replace(row, model=f"se{model}" if spec else model, baseline=model if spec else None)
        rows.append(replace(row, latency=replace(latency, conditions=timing)))
    varied = {"attention": "some"} if command == "ablate" else None
    asked = RunConditions(model=model, what=[model], axes=varied, accuracy=protocol)
    return Run(**about | {"conditions": asked}, rows=comparisons.compared(rows))


def _report(root: Path) -> tuple[float, int]:
    """Seconds of CPU and kibibytes of memory of one `report`."""
    command = [sys.executable, "-m", "senet_bench", "report", "-q", "--results", str(root)]
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, env=surroundings)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"report ended with status {status}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def main() -> None:
    """Write the folder, time three reports of it and print what they took."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        if not (root / "runs").exists():
            folder(root)
        times = [_report(root) for _ in range(TURNS)]
        size = (root / "index.html").stat().st_size
    peak = max(memory for _, memory in times) / 1024
    seconds = min(seconds for seconds, _ in times)
    print(f"{RUNS * ROWS} rows of {RUNS} runs: {seconds:.2f} s of CPU, {peak:.0f} MiB, a page of {size / 1e6:.1f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
