"""The program that a worker process runs: it holds the networks of one checkout and times a block when told to.

Run as a file with the checkout's folder as argument. Over stdin a byte below 200 asks for a block of that network
and is answered by eight bytes, the seconds of its fastest call; the byte 250 is followed by a line of JSON and is
answered by one; 255 ends it. Everything that networks print goes to stderr.

Run without a folder it imports torch and forks workers when told to, over a socket that is its stdin: importing torch
takes longer than all else that a worker does for a small network.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

HERE = Path(__file__).resolve().parent


def beside(name: str) -> Any:
    """The module in a file beside this one, loaded under a name that no checkout has."""
    spec = importlib.util.spec_from_file_location(f"senet_bench_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from senet_bench.regression.tenants import ProcessState, Reading, Tenant
else:
    tenants = beside("tenants")
    ProcessState, Reading, Tenant = tenants.ProcessState, tenants.Reading, tenants.Tenant

ASK, END = 250, 255
WINDOW, SETTLED, WARMUP_S, REWARM_S = 8, 0.98, 0.5, 0.1
TimedCall = Callable[[], object]


class Servant:
    """The networks of a checkout, by place, and what can be asked of them."""

    def __init__(self, portable: Any, reading: Reading) -> None:
        self.portable = portable
        self.reading = reading
        self.tenants: dict[str, Tenant] = {}
        self.lodged: list[dict[str, TimedCall]] = []
        self.world: ProcessState | None = None
        self.calls: list[TimedCall | None] = []
        self.repeats: list[int] = []
        self.clocks: list[Callable[[], float]] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a request of JSON gets: `value`, or `error` as one line with whether the network is `missing`."""
        match request["do"]:
            case "repeats":
                self.repeats = request["repeats"]
                self.clocks = [CLOCKS[name] for name in request.get("clocks", ["wall"] * len(self.repeats))]
            case "pin":
                os.sched_setaffinity(0, {request["core"]})
            case "read":
                return {"value": self.reading.told()}
            case do:
                try:
                    with boundary(str(request["with"]["network"][0])), torch_inference(do in TIMED):
                        return {"value": getattr(self, do)(**request["with"])}
                except BaseException as error:  # noqa: BLE001 - told to the process that asked, SystemExit too
                    if do == "prepare":
                        self.calls.append(None)
                    return failure(error)
        return {}

    def facts(self, network: list[Any], counted: list[Any], keep: str | None) -> dict[str, Any]:
        """The portable facts and where the network's code is; its outputs are written to the file `keep`, if any."""
        name, size, how = network
        if keep is None:
            facts = self.portable.counted_facts(name, tuple(size), how, [tuple(one) for one in counted])
        else:
            facts = self.portable.named_facts(name, tuple(size), [tuple(one) for one in counted], keep, how)
        file, line = self.portable.code_place(name)
        return {"facts": asdict(facts), "file": file, "line": line}

    def modules(self, network: list[Any]) -> Any:
        """The function of a network with the outputs of its modules."""
        return self.portable.named_function(network[0], tuple(network[1]), network[2], modules=True)

    def memory(self, network: list[Any], batch_size: int) -> int:
        """The most bytes that a call holds beyond weights and images."""
        return int(self.portable.peak_bytes(self.called(network, batch_size)))

    def prepare(self, network: list[Any], batch_size: int) -> dict[str, Any]:
        """Build a network and call it until it gets no faster: seconds of its fastest call, and whether calls wait."""
        call = self.called(network, batch_size)
        seconds = warmed(call, WARMUP_S)
        self.calls.append(call)
        return {"seconds": seconds, "waits": waits(call)}

    def lodge(
        self, network: list[Any], others: list[list[Any]], arms: dict[str, str], batch_size: int, watched: bool
    ) -> list[dict[str, Any]]:
        """Build networks in the checkout of every arm, in turn: what `prepare` tells of each, of all arms together.

        What the arms after the first change for the whole process is seen where it is `watched`.
        """
        networks = [network, *others]
        self.tenants = {arm: Tenant(root) for arm, root in arms.items()}
        self.lodged = [{} for _ in networks]
        ready = [{"seconds": float("inf"), "waits": False} for _ in networks]
        for place, (arm, tenant) in enumerate(self.tenants.items()):
            for wanted, calls, state in zip(networks, self.lodged, ready):
                with tenant:
                    calls[arm] = self.called(wanted, batch_size)
                    tenant.expect(self.portable.code_place(wanted[0])[0])
                    state["seconds"] = min(state["seconds"], warmed(calls[arm], REWARM_S if place else WARMUP_S))
                    state["waits"] = state["waits"] or waits(calls[arm])
            self.world = ProcessState() if watched and not place else self.world
        return ready

    def rounds(self, network: list[Any], place: int, orders: list[list[str]], calls: int, clock: str) -> dict[str, Any]:
        """Seconds of the fastest of some calls in a row of every arm, in these orders."""
        seconds: dict[str, list[float]] = {arm: [] for arm in self.tenants}
        for order in orders:
            for arm in order:
                with self.tenants[arm]:
                    seconds[arm].append(fastest(self.lodged[place][arm], calls, CLOCKS[clock]))
        return seconds

    def spoilt(self, network: list[Any]) -> list[str]:
        """What one of the checkouts changed for all of them."""
        changed = self.world.changed() if self.world else []
        return changed + [name for tenant in self.tenants.values() for name in sorted(tenant.strange)]

    def called(self, network: list[Any], batch_size: int) -> TimedCall:
        """A call of the network on images that are always the same; raises on an output that is not finite."""
        import torch

        built = self.portable.built(network[0], how=network[2])
        images = torch.randn(batch_size, *network[1], generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            leaves = [value for _, value in self.portable.leaves(built(images)) if isinstance(value, torch.Tensor)]
        if not all(bool(torch.isfinite(value).all()) for value in leaves if value.is_floating_point()):
            raise ValueError("the output is not finite")
        return lambda: built(images)

    def block(self, place: int) -> float:
        """Seconds of the fastest of consecutive calls, after one that is not timed."""
        call = self.calls[place]
        if call is None:
            return -1.0
        call()
        return fastest(call, self.repeats[place], self.clocks[place])


def warmed(call: TimedCall, most_s: float) -> float:
    """Call until it gets no faster, for at most so many seconds; those of the fastest call."""
    times: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < most_s or len(times) < 2:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if len(times) >= 2 * WINDOW and min(times[-WINDOW:]) >= SETTLED * min(times[-2 * WINDOW : -WINDOW]):
            break
    return min(times)


def fastest(call: TimedCall, calls: int, now: Callable[[], float]) -> float:
    """Seconds of the fastest of some calls in a row."""
    seconds = float("inf")
    for _ in range(calls):
        start = now()
        call()
        seconds = min(seconds, now() - start)
    return seconds


TIMED = ("memory", "prepare", "lodge", "rounds", "spoilt")
"""Requests that run in inference mode."""
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}
FINEST_S, CALLS_LOOKED_AT, LOOK_S = 1e-6, 10, 0.3


def waits(call: TimedCall) -> bool:
    """Whether calls wait for anything (a sleep, a file, another thread), so that their CPU time is not all they take.

    True also where the system does not say, or its clock of CPU time is coarse.
    """
    try:
        from resource import RUSAGE_THREAD, getrusage
    except ImportError:
        return True
    if time.get_clock_info("thread_time").resolution > FINEST_S:
        return True
    before, began, calls = getrusage(RUSAGE_THREAD).ru_nvcsw, time.perf_counter(), 0
    while calls < CALLS_LOOKED_AT and (calls == 0 or time.perf_counter() - began < LOOK_S):
        call()
        calls += 1
    return getrusage(RUSAGE_THREAD).ru_nvcsw - before > calls // CALLS_LOOKED_AT


def boundary(name: str) -> contextlib.AbstractContextManager[None]:
    """What code of others runs behind here; less where the checkout is one of senet-bench from before there was any."""
    try:
        from senet_bench.core.foreign import guarded
    except ImportError:
        return unending()
    return guarded(name)


def failure(error: BaseException) -> dict[str, Any]:
    """An error as an answer: one line with its place, whether there is no such network, whether memory ran out."""
    missing = isinstance(error, ImportError | AttributeError) or type(error).__name__ == "UsageError"
    try:
        from senet_bench.core.foreign import place_of
        from senet_bench.errors import out_of_memory
    except ImportError:
        place, machine = "", isinstance(error, MemoryError)
    else:
        place, machine = place_of(error), out_of_memory(error.__cause__ or error)
    line = " ".join(f"{type(error).__name__}: {error}".split())[:300] + place
    return {"error": line, "missing": missing, "machine": machine}


@contextlib.contextmanager
def unending() -> Iterator[None]:
    """`os._exit` of a network's code raises `SystemExit` meanwhile: it ends its own answer, not this process."""
    leave, process = os._exit, os.getpid()

    def refused(status: int) -> NoReturn:
        if os.getpid() != process:  # a child of a fork ends as it likes
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refused
    try:
        yield
    finally:
        os._exit = leave


@contextlib.contextmanager
def torch_inference(timed: bool) -> Iterator[None]:
    """Inference mode for what is timed; facts are counted without it, as `check` without a base counts them."""
    import torch

    with torch.inference_mode(timed):
        yield


def serve(worker: Servant, source: BinaryIO, sink: BinaryIO) -> None:
    """Answer until told to end, or until nobody asks any more."""
    while (token := source.read(1)) and token[0] != END:
        if token[0] == ASK:
            sink.write(json.dumps(worker.answer(json.loads(source.readline()))).encode() + b"\n")
        else:
            with torch_inference(True):
                sink.write(struct.pack("<d", worker.block(token[0])))
        sink.flush()


def serve_checkout(root: str, threads: int, source: BinaryIO, sink: BinaryIO) -> None:
    """Take the networks from the checkout at `root`, or where it is empty from those that a request names."""
    import torch

    reading = Reading(root)
    if root:
        sys.path[:0] = [path for path in (root, os.path.join(root, "src")) if os.path.isdir(path)]
        os.chdir(root)
        sys.addaudithook(reading.hear)
    torch.set_num_threads(threads)
    portable = beside("facts")
    gc.collect()
    gc.freeze()
    gc.disable()
    serve(Servant(portable, reading), source, sink)


def alone(root: str, threads: int) -> None:
    """Be the only worker of this process."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve_checkout(root, threads, sys.stdin.buffer, sink)


def nurse(threads: int) -> None:
    """Fork a worker for each request until nobody asks any more; a request for a `process` gets its exit code."""
    import torch

    torch.set_num_threads(threads)
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=os.dup(0))
    while True:
        data, pipes, _, _ = socket.recv_fds(control, 1 << 16, 3)
        if not data:
            return
        request = json.loads(data)
        answer = child_exit_code(request["process"]) if "process" in request else fork(request["root"], threads, pipes)
        for pipe in pipes:
            os.close(pipe)
        control.sendall(json.dumps(answer).encode())


def child_exit_code(process: int) -> int | None:
    """The exit code of a child, None while it runs."""
    ended, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def fork(root: str, threads: int, pipes: list[int]) -> int:
    """The process of a new worker, which reads and writes the first two pipes and has the third as stderr.

    Its memory begins at a place of its own, as that of a process which was started anew.
    """
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(pipes[2], 2)
        os.dup2(2, 1)
        shifts = bytearray(16 * secrets.randbelow(1 << 12)), bytearray((1 << 18) + 4096 * secrets.randbelow(64))
        serve_checkout(root, threads, os.fdopen(pipes[0], "rb"), os.fdopen(pipes[1], "wb"))
        del shifts
        code = 0
    except BaseException as error:  # noqa: BLE001 - told on stderr, as Python does at its end
        sys.stderr.write(failure(error)["error"] + "\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != HERE]
    if len(sys.argv) == 2:
        nurse(int(sys.argv[1]))
    else:
        alone(sys.argv[1], int(sys.argv[2]))
