"""Base and head in worker processes on one core: a byte asks for a block, only one of them runs at a time.

Processes of the same program differ (addresses, page placement) by far more than the rounds inside them, so a
comparison takes several launches of two workers each of base and head: two pairs, and the twins tell what two processes
of identical code differ by.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from senet_bench.bench import allocator
from senet_bench.core.specs import Allocator
from senet_bench.errors import MeasurementError
from senet_bench.regression.config import Network
from senet_bench.regression.worker import ASK, BLOCK_S, END, FEWEST_CALLS, MOST_CALLS

SLOW_CALL_S = 20e-3
"""Of calls this slow a block holds one."""
MOST_ROUNDS = 100
"""More rounds in a launch tell no more: processes differ by ten times what these leave open."""
FEWEST_ROUNDS = 6
STOLEN = 0.1
ANSWER_S, BLOCK_LIMIT_S = 600.0, 120.0


class Worker:
    """A worker process; use as a context manager."""

    def __init__(self, root: Path, asked: Asked) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        program, threads = Path(__file__).with_name("worker.py"), str(asked.threads)
        limits = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        self.process = subprocess.Popen(  # noqa: S603 - this interpreter, a file of ours
            [sys.executable, str(program), str(root), threads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **limits, **allocator.for_process(asked.allocator)},
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
class Looked:
    """What a checkout's worker found: facts, source file and peak bytes by network, and errors with `missing`."""

    facts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    peaks: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, tuple[str, bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is measured: the networks, the threads of a process, images in a call, the allocator."""

    networks: Sequence[Network]
    threads: int = 1
    batch_size: int = 1
    allocator: Allocator = "as-is"

    def request(self) -> dict[str, Any]:
        """The networks as a worker is told them."""
        listed = [[one.name, list(one.input_size)] for one in self.networks]
        return {"networks": listed, "batch_size": self.batch_size}


def look(roots: Sequence[Path], asked: Asked, *, memory: bool) -> list[Looked]:
    """Facts, and with `memory` peak bytes, of the networks in each checkout."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(root, asked)) for root in roots]
        facts = _ask_all(workers, "facts", asked)
        peaks = _ask_all(workers, "memory", asked) if memory else [{} for _ in workers]
    return [_looked(one, other) for one, other in zip(facts, peaks)]


def _ask_all(workers: Sequence[Worker], do: str, asked: Asked) -> list[dict[str, Any]]:
    for worker in workers:
        worker.ask(do, **asked.request())
    return [worker.answer() for worker in workers]


def _looked(facts: Mapping[str, Any], peaks: Mapping[str, Any]) -> Looked:
    errors = {
        name: (one["error"], one["missing"]) for part in (peaks, facts) for name, one in part.items() if "error" in one
    }
    told = {name: one["is"] for name, one in facts.items() if "is" in one}
    return Looked(
        facts={name: one["facts"] for name, one in told.items()},
        sources={name: one["source"] for name, one in told.items()},
        peaks={name: one["is"] for name, one in peaks.items() if "is" in one},
        errors=errors,
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """A network was timed in a launch: rounds kept, steps done of all."""

    what: str
    done: int
    total: int


Samples = dict[str, list[dict[str, Any]]]


def launches(
    arms: Mapping[str, Path], asked: Asked, *, count: int, budget_s: float, seed: int
) -> Iterator[Progress | Samples]:
    """Time every network in each arm's checkout, `count` launches long; the last item has all samples.

    `budget_s` is for a network in a launch. Samples are, by network, a dictionary a launch: seconds by arm
    (rounds,), and `dropped` rounds.
    """
    rng = np.random.default_rng(seed)
    found: Samples = {one.name: [] for one in asked.networks}
    for number in range(count):
        with contextlib.ExitStack() as stack:
            order = list(arms) if number % 2 == 0 else list(arms)[::-1]
            workers = {arm: stack.enter_context(Worker(arms[arm], asked)) for arm in order}
            ready = dict(zip(workers, _ask_all(list(workers.values()), "prepare", asked)))
            workers = {arm: workers[arm] for arm in arms}
            _settle(workers, ready, asked)
            for place, one in enumerate(asked.networks):
                found[one.name].append(_rounds(workers, place, budget_s, rng))
                yield Progress(f"{one.name}, launch {number + 1}", number * len(found) + place + 1, count * len(found))
    yield found


def _settle(workers: Mapping[str, Worker], ready: Mapping[str, dict[str, Any]], asked: Asked) -> None:
    """Give every worker the same block lengths and the same core."""
    from senet_bench.bench.clock import idlest_core

    names = [one.name for one in asked.networks]
    for arm, answers in ready.items():
        for name in names:
            if "error" in answers[name]:
                raise MeasurementError(f"{name} of {arm} cannot be run: {answers[name]['error']}")
    first = next(iter(ready.values()))
    repeats = [_repeats(first[name]["is"]["seconds"]) for name in names]
    pinning = hasattr(os, "sched_getaffinity")
    core = idlest_core(os.sched_getaffinity(0)) if pinning else 0
    for worker in workers.values():
        worker.ask("repeats", repeats=repeats)
        worker.answer()
        if pinning:
            worker.ask("pin", core=core)
            worker.answer()


def _repeats(seconds: float) -> int:
    """Calls in a block: 2 ms of them, 4 to 64; fewer of calls over 5 ms."""
    fewest = min(FEWEST_CALLS, max(1, int(SLOW_CALL_S / seconds)))
    return min(MOST_CALLS, max(fewest, math.ceil(BLOCK_S / seconds)))


def _rounds(
    workers: Mapping[str, Worker],
    place: int,
    budget_s: float,
    rng: np.random.Generator,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Rounds of every arm in a fresh random order until the budget is used."""
    from senet_bench.bench.clock import stolen_seconds

    names, began, done, dropped = list(workers), now(), 0, 0
    columns: dict[str, list[float]] = {name: [] for name in names}
    while done < MOST_ROUNDS + dropped and (now() - began < budget_s or done - dropped < FEWEST_ROUNDS):
        if now() - began > 4 * budget_s + BLOCK_LIMIT_S:
            break
        start, stolen = now(), stolen_seconds()
        seconds = {names[i]: workers[names[i]].block(place) for i in rng.permutation(len(names))}
        done += 1
        if stolen_seconds() - stolen > STOLEN * (now() - start):
            dropped += 1
            continue
        for name in names:
            columns[name].append(seconds[name])
    return {**{name: np.array(values) for name, values in columns.items()}, "dropped": dropped}
