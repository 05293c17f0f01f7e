"""The boundary around code of others: what it raises, exits with, prints, hangs in or changes."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from senet_bench.bench.rounds import Plan, measure_latency
from senet_bench.core import foreign
from senet_bench.core.foreign import CALL_TIMEOUT, Interrupted, Interruption, contained, tell_of_thread, tell_unraisable
from senet_bench.core.progress import result_of
from senet_bench.errors import ArmError, CallTimeoutError, MeasurementError, UsageError
from tests.conftest import Run

NETWORK = """
import os, sys, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels=3, classes=10):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(in_channels, 8, 3), nn.Linear(8, classes)

    def forward(self, x):
        {line}
        return self.fc(self.conv(x).mean((2, 3)))
"""
ENDS = {
    "a key error": "{}['x']",
    "an assertion": "assert False",
    "an exit": "sys.exit(0)",
    "an exit at once": "os._exit(0)",
    "an exit of the system's": "sys.modules[os.name]._exit(0)",
    "another program": "os.execv('/bin/true', ['true'])",
    "an interrupt of its own": "raise KeyboardInterrupt",
    "a generator's exit": "raise GeneratorExit",
    "what is no exception": "raise BaseException('x')",
}


@pytest.fixture(autouse=True)
def handler() -> Any:
    """The handler of Ctrl-C that the command line sets."""
    before = signal.signal(signal.SIGINT, Interruption())
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The import string of a network whose forward does what the test says."""
    module = f"hers_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{module}.py").write_text(NETWORK.replace("{line}", request.param))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{module}:Net"


@pytest.mark.parametrize("network", ENDS.values(), ids=list(ENDS), indirect=True)
def test_a_network_that_fails_is_a_row_with_its_line_and_the_others_are_counted(network: str, run: Run) -> None:
    ended = run("compare", network, "resnet18", "--no-latency", "--format", "json")
    assert ended.code == 5
    rows = {row["model"]: row for row in json.loads(ended.out)["rows"]}
    assert rows["seresnet18"]["params"] == 11_778_592
    assert rows[network]["params"] is None
    assert f"{network.partition(':')[0]}.py, line 12" in rows[network]["missing"]["count"]
    assert "internal error" not in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "network", [ENDS["a key error"], ENDS["an exit at once"]], ids=["raises", "exits"], indirect=True
)
@pytest.mark.parametrize(
    "command",
    [
        "compare NET --attach -r 4 --img-size 32 --no-latency",
        "ablate -m NET --attention eca --img-size 32",
        "profile NET --attach -r 4 --img-size 32",
        "profile NET --img-size 32",
        "excitations NET --dataset digits --attach --reduction 4 --epochs 1",
    ],
)
def test_a_network_that_fails_where_it_is_looked_into_is_named_with_its_line(
    network: str, command: str, run: Run
) -> None:
    ended = run(*command.replace("NET", network).split())
    assert ended.code == 5
    assert f"{network.partition(':')[0]}.py, line 12" in ended.err
    assert "cannot trace" not in ended.err
    assert len(ended.err.splitlines()) == 1


def test_an_exit_that_no_boundary_stopped_is_never_0(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: object, **__: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("senet_bench.core.store.Store.check", leave)
    ended = run("compare", "resnet20_cifar", "--no-latency")
    assert ended.code == 5
    assert "SystemExit: 0" in ended.err


def test_an_error_that_python_cannot_raise_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    class Leaving:
        def __del__(self) -> None:
            raise SystemExit(0)

    before, sys.unraisablehook = sys.unraisablehook, tell_unraisable
    try:
        Leaving()
    finally:
        sys.unraisablehook = before
    before_thread, threading.excepthook = threading.excepthook, tell_of_thread
    try:
        for target in (lambda: dict[str, int]()["x"], lambda: sys.exit(0)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before_thread
    of_object, of_thread = capsys.readouterr().err.splitlines()
    assert of_object.startswith("senet-bench: ignored: SystemExit: 0 in ")
    assert of_thread.startswith("senet-bench: ignored: KeyError: 'x' in ")


@pytest.mark.parametrize("network", ["print('hello'); sys.stdout.close()"], ids=["printing"], indirect=True)
def test_what_a_network_prints_is_not_in_the_document(network: str, run: Run) -> None:
    ended = run("compare", network, "--no-latency", "--format", "json")
    assert ended.code == 0
    assert json.loads(ended.out)["rows"][0]["params"] == 314
    assert "hello" in ended.err


def test_a_call_that_hangs_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CALL_TIMEOUT, "0.2")

    def hang() -> None:
        with contained("a network"), contained("her:Block"):
            while True:
                time.sleep(0.01)

    with pytest.raises(CallTimeoutError, match=r"her:Block did not return within 0\.2 s in .*; give it more"):
        hang()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    with contained("her:Net", limited=False):
        time.sleep(0.3)


def test_a_call_that_catches_the_interruption_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setenv(CALL_TIMEOUT, "0.05")
    monkeypatch.setattr(foreign, "GRACE_S", 0.05)
    monkeypatch.setattr(foreign, "LEAVE", ended.append)
    monkeypatch.setattr(foreign, "_WATCHDOG", foreign._Watchdog())

    def stubborn() -> None:
        while not ended:
            try:
                time.sleep(0.01)
            except BaseException:  # noqa: BLE001
                continue

    with contained("her:Net"):
        stubborn()
    assert ended == [5]


def test_a_process_that_gives_up_ends_though_nobody_reads_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise BrokenPipeError

    ended: list[int] = []
    monkeypatch.setattr(foreign, "LEAVE", ended.append)
    monkeypatch.setattr(os, "write", refused)
    foreign._give_up(foreign._Deadline("her:Net", 1.0, 0.0))
    assert ended == [5]


def test_the_state_of_python_and_torch_is_put_back(tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        return (
            *(torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
            *(torch.are_deterministic_algorithms_enabled(), torch.get_default_device(), hasattr(torch, "randn")),
            *(torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, Path.cwd(), random.getstate()),
            *(torch.random.get_rng_state().tolist(), sys.stdout, sys.stderr, os._exit),
        )

    def change() -> None:
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        torch.set_default_device("meta")
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(99)
        random.seed(99)
        os.chdir(tmp_path)
        del torch.randn
        raise ValueError("x")

    before = state()
    with (
        pytest.raises(MeasurementError, match=r"her:Net raises ValueError: x in .*test_foreign\.py"),
        contained("her:Net"),
    ):
        change()
    assert state() == before


def test_a_package_whose_name_begins_with_ours_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"{Path(foreign.__file__).parents[1]}_nets/mine.py"
    with pytest.raises(MeasurementError, match="ValueError: x"), contained("n:N"):
        exec(compile("raise ValueError('x')", file, "exec"))
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert foreign.lies_outside(f"{sysconfig.get_path('purelib')}-of-mine/nets.py")
    assert not foreign.lies_outside(foreign.__file__)


def test_errors_of_ours_and_the_keyboard_pass_through() -> None:
    for error in (UsageError("x"), Interrupted()):
        with pytest.raises(type(error)), contained("her:Net"):
            raise error
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), contained("her:Net"):
        raise KeyboardInterrupt


def test_what_draws_its_weights_moves_the_random_state_on() -> None:
    before = torch.random.get_rng_state()
    with contained("her:Net", draws=True):
        torch.rand(3)
    assert not torch.equal(torch.random.get_rng_state(), before)


LATER = {
    "hang": (lambda: time.sleep(60), "it did not return within"),
    "exit": (lambda: os._exit(0), r"SystemExit: os\._exit\(0\)"),
    "an interrupt of its own": (lambda: _raised(KeyboardInterrupt()), "KeyboardInterrupt"),
    "what is no exception": (lambda: _raised(BaseException("x")), "BaseException: x"),
}


def _raised(error: BaseException) -> None:
    raise error


def test_an_alarm_that_comes_while_boundaries_are_left_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both deadlines pass at once, so that the outer boundary's alarm comes as soon as the inner one is left."""
    monkeypatch.setenv(CALL_TIMEOUT, "0.02")
    monkeypatch.setattr(foreign, "SOON_S", 1e-3)
    before = signal.getsignal(signal.SIGALRM), torch.get_num_threads(), sys.stdout, os._exit

    def hang() -> None:
        with contained("a network"), contained("her:Block"):
            torch.set_num_threads(3)
            while True:
                pass

    for _ in range(20):
        with pytest.raises(CallTimeoutError, match="did not return within"):
            hang()
        assert (signal.getsignal(signal.SIGALRM), torch.get_num_threads(), sys.stdout, os._exit) == before
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("later", LATER.values(), ids=list(LATER))
def test_a_timed_call_that_fails_later_names_its_arm(later: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CALL_TIMEOUT, "0.3")
    calls: list[int] = []

    def hers() -> float:
        calls.append(1)
        if len(calls) == 9:
            later[0]()
        return sum(range(300)) * 1.0

    arms = {"base": lambda: lambda: sum(range(300)) * 1.0, "hers": lambda: hers}
    with pytest.raises(ArmError, match=rf"a call failed: {later[1]}.* in .*test_foreign\.py") as caught:
        result_of(measure_latency(arms, "base", plan=Plan(budget_s=0.2)))
    assert caught.value.arm == "hers"


def test_what_a_timed_call_prints_and_changes_is_neither_in_the_document_nor_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def hers() -> float:
        sys.stdout.write("hello")
        torch.set_default_dtype(torch.float64)
        return sum(range(300)) * 1.0

    arms = {"base": lambda: lambda: sum(range(300)) * 1.0, "hers": lambda: hers}
    result_of(measure_latency(arms, "base", plan=Plan(budget_s=0.1)))
    printed = capsys.readouterr()
    assert "hello" in printed.err
    assert "hello" not in printed.out
    assert torch.get_default_dtype() is torch.float32


AT_THE_SIXTH = "Net.calls = getattr(Net, 'calls', 0) + 1; Net.calls == 6 and os._exit(0)"


@pytest.mark.parametrize("network", [AT_THE_SIXTH], ids=["at the sixth call"], indirect=True)
def test_a_network_that_ends_the_process_in_training_is_one_line_with_its_place(network: str, run: Run) -> None:
    ended = run("train", network, "--dataset", "digits", "--epochs", "1")
    assert ended.code == 5
    assert "Net raises SystemExit: os._exit(0) in" in ended.err
    assert "line 12" in ended.err


def test_ctrl_c_that_comes_twice_at_once_is_one_and_a_later_one_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(foreign, "LEAVE", ended.append)
    answer = Interruption()
    with pytest.raises(Interrupted):
        answer()
    answer()  # passed on by the parent of a command that is supervised
    assert (ended, capfd.readouterr().err) == ([], "")
    monkeypatch.setattr(foreign, "TOGETHER_S", 0.0)
    answer()
    assert ended == [130]
    assert capfd.readouterr().err == "senet-bench: interrupted again; it ends at once\n"
