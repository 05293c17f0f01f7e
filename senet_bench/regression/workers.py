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
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, Literal, TypeVar

import msgspec

from senet_bench.bench.process import allocator_environment
from senet_bench.core.checkout import git
from senet_bench.core.specs import Allocator
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.regression.config import CheckedNetwork
from senet_bench.regression.facts import Portable
from senet_bench.regression.worker import ASK, END

ANSWER_S, BLOCK_LIMIT_S = 600.0, 120.0
ClockName = Literal["wall", "cpu"]
PROGRAM = Path(__file__).with_name("worker.py")
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


class WorkerAnswer(msgspec.Struct, Generic[Value]):
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


class PreparedNetwork(msgspec.Struct):
    """A network that is ready to be timed: seconds of its fastest call, and whether its calls wait for anything."""

    seconds: float
    waits: bool = True


class Forked:
    """A process that a `Nursery` forked, as a `subprocess.Popen` behaves."""

    def __init__(self, nursery: Nursery, root: str, errors: IO[bytes]) -> None:
        self.nursery = nursery
        self.returncode: int | None = None
        source, requests = os.pipe()
        answers, sink = os.pipe()
        self.stdin, self.stdout = os.fdopen(requests, "wb", buffering=0), os.fdopen(answers, "rb", buffering=0)
        try:
            self.pid = nursery.ask({"root": root}, source, sink, errors.fileno())
        finally:
            os.close(source)
            os.close(sink)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code, once it has ended; `subprocess.TimeoutExpired` where it does not."""
        until = time.monotonic() + timeout
        while (code := self._code()) is None:
            if time.monotonic() >= until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return code

    def _code(self) -> int | None:
        """Its exit code, None while it runs; 1 where the nursery, which knows, has died."""
        if self.returncode is None:
            try:
                self.returncode = self.nursery.ask({"process": self.pid})
            except (OSError, ValueError):
                self.returncode = 1
        return self.returncode

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """A process that has imported torch and forks workers; use as a context manager. None of it where nothing forks.

    Workers of one nursery share the addresses of their libraries, so several launches take one each.
    """

    def __init__(self, work: Orders) -> None:
        self.work = work
        self.control: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Nursery:
        if hasattr(os, "fork") and hasattr(socket, "send_fds"):
            self.control, theirs = socket.socketpair()
            self.process = subprocess.Popen(  # noqa: S603 - this interpreter, a file of ours
                [sys.executable, str(PROGRAM), str(self.work.threads)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(self.work),
            )
            theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        if self.control is not None:
            self.control.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ask(self, request: dict[str, object], *pipes: int) -> Any:
        """What it answers to a request that comes with these files."""
        if self.control is None:
            raise OSError("it has died")
        socket.send_fds(self.control, [json.dumps(request).encode()], pipes)
        self.control.settimeout(ANSWER_S)
        return json.loads(self.control.recv(1 << 10))

    def begin(self, root: str, errors: IO[bytes]) -> Forked | subprocess.Popen[bytes]:
        """A new process for a worker of the checkout at `root`, or of those that it will be told where it is empty."""
        if self.control is not None:
            try:
                return Forked(self, root, errors)
            except (OSError, ValueError):  # it died: a process of its own says why, if that does not start either
                self.control.close()
                self.control = None
        return subprocess.Popen(  # noqa: S603 - this interpreter, a file of ours
            [sys.executable, str(PROGRAM), root, str(self.work.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(self.work),
            bufsize=0,
        )


def _environment(work: Orders) -> dict[str, str]:
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(work.threads))
    return {**os.environ, **limits, **allocator_environment(work.allocator)}


class Worker:
    """A worker process; use as a context manager. A thread reads what it says: pipes cannot be waited for anywhere."""

    def __init__(self, root: Path | None, nursery: Nursery) -> None:
        self.root, self.nursery = "" if root is None else str(root), nursery
        self._start()

    def _start(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = self.nursery.begin(self.root, self.errors)
        assert self.process.stdout is not None
        self.said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.heard = bytearray()
        threading.Thread(target=_read, args=(self.process.stdout, self.said), daemon=True).start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self.end(at_once=failed is not None)

    def end(self, *, at_once: bool = False) -> None:
        """End the process, unless it has been ended; who interrupts does not wait for what it is doing."""
        if not self.errors.closed:
            self._end(at_once=at_once)

    def _end(self, *, at_once: bool) -> None:
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

    def answered(self, kind: type[Value]) -> WorkerAnswer[Value]:
        """The answer to the last request, its value of that type. A worker that died over it is begun anew."""
        try:
            return msgspec.json.decode(self.answer(), type=WorkerAnswer[kind])  # type: ignore[valid-type]
        except MeasurementError as error:
            self._end(at_once=True)
            killed = self.process.returncode in (-9, 137)  # by us, or where memory ran out
            self._start()
            return WorkerAnswer(error=error.problem, machine=killed)

    def block(self, place: int) -> float:
        """Seconds of the fastest call of a block of a network."""
        self._send(bytes([place]))
        while len(self.heard) < 8:
            self._receive(BLOCK_LIMIT_S)
        data, self.heard[:] = bytes(self.heard[:8]), self.heard[8:]
        return float(struct.unpack("<d", data)[0])

    def _send(self, data: bytes) -> None:
        """Write to the process; that it has died is found by reading from it, whenever it died."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(data)

    def _receive(self, limit_s: float) -> None:
        try:
            data = self.said.get(timeout=limit_s)
        except queue.Empty as error:
            self.process.kill()
            remedy = "use smaller images or a smaller batch"
            raise MeasurementError(f"a worker gave no answer in {limit_s:g} s", remedy) from error
        if not data:
            self.said.put(data)  # whoever reads again finds the end again
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

    networks: Sequence[CheckedNetwork]
    threads: int = 1
    batch_size: int = 1
    allocator: Allocator = "as-is"


def _read(pipe: IO[bytes], said: queue.SimpleQueue[bytes]) -> None:
    """Put what comes out of a pipe into a queue, and nothing at its end."""
    with contextlib.suppress(OSError, ValueError):
        while data := os.read(pipe.fileno(), 1 << 16):
            said.put(data)
    said.put(b"")


def answers(workers: Sequence[Worker], kind: type[Value], do: str, **request: object) -> list[WorkerAnswer[Value]]:
    """What every worker answers to the same request, or to `each` its own; they work on it side by side."""
    each = request.pop("each", None)
    for place, worker in enumerate(workers):
        own = each[place] if isinstance(each, list) else {}
        worker.ask(do, **{"with": {**request, **own}})
    return [worker.answered(kind) for worker in workers]
