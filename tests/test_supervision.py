"""A command that loads code of others: only what it finished with itself is its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from senet_bench.core.supervision import loads_code_of_others

ROOT = Path(__file__).parents[1]
SUPERVISED = """
import ctypes, os, signal, sys
from senet_bench.core.supervision import finish, supervise
supervise(["check"])
"""
NETWORK = """
import ctypes
from torch import nn
class Net(nn.Module):
    def forward(self, x):
        ctypes.CDLL(None)._exit(0)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="commands are supervised on Linux alone")


def python(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@linux
@pytest.mark.parametrize(
    ("ending", "code", "says"),
    [
        ("print('table'); finish(0)", 0, ""),
        ("finish(1); sys.exit(1)", 1, ""),
        ("finish(1); ctypes.CDLL(None)._exit(0)", 1, ""),
        ("finish(0); os.abort()", 0, ""),
        ("finish(0); os._exit(120)", 120, ""),
        ("os._exit(0)", 5, "exit status 0"),
        ("ctypes.CDLL(None).exit(0)", 5, "exit status 0"),
        ("os.execv('/bin/true', ['true'])", 5, "exit status 0"),
        ("os._exit(1)", 5, "exit status 1"),
        ("os.closerange(3, 100); finish(0)", 5, "exit status 0"),
        ("os.abort()", 5, "SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 5, "memory"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        ("os.kill(os.getppid(), signal.SIGTERM); signal.pause()", -signal.SIGTERM, ""),
    ],
)
def test_the_exit_code_is_what_the_command_finished_with_and_else_never_0(ending: str, code: int, says: str) -> None:
    ended = python("-c", SUPERVISED + ending)
    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == bool(says)
    assert ended.stdout == ("table\n" if "table" in ending else "")


@linux
def test_a_command_that_ends_before_it_is_waited_for_is_waited_for() -> None:
    slow = """
import os
fork = os.fork
def fork_slowly():
    child = fork()
    if child:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    return child
os.fork = fork_slowly
"""
    assert python("-c", slow + SUPERVISED + "finish(3)").returncode == 3


@linux
def test_the_command_dies_with_the_process_that_waits_for_it() -> None:
    code = SUPERVISED + "print(os.getpid(), flush=True); os.kill(os.getppid(), signal.SIGKILL); signal.pause()"
    ended = python("-c", code)  # which returns once nobody holds its streams
    assert ended.returncode == -signal.SIGKILL
    assert int(ended.stdout) > 0


@linux
def test_a_network_that_leaves_by_c_is_no_finished_judgement(tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text(NETWORK)
    command = ("-m", "senet_bench", "compare", "leaving:Net", "--no-latency", "--img-size", "8", "-q")
    ended = python(*command, folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (5, "")
    assert "code that it ran ended the command by exit status 0" in ended.stderr


def test_commands_that_load_code_of_others_are_known_before_anything_is_imported() -> None:
    for line in ("check", "baseline accept --all", "compare my.nets:Net", "ablate -m x --attention=se,blk:Gate"):
        assert loads_code_of_others(line.split())
    for line in ("compare seresnet50", "models", "report --results 12:30", "compare mobilenet_v1 --budget-latency +5"):
        assert not loads_code_of_others(line.split())
