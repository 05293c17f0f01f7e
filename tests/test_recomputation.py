"""Squeeze and scale in training: exact gradients, and no second copy of the map they are for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from senet_bench.core.specs import AttentionSpec
from senet_bench.models import attention_blocks, build, recomputation
from senet_bench.models.attention import SqueezeExcitation
from senet_bench.models.recomputation import map_mean, recalibrated


def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True)


LAYOUTS = pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"]
)
WAYS = pytest.mark.parametrize("way", ["few and small", "many and large"], indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps take the way of their size, or that of large ones."""
    if request.param == "many and large":
        monkeypatch.setattr(recomputation, "IMAGE_BY_IMAGE", 1)
        monkeypatch.setattr(recomputation, "FEW_CHANNELS", 1)


def excitation(mean: Tensor, fc: Tensor) -> Tensor:
    return torch.sigmoid(mean @ fc)


def plain_se(u: Tensor, fc: Tensor) -> Tensor:
    return u * excitation(u.mean((2, 3)), fc)[:, :, None, None]


def recomputing_se(u: Tensor, fc: Tensor) -> Tensor:
    return recalibrated(u, map_mean, functools.partial(excitation, fc=fc))


@pytest.mark.parametrize("normalises", [True, False], ids=["behind a BatchNorm", "alone"])
@WAYS
@LAYOUTS
def test_the_recalibrated_map_has_exact_gradients(way: None, layout: torch.memory_format, normalises: bool) -> None:
    torch.manual_seed(0)
    shapes = [(3, 2, 3, 4), (2,), (2,), (2, 2)]
    x, weight, bias, fc = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    inputs = [x.contiguous(memory_format=layout), weight, bias, fc]

    def product(x: Tensor, weight: Tensor, bias: Tensor, fc: Tensor) -> Tensor:
        return recomputing_se(normalised(x, weight, bias) if normalises else x * weight[:, None, None], fc)

    assert torch.autograd.gradcheck(product, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@WAYS
@LAYOUTS
def test_it_is_as_near_to_the_exact_gradients_as_autograds_are(
    way: None, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x = 2 + torch.randn(3, 32, 12, 10)
    weight, bias, fc, grad = torch.rand(32) + 0.5, torch.randn(32), torch.randn(32, 32), torch.randn(3, 32, 12, 10)

    def gradients(se: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype, statistics: torch.dtype) -> list[Tensor]:
        leaf = x.to(dtype).contiguous(memory_format=layout).requires_grad_()
        scale, shift = weight.to(statistics).requires_grad_(), bias.to(statistics).requires_grad_()
        own = fc.to(dtype).requires_grad_()
        output = se(normalised(leaf, scale, shift), own)
        assert output.dtype == dtype
        assert output.is_contiguous(memory_format=layout)
        return list(torch.autograd.grad(output, [leaf, scale, shift, own], grad.to(dtype)))

    exact = gradients(plain_se, torch.float64, torch.float64)
    autograds, ours = (gradients(se, dtype, torch.float32) for se in (plain_se, recomputing_se))
    assert ours[0].is_contiguous(memory_format=layout)
    for theirs, mine, true in zip(autograds, ours, exact):
        assert mine.dtype == theirs.dtype
        rounding = torch.finfo(dtype).eps * float(true.norm())
        assert float((mine - true).norm()) <= 1.5 * float((theirs - true).norm()) + rounding


def test_the_gradient_of_a_map_may_be_stored_in_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputation, "IMAGE_BY_IMAGE", 1)
    u = torch.randn(2, 32, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    fc, grad = torch.randn(32, 32, requires_grad=True), torch.randn(2, 32, 4, 5)
    for mine, theirs in zip(*(torch.autograd.grad(se(u, fc), [u, fc], grad) for se in (recomputing_se, plain_se))):
        torch.testing.assert_close(mine, theirs)


def test_a_gate_of_another_precision_than_its_map_has_its_gradient() -> None:
    u, fc = torch.randn(2, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    found = []
    for mean_of, se in ((map_mean, recalibrated), (map_mean, None)):
        gate = functools.partial(lambda mean: excitation(mean.float(), fc))
        y = se(u, mean_of, gate) if se else u * gate(mean_of(u))[:, :, None, None]
        assert y.dtype == torch.float32
        found.append(torch.autograd.grad(y.sum(), [u, fc]))
    for mine, theirs in zip(*found):
        torch.testing.assert_close(mine, theirs)


def test_the_gradients_cannot_be_differentiated_again() -> None:
    u, fc = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(recomputing_se(u, fc).square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()  # type: ignore[no-untyped-call]


def test_the_map_of_a_frozen_trunk_needs_no_gradient() -> None:
    u, fc = torch.randn(2, 3, 4, 4), torch.randn(3, 3, requires_grad=True)
    mine, theirs = (torch.autograd.grad(se(u, fc).square().sum(), fc)[0] for se in (recomputing_se, plain_se))
    torch.testing.assert_close(mine, theirs)


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_mean_of_a_map_is_the_mean(dtype: torch.dtype, layout: torch.memory_format) -> None:
    u = torch.randn(2, 3, 4, 5).to(dtype).contiguous(memory_format=layout)
    torch.testing.assert_close(map_mean(u), u.mean((2, 3)))


def test_the_block_has_the_gradients_of_the_plain_product() -> None:
    network = build("seresnet18").double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found = []
    for recomputes in (True, False):
        for block in attention_blocks(network).values():
            block.recomputes = recomputes  # type: ignore[assignment]
        network.zero_grad()
        network(x).square().sum().backward()
        found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for ours, plain in zip(*found):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9 * float(plain.abs().max()))


def test_a_checkpoint_is_computed_again_in_the_backward_pass_alone() -> None:
    x, found = torch.randn(2, 8, 6, 6, requires_grad=True), []
    for recomputes in (True, False):
        torch.manual_seed(0)
        unit = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), SqueezeExcitation(8, AttentionSpec(reduction=2), 2))
        unit[2].recomputes = recomputes  # type: ignore[assignment]
        calls = list[int]()
        unit[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        y = checkpoint(unit, x, use_reentrant=False)
        assert (len(calls), int(unit[1].num_batches_tracked)) == (1, 1)  # type: ignore[arg-type]
        grad = torch.autograd.grad(y.square().sum(), [x, *unit.parameters()])
        assert len(calls) == 2
        found.append([*grad, unit[1].running_mean])
    assert all(map(torch.equal, *found))


def test_an_se_network_keeps_no_second_copy_of_its_maps() -> None:
    x = torch.randn(2, 3, 64, 64)
    pairs = (("resnet50", True), ("seresnet50", False), ("seresnet50", True))
    baseline, plain, ours = (saved_bytes(name, x, on) for name, on in pairs)
    assert plain > 1.15 * baseline
    assert ours < 1.06 * baseline


def saved_bytes(name: str, x: Tensor, recomputes: bool) -> int:
    """Bytes of the distinct storages that autograd keeps for the backward pass, without the parameters."""
    network = build(name)
    for block in network.modules():
        if isinstance(block, SqueezeExcitation):
            block.recomputes = recomputes
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        patch.object(recomputation, "saves_through_hooks", return_value=False),  # these hooks but count
    ):
        output = network(x)
    assert output.requires_grad
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    return sum(size for address, size in kept.items() if address not in own)
