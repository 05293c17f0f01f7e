"""The command that tries everything on a GPU: here on the processor and on steps made for it."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from senet_bench.cli import app as application
from senet_bench.cli import gpu_acceptance
from senet_bench.cli.gpu_acceptance import Step, Tried, main, steps_for, try_all


def python(name: str, code: str, limit_s: float = 60.0) -> Step:
    return Step(name, ("-c", code), limit_s)


def test_a_step_that_fails_hangs_or_dies_takes_no_other_with_it() -> None:
    steps = (
        python("fails", "import sys; print('half'); sys.exit('no such device')"),
        python("dies", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        python("hangs", "import time; print('begun', flush=True); time.sleep(600)", limit_s=2.0),
        python("holds", "print('12 of 12')"),
    )
    kept: list[list[Tried]] = []
    ends = list(try_all(steps, 60.0, lambda tried: kept.append(list(tried))))
    assert [end.outcome for end in ends] == ["failed", "failed", "too long", "held"]
    assert [len(tried) for tried in kept] == [1, 2, 3, 4]  # what was seen is written at once
    assert ends[0].said.splitlines()[-1] == "no such device"
    assert ends[1].exit_code == -9
    assert ends[2].said.strip() == "begun"
    assert ends[3].exit_code == 0


def test_steps_after_the_time_is_used_up_are_named() -> None:
    ends = list(try_all((python("one", "pass"), python("two", "pass")), 0.5, lambda _: None))
    assert [end.outcome for end in ends] == ["no time", "no time"]


def test_without_tests_that_step_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (end,) = try_all((Step("tests", ("-m", "pytest", "tests")),), 60.0, lambda _: None)
    assert end.outcome == "no tests"
    (end,) = try_all((Step("timers", ("-m", "benchmarks.bench_timers")),), 60.0, lambda _: None)
    assert end.outcome == "no tests"


def test_every_step_is_a_command_that_parses(tmp_path: Path) -> None:
    group: Any = typer.main.get_command(application)
    for step in steps_for("cuda", tmp_path):
        if step.arguments[1] == "senet_bench":
            name, *rest = step.arguments[2:]
            group.commands[name].make_context(name, rest)


def test_one_file_holds_all_that_was_said_and_the_table_ends_with_how_much_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def steps(device: str, results: Path) -> tuple[Step, ...]:
        return (python("good", "print('fine')"), python("bad", f"import sys; sys.exit('{device} is broken')"))

    monkeypatch.setattr(gpu_acceptance, "steps_for", steps)
    assert main(["--device", "cpu", "-o", str(tmp_path / "out.json")]) == 5
    document = json.loads((tmp_path / "out.json").read_text())
    assert [step["outcome"] for step in document["steps"]] == ["held", "failed"]
    assert document["environment"]["packages"]["torch"]
    assert capsys.readouterr().out.splitlines()[1:] == [
        line_of("failed", document["steps"][1]["seconds"], "bad: cpu is broken"),
        f"1 of 2 held; all that was said: {tmp_path / 'out.json'}",
    ]


def line_of(outcome: str, seconds: float, text: str) -> str:
    return f"{outcome:9} {seconds:6.1f} s  {text}"


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "abacus", "-o", str(tmp_path / "out.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("senet-bench: device 'abacus' is unknown")
    assert error.count("\n") == 1
