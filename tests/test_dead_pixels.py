"""Pixels that nobody reads are not computed, and no output changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from senet_bench.breakdown.unread import unread_shares
from senet_bench.deployment import deploy, transformed
from senet_bench.deployment.graph import traced
from senet_bench.models import attention_blocks, build
from tests.test_deployment import assert_same, lived_in


def multiply_adds(network: nn.Module, x: Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(x)
    return counter.get_total_flops() / 2


def plain_form(network: nn.Module, *, early_gate: bool = True) -> nn.Module:
    graph = traced(network)
    assert graph is not None
    return transformed(graph, early_gate=early_gate)


def test_the_papers_resnet_50_loses_a_tenth_of_its_multiply_adds() -> None:
    x = torch.randn(1, 3, 224, 224, device="meta")
    left, shares = {}, {}
    for name in ("resnet50", "seresnet50"):
        network = build(name).eval()
        unread = unread_shares(network, attention_blocks(network), (3, 224, 224))
        assert unread is not None
        shares[name] = astuple(unread)
        left[name] = multiply_adds(plain_form(network).to("meta"), x) / multiply_adds(network.to("meta"), x)
    assert shares["resnet50"] == (pytest.approx(0.097, abs=1e-3), None, None)
    early, without = pytest.approx(0.030, abs=1e-3), pytest.approx(0.097, abs=1e-3)
    assert shares["seresnet50"] == (0.0, early, without)
    assert left["resnet50"] == pytest.approx(0.903, abs=1e-3)
    assert left["seresnet50"] == pytest.approx(0.970, abs=1e-3)  # the last convolution alone: behind it nobody squeezes


QUICK = ("seresnet50",)
RESNETS = [f"{se}resnet{depth}{layout}" for se in ("", "se") for depth in (50, 101) for layout in ("", "_v1_5")]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RESNETS])
def test_outputs_stay_for_odd_sizes_and_batches(name: str) -> None:
    torch.manual_seed(0)
    network = lived_in(build(name), torch.randn(4, 3, 64, 64))
    deployed, plain = deploy(network), plain_form(network)
    for form, batch, height, width in ((deployed, 2, 75, 97), (plain, 3, 65, 33), (plain, 1, 64, 64)):
        assert_same(network, form, torch.randn(batch, 3, height, width))


class Net(nn.Module):
    """A convolution and its ReLU, and what a test makes of them."""

    def __init__(self, tail: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.tail = tail
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.point, self.strided = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, stride=2)
        self.wide, self.pool = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.AvgPool2d(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self, F.relu(self.norm(self.conv(x)))).flatten(1)


def gate(x: Tensor) -> Tensor:
    return torch.sigmoid(x.mean((2, 3), keepdim=True))


TAILS: dict[str, tuple[Callable[[Net, Tensor], Tensor], bool]] = {
    "strided convolution": (lambda n, x: n.strided(x), True),
    "slice": (lambda n, x: n.point(x)[:, :, ::2, ::2], True),
    "pool": (lambda n, x: n.pool(n.point(x)), True),
    "pool of one pixel by function": (lambda n, x: n.strided(n.point(x) * F.adaptive_avg_pool2d(x, 1)), True),
    "twice": (lambda n, x: n.strided(n.strided(n.point(x))), True),
    "two steps": (lambda n, x: n.strided(n.strided(x))[:, :, ::3, ::3].sum((2, 3)) + n.strided(x).sum((2, 3)), True),
    "sum": (lambda n, x: n.strided(F.relu(n.point(x) + x)) + n.point(x).mean((2, 3), keepdim=True), True),
    "gate": (lambda n, x: n.strided(n.point(x) * gate(n.point(x)) + x), True),
    "joined": (lambda n, x: n.strided(torch.cat([n.point(x)[:, :2], n.point(x)[:, 2:]], 1)), False),
    "joined maps": (lambda n, x: n.pool(torch.cat([n.point(x), x], 1)), True),
    "joined by rows": (lambda n, x: n.strided(torch.cat([n.point(x), x], 2)), False),
    "read whole": (lambda n, x: n.strided(x).sum((2, 3)) + x.mean((2, 3)), False),
    "wider kernel": (lambda n, x: n.wide(n.point(x)), False),
    "a row": (lambda n, x: n.strided(n.point(x) * x.mean(2, keepdim=True)), False),
    "other slice": (lambda n, x: n.point(x)[:, :, 1::2, 1::2], False),
}


@pytest.mark.parametrize("tail", TAILS)
def test_a_step_moves_back_as_far_as_nobody_else_reads(tail: str) -> None:
    torch.manual_seed(0)
    call, fewer = TAILS[tail]
    network = lived_in(Net(call), torch.randn(2, 3, 12, 12))
    for early in (True, False):
        plain = plain_form(network, early_gate=early)
        for sides in ((12, 12), (9, 7), (2, 3)):
            x = torch.randn(2, 3, *sides)
            assert_same(network, plain, x)
            assert_same(network, deploy(network, early_gate=early), x)
    x = torch.randn(2, 3, 12, 12)
    assert (multiply_adds(plain, x) < multiply_adds(network, x)) is fewer


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning", "ignore:.torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_deployed_network_gives_the_same_outputs() -> None:
    x = torch.randn(2, 3, 32, 32)
    for name in ("seresnet20_cifar", "resnet18"):
        network = lived_in(build(name), x)
        assert_same(network, torch.jit.trace(deploy(network), x, check_trace=False), x)  # type: ignore[no-untyped-call]
