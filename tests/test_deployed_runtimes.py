"""Deployed networks in the runtimes that people ship with: same outputs, files, errors in one line."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from senet_bench.bench.machine import check_conditions, session
from senet_bench.bench.runtimes import example, prepare
from senet_bench.core import catalog
from senet_bench.core.results import RuntimeStanding
from senet_bench.core.runtimes import ENGINES, FASTEST, RUNTIMES, missing_modules
from senet_bench.core.specs import AttentionSpec, Conditions, Runtime
from senet_bench.deployment import Deployed, deploy, engines
from senet_bench.deployment.engines import openvino_core
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models import build
from senet_bench.models.attention import maker
from senet_bench.show.networks import to_ship
from tests.conftest import Run
from tests.test_deployment import SIDES, lived_in

INSTALLED = [name for name, facts in ENGINES.items() if not missing_modules(facts)]
EXPORTED = [name for name in INSTALLED if ENGINES[name].extra]
exported = pytest.mark.parametrize(
    "runtime",
    EXPORTED or [pytest.param(None, marks=pytest.mark.skip(reason="neither ONNX Runtime nor OpenVINO is here"))],
)


def assert_same(network: nn.Module, deployed: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        expected = network(x)
        assert (deployed(x) - expected).abs().max() / expected.abs().max() < 1e-5


class Unit(nn.Module):
    """What a network with SE has, once: a gate that can be taken early, a sum, a convolution of every second pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.point, self.strided, self.classifier = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, 2), nn.Linear(8, 5)
        self.attention = maker("se")(8, AttentionSpec(reduction=4), 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.attention(self.point(y)) + y)
        return self.classifier(self.strided(y).mean((2, 3)))  # type: ignore[no-any-return]


def small() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    return lived_in(Unit(), x), x


def test_every_runtime_of_a_row_has_its_facts() -> None:
    assert (*RUNTIMES, FASTEST) == get_args(Runtime)
    assert set(ENGINES) == {"torch", "eager", "compile", "onnxruntime", "openvino"}


@exported
def test_outputs_stay_for_any_shape_and_layout_and_new_weights(runtime: Any) -> None:
    network, x = small()
    deployed, dynamic = deploy(network, runtime), deploy(network, runtime, dynamic=True)
    for images in (x, torch.randn(1, 3, 33, 19), x.contiguous(memory_format=torch.channels_last)):
        assert_same(network, deployed, images)
        assert_same(network, dynamic, images)
    assert isinstance(deployed, Deployed)
    assert isinstance(dynamic, Deployed)
    assert (len(deployed.runs), len(dynamic.runs)) == (2, 1)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.2)
    new = deploy(other, runtime).state_dict()
    deployed.load_state_dict(new)
    assert_same(other, deployed, x)
    deployed = deploy(network, runtime)
    parent = nn.Sequential(deployed)
    parent(x)
    parent.load_state_dict({f"0.{name}": value for name, value in new.items()})
    assert_same(other, parent, x)


class Halving(Unit):
    """It writes into a part of its map, which torch's exporter to ONNX leaves out."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y.narrow(1, 0, 4).mul_(0.5)
        return y.mean((2, 3))  # type: ignore[no-any-return]


def test_outputs_that_onnx_runtime_gets_wrong_are_refused() -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(MeasurementError, match="onnxruntime gives other outputs than the network; deploy it for"):
        deploy(Halving().eval(), "onnxruntime")(torch.randn(2, 3, 32, 32))


class Choosing(Unit):
    """What it computes depends on its values, so that it has no static graph."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return y.mean((2, 3)) if float(y.sum()) > 0 else y.amax((2, 3))  # type: ignore[no-any-return]


def test_what_a_runtime_says_where_it_cannot_take_a_network_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="data-dependent"):
        deploy(Choosing().eval(), "compile")(torch.randn(2, 3, 32, 32))


class Shifted(Unit):
    """A map of a convolution plus a constant."""

    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.stem(x) + self.offset)  # type: ignore[no-any-return]


@exported
@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1, 1, 1, 1), (8, 1, 1), (1, 8, 32, 32), ()])
def test_a_constant_is_added_to_a_map(runtime: Any, shape: tuple[int, ...]) -> None:
    network = Shifted(torch.randn(shape)).eval()
    deployed = deploy(network, runtime)
    assert_same(network, deployed, torch.randn(2, 3, 32, 32))


@exported
def test_networks_and_files_are_kept_and_read_back(runtime: Any, tmp_path: Path) -> None:
    network, x = small()
    deployed = deploy(network, runtime)
    deployed(x)
    torch.save(deployed, tmp_path / "deployed.pt")
    assert_same(network, torch.load(tmp_path / "deployed.pt", weights_only=False), x)
    assert isinstance(deployed, Deployed)
    ending = {"onnxruntime": "onnx", "openvino": "xml"}[runtime]
    deployed.save(tmp_path / f"network.{ending}")
    with torch.no_grad():
        expected = network(x).numpy()
    assert expected == pytest.approx(read_back(tmp_path / f"network.{ending}", x), abs=1e-4)


def read_back(path: Path, x: Tensor) -> Any:
    if path.suffix == ".onnx":
        session: Any = pytest.importorskip("onnxruntime").InferenceSession(str(path))
        return session.run(None, {"image": x.numpy()})[0]
    pytest.importorskip("openvino")
    core = openvino_core()
    return core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x.numpy()])[0]


@exported
def test_the_deploy_form_is_a_runtime(runtime: Any) -> None:
    network, _ = small()
    conditions = Conditions(runtime=f"deploy:{runtime}", batch_size=2)  # type: ignore[arg-type]
    with session(conditions):
        prepared = prepare(network, conditions, example((3, 32, 32), 2))
    assert prepared.difference < 1e-5


@exported
@pytest.mark.parametrize("form", ["", "deploy:"])
def test_a_network_is_exported_once_for_all_its_calls(runtime: Any, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = small()
    conditions = Conditions(runtime=form + runtime, batch_size=2)
    begun: list[object] = []
    begin = engines.Running.__init__

    def noted(self: engines.Running, model: object, *rest: Any) -> None:
        begun.append(model)
        begin(self, model, *rest)

    monkeypatch.setattr(engines.Running, "__init__", noted)
    with session(conditions), torch.inference_mode():
        ready = prepare(network, conditions, x)
        outputs = [ready.factory()() for _ in range(2)]
        assert torch.equal(*outputs)  # type: ignore[arg-type]
        assert (outputs[0] - network(x)).abs().max() < 1e-5
    assert len(begun) == 4  # what was exported, and a copy for each call that was made
    assert len(set(map(id, begun))) == 1


def test_openvino_tells_the_network_of_nothing() -> None:
    pytest.importorskip("openvino")
    program = """
import sys, torch
from torch import nn
from senet_bench.deployment import deploy
deploy(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), "openvino")(torch.randn(1, 3, 8, 8))
assert "openvino" in sys.modules
print(sys.modules["openvino_telemetry"], [name for name in sys.modules if name.startswith("openvino_telemetry.")])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split("\n")[0] == "None []"


def test_the_plain_form_runs_in_torch_and_follows_the_precision() -> None:
    network, x = small()
    assert_same(network, deploy(network, "eager"), x)
    with torch.inference_mode():
        found, expected = deploy(network, "eager").bfloat16()(x.bfloat16()).float(), network(x)
    assert (found - expected).abs().max() / expected.abs().max() < 0.1


def test_openvino_calculates_in_bf16_where_the_processor_has_it() -> None:
    pytest.importorskip("openvino")
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("no bf16 here")
    network, x = small()
    for runtime in ("openvino", "deploy:openvino"):
        conditions = Conditions(runtime=runtime, batch_size=2, precision="bf16")
        check_conditions(conditions)
        with session(conditions):
            ready = prepare(network, conditions, x)
        assert 1e-5 < ready.difference <= ready.tolerance  # not fp32, and near it
    deployed = deploy(network, "openvino").bfloat16()
    with torch.inference_mode():
        assert (deployed(x.bfloat16()) - network(x)).abs().max() <= 0.1 * network(x).abs().max()


def test_onnx_runtime_refuses_bf16_in_one_line() -> None:
    with pytest.raises(UsageError, match="onnxruntime runs inference in fp32 with contiguous"):
        check_conditions(Conditions(runtime="onnxruntime", precision="bf16"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_compiled_form_gives_the_same() -> None:
    network, x = small()
    deployed = deploy(network, "compile")
    assert_same(network, deployed, x)
    assert_same(network, deployed, torch.randn(1, 3, 40, 24))


def test_what_is_unknown_or_not_installed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network, x = small()
    with pytest.raises(UsageError, match="no runtime 'tvm'; choose from torch, eager, compile, onnxruntime, openvino"):
        deploy(network, "tvm")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"TensorRT is not run from here; .*trtexec"):
        check_conditions(Conditions(runtime="deploy:tensorrt"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="contiguous"):
        check_conditions(Conditions(runtime="deploy:openvino", channels_last=True))
    deployed = deploy(network)
    assert isinstance(deployed, Deployed)
    with pytest.raises(UsageError, match=r"network.pb ends in none of .onnx, .xml"):
        deployed.save(tmp_path / "network.pb")
    with pytest.raises(UsageError, match="no shape yet"):
        deployed.save(tmp_path / "network.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for call in (lambda: deploy(network, "openvino"), lambda: deployed.save(tmp_path / "a.xml", (1, 3, 32, 32))):
        with pytest.raises(UsageError, match=r"openvino needs openvino; run: .*senet-bench\[openvino\]"):
            call()
    assert_same(network, deployed, x)


def test_the_fastest_runtime_is_looked_for_in_the_same_rounds_and_then_compared_in(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("senet_bench.bench.race.entrants", lambda **_: ("eager", "deploy", "deploy:eager"))
    ended = run("compare", "seresnet20_cifar", "--runtime", "fastest", "--budget", "0.8", "--format", "json")
    assert ended.code == 0, ended.err
    base, row = json.loads(ended.out)["rows"]
    assert "standings" not in base or not base["standings"]
    names = [standing["runtime"] for standing in row["standings"]]
    assert sorted(names) == ["deploy", "deploy:eager", "eager"]
    assert row["latency"]["conditions"]["runtime"] == base["latency"]["conditions"]["runtime"] == names[0]
    seconds = [standing["seconds"] for standing in row["standings"]]
    assert seconds == sorted(seconds)
    refused = run("profile", "seresnet20_cifar", "--runtime", "fastest")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "where networks are compared" in refused.err


def test_what_to_ship_is_said_with_its_margin_and_what_it_needs() -> None:
    eager = RuntimeStanding(runtime="eager", seconds=0.1, ratio=1.0)
    second = RuntimeStanding(runtime="deploy", seconds=0.06, ratio=0.6, behind=1.67, behind_ci=(1.5, 1.8))
    first = RuntimeStanding(
        runtime="deploy:openvino", seconds=0.05, ratio=0.5, ci=(0.4, 0.6), behind=1.2, behind_ci=(0.9, 1.3)
    )
    away = RuntimeStanding(runtime="onnxruntime", reason="onnxruntime needs onnx")
    said, absent = to_ship([first, second, eager, away])
    assert said == (
        "ship deploy:openvino for batch 1: 0.50 of eager's time [0.40, 0.60], deploy takes 1.20 of its time"
        " [0.90, 1.30], which these rounds cannot tell apart; it needs senet-bench[openvino]"
    )
    assert absent == "not in the search: onnxruntime (onnxruntime needs onnx)"
    assert list(to_ship([second, eager])) == [
        "ship deploy for batch 1: 0.60 of eager's time, eager takes 1.67 of its time [1.50, 1.80]; it needs torch alone"
    ]
    assert list(to_ship([])) == []


@pytest.mark.slow
@exported
@pytest.mark.parametrize("name", catalog.CLASSIFIERS)
def test_every_network_gives_the_same_outputs_in_every_runtime(name: str, runtime: Any) -> None:
    if runtime == "onnxruntime" and "vgg" in name:
        pytest.skip("ONNX pools to 7 x 7 from its multiples alone")
    torch.manual_seed(0)
    side = SIDES[catalog.CATALOG[name].input_size[1]]
    network = lived_in(build(name), torch.randn(4, 3, side, side))
    dynamic = deploy(network, runtime, dynamic=True)
    for batch, height, width in ((1, side, side), (9, side, side), (2, side + 9, side + 1)):
        x = torch.randn(batch, 3, height, width)
        assert_same(network, deploy(network, runtime), x)
        assert_same(network, dynamic, x.contiguous(memory_format=torch.channels_last))


@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.CLASSIFIERS)
def test_every_network_gives_the_same_outputs_in_torch(name: str) -> None:
    torch.manual_seed(0)
    side = SIDES[catalog.CATALOG[name].input_size[1]]
    network = lived_in(build(name), torch.randn(4, 3, side, side))
    forms = deploy(network, "eager"), deploy(network)
    for batch, height, width in ((1, side, side), (9, side + 9, side + 1)):
        x = torch.randn(batch, 3, height, width).contiguous(memory_format=torch.channels_last)
        for form in forms:
            assert_same(network, form, x)


SIGNALLED = """
import gc, signal, sys, warnings
warnings.simplefilter("ignore")
import torch
from senet_bench.deployment import deploy
networks = [deploy(torch.nn.Conv2d(3, 8, 3).eval(), "openvino") for _ in range(2)]
for network in networks:
    network(torch.zeros(1, 3, 8, 8))
del network
while networks:
    networks.pop(0)  # the first one first
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_is_heard_after_networks_in_openvino_are_gone() -> None:
    pytest.importorskip("openvino")
    ended = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), ended.stderr
