"""The fingerprint of a function: changes of what a network computes are seen, other ways to compute it are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.core.fingerprint import Function, first_difference, function_difference, same
from senet_bench.models import build
from senet_bench.models.fingerprint import fingerprintable, function_of
from tests.support.networks import slow_but


def function(network: nn.Module, side: int = 32, *, modules: bool = False) -> Function:
    return msgspec.convert(function_of(network, (3, side, side), modules=modules), Function)


def batchnorms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def with_eps(network: nn.Module) -> None:
    for module in network.modules():
        if hasattr(module, "eps"):  # a detector's BatchNorms are frozen ones
            setattr(module, "eps", 1e-2)  # noqa: B010


def with_dilation(network: nn.Module) -> None:
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    convolutions[1].padding, convolutions[1].dilation = (2, 2), (2, 2)


def with_sigmoid(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Sigmoid())
                return


def without_batchnorms(network: nn.Module) -> None:
    for module in batchnorms(network)[-3:]:
        module.forward = _as_it_is  # type: ignore[method-assign, assignment]


def _as_it_is(x: Tensor) -> Tensor:
    return x


NETWORKS = ("seresnet20_cifar", "resnet18", "mobilenet_v1", "seshufflenet_v1_g3")
CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "eps": with_eps,
    "dilation": with_dilation,
    "sigmoid": with_sigmoid,
    "norms not called": without_batchnorms,
}


@pytest.mark.parametrize(
    "model",
    slow_but(("seresnet20_cifar", "resnet18", "mobilenet_v1", "seshufflenet_v1_g3"), ("seresnet20_cifar", "resnet18")),
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_function_is_seen(model: str, change: str) -> None:
    network = build(model)
    before = function(network, 64, modules=True)
    CHANGES[change](network)
    after = function(network, 64, modules=True)
    assert before.precision == after.precision == "float64"
    assert function_difference(before, after) > 1e-6
    assert not same(before, after)
    assert first_difference(before, after) is not None


class Head(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        if self.form == "plain":
            return self.drop(self.fc(F.relu(x).mean((2, 3))))  # type: ignore[no-any-return]
        pooled = F.relu(x).flatten(2).flip(2).sum(2) / (x.shape[2] * x.shape[3])
        return torch.addmm(self.fc.bias, pooled, self.fc.weight.T)


def test_another_way_to_compute_the_same_is_the_same() -> None:
    plain, rewritten = Head("plain"), Head("rewritten")
    assert 0 < function_difference(function(plain), function(rewritten)) < 1e-12 or same(
        function(plain), function(rewritten)
    )
    assert first_difference(function(plain, modules=True), function(rewritten, modules=True)) is None


def test_the_first_module_that_differs_is_named() -> None:
    before, network = function(Head("plain"), modules=True), Head("plain")
    network.norm.eps = 1e-2
    assert first_difference(before, function(network, modules=True)) == "norm"


def test_the_order_of_construction_does_not_matter_and_the_network_stays_as_it_was() -> None:
    torch.manual_seed(0)
    first = Head("plain")
    torch.manual_seed(1)
    second = Head("plain")
    kept = {name: value.clone() for name, value in second.state_dict().items()}
    assert function(first) == function(second)
    assert second.training
    assert all(torch.equal(value, kept[name]) for name, value in second.state_dict().items())


def test_batchnorm_has_statistics_that_are_not_0_and_1() -> None:
    for module in batchnorms(fingerprintable(build("resnet20_cifar"))):
        assert module.running_mean is not None
        assert module.running_var is not None
        assert module.running_mean.std() > 0.05
        assert module.running_var.std() > 0.1


def test_images_are_not_looked_at_together() -> None:
    class Mixed(Head):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mean(0, keepdim=True).expand_as(x))

    assert not same(function(Head("plain")), function(Mixed("plain")))


def test_a_network_of_its_own_precision_is_judged_in_that() -> None:
    class Single(Head):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.float().to(self.fc.weight.dtype))

    assert function(Single("plain")).precision == "float32"
    network = Single("plain")
    network.norm.eps = 1e-2
    assert not same(function(Single("plain")), function(network))
    assert same(function(Single("plain")), function(Head("plain")))


def test_it_is_stored_and_read_as_plain_json() -> None:
    kept = function(Head("plain"))
    assert len(kept.outputs[0].projections) == 16
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(asdict(kept))), Function) == kept


def test_other_shapes_are_another_function() -> None:
    kept = function(Head("plain"))
    wider = replace(kept, outputs=[replace(kept.outputs[0], shape=[2, 6])])
    assert function_difference(kept, wider) == float("inf")


GOLDEN = {"resnet20_cifar": 1.34561098106, "seresnet20_cifar": 1.24767525469}


@pytest.mark.parametrize("model", GOLDEN)
def test_a_fingerprint_stays_what_it_was_elsewhere(model: str) -> None:
    output = function(build(model)).outputs[0]
    assert output.projections[0] == pytest.approx(GOLDEN[model], rel=1e-9)


@pytest.mark.slow
def test_a_detector_has_a_fingerprint() -> None:
    network = build("fasterrcnn_resnet18_fpn")
    before = function(network, 128)
    with_eps(network)
    assert not same(before, function(network, 128))


SOURCE = """
import torch, torch.nn.functional as F
from torch import nn

class Unit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=4, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.fc1 = nn.Linear(width, 4)
        self.fc2 = nn.Linear(4, width)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        gate = y.mean((2, 3))
        gate = self.fc2(F.relu(self.fc1(gate)))
        y = y * gate.sigmoid()[:, :, None, None]
        return F.relu(x + y)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.units = nn.ModuleList([Unit(8), Unit(8)])
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for unit in self.units:
            x = unit(x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc(x)
"""

CHANGED = {
    "eps": ("self.bn2 = nn.BatchNorm2d(width)", "self.bn2 = nn.BatchNorm2d(width, eps=1e-4)"),
    "dilation": ("width, 3, padding=1, bias", "width, 3, padding=2, dilation=2, bias"),
    "reflected borders": ("width, 3, padding=1, bias", "width, 3, padding=1, padding_mode='reflect', bias"),
    "gate by tanh": ("gate.sigmoid()", "gate.tanh()"),
    "hard gate": ("gate.sigmoid()", "F.hardsigmoid(gate)"),
    "gate squared": ("gate.sigmoid()", "gate.sigmoid().square()"),
    "squeeze by maximum": ("y.mean((2, 3))", "y.amax((2, 3))"),
    "squeeze of x": ("gate = y.mean", "gate = x.mean"),
    "no ReLU inside": ("self.fc2(F.relu(self.fc1(gate)))", "self.fc2(self.fc1(gate))"),
    "leaky": ("return F.relu(x + y)", "return F.leaky_relu(x + y, 0.01)"),
    "GELU": ("y = F.relu(self.bn1", "y = F.gelu(self.bn1"),
    "half the shortcut": ("F.relu(x + y)", "F.relu(x / 2 + y)"),
    "no shortcut in the second": ("x = unit(x)", "x = unit(x) - (x if unit is self.units[1] else 0)"),
    "units swapped": ("in self.units:", "in reversed(self.units):"),
    "a unit left out": ("in self.units:", "in self.units[:1]:"),
    "average for maximum": ("F.max_pool2d(x, 3, stride=2, padding=1)", "F.avg_pool2d(x, 3, stride=2, padding=1)"),
    "shifted by a pixel": ("x = F.max_pool2d(x,", "x = F.max_pool2d(x.roll(1, 3),"),
    "mirrored": ("x = F.relu(self.norm(self.stem(x)))", "x = F.relu(self.norm(self.stem(x.flip(3))))"),
    "channels of the image swapped": ("self.stem(x)", "self.stem(x.flip(1))"),
    "a thousandth more": ("return self.fc(x)", "return self.fc(x) * 1.001"),
}  # fmt: skip

REWRITTEN = {
    "addmm": ("return self.fc(x)", "return torch.addmm(self.fc.bias, x, self.fc.weight.T)"),
    "functional linear": ("return self.fc(x)", "return F.linear(x, self.fc.weight, self.fc.bias)"),
    "matmul": ("return self.fc(x)", "return x @ self.fc.weight.T + self.fc.bias"),
    "einsum": ("return self.fc(x)", "return torch.einsum('nc,oc->no', x, self.fc.weight) + self.fc.bias"),
    "mean of both sides": ("F.adaptive_avg_pool2d(x, 1).flatten(1)", "x.mean((2, 3))"),
    "mean one side after the other": ("F.adaptive_avg_pool2d(x, 1).flatten(1)", "x.mean(3).mean(2)"),
    "sum over the number": ("y.mean((2, 3))", "y.flatten(2).sum(2) / (y.shape[2] * y.shape[3])"),
    "the other order of pixels": ("y.mean((2, 3))", "y.flip(2, 3).mean((2, 3))"),
    "sum the other way round": ("x + y", "y + x"),
    "product the other way round": ("y * gate.sigmoid()[:, :, None, None]", "gate.sigmoid()[:, :, None, None] * y"),
    "unsqueezed twice": ("[:, :, None, None]", ".unsqueeze(-1).unsqueeze(-1)"),
    "gate by its formula": ("gate.sigmoid()", "(1 / (1 + (-gate).exp()))"),
    "clamp for ReLU": ("return F.relu(x + y)", "return (x + y).clamp(min=0)"),
    "maximum for ReLU": ("return F.relu(x + y)", "return torch.maximum(x + y, torch.zeros_like(x))"),
    "in place": ("return F.relu(x + y)", "return F.relu_(x + y)"),
    "torch.add": ("x + y", "torch.add(x, y)"),
    "1x1 convolutions as FCs": ("self.fc2(F.relu(self.fc1(gate)))",
        ("F.conv2d(F.relu(F.conv2d(gate[..., None, None], self.fc1.weight[..., None, None], self.fc1.bias)),"
         " self.fc2.weight[..., None, None], self.fc2.bias).flatten(1)")),
    "BatchNorm by its formula": ("self.norm(self.stem(x))",
        ("((self.stem(x) - self.norm.running_mean[:, None, None]) / (self.norm.running_var[:, None, None] +"
         " self.norm.eps).sqrt() * self.norm.weight[:, None, None] + self.norm.bias[:, None, None])")),
    "channels last": ("x = F.relu(self.norm(self.stem(x)))",
        "x = F.relu(self.norm(self.stem(x.contiguous(memory_format=torch.channels_last))))"),
    "dropout in training alone": ("return self.fc(x)", "return self.fc(F.dropout(x, 0.5, self.training))"),
}  # fmt: skip


def function_of_source(change: tuple[str, str] = ("", "")) -> Function:
    old, new = change
    assert not old or SOURCE.count(old) == 1
    names: dict[str, type[nn.Module]] = {}
    exec(SOURCE.replace(old, new) if old else SOURCE, names)
    return function(names["Net"]())


def test_of_twenty_changes_none_passes_and_of_twenty_rewrites_none_fails() -> None:
    base = function_of_source()
    assert [name for name, change in CHANGED.items() if same(base, function_of_source(change))] == []
    assert [name for name, change in REWRITTEN.items() if not same(base, function_of_source(change))] == []
    assert len(CHANGED) == len(REWRITTEN) == 20


def test_a_bound_that_no_value_reaches_is_seen_by_the_operators_alone() -> None:
    """The page of `check` says so: the seeded images give values below 6."""
    assert same(function_of_source(), function_of_source(("x = F.relu(self.norm", "x = F.relu6(self.norm")))
