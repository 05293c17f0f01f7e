"""The base's checkout beside this one, and worker processes that hold the networks of each.

A byte asks a worker for a block of calls; only one of them runs at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from senet_bench.bench.process import allocator_environment
from senet_bench.core.specs import Allocator
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.regression.baselines import git
from senet_bench.regression.config import Checked
from senet_bench.regression.limits import counted_metrics
from senet_bench.regression.worker import ASK, END

ANSWER_S, BLOCK_LIMIT_S = 600.0, 120.0


@dataclass(frozen=True, slots=True)
class Checkout:
    """The files of a commit: the folder that corresponds to this one, and which commit it is."""

    folder: Path
    commit: str
    created: str


@contextlib.contextmanager
def checked_out(ref: str, folder: Path) -> Iterator[Checkout]:
    """The checkout of `ref` in a temporary git worktree; `UsageError` outside git and for an unknown ref."""
    top = git(folder, "rev-parse", "--show-toplevel")
    if not top:
        raise UsageError(f"{folder.resolve()} is in no git repository", "leave --base out to compare with stored facts")
    commit = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if not commit:
        raise UsageError(f"git knows no commit {ref!r}", "name a commit, or fetch it (in CI: fetch-depth: 0)")
    inside = folder.resolve().relative_to(Path(top).resolve())
    parent = Path(tempfile.mkdtemp(prefix="senet-bench-base-"))
    try:
        _add(folder, parent / "base", commit)
        created = git(folder, "show", "-s", "--format=%cI", commit)
        found = parent / "base" / inside
        if not found.is_dir():
            raise UsageError(f"{ref} has no folder {inside}", "run it in a folder that both have")
        with _ended_as_by_ctrl_c():
            yield Checkout(found, commit[:12], created)
    finally:
        git(folder, "worktree", "remove", "--force", str(parent / "base"))
        shutil.rmtree(parent, ignore_errors=True)
        git(folder, "worktree", "prune")


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, with which CI systems and schedulers end a job, raises `KeyboardInterrupt`: the worktree is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _add(folder: Path, place: Path, commit: str) -> None:
    done = subprocess.run(  # noqa: S603 - fixed program, no shell
        ["git", "-C", str(folder), "worktree", "add", "--detach", "--force", str(place), commit],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["git worktree failed"])[-1]
        raise MeasurementError(f"the base cannot be checked out ({said})", "make room, or remove stale worktrees")


class Worker:
    """A worker process; use as a context manager."""

    def __init__(self, root: Path, work: Orders) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        program, threads = Path(__file__).with_name("worker.py"), str(work.threads)
        limits = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        self.process = subprocess.Popen(  # noqa: S603 - this interpreter, a file of ours
            [sys.executable, str(program), str(root), threads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **limits, **allocator_environment(work.allocator)},
            bufsize=0,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError, MeasurementError):
            self._send(bytes([END]))
        try:
            self.process.wait(timeout=0 if failed else 5)  # who interrupts does not wait for what it is doing
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def ask(self, do: str, **request: Any) -> None:
        """Send a request; `answer` waits for what it gets."""
        self._send(bytes([ASK]) + json.dumps({"do": do, **request}).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        """The answer to the last request."""
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self._receive(ANSWER_S)
        found: dict[str, Any] = json.loads(line)
        return found

    def block(self, place: int) -> float:
        """Seconds of the fastest call of a block of a network."""
        self._send(bytes([place]))
        data = b""
        while len(data) < 8:
            data += self._receive(BLOCK_LIMIT_S, 8 - len(data))
        return float(struct.unpack("<d", data)[0])

    def _send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
        except OSError as error:
            raise self._died() from error

    def _receive(self, limit_s: float, most: int = 1 << 16) -> bytes:
        pipe = self.process.stdout
        assert pipe is not None
        ready, _, _ = select.select([pipe], [], [], limit_s)
        if not ready:
            self.process.kill()
            raise MeasurementError(f"a worker gave no answer in {limit_s:g} s", "use smaller images or a smaller batch")
        data = os.read(pipe.fileno(), most)
        if not data:
            raise self._died()
        return data

    def _died(self) -> MeasurementError:
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        said = lines[-1][:300] if lines else f"exit status {self.process.returncode}"
        return MeasurementError(f"a worker process died ({said})", "run it with one network to see which")


@dataclass(frozen=True, slots=True)
class Survey:
    """What a checkout's worker found: facts, source file and peak bytes by network, and errors with `missing`."""

    facts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    peaks: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, tuple[str, bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What is measured: the networks, the threads of a process, images in a call, the allocator."""

    networks: Sequence[Checked]
    threads: int = 1
    batch_size: int = 1
    allocator: Allocator = "as-is"

    def request(self) -> dict[str, Any]:
        """What a worker is told: the networks, and the functions that count further metrics."""
        listed = [[network.name, list(network.input_size)] for network in self.networks]
        return {"networks": listed, "batch_size": self.batch_size, "counted": counted_metrics()}


def look(roots: Sequence[Path], work: Orders, *, memory: bool) -> list[Survey]:
    """Facts, and with `memory` peak bytes, of the networks in each checkout."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(root, work)) for root in roots]
        facts = answers(workers, "facts", work)
        peaks = answers(workers, "memory", work) if memory else [{} for _ in workers]
    return [_survey(*both) for both in zip(facts, peaks)]


def answers(workers: Sequence[Worker], do: str, work: Orders) -> list[dict[str, Any]]:
    """What every worker answers to the same request; they work on it side by side."""
    for worker in workers:
        worker.ask(do, **work.request())
    return [worker.answer() for worker in workers]


def _survey(facts: Mapping[str, Any], peaks: Mapping[str, Any]) -> Survey:
    errors = {
        name: (one["error"], one["missing"]) for part in (peaks, facts) for name, one in part.items() if "error" in one
    }
    told = {name: one["is"] for name, one in facts.items() if "is" in one}
    return Survey(
        facts={name: one["facts"] for name, one in told.items()},
        sources={name: one["source"] for name, one in told.items()},
        peaks={name: one["is"] for name, one in peaks.items() if "is" in one},
        errors=errors,
    )
