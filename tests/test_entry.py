"""The process itself: how it ends on Ctrl-C while it starts, where it prints, and whom it blames."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run

ROOT = Path(__file__).parents[1]
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
class Interrupting:
    def find_spec(self, name, *_):
        if name == "senet_bench.cli":
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass  # the handler runs between two of these
sys.meta_path.insert(0, Interrupting())
from senet_bench.__main__ import main
main()
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


def test_ctrl_c_during_the_imports_ends_in_one_line() -> None:
    ended = python("-c", INTERRUPTED)
    assert ended.returncode == 130
    assert ended.stderr == "senet-bench: interrupted; nothing was begun\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_a_character_prints_another(encoding: str) -> None:
    code = "import sys; from senet_bench.cli import _open_streams; _open_streams(); print('\\u0394 \\u2192')"
    assert python("-c", code, PYTHONIOENCODING=encoding).stdout == "? ?\n"


def test_a_command_runs_on_a_terminal_of_ascii(tmp_path: Path) -> None:
    command = ("-m", "senet_bench", "compare", "resnet18", "--no-latency", "--results", str(tmp_path))
    ended = python(*command, PYTHONIOENCODING="ascii")
    assert ended.returncode == 0, ended.stderr


def test_a_closed_stdout_is_no_error() -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -m senet_bench models >&-'],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("error", ["KeyError('k')", "GeneratorExit('g')", "BaseException('b')"])
def test_an_error_of_the_users_code_names_its_place(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    (tmp_path / "faulty.py").write_text(f"def names(*_):\n    raise {error}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import faulty  # type: ignore[import-not-found]

    monkeypatch.setattr("senet_bench.cli.showing.emit", faulty.names)
    ended = run("models")
    sys.modules.pop("faulty")
    assert ended.code == 5
    assert "faulty.py, line 2" in ended.err
    assert "internal error" not in ended.err
    assert len(ended.err.splitlines()) == 1


def test_an_error_of_our_own_is_said_to_be_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("senet_bench.cli.showing.emit", None)
    ended = run("models")
    assert ended.code == 5
    assert "internal error: TypeError" in ended.err


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    ended = subprocess.run(
        ["/bin/bash", "-c", f'set -o pipefail; "{sys.executable}" -m senet_bench models | true'],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
