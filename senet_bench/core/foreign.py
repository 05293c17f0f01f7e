"""The boundary around code of others: networks and blocks that a command is given by name.

Whatever such code raises becomes one error that names it and the line. It cannot end this process, print into a
document, close its streams, stay away for ever, or leave Python and torch in another state than it found them in.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from senet_bench.core.supervision import finish, say
from senet_bench.errors import (
    BenchError,
    CallTimeoutError,
    LostError,
    MeasurementError,
    device_failed,
    first_line,
    one_line,
)

CALL_TIMEOUT = "SENET_BENCH_CALL_TIMEOUT"
"""The variable that holds the seconds of `--call-timeout`; worker processes inherit it."""
CALL_TIMEOUT_S = 600.0
GRACE_S, SOON_S = 20.0, 0.02
LONGEST_NAP_S = 5.0
TOGETHER_S = 1.0
LONGEST_CALL = 200
"""Characters of a refused call that are shown."""
ENDS = {name: getattr(os, name) for name in ("_exit", "execv", "execve")}
"""What ends a process at once: the true ones, which `staying` takes away from others."""
LEAVE = os._exit
PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
NOT_OURS = "the code is not senet-bench's: mend it there, or see the whole traceback with --debug"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C at the keyboard; a `KeyboardInterrupt` that a network raises is none."""


class _Late(BaseException):
    """A call has taken longer than `--call-timeout`."""


class Interruption:
    """The answer to Ctrl-C, which the command line makes the handler of SIGINT.

    The first raises `Interrupted`. One within `TOGETHER_S` is the same: where a whole group of processes is sent it,
    the parent passes on what the child has got itself. A later one ends the process at once.
    """

    def __init__(self) -> None:
        self.first_s: float | None = None

    def __call__(self, *_: object) -> None:
        """Answer one Ctrl-C."""
        now_s = time.monotonic()
        if self.first_s is None:
            self.first_s = now_s
            raise Interrupted
        if now_s - self.first_s > TOGETHER_S:
            say("interrupted again; it ends at once")
            finish(130)
            LEAVE(130)


@contextlib.contextmanager
def contained(name: str, *, says: str = "raises", limited: bool = True, draws: bool = False) -> Iterator[None]:
    """Run the code of a network or block called `name`; any failure of it is a `MeasurementError`.

    An error of ours and Ctrl-C pass through, and so does a fault of senet-bench itself. Else as `guarded`. A boundary
    within another costs some 0.1 ms.
    """
    with guarded(name, limited=limited, draws=draws):
        try:
            yield
        except BaseException as error:
            failure = failure_of(name, error, says)
            if failure is None:
                raise
            raise failure from error


@contextlib.contextmanager
def guarded(name: str, *, limited: bool = True, draws: bool = False) -> Iterator[None]:
    """Run code of others whose errors are named further in: it cannot end the process, hang, or change its state.

    Unless `limited` is false, it is interrupted after the seconds of `--call-timeout`. Threads, default dtype, grad
    mode, deterministic flags are those from before, and so is the random state unless what is made `draws` from it.
    """
    with _state_kept(draws=draws), streams_kept(), staying():
        try:
            with _within(name, _limit() if limited else None):
                yield
        except _Late as error:
            raise _too_late(name, error) from error


def failure_of(name: str, error: BaseException, says: str = "raises") -> MeasurementError | None:
    """What an error that came out of the code called `name` means; None where it is not that code's."""
    if isinstance(error, _Late):
        return _too_late(name, error)
    if device_failed(error):
        return LostError(f"the device failed under {name} ({first_line(error)})", "see `senet-bench doctor`")
    if passes(error) or _is_ours(error):
        return None
    return MeasurementError(f"{name} {says} {one_line(error)}{place_of(error)}", NOT_OURS)


def passes(error: BaseException) -> bool:
    """Whether an error is none of the code it came out of: one of ours, or Ctrl-C at the keyboard."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, BenchError | Interrupted) or (isinstance(error, KeyboardInterrupt) and usual)


def _too_late(name: str, error: BaseException) -> CallTimeoutError:
    problem = f"{name} did not return within {_limit():g} s{place_of(error)}"
    return CallTimeoutError(problem, "give it more with --call-timeout")


def place_of(error: BaseException) -> str:
    """` in FILE, line N`: the last place outside senet-bench and installed packages, empty where there is none.

    It is empty for an error of senet-bench too.
    """
    frames = [] if _is_ours(error) else [frame for frame in _frames(error) if lies_outside(frame.filename)]
    return f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def blame(error: BaseException) -> str:
    """An error in one line, with its place where the code is a user's."""
    late = f"it did not return within the {_limit():g} s of --call-timeout"
    return f"{late if isinstance(error, _Late) else one_line(error)}{place_of(error)}"


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of a traceback but for those of this boundary."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]


def lies_outside(file: str) -> bool:
    """Whether a file is neither ours nor of an installed package: it is the user's own."""
    installed = [f"{sysconfig.get_path(key)}{os.sep}" for key in ("stdlib", "purelib", "platlib")]
    return Path(file).is_file() and not file.startswith((PACKAGE, *installed))


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised by senet-bench, or by a library that it called itself."""
    frames = _frames(error)
    return bool(frames) and frames[-1].filename.startswith(PACKAGE)


def _limit() -> float:
    return float(os.environ.get(CALL_TIMEOUT, CALL_TIMEOUT_S))


@dataclass(frozen=True, slots=True)
class _Deadline:
    """Until when a call of the code called `name` may take, of the `seconds` that it has."""

    name: str
    seconds: float
    at: float


class _Watchdog:
    """A thread that ends the process with exit code 5 where code does not let itself be interrupted."""

    def __init__(self) -> None:
        self.deadline: _Deadline | None = None
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()

    def watch(self, deadline: _Deadline | None) -> None:
        """Watch this deadline instead of the last one."""
        self.deadline = deadline
        if deadline is not None and (self._thread is None or not self._thread.is_alive()):  # none is, in a fork
            self._wanted = threading.Event()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        elif deadline is not None and not self._wanted.is_set():
            self._wanted.set()

    def _watch(self) -> None:
        while True:
            deadline = self.deadline
            if deadline is None:
                self._wanted.clear()
                if self.deadline is None:
                    self._wanted.wait()
                continue
            left = deadline.at + GRACE_S - time.monotonic()
            if left <= 0 and self.deadline is deadline:
                _give_up(deadline)
                return
            time.sleep(max(0.0, min(left, LONGEST_NAP_S)))


_WATCHDOG = _Watchdog()


@contextlib.contextmanager
def _within(name: str, seconds: float | None) -> Iterator[None]:
    """Interrupt what takes longer; code that does not let itself be interrupted ends the process with exit code 5."""
    alarm = getattr(signal, "SIGALRM", None)  # not on Windows
    if seconds is None or alarm is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = _WATCHDOG.deadline
    before = signal.signal(alarm, _raise_late)
    try:
        _WATCHDOG.watch(_Deadline(name, seconds, time.monotonic() + seconds))
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        yield
    finally:
        _WATCHDOG.watch(outer)
        left = 0.0 if outer is None else max(SOON_S, outer.at - time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, left, 1.0)
        signal.signal(alarm, before)


def _raise_late(_: int, frame: FrameType | None) -> None:
    """Answer the alarm; where a boundary is just entered or left, a little later: else what it changed would stay."""
    deadline = _WATCHDOG.deadline
    if deadline is None or time.monotonic() < deadline.at:
        return
    if frame is not None and frame.f_code.co_filename in (__file__, contextlib.__file__):
        signal.setitimer(signal.ITIMER_REAL, SOON_S, 1.0)
        return
    raise _Late


def _give_up(deadline: _Deadline) -> None:
    name, seconds = deadline.name, deadline.seconds
    say(f"{name} did not return within {seconds:g} s and cannot be interrupted; see --call-timeout")
    finish(5)
    LEAVE(5)


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Turn `os._exit` and `os.exec...` into `SystemExit`; a child of a fork ends as it likes."""
    places = _ending_places()
    before = [getattr(module, name) for module, name in places]
    stay()
    try:
        yield
    finally:
        for (module, name), true in zip(places, before):
            setattr(module, name, true)


def stay() -> None:
    """As `staying`, to the end of the process: what code of others does when Python ends changes no exit code."""
    for module, name in _ending_places():
        setattr(module, name, _refusal(name, os.getpid()))


def _ending_places() -> list[tuple[Any, str]]:
    """Where the functions that end a process lie: `os` and the module of the system that it takes them from."""
    modules = [os, *filter(None, map(sys.modules.get, ("posix", "nt")))]
    return [(module, name) for module in modules for name in ENDS if hasattr(module, name)]


def _refusal(name: str, process: int) -> Callable[..., NoReturn]:
    def refused(*arguments: Any) -> NoReturn:
        if os.getpid() != process:
            ENDS[name](*arguments)
        raise SystemExit(f"os.{name}({', '.join(map(repr, arguments))})"[:LONGEST_CALL])

    return refused


def tell_unraisable(unraisable: Any) -> None:
    """One line for an error that Python cannot raise, such as one of a network's `__del__`; a `sys.unraisablehook`."""
    _tell_ignored(unraisable.exc_value, unraisable.err_msg or f"in {unraisable.object!r}")


def tell_of_thread(ended: Any) -> None:
    """One line for an error that ended a thread of a network's; a `threading.excepthook`."""
    if not isinstance(ended.exc_value, SystemExit):
        _tell_ignored(ended.exc_value, "an error in a thread")


def _tell_ignored(error: BaseException | None, doing: str) -> None:
    text = "" if error is None else f"{one_line(error)}{place_of(error)}"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream that is gone already
        sys.stderr.write(f"senet-bench: ignored: {text or doing}\n")


class _Unclosable:
    """A stream that cannot be closed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Leave it open."""


@contextlib.contextmanager
def streams_kept() -> Iterator[None]:
    """What is printed goes to standard error, since a document may be written to standard output."""
    out, err = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = _Unclosable(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


@contextlib.contextmanager
def _state_kept(*, draws: bool) -> Iterator[None]:
    """Put back what code may change for the whole process: folder, torch's settings, and random state."""
    torch = sys.modules.get("torch")
    state, folder, collects = random.getstate(), Path.cwd(), gc.isenabled()
    restore = _torch_state(torch, draws=draws) if hasattr(torch, "set_grad_enabled") else None
    try:
        yield
    finally:
        if not draws:
            random.setstate(state)
        os.chdir(folder)
        if collects != gc.isenabled():
            (gc.enable if collects else gc.disable)()
        if restore is not None:
            restore()


def _torch_state(torch: Any, *, draws: bool) -> Callable[[], None]:
    """A function that puts torch's settings back as they are now."""
    names = dict(vars(torch))
    threads, dtype, device = torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device()
    grad, strict = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
    warn_only, precision = torch.is_deterministic_algorithms_warn_only_enabled(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    state = torch.random.get_rng_state()

    def restore() -> None:
        for name in names.keys() - vars(torch).keys():  # deleted
            setattr(torch, name, names[name])
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        modes = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        if modes != (strict, warn_only):  # it imports the compiler
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        if not draws:
            torch.random.set_rng_state(state)

    return restore
