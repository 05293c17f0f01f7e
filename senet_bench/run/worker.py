"""A process of this machine that does one job after another, and ends with the process that started it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.util import Finalize
from typing import Any

from senet_bench.errors import one_line
from senet_bench.run.engines import Died, Failure, Job, Result, end_with, outcome_of

ENDS_WITHIN_S = 5.0
"""Seconds that an idle process may take to end by itself, which it does in a few hundredths."""


class Worker:
    """A process that does one job after another; its death harms no other's job, as it would in a pool."""

    def __init__(self, place: str | None = None) -> None:
        self.place = place
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, os.getpid()), daemon=True)
        with _deaf():
            self.process.start()
        theirs.close()

    def give(self, function: Callable[[Job], Result], job: Job) -> None:
        """Start a job; a process that has died meanwhile is found out by `take`."""
        task = pickle.dumps((at_place(function, self.place), job))
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(task)

    def take(self, within_s: float | None = None) -> Any:
        """The outcome of its job, `Died` if it did, or if it had none within so many seconds."""
        try:
            return self.pipe.recv() if self.pipe.poll(within_s) else Died(f"no answer within {within_s:g} s")
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            self.end()
            return Died(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def end(self, *, idle: bool = False) -> None:
        """End the process: at once with what it is doing, or by itself if `idle`, so that it leaves nothing behind."""
        self.pipe.close()
        if idle:
            self.process.join(ENDS_WITHIN_S)
        self.process.kill()
        self.process.join()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started meanwhile does not hear Ctrl-C while Python starts there; this one does at the end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which starts a process too, and lets Ctrl-C through again after it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(pipe: Any, parent: int) -> None:
    """Do what comes through the pipe until it is closed, or the parent is gone.

    Ctrl-C reaches the whole process group and is the parent's to answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    Finalize(None, os._exit, args=(0,), exitpriority=-100)  # the last one: Python's own end takes seconds with torch
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = pipe.recv_bytes()
            outcome = outcome_of(_carry_out, task)
            try:
                pipe.send(outcome)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                pipe.send(Failure(f"its result cannot be handed over ({one_line(error)})"))


def _carry_out(task: bytes) -> Any:
    function, job = pickle.loads(task)  # noqa: S301 - from our own parent
    return function(job)


def at_place(function: Callable[..., Result], place: str | None) -> Callable[[Any], Result]:
    """The function of a job alone that is carried out on a device."""
    return function if place is None else partial(_on, function, place)


def _on(function: Callable[..., Result], place: str, job: Any) -> Result:
    return function(job, place)
