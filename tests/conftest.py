"""Fixtures every test file may use."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from senet_bench.cli import main


def pytest_collection() -> None:
    """Nothing is searched for garbage while all tests are imported."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What that has made stays, and is never searched for garbage: it took a tenth of the time of tests that time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: small networks run faster on it than on cores shared with others."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command of `senet-bench` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments: str) -> Ended:
        try:
            main(arguments)
        except SystemExit as end:
            captured = capsys.readouterr()
            return Ended(int(end.code or 0), captured.out, captured.err)
        raise AssertionError("a command ends by SystemExit")

    return call
