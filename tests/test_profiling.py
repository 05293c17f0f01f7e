from __future__ import annotations

import copy
import gc
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity

from senet_bench.bench import latency
from senet_bench.bench.clock import Clock, HostClock, TimedCalls
from senet_bench.bench.device import DEVICE_CLASSES, Cpu, largest_cache
from senet_bench.bench.rounds import Plan
from senet_bench.bench.runtimes import Prepared, prepare
from senet_bench.breakdown.parts import Stage, replaced, trace_parts
from senet_bench.breakdown.profile import GateOnly, ScaleOnly, _seen, arms, profile_network
from senet_bench.breakdown.roofline import Demand, limits, measure_device, product_rate
from senet_bench.breakdown.rows import Ceilings, Estimate, PartRow, Profile
from senet_bench.breakdown.timeline import _ranges
from senet_bench.core.formulas import Formulas
from senet_bench.core.progress import result_of
from senet_bench.core.results import to_json
from senet_bench.core.specs import AttentionSpec, Conditions
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models import build
from tests.conftest import Run

SIZE = (3, 8, 8)
MS = 1e-3
PLAN = Plan(budget_s=60.0, warmup_s=0.3, epochs=2, max_rounds=12)
DEVICE = Ceilings(1e10, 4e10, 1e-6, 1e11, 1 << 20, True, 4 << 20)


class Time:
    """Time that passes only where a module says so."""

    t = 0.0

    device = 0.0

    @classmethod
    def passes(cls, seconds: float, on_device: float = 0.0) -> None:
        cls.t += seconds
        cls.device += on_device

    @classmethod
    def now(cls) -> float:
        return cls.t

    @classmethod
    def now_on_device(cls) -> float:
        return cls.device


class TimedSE(nn.Module):
    """2 ms of squeeze, 3 of excitation, 5 of scale."""

    attention_place = "standard"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels, bias=False)

    def squeeze(self, x: Tensor) -> Tensor:
        Time.passes(2 * MS, 0.5 * MS)
        return x.mean((2, 3))

    def excitation(self, z: Tensor) -> Tensor:
        Time.passes(3 * MS, 0.25 * MS)
        return torch.sigmoid(self.fc(z))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excitation(self.squeeze(x))
        Time.passes(5 * MS, 1 * MS)
        return x * gate[:, :, None, None]


class Whole(nn.Module):
    """A block that says nothing about its parts: 4 ms."""

    attention_place = "post"

    def forward(self, x: Tensor) -> Tensor:
        Time.passes(4 * MS)
        return 0.5 * x


class Layers(nn.Module):
    """Its squeeze and its excitation are layers, no methods: 4 ms."""

    attention_place = "standard"

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excitation = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        Time.passes(4 * MS)
        return x * self.excitation(self.squeeze(x))[:, :, None, None]  # type: ignore[no-any-return]


class Beside(nn.Module):
    """The excitation sees the map too: 4 ms."""

    attention_place = "standard"

    def squeeze(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def excitation(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.sigmoid(z - x.amax((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        Time.passes(4 * MS)
        return x * self.excitation(self.squeeze(x), x)[:, :, None, None]


class Views(nn.Module):
    """The excitation computes nothing: 4 ms."""

    attention_place = "standard"

    def squeeze(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def excitation(self, z: Tensor) -> Tensor:
        return z[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        Time.passes(4 * MS)
        return x * self.excitation(self.squeeze(x))


class Twice(Views):
    """Two maps are excited, which one call for one of them is not."""

    def excitation(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z)

    def forward(self, x: Tensor) -> Tensor:
        Time.passes(4 * MS)
        return x * (self.excitation(self.squeeze(x)) + self.excitation(x.amax((2, 3))))[:, :, None, None]


class Body(nn.Module):
    """A convolution that takes `milliseconds`, then a block."""

    def __init__(self, inputs: int, block: nn.Module, milliseconds: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4, 1)
        self.block = block
        self.milliseconds = milliseconds

    def forward(self, x: Tensor) -> Any:
        Time.passes(self.milliseconds * MS, 4 * MS)
        return self.block(self.conv(x))


class Net(nn.Module):
    """Two stages of 10 and 30 ms and a classifier; 10 ms pass between."""

    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stages = nn.ModuleList([Body(3, block(), 10), Body(4, block(), 30)])
        self.classifier = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Any:
        for stage in self.stages:
            x = stage(x)
        Time.passes(10 * MS)
        return self.classifier(x.mean((2, 3)))


@pytest.fixture(autouse=True)
def _no_slow_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def _small_probes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("senet_bench.breakdown.roofline.buffer_bytes", lambda device, cache: 1 << 12)
        patch.setattr("senet_bench.bench.device.Cpu.cache_bytes", lambda device: 1 << 16)
        patch.setattr("senet_bench.bench.device.Cpu.product_side", 8)
        yield


def clock() -> Clock:
    return HostClock(wall=Time.now, cpu=Time.now)


def profile(network: nn.Module, plan: Plan = PLAN, **conditions: Any) -> Profile:
    return result_of(profile_network(network, SIZE, conditions=Conditions(**conditions), plan=plan, clock=clock()))


def timed_se() -> nn.Module:
    return TimedSE(4)


def by_part(found: Profile) -> dict[str, PartRow]:
    return {row.part: row for row in found.parts}


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


@pytest.fixture(scope="module")
def timed() -> Profile:
    return profile(Net(timed_se))


def test_each_part_has_the_time_that_it_takes(timed: Profile) -> None:
    seconds = {part: row.seconds for part, row in by_part(timed).items()}
    expected = {"squeeze": 4 * MS, "excitation": 6 * MS, "scale": 10 * MS, "attention": 20 * MS}
    assert seconds == pytest.approx(expected)
    assert timed.summary.seconds == pytest.approx(70 * MS)


def test_the_parts_add_up_to_the_whole_of_attention(timed: Profile) -> None:
    rows = by_part(timed)
    total = sum(value(rows[part].share) for part in ("squeeze", "excitation", "scale"))
    assert math.isclose(total, value(rows["attention"].share), rel_tol=1e-12)
    assert sum(value(rows[part].cpu_share) for part in ("squeeze", "excitation", "scale")) == pytest.approx(total)


def test_what_a_fixed_gate_does_not_explain_is_interaction(timed: Profile) -> None:
    assert value(by_part(timed)["scale"].alone) == pytest.approx(0)  # a plain product: our time does not pass in it
    assert value(timed.summary.interaction) == pytest.approx(10 / 70)


def test_stages_have_their_own_share_and_that_of_their_attention(timed: Profile) -> None:
    shares = {row.stage: value(row.share) for row in timed.stages}
    assert shares == pytest.approx({"stages.0": 20 / 70, "stages.1": 40 / 70, "classifier": 0.0, "(between)": 10 / 70})
    attention = [row.attention_share for row in timed.stages]
    assert [value(a) for a in attention[:2]] == pytest.approx([10 / 70, 10 / 70])
    assert attention[2:] == [None, None]
    assert value(timed.summary.unattributed) == pytest.approx(0, abs=1e-12)
    assert [(row.output_size, row.blocks) for row in timed.stages[:3]] == [((4, 8, 8), 1), ((4, 8, 8), 1), ((5,), 0)]


def test_intervals_hold_their_estimates(timed: Profile) -> None:
    for row in timed.parts:
        assert row.share is not None
        assert row.share.ci is not None
        assert row.share.ci[0] <= row.share.value <= row.share.ci[1]
        assert row.share.rounds == timed.summary.rounds > 6


def test_marks_around_the_parts_stand_beside_it(timed: Profile) -> None:
    marked = {part: value(row.marked_share) for part, row in by_part(timed).items()}
    assert marked == pytest.approx({"squeeze": 4 / 70, "excitation": 6 / 70, "scale": 10 / 70, "attention": 20 / 70})
    assert [value(row.marked_attention_share) for row in timed.stages[:2]] == pytest.approx([10 / 70, 10 / 70])


def test_torchs_profiler_stands_beside_it(timed: Profile) -> None:
    rows = by_part(timed)
    parts = [rows[part].profiler_seconds for part in ("squeeze", "excitation", "scale")]
    assert all(seconds is not None and seconds > 0 for seconds in parts)
    assert sum(seconds or 0 for seconds in parts) == pytest.approx(rows["attention"].profiler_seconds)
    assert 0 < (rows["attention"].profiler_share or 0) < 1
    assert all(row.profiler_share for row in timed.stages[:3])


def test_a_clock_that_stands_in_the_probes_gives_none_with_a_reason(timed: Profile) -> None:
    assert timed.summary.device is not None
    assert timed.summary.device.memory_bytes_per_s is None
    assert timed.summary.device.missing["memory_bytes_per_s"] == "the clock stands still"
    found = by_part(timed)["scale"].limits
    assert found is not None
    assert found.verdict is None
    assert found.reason.startswith("not measured: ")


def test_a_profile_is_a_json_document(timed: Profile) -> None:
    document = msgspec.json.decode(to_json(timed))
    assert document["parts"][0]["share"]["confidence"] == pytest.approx(0.95)
    assert len(document["summary"]["samples"]["without stages.0"]) == timed.summary.rounds


def test_a_block_that_does_not_split_is_measured_as_a_whole() -> None:
    found = profile(Net(Whole))
    rows = by_part(found)
    assert rows["attention"].seconds == pytest.approx(8 * MS)
    assert all(rows[part].share is None for part in ("squeeze", "excitation", "scale"))
    assert "as a whole" in rows["scale"].missing["share"]
    assert found.summary.interaction is None
    assert rows["attention"].bytes == 2 * 2 * 4 * 64 * 4


@pytest.mark.parametrize(("block", "operators"), [(Layers, 4), (Beside, 5), (Views, 2), (Twice, 6)])
def test_a_block_whose_parts_are_not_its_own_methods_called_once_each_is_measured_as_a_whole(
    block: Callable[[], nn.Module], operators: int
) -> None:
    found = profile(Net(block))
    rows = by_part(found)
    assert rows["attention"].seconds == pytest.approx(8 * MS)
    assert "as a whole" in rows["squeeze"].missing["share"]
    assert rows["attention"].operators == 2 * operators
    assert found.summary.missing == {}


def test_a_formula_of_a_blocks_class_counts_the_whole_and_leaves_its_parts_as_they_are() -> None:
    plain, own = (
        by_part(result_of(profile_network(Net(timed_se), SIZE, plan=PLAN, clock=clock(), formulas=formulas)))
        for formulas in (None, Formulas("here", {"TimedSE": lambda x, out_shape: 1000 * out_shape[0]}))
    )
    assert own["attention"].operations == 2 * 2 * 1000
    for part in ("squeeze", "excitation", "scale"):
        assert own[part].operations == plain[part].operations


def test_a_budget_without_a_round_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="the budget held no round to keep"):
        profile(Net(timed_se), replace(PLAN, budget_s=0.1))


class Asking(Net):
    """A network that asks its block for something."""

    def forward(self, x: Tensor) -> Any:
        assert self.stages[1].block.fc is not None  # type: ignore[union-attr]
        return super().forward(x)


def test_a_part_that_cannot_be_left_out_is_named() -> None:
    found = profile(Asking(timed_se))
    assert "no attribute 'fc'" in found.summary.missing["without"]
    assert by_part(found)["attention"].share is None
    assert found.summary.seconds is not None


def test_a_network_without_attention_has_stages_only() -> None:
    found = profile(Net(nn.Identity))
    assert (found.parts, found.summary.blocks, found.summary.rounds) == ((), 0, 0)
    assert found.summary.seconds == pytest.approx(50 * MS)
    assert [value(row.share) for row in found.stages] == pytest.approx([0.2, 0.6, 0.0, 0.2])
    with pytest.raises(UsageError, match="without attention"):
        profile(Net(nn.Identity), mode="train")


def test_training_shows_attention_as_a_whole_and_says_why() -> None:
    found = profile(Net(timed_se), mode="train", batch_size=2)
    rows = by_part(found)
    assert rows["attention"].seconds == pytest.approx(20 * MS)
    assert rows["squeeze"].share is None
    assert rows["squeeze"].missing["share"] == found.summary.missing["stages"] == "told apart in eager inference only"
    assert rows["attention"].bytes is None


def test_the_network_is_as_it_was() -> None:
    network = Net(timed_se)
    network.stages[0].eval()
    before = copy.deepcopy(network.state_dict())
    modules = [(name, type(module), module.training) for name, module in network.named_modules()]
    profile(network)
    assert [(name, type(module), module.training) for name, module in network.named_modules()] == modules
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_progress_tells_what_is_done() -> None:
    steps = profile_network(Net(timed_se), SIZE, plan=PLAN, clock=clock())
    what = dict.fromkeys(progress.what.partition(" ")[0] for progress in steps)
    assert list(what) == ["trace", "preparing", "warming", "timing", "stages", "profiler", "device"]


SE_SPECS = [
    AttentionSpec(),
    AttentionSpec(squeeze="none"),
    AttentionSpec(squeeze="max", excitation="tanh", integration="pre"),
    AttentionSpec(placement="3x3"),
    AttentionSpec(integration="identity", stages=(3,)),
]


@pytest.mark.parametrize("spec", SE_SPECS, ids=lambda spec: f"{spec.place}-{spec.squeeze}")
def test_every_arm_keeps_the_shapes_of_all_modules(spec: AttentionSpec) -> None:
    name = "resnet50" if spec.placement == "3x3" else "resnet18"
    network = build(name, attention=spec, device="meta").eval()
    size = (3, 32, 32)
    stages, traced = trace_parts(network, size)
    made = arms(network, traced, stages, 2, split=True)
    expected = shapes(network, size)
    for arm in made.values():
        found = shapes(copy.deepcopy(arm).to("meta"), size)
        assert all(found[name] == shape for name, shape in expected.items() if name in found)
    several = len([stage for stage in stages if stage.blocks]) > 1
    assert len(made) == (5 + 4 if several else 5)


def shapes(network: nn.Module, size: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    seen: dict[str, tuple[int, ...]] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[name] = tuple(output.shape)

        return note

    hooks = [module.register_forward_hook(noting(name)) for name, module in network.named_modules()]
    with torch.no_grad():
        network(torch.empty(2, *size, device="meta"))
    for hook in hooks:
        hook.remove()
    return seen


def test_leaving_parts_out_leaves_the_map_alone_and_a_fixed_gate_halves_it() -> None:
    x, block = torch.randn(2, 4, 3, 3), TimedSE(4)
    assert GateOnly(block)(x) is x
    assert torch.equal(ScaleOnly((4,), 2)(x), 0.5 * x)
    assert torch.equal(ScaleOnly((4,), 8)(x), 0.5 * x)  # the batch was halved when memory ran out
    assert torch.equal(ScaleOnly((4, 3, 3), 2)(x), 0.5 * x)


def test_copies_share_the_parameters() -> None:
    network = Net(timed_se)
    changed = replaced(network, ["stages.0.block"], lambda *_: nn.Identity())
    assert changed.get_submodule("stages.1.block.fc").weight is network.get_submodule("stages.1.block.fc").weight


def test_bytes_are_those_counted_by_hand() -> None:
    """SE on 256 maps of 56x56, r = 16: mean; fc1, ReLU, fc2, sigmoid; product."""
    network = build("resnet50", attention=AttentionSpec(stages=(2,)))
    _, traced = trace_parts(network, (3, 224, 224))
    work = traced["stages.0.0.standard"].work
    c, h, pixels, n = 256, 16, 56 * 56, 8
    assert work["squeeze"].bytes(n) == 4 * n * (c * pixels + c)
    assert work["scale"].bytes(n) == 4 * n * (2 * c * pixels + c)
    vectors = (c + h) + 2 * h + (h + c) + 2 * c
    assert work["excitation"].bytes(n) == 4 * (n * vectors + c * h + h + h * c + c)
    assert work["scale"].bytes(n, item=2) * 2 == work["scale"].bytes(n)
    assert (work["squeeze"].operators, work["excitation"].operators, work["scale"].operators) == (1, 4, 1)
    assert work["excitation"].operations == 2 * 2 * c * h + h + c


def test_bytes_of_tensors_in_lists_are_counted() -> None:
    """CBAM on 256 maps of 56x56, r = 16: the two layers run twice, two maps are joined, BatchNorm returns three."""
    network = build("resnet50", attention=AttentionSpec(block="cbam", stages=(2,)))
    _, traced = trace_parts(network, (3, 224, 224))
    (place,) = [name for name in traced if name.startswith("stages.0.0.")]
    c, h, pixels, n = 256, 16, 56 * 56, 8
    channels = 2 * (c * pixels + c) + 2 * ((c + h) + 2 * h + (h + c)) + 3 * c + 2 * c + (2 * c * pixels + c)
    joined = 2 * (c * pixels + pixels) + 4 * pixels
    places = joined + 3 * pixels + 2 * pixels + 2 * pixels + (2 * c * pixels + pixels)
    parameters = 2 * (2 * c * h) + 2 * 7 * 7 + 4
    assert traced[place].work["attention"].bytes(n) == 4 * (n * (channels + places) + parameters)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("seresnet20_cifar", 32, {"stages.0": 3, "stages.1": 3, "stages.2": 3}),
        ("semobilenet_v1", 64, {"units.0": 1, "units.1-2": 2, "units.3-4": 2, "units.5-10": 6, "units.11-12": 2}),
    ],
)
def test_stages_are_lists_of_modules_and_runs_of_equal_size(name: str, size: int, expected: dict[str, int]) -> None:
    stages, _ = trace_parts(build(name), (3, size, size))
    assert {stage.name: len(stage.blocks) for stage in stages if stage.blocks} == expected


def test_a_wrapper_is_seen_through() -> None:
    network = nn.Sequential()
    network.add_module("model", Net(timed_se))
    stages, _ = trace_parts(network, SIZE)
    assert stages[0] == Stage("model.stages.0", ("model.stages.0",), (4, 8, 8), ("model.stages.0.block",))


def test_images_that_do_not_fit_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot take"):
        trace_parts(Net(timed_se), (1, 8, 8))


@pytest.mark.parametrize(
    ("demand", "seconds", "verdict"),
    [
        (Demand(0, 10_000_000, 1, 1000), 1.2e-3, "bandwidth-bound"),
        (Demand(40_000_000, 0, 1, 1000), 1.2e-3, "bandwidth-bound"),
        (Demand(1000, 0, 12, 1000), 20e-6, "launch-bound"),
        (Demand(1000, 0, 1, 1000, calls=4, launch_s=5e-6), 30e-6, "launch-bound"),
        (Demand(1000, 0, 1, 10**9), 12e-3, "compute-bound"),
        (Demand(1000, 0, 1, 1000), 1.0, None),
        (Demand(1000, 0, 1, 1000), None, None),
    ],
)
def test_the_longest_bound_gives_the_verdict(demand: Demand, seconds: float | None, verdict: str | None) -> None:
    found = limits(demand, seconds, DEVICE)
    assert found.verdict == verdict
    assert bool(found.reason) == (verdict is None)


def test_the_arithmetic_is_shown() -> None:
    found = limits(Demand(4_000_000, 10_000_000, 3, 2_000_000), 2e-3, DEVICE)
    assert found.arithmetic == (
        "10 MB at 10 GB/s + 4 MB at 40 GB/s (cache) = 1.1 ms; 3 operators of 1 us = 3 us; "
        "2 MFLOP at 100 GFLOP/s = 20 us; measured 2 ms"
    )


def test_the_last_level_cache_is_the_largest_the_system_tells(tmp_path: Any) -> None:
    for index, size in enumerate(("32K", "1024K", "32M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert largest_cache(tmp_path) == 32 << 20
    assert largest_cache(tmp_path / "absent") is None


def test_switches_that_change_nothing_are_refused(run: Run) -> None:
    ended = run("profile", "resnet20_cifar", "--attention", "eca")
    assert ended.code == 2
    assert "resnet20_cifar has no attention to switch; name a network with attention, or leave out" in ended.err


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_whether_weights_fit_the_cache_is_told_by_their_own_precision(precision: Any) -> None:
    network = Net(timed_se)
    numbers = sum(parameter.numel() for parameter in network.parameters())
    for conditions, size in ((Conditions(precision=precision), 2), (Conditions(precision=precision, mode="train"), 4)):
        assert _seen(network, trace_parts(network, SIZE), SIZE, conditions, PLAN).weight_bytes == size * numbers


class Disturbed(HostClock):
    """A clock whose rounds are as long as told, and spoilt where they are negative."""

    def __init__(self, seconds: Iterator[float]) -> None:
        super().__init__()
        self.rounds = seconds

    def round(self, calls: Any, repeats: int) -> list[TimedCalls]:
        self.seconds = next(self.rounds)
        return [TimedCalls(abs(self.seconds), 0.0)]

    def disturbance(self) -> str:
        return "GPU: SM clock moved" if self.seconds < 0 else ""


def test_a_limit_of_the_device_is_of_rounds_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = itertools.chain([2.0], itertools.cycle([-1.0, 4.0, -3.0, 5.0]))
    assert product_rate(Conditions(), Disturbed(rounds)) == 2 * 8**3 / 4
    lost = measure_device(Conditions(), Disturbed(itertools.repeat(-1.0)))
    assert lost.flops_per_s is None
    assert lost.missing["flops_per_s"].startswith("no round counts: GPU: SM clock moved")


# --- a GPU ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FakeGpu(Cpu):
    """A device with a time of its own, in which a block takes less than the host takes to launch it."""

    captures: ClassVar[bool] = True
    warmup_s: ClassVar[float] = 0.0
    stopped: ClassVar[bool] = False

    def clock(self, conditions: Conditions) -> Clock:
        if conditions.timing == "device":
            return Stopped() if self.stopped else HostClock(wall=Time.now_on_device, cpu=Time.now)
        return HostClock(wall=Time.now, cpu=Time.now)


class Stopped(HostClock):
    """A clock of which no round counts."""

    remedy = "lock the clock"

    def __init__(self) -> None:
        super().__init__(wall=Time.now, cpu=Time.now)

    def disturbance(self) -> str:
        return "GPU: SM clock moved"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEVICE_CLASSES, "cpu", FakeGpu)


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_each_part_has_its_launches_and_the_devices_own_time() -> None:
    found = profile(Net(timed_se))
    device = {part: row.on_device.seconds for part, row in by_part(found).items() if row.on_device}
    assert device == pytest.approx({"squeeze": 1 * MS, "excitation": 0.5 * MS, "scale": 2 * MS, "attention": 3.5 * MS})
    assert by_part(found)["attention"].seconds == pytest.approx(20 * MS)
    assert found.summary.on_device is not None
    assert found.summary.on_device.seconds == pytest.approx(11.5 * MS)
    shares = [row.attention_device_share for row in found.stages[:3]]
    assert [value(share) for share in shares[:2]] == pytest.approx([1.75 / 11.5] * 2)
    assert shares[2] is None
    assert value(by_part(found)["attention"].on_device.share) == pytest.approx(3.5 / 11.5)  # type: ignore[union-attr]


@pytest.mark.usefixtures("gpu")
def test_where_no_round_of_the_device_counts_its_time_is_missing_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeGpu, "stopped", True)
    found = profile(Net(timed_se))
    assert found.summary.on_device is None
    assert "SM clock moved" in found.summary.missing["device time"]
    assert by_part(found)["attention"].on_device is None
    assert by_part(found)["attention"].seconds == pytest.approx(20 * MS)


@pytest.mark.usefixtures("gpu")
def test_device_time_of_another_batch_is_missing_and_an_arm_that_fails_there_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(network: nn.Module, conditions: Conditions, images: Tensor) -> Prepared:
        if conditions.timing == "device" and conditions.batch_size > 2:
            raise MemoryError
        if conditions.timing == "device" and any(isinstance(part, ScaleOnly) for part in network.modules()):
            raise MeasurementError("the output is not finite")
        return prepare(network, conditions, images)

    monkeypatch.setattr(latency, "prepare", failing)
    found = profile(Net(timed_se), batch_size=4)
    assert found.summary.on_device is None
    assert found.summary.missing["device time"] == "out of memory with batch 4"
    found = profile(Net(timed_se), batch_size=2)
    assert "the output is not finite" in found.summary.missing["scale in device time"]
    assert found.summary.on_device is not None


def test_a_batch_that_memory_did_not_hold_stands_nowhere_as_that_of_the_times(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(network: nn.Module, conditions: Conditions, images: Tensor) -> Prepared:
        if conditions.batch_size > 2:
            raise MemoryError
        return prepare(network, conditions, images)

    monkeypatch.setattr(latency, "prepare", full)
    small = ("--img-size", "8", "--attention", "eca")
    done = run("profile", "seresnet20_cifar", *small, "-b", "8", "--budget", "0.5")
    assert done.code == 0, done.err
    assert (done.out.count(", batch 2, "), done.out.count(", batch 8, ")) == (2, 0)
    assert "out of memory: ran with batch 2, not 8" in done.out
    assert "squeeze, excitation and scale missing: a block that does not call" in done.out


@pytest.mark.usefixtures("gpu")
def test_the_table_of_a_gpu_sets_device_time_beside_the_call(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(FakeGpu, "clock", lambda *_: HostClock())
    done = run("profile", "seresnet20_cifar", "--budget", "0.5")
    assert done.code == 0, done.err
    for text in (
        "device ms",
        "device left out %",
        "device bound",
        "the device works",
        "device attention %",
        "attention on the device: ",
    ):
        assert text in done.out


def event(name: str, start: int, end: int, *kernels: int) -> Any:
    one: Any = FunctionEvent(id=0, name=name, thread=1, start_us=start, end_us=end, use_device="cuda")  # type: ignore[no-untyped-call]
    for duration in kernels:
        one.append_kernel("kernel", 0, duration)
    return one


def test_kernels_are_counted_and_timed_in_the_ranges_that_launch_them() -> None:
    whole, squeeze, attention = event("whole", 0, 100), event("squeeze:a", 20, 40), event("attention:a", 10, 60)
    mean, scale, conv = event("aten::mean", 25, 35, 7), event("aten::mul", 45, 50, 11, 2), event("aten::conv", 1, 9, 50)
    for parent, children in ((squeeze, [mean]), (attention, [squeeze, scale]), (whole, [conv, attention])):
        for child in children:
            parent.append_cpu_child(child)
    ((seconds, kernels),) = _ranges([whole], on_gpu=True)
    assert seconds == pytest.approx({"squeeze:a": 7e-6, "attention:a": 20e-6, "whole": 70e-6})
    assert kernels == {"squeeze:a": 1, "attention:a": 3, "whole": 4}


@pytest.mark.usefixtures("gpu")
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_profiler_that_sees_no_kernel_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    monkeypatch.setattr(FakeGpu, "activities", lambda _: both)
    assert "saw no kernel" in profile(Net(timed_se)).summary.missing["profiler"]
