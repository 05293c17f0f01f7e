"""Slurm as it is: our engine on a real one of this machine, whatever happens to its jobs and its daemons."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from senet_bench.core.learning import Submitted
from senet_bench.core.source import source_files
from senet_bench.errors import UsageError
from senet_bench.run import slurm_jobs, slurm_queue
from senet_bench.run.engines import Busy, Failure, Left
from senet_bench.run.slurm import Slurm
from senet_bench.run.sources import WithSources
from tests.support.slurm import Cluster, needed, running, until

TESTS = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore")  # submitit's own


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running Slurm."""
    needed()
    pytest.importorskip("submitit")
    with running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """That Slurm as the one that our engine speaks to, looked at often."""
    return spoken_to(cluster, monkeypatch)


def spoken_to(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setattr(slurm_jobs, "ASK_S", 0.5)
    return cluster


class Kept:
    """Notes in memory."""

    def __init__(self) -> None:
        self.by_job = dict[Any, Submitted]()

    def read(self, job: Any) -> Submitted | None:
        return self.by_job.get(job)

    def write(self, job: Any, submitted: Submitted) -> None:
        self.by_job[job] = submitted


def noted(job: tuple[int, str]) -> int:
    """Twice the number; every start and end is a line of the log."""
    number, log = job
    say(log, f"start {number}")
    say(log, f"end {number}")
    return 2 * number


def long_at_first(job: tuple[int, str]) -> int:
    """As `noted`; job 2 stays for a minute the first time."""
    number, log = job
    say(log, f"start {number}")
    if number == 2 and Path(log).read_text().count("start 2\n") == 1:
        time.sleep(60)
    say(log, f"end {number}")
    return 2 * number


def short(job: tuple[int, str]) -> int:
    """As `noted`, in two seconds."""
    say(job[1], f"start {job[0]}")
    time.sleep(2)
    say(job[1], f"end {job[0]}")
    return 2 * job[0]


def say(log: str, text: str) -> None:
    with Path(log).open("a") as file:
        file.write(text + "\n")


def lines(log: Path, kind: str, count: int) -> list[int]:
    """How often each of `count` jobs has said so."""
    said = log.read_text().splitlines() if log.is_file() else []
    return [said.count(f"{kind} {number}") for number in range(count)]


def ended(moments: Any) -> dict[Any, Any]:
    """The outcome of each job, which comes once."""
    found = [moment for moment in moments if not isinstance(moment, Busy)]
    assert len({job for job, _ in found}) == len(found)
    return {job[0]: outcome for job, outcome in found}


def test_what_slurm_refuses_is_a_usage_error_that_names_the_option_and_leaves_no_job(
    here: Cluster, tmp_path: Path
) -> None:
    for options, said in (
        ({"slurm_partition": "nope"}, "slurm_partition=nope.*invalid partition"),
        ({"mem_gb": 900}, "mem_gb=900.*"),
        ({"timeout_min": "soon"}, "timeout_min=soon"),
        ({"timeout": 5}, "timeout=5"),
    ):
        with pytest.raises(UsageError, match=f"Slurm refuses jobs with {said}.*--engine-option") as raised:
            list(Slurm(tmp_path / "slurm", options=options).run(noted, iter([(1, "")])))
        assert "\n" not in str(raised.value)
    assert here.jobs() == {}


@pytest.mark.slow
def test_a_job_that_is_cancelled_is_done_again_without_any_accounting(here: Cluster, tmp_path: Path) -> None:
    log, notes = tmp_path / "log", Kept()
    jobs = [(number, str(log)) for number in range(4)]
    moments, cancelled = Slurm(tmp_path / "slurm").watched(long_at_first, iter(jobs), notes), False
    outcomes = {}
    for moment in moments:
        if not isinstance(moment, Busy):
            outcomes[moment[0][0]] = moment[1]
        elif not cancelled and lines(log, "start", 4)[2]:
            here.ask("scancel", notes.by_job[jobs[2]].id)
            cancelled = True
    assert outcomes == {0: 0, 1: 2, 2: 4, 3: 6}
    assert lines(log, "start", 4) == [1, 1, 2, 1]
    assert notes.by_job[jobs[2]].attempt == 2
    assert notes.by_job[jobs[2]].node in ("", "localhost")


def test_a_partition_shorter_than_a_day_sets_the_limit_and_a_longer_limit_says_why_it_waits(
    here: Cluster, tmp_path: Path
) -> None:
    assert [slurm_queue.longest_minutes(name) for name in ("short", "main", None)] == [5, None, None]
    short_one = Slurm(tmp_path / "slurm", options={"slurm_partition": "short"})
    assert ended(short_one.watched(noted, iter([(1, str(tmp_path / "log"))]))) == {1: 2}
    too_long = Slurm(tmp_path / "slurm", options={"slurm_partition": "short", "timeout_min": 60})
    moments = too_long.watched(noted, iter([(1, ""), (2, "")]))
    waiting = next(m for m in moments if isinstance(m, Busy) and "PartitionTimeLimit" in m.reasons)
    assert (waiting.running, waiting.pending) == (0, 2)
    with pytest.raises(KeyboardInterrupt, match="2 Slurm jobs are cancelled"):
        moments.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    until(lambda: not here.jobs(), 10, "an empty queue")


@pytest.mark.slow
def test_jobs_that_are_left_are_taken_up_by_the_next_run_and_none_is_done_twice(here: Cluster, tmp_path: Path) -> None:
    log, notes = tmp_path / "log", Kept()
    jobs = [(number, str(log)) for number in range(6)]
    left = list(Slurm(tmp_path / "slurm", detach=True).watched(short, iter(jobs), notes))
    outcomes_left = [moment[1] for moment in left if not isinstance(moment, Busy)]
    arrays = [outcome.submitted.id.partition("_")[0] for outcome in outcomes_left if isinstance(outcome, Left)]
    assert [arrays.count(array) for array in {*arrays}] == [3, 3]  # as six are more than an array may have
    outcomes = ended(Slurm(tmp_path / "slurm").watched(short, iter(jobs), notes))
    assert outcomes == {number: 2 * number for number in range(6)}
    assert lines(log, "end", 6) == lines(log, "start", 6) == [1] * 6
    again = ended(Slurm(tmp_path / "slurm").watched(short, iter(jobs), notes))  # their results still lie there
    assert again == outcomes
    assert lines(log, "start", 6) == [1] * 6


@pytest.mark.slow
def test_the_results_of_an_earlier_cluster_with_the_same_job_numbers_are_not_taken(
    here: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, notes = str(tmp_path / "log"), Kept()
    number = int(here.ask("sbatch", "--parsable", "--output=/dev/null", "--wrap=true")) + 1
    assert ended(Slurm(tmp_path / "slurm").watched(noted, iter([(7, log)]), notes)) == {7: 14}
    assert notes.by_job[7, log].id == str(number)
    (tmp_path / "second").mkdir()
    with running(tmp_path / "second", first=number) as second:
        spoken_to(second, monkeypatch)
        other = Kept()
        assert ended(Slurm(tmp_path / "slurm").watched(noted, iter([(9, log)]), other)) == {9: 18}
        assert other.by_job[9, log].id == str(number)
        stranger = Slurm(tmp_path / "slurm", detach=True).watched(short, iter([(3, log)]), Kept())
        assert [outcome.submitted.id for _, outcome in stranger] == [str(number + 1)]  # type: ignore[misc, union-attr]
        unknown = Submitted(engine="slurm", id=str(number + 1), token="another", folder=str(tmp_path / "slurm" / "x"))
        mine = Kept()
        mine.by_job[5, log] = unknown  # a job of that number runs, and is not ours
        assert ended(Slurm(tmp_path / "slurm").watched(noted, iter([(5, log)]), mine)) == {5: 10}


DRIVER = """
import sys
from pathlib import Path
from senet_bench.core.store import TrialStore, key_of
from senet_bench.run import slurm_jobs
from senet_bench.run.claims import Claimed, watched
from senet_bench.run.slurm import Slurm
from tests.test_slurm import result
slurm_jobs.ASK_S = 0.5
folder = Path(sys.argv[1])
define = lambda trial: {"trial": trial[0]}
todo = [Claimed(key_of(define(trial)), trial, define) for trial in [(n, str(folder / "log")) for n in range(4)]]
for moment in watched(Slurm(folder / "slurm"), TrialStore(folder / "trials"), result, todo, {}):
    print(moment, flush=True)
"""


def result(job: tuple[int, str]) -> Any:
    from senet_bench.core.learning import TrialResult

    return TrialResult(top1_err=short(job) / 100)


@pytest.mark.slow
def test_a_front_end_that_is_killed_loses_nothing_and_the_next_takes_up_its_jobs(here: Cluster, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until(lambda: any(lines(tmp_path / "log", "start", 4)), 30, "a job that has begun")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len([*tmp_path.glob("trials/.claims/*.job")]) == 4
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    assert len([*tmp_path.glob("trials/*.json")]) == 4
    assert lines(tmp_path / "log", "start", 4) == [1] * 4
    assert not [*tmp_path.glob("trials/.claims/*.job")]


@pytest.mark.slow
def test_two_front_ends_on_one_results_folder_do_each_trial_once(here: Cluster, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [text.count("TrialResult(") for text in said] == [4, 4]  # each is told of all of them
    assert len([*tmp_path.glob("trials/*.json")]) == 4
    assert lines(tmp_path / "log", "start", 4) == lines(tmp_path / "log", "end", 4) == [1] * 4
    assert not [*tmp_path.glob("trials/.claims/*.job")]


def goes_on(job: tuple[int, str]) -> int:
    """Counts to 40 in a file, a step each tenth of a second, from where it stands; every start is a line of the log."""
    number, log = job
    say(log, f"start {number}")
    count = Path(f"{log}.{number}")
    while (at := int(count.read_text()) if count.is_file() else 0) < 40:
        time.sleep(0.1)
        count.write_text(str(at + 1))
    return at


@pytest.mark.slow
def test_a_job_at_its_time_limit_is_requeued_and_goes_on(here: Cluster, tmp_path: Path) -> None:
    log, notes = tmp_path / "log", Kept()
    job, signalled, outcome = (0, str(log)), False, None
    for moment in Slurm(tmp_path / "slurm").watched(goes_on, iter([job]), notes):
        if not isinstance(moment, Busy):
            outcome = moment[1]
        elif not signalled and (tmp_path / "log.0").is_file():
            here.ask("scancel", "--signal=USR2", notes.by_job[job].id)  # what Slurm sends before the limit
            signalled = True
        elif signalled and notes.by_job[job].state == "PENDING":
            with contextlib.suppress(subprocess.CalledProcessError):  # not while the first try is being cleared away
                here.ask("scontrol", "update", f"jobid={notes.by_job[job].id}", "starttime=now")  # else in two minutes
    assert outcome == 40
    assert lines(log, "start", 1) == [2]
    assert notes.by_job[job].attempt == 1  # the same job of Slurm's


@pytest.mark.slow
def test_a_folder_that_the_nodes_do_not_see_is_refused_with_the_name_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed()
    (tmp_path / "own").mkdir()
    (tmp_path / "results").mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    with running(tmp_path / "own", hidden=tmp_path / "results") as other:
        spoken_to(other, monkeypatch)
        with pytest.raises(UsageError, match=r"node localhost does not see .*results.*--results"):
            list(Slurm(tmp_path / "results").run(noted, iter([(1, ""), (2, "")])))
        until(lambda: not other.jobs(), 10, "an empty queue")


@pytest.mark.slow
def test_the_death_of_slurmd_and_of_slurmctld_loses_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed()
    (tmp_path / "own").mkdir()
    with running(tmp_path / "own") as other:
        spoken_to(other, monkeypatch)
        log = tmp_path / "log"
        jobs, outcomes, killed = [(number, str(log)) for number in range(6)], {}, 0
        for moment in Slurm(tmp_path / "slurm").watched(short, iter(jobs)):
            if not isinstance(moment, Busy):
                outcomes[moment[0][0]] = moment[1]
            if killed < 2 and sum(lines(log, "start", 6)) > 2 * killed:
                name = ("slurmctld", "slurmd")[killed]
                other.kill(name)
                time.sleep(1)
                (other.start_controller, other.start_node)[killed]()
                killed += 1
        assert outcomes == {number: 2 * number for number in range(6)}
        assert killed == 2


def answer(job: int) -> int:
    """What the user's module says."""
    return job * int(importlib.import_module("hers_under_slurm").ANSWER)


@pytest.mark.slow
def test_modules_that_no_node_has_are_there(here: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "hers_under_slurm.py"
    module.write_text("ANSWER = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = WithSources(answer, source_files("hers_under_slurm:Gate"))
    module.unlink()
    assert dict(Slurm(tmp_path / "slurm").run(function, iter([1, 2]))) == {1: 7, 2: 14}


def fails(job: tuple[int, str]) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.slow
def test_a_job_whose_process_always_dies_fails_with_what_slurm_says_of_it(here: Cluster, tmp_path: Path) -> None:
    (outcome,) = ended(Slurm(tmp_path / "slurm").watched(fails, iter([(1, "")]))).values()
    assert isinstance(outcome, Failure)
    assert outcome.reason == "its Slurm job failed 3 times: FAILED on localhost, without a result"


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running Slurm that keeps accounts, and takes arrays of hundreds."""
    needed(accounts=True)
    pytest.importorskip("submitit")
    with running(tmp_path_factory.mktemp("keeper"), accounts=True, array=1001) as cluster:
        yield cluster


@pytest.mark.slow
def test_what_became_of_a_job_that_the_controller_has_forgotten_is_told_by_accounting(
    keeper: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken_to(keeper, monkeypatch)
    notes = Kept()
    assert ended(Slurm(tmp_path / "slurm").watched(noted, iter([(1, str(tmp_path / "log"))]), notes)) == {1: 2}
    (note,) = notes.by_job.values()

    def forgotten() -> bool:
        return subprocess.run(["scontrol", "show", "job", note.id], capture_output=True, check=False).returncode != 0

    until(forgotten, 120, "a controller that has forgotten")
    end = slurm_queue.end_of(note.id)
    assert end is not None
    assert slurm_queue.is_of(end, note)
    assert (end.state, end.node) == ("COMPLETED", "localhost")


@pytest.mark.slow
def test_hundreds_of_jobs_are_one_array_which_is_left_taken_up_and_cancelled(
    keeper: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken_to(keeper, monkeypatch)
    later = {"slurm_additional_parameters": {"begin": "now+1hour"}}
    jobs, notes = [(number, "") for number in range(300)], Kept()
    leaving = Slurm(tmp_path / "slurm", at_once=300, options=later, detach=True)
    assert all(isinstance(outcome, Left) for outcome in ended(leaving.watched(noted, iter(jobs), notes)).values())
    assert len({note.id.partition("_")[0] for note in notes.by_job.values()}) == 1
    assert set(keeper.jobs()) == {note.id for note in notes.by_job.values()}
    moments = Slurm(tmp_path / "slurm", at_once=300, options=later).watched(noted, iter(jobs), notes)
    waiting = next(moment for moment in moments if isinstance(moment, Busy) and moment.reasons == ("BeginTime",))
    assert (waiting.running, waiting.pending) == (0, 300)
    with pytest.raises(KeyboardInterrupt, match="300 Slurm jobs are cancelled"):
        moments.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    until(lambda: not keeper.jobs(), 10, "an empty queue")


@pytest.mark.slow
def test_a_limit_of_jobs_makes_the_others_wait_and_one_that_others_fill_is_told(
    keeper: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken_to(keeper, monkeypatch)
    log, limit = tmp_path / "log", ("sacctmgr", "-i", "modify", "user", "root", "set")
    try:
        keeper.ask(*limit, "MaxSubmitJobs=3")
        outcomes = ended(Slurm(tmp_path / "slurm").watched(noted, iter([(number, str(log)) for number in range(6)])))
        keeper.ask(*limit, "MaxSubmitJobs=0")
        with pytest.raises(UsageError, match=r"AssocMaxSubmitJobLimit.*wait where other jobs of yours fill a limit"):
            list(Slurm(tmp_path / "slurm").watched(noted, iter([(7, str(log))])))
    finally:
        keeper.ask(*limit, "MaxSubmitJobs=-1")
    assert outcomes == {number: 2 * number for number in range(6)}
    assert lines(log, "start", 6) == [1] * 6
    (folder,) = (tmp_path / "slurm").iterdir()
    assert [path.name for path in folder.glob("*.pkl") if "_" not in path.stem] == []
