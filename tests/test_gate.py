"""The gate as one kernel: by Triton's interpreter beside torch's operators, and when which of the two runs."""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib.util
import io
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from senet_bench.core.specs import AttentionSpec
from senet_bench.deployment import cuda_graph, deploy, gate
from senet_bench.deployment.cuda_graph import Captured, Graph, device_seconds
from senet_bench.deployment.gate import Counters, Gate
from senet_bench.models import build
from senet_bench.models.attention import SqueezeExcitation

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
INTERPRETED = """
import json, os
os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
import torch
from senet_bench.core.specs import AttentionSpec
from senet_bench.deployment import deploy, gate
from senet_bench.deployment.gate import Gate
from senet_bench.deployment.parts import Affine, EarlySqueeze, Product, Term
from senet_bench.models import build

def made(inputs, hidden, outputs, stride, last):
    matrix = torch.randn(hidden, inputs, dtype=torch.float64) / inputs**0.5
    mean = Affine((Term(None, 1, stride, matrix),), torch.randn(hidden, dtype=torch.float64))
    squeeze = EarlySqueeze(mean, torch.float32, torch.relu_)
    return Gate(squeeze, Product(torch.nn.Linear(hidden, outputs), last, wide=True))

def difference(found, expected):
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())

torch.manual_seed(0)
counters = torch.zeros(8, dtype=torch.int32)
gate.COUNTERS.of = lambda images, device: counters
differences = {}
for images, inputs, hidden, outputs, height, width, stride, last, dtype in (
    (1, 24, 5, 37, 13, 11, 1, "sigmoid", "float32"),
    (3, 24, 5, 37, 13, 11, 2, "sigmoid", "float32"),
    (3, 70, 33, 130, 7, 7, 1, "tanh", "float32"),
    (1, 600, 40, 100, 3, 5, 3, "relu", "float32"),
    (3, 1, 1, 1, 1, 1, 1, "sigmoid", "float32"),
    (3, 70, 33, 130, 7, 7, 1, "sigmoid", "bfloat16"),
    (3, 70, 33, 130, 7, 7, 1, "sigmoid", "float16"),
):
    one = made(inputs, hidden, outputs, stride, getattr(torch, last)).to(getattr(torch, dtype))
    x = torch.randn(images, inputs, height, width).to(getattr(torch, dtype), memory_format=torch.channels_last)
    exact = one.exact(x)
    for turn in range(2):
        differences[f"{images}x{inputs}x{height}x{width} by {stride}, {last}, {dtype}, call {turn}"] = (
            dtype, difference(one.fused(x).flatten(1), exact), int(counters.abs().sum())
        )
plain = made(24, 5, 37, 1, torch.sigmoid)
x = torch.randn(2, 24, 9, 9).contiguous(memory_format=torch.channels_last)
differences["beside torch's operators"] = "float32", difference(plain.fused(x), plain.plain(x)), 0

network = build("seresnet50", attention=AttentionSpec(stages=(3,))).eval()
x = torch.randn(3, 3, 64, 64)
deployed, calls = deploy(network), []
gate._on_gpu, gate.takes_kernel = lambda x: True, lambda one, x: not calls.append(x.shape)
with torch.inference_mode():
    differences["SE-ResNet-50"] = "float32", difference(deployed(x), network(x)), len(calls) - 4
print(json.dumps(differences))
"""


@needs_triton
def test_the_kernel_gives_the_gate_of_torchs_operators_and_leaves_its_counters_at_zero() -> None:
    done = subprocess.run([sys.executable, "-c", INTERPRETED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, (dtype, difference, left) in json.loads(done.stdout).items():
        assert difference < gate.SAME_GATE[getattr(torch, dtype)], name
        assert left == 0, name


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from senet_bench.deployment.gate_kernel import WARPS, _gate

given = {"share": 25, "inputs": 500, "hidden": 125, "outputs": 2000, "first": "relu", "last": "sigmoid", "splits": 16}
given |= {"tile_pixels": 16, "tile_channels": 512, "tile_inputs": 128, "tile_hidden": 128, "tile_outputs": 128}
for capability, numbers, ones in ((80, "fp32", ()), (90, "bf16", ("columns", "pixels"))):
    constants = given | dict.fromkeys(ones, 1)
    pointers = dict.fromkeys(("x", "weight1", "bias1", "weight2", "bias2", "gate"), f"*{numbers}")
    types = dict.fromkeys(_gate.arg_names, "i32") | pointers | {"partial": "*fp32", "counters": "*i32"}
    source = ASTSource(_gate, types | dict.fromkeys(constants, "constexpr"), constants)
    options = {"num_warps": WARPS, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert "atom.global.gpu.acq_rel" in compiled.asm["ptx"]
    assert compiled.asm["cubin"]
"""


@needs_triton
def test_the_kernel_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    cache = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False, env=cache)
    assert done.returncode == 0, done.stderr


class Stream:
    """A GPU's stream: captured calls are kept, replays take their time, events note when they are reached."""

    def __init__(self) -> None:
        self.now, self.capturing = 0.0, False

    def work(self, seconds: float) -> None:
        self.now += 0.0 if self.capturing else seconds

    def event(self, **_: object) -> Any:
        event = SimpleNamespace(at=0.0, synchronize=lambda: None)
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda end: (end.at - event.at) * 1e3
        return event

    def captured(self, call: Any, device: torch.device) -> Graph:
        self.capturing = True
        output = call()
        self.capturing = False
        return Graph(SimpleNamespace(replay=call), output, call)  # type: ignore[arg-type]


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    fake = Stream()
    monkeypatch.setattr(cuda_graph, "captured", fake.captured)
    monkeypatch.setattr(gate, "_on_gpu", lambda x: True)
    monkeypatch.setattr(gate, "_CHOSEN", {})
    monkeypatch.setattr(torch.cuda, "Event", fake.event)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: fake.capturing)
    monkeypatch.setattr(gate.COUNTERS, "of", lambda images, device: torch.zeros(images))
    return fake


def test_seconds_of_a_call_are_those_of_its_replays(stream: Stream) -> None:
    calls = [lambda: stream.work(2e-6), lambda: stream.work(3e-6)]
    assert device_seconds(calls, torch.device("cuda")) == pytest.approx([2e-6, 3e-6])


def se(channels: int = 32) -> Gate:
    torch.manual_seed(0)
    return next(m for m in deploy(SqueezeExcitation(channels, AttentionSpec(), 4)).modules() if isinstance(m, Gate))


def maps(images: int = 2, channels: int = 32) -> Tensor:
    return torch.randn(images, channels, 5, 7).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def kernel(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the kernel: how far it is off, its seconds and what it raises, and how often it was called."""
    facts: dict[str, Any] = {"off": 0.0, "seconds": 1e-5, "error": None, "calls": 0}
    plain = Gate.plain

    def gate_of(x: Tensor, stride: int, layers: Any, activations: tuple[str, str], counters: Tensor) -> Tensor:
        if facts["error"]:
            raise facts["error"]
        facts["calls"] += 1
        stream.work(facts["seconds"])
        hidden = torch.relu(torch.addmm(layers[1], x.mean((2, 3)), layers[0]))
        return torch.sigmoid(torch.addmm(layers[3], hidden, layers[2])) + float(facts["off"])

    def slow(one: Gate, x: Tensor) -> Tensor:
        stream.work(2e-5)
        return plain(one, x)

    monkeypatch.setattr(Gate, "plain", slow)
    monkeypatch.setattr(gate, "gate_kernel", lambda: gate_of)
    return facts


def runs_kernel(one: Gate, x: Tensor, kernel: dict[str, Any]) -> bool:
    """Whether a second call runs the kernel; both give the gate."""
    one(x)
    before = kernel["calls"]
    torch.testing.assert_close(one(x), one.product(one.squeeze(x)), rtol=0, atol=1e-5)
    return bool(kernel["calls"] > before)


def test_the_faster_form_is_measured_once_for_all_gates_of_a_shape(kernel: dict[str, Any]) -> None:
    one, x = se(), maps()
    assert runs_kernel(one, x, kernel)
    kernel["seconds"] = 3e-5
    assert runs_kernel(copy.deepcopy(one), x, kernel)
    assert not runs_kernel(one, maps(images=3), kernel)


@pytest.mark.parametrize("fact", [{"off": 1e-3}, {"off": float("nan")}, {"error": RuntimeError("no compiler")}])
def test_a_kernel_that_gives_another_gate_or_fails_is_not_used(kernel: dict[str, Any], fact: dict[str, Any]) -> None:
    kernel.update(fact)
    assert not runs_kernel(se(), maps(), kernel)


def test_torchs_operators_run_without_triton_for_other_numbers_and_layouts(
    kernel: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not runs_kernel(se().double(), maps().double(), kernel)
    assert not runs_kernel(se(), torch.randn(2, 32, 5, 7), kernel)
    monkeypatch.setattr(gate, "gate_kernel", lambda: None)
    assert not runs_kernel(se(), maps(), kernel)


def test_nothing_is_measured_while_a_graph_is_captured(kernel: dict[str, Any], stream: Stream) -> None:
    one, x = se(), maps()
    stream.capturing = True
    assert not runs_kernel(one, x, kernel)
    stream.capturing = False
    assert runs_kernel(one, x, kernel)


@pytest.mark.parametrize(
    ("spec", "joined"),
    [(AttentionSpec(), 1), (AttentionSpec(excitation="tanh", bias=False), 1), (AttentionSpec(squeeze="max"), 0)],
)
def test_what_the_kernel_knows_becomes_one_gate(spec: AttentionSpec, joined: int) -> None:
    deployed = deploy(nn.Sequential(nn.Conv2d(8, 16, 1), SqueezeExcitation(16, spec, 4)))
    assert sum(isinstance(m, Gate) for m in deployed.modules()) == joined


def test_a_squeeze_of_3x3_windows_stays_as_it_is() -> None:
    assert not any(isinstance(m, Gate) for m in deploy(build("seresnet20_cifar")).modules())


def test_gates_are_copied_and_saved_with_their_networks(tmp_path: Path) -> None:
    network, x = build("semobilenet_v1").eval(), torch.randn(1, 3, 32, 32)
    deployed = deploy(network)
    expected = deployed(x)
    torch.save(deployed, tmp_path / "network.pt")
    for other in (copy.deepcopy(deployed), torch.load(tmp_path / "network.pt", weights_only=False)):
        gates = [m for m in other.modules() if isinstance(m, Gate)]
        assert {one.activations for one in gates} == {("relu", "sigmoid")}
        torch.testing.assert_close(other(x), expected)


def test_streams_and_graphs_count_in_zeros_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, Any] = {"stream": 1, "capturing": False}
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state["capturing"])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=state["stream"]))
    counters, place = Counters(), torch.device("cpu")

    def address(images: int, **changes: Any) -> int:
        state.update(changes)
        zeros = counters.of(images, place)
        assert len(zeros) >= images
        assert not zeros.any()
        return zeros.data_ptr()

    assert address(3) == address(5)
    places = {address(3), address(3, stream=2), *(address(3, capturing=True) for _ in range(4))}
    assert len(places) == 6
    assert address(gate.ROOM) not in places  # more than is left: the graph sets them itself
    assert address(5000, capturing=False) not in places


class Replayed:
    """Captured calls that are made anew by each replay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        monkeypatch.setattr(cuda_graph, "captured", self.captured)
        monkeypatch.setattr(cuda_graph, "kind_of", lambda _: SimpleNamespace(graphs=True))

    def captured(self, call: Any, device: torch.device) -> Graph:
        self.number += 1
        return Graph(SimpleNamespace(replay=lambda: None), call(), call)  # type: ignore[arg-type]


def test_a_captured_network_is_copied_saved_moved_and_loaded_without_its_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replayed, x = Replayed(monkeypatch), torch.ones(1, 2, 2, 2)
    network = deploy(nn.Conv2d(2, 2, 1), graph=True)
    with torch.inference_mode():
        network(x)
    with torch.no_grad():
        network(x)  # in another mode, to the same images
    assert replayed.number == 1
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    for other in (copy.deepcopy(network), torch.load(file, weights_only=False)):
        assert isinstance(other, Captured)
        assert not other.runs
    network.load_state_dict(network.state_dict())
    network(x)
    network.float()(x)
    assert replayed.number == 3


class Several(nn.Module):
    """Vectors to several outputs."""

    def forward(self, x: torch.Tensor) -> Any:
        return {"twice": 2 * x, "more": (x + 1, [x + 2])}


def test_outputs_of_a_captured_network_are_copies_in_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    Replayed(monkeypatch)
    network, x = Captured(Several()), torch.ones(3, 2)
    found = network(x)
    (kept,) = network.runs.values()
    held: Any = kept[1].output
    torch.testing.assert_close(found, Several()(x))
    for own, other in ((found["twice"], held["twice"]), (found["more"][1][0], held["more"][1][0])):
        assert own.data_ptr() != other.data_ptr()


def test_a_graph_keeps_the_weights_that_it_reads() -> None:
    class Weights:
        def __call__(self) -> None: ...

    weights = Weights()
    seen = weakref.ref(weights)
    replay = Graph(SimpleNamespace(replay=lambda: None), None, weights).replay  # type: ignore[arg-type]
    del weights
    gc.collect()
    assert seen() is not None
    del replay
