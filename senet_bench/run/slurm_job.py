"""What runs in a job of Slurm: the function of a trial, its words in the job's log, and the end at a time limit."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from senet_bench.run.engines import Died, Failure, Job, Result, outcome_of

EXIT = os._exit
"""What ends the process, also while code of others runs, for which it is replaced."""


class SlurmTask:
    """What a Slurm job runs: the function of a job, its outcome given back with the token it was submitted with."""

    def __call__(self, token: str, function: Callable[[Job], Result], job: Job) -> tuple[str, Result | Failure | Died]:
        """The token and the outcome; what the trial tells of itself goes into the job's log."""
        _log_here()
        if threading.current_thread() is threading.main_thread():
            _end_at_once()
        return token, outcome_of(function, job)

    def checkpoint(self, *arguments: Any) -> Any:
        """The same again, at Slurm's time limit or preemption: the trial goes on from its checkpoint."""
        submitit = importlib.import_module("submitit")
        return submitit.helpers.DelayedSubmission(self, *arguments)


def _log_here() -> None:
    """Show what trials tell of themselves on stderr, which is their job's log."""
    logger = logging.getLogger("senet_bench")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def _end_at_once() -> None:
    """Let submitit's answers to the signals before a time limit, or at a preemption, end this process themselves."""
    for number in signal.valid_signals():
        known = signal.getsignal(number)
        if callable(known) and type(getattr(known, "__self__", None)).__module__.startswith("submitit"):
            signal.signal(number, partial(_handled, known))


def _handled(handler: Callable[[int, Any], Any], number: int, frame: Any) -> None:
    """Answer a signal as a handler does; where that exits, the network that runs meanwhile is not blamed for it."""
    try:
        handler(number, frame)
    except SystemExit:
        logging.shutdown()
        EXIT(1)
