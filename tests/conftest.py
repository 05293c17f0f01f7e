"""Fixtures every test file may use."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from senet_bench.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command of `senet-bench` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> Ended:
        try:
            main(arguments)
        except SystemExit as end:
            captured = capsys.readouterr()
            return Ended(int(end.code or 0), captured.out, captured.err)
        raise AssertionError("a command ends by SystemExit")

    return call
