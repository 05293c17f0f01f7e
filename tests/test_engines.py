"""Engines: every job ends once, with its result or its reason, whatever happens to the processes that do them."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from senet_bench.errors import UsageError
from senet_bench.run import slurm_queue
from senet_bench.run.engines import ATTEMPTS, Busy, Engine, Failure
from senet_bench.run.local import Local
from senet_bench.run.ray_cluster import RayCluster
from senet_bench.run.slurm import Slurm

TESTS = Path(__file__).parent.parent


def double(job: int) -> int:
    return 2 * job


def fails_at_3(job: int) -> int:
    if job == 3:
        raise ValueError("three\nis not\nwanted")
    return 2 * job


def process(job: int) -> int:
    return os.getpid()


def dies_once(job: tuple[int, str]) -> int:
    """Twice the number; job 2 is killed the first time. Every start and end is a line of the log."""
    number, log = job
    with Path(log).open("a") as file:
        file.write(f"start {number}\n")
    if number == 2 and Path(log).read_text().count("start 2\n") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with Path(log).open("a") as file:
        file.write(f"end {number}\n")
    return 2 * number


def kills_itself_at_2(job: int) -> int:
    if job == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * job


def unpicklable(job: int) -> Any:
    return lambda: job


def outcomes(engine: Engine, function: Any, jobs: Any) -> dict[Any, Any]:
    """The outcome of each job, which must come exactly once."""
    found = list(engine.run(function, iter(jobs)))
    assert len({job for job, _ in found}) == len(found)
    return dict(found)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_ends_once_and_one_that_raises_is_a_failure_in_one_line(workers: int) -> None:
    found = outcomes(Local(workers), fails_at_3, range(6))
    assert found == {0: 0, 1: 2, 2: 4, 3: Failure("ValueError: three is not wanted"), 4: 8, 5: 10}


def test_one_worker_is_this_process_and_two_are_others() -> None:
    assert set(outcomes(Local(1), process, range(3)).values()) == {os.getpid()}
    others = set(outcomes(Local(2), process, range(6)).values())
    assert 1 <= len(others) <= 2
    assert os.getpid() not in others


def test_no_more_processes_than_jobs() -> None:
    assert outcomes(Local(40), double, [7]) == {7: 14}


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_are_pulled_when_a_worker_is_free(workers: int) -> None:
    pulled = []

    def jobs() -> Iterator[int]:
        for job in range(10):
            pulled.append(job)
            yield job

    running = Local(workers).run(double, jobs())
    next(running)
    assert len(pulled) <= 2 * workers  # all may end together, and each has its next before the first is told
    running.close()  # type: ignore[attr-defined]


def test_a_job_whose_process_is_killed_is_done_again_and_no_other_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    found = outcomes(Local(2), dies_once, [(number, str(log)) for number in range(6)])
    assert {number: result for (number, _), result in found.items()} == {number: 2 * number for number in range(6)}
    lines = log.read_text().split("\n")
    assert [lines.count(f"start {number}") for number in range(6)] == [1, 1, 2, 1, 1, 1]
    assert [lines.count(f"end {number}") for number in range(6)] == [1] * 6


def test_a_job_that_always_kills_its_process_fails_and_takes_no_other_along() -> None:
    found = outcomes(Local(2), kills_itself_at_2, range(5))
    assert found.pop(2) == Failure(f"its process died {ATTEMPTS} times, last by SIGKILL")
    assert found == {0: 0, 1: 2, 3: 6, 4: 8}


def test_a_result_that_cannot_be_handed_over_is_a_failure() -> None:
    found = outcomes(Local(2), unpicklable, [1, 2])
    assert all("cannot be handed over" in outcome.reason for outcome in found.values())


def naps(job: tuple[int, str]) -> int:
    """Leave the process id in a file, and stay longer than the test."""
    Path(job[1], str(os.getpid())).touch()
    time.sleep(60)
    return job[0]


def test_leaving_early_ends_the_processes_at_once(tmp_path: Path) -> None:
    jobs: list[tuple[int, str]] = [(0, ""), (1, str(tmp_path)), (2, str(tmp_path))]
    running = Local(2).run(double_or_nap, iter(jobs))
    assert next(running)[0] == (0, "")
    workers = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
    assert workers
    running.close()  # type: ignore[attr-defined]
    _, alive = psutil.wait_procs(workers, 10)
    assert not alive


def double_or_nap(job: tuple[int, str]) -> int:
    return naps(job) if job[1] else 2 * job[0]


DRIVER = """
import sys
from senet_bench.run.local import Local
from tests.test_engines import naps
if __name__ == "__main__":
    list(Local(2).run(naps, iter([(1, sys.argv[1]), (2, sys.argv[1])])))
"""


def test_a_killed_driver_leaves_no_process_behind(tmp_path: Path) -> None:
    script, pids = tmp_path / "driver.py", tmp_path / "pids"
    script.write_text(DRIVER)
    pids.mkdir()
    paths = os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))
    driver = subprocess.Popen([sys.executable, script, pids], env=os.environ | {"PYTHONPATH": paths})
    while len(list(pids.iterdir())) < 2:
        assert driver.poll() is None
        time.sleep(0.05)
    workers = [psutil.Process(int(path.name)) for path in pids.iterdir()]
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(workers, 10)
    assert not alive


def holds_a_lock(job: int) -> int:
    """As tqdm, and so torch.fx, does: a semaphore with a name, which somebody has to take away at the end."""
    setattr(sys, "_held", multiprocessing.get_context("spawn").Lock())  # noqa: B010 - sys has no such attribute
    return job


LOCKED = """
from senet_bench.run.local import Local
from tests.test_engines import holds_a_lock
if __name__ == "__main__":
    print(len(list(Local(2).run(holds_a_lock, iter([1, 2, 3])))))
"""


def test_processes_that_end_leave_no_semaphores_behind(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(LOCKED)
    paths = os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))
    ended = subprocess.run(
        [sys.executable, script], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("3\n", "", 0)


@pytest.mark.parametrize(
    ("engine", "line"), [(RayCluster(), "senet-bench[ray]"), (Slurm(Path("here")), "senet-bench[slurm]")]
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    engine: Engine, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name in ("ray", "submitit"):
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UsageError, match="pip install") as raised:
        list(engine.run(double, iter([1])))
    assert line in str(raised.value)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:port", "localhost:"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="HOST:PORT"):
        list(RayCluster(address).run(double, iter([1])))


def test_a_cluster_that_does_not_answer_is_one_line() -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UsageError, match=f"no Ray cluster answers at {address}") as raised:
        list(RayCluster(address).run(double, iter([1])))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_loses_no_job_when_a_worker_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    log = tmp_path / "log"
    log.touch()
    engine = RayCluster(cpus=0.5)
    found = outcomes(engine, dies_once, [(number, str(log)) for number in range(6)])
    assert {number: result for (number, _), result in found.items()} == {number: 2 * number for number in range(6)}
    lines = log.read_text().split("\n")
    assert [lines.count(f"end {number}") for number in range(6)] == [1] * 6
    assert lines.count("start 2") == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_names_the_job_that_raises_and_the_one_that_always_dies() -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        found = outcomes(RayCluster(), fails_at_3, range(5))
        assert found == {0: 0, 1: 2, 2: 4, 3: Failure("ValueError: three is not wanted"), 4: 8}
        died = outcomes(RayCluster(), kills_itself_at_2, range(3))
        assert isinstance(died.pop(2), Failure)
        assert died == {0: 0, 1: 2}
        with pytest.raises(UsageError, match="no room for a trial of 99 CPUs"):
            list(RayCluster(cpus=99).run(double, iter([1])))
        assert ray.is_initialized()  # a cluster that was there before is left running
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # submitit's own
def test_slurm_by_submitits_local_executor(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    engine = Slurm(tmp_path / "slurm", at_once=2, cluster="local")
    assert outcomes(engine, fails_at_3, range(2, 5)) == {2: 4, 3: Failure("ValueError: three is not wanted"), 4: 8}


def test_an_unknown_cluster_of_slurm_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(UsageError, match="Slurm cannot be used here"):
        list(Slurm(tmp_path / "slurm", cluster="abacus").run(double, iter([1])))


class Submitted:
    """A job of a pretended submitit, whose result is what lies in its folder."""

    def __init__(self, result: Any, *, done: bool = True) -> None:
        self.lies, self.job_id = result, str(id(self))
        self.paths = SimpleNamespace(result_pickle=Path(os.devnull if done else "nowhere"), stderr=Path("log"))

    def exception(self) -> None:
        return None

    def result(self) -> Any:
        return self.lies


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pretended submitit: `made` are its executors, `submit` what they do."""
    state = SimpleNamespace(made=[], jobs=[], asked=[], refuse=None)

    class Executor:
        def __init__(self, folder: Path, cluster: str, slurm_max_num_timeout: int) -> None:
            self.folder = folder
            state.made.append(folder)

        def update_parameters(self, **options: Any) -> None:
            if "timeout" in options:
                raise NameError("Unknown argument: timeout")

        def batch(self) -> Any:
            return contextlib.nullcontext()

        def submit(self, function: Any, *arguments: Any) -> Submitted:
            if state.refuse:
                self.folder.mkdir(parents=True, exist_ok=True)
                for name in ("0123abcd.pkl", ".submission_file_0123abcd.sh"):
                    (self.folder / name).touch()
                raise RuntimeError(state.refuse)
            state.jobs.append(state.answer(function, *arguments))
            job: Submitted = state.jobs[-1]
            return job

    def answer(*command: str) -> str:
        state.asked.append(command)
        return ""

    monkeypatch.setattr(slurm_queue, "_answer", answer)
    state.answer = lambda function, *arguments: Submitted(function(*arguments))
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=Executor))
    return state


def test_the_result_of_another_slurm_job_is_never_taken(slurm: Any, tmp_path: Path) -> None:
    engine = Slurm(tmp_path)
    assert outcomes(engine, fails_at_3, [2, 3]) == {2: 4, 3: Failure("ValueError: three is not wanted")}
    assert outcomes(engine, double, [5]) == {5: 10}
    assert len(set(slurm.made)) == 2  # a folder for each front end
    for lies in (("0123", 99), 99):
        slurm.answer = lambda function, *arguments, lies=lies: Submitted(lies)
        (outcome,) = outcomes(engine, double, [5]).values()
        assert outcome == Failure(f"its Slurm job failed {ATTEMPTS} times: the result in its folder is of another job")


def test_a_result_that_cannot_be_read_any_more_is_computed_anew_and_it_is_told(slurm: Any, tmp_path: Path) -> None:
    class OfEarlierCode(Submitted):
        def exception(self) -> None:
            raise ModuleNotFoundError("No module named 'senet_bench.train'")

    made: list[Submitted] = []

    def answer(function: Any, *arguments: Any) -> Submitted:
        made.append((Submitted if made else OfEarlierCode)(function(*arguments)))
        return made[-1]

    slurm.answer = answer
    assert outcomes(Slurm(tmp_path), double, [5]) == {5: 10}
    assert len(made) == 2
    text = Busy(0, 1, again="1 submitted again (last: its result is of another version)").text()
    assert text == "0 running, 1 pending, 1 submitted again (last: its result is of another version)"


def test_ctrl_c_cancels_slurm_jobs_and_says_so(slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    slurm.answer = lambda function, *arguments: Submitted(None, done=False)
    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt, match="3 Slurm jobs are cancelled"):
        list(Slurm(tmp_path).run(double, iter(range(3))))
    assert ("scancel", *(job.job_id for job in slurm.jobs)) in slurm.asked


def test_options_that_slurm_refuses_are_named(slurm: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"jobs with timeout=5 .*Unknown argument"):
        list(Slurm(tmp_path, options={"timeout": 5}).run(double, iter([1])))
    slurm.refuse = "sbatch: error: invalid partition specified: nope"
    with pytest.raises(UsageError, match=r"slurm_partition=nope .*invalid partition"):
        list(Slurm(tmp_path, options={"slurm_partition": "nope"}).run(double, iter([1])))
    assert [*tmp_path.iterdir()] == []


SUBMITS = """
import sys
from pathlib import Path
from senet_bench.run.engines import Busy
from senet_bench.run.slurm import Slurm
for moment in Slurm(Path(sys.argv[1]) / "slurm", detach=True, options={"timeout_min": 60}).watched(len, iter(["job"])):
    print("JSON")
job = moment[1].submitted
import submitit
handle = submitit.SlurmJob(folder=job.folder, job_id=job.id)
handle.watcher.update()  # asks sacct, which is not there: submitit warns
submitit.core.logger.warning("of submitit")
submitit.core.logger.get_logger().error("an error of submitit")
"""


def test_what_submitit_says_is_never_on_stdout(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    for name, script in (("sbatch", "echo Submitted batch job 7"), ("srun", "true")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    paths = {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))}
    done = subprocess.run(
        [sys.executable, "-c", SUBMITS, tmp_path], env=os.environ | paths, capture_output=True, text=True, check=True
    )
    assert done.stdout == "JSON\n"
    assert "WARNING" not in done.stderr
    assert done.stderr.count("an error of submitit") >= 1


def test_an_option_of_ray_that_is_no_number_is_a_usage_error(tmp_path: Path) -> None:
    from senet_bench.api.trials import engine_of

    with pytest.raises(UsageError, match="cpus=two is no number"):
        engine_of("ray", None, ["cpus=two"], None, "cpu", tmp_path)
