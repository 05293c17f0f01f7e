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
from typing import Any, BinaryIO, NoReturn

HERE = Path(__file__).resolve().parent
ASK, END = 250, 255
WINDOW, SETTLED, WARMUP_S = 8, 0.98, 0.5
BLOCK_S, MOST_CALLS, FEWEST_CALLS = 2e-3, 64, 4
TimedCall = Callable[[], object]


class Reading:
    """What this process reads of the checkout at `root`, as Python's audit events tell."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.opened: set[str] = set()
        self.unseen = False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Keep the path of a file that is opened, and whether something begins that reads files by itself."""
        if event in ("open", "ctypes.dlopen") and isinstance(arguments[0], str | bytes):
            self.opened.add(os.path.abspath(os.fsdecode(arguments[0])))
        elif event in UNSEEN_EVENTS:
            self.unseen = True

    def told(self) -> dict[str, Any]:
        """The modules and other files that were read below the root, and modules from elsewhere but libraries."""
        loaded = {
            name: os.path.realpath(file)
            for name, module in list(sys.modules.items())
            if name not in OWN_MODULES and (file := getattr(module, "__file__", None))
        }
        modules = {name: inside for name, file in loaded.items() if (inside := self._inside(file))}
        opened = {inside for file in self.opened if (inside := self._inside(os.path.realpath(file)))}
        files = sorted(file for file in opened - set(modules.values()) if not file.endswith(".pyc"))
        foreign = {file for name, file in loaded.items() if name not in modules and os.path.isfile(file)}
        elsewhere = sorted(file for file in foreign if not _of_library(file))
        return {"modules": modules, "files": files, "elsewhere": elsewhere, "unseen": self.unseen}

    def _inside(self, file: str) -> str:
        """A file as seen from the root, empty where it lies elsewhere or is none."""
        inside = file.startswith(self.root + os.sep) and os.path.isfile(file)
        return os.path.relpath(file, self.root).replace(os.sep, "/") if inside else ""


def _of_library(file: str) -> bool:
    return any(file.startswith(os.path.realpath(place)) for place in (sys.prefix, sys.base_prefix, HERE.parent))


class Servant:
    """The networks of a checkout, by place, and what can be asked of them."""

    def __init__(self, portable: Any, reading: Reading) -> None:
        self.portable = portable
        self.reading = reading
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
                    with boundary(request["with"]["network"][0]), torch_inference(do in ("memory", "prepare")):
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
        times: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < WARMUP_S or len(times) < 2:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
            if len(times) >= 2 * WINDOW and min(times[-WINDOW:]) >= SETTLED * min(times[-2 * WINDOW : -WINDOW]):
                break
        self.calls.append(call)
        return {"seconds": min(times), "waits": waits(call)}

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
        fastest, now = float("inf"), self.clocks[place]
        for _ in range(self.repeats[place]):
            start = now()
            call()
            fastest = min(fastest, now() - start)
        return fastest


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}
OWN_MODULES = ("__main__", "__mp_main__", "senet_bench_portable_facts")
UNSEEN_EVENTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "socket.connect")
FINEST_S, CALLS_LOOKED_AT = 1e-6, 10


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
    before = getrusage(RUSAGE_THREAD).ru_nvcsw
    for _ in range(CALLS_LOOKED_AT):
        call()
    return getrusage(RUSAGE_THREAD).ru_nvcsw - before > 1


def boundary(name: str) -> contextlib.AbstractContextManager[None]:
    """What code of others runs behind here; less where the checkout is one of senet-bench from before there was any."""
    try:
        from senet_bench.core.foreign import guarded
    except ImportError:
        return unending()
    return guarded(name)


def failure(error: BaseException) -> dict[str, Any]:
    """An error as an answer: one line with its place, and whether there is no such network."""
    missing = isinstance(error, ImportError | AttributeError) or type(error).__name__ == "UsageError"
    try:
        from senet_bench.core.foreign import place_of
    except ImportError:
        place = ""
    else:
        place = place_of(error)
    line = " ".join(f"{type(error).__name__}: {error}".split())[:300] + place
    machine = isinstance(error, MemoryError) or "memory" in line.lower()
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
    """Take the networks from the checkout at `root`, then serve."""
    sys.path[:0] = [path for path in (root, os.path.join(root, "src")) if os.path.isdir(path)]
    os.chdir(root)
    import torch

    torch.set_num_threads(threads)
    reading = Reading(root)
    sys.addaudithook(reading.hear)
    spec = importlib.util.spec_from_file_location("senet_bench_portable_facts", HERE / "facts.py")
    assert spec is not None
    assert spec.loader is not None
    portable = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = portable
    spec.loader.exec_module(portable)
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
