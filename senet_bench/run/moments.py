"""How far trials are that run, in words: what each is doing, what is left, who has not told for long."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from senet_bench.core.learning import Moment
from senet_bench.core.results import Row

if TYPE_CHECKING:
    from senet_bench.core.trial import Trial

SILENT_S = 120.0
"""Seconds after which it is told that a trial, which tells every second or every few batches, has not."""
SHOWN_AT_ONCE = 3
"""How many running trials are told of by name."""


def moments_of(running: Iterable[Trial]) -> dict[Trial, Moment]:
    """How far each of some trials is that has told."""
    moments = {}
    for trial in running:
        place = trial.checkpoint.with_suffix(".progress") if trial.checkpoint else None
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            if place is not None and place.is_file():
                moments[trial] = msgspec.json.decode(place.read_bytes(), type=Moment)
    return moments


def listed_moments(moments: Mapping[Trial, Moment], rows: Sequence[Row]) -> str:
    """How far trials are, the first few of them."""
    texts = []
    for trial, moment in moments.items():
        left = "" if moment.seconds_left is None else f", {_duration(moment.seconds_left)} left"
        texts.append(f"{rows[int(trial.arm)].label} seed {trial.seed}: {moment.what}{left}{_silence(trial)}")
    more = f"; {len(texts) - SHOWN_AT_ONCE} more" if len(texts) > SHOWN_AT_ONCE else ""
    return f" ({'; '.join(texts[:SHOWN_AT_ONCE])}{more})" if texts else ""


def _silence(trial: Trial) -> str:
    """How long ago a trial told how far it is; empty where that is not long."""
    with contextlib.suppress(OSError):
        if trial.checkpoint is not None:
            seconds = time.time() - trial.checkpoint.with_suffix(".progress").stat().st_mtime
            return f", silent for {_duration(seconds)}" if seconds > SILENT_S else ""
    return ""


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
