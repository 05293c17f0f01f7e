"""A device is a class and a row: what measuring asks goes through `DEVICE_CLASSES` and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from senet_bench.bench import doctor, machine
from senet_bench.bench.clock import Call, Clock, HostClock, PeakMemory
from senet_bench.bench.device import DEVICE_CLASSES, Cpu, Mps, device_of, peak_memory
from senet_bench.bench.latency import measure_memory, measure_networks
from senet_bench.bench.rounds import Plan
from senet_bench.bench.runtimes import example, prepare
from senet_bench.core import devices
from senet_bench.core.progress import result_of
from senet_bench.core.results import Row
from senet_bench.core.specs import Conditions
from senet_bench.errors import UsageError
from senet_bench.run import selftest
from senet_bench.show.measurements import latency_table
from senet_bench.training import checkpoint

SIZE = (3, 8, 8)


@dataclass(frozen=True)
class Abacus(Cpu):
    """A device under the name of one that torch knows and this machine lacks; its arithmetic is the processor's."""

    warmup_s: ClassVar[float] = 0.01
    several: ClassVar[bool] = True
    ticks: ClassVar[list[float]] = []

    def name(self) -> str:
        return "Abacus 3000"

    def hardware(self) -> dict[str, Any]:
        return {"gpu": self.name(), "gpu_count": self.count()}

    def clock(self, conditions: Conditions) -> Clock:
        def now() -> float:
            self.ticks.append(len(self.ticks) * 1e-3)
            return self.ticks[-1]

        return HostClock(wall=now, cpu=now)

    def peak(self, call: Call) -> PeakMemory:
        return PeakMemory(4242, "CPU allocator trace")

    def others(self) -> tuple[int, ...]:
        return (7,)


@pytest.fixture
def abacus(monkeypatch: pytest.MonkeyPatch) -> type[Abacus]:
    monkeypatch.setitem(DEVICE_CLASSES, "cpu", Abacus)
    Abacus.ticks.clear()
    return Abacus


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        name: nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.LazyLinear(2))
        for name, width in (("a", 2), ("b", 3))
    }


def test_a_new_device_is_timed_by_its_own_clock_and_its_other_processes_are_named(abacus: type[Abacus]) -> None:
    made = networks()
    for network in made.values():
        network(torch.zeros(1, *SIZE))
    found = result_of(measure_networks(made, "a", SIZE, plan=Plan(budget_s=0.5)))
    assert found.comparison.samples.rounds > 0
    assert found.comparison.arms["b"].seconds == pytest.approx(1e-3)
    assert found.other_processes == (7,)
    assert len(abacus.ticks) > found.comparison.samples.rounds


def test_a_row_names_the_model_of_the_gpu_that_it_ran_on(abacus: type[Abacus], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(devices.DEVICE_KINDS, "cpu", replace(devices.DEVICE_KINDS["cpu"], gpu=True))
    made = networks()
    for network in made.values():
        network(torch.zeros(1, *SIZE))
    latency = result_of(measure_networks(made, "a", SIZE, plan=Plan(budget_s=0.5))).latency("b")
    assert latency.hardware == "Abacus 3000"
    row = Row(model="b", label="b", family="", baseline="a", input_size=SIZE, classes=2, latency=latency)
    table = latency_table([row], name=lambda row: row.label)
    assert table is not None
    assert "cpu (Abacus 3000)" in table.title


def test_the_self_test_times_by_the_clock_of_its_device(abacus: type[Abacus]) -> None:
    """The abacus' clock ticks once a reading, so that no work is slower than another: every ratio is 1."""
    amounts = selftest.Amounts(same=1, slower=1, visible=0, peers=0, budget_s=0.5, slower_s=0.5)
    assert [trial.ratio for trial in selftest.timing_trials(amounts)] == [pytest.approx(1.0), pytest.approx(1.0)]


def test_a_new_device_measures_its_own_memory(abacus: type[Abacus]) -> None:
    made = networks()
    for network in made.values():
        network(torch.zeros(1, *SIZE))
    assert peak_memory(lambda: None).bytes == 4242
    ready = {name: prepare(network, Conditions(), example(SIZE, 1)) for name, network in made.items()}
    assert {peak.bytes for peak in measure_memory(ready, Conditions()).values()} == {4242}


def test_a_new_device_is_named_in_the_environment_and_by_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("senet_bench.bench.device.DEVICE_CLASSES", {"cpu": Cpu, "xpu": Abacus})
    monkeypatch.setattr(doctor, "DEVICE_CLASSES", {"cpu": Cpu, "xpu": Abacus})
    machine.environment.cache_clear()
    try:
        hard = machine.environment().hard
        assert (hard.gpu, hard.gpu_count, hard.cuda) == ("Abacus 3000", 1, None)
        assert {check.name: check.found for check in doctor.checks()}["xpu:0"] == "Abacus 3000"
    finally:
        machine.environment.cache_clear()


@pytest.mark.parametrize("kind", DEVICE_CLASSES)
def test_every_device_has_a_row_that_is_read_before_torch(kind: str) -> None:
    assert devices.DEVICE_KINDS.keys() == DEVICE_CLASSES.keys()
    assert DEVICE_CLASSES[kind](torch.device(kind)).captures == ("cudagraph" in devices.DEVICE_KINDS[kind].runtimes)


def test_metal_adds_in_single_precision_because_it_has_no_other() -> None:
    assert device_of("mps").accumulation is torch.float32
    assert {device_of(kind).accumulation for kind in ("cpu", "cuda")} == {torch.float64}
    assert not Mps(torch.device("mps")).captures
    assert Mps(torch.device("mps")).doubled(torch.ones(2)).dtype is torch.float64


def test_metals_peak_is_what_its_allocator_holds_at_the_end_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    held = iter([100, 175])
    monkeypatch.setattr(torch.mps, "synchronize", lambda: None)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: next(held))
    peak = Mps(torch.device("mps")).peak(lambda: None)
    assert (peak.bytes, peak.method) == (75, "MPS allocator at the end of a call")


def test_a_device_without_graphs_says_so() -> None:
    with pytest.raises(UsageError, match="no graphs"):
        device_of("cpu").capture(lambda: None)


def test_the_state_of_every_devices_generators_is_kept_and_an_older_checkpoint_has_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    restored: list[Any] = []

    class Seeded(Abacus):
        def random_state(self) -> list[torch.Tensor]:
            return [torch.tensor([3], dtype=torch.uint8)]

        def restore_random_state(self, state: list[torch.Tensor]) -> None:
            restored.append(state)

    monkeypatch.setattr(checkpoint, "DEVICE_CLASSES", {"cpu": Cpu, "xpu": Seeded})
    state = checkpoint.random_state()
    checkpoint.restore_random_state(state)
    del state["xpu"]
    checkpoint.restore_random_state(state)
    assert restored == [[torch.tensor([3], dtype=torch.uint8)], []]


def test_marks_of_the_processor_are_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now: Callable[[], float] = iter([2.0, 3.5]).__next__
    device = device_of("cpu")
    assert device.between(device.mark(now), device.mark(now)) == 1.5
