"""Where the time of a forward pass passes: marks between modules, and torch's profiler as a second witness."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.profiler import DeviceType

from senet_bench.bench.clock import Call
from senet_bench.bench.device import Device, device_of
from senet_bench.bench.process import muted
from senet_bench.bench.runtimes import prepare
from senet_bench.breakdown.parts import Stage, annotated, shared_copy, wrap
from senet_bench.core.specs import Conditions
from senet_bench.errors import MeasurementError

WHOLE_CALL = "whole"
LEAST_TIMED, MOST_TIMED = 6, 60
LEAST_PROFILED, MOST_PROFILED = 3, 10

Now = Callable[[], float]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Shares of each call by what was marked: `stage:NAME` alone, and in other calls attention and its parts too.

    `whole` is the seconds of the calls with marks at the stages alone.
    """

    stages: Mapping[str, NDArray[np.float64]]
    blocks: Mapping[str, NDArray[np.float64]]
    whole: NDArray[np.float64]

    def shares(self, name: str) -> NDArray[np.float64]:
        """The fraction of each call that a stage took."""
        return self.stages.get(f"stage:{name}", np.zeros(self.whole.size))

    def block_shares(self, kind: str, names: Sequence[str]) -> NDArray[np.float64]:
        """The fraction of each call that `attention`, `squeeze` or `excitation` took in these blocks together."""
        return sum((self.blocks.get(f"{kind}:{name}", np.zeros(1)) for name in names), np.zeros(self.whole.size))


@dataclass(frozen=True, slots=True)
class Profiled:
    """Seconds of the operators themselves in the fastest call, by range: `stage:NAME`, `attention:NAME`, ..., `whole`.

    On the CPU the sum of the operators' own CPU time: what Python does between them is not in it. On a GPU the time
    of their kernels, which `kernels` counts. `slowdown` is how many times longer a profiled call takes than a plain
    one.
    """

    seconds: Mapping[str, float]
    calls: int
    slowdown: float
    kernels: Mapping[str, int] = field(default_factory=dict)

    def sum(self, kind: str, names: Sequence[str]) -> float:
        """Seconds of `kind` in these blocks or stages."""
        return sum(self.seconds.get(f"{kind}:{name}", 0.0) for name in names)

    def count(self, kind: str, names: Sequence[str]) -> int:
        """Kernels of `kind` in these blocks or stages."""
        return sum(self.kernels.get(f"{kind}:{name}", 0) for name in names)


def time_stages(
    network: nn.Module, stages: Sequence[Stage], conditions: Conditions, images: Tensor, now: Now, budget_s: float
) -> StageTimes:
    """Calls with a mark before and after each stage, in turn with calls with marks around attention and its parts too.

    They go on for about `budget_s`; eager inference only.
    """
    watch = _Stopwatch(device_of(conditions.device), now)
    marked = shared_copy(network)
    for stage in stages:
        wrap(marked.get_submodule(stage.members[0]), marked.get_submodule(stage.members[-1]), stage.name, watch.around)
    plain = prepare(marked, conditions, images).factory()
    full = prepare(annotated(network, stages, watch.around), conditions, images).factory()
    watch.read(plain), watch.read(full)
    wanted = _number(budget_s, watch.read(plain)[WHOLE_CALL] + watch.read(full)[WHOLE_CALL], LEAST_TIMED, MOST_TIMED)
    calls, full_calls = zip(*((watch.read(plain), watch.read(full)) for _ in range(wanted)))
    return StageTimes(_shares(calls), _shares(full_calls), np.array([seconds[WHOLE_CALL] for seconds in calls]))


def _shares(calls: Sequence[dict[str, float]]) -> dict[str, NDArray[np.float64]]:
    names = {name for seconds in calls for name in seconds}
    return {name: np.array([seconds.get(name, 0.0) / seconds[WHOLE_CALL] for seconds in calls]) for name in names}


class _Stopwatch:
    """Marks in the device's work, read when the call is over."""

    def __init__(self, device: Device, now: Now) -> None:
        self.device = device
        self.now = now
        self.marks: list[tuple[str, Any, Any]] = []

    @contextlib.contextmanager
    def around(self, what: str) -> Iterator[None]:
        """Record the time from here to the end."""
        start = self._mark()
        try:
            yield
        finally:
            self.marks.append((what, start, self._mark()))

    def read(self, call: Call) -> dict[str, float]:
        """Seconds of one call by what was marked; ranges of one name are added."""
        self.marks.clear()
        with self.around(WHOLE_CALL):
            call()
        self.device.synchronise()
        seconds: defaultdict[str, float] = defaultdict(float)
        for what, start, end in self.marks:
            seconds[what] += self.device.between(start, end)
        return dict(seconds)

    def _mark(self) -> Any:
        return self.device.mark(self.now)


def profiled(
    network: nn.Module, stages: Sequence[Stage], conditions: Conditions, images: Tensor, budget_s: float
) -> Profiled:
    """The network under torch's profiler, its stages, attention blocks and their parts in named ranges.

    Raises `MeasurementError` where the profiler sees nothing of what a GPU does.
    """
    device = device_of(conditions.device)
    plain = prepare(network, conditions, images).factory()
    call = prepare(annotated(network, stages, torch.profiler.record_function), conditions, images).factory()
    plain(), call()
    bare_s = _seconds_of(plain, 1, device)
    calls = _number(budget_s, bare_s, LEAST_PROFILED, MOST_PROFILED)
    bare_s = _seconds_of(plain, calls, device)
    activities = device.activities()

    def named() -> None:
        with torch.profiler.record_function(WHOLE_CALL):
            call()

    with muted(), torch.profiler.profile(activities=activities, acc_events=True) as seen:
        traced_s = _seconds_of(named, calls, device)
    on_gpu = len(activities) > 1
    ranges = _ranges(seen.events(), on_gpu=on_gpu)
    fastest, kernels = min(ranges, key=lambda call: call[0].get(WHOLE_CALL, math.inf))
    if on_gpu and not kernels.get(WHOLE_CALL):
        raise MeasurementError("torch's profiler saw no kernel of the GPU", "see whether this process may use CUPTI")
    return Profiled(fastest, len(ranges), traced_s / bare_s, kernels)


def _ranges(events: Any, *, on_gpu: bool) -> list[tuple[dict[str, float], dict[str, int]]]:
    """For each call, seconds and kernels of the operators inside each of our ranges, by the profiler's events."""

    def visit(event: Any, inside: tuple[str, ...], totals: Counter[str], kernels: Counter[str]) -> None:
        ours = event.name == WHOLE_CALL or event.name.partition(":")[0] in (
            "stage",
            "attention",
            "squeeze",
            "excitation",
        )
        if not ours:
            own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            for name in inside:
                totals[name] += own / 1e6
                kernels[name] += len(event.kernels)
        for child in event.cpu_children:
            visit(child, (*inside, event.name) if ours else inside, totals, kernels)

    calls: list[tuple[dict[str, float], dict[str, int]]] = []
    for event in events or ():
        if event.name == WHOLE_CALL and event.device_type == DeviceType.CPU:
            totals, kernels = Counter[str](), Counter[str]()
            visit(event, (), totals, kernels)
            calls.append((dict(totals), dict(kernels)))
    return calls


def _seconds_of(call: Call, calls: int, device: Device) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    device.synchronise()
    return max(time.perf_counter() - start, 1e-9)


def _number(budget_s: float, seconds: float, least: int, most: int) -> int:
    return min(most, max(least, int(budget_s / max(seconds, 1e-9))))
