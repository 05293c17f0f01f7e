from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from senet_bench.bench.latency import measure_networks
from senet_bench.bench.machine import check_conditions, session
from senet_bench.bench.rounds import Plan
from senet_bench.bench.runtimes import example, prepare
from senet_bench.cli import app
from senet_bench.core import runtimes
from senet_bench.core.progress import result_of
from senet_bench.core.runtimes import RUNTIMES, missing_modules
from senet_bench.core.specs import Conditions
from senet_bench.deployment.engines import write_onnx
from senet_bench.deployment.onnx_gates import gates_of, name_nodes
from senet_bench.deployment.quantised import Quantised, quantised
from senet_bench.errors import UsageError
from senet_bench.models import build

INT8 = [name for name, facts in RUNTIMES.items() if facts.int8]
pytestmark = pytest.mark.filterwarnings("ignore")


def needs(runtime: Any) -> None:
    missing = missing_modules(RUNTIMES[runtime])
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


class Gated(nn.Module):
    """A convolution, one gate as torchvision writes it, a swish that is none, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.down, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = y * torch.sigmoid(y)
        gate = torch.nn.functional.hardsigmoid(self.up(torch.relu(self.down(y.mean((2, 3), keepdim=True)))))
        return self.head((y * gate).mean((2, 3)))  # type: ignore[no-any-return]


def test_gates_are_found_by_what_they_compute(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for network, count in ((Gated(), 1), (build("seresnet20_cifar"), 9), (build("resnet20_cifar"), 0)):
        write_onnx(network.eval(), torch.randn(1, 3, 16, 16), tmp_path / "network.onnx")
        model = onnx.load(str(tmp_path / "network.onnx"))
        name_nodes(model)
        gates = gates_of(model)
        kinds = {node.name: node.op_type for node in model.graph.node}
        assert len(gates) == count
        for gate in gates:
            made = [kinds[name] for name in gate.nodes]
            assert kinds[gate.product] == "Mul"
            assert {"Relu"} < set(made)
            assert made.count("Conv") + made.count("Gemm") == 2


@pytest.mark.parametrize("runtime", [name for name in INT8 if RUNTIMES[name].engine == "onnxruntime"])
def test_what_is_quantised_by_onnxruntime_is_near_and_takes_batches_of_any_size(runtime: Any) -> None:
    needs(runtime)
    near(runtime)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [name for name in INT8 if RUNTIMES[name].engine == "openvino"])
def test_what_is_quantised_by_nncf_is_near_and_takes_batches_of_any_size(runtime: Any) -> None:
    needs(runtime)
    near(runtime)


def near(runtime: Any) -> None:
    network, images = Gated().eval(), [torch.randn(4, 3, 16, 16) for _ in range(8)]
    int8, x = Quantised(RUNTIMES[runtime], network, images), images[0]
    with torch.no_grad():
        expected = network(x)
    difference = (int8(x) - expected).abs().max() / expected.abs().max()
    assert 0 < difference < 0.25
    assert torch.equal(int8(x[:1]), int8(x)[:1])
    assert torch.equal(int8(torch.cat([x, x[:3]])), torch.cat([int8(x), int8(x[:3])]))


def test_gates_that_are_kept_are_not_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnxruntime:int8")
    from onnxruntime import quantization

    given, quantise = list[Any](), quantization.quantize_static

    def noted(*arguments: Any, **named: Any) -> Any:
        given.append(named["nodes_to_exclude"])
        return quantise(*arguments, **named)

    monkeypatch.setattr(quantization, "quantize_static", noted)
    for runtime in ("onnxruntime:int8", "onnxruntime:int8-fp32gates"):
        quantised(RUNTIMES[runtime], Gated().eval(), [torch.randn(1, 3, 16, 16)])
    assert given[0] == []
    assert len(given[1]) >= 5  # a mean, two convolutions, two activations


def test_the_row_of_int8_says_what_it_was_calibrated_by() -> None:
    needs("onnxruntime:int8")
    conditions, plan = Conditions(runtime="onnxruntime:int8"), Plan(budget_s=0.5, warmup_s=0.01, epochs=1)
    networks = {"a": Gated(), "b": Gated()}
    latency = result_of(measure_networks(networks, "a", (3, 16, 16), conditions=conditions, plan=plan)).latency("b")
    assert "INT8 calibrated by 64 seeded images" in str(latency.settings.images if latency.settings else None)
    assert latency.difference_from_eager


class Keeping(Gated):
    """A gate that is kept by the shape of its map."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = dict[Any, Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + self.kept.setdefault(y.shape, y)


def test_int8_is_held_against_a_copy_of_itself_for_images_unlike_those_of_its_calibration() -> None:
    needs("onnxruntime:int8")
    conditions, size = Conditions(runtime="onnxruntime:int8"), (3, 32, 32)
    with session(conditions):
        call: Any = prepare(build("seresnet20_cifar"), conditions, example(size, 1)).factory()
        outputs, faults = [], []
        for _ in range(8):
            call.vary()
            outputs.append(call())
            faults.append(call.fault(outputs[-1]))
        assert faults == [None] * 8
        assert call.fault(outputs[0]) == "stale"
        call = prepare(Keeping(), conditions, example(size, 1)).factory()
        call.vary()
        assert call.fault(call()) == "stale"


def test_what_int8_lacks_is_told_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "missing_modules", lambda facts: ("nncf",))
    with pytest.raises(UsageError, match=r'openvino needs nncf; run: .*"senet-bench\[int8\]"'):
        check_conditions(Conditions(runtime="openvino:int8"))
    result = CliRunner().invoke(app, ["evaluate", "resnet20_cifar", "--weights", "x", "--runtime", "compile"])
    assert result.exit_code == 2
