"""A sweep tells how far each running trial is: epoch, rate, time left."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from senet_bench.core.catalog import resolve
from senet_bench.core.learning import Moment, TrialResult
from senet_bench.core.progress import Progress
from senet_bench.core.recipes import recipe
from senet_bench.core.results import Run, RunConditions
from senet_bench.core.store import Store
from senet_bench.core.trial import Trial
from senet_bench.run import slurm_queue
from senet_bench.run.apart import answer, apart
from senet_bench.run.cases import select
from senet_bench.run.count import Count
from senet_bench.run.engines import Busy, ended
from senet_bench.run.error import Sweep
from senet_bench.run.local import Local
from senet_bench.run.record import Record, new_run
from senet_bench.run.slurm_queue import QueuedJob
from senet_bench.training import trials


class Slow:
    """An engine that tells of its first trial while that runs."""

    remote: ClassVar[bool] = False

    def at_a_time(self) -> int:
        return 2

    def check(self, device: str) -> None:
        """Anything goes."""

    def run(self, function: Any, jobs: Any) -> Any:
        return ended(self.watched(function, jobs))

    def watched(self, function: Any, jobs: Any, notes: Any = None) -> Any:
        for job in jobs:
            assert job.checkpoint is not None
            told = Moment(what="epoch 3/60, loss 1.2, 900 images/s", done=0.25, seconds_left=150)
            job.checkpoint.with_suffix(".progress").write_bytes(msgspec.json.encode(told))
            yield Busy(1, 5, ("Resources",))
            yield job, TrialResult(model=job.spec.name, top1_err=0.1)


def test_running_trials_are_told_of_with_their_epoch_rate_and_time_left(tmp_path: Path) -> None:
    cases, sweep = select(["resnet20_cifar"]), Sweep(engine=Slow(), seeds=1)
    record: Record[Run] = Record.begin(Store(tmp_path), new_run("compare", RunConditions()))
    for _ in Count().run(cases, record):
        pass
    moments = list[Progress](sweep.run(cases, record))
    said = "1 running (ResNet-20 seed 0: epoch 3/60, loss 1.2, 900 images/s, 2 min left), 5 pending (Resources)"
    assert (moments[0].what, moments[0].done, moments[0].total) == (said, 0.25, 2)
    assert [moment.what.partition(" ")[0] for moment in moments[1:]] == ["seed", "1", "seed", "done"]
    assert not [*tmp_path.glob("runs/*/trials/.claims/*.progress")]


@pytest.mark.usefixtures("one_thread")
def test_a_trial_leaves_how_far_it_is_beside_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, tell = list[Moment](), trials._tell

    def kept(place: Path | None, moment: Moment) -> None:
        tell(place, moment)
        assert place is not None
        told.append(msgspec.json.decode(place.read_bytes(), type=Moment))

    monkeypatch.setattr(trials, "TOLD_EVERY_S", 0.0)
    monkeypatch.setattr(trials, "_tell", kept)
    planned = Trial(arm="0", spec=resolve("resnet20_cifar"), recipe=recipe("digits-smoke"), seed=0)
    trials.run_trial(dataclasses.replace(planned, checkpoint=tmp_path / "key.checkpoint"))
    assert [(moment.what, moment.done) for moment in told] == [
        ("epoch 1/2", 0.5), ("epoch 2/2", 1.0), ("being tested", 1.0)
    ]  # fmt: skip
    assert [*tmp_path.iterdir()] == []


def test_slurm_says_what_waits_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    lines = "1|N/A|ours-a|RUNNING|None|node1\\n2|4|ours-b|PENDING|Resources|\\n3|N/A|x|PENDING|PartitionTimeLimit|\\n"
    squeue.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    queue = slurm_queue.queued()
    assert queue is not None
    assert queue["1"] == QueuedJob("ours-a", "RUNNING", "None", "node1")
    assert {number: job.reason for number, job in queue.items()} == {
        "1": "None",
        "2_4": "Resources",
        "3": "PartitionTimeLimit",
    }
    assert Busy(3, 5, ("Resources", "Priority")).text() == "3 running, 5 pending (Resources, Priority)"
    assert Busy(3, 5, ("Resources",), 41.7).text() == "3 running, 5 pending (Resources), oldest log line 42 s old"
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert slurm_queue.queued() is None


def double(job: int) -> int:
    return 2 * job


def process_of(job: int) -> int:
    return os.getpid()


def test_the_process_that_answered_before_the_first_trial_does_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")  # or this process would answer itself
    with apart():
        answers = answer(os.getpid)
        assert answers != os.getpid()
        assert dict(Local(2).run(process_of, iter([1]))) == {1: answers}


def test_a_worker_apart_does_what_this_process_would() -> None:
    assert dict(Local(1, apart=True).run(double, iter([1, 2]))) == {1: 2, 2: 4}
