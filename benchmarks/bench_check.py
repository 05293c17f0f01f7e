"""How `senet-bench check` judges: false alarms on identical code, found slowdowns, seconds of a gate of six networks.

Run `python benchmarks/bench_check.py [null] [slower] [gate] [--runs N]`. Every check is the command itself, in a git
repository made for it; base and head run in two worker processes each, five launches, five more where these leave a
network open.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

PER_RUN = 20
DEPTH = 20
SMALL = '''
from torch import nn

class Small(nn.Module):
    """Equal convolutions, so that one more costs 1 / {depth} more time."""

    def __init__(self, depth, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*[nn.Conv2d(width, width, 3, padding=1) for _ in range(depth)])
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))
'''
GATE = ("resnet18", "seresnet18", "resnet50", "seresnet50", "mobilenet_v1", "semobilenet_v1")


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def repository(folder: Path, depth: int, metrics: str = '"latency"') -> Path:
    """A user's repository with `PER_RUN` networks of `depth` convolutions, committed."""
    networks = "".join(f'  {{ name = "nets:net{place}", input_size = [3, 16, 16] }},\n' for place in range(PER_RUN))
    (folder / "senet-bench.toml").write_text(f"networks = [\n{networks}]\nmetrics = [{metrics}]\n")
    write(folder, [depth] * PER_RUN)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    return folder


def write(folder: Path, depths: list[int]) -> None:
    nets = "".join(f"def net{i}(): return Small({depth}, {16 + i})\n" for i, depth in enumerate(depths))
    (folder / "nets.py").write_text(SMALL.format(depth=DEPTH) + nets)


def checked(folder: Path, *arguments: str) -> tuple[dict[str, Any], int, float]:
    """The report of a check, its exit code and seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "senet_bench", "check", "--format", "json", "-q", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"exit {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout), done.returncode, time.perf_counter() - started


def told(name: str, runs: list[tuple[dict[str, Any], int, float]]) -> None:
    rows = [row for report, _, _ in runs for row in report["rows"] if row["metric"] == "latency"]
    verdicts, codes = Counter(row["verdict"] for row in rows), Counter(code for _, code, _ in runs)
    loads = [report["health"]["load_1min"] for report, _, _ in runs]
    seconds = ", ".join(f"{one:.0f}" for _, _, one in runs)
    print(  # noqa: T201
        f"{name}: {len(rows)} pairs, {dict(verdicts)}; exit codes {dict(codes)}; {seconds} s;"
        f" load {min(loads):.1f} to {max(loads):.1f}",
        flush=True,
    )


def null(runs: int) -> None:
    """Pairs of identical code."""
    done = []
    for seed in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            done.append(
                checked(repository(Path(folder), DEPTH), "--base", "HEAD", "--seed", str(seed), "--budget", "0.6")
            )
        told("identical code", done)


def slower(runs: int) -> None:
    """Every second network does one convolution in twenty more: +5 %, gate +2 %."""
    done = []
    for seed in range(runs):
        with tempfile.TemporaryDirectory() as name:
            folder = repository(Path(name), DEPTH)
            write(folder, [DEPTH + place % 2 for place in range(PER_RUN)])
            report, code, seconds = checked(folder, "--base", "HEAD", "--seed", str(seed))
        for odd, label in ((0, "unchanged beside them"), (1, "+5 %")):
            rows = [row for row in report["rows"] if int(row["network"].removeprefix("nets:net")) % 2 == odd]
            told(label, [({**report, "rows": rows}, code, seconds)])
        done.append(seconds)


def gate(runs: int) -> None:
    """Six networks: counts, memory and three SE/baseline ratios in one process; base and head in two."""
    ratios = "".join(
        f'[[ratio]]\nnetwork = "{name}"\nmetric = "latency"\nmax = "+25 %"\n' for name in GATE if name.startswith("se")
    )
    names = ", ".join(f'"{name}"' for name in GATE)
    exact = '"params", "flops", "outputs", "state_dict", "operators"'
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "senet-bench.toml"
        config.write_text(f"networks = [{names}]\nmetrics = [{exact}]\n{ratios}")
        subprocess.run([sys.executable, "-m", "senet_bench", "baseline", "record", "-q"], cwd=folder, check=True)
        for _ in range(runs):
            report, code, seconds = checked(folder)
            print(f"one process: {len(report['rows'])} rows, exit {code}, {seconds:.0f} s", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrappers = "".join(f"def {one}(): return build('{one}')\n" for one in GATE)
        (folder / "nets.py").write_text(f"from senet_bench.models import build\n{wrappers}")
        own = ", ".join(f'{{ name = "nets:{one}", input_size = [3, 224, 224] }}' for one in GATE)
        (folder / "senet-bench.toml").write_text(f'networks = [{own}]\nmetrics = [{exact}, "memory", "latency"]\n')
        git(folder, "init", "-q")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "base")
        for _ in range(runs):
            told("base and head, 5 launches", [checked(folder, "--base", "HEAD")])


if __name__ == "__main__":
    words = sys.argv[1:]
    count = int(words.pop(words.index("--runs") + 1)) if "--runs" in words else 1
    for part in [word for word in words if word != "--runs"] or ["null", "slower", "gate"]:
        {"null": null, "slower": slower, "gate": gate}[part](count)
