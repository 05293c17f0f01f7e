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


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "eps": with_eps,
    "dilation": with_dilation,
    "sigmoid": with_sigmoid,
    "norms not called": without_batchnorms,
}


@pytest.mark.parametrize("model", ["seresnet20_cifar", "resnet18", "mobilenet_v1", "seshufflenet_v1_g3"])
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
