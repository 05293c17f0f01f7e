"""The deploy form against the plain network, its parts."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import senet_bench
from senet_bench import deployment
from senet_bench.bench.agreement import array, distance, exactly
from senet_bench.bench.machine import session
from senet_bench.bench.runtimes import example, prepare
from senet_bench.core import catalog
from senet_bench.core.progress import result_of
from senet_bench.core.recipes import recipe
from senet_bench.core.specs import AttentionSpec, Conditions
from senet_bench.data import sets
from senet_bench.deployment import convolution, deploy, graph
from senet_bench.deployment.graph import kind
from senet_bench.deployment.parts import EarlySqueeze
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models import build
from senet_bench.models.attention import maker
from senet_bench.training.evaluation import predict
from senet_bench.training.loop import train
from senet_bench.training.objective import Settings
from tests.support.networks import one_of_each_kind, slow_but

SIDES = {299: 96, 224: 64, 32: 32}


def lived_in(network: nn.Module, x: Tensor) -> nn.Module:
    """The network with BatchNorm statistics, scales and shifts that fit its weights and are not 0 and 1.

    Statistics of a small batch alone would make the network amplify rounding: plain fp32 then is 2e-5 off float64.
    """
    generator = torch.Generator().manual_seed(1)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.15
        assert norm.weight is not None
        with torch.no_grad():
            norm.weight.copy_(0.8 + 0.4 * torch.rand(norm.weight.shape, generator=generator))
            norm.bias.copy_(0.2 * torch.randn(norm.bias.shape, generator=generator))
    with torch.no_grad():
        for _ in range(3):
            network.train()(x)
    return network.eval()


def ready(name: str, attention: AttentionSpec | None = None) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    side = SIDES[catalog.CATALOG[name].input_size[1]]
    x = torch.randn(4, 3, side, side)
    return lived_in(build(name, attention=attention), x), x[:2]


def assert_same(network: nn.Module, deployed: nn.Module, x: Tensor, within: float = 1e-5) -> None:
    with torch.inference_mode():
        expected = network(x)
        for images in (x, x[:1], x):
            found, wanted = deployed(images), expected[: len(images)]
            assert (found - wanted).abs().max() / wanted.abs().max() < within
            assert torch.equal(found.argmax(1), wanted.argmax(1))


def calls(deployed: nn.Module) -> list[str]:
    """The operators of the deploy form."""
    body = deployed.body
    assert isinstance(body, torch.fx.GraphModule)
    return [getattr(what, "__name__", str(what)) for node in body.graph.nodes if (what := kind(body, node))]


def test_sums_of_one_pixel_are_the_same() -> None:
    x = torch.randn(2, 3, 32, 32)
    network = lived_in(build("resnet50"), x)
    deployed = deploy(network)
    assert deployed.rewritten
    assert_same(network, deployed, x)


@pytest.mark.parametrize("name", one_of_each_kind(catalog.CLASSIFIERS, below=24e6))
def test_every_network_gives_the_same_outputs(name: str) -> None:
    network, x = ready(name)
    before = copy.deepcopy(network.state_dict())
    deployed = deploy(network)
    assert_same(network, deployed, x)
    assert "Conv2d" not in calls(deployed)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


SWITCHES = {
    "pre": AttentionSpec(integration="pre"),
    "post": AttentionSpec(integration="post"),
    "identity": AttentionSpec(integration="identity"),
    "3x3": AttentionSpec(placement="3x3"),
    "max": AttentionSpec(squeeze="max"),
    "none": AttentionSpec(squeeze="none"),
    "tanh": AttentionSpec(excitation="tanh"),
    "relu": AttentionSpec(excitation="relu"),
    "no bias": AttentionSpec(bias=False),
    "r = 4": AttentionSpec(reduction=4),
    "two stages": AttentionSpec(stages=(3, 4)),
    "constant": AttentionSpec(block="constant"),
}


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize(
    "name",
    slow_but(
        ("seresnet50", "seresnet18", "seshufflenet_v1_g3", "seresnet20_cifar"),
        ("seresnet20_cifar",),
    ),
)
def test_every_switch_gives_the_same_outputs(name: str, switch: str) -> None:
    if switch == "3x3" and name in ("seresnet18", "seresnet20_cifar"):
        pytest.skip("a basic unit has no place after a 3x3 inside a bottleneck")
    network, x = ready(name, SWITCHES[switch])
    assert_same(network, deploy(network), x)


WITH_SE = [spec.name for spec in catalog.CLASSIFIERS.values() if spec.attention is not None]
PLACES = {
    **{name: AttentionSpec(integration=name) for name in ("pre", "post", "identity")},
    "3x3": AttentionSpec(placement="3x3"),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", WITH_SE)
def test_every_network_gives_the_same_outputs_in_every_integration(name: str, place: str) -> None:
    spec = catalog.CATALOG[name].attention
    assert spec is not None
    try:
        network, x = ready(
            name, replace(spec, integration=PLACES[place].integration, placement=PLACES[place].placement)
        )
    except UsageError as error:
        pytest.skip(str(error))
    exact = exactly(network, x)
    assert exact is not None
    own = distance(array(network(x)), exact)  # 2e-4 in 110 layers with SE on the identity
    assert_same(network, deploy(network), x, within=max(1e-5, 3 * own))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["standard", *PLACES])
def test_a_trained_network_gives_every_test_image_the_same_class(place: str) -> None:
    spec = PLACES.get(place, AttentionSpec())
    name = "seresnet164_cifar" if place == "3x3" else "seresnet20_cifar"
    torch.manual_seed(0)
    digits = sets.load_images("digits-full")
    network = build(name, classes=10, in_channels=1, attention=spec)
    ends = result_of(train(network, digits, recipe("digits").lasting(3), Settings()))
    plain, fast = (predict(one, digits, digits.test) for one in (network, deploy(network)))
    assert ends[-1].top1_err is not None
    assert plain.top1_err < 0.3  # it learned: a tenth is right by chance
    assert (plain.best[:, 0] == fast.best[:, 0]).all()
    assert np.allclose(plain.losses, fast.losses, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "spec", "early"),
    [
        ("seresnet50", AttentionSpec(), 16),
        ("seresnet18", AttentionSpec(), 8),
        pytest.param("seresnet50", AttentionSpec(integration="identity"), 4, marks=pytest.mark.slow),
        pytest.param("seresnet50", AttentionSpec(squeeze="max"), 0, marks=pytest.mark.slow),
        ("seresnet50", AttentionSpec(integration="post"), 0),
        pytest.param("seinception_resnet_v2", AttentionSpec(), 40, marks=pytest.mark.slow),
        ("seresnet20_cifar", AttentionSpec(), 9),
        pytest.param("seshakeshake26_2x96d_cifar", AttentionSpec(), 12, marks=pytest.mark.slow),
        ("seshufflenet_v1_g3", AttentionSpec(), 13),
        ("semobilenet_v1", AttentionSpec(), 0),
    ],
)
def test_the_gate_is_early_wherever_a_convolution_comes_first(name: str, spec: AttentionSpec, early: int) -> None:
    squeezes = [m for m in deploy(build(name, attention=spec)).modules() if isinstance(m, EarlySqueeze)]
    assert sum(squeeze.early for squeeze in squeezes) == early


def test_resnet_50_runs_as_convolutions_gates_one_pool_and_slices_of_maps_read_in_part() -> None:
    parts = {"Convolution", "MaxPool2d", "EarlySqueeze", "getitem"}
    assert set(calls(deploy(build("resnet50")))) == parts
    assert set(calls(deploy(build("seresnet50")))) == {*parts, "Gate"}


@pytest.mark.parametrize("name", ["seresnet50", "seshufflenet_v1_g3", "semobilenet_v1"])
def test_without_the_private_operators_an_eager_form_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "has_prepacked", lambda: False)
    network, x = ready(name)
    assert_same(network, deploy(network), x)


def test_operators_that_changed_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "pointwise", lambda x, *rest, **kwargs: x)
    assert convolution.has_prepacked.__wrapped__() is False


@pytest.mark.parametrize("huge", [0, 1 << 40], ids=["huge", "large"])
@pytest.mark.parametrize("name", slow_but(("seresnet18", "seresnet50", "seshufflenet_v1_g3"), ("seshufflenet_v1_g3",)))
def test_large_maps_are_gated_image_by_image(name: str, huge: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "HUGE_MAP", huge)
    monkeypatch.setattr(convolution, "LARGE_MAP", 0)
    network, x = ready(name)
    assert_same(network, deploy(network), x)
    assert_same(network, deploy(network, early_gate=False), x)


GAINS = {
    "number": torch.tensor(0.7),
    "one value": torch.full((1,), 0.7),
    "channels": torch.linspace(0.5, 1, 4).view(4, 1, 1),
    "images and channels": torch.linspace(0.5, 1, 8).view(2, 4, 1, 1),
    "rows": torch.linspace(0.5, 1, 8).view(8, 1),
    "as a map": torch.linspace(0.5, 1, 512).view(2, 4, 8, 8),
    "volume": torch.full((1, 1, 1, 1, 1), 0.7),
    "double": torch.full((4, 1, 1), 0.7, dtype=torch.float64),
}


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("gain", GAINS)
def test_a_large_map_is_gated_by_whatever_broadcasts_to_it(
    gain: str, outputs: int, reuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "HUGE_MAP", 0)
    monkeypatch.setattr(convolution, "LARGE_MAP", 0)
    torch.manual_seed(0)
    conv, gate = nn.Conv2d(4, outputs, 1).requires_grad_(False), GAINS[gain]
    x, other = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    expected = F.relu(other + gate * conv(x))
    found = convolution.Convolution(conv, relu=True)(x, other, gate, reuse=reuse)
    torch.testing.assert_close(found, expected)


def test_a_late_gate_gives_the_same() -> None:
    network, x = ready("seresnet50")
    assert_same(network, deploy(network, early_gate=False), x)


def test_reduced_precision_follows_the_form() -> None:
    network, x = ready("seresnet18")
    with torch.inference_mode():
        found, expected = deploy(network).bfloat16()(x.bfloat16()).float(), network(x)
    assert (found - expected).abs().max() / expected.abs().max() < 0.1


def test_a_deployed_network_can_be_copied_and_pickled() -> None:
    network, x = ready("seresnet18")
    deployed = deploy(network)
    deployed(x)
    assert_same(network, copy.deepcopy(deployed), x)
    packing = next(m.packing for m in deployed.modules() if isinstance(m, convolution.Convolution))
    assert packing.weight is not None
    assert pickle.loads(pickle.dumps(packing)).weight is None


@pytest.mark.filterwarnings("ignore")  # torch's own, of its older ways
def test_a_used_deployed_network_is_traced(tmp_path: Path) -> None:
    network, x = ready("seresnet20_cifar")
    deployed = deploy(network)
    deployed(x)  # packed
    jit: Any = torch.jit
    jit.save(jit.trace(deployed, x), tmp_path / "traced.pt")
    assert_same(network, jit.load(tmp_path / "traced.pt"), torch.cat([x, x]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, of its older ways
def test_a_used_deployed_network_is_exported_by_torch(tmp_path: Path) -> None:
    network, x = ready("seresnet20_cifar")
    deployed = deploy(network)
    deployed(x)  # packed
    usual = deploy(network).to(memory_format=torch.contiguous_format)
    exported = torch.export.export(usual, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(exported, tmp_path / "exported.pt2")
    assert_same(network, torch.export.load(tmp_path / "exported.pt2").module(), torch.cat([x, x]))
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    torch.onnx.export(deployed, (x,), str(tmp_path / "deployed.onnx"), dynamo=False)
    session = runtime.InferenceSession(str(tmp_path / "deployed.onnx"))
    output = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    torch.testing.assert_close(output, network(x), rtol=1e-3, atol=1e-3)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3)) if x.sum() > 0 else x.mean((2, 3))


class Overwriting(Branching):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = y + 1
        y.mul_(2)
        return (z + y).mean((2, 3))  # type: ignore[no-any-return]


class Broadcasting(Branching):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x)
        pooled = self.conv(x.mean((2, 3), keepdim=True))
        return (self.conv(y) * torch.sigmoid(pooled) + pooled + y + torch.relu(y + self.conv(y))).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("network", [Branching(), Overwriting(), Broadcasting()], ids=lambda n: type(n).__name__)
def test_networks_of_others_keep_their_outputs(network: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 7)
    lived_in(network, x)
    assert_same(network, deploy(network), x)


class Tail(Branching):
    """A convolution and its ReLU, what a test adds after them, and a parameter of five dimensions."""

    def __init__(self, tail: Callable[[Tail, Tensor], Tensor]) -> None:
        super().__init__()
        self.tail, self.five = tail, nn.Parameter(torch.ones(3, 1, 1, 1, 1))
        self.one, self.wide, self.head = nn.Conv2d(3, 1, 1), nn.Linear(1, 4), nn.Linear(3, 4)
        self.gain, self.act = nn.Parameter(torch.tensor(0.7)), nn.Hardswish(inplace=True)

    def forward(self, x: Tensor, cond: Tensor | None = None, features: bool = False) -> Tensor:
        y = F.relu(self.conv(x))
        if cond is not None:
            y = y + self.conv(cond)
        return y if features else self.tail(self, y).flatten(1)


TAILS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "number": lambda n, x: F.relu(n.conv(x)) * 2,
    "sigmoid": lambda n, x: torch.sigmoid(n.conv(x)) * 2,
    "square": lambda n, x: 0.5 * ((y := n.conv(x)) * y),
    "twice": lambda n, x: 2 * ((y := n.conv(x)) + y),
    "twice and a sum": lambda n, x: F.relu((y := n.conv(x)) * y + x) + ((z := n.conv(x)) + z),
    "groups": lambda n, x: n.wide(n.conv(x).view(-1, 3, 1, 8, 8).mean((-1, -2))),
    "one channel and three": lambda n, x: n.head((n.one(x) + n.conv(x)).mean((2, 3))),
    "logits": lambda n, x: x.mean((2, 3)) * 0.1,
    "gain": lambda n, x: x + n.gain * n.conv(x),
    "side": lambda n, x: F.relu(n.conv(x) * x.shape[2] + x),
    "sides": lambda n, x: F.relu(torch.sigmoid(x) * x.shape[2] + n.conv(x) + x.size(3)),
    "mask": lambda n, x: torch.relu(x) * (x > 0.3),
    "double": lambda n, x: (torch.relu(x) * x.new_ones(3, 1, 1, dtype=torch.float64)).float(),
    "view": lambda n, x: n.conv(x).view(-1, 3 * 8 * 8),
    "bits": lambda n, x: n.conv(x).view(torch.int32).view(torch.float32),
    "volume": lambda n, x: F.conv3d(x.unsqueeze(1), n.five).mean(1),
}


def assert_rewritten(tail: Callable[[Tail, Tensor], Tensor]) -> None:
    """A network that ends so becomes another graph with its outputs."""
    torch.manual_seed(0)
    network, x = Tail(tail), torch.randn(2, 3, 8, 8)
    lived_in(network, x)
    deployed = deploy(network)
    assert deployed.rewritten
    assert_same(network, deployed, x)


@pytest.mark.parametrize("tail", TAILS)
def test_numbers_defaults_and_volumes_keep_their_outputs(tail: str) -> None:
    assert_rewritten(TAILS[tail])


def with_its_half_doubled(network: Tail, x: Tensor) -> Tensor:
    y: Tensor = network.conv(x)
    y[:, :1].mul_(2)
    return y


def with_a_view_of_before(network: Tail, x: Tensor) -> Tensor:
    y: Tensor = network.conv(x)
    view: Tensor = y.flatten(1)
    y.mul_(2)
    return view


def read_before_it_is_activated(network: Tail, x: Tensor) -> Tensor:
    y = network.conv(x)
    z: Tensor = network.conv(y) + network.act(y)
    return z


def overwritten(write: Callable[[Tensor], object]) -> Callable[[Any, Tensor], Tensor]:
    def tail(network: Tail, x: Tensor) -> Tensor:
        y: Tensor = network.conv(x)
        write(y)
        return y

    return tail


OVERWRITTEN: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "view": with_its_half_doubled,
    "view of before": with_a_view_of_before,
    "activation": read_before_it_is_activated,
    "narrow": overwritten(lambda y: y.narrow(1, 0, 1).mul_(y.mean((1, 2, 3), keepdim=True))),
    "flat": overwritten(lambda y: torch.relu_(y.flatten(2).transpose(1, 2))),
    "chunk": overwritten(lambda y: y.chunk(3, 1)[1].add_(1)),
    "kept by dropout": overwritten(lambda y: F.dropout(y, training=False).add_(1)),
    "sigmoid": overwritten(torch.sigmoid_),
    "leaky relu": overwritten(F.leaky_relu_),
    "out": overwritten(lambda y: torch.clamp(y, 0, out=y)),
    "input": lambda n, x: F.relu(n.conv(x[:, :1].mul_(2).expand_as(x)) + x),
}


@pytest.mark.parametrize("tail", OVERWRITTEN)
def test_what_is_overwritten_and_read_keeps_its_outputs(tail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, x = Tail(OVERWRITTEN[tail]), torch.randn(2, 3, 8, 8)
    lived_in(network, x)
    assert_same(network, deploy(network), x)
    monkeypatch.setattr(graph, "same_outputs", lambda *_: True)
    assert graph.traced(network) is None


OVERWRITTEN_ALONE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "module": lambda n, x: n.act(n.conv(x)),
    "size before": lambda n, x: (y := n.conv(x)).view(y.size(0), 3, -1).sigmoid_(),
    "view": lambda n, x: torch.relu_(n.conv(x).flatten(2)).mean(2),
    "read before a sum": lambda n, x: F.relu((y := n.conv(x)).mean((2, 3), keepdim=True) + y.add_(1)),
}


@pytest.mark.parametrize("tail", OVERWRITTEN_ALONE)
def test_what_works_in_place_on_what_nobody_else_reads_stays_a_graph(tail: str) -> None:
    assert_rewritten(OVERWRITTEN_ALONE[tail])


def test_a_form_that_gives_other_outputs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = ready("resnet20_cifar")
    right = deployment.transformed

    def wrong(module: torch.fx.GraphModule, **kwargs: Any) -> torch.fx.GraphModule:
        module = right(module, **kwargs)
        with torch.no_grad():
            next(module.parameters()).mul_(1.1)
        return module

    monkeypatch.setattr(deployment, "transformed", wrong)
    deployed = deploy(network)
    assert not deployed.rewritten
    assert_same(network, deployed, x)


def test_a_form_may_be_as_far_away_as_rounding_takes_the_network() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 4))
    norm: Any = network[1]
    nn.init.constant_(norm.running_mean, 1e6)
    assert deploy(network.eval()).rewritten


class Counting(Tail):
    """A forward pass with a state that a graph does not have."""

    def forward(self, x: Tensor, cond: Tensor | None = None, features: bool = False) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x) * (2 if self.calls > 1 else 1)


def test_a_graph_that_gives_other_outputs_is_not_used() -> None:
    assert not deploy(Counting(TAILS["number"]).eval()).rewritten


@pytest.mark.parametrize("of", ["network", "layer"])
def test_hooks_that_change_an_output_are_kept(of: str) -> None:
    network, x = Tail(TAILS["number"]), torch.randn(2, 3, 8, 8)
    lived_in(network, x)
    (network if of == "network" else network.conv[0]).register_forward_hook(lambda module, inputs, output: 2 * output)
    assert_same(network, deploy(network), x)


def test_an_object_s_own_forward_is_the_one_deployed() -> None:
    network, x = Tail(TAILS["number"]).eval(), torch.randn(2, 3, 8, 8)
    plain = network.forward

    def tripled(image: Tensor) -> Tensor:
        return 3 * plain(image)

    network.forward = tripled  # type: ignore[method-assign, assignment]
    assert_same(network, deploy(network), x)


def test_saved_deployed_networks_are_read_back_by_another_process(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved, x = [], torch.randn(2, 3, 32, 32)
    for block in ("se", "gct", "eca"):
        network = build("resnet20_cifar", attention=AttentionSpec(block=block, reduction=4))
        deployed = deploy(lived_in(network, x))
        saved.append((deployed, deployed(x)))
        assert_same(network, pickle.loads(pickle.dumps(deployed)), x)
    torch.save({"x": x, "saved": saved}, tmp_path / "deployed.pt")
    code = (
        f"import torch\nfile = torch.load({str(tmp_path / 'deployed.pt')!r}, weights_only=False)\n"
        "for network, y in file['saved']:\n"
        "    torch.testing.assert_close(network(file['x']), y)\n    assert network.rewritten"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_used_deployed_network_takes_new_weights() -> None:
    (one, x), (other, _) = ready("resnet20_cifar"), ready("resnet20_cifar")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    deployed = deploy(one)
    deployed(x)
    deployed.load_state_dict(deploy(other).state_dict())
    assert_same(other, deployed, x)


def test_a_deployed_network_stays_in_evaluation() -> None:
    network, x = ready("resnet20_cifar")
    deployed = deploy(network)
    assert not any(module.training for module in deployed.train().modules())
    parent = nn.Sequential(deployed).train()
    with torch.no_grad():
        parent(torch.randn_like(x))
    assert_same(network, deployed, x)


def test_gct_does_not_overflow_in_half_precision() -> None:
    block = maker("gct")(8, AttentionSpec(block="gct"), 16)
    nn.init.ones_(block.gamma)  # type: ignore[arg-type]
    x = 300 * torch.randn(1, 8, 16, 16).clamp(-1, 1)
    torch.testing.assert_close(block.half()(x.half()).float(), block.float()(x), rtol=1e-2, atol=1)


def test_the_input_is_left_alone() -> None:
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    deploy(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1)))(x)
    assert torch.equal(x, before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_deploy_form_compiles() -> None:
    network, x = ready("seresnet18")
    assert_same(network, torch.compile(deploy(network).body), x)  # type: ignore[arg-type]


def test_deploy_is_a_runtime() -> None:
    network = build("seresnet20_cifar")
    images = example((3, 32, 32), 2)
    conditions = Conditions(runtime="deploy", batch_size=2)
    with session(conditions):
        prepared = prepare(network, conditions, images)
        assert prepared.difference < 1e-5
        with pytest.raises((UsageError, MeasurementError), match="inference only"):
            prepare(network, replace(conditions, mode="train"), images)


def test_what_the_top_does_not_have_is_named() -> None:
    assert senet_bench.deploy is deploy
    with pytest.raises(AttributeError, match="nosuch"):
        senet_bench.nosuch  # noqa: B018
