"""The base's checkout beside this one, and worker processes that hold the networks of each.

A byte asks a worker for a block of calls; only one of them runs at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Generic, TypeVar

import msgspec

from senet_bench.bench.process import allocator_environment
from senet_bench.core.checkout import git
from senet_bench.core.specs import Allocator
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.regression.config import Checked
from senet_bench.regression.facts import Portable
from senet_bench.regression.worker import ASK, END

ANSWER_S, BLOCK_LIMIT_S = 600.0, 120.0
Value = TypeVar("Value")


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


class Answer(msgspec.Struct, Generic[Value]):
    """What a worker answered: a value, or why there is none.

    `missing`: there is no such network; `machine`: memory or patience ran out, which says nothing of its code.
    """

    value: Value | None = None
    error: str = ""
    missing: bool = False
    machine: bool = False


class Described(msgspec.Struct):
    """A network's portable facts, and the file and line that its code begins at."""

    facts: Portable
    file: str
    line: int


class Worker:
    """A worker process; use as a context manager. A thread reads what it says: pipes cannot be waited for anywhere."""

    def __init__(self, root: Path, work: Orders) -> None:
        self.root, self.work = root, work
        self._start()

    def _start(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        program, threads = Path(__file__).with_name("worker.py"), str(self.work.threads)
        limits = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        self.process = subprocess.Popen(  # noqa: S603 - this interpreter, a file of ours
            [sys.executable, str(program), str(self.root), threads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **limits, **allocator_environment(self.work.allocator)},
            bufsize=0,
        )
        assert self.process.stdout is not None
        self.said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.heard = bytearray()
        threading.Thread(target=_read, args=(self.process.stdout, self.said), daemon=True).start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._end(at_once=failed is not None)

    def _end(self, *, at_once: bool) -> None:
        """End the process; who interrupts does not wait for what it is doing."""
        with contextlib.suppress(OSError, MeasurementError):
            self._send(bytes([END]))
        try:
            self.process.wait(timeout=0 if at_once else 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def ask(self, do: str, **request: object) -> None:
        """Send a request; `answer` waits for what it gets."""
        self._send(bytes([ASK]) + json.dumps({"do": do, **request}).encode() + b"\n")

    def answer(self) -> bytes:
        """The answer to the last request, JSON in a line."""
        while b"\n" not in self.heard:
            self._receive(ANSWER_S)
        line, _, rest = bytes(self.heard).partition(b"\n")
        self.heard[:] = rest
        return line

    def answered(self, kind: type[Value]) -> Answer[Value]:
        """The answer to the last request, its value of that type. A worker that died over it is begun anew."""
        try:
            return msgspec.json.decode(self.answer(), type=Answer[kind])  # type: ignore[valid-type]
        except MeasurementError as error:
            self._end(at_once=True)
            killed = self.process.returncode in (-9, 137)  # by us, or where memory ran out
            self._start()
            return Answer(error=error.problem, machine=killed)

    def block(self, place: int) -> float:
        """Seconds of the fastest call of a block of a network."""
        self._send(bytes([place]))
        while len(self.heard) < 8:
            self._receive(BLOCK_LIMIT_S)
        data, self.heard[:] = bytes(self.heard[:8]), self.heard[8:]
        return float(struct.unpack("<d", data)[0])

    def _send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
        except OSError as error:
            raise self._died() from error

    def _receive(self, limit_s: float) -> None:
        try:
            data = self.said.get(timeout=limit_s)
        except queue.Empty as error:
            self.process.kill()
            remedy = "use smaller images or a smaller batch"
            raise MeasurementError(f"a worker gave no answer in {limit_s:g} s", remedy) from error
        if not data:
            raise self._died()
        self.heard += data

    def _died(self) -> MeasurementError:
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        said = lines[-1][:300] if lines else f"exit status {self.process.returncode}"
        return MeasurementError(f"a worker process died ({said})", "run it with one network to see which")


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What is measured: the networks, the threads of a process, images in a call, the allocator."""

    networks: Sequence[Checked]
    threads: int = 1
    batch_size: int = 1
    allocator: Allocator = "as-is"


def _read(pipe: IO[bytes], said: queue.SimpleQueue[bytes]) -> None:
    """Put what comes out of a pipe into a queue, and nothing at its end."""
    with contextlib.suppress(OSError, ValueError):
        while data := os.read(pipe.fileno(), 1 << 16):
            said.put(data)
    said.put(b"")


def answers(workers: Sequence[Worker], kind: type[Value], do: str, **request: object) -> list[Answer[Value]]:
    """What every worker answers to the same request, or to `each` its own; they work on it side by side."""
    each = request.pop("each", None)
    for place, worker in enumerate(workers):
        own = each[place] if isinstance(each, list) else {}
        worker.ask(do, **{"with": {**request, **own}})
    return [worker.answered(kind) for worker in workers]
