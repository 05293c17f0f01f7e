"""A second process that waits for a command which loads code of others, and gives it its exit code.

Python cannot keep such code from ending the process by C (`_exit`, a crash). So the command runs in a child that tells
its parent when it has finished, and with which code: without that the parent ends with 5. Linux alone has what it
needs (the sender of a signal, a child that dies with its parent); elsewhere commands run as they are.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

CONFIGURED = ("check", "baseline")
"""Commands whose networks stand in a configuration; others name theirs as `package.module:Name`."""
OUTSIDE = re.compile(r"[^\W\d]\w*:[^\W\d]")
PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS", "SIGKILL")
SET_PARENT_DEATH_SIGNAL = 1
NOT_FINISHED, UNFLUSHED = 5, 120


@dataclass(slots=True)
class _Child:
    """The child's end of the pipe to its parent; None where nobody supervises."""

    told: int | None = None


_CHILD = _Child()


def supervise(arguments: Sequence[str]) -> None:
    """Return in the process that is to carry out the command; the one that waits for it never does."""
    if sys.platform != "linux" or not loads_code_of_others(arguments):
        return
    heard, told = os.pipe()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # before there is a child: doing so discards a signal that waits
    parent, waited = os.getpid(), {signal.SIGCHLD, *(signal.Signals[name] for name in PASSED_ON)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    child = os.fork()
    if child:
        os.close(told)
        if signal.SIGINT in signal.sigpending():  # it came before there was a child to get it
            os.kill(child, signal.SIGINT)
        _wait(child, heard, waited)
    os.close(heard)
    _die_with(parent)
    _CHILD.told = told
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def loads_code_of_others(arguments: Sequence[str]) -> bool:
    """Whether a command line may import a module that is named on it or in its configuration."""
    return any(argument in CONFIGURED or OUTSIDE.search(argument) for argument in arguments)


def finish(code: int) -> None:
    """Tell the parent, if there is one, that the command has finished with this exit code."""
    if _CHILD.told is None:
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # said when Python ends
            stream.flush()
    with contextlib.suppress(OSError):  # code of others closed the pipe
        os.write(_CHILD.told, bytes([code & 255]))


def say(text: str) -> None:
    """Tell something on standard error before this process ends at once, where anybody reads it."""
    with contextlib.suppress(OSError):
        os.write(2, f"senet-bench: {text}\n".encode())


def _die_with(parent: int) -> None:
    """End this process at once where its parent is killed."""
    import ctypes

    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(NOT_FINISHED)


def _wait(child: int, heard: int, waited: set[signal.Signals]) -> NoReturn:
    """Pass signals on to the child until it ends, and end with its exit code."""
    while True:
        came = signal.sigwaitinfo(waited)
        if came.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
        elif came.si_code <= 0:  # sent by a process; what a terminal sends the child gets itself
            os.kill(child, came.si_signo)
    os.set_blocking(heard, False)
    try:
        finished = os.read(heard, 1)
    except BlockingIOError:
        finished = b""
    _end(os.waitstatus_to_exitcode(status), finished[0] if finished else None)


def _end(code: int, finished: int | None) -> NoReturn:
    """End as a child that ended with `code` (negative: by that signal) after it told `finished`, if it did."""
    if finished is not None:
        os._exit(UNFLUSHED if code == UNFLUSHED else finished)
    if code < 0 and signal.Signals(-code).name not in CRASHES:
        signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    say(_reason(code))
    os._exit(NOT_FINISHED)


def _reason(code: int) -> str:
    """Why a command that never finished ended, in one line."""
    if code == -signal.SIGKILL:
        return "the command was killed by SIGKILL before it had finished, as where memory runs out; free some"
    if code < 0:
        return f"code that it ran crashed the command ({signal.Signals(-code).name}); run its networks one by one"
    return f"code that it ran ended the command by exit status {code} before it had finished; mend it there"
