"""What only a GPU can show; skipped without one. `python -m senet_bench.cli.gpu_acceptance` runs these first."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch

from senet_bench.bench import doctor
from senet_bench.bench.cuda import EventClock, nvml_gauge
from senet_bench.bench.device import device_of, peak_memory
from senet_bench.bench.machine import session
from senet_bench.bench.rounds import Plan, measure_latency
from senet_bench.bench.runtimes import example, prepare
from senet_bench.core.progress import result_of
from senet_bench.core.specs import AttentionSpec, Conditions, Precision, Runtime
from senet_bench.deployment import deploy
from senet_bench.deployment.cuda_graph import captured
from senet_bench.deployment.gate import SAME_GATE, Gate
from senet_bench.models import build
from senet_bench.models.attention import SqueezeExcitation

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
PLACE = torch.device("cuda")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def conditions(runtime: Runtime = "eager", precision: Precision = "fp32") -> Conditions:
    return Conditions("cuda", runtime=runtime, precision=precision, batch_size=4)


def test_fp32_is_ieee_and_tf32_is_not() -> None:
    torch.manual_seed(0)
    a = torch.randn(1024, 1024, device=PLACE)
    exact = a.cpu().double() @ a.cpu().double()

    def error(precision: Precision) -> float:
        with session(conditions(precision=precision)):
            return float(((a @ a).cpu().double() - exact).abs().max() / exact.abs().max())

    assert error("fp32") < 1e-5
    if not device_of("cuda").lacks("tf32"):
        assert error("tf32") > 1e-5


def test_a_convolution_in_fp32_is_ieee() -> None:
    assert "a convolution in fp32 is off by" in doctor.BRANCHES["fp32 is IEEE"]("cuda")


@pytest.mark.parametrize("runtime", ["cudagraph", "deploy", "compile"])
def test_a_runtime_gives_what_eager_gives(runtime: Runtime) -> None:
    network, images = build("seresnet18").eval(), example((3, 64, 64), 4)
    outputs = []
    for name in ("eager", runtime):
        with session(conditions(name)):
            output = prepare(copy.deepcopy(network), conditions(name), images).factory()()
            assert isinstance(output, torch.Tensor)
            outputs.append(output.double().cpu())
    assert float((outputs[1] - outputs[0]).abs().max() / outputs[0].abs().max()) < 1e-3


@pytest.mark.parametrize("runtime", ["cudagraph", "deploy"])
def test_the_peak_of_a_graph_is_of_the_size_of_eagers(runtime: Runtime) -> None:
    network, images = build("seresnet18").eval(), example((3, 64, 64), 4)
    peaks = []
    for name in ("eager", runtime):
        with session(conditions(name)):
            peaks.append(peak_memory(prepare(copy.deepcopy(network), conditions(name), images).factory(), "cuda").bytes)
    assert 0.2 * peaks[0] < peaks[1] < 5 * peaks[0]


def test_device_time_of_the_same_work_is_the_same_and_no_block_that_counts_began_early() -> None:
    network, images = build("seresnet18").eval(), example((3, 64, 64), 4)
    with session(conditions()):
        factory = prepare(network, conditions(), images).factory
        clock = EventClock(PLACE, gauge=nvml_gauge(PLACE))
        compared = result_of(measure_latency({"a": factory, "b": factory}, "a", plan=Plan(budget_s=3.0), clock=clock))
    judged = compared.arms["b"].judgement
    assert judged is not None
    assert compared.rounds > sum(compared.dropped.values())
    assert judged.ci[0] <= 1.02
    assert judged.ci[1] >= 0.98


def test_a_cold_cache_is_slower_than_a_warm_one_for_what_fits_into_it() -> None:
    size = (device_of("cuda").cache_bytes() or 0) // 4
    values = torch.ones(size // 4, device=PLACE)

    def call() -> torch.Tensor:
        return values.sum()

    times = []
    for cold in (False, True):
        clock = EventClock(PLACE, cold)
        blocks = [clock.round([call], clock.repeats(1e-5))[0].seconds for _ in range(20)]
        times.append(sorted(blocks)[10])
    assert times[1] > times[0]


def test_deployed_networks_are_equal_to_rounding() -> None:
    network = build("seresnet18").eval().to(PLACE)
    x = torch.randn(2, 3, 96, 96, device=PLACE)
    with session(conditions()), torch.no_grad():
        eager, fast = network(x), deploy(copy.deepcopy(network))(x)
    assert float((fast - eager).abs().max() / eager.abs().max()) < 1e-4


def gate_of_a_block(channels: int, dtype: torch.dtype) -> Gate:
    block = deploy(SqueezeExcitation(channels, AttentionSpec(), 16))
    return next(m for m in block.modules() if isinstance(m, Gate)).to(PLACE, dtype)


@needs_triton
@pytest.mark.parametrize("dtype", list(SAME_GATE), ids=str)
@pytest.mark.parametrize(("images", "channels", "side"), [(1, 256, 56), (3, 2048, 7), (32, 1000, 13)])
def test_the_kernel_gives_the_gate_at_every_call_and_replay(
    images: int, channels: int, side: int, dtype: torch.dtype
) -> None:
    gate = gate_of_a_block(channels, dtype)
    x = torch.randn(images, channels, side, side, device=PLACE, dtype=dtype).to(memory_format=torch.channels_last)

    def difference(found: object) -> float:
        assert isinstance(found, torch.Tensor)
        exact = gate.exact(x)
        return float((found.flatten(1).double() - exact).abs().max() / exact.abs().max())

    with session(conditions()), torch.inference_mode():
        graph = captured(lambda: gate.fused(x), x.device)
        for _ in range(3):
            x.normal_()
            assert difference(gate.fused(x)) < SAME_GATE[dtype]
            assert difference(graph.replay()) < SAME_GATE[dtype]


@needs_triton
def test_gates_in_two_streams_do_not_count_in_the_same_place() -> None:
    gate = gate_of_a_block(256, torch.float32)
    maps = [torch.randn(8, 256, 56, 56, device=PLACE).to(memory_format=torch.channels_last) for _ in range(2)]
    with session(conditions()), torch.inference_mode():
        exact = [gate.exact(x) for x in maps]
        streams = [torch.cuda.Stream(PLACE) for _ in maps]  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        found: list[list[torch.Tensor]] = [[], []]
        for _ in range(50):
            for x, stream, gates in zip(maps, streams, found):
                with torch.cuda.stream(stream):
                    gates.append(gate.fused(x))
        torch.cuda.synchronize()
        for wanted, gates in zip(exact, found):
            assert all((gate.flatten(1).double() - wanted).abs().max() < 1e-5 for gate in gates)


def test_a_captured_network_holds_its_weights() -> None:
    network, images = build("seresnet18").eval(), example((3, 64, 64), 4)
    with session(conditions("cudagraph")):
        call = prepare(network, conditions("cudagraph"), images).factory()
        first = call()
        assert isinstance(first, torch.Tensor)
        before = first.clone()
        overwriting = [torch.full((size,), float("nan"), device=PLACE) for size in (1 << 10, 1 << 16, 1 << 20) * 20]
        after = call()
        assert isinstance(after, torch.Tensor)
        assert torch.equal(before, after), len(overwriting)
