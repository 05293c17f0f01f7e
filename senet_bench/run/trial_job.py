"""The job of a sweep, as engines carry it to where it is done; what does it is imported there."""

from __future__ import annotations

from senet_bench.core.learning import TrialResult
from senet_bench.core.trial import Trial


def run_trial(trial: Trial, *device: str) -> TrialResult:
    """Train and test one trial, on a worker's own device where it has one."""
    from senet_bench.training import trials

    return trials.run_trial(trial, *device)
