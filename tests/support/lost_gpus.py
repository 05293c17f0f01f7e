"""What processes do whose second GPU, a pretended one, is lost; they import no torch for it."""

from __future__ import annotations

from typing import Any

from senet_bench.core.learning import TrialResult
from senet_bench.errors import UsageError

FAILURE = "CUDA error: unspecified launch failure\nCUDA kernel errors might be reported at some other call"


def where(job: int, place: str = "") -> str:
    """Where a job is done."""
    return place


def calculates(_: None, place: str) -> None:
    """As the engine asks it of a new process."""
    if place == "cuda:1":
        raise UsageError("device cuda:1 is not there", "this machine has 1 of that kind")


def place_of(job: int, place: str = "") -> str:
    """Where a job is done, which is not there."""
    if place == "cuda:1":
        raise RuntimeError(FAILURE)
    return place


def run_trial(trial: Any, place: str) -> TrialResult:
    """The result of a trial of the first seed; then the device is lost."""
    if trial.seed:
        raise RuntimeError(FAILURE)
    return TrialResult(top1_err=0.1, device=place)
