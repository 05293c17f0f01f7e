"""Trials as they are on a real Slurm of this machine: those begun anew, and those longer than the time limit."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from senet_bench.core.catalog import resolve
from senet_bench.core.learning import Moment, TrialResult
from senet_bench.core.recipes import recipe
from senet_bench.core.results import Run, RunConditions
from senet_bench.core.store import Store
from senet_bench.core.trial import Trial
from senet_bench.run.cases import select
from senet_bench.run.count import Count
from senet_bench.run.engines import Busy
from senet_bench.run.error import Sweep
from senet_bench.run.record import Record, new_run
from senet_bench.run.slurm import Slurm
from senet_bench.training import trials
from senet_bench.training.trials import run_trial
from tests.support.slurm import Cluster, needed, running
from tests.test_slurm import Kept, say, spoken_to

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # submitit's own
LATER = {"slurm_additional_parameters": {"begin": "now+1hour"}}


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A running Slurm, which our engine speaks to."""
    needed()
    pytest.importorskip("submitit")
    with running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield spoken_to(cluster, monkeypatch)


def test_fresh_cancels_the_jobs_of_before_and_submits_others(here: Cluster, tmp_path: Path) -> None:
    cases = select(["resnet20_cifar"])
    record: Record[Run] = Record.begin(Store(tmp_path), new_run("compare", RunConditions()))
    for _ in Count().run(cases, record):
        pass
    sweep = Sweep(engine=Slurm(tmp_path / "slurm", detach=True, options=LATER), seeds=1)
    jobs = []
    for fresh in (False, False, True):
        for _ in replace(sweep, fresh=fresh).run(cases, record):
            pass
        jobs.append({*here.jobs()})
    assert [len(numbers) for numbers in jobs] == [2, 2, 2]
    assert jobs[0] == jobs[1]
    assert not jobs[0] & jobs[2]
    notes = [msgspec.json.decode(path.read_bytes())["id"] for path in tmp_path.glob("runs/*/trials/.claims/*.job")]
    assert {*notes} == jobs[2]
    here.ask("scancel", *jobs[2])


EPOCHS = 60


def last_epoch(log: str) -> int:
    """The number of the last epoch in a log."""
    return int(log.rpartition("epoch ")[2].partition("/")[0])


def within_limits(trial: Trial) -> TrialResult:
    """The result of a trial that keeps how far it is each second; a line of a log for each epoch."""
    assert trial.checkpoint is not None
    log = str(trial.checkpoint.with_suffix(".epochs"))
    trials.CHECKPOINT_S, trials.TOLD_EVERY_S = 1.0, 0.0

    def told(place: Path | None, moment: Moment) -> None:
        if moment.what.startswith("epoch") and "loss" not in moment.what:
            say(log, moment.what)
            time.sleep(2)

    trials._tell = told
    say(log, "start")
    return run_trial(trial)


def test_a_trial_longer_than_the_time_limit_is_trained_once_over_several_limits(here: Cluster, tmp_path: Path) -> None:
    notes, moved, outcome = Kept(), 0.0, None
    trial = Trial(
        arm="0",
        spec=resolve("resnet20_cifar"),
        recipe=recipe("digits").lasting(EPOCHS),
        seed=0,
        checkpoint=tmp_path / "key.checkpoint",
    )
    limit = {"timeout_min": 2, "slurm_signal_delay_s": 15}
    for moment in Slurm(tmp_path / "slurm", options=limit).watched(within_limits, iter([trial]), notes):
        if not isinstance(moment, Busy):
            outcome = moment[1]
        elif notes.by_job[trial].state == "PENDING" and time.monotonic() - moved > 5:
            moved = time.monotonic()
            with contextlib.suppress(subprocess.CalledProcessError):  # not while the first try is being cleared away
                here.ask("scontrol", "update", f"jobid={notes.by_job[trial].id}", "starttime=now")  # not in two minutes
    assert isinstance(outcome, TrialResult)
    first, *later = (tmp_path / "key.epochs").read_text().split("start\n")[1:]
    assert later, "the limit was not reached: the trial is too short for it"
    for before, after in pairwise([first, *later]):
        assert 0 <= last_epoch(before) - int(after.partition("epoch ")[2].partition("/")[0]) + 1 < EPOCHS / 4
    assert last_epoch(later[-1]) == EPOCHS
    assert notes.by_job[trial].attempt == 1  # one job of Slurm's all the while
