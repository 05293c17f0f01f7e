"""A job that several processes of one machine do together, each a rank that is started here.

What they do and what came out of it lie in a folder of the job's own.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from senet_bench.errors import BenchError, LostError, MeasurementError, one_line
from senet_bench.training.distributed import World, joined

RankJob = TypeVar("RankJob")
Result = TypeVar("Result")
TASK, OUTCOME = "task", "outcome"
RANK_POLL_S = 0.1
RANK_PROGRAM = "import sys; from senet_bench.training.ranks import main; sys.exit(main(sys.argv[1], int(sys.argv[2])))"
"""What a process of a job runs, with the job's folder and the process that started it."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """How many processes do a job, on a kind of device; `seen` names the GPUs that they see, None for all."""

    size: int
    device: str = "cpu"
    seen: str | None = None


@dataclass(frozen=True, slots=True)
class _Done(Generic[Result]):
    """What a job came to."""

    result: Result


def together(function: Callable[[RankJob, World], Result], job: RankJob, ranks: Ranks) -> Result:
    """The result of a job in the first of several processes, which all do it with their place in the world.

    Raises what the first that failed raised, or `LostError` where one died; the others are ended.
    """
    with tempfile.TemporaryDirectory(prefix="senet-bench-ranks-") as name:
        folder = Path(name)
        (folder / TASK).write_bytes(pickle.dumps((function, job, ranks.device)))
        processes = [_started(folder, rank, ranks) for rank in range(ranks.size)]
        try:
            _wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        place = folder / OUTCOME
        outcome = pickle.loads(place.read_bytes()) if place.is_file() else None  # noqa: S301 - from our own process
        if isinstance(outcome, _Done):
            result: Result = outcome.result
            return result
        if isinstance(outcome, BenchError):
            raise outcome
        codes = ", ".join(str(process.returncode) for process in processes)
        said = "; ".join(filter(None, (_last_line(folder / f"{rank}.txt") for rank in range(ranks.size))))
        raise LostError(
            f"the {ranks.size} processes of a trial ended with {codes}{f': {said}' if said else ''}", "start it again"
        )


def _started(folder: Path, rank: int, ranks: Ranks) -> subprocess.Popen[bytes]:
    """One process of the job; all of them meet at a port that is free now."""
    port = folder / "port"
    if rank == 0:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port.write_text(str(server.getsockname()[1]))
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks.size), "MASTER_ADDR": "127.0.0.1"}
    variables |= {"MASTER_PORT": port.read_text()}
    if ranks.seen is not None:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(name.partition(":")[2] for name in ranks.seen.split(","))
    command = [sys.executable, "-c", RANK_PROGRAM, str(folder), str(os.getpid())]
    with (folder / f"{rank}.txt").open("wb") as said:
        return subprocess.Popen(  # noqa: S603 - this program itself
            command, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all have ended, or one of them without success."""
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):
            return
        time.sleep(RANK_POLL_S)


def _last_line(file: Path) -> str:
    """The last line that a process wrote."""
    lines = file.read_text(errors="replace").strip().splitlines() if file.is_file() else []
    return lines[-1][:200] if lines else ""


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(RANK_POLL_S)
    os._exit(1)


def main(name: str, parent: int) -> int:
    """Do the job as one rank; the outcome of the first, or of the first that failed, is left in the folder."""
    folder = Path(name)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    function, job, device = pickle.loads((folder / TASK).read_bytes())  # noqa: S301 - from our own parent
    outcome: _Done[Any] | BenchError
    try:
        with joined(device) as world:
            outcome = _Done(function(job, world))
    except BenchError as error:
        outcome = error
    except Exception as error:  # noqa: BLE001 - handed to the parent in one line
        outcome = MeasurementError(one_line(error))
    failed = isinstance(outcome, BenchError)
    if os.environ["RANK"] == "0" or failed:
        part = folder / f"{OUTCOME}.{os.environ['RANK']}"
        part.write_bytes(pickle.dumps(outcome))
        with contextlib.suppress(FileExistsError):
            os.link(part, folder / OUTCOME)  # the first outcome stays
    return int(failed)
