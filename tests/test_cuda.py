from __future__ import annotations

import contextlib
import itertools
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from senet_bench.bench import cuda, doctor
from senet_bench.bench.clock import PeakMemory
from senet_bench.bench.cuda import (
    MOVED,
    ClockReading,
    EndToEndClock,
    EventClock,
    NvmlGauge,
    nvml_gauge,
    spoilt,
)
from senet_bench.bench.device import Cpu
from senet_bench.bench.process import CoreTimes
from senet_bench.bench.rounds import Plan, measure_latency
from senet_bench.core.progress import result_of
from senet_bench.core.specs import Conditions
from senet_bench.errors import MeasurementError


class FakeGpu:
    """A stream whose work takes known time; sleeping holds it, events note the time at which they are reached."""

    def __init__(self, enqueue_s: float = 1e-4) -> None:
        self.host, self.stream, self.enqueue_s, self.syncs = 0.0, 0.0, enqueue_s, 0

    def sleep(self, cycles: int) -> None:
        self.stream = max(self.stream, self.host) + cycles / 2e9

    def work(self, seconds: float) -> None:
        self.host += self.enqueue_s
        self.stream = max(self.stream, self.host) + seconds

    def event(self) -> Any:
        at: list[float] = []
        return SimpleNamespace(
            record=lambda: at.append(max(self.stream, self.host)),
            query=lambda: at[0] <= self.host,
            elapsed_time=lambda end: (end.at[0] - at[0]) * 1e3,
            at=at,
        )

    def synchronize(self, _: object = None) -> None:
        self.syncs += 1
        self.host = max(self.host, self.stream)


class FakeGauge:
    def __init__(self, readings: list[ClockReading]) -> None:
        self.readings = iter(readings)

    def read(self) -> ClockReading:
        return next(self.readings)

    def others(self) -> list[int]:
        return []


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu()
    monkeypatch.setattr(cuda, "_event", fake.event)
    monkeypatch.setattr(torch.cuda, "_sleep", fake.sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    return fake


DEVICE = torch.device("cuda:0")


def test_a_block_is_the_mean_of_its_calls_between_the_events(gpu: FakeGpu) -> None:
    clock = EventClock(DEVICE)
    blocks = clock.round([lambda: gpu.work(2e-3), lambda: gpu.work(3e-3)], 4)
    assert [b.seconds for b in blocks] == pytest.approx([2e-3, 3e-3])
    assert gpu.syncs == 1


def test_the_queue_is_held_longer_until_no_block_starts_early(gpu: FakeGpu) -> None:
    gpu.enqueue_s = 1e-3
    clock = EventClock(DEVICE)
    sleeps, reasons = [], []
    for _ in range(5):
        clock.round([lambda: gpu.work(1e-5)], 4)
        sleeps.append(clock.sleep_cycles)
        reasons.append(clock.disturbance())
    assert sleeps[-1] == sleeps[-2] > cuda.FIRST_SLEEP
    assert 0 < clock.early_blocks < 5
    early = reasons.index("")
    assert reasons == [cuda.EARLY] * early + [""] * (5 - early)  # launch gaps are in none that counts


class FullQueue(FakeGpu):
    """A GPU whose queue takes a number of launches; the next one waits until the stream gets to them."""

    def __init__(self, depth: int) -> None:
        super().__init__(enqueue_s=1e-6)
        self.depth = self.free = depth

    def sleep(self, cycles: int) -> None:
        self.free = self.depth
        super().sleep(cycles)

    def work(self, seconds: float) -> None:
        if self.free == 0:
            self.host = max(self.host, self.stream)
        else:
            self.free -= 1
        super().work(seconds)


@pytest.mark.parametrize(("launches", "calls"), [(1, 10), (5, 2), (11, 1)])
def test_a_block_that_fills_the_launch_queue_gets_fewer_calls(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, launches: int, calls: int
) -> None:
    full = FullQueue(depth=10)
    monkeypatch.setattr(cuda, "_event", full.event)
    monkeypatch.setattr(torch.cuda, "_sleep", full.sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", full.synchronize)
    made: list[int] = []

    def call() -> None:
        made.append(1)
        for _ in range(launches):
            full.work(1e-5)

    clock, reasons = EventClock(DEVICE), []
    for _ in range(20):
        made.clear()
        (block,) = clock.round([call], 64)
        reasons.append(clock.disturbance())
    assert len(made) <= max(calls, 1)
    if launches <= 10:
        assert reasons[-1] == ""
        assert cuda.FULL in reasons
        assert block.seconds == pytest.approx(launches * 1e-5)
    else:
        assert (reasons[-1], clock.remedy) == (cuda.DEEP, cuda.END_TO_END)


def test_of_a_call_that_waits_for_the_device_it_is_said_that_no_clock_is_to_blame(gpu: FakeGpu) -> None:
    def call() -> None:
        gpu.work(1e-3)
        gpu.synchronize()

    clock, reasons, remedies = EventClock(DEVICE), [], []
    for _ in range(10):
        clock.round([call], 1)
        reasons.append(clock.disturbance())
        remedies.append(clock.remedy)
    assert (reasons[0], remedies[0]) == (cuda.EARLY, cuda.LOCK)
    assert "one call waits for the device" in reasons[-1]
    assert remedies[-1] == cuda.END_TO_END


def test_on_a_card_whose_clock_never_stands_still_rounds_count_all_the_same(gpu: FakeGpu) -> None:
    readings = [ClockReading(mhz, 0) for _ in range(40) for mhz in (1900, 1850)]
    clock, reasons = EventClock(DEVICE, gauge=FakeGauge(readings)), []
    for _ in range(40):
        clock.round([lambda: gpu.work(1e-3)], 1)
        reasons.append(clock.disturbance())
    assert reasons[0] == MOVED
    assert reasons[-20:] == [""] * 20
    falling = EventClock(DEVICE, gauge=FakeGauge([ClockReading(mhz, 0) for _ in range(40) for mhz in (1900, 1600)]))
    for _ in range(40):
        falling.round([lambda: gpu.work(1e-3)], 1)
    assert falling.disturbance() == MOVED  # 16 % is too much at any time


def test_where_no_round_counts_it_is_said_how_the_clock_is_locked(gpu: FakeGpu) -> None:
    gauge = SimpleNamespace(read=lambda: ClockReading(1900, 0x80), others=list)
    passed = {"now": 0.0}

    def call() -> float:
        gpu.work(1e-3)
        passed["now"] += 1e-2
        return 1.0

    class Host(EventClock):
        def now(self) -> float:
            return passed["now"]

    clock = Host(DEVICE, gauge=gauge)
    arms = {"a": lambda: call, "b": lambda: call}
    comparison = result_of(measure_latency(arms, "a", plan=Plan(budget_s=2.0), clock=clock))
    with pytest.raises(MeasurementError, match="power brake") as error:
        comparison.latency("b")
    assert error.value.remedy == cuda.LOCK


def test_the_peak_of_a_replayed_graph_has_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"now": 100, "most": 100}

    def capture(*_: object, **__: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    for name, value in {
        "Stream": lambda *_: SimpleNamespace(wait_stream=lambda _: None),
        "current_stream": lambda *_: SimpleNamespace(wait_stream=lambda _: None),
        "device": capture,
        "stream": capture,
        "graph": capture,
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "synchronize": lambda *_: None,
        "reset_peak_memory_stats": lambda *_: held.update(most=held["now"]),
        "memory_allocated": lambda *_: held["now"],
        "max_memory_allocated": lambda *_: held["most"],
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def network() -> object:
        held["most"] = max(held["most"], held["now"] + 4096)
        return object()

    device = cuda.Cuda(DEVICE)
    assert device.peak(network) == PeakMemory(4096, "CUDA allocator")
    graph = device.capture(network)
    assert device.peak(graph) == PeakMemory(4096, "CUDA allocator and the pools of graphs")
    assert device.peak(lambda: (graph(), graph())) == PeakMemory(4096, "CUDA allocator and the pools of graphs")


def test_a_graph_is_captured_on_its_own_card_and_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, object]] = []

    def entered(name: str) -> Any:
        def enter(*given: object, **named: object) -> contextlib.AbstractContextManager[None]:
            seen.append((name, named.get("stream", given[0])))
            return contextlib.nullcontext()

        return enter

    side = SimpleNamespace(wait_stream=lambda _: None)
    for name, value in {
        "device": entered("device"),
        "stream": entered("stream"),
        "graph": entered("graph"),
        "Stream": lambda _: side,
        "current_stream": lambda _: side,
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "synchronize": lambda _: None,
        "reset_peak_memory_stats": lambda _: None,
        "memory_allocated": lambda _: 0,
        "max_memory_allocated": lambda _: 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    second = torch.device("cuda:1")
    cuda.Cuda(second).capture(lambda: None)
    assert seen == [("device", second), ("stream", side), ("graph", side)]


def test_a_block_lasts_a_millisecond_and_a_cold_one_is_one_call() -> None:
    assert EventClock(DEVICE).repeats(1e-4) == 10
    assert EventClock(DEVICE).repeats(1e-6) == cuda.MOST_EVENT_CALLS
    assert EventClock(DEVICE).repeats(0.5) == 1
    cold = EventClock(DEVICE)
    cold.cold = True
    assert cold.repeats(1e-6) == 1


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (ClockReading(1980, 0), ClockReading(1980, 0x4), ""),
        (ClockReading(1980, 0x1), ClockReading(1975, 0x2), ""),
        (ClockReading(1980, 0), ClockReading(1900, 0), "GPU: SM clock moved"),
        (ClockReading(1980, 0), ClockReading(1980, 0x28), "GPU: hardware slowdown, software thermal slowdown"),
        (ClockReading(1980, 0x80), ClockReading(1980, 0), "GPU: power brake"),
    ],
)
def test_a_round_is_spoilt_when_clocks_moved_or_throttled(
    before: ClockReading, after: ClockReading, message: str
) -> None:
    assert spoilt(before, after) == message


def test_the_event_clock_reports_what_the_gauge_saw(gpu: FakeGpu) -> None:
    clock = EventClock(DEVICE, gauge=FakeGauge([ClockReading(1980, 0), ClockReading(1500, 0)]))
    clock.round([lambda: gpu.work(1e-3)], 1)
    assert clock.disturbance() == MOVED


def test_end_to_end_counts_the_synchronisation(gpu: FakeGpu) -> None:
    gauge = FakeGauge([ClockReading(1980, 0), ClockReading(1980, 0x40)])
    clock = EndToEndClock(wall=lambda: gpu.host, cpu=lambda: 0.0, finish=gpu.synchronize, gauge=gauge)
    (block,) = clock.round([lambda: gpu.work(2e-3)], 3)
    assert block.seconds == pytest.approx(2e-3 + gpu.enqueue_s)
    assert clock.disturbance() == "GPU: hardware thermal slowdown"


@pytest.mark.usefixtures("gpu")
def test_end_to_end_sees_other_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([0.0, 0.5])
    monkeypatch.setattr("senet_bench.bench.clock.core_times", lambda: CoreTimes((time.perf_counter(),), (next(taken),)))
    monkeypatch.setattr("senet_bench.bench.cuda.nvml_gauge", lambda _: None)
    clock = cuda.Cuda(DEVICE).clock(Conditions(device="cuda"))
    clock.round([lambda: None], 1)
    assert clock.disturbance() == "steal"


def test_the_gauge_falls_back_to_the_older_name_of_the_reasons() -> None:
    class Nvml:
        NVML_CLOCK_SM = 1
        NVMLError = RuntimeError

        def nvmlDeviceGetClockInfo(self, handle: object, kind: int) -> int:  # noqa: N802
            return 1410

        def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:  # noqa: N802
            return 4

        def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[Any]:  # noqa: N802
            return [SimpleNamespace(pid=os.getpid()), SimpleNamespace(pid=-7)]

    gauge = NvmlGauge(Nvml(), object())
    assert gauge.read() == ClockReading(1410, 4)
    assert gauge.others() == [-7]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_no_gauge() -> None:
    assert nvml_gauge(DEVICE) is None


def test_a_check_that_raises_becomes_its_reason() -> None:
    def broken() -> str:
        raise RuntimeError("no\nluck")

    assert doctor.attempt("x", broken) == doctor.Branch("x", "failed", "RuntimeError: no luck")
    assert doctor.attempt("x", lambda: "fine") == doctor.Branch("x", "works", "fine")


@pytest.mark.filterwarnings("ignore")
def test_the_self_check_reports_every_branch_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {name: check for name, check in doctor.BRANCHES.items() if name not in ("compile", "end to end")}
    monkeypatch.setattr(doctor, "BRANCHES", quick)
    on_cpu = {check.name: check for check in doctor.self_check("cpu")}
    assert on_cpu.keys() == quick.keys()
    working = ("present", "eager", "channels_last", "train", "fp32 is IEEE", "peak memory", "out of memory")
    assert all(on_cpu[name].outcome == "works" for name in working), on_cpu
    nowhere = list(itertools.islice(doctor.self_check("cuda:99"), 4))
    assert {check.outcome for check in nowhere} == {"failed"}


@pytest.mark.filterwarnings("ignore")
def test_what_a_device_does_not_have_is_told_and_fails_no_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = ("NVML", "tf32", "bf16", "train bf16", "deploy bf16", "CUDA graph", "gate kernel", "events, cold L2")
    monkeypatch.setattr(doctor, "BRANCHES", {name: doctor.BRANCHES[name] for name in ("eager", *lacking)})
    monkeypatch.setattr(Cpu, "lacks", lambda _, precision: precision in ("tf32", "bf16"))  # as a GPU before Ampere
    findings, failed = doctor.diagnose("cpu")
    assert failed == 0
    told = {one.name: one.found for one in findings if one.found.startswith("not on this device: ")}
    assert told.keys() == {f"cpu: {name}" for name in lacking}
    assert told["cpu: tf32"].endswith("it has no tf32")

    def broken(device: str) -> str:
        raise RuntimeError("no luck")

    monkeypatch.setitem(doctor.BRANCHES, "eager", broken)
    assert doctor.diagnose("cpu")[1] == 1


def test_a_machine_of_two_models_of_gpu_names_each_card(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = ["a big one", "a small one", "a big one"]
    card = SimpleNamespace(name="a big one", major=9, minor=0, total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: cards[index])
    monkeypatch.setattr(cuda.Cuda, "count", lambda _: len(cards))
    hardware = cuda.Cuda(torch.device("cuda")).hardware()
    assert (hardware["gpu"], hardware["gpu_count"]) == ("a big one and a small one and a big one", 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: cards[0])
    assert cuda.Cuda(torch.device("cuda")).hardware()["gpu"] == "a big one"


def test_on_rocm_it_is_said_what_nvml_would_have_told(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="MI300X", major=9, minor=4, total_memory=192 << 30)
    monkeypatch.setattr(torch.version, "hip", "7.0.1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: card.name)
    monkeypatch.setattr(cuda.Cuda, "count", lambda _: 1)
    device = cuda.Cuda(DEVICE)
    assert device.hardware()["cuda"] == "ROCm 7.0.1"
    assert [device.lacks(precision) for precision in ("fp32", "tf32", "bf16", "fp16")] == [False, True, False, False]
    with pytest.raises(MeasurementError, match="NVIDIA's alone"):
        device.meter()
    branch = doctor.attempt("NVML", lambda: doctor.BRANCHES["NVML"]("cuda"))
    assert (branch.outcome, "no clock is watched" in branch.detail) == ("works", True)


@pytest.mark.filterwarnings("ignore")
def test_the_command_that_locks_the_clock_names_the_card_by_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = SimpleNamespace(read=lambda: ClockReading(1410, 0), others=list, index=lambda: 5)
    monkeypatch.setattr(doctor, "nvml_gauge", lambda _: gauge)
    monkeypatch.setattr(doctor, "_loaded", lambda _: None)
    assert "nvidia-smi -i 5 -lgc 1410" in doctor.BRANCHES["NVML"]("cuda:0")
