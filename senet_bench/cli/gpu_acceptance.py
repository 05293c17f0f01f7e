"""Everything that runs on a GPU, tried by one command: `python -m senet_bench.cli.gpu_acceptance`, `nox -s gpu`.

A list of commands of this package, each in a process of its own with a limit; one that fails, hangs or dies takes no
other with it. What happened is one JSON file, written anew after every step, and a table at the end. It needs torch and
this package; the tests that are marked `cuda` run where pytest and the tests are at hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from senet_bench.core.files import check_writable, write_atomically
from senet_bench.errors import BenchError
from senet_bench.show import terminal

LIMIT_S = 600.0
"""Seconds for everything."""
KEPT = 4000
"""Characters of what a step printed last that are kept."""
NOT_TRIED = {
    "no time": "the time was used up",
    "no tests": "pytest, or the folder of tests or benchmarks, is not here",
}
ACCEPTANCE_SCHEMA = "senet-bench.gpu-acceptance/1"
StepOutcome = Literal["held", "failed", "too long", "no time", "no tests"]


@dataclass(frozen=True, slots=True)
class Step:
    """A command line of Python, what it shows, and the seconds that it may take."""

    name: str
    arguments: tuple[str, ...]
    limit_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Tried:
    """How a step ended: its exit code (None where it did not run, or was ended), seconds, and what it printed last."""

    name: str
    outcome: StepOutcome
    command: str
    exit_code: int | None = None
    seconds: float = 0.0
    said: str = ""


def steps_for(device: str, results: Path) -> tuple[Step, ...]:
    """The steps on a device, the quickest and most telling first."""
    on = ("--device", device)

    def command(name: str, *arguments: str, kept: bool = True, limit_s: float = 120.0) -> Step:
        stored = ("--results", str(results), "-q") if kept else ()
        return Step(name, ("-m", "senet_bench", *arguments, *on, *stored), limit_s)

    timed = ("--budget", "2", "--runtime", "eager,cudagraph,deploy")
    return (
        command("every branch of measuring", "doctor", kept=False),
        Step("tests marked cuda", ("-m", "pytest", "-q", "-m", "cuda", "tests"), 150.0),
        command("SE-ResNet-50, all runtimes", "compare", "seresnet50", "--budget", "3", "-b", "1,32",
                "--runtime", "eager,cudagraph,compile,deploy", limit_s=180.0),
        command("SE-ResNet-50 in bf16", "compare", "seresnet50", "--precision", "bf16", "-b", "1,32", *timed),
        command("self-test of timing", "selftest", "--null", "12", "--slower", "6", "--visible", "6", "--peers", "2",
                limit_s=200.0),
        command("profile of SE-ResNet-50", "profile", "seresnet50"),
        command("a training step", "compare", "seresnet50", "--mode", "train", "-b", "32", "--precision", "bf16",
                "--budget", "3"),
        command("energy of SE-ResNet-50", "compare", "seresnet50", "-b", "32", "--budget", "3", "--energy",
                "--runtime", "eager"),
        command("training one epoch", "train", "seresnet20_cifar", "--dataset", "digits", "--epochs", "1"),
        command("a sweep of one epoch", "ablate", "-m", "seresnet20_cifar", "--reduction", "8,16", "--dataset",
                "digits", "--epochs", "1", "--seeds", "2"),
        Step("three ways of timing SE-ResNet-50", ("-m", "benchmarks.bench_timers", *on, "--batch", "32", "--runs", "6",
             "--seconds", "1.5", "--out", str(results / "tables"))),
        command("Tables 2 and 3, batch 1", "compare", "table2", "table3", "-b", "1", *timed, limit_s=240.0),
        command("Tables 2 and 3, batch 32, bf16", "compare", "table2", "table3", "-b", "32", "--precision", "bf16",
                *timed, limit_s=240.0),
    )  # fmt: skip


def try_all(steps: Sequence[Step], limit_s: float, keep: Callable[[Sequence[Tried]], None]) -> Iterator[Tried]:
    """Each step's end, in order; `keep` is handed all so far after each. Nothing that a step does is raised."""
    tried: list[Tried] = []
    until = time.monotonic() + limit_s
    for step in steps:
        tried.append(_tried(step, until - time.monotonic()))
        keep(tried)
        yield tried[-1]


def _tried(step: Step, left_s: float) -> Tried:
    command = " ".join(("python", *step.arguments))
    if left_s <= 1:
        return Tried(step.name, "no time", command)
    if not _is_here(step.arguments[1]):
        return Tried(step.name, "no tests", command)
    began = time.monotonic()
    try:
        done = subprocess.run(  # noqa: S603 - our own steps
            [sys.executable, *step.arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=min(step.limit_s, left_s),
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        text = (late.stdout or b"").decode(errors="replace")  # bytes, also where text was asked for
        return Tried(step.name, "too long", command, None, time.monotonic() - began, text[-KEPT:])
    outcome: StepOutcome = "held" if done.returncode == 0 else "failed"
    said_last = f"{done.stdout}\n{done.stderr}".strip()[-KEPT:]
    return Tried(step.name, outcome, command, done.returncode, time.monotonic() - began, said_last)


def _is_here(module: str) -> bool:
    """Whether a step's module can be run: this package's always, tests and benchmarks where their folders are."""
    from importlib.util import find_spec

    if module == "pytest":
        return find_spec("pytest") is not None and Path("tests").is_dir()
    return not module.startswith("benchmarks.") or Path("benchmarks").is_dir()


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all steps; 0 when every one held, 5 when one did not, 2 for a command line that cannot be."""
    parser = argparse.ArgumentParser("senet_bench.cli.gpu_acceptance", description="Try everything on a GPU.")
    parser.add_argument("--device", default="cuda", help="cuda, or cuda:1")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs are stored")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu-acceptance.json"), help="the file to send back")
    parser.add_argument("--seconds", type=float, default=LIMIT_S, help="for everything")
    typed = parser.parse_args(arguments)
    try:
        return _run(typed.device, typed.results, typed.output, typed.seconds)
    except BenchError as error:
        terminal.remark(f"senet-bench: {error}")
        return error.exit_code


def _run(device: str, results: Path, output: Path, seconds: float) -> int:
    from senet_bench.bench.device import present
    from senet_bench.bench.machine import environment

    present(device)
    check_writable(output)
    facts = {"schema": ACCEPTANCE_SCHEMA, "device": device, "environment": asdict(environment())}

    def keep(tried: Sequence[Tried]) -> None:
        write_atomically(output, json.dumps({**facts, "steps": [asdict(one) for one in tried]}, indent=1) + "\n")

    ends = []
    for end in try_all(steps_for(device, results), seconds, keep):
        ends.append(end)
        why = NOT_TRIED.get(end.outcome) or ("" if end.outcome == "held" else (end.said.splitlines() or [""])[-1])
        terminal.print_text(f"{end.outcome:9} {end.seconds:6.1f} s  {end.name}{': ' if why else ''}{why}\n")
    held = sum(end.outcome == "held" for end in ends)
    terminal.print_text(f"{held} of {len(ends)} held; all that was said: {output}\n")
    return 0 if held == len(ends) else 5


if __name__ == "__main__":
    sys.exit(main())
