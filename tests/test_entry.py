"""The process itself: how it ends on Ctrl-C while it starts, where it prints, and whom it blames."""

from __future__ import annotations

import os
import select
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
        if name == "{begun}":
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass  # the handler runs between two of these
sys.meta_path.insert(0, Interrupting())
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


@pytest.mark.parametrize("begun", ["senet_bench.cli", "senet_bench.__main__"])
def test_ctrl_c_during_the_imports_ends_in_one_line(tmp_path: Path, begun: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED.format(begun=begun))
    ended = python("-m", "senet_bench", "models", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert ended.returncode == 130
    assert ended.stderr == "senet-bench: interrupted; nothing was begun\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="typed at a terminal of Linux")
def test_what_is_typed_at_a_terminal_reaches_a_command_that_loads_code_of_others(tmp_path: Path) -> None:
    """Ctrl-C ends it in one line while it imports, and so it does after Ctrl-Z and `fg`."""
    (tmp_path / "waiting.py").write_text("import time\nprint('LOADED', flush=True)\ntime.sleep(100)\n")
    command = f"{sys.executable} -m senet_bench compare waiting:Net --alone --no-latency -q"
    for stopped in (False, True):
        terminal = Terminal(tmp_path)
        terminal.types("", "READY ")
        terminal.types(f"{command}\n", "LOADED\r\n")
        if stopped:
            assert "Stopped" in terminal.types("\x1a", "READY ")
            terminal.types("fg\n", "--alone")
        assert "senet-bench: interrupted" in terminal.types("\x03", "READY ")
        assert "code=130 " in terminal.types("echo code=$? 'e'nd\n", " end\r\n")
        assert "Traceback" not in terminal.shown
        terminal.leave()


class Terminal:
    """A shell with job control at a terminal of its own; `shown` is all that it showed."""

    def __init__(self, folder: Path) -> None:
        import pty

        self.process, self.end = pty.fork()
        if not self.process:
            os.chdir(folder)
            os.environ |= {"PYTHONPATH": str(ROOT), "PS1": "READY ", "TERM": "dumb", "PYTHONWARNINGS": "ignore"}
            os.execvp("bash", ["bash", "--norc", "-i"])
        self.shown, self.read = "", 0

    def types(self, keys: str, answer: str) -> str:
        """Type keys; what the terminal shows up to an answer."""
        os.write(self.end, keys.encode())
        while answer not in self.shown[self.read :]:
            assert select.select([self.end], [], [], 120)[0], f"{answer!r} never came: {self.shown!r}"
            self.shown += os.read(self.end, 1024).decode(errors="replace")
        start, self.read = self.read, self.shown.index(answer, self.read) + len(answer)
        return self.shown[start : self.read]

    def leave(self) -> None:
        """Hang up."""
        os.close(self.end)
        os.waitpid(self.process, 0)


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


def unread(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with arguments, whose standard error nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=write,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            check=False,
        )
    finally:
        os.close(write)


def test_a_reader_of_remarks_who_leaves_takes_neither_the_result_nor_the_exit_code_away(tmp_path: Path) -> None:
    command = ("-m", "senet_bench", "compare", "resnet20_cifar", "--no-latency", "--results", str(tmp_path))
    ended = unread(*command)
    assert (ended.returncode, "SE-ResNet-20" in ended.stdout) == (0, True)
    assert unread("-m", "senet_bench", "models", "transformers").returncode == 2
    lines = "from senet_bench.cli import main\nfrom senet_bench.show import terminal\nterminal.BETWEEN_LINES_S = 0\n"
    told = unread("-c", f"{lines}main({list(command[2:])!r})", CI="true")
    assert (told.returncode, told.stdout) == (0, ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has a second process")
def test_the_exit_code_of_a_crash_or_of_ctrl_c_is_told_where_nobody_reads_the_reason(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "sitecustomize.py").write_text(INTERRUPTED.format(begun="senet_bench.cli"))
    typed = ("compare", "crashing:Net", "--alone", "--no-latency", "--results", str(tmp_path))
    assert unread("-m", "senet_bench", *typed, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}").returncode == 5
    begun = unread("-m", "senet_bench", "models", PYTHONPATH=f"{tmp_path / 'begun'}{os.pathsep}{ROOT}")
    assert begun.returncode == 130


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_takes_remarks_alone(tmp_path: Path) -> None:
    compare = f'"{sys.executable}" -m senet_bench compare resnet20_cifar --no-latency --results "{tmp_path}"'
    ended = subprocess.run(
        ["/bin/sh", "-c", f"{compare} 2>/dev/full"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (ended.returncode, "SE-ResNet-20" in ended.stdout) == (0, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_exit_code_stays_what_it_is_where_nothing_can_be_said() -> None:
    command = f'"{sys.executable}" -W ignore -m senet_bench models transformers 2>/dev/full'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(["/bin/sh", "-c", command], env=environment, check=False).returncode == 2


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
