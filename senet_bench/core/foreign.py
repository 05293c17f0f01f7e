"""The boundary around code of others: networks and blocks that a command is given by name.

Whatever such code raises becomes one error that names it and the line. It cannot end this process, print into a
document, close its streams, stay away for ever, or leave Python and torch in another state than it found them in.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from senet_bench.errors import BenchError, CallTimeoutError, MeasurementError, one_line

CALL_TIMEOUT = "SENET_BENCH_CALL_TIMEOUT"
"""The variable that holds the seconds of `--call-timeout`; worker processes inherit it."""
CALL_TIMEOUT_S = 600.0
GRACE_S = 20.0
PACKAGE = str(Path(__file__).parents[1])
NOT_OURS = "the code is not senet-bench's: mend it there, or see the whole traceback with --debug"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C at the keyboard; a `KeyboardInterrupt` that a network raises is none."""


class _Late(BaseException):
    """A call has taken longer than `--call-timeout`."""


def interrupt(*_: object) -> NoReturn:
    """Answer Ctrl-C; the command line makes this the handler of SIGINT."""
    raise Interrupted


@contextlib.contextmanager
def contained(name: str, *, limited: bool = True, draws: bool = False) -> Iterator[None]:
    """Run the code of a network or block called `name`; any failure of it is a `MeasurementError`.

    An error of ours and Ctrl-C pass through, and so does a fault of senet-bench itself. Unless `limited` is false, the
    code is interrupted after the seconds of `--call-timeout`. Threads, default dtype, grad mode, deterministic flags
    are those from before, and so is the random state unless what is made `draws` its weights.
    """
    with _within(name, _limit() if limited else None), _state_kept(draws=draws), _streams_kept(), staying():
        try:
            yield
        except (BenchError, Interrupted):
            raise
        except _Late as error:
            raise CallTimeoutError(
                f"{name} did not return within {_limit():g} s{place_of(error)}", "give it more with --call-timeout"
            ) from error
        except BaseException as error:
            usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            at_keyboard = isinstance(error, KeyboardInterrupt) and usual
            if at_keyboard or _is_ours(error):
                raise
            raise MeasurementError(f"{name} raises {one_line(error)}{place_of(error)}", NOT_OURS) from error


def place_of(error: BaseException) -> str:
    """` in FILE, line N`: the last place outside senet-bench and installed packages, empty where there is none."""
    frames = [frame for frame in _after_ours(error) if _is_hers(frame.filename)]
    return f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def blame(error: BaseException) -> str:
    """An error in one line, with its place where the code is a user's."""
    return f"{one_line(error)}{place_of(error)}"


def _after_ours(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of a traceback below the last one of senet-bench, but for those of this boundary."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    ours = [place for place, frame in enumerate(frames) if frame.filename.startswith(PACKAGE)]
    return frames[ours[-1] + 1 :] if ours else frames


def _is_hers(file: str) -> bool:
    installed = [sysconfig.get_path(key) for key in ("stdlib", "purelib", "platlib")]
    return Path(file).is_file() and not file.startswith((PACKAGE, *installed))


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised by senet-bench, or by a library that it called itself."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return bool(frames) and frames[-1].filename.startswith(PACKAGE)


def _limit() -> float:
    return float(os.environ.get(CALL_TIMEOUT, CALL_TIMEOUT_S))


@contextlib.contextmanager
def _within(name: str, seconds: float | None) -> Iterator[None]:
    """Interrupt what takes longer; code that does not let itself be interrupted ends the process with exit code 5."""
    alarm = getattr(signal, "SIGALRM", None)  # not on Windows
    if (
        seconds is None
        or alarm is None
        or threading.current_thread() is not threading.main_thread()
        or signal.getitimer(signal.ITIMER_REAL)[0]  # within another boundary
    ):
        yield
        return
    before = signal.signal(alarm, _raise_late)
    watchdog = threading.Timer(seconds + GRACE_S, _give_up, (name, seconds, os._exit))
    watchdog.daemon = True
    watchdog.start()
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        watchdog.cancel()
        signal.signal(alarm, before)


def _raise_late(*_: object) -> NoReturn:
    raise _Late


def _give_up(name: str, seconds: float, leave: Callable[[int], NoReturn]) -> None:
    text = f"senet-bench: {name} did not return within {seconds:g} s and cannot be interrupted; see --call-timeout\n"
    os.write(2, text.encode())
    leave(5)


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Turn `os._exit` into `SystemExit`; a child of a fork ends as it likes."""
    leave, process = os._exit, os.getpid()

    def refused(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refused
    try:
        yield
    finally:
        os._exit = leave


class _Unclosable:
    """A stream that cannot be closed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Leave it open."""


@contextlib.contextmanager
def _streams_kept() -> Iterator[None]:
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
    state, folder = random.getstate(), Path.cwd()
    restore = _torch_state(torch, draws=draws) if hasattr(torch, "set_grad_enabled") else None
    try:
        yield
    finally:
        if not draws:
            random.setstate(state)
        os.chdir(folder)
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
