"""Networks from outside, and attention attached to networks that were never written for it."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.bench.count import count, parameters
from senet_bench.core.catalog import CATALOG
from senet_bench.core.specs import AttentionSpec, is_outside
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models import attention_blocks, build, build_spec
from senet_bench.models.attach import Position, attach, positions
from senet_bench.models.graph import check_copyable
from senet_bench.models.outside import attached, load, pair_outside, resolve_outside
from senet_bench.models.outside_block import block_remarks
from tests.conftest import Run

SE = AttentionSpec()
SIZE = (3, 64, 64)


pytestmark = pytest.mark.usefixtures("one_thread")


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return load(name)


# --- the same as what is built in -----------------------------------------------------------------------------------


def filled(network: nn.Module) -> nn.Module:
    """The network on the CPU with random values that keep activations in range."""
    network = network.to_empty(device="cpu") if any(p.is_meta for p in network.parameters()) else network
    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.8, 1.2)
        elif tensor.dim() > 1:
            tensor.uniform_(-1, 1).mul_((3 / tensor[0].numel()) ** 0.5)
        elif tensor.dtype.is_floating_point:
            tensor.uniform_(-0.2, 0.2)
    return network.eval()


def check_same(plain: nn.Module, built_in: nn.Module, size: tuple[int, int, int]) -> list[Position]:
    """SE attached to `plain` computes what `built_in` does, with the same parameters and operations.

    The tensors of the built-in network go to the attached one in their order, those of its blocks to the blocks.
    """
    built_in = filled(built_in)
    mine, found = attach(plain, SE, size)
    assert parameters(mine) == parameters(built_in)
    assert count(mine, size) == count(built_in, size)
    theirs = attention_blocks(built_in)
    blocks = attention_blocks(mine)
    assert len(theirs) == len(blocks) == len(found)
    assert [f"{position.name}_attention" for position in found] == list(blocks)
    for one, other in zip(blocks.values(), theirs.values()):
        one.load_state_dict(other.state_dict(), assign=True)
    values = [v for key, v in built_in.state_dict().items() if not key.startswith(tuple(f"{n}." for n in theirs))]
    mine.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)), strict=False, assign=True)
    image = torch.rand(1, *size)
    with torch.no_grad():
        expected = built_in(image)
        torch.testing.assert_close(mine.eval()(image), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 1e-4
    return found


def cut_short(name: str) -> dict[str, Any]:
    """Options that leave a ResNet few units, so that the test is quick."""
    options = dict(CATALOG[name].options)
    return {**options, "layers": (1, 2, 1, 1)} if "layers" in options else options


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", SIZE),
        ("resnet50", SIZE),
        ("resnet50_v1_5", SIZE),
        ("resnext50_32x4d", SIZE),
        ("resnet20_cifar", (3, 16, 16)),
        pytest.param("inception_resnet_v2", (3, 75, 75), marks=pytest.mark.slow),
        pytest.param("vgg11_bn", (3, 32, 32), marks=pytest.mark.slow),
    ],
)
def test_attached_to_our_baseline_is_our_se_network(name: str, size: tuple[int, int, int]) -> None:
    spec = CATALOG[name]
    plain = build_spec(replace(spec, options=cut_short(name)), 10, device="meta")
    check_same(plain, build_spec(replace(spec, options=cut_short(name), attention=SE), 10, device="meta"), size)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "vgg16_bn", "resnet110_cifar"])
def test_attached_at_full_depth_has_the_counts_of_our_se_network(name: str) -> None:
    size = CATALOG[name].input_size
    mine, _ = attach(build(name, device="meta"), SE, size)
    built_in = build(f"se{name}", device="meta")
    assert parameters(mine) == parameters(built_in) == CATALOG[f"se{name}"].params
    assert count(mine, size) == count(built_in, size)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("resnet50", "seresnet50_v1_5"),
        ("resnet18", "seresnet18_v1_5"),
        pytest.param("vgg16_bn", "sevgg16_bn", marks=pytest.mark.slow),
    ],
)
def test_attached_to_torchvision_s_network_is_our_se_network(name: str, ours: str) -> None:
    plain = on_meta(f"torchvision:{name}")
    found = check_same(plain, build(ours, device="meta"), SIZE)
    if name == "resnet50":
        assert [position.name for position in found][:4] == [
            "layer1.0.bn3",
            "layer1.1.bn3",
            "layer1.2.bn3",
            "layer2.0.bn3",
        ]
        assert [(p.channels, p.size, p.stage) for p in found][::5] == [
            (256, (16, 16), 2),
            (512, (8, 8), 3),
            (1024, (4, 4), 4),
            (2048, (2, 2), 5),
        ]


def test_se_resnet50_s_counts_at_224_px() -> None:
    mine, found = attach(on_meta("torchvision:resnet50"), SE, (3, 224, 224))
    built_in = count(build("seresnet50_v1_5", device="meta"), (3, 224, 224))
    assert (parameters(mine), count(mine, (3, 224, 224)), len(found)) == (28_088_024, built_in, 16)


# --- what attaching does and leaves ---------------------------------------------------------------------------------


def test_positions_are_listed_without_changing_the_network() -> None:
    network = filled(load("torchvision:resnet18", 5)).train()
    network.layer2.eval()  # type: ignore[union-attr]
    keys, modes = list(network.state_dict()), [m.training for m in network.modules()]
    listed = positions(network, SIZE)
    mine, given = attach(network, SE, SIZE)
    assert listed == given
    assert list(network.state_dict()) == keys
    assert [m.training for m in network.modules()] == modes
    assert set(keys) < set(mine.state_dict())
    shared = dict(mine.named_parameters())
    assert all(shared[name] is parameter for name, parameter in network.named_parameters())


def test_attention_is_attached_to_a_network_that_is_made_on_the_cpu_whatever_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chosen.py").write_text(
        "from torch import nn\n"
        "def plain(num_classes=10):\n"
        "    layers = nn.Conv2d(3, 16, 3, device='cpu'), nn.BatchNorm2d(16, device='cpu'), nn.ReLU()\n"
        "    return nn.Sequential(*layers, nn.Conv2d(16, 16, 3, device='cpu'), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(16, num_classes, device='cpu'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plain = resolve_outside("chosen:plain")
    assert attached(plain).params > plain.params


def test_an_attached_network_trains_and_follows_its_mode() -> None:
    mine, _ = attach(load("torchvision:resnet18", 5), SE, SIZE)
    x = torch.rand(4, *SIZE)
    F.cross_entropy(mine(x), torch.tensor([0, 1, 2, 3])).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mine.parameters())
    assert torch.equal(mine.eval()(x), mine(x))
    assert not torch.equal(mine.train()(x), mine.eval()(x))


def test_parts_in_another_mode_than_the_whole_stay_in_it_when_attention_is_attached() -> None:
    network = load("torchvision:resnet18", 5).train()
    network.get_submodule("layer1").eval()
    mine, given = attach(network, AttentionSpec(block="srm"), SIZE)
    assert not network.get_submodule("layer1.0.bn1").training
    modes = {name: module.training for name, module in mine.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {name.partition(".")[0] for name, training in modes.items() if not training} == {"layer1"}
    assert all(module.training for block in attention_blocks(mine).values() for module in block.modules())
    assert len(given) == 8


def test_stages_reductions_and_blocks_are_those_asked_for() -> None:
    network = on_meta("torchvision:resnet50")
    mine, given = attach(network, AttentionSpec(stages=(3, 5), reduction=(2, 4, 8, 16)), (3, 224, 224))
    blocks: list[Any] = list(attention_blocks(mine).values())
    assert [position.stage for position in given] == [3] * 4 + [5] * 3
    assert [block.fc1.out_features for block in blocks] == [128] * 4 + [128] * 3
    other, _ = attach(network, AttentionSpec(block="srm"), (3, 224, 224))
    assert parameters(other) - parameters(network) == sum(4 * p.channels for p in positions(network, (3, 224, 224)))
    with pytest.raises(UsageError, match="stage 6 does not exist"):
        attach(network, AttentionSpec(stages=(6,)), (3, 224, 224))
    with pytest.raises(UsageError, match="standard place, not at 'pre'"):
        attach(network, AttentionSpec(integration="pre"), (3, 224, 224))


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "alpha": lambda x, branch: torch.add(x, branch, alpha=0.5),
    "alpha of a method": lambda x, branch: x.add(branch, alpha=0.5),
    "other": lambda x, branch: torch.add(x, other=branch),
    "lerp": lambda x, branch: torch.lerp(x, branch, 0.3),
    "lerp_": lambda x, branch: (1 * x).lerp_(branch, 0.3),
    "addcmul": lambda x, branch: torch.addcmul(x, branch, torch.full((4, 1, 1), 0.1)),
    "addcmul of a number": lambda x, branch: torch.addcmul(x, torch.full((1,), 0.1), branch, value=2),
    "stack": lambda x, branch: torch.stack([x, branch]).sum(0),
    "stack, mean": lambda x, branch: torch.stack((x, branch), 1).mean(dim=1),
    "sum of a list": lambda x, branch: sum([x, branch], torch.zeros(1)),
}


class InPlace(nn.Module):
    """Residual units that add in place in every way, scale, drop and change the branch in place."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.gamma = nn.Parameter(torch.full((4, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm(self.conv(x))
        if self.way == "iadd":
            branch += x
            return branch  # type: ignore[no-any-return]
        if self.way == "iadd to the skip":
            x = x * 1
            x += branch
            return x
        if self.way == "add_":
            branch.add_(x)
            return torch.relu(branch)
        if self.way == "mul_ first":
            branch.mul_(3)
            return branch + x  # type: ignore[no-any-return]
        if self.way in WAYS:
            return WAYS[self.way](x, branch)
        if self.way == "scaled":
            return x + F.dropout(0.5 * (self.gamma * branch), 0.0, self.training)
        return torch.add(x, branch)

    def expected(self, x: Tensor, gate: float) -> Tensor:
        branch = gate * self.norm(self.conv(x))
        if self.way in WAYS:
            return WAYS[self.way](x, branch)
        scale = {"mul_ first": 3, "scaled": 0.25}.get(self.way, 1)
        out: Tensor = torch.relu(branch + x) if self.way == "add_" else scale * branch + x
        return out


@pytest.mark.parametrize("way", ["iadd", "iadd to the skip", "add_", "mul_ first", "scaled", "add", *WAYS])
def test_sums_are_found_and_kept_however_they_are_written(way: str) -> None:
    torch.manual_seed(0)
    network = InPlace(way).eval()
    mine, (position,) = attach(network, AttentionSpec(block="constant"), (4, 8, 8))
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(mine(x), network.expected(x, 0.5))
    assert position.name.startswith("norm")
    mine(x).sum().backward()
    assert network.conv.weight.grad is not None


class PartlyUsed(InPlace):
    """Holds a layer, a parameter and two buffers that its forward pass does not use."""

    def __init__(self) -> None:
        super().__init__("add")
        self.auxiliary = nn.Linear(4, 2)
        self.temperature = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("scratch", torch.zeros(()), persistent=False)


def test_what_a_forward_pass_does_not_use_stays_in_the_network_at_any_depth() -> None:
    network = nn.Sequential(PartlyUsed(), nn.Sequential(PartlyUsed()))
    mine, _ = attach(network, AttentionSpec(block="constant"), (4, 8, 8))
    assert {name: value.shape for name, value in mine.state_dict().items()} == {
        name: value.shape for name, value in network.state_dict().items()
    }
    assert parameters(mine) == parameters(network)
    mine.load_state_dict(network.state_dict())
    tied = dict(network.named_parameters())
    assert all(parameter is tied[name] for name, parameter in mine.named_parameters())


class Conditioned(InPlace):
    """Branches on arguments that have defaults."""

    def __init__(self) -> None:
        super().__init__("add")
        self.large = nn.Conv2d(4, 4, 5, padding=2)

    def forward(self, x: Tensor, cond: Tensor | None = None, features: bool = False, *rest: Tensor) -> Tensor:
        if cond is not None:
            x = x + self.large(cond)
        return x if features else super().forward(x)


def test_the_graph_is_that_of_the_call_with_an_image_alone() -> None:
    network, x = Conditioned().eval(), torch.randn(2, 4, 8, 8)
    mine, found = attach(network, AttentionSpec(block="constant"), (4, 8, 8))
    torch.testing.assert_close(mine(x), network.expected(x, 0.5))
    assert len(found) == 1
    assert count(mine, (4, 8, 8)).conv == count(network, (4, 8, 8)).conv == 4 * 4 * 9 * 64


def test_a_graph_that_gives_other_outputs_is_refused() -> None:
    network = InPlace("add")
    network.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(UsageError, match=r"gives other outputs than it does, by 0\.5 of the largest"):
        attach(network, SE, (4, 8, 8))


class Tower(nn.Module):
    """A residual unit called on an image and its mirror."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Sequential(InPlace("add"), InPlace("add_"))

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(x) - self.unit(x.flip(3))  # type: ignore[no-any-return]


def test_a_tower_that_is_called_twice_has_one_block_a_place() -> None:
    mine, found = attach(Tower(), AttentionSpec(reduction=2), (4, 8, 8))
    assert [position.name for position in found] == ["unit.0.norm", "unit.1.norm"]
    assert list(attention_blocks(mine)) == ["unit.0.norm_attention", "unit.1.norm_attention"]
    assert count(mine, (4, 8, 8)).se_scale == 4 * 4 * 64
    x = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(mine.eval()(x), -mine(x.flip(3)))


def test_a_network_with_attention_of_its_own_is_refused_and_its_own_can_be_replaced() -> None:
    """SE in the place of timm's SE is the same network: parameters and operations of `timm:seresnet50` itself."""
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=r"timm:seresnet50: it has attention of its own at 16 places, .*--replace"):
        resolve_outside("timm:seresnet50+attach")
    with pytest.raises(UsageError, match="no attention of its own to replace; use --attach"):
        resolve_outside("torchvision:resnet18+replace")
    variant = resolve_outside("timm:seresnet50+replace")
    base, again = pair_outside(variant)
    assert (base.name, again, variant.label) == (
        "timm:seresnet50", variant, "timm:seresnet50 + attention in place of its own",
    )  # fmt: skip
    assert variant.params == base.params == 28_088_024
    network = build_spec(variant, device="meta")
    assert count(network, SIZE).macs == count(build_spec(base, device="meta"), SIZE).macs
    assert not any(".se." in name for name in network.state_dict())
    bare = parameters(build_spec(attached(base, AttentionSpec(block="constant"), replaces=True), device="meta"))
    assert bare == 25_557_032  # ResNet-50


class Gated(nn.Module):
    """A branch with an SE written in a way of its own, and a second gate behind it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(4, 2), nn.Linear(2, 4)
        if way == "twice":
            self.weight = nn.Parameter(torch.ones(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        gate = torch.sigmoid(self.fc2(torch.relu(self.fc1(y.mean((2, 3))))))[:, :, None, None]
        match self.way:
            case "product":
                z = gate * y
            case "in place":
                y.mul_(gate)
                z = y
            case "augmented":
                y *= gate
                z = y
            case "expanded":
                z = torch.mul(y, gate.expand_as(y))
            case _:
                z = y * gate
                z = z * torch.tanh(z.mean((2, 3), keepdim=True) * self.weight)
        return x + z  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", ["product", "in place", "augmented", "expanded", "twice"])
def test_an_own_gate_is_replaced_however_it_is_written(way: str) -> None:
    network, size = Gated(way).eval(), (4, 8, 8)
    mine, found = attach(network, AttentionSpec(reduction=2), size, replaces=True)
    blocks = list(attention_blocks(mine).values())
    assert [position.kind for position in found] == ["gate"] * len(blocks)
    assert len(blocks) == 1 + (way == "twice")
    parts = {name.partition(".")[0] for name, _ in mine.named_parameters()}
    assert parts == {"conv", *attention_blocks(mine)}
    x = torch.randn(2, 4, 8, 8)
    expected = network.conv(x)
    for block in blocks:
        expected = block(expected)
    torch.testing.assert_close(mine.eval()(x), x + expected)
    if way != "twice":
        blocks[0].fc1.load_state_dict(network.fc1.state_dict())  # type: ignore[union-attr]
        blocks[0].fc2.load_state_dict(network.fc2.state_dict())  # type: ignore[union-attr]
        torch.testing.assert_close(mine(x), network(x))


def test_dropout_called_as_a_function_follows_the_mode() -> None:
    class Drops(InPlace):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x), 0.5, self.training)

    mine, _ = attach(Drops("add"), AttentionSpec(block="constant"), (4, 8, 8))
    x = torch.ones(1, 4, 8, 8)
    assert torch.equal(mine.eval()(x), mine(x))
    assert (mine.train()(x) == 0).float().mean() > 0.2


# --- what is refused ------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """A residual sum of sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        return x + self.fc(x)  # type: ignore[no-any-return]


class ChannelsLast(nn.Module):
    """A residual sum of (N, H, W, C) maps with a convolution in its branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return x + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


class Branching(nn.Module):
    """A forward pass that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Constant(InPlace):
    """A tensor made in the forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.arange(8.0)[torch.arange(8)]


def test_tensors_made_in_the_forward_pass_are_kept() -> None:
    network, x = Constant("add").eval(), torch.rand(2, 4, 8, 8)
    mine, _ = attach(network, AttentionSpec(block="constant"), (4, 8, 8))
    torch.testing.assert_close(mine(x), network.expected(x, 0.5) * torch.arange(8.0))


class Auxiliary(InPlace):
    """Another computation in training."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return torch.sigmoid(out) if self.training else out


class TwoBranches(nn.Module):
    """A sum of two convolutions, neither of which is a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "size", "said"),
    [
        (Tokens(), (3, 8, 8), ["no place", "1 add tensors of 3 dimensions"]),
        (ChannelsLast(), (8, 8, 8), ["channels are not the second dimension"]),
        (TwoBranches(), (3, 8, 8), ["1 add two branches, and no skip"]),
        (Branching(), (3, 8, 8), ["torch.fx cannot trace it", "control flow"]),
        (Auxiliary("add"), (4, 8, 8), ["not the same in training and evaluation", "sigmoid"]),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2), ["no residual sum, and no convolution"]),
        (InPlace("add"), (5, 8, 8), ["cannot take 5x8x8 images"]),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), (3, 2, 2), ["cannot take 3x2x2 images"]),
    ],
)
def test_what_cannot_be_attached_is_refused_with_the_reason(
    network: nn.Module, size: tuple[int, int, int], said: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        attach(network, SE, size)
    assert all(words in str(caught.value) for words in said), str(caught.value)
    assert "\n" not in str(caught.value)


# --- networks of the libraries --------------------------------------------------------------------------------------

# Places found and parameters that SE adds; None and the reason where there is no place.
OTHERS: dict[str, tuple[int, int] | str] = {
    "timm:resnet26d": (8, 1_400_800),
    "timm:convnext_tiny": (18, 411_390),
    "timm:vit_tiny_patch16_224": "25 add tensors of 3 dimensions",
    "timm:regnetx_002": (13, 133_289),
    "timm:mobilenetv3_small_100": "attention of its own at 9 places",
    "torchvision:squeezenet1_1": (26, 192_062),
    "torchvision:googlenet": (57, 183_702),
    "torchvision:swin_t": "24 have no convolution in their branch",
    "torchvision:mnasnet1_0": (10, 18_010),
    "torchvision:alexnet": (5, 41_160),
}
SLOW: dict[str, tuple[int, int] | str] = {
    "timm:resnetv2_50": (16, 2_530_992),
    "timm:densenet121": (59, 127_252),
    "timm:efficientnet_b0": "attention of its own at 16 places",
    "timm:repvgg_a0": (17, 66_657),
    "timm:swin_tiny_patch4_window7_224": "12 have no convolution in their branch",
    "timm:inception_resnet_v2": (40, 8_543_980),  # as much as our seinception_resnet_v2 adds
    "timm:hrnet_w18_small": (23, 186_258),
    "timm:nfnet_f0": "attention of its own at 12 places",
    "timm:dpn68": (22, 211_980),
    "timm:halonet26t": (8, 1_400_800),
    "torchvision:densenet121": (59, 127_252),
    "torchvision:mobilenet_v2": (10, 11_385),
    "torchvision:efficientnet_b0": "attention of its own at 16 places",
    "torchvision:convnext_tiny": (18, 411_390),
    "torchvision:vit_b_16": "25 add tensors of 3 dimensions",
    "torchvision:inception_v3": (94, 553_332),
    "torchvision:shufflenet_v2_x1_0": (37, 226_291),
    "torchvision:regnet_y_400mf": "attention of its own at 16 places",
    "torchvision:maxvit_t": "attention of its own at 11 places",
    # from a list drawn up to find networks that are unlike those above
    "timm:dla34": (12, 110_376),
    "timm:res2net50_26w_4s": (16, 2_530_992),  # as much as our seresnet50 adds: its branches end in the same widths
    "timm:resnest14d": (4, 700_400),
    "timm:ghostnet_100": "attention of its own at 7 places",
    "timm:cspresnet50": (13, 462_824),
    "timm:legacy_xception": (12, 739_445),
    "timm:mixnet_s": "attention of its own at 13 places",
    "timm:tresnet_m": "attention of its own at 18 places",
    "timm:poolformer_s12": (12, 150_992),
    "timm:mixer_s16_224": "16 add tensors of 3 dimensions",
    "timm:levit_128": "26 add tensors of 3 dimensions",
    "torchvision:mobilenet_v3_small": "attention of its own at 9 places",
    "torchvision:shufflenet_v2_x0_5": (37, 149_939),
    "torchvision:squeezenet1_0": (26, 192_736),
    "torchvision:mnasnet0_5": (10, 4_749),
    "torchvision:regnet_x_400mf": (22, 270_012),
    "torchvision:swin_v2_t": "24 have no convolution in their branch",
    "torchvision:vgg11": (8, 152_940),  # as our sevgg11_bn adds
    "torchvision:wide_resnet50_2": (16, 2_530_992),  # as our seresnet50 adds
    "torchvision:densenet169": (83, 179_668),
    "torchvision:vit_b_32": "25 add tensors of 3 dimensions",
}


def check_outcome(name: str, outcome: tuple[int, int] | str) -> None:
    pytest.importorskip(name.partition(":")[0])
    spec = resolve_outside(name)
    if isinstance(outcome, str):
        with pytest.raises(UsageError, match=outcome):
            attached(spec)
        return
    variant = attached(spec)
    network = build_spec(variant, device="meta")
    assert (len(attention_blocks(network)), parameters(network) - spec.params) == outcome
    assert variant.params == parameters(network)


@pytest.mark.parametrize("name", OTHERS)
def test_ten_networks_are_attached_to_or_refused_with_the_reason(name: str) -> None:
    check_outcome(name, OTHERS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_more_networks_are_attached_to_or_refused_with_the_reason(name: str) -> None:
    check_outcome(name, SLOW[name])


@pytest.mark.parametrize("name", ["timm:resnet26d", "torchvision:convnext_tiny", "timm:regnetx_002"])
def test_gct_attached_changes_nothing_before_it_is_trained(name: str) -> None:
    """GCT starts as the identity."""
    network = load(name, 7)
    mine, found = attach(network.eval(), AttentionSpec(block="gct"), SIZE)
    image = torch.rand(1, *SIZE)
    with torch.no_grad():
        assert torch.equal(mine(image), network(image))
    assert len(attention_blocks(mine)) == len(found)


# --- loading and rows -----------------------------------------------------------------------------------------------

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4, in_channels=3):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(in_channels, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(16, classes)
    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def fixed():
    return Net()

def strict(num_classes, in_chans):
    if num_classes > 10:
        raise ValueError("at most 10\\nclasses")
    return Net(num_classes, in_chans)

def nothing():
    return 3

class Late(Net):
    # A layer registered after the head, and a convolution registered before the stem.
    def __init__(self, classes=4, in_channels=3):
        super().__init__(classes, in_channels)
        self.gate = nn.Linear(16, 16)
        self._modules = {"extra": nn.Conv2d(16, 16, 1), **self._modules}
    def forward(self, x):
        x = self.extra(self.conv(x))
        return self.head((x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]).mean((2, 3)))

class Functional(nn.Module):
    def __init__(self, classes=6):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, 3))
    def forward(self, x):
        return torch.nn.functional.linear(x.mean((2, 3)), self.weight)

class Small(nn.Sequential):
    def __init__(self, classes=5):
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 32 * 32, classes))

instance = Net()
number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "outside_networks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("outside_networks", None)


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "outside_networks:Net"])
@pytest.mark.usefixtures("module")
def test_classes_and_channels_are_those_asked_for(name: str) -> None:
    pytest.importorskip("timm")
    network = load(name, 7, 1).eval()
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.usefixtures("module")
def test_a_callable_has_its_own_sizes_unless_asked() -> None:
    assert load("outside_networks:fixed")(torch.rand(1, 3, 8, 8)).shape == (1, 4)
    assert load("outside_networks:strict", 6, 2)(torch.rand(1, 2, 8, 8)).shape == (1, 6)
    one, other = load("outside_networks:instance"), load("outside_networks:instance", 4)
    assert one is not other
    spec = resolve_outside("outside_networks:Net")
    assert (spec.classes, spec.input_size, spec.params) == (4, (3, 224, 224), 448 + 68)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "classes", "params", "size"),
    [
        ("Late", 4, 448 + 68 + 272 + 272, 224),
        ("Functional", 6, 18, 224),
        ("Small", 5, 112 + 4 * 32 * 32 * 5 + 5, 32),
    ],
)
def test_a_network_says_its_classes_by_a_call_and_none_are_handed_back(
    name: str, classes: int, params: int, size: int
) -> None:
    spec = resolve_outside(f"outside_networks:{name}")
    assert (spec.classes, spec.params, spec.input_size) == (classes, params, (3, size, size))
    assert parameters(build_spec(spec, device="meta")) == params
    network = build_spec(replace(spec, classes=9), device="meta")
    assert network(torch.empty(1, 3, size, size, device="meta")).shape == (1, 9)


@pytest.mark.usefixtures("module")
def test_the_stem_is_the_convolution_that_reads_the_image() -> None:
    assert load("outside_networks:Late", 4, 1)(torch.rand(1, 1, 8, 8)).shape == (1, 4)


def test_a_network_without_a_head_is_given_none() -> None:
    pytest.importorskip("timm")
    spec = resolve_outside("timm:eva02_base_patch14_224")
    assert spec.params == 85_758_720
    assert parameters(build_spec(spec, device="meta")) == 85_758_720


def test_googlenet_and_inception_give_logits_alone() -> None:
    assert load("torchvision:googlenet", 3)(torch.rand(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("timm:resnet26dd", {}, ["unknown model 'timm:resnet26dd'", "timm:resnet26d"]),
        ("torchvision:resnet51", {}, ["unknown model 'torchvision:resnet51'", "torchvision:resnet50"]),
        ("torchvision:", {}, ["unknown model"]),
        ("timm:vgg11", {"classes": -3}, ["classes must be a positive integer"]),
        ("nowhere:net", {}, ["no module nowhere"]),
        ("outside_networks:net", {}, ["has no net", "did you mean"]),
        ("outside_networks:number", {}, ["is a int"]),
        ("outside_networks:nothing", {}, ["makes a int, not an nn.Module"]),
        ("outside_networks:strict", {"classes": 11}, ["ValueError (at most 10)"]),
        ("outside_networks:strict", {}, ["TypeError"]),
        ("outside_networks:fixed", {"classes": 9}, ["has 4 classes, not 9"]),
        ("outside_networks:fixed", {"in_channels": 1}, ["takes 3 channels, not 1"]),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(name: str, sizes: dict[str, Any], said: list[str]) -> None:
    pytest.importorskip("timm")
    with pytest.raises(UsageError) as caught:
        load(name, **sizes)
    assert all(words in str(caught.value) for words in said), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"timm cannot be imported .*; pip install 'senet-bench\[timm\]'"):
        load("timm:resnet18")


def test_a_row_builds_what_its_name_says_on_any_device() -> None:
    base, variant = pair_outside(resolve_outside("torchvision:resnet18"))
    assert (base.name, variant.name) == ("torchvision:resnet18", "torchvision:resnet18+attach")
    assert (variant.baseline, variant.stages, variant.attention) == (base.name, (2, 3, 4, 5), SE)
    assert (base.params, variant.params) == (11_689_512, 11_778_592)
    assert pair_outside(resolve_outside("torchvision:resnet18+attach")) == (base, variant)
    for spec in (base, variant):
        network = build_spec(replace(spec, input_size=(1, 64, 64)), 5, in_channels=1)
        assert network(torch.rand(2, 1, 64, 64)).shape == (2, 5)
        assert build_spec(spec, device="meta")(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 1000)
    stages = replace(variant, attention=AttentionSpec(stages=(3,), block="eca"))
    assert len(attention_blocks(build_spec(stages, device="meta"))) == 2


def test_outside_names_are_those_with_a_colon() -> None:
    assert [is_outside(name) for name in ("timm:resnet18", "seresnet50", "a.b:c")] == [True, False, True]


REMARKABLE = """
import torch
from torch import nn

class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

class NoNumber(Gate):
    def forward(self, x):
        return x * (self.weight - 1).log().sqrt()

class InPlace(Gate):
    def forward(self, x):
        return x.mul_(0.5 * self.weight)

class Double(Gate):
    def forward(self, x):
        return (x.double() * self.weight.double()).float()

class Sound(Gate):
    def forward(self, x):
        return x * self.weight.sigmoid()

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3))

class ReadsValues(Plain):
    def forward(self, x):
        x = self.conv(x)
        return (2 * x if x.mean().item() > 0 else x).mean((2, 3))
"""


def test_what_a_block_does_to_values_and_a_guessed_size_stand_under_the_table(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "remarkable.py").write_text(REMARKABLE)
    monkeypatch.syspath_prepend(tmp_path)
    said = {
        "NoNumber": ["remarkable:NoNumber gives values that are not finite for a map of finite ones"],
        "InPlace": ["remarkable:InPlace changes its input in place"],
        "Double": ["remarkable:Double computes in float64"],
        "Sound": [],
    }
    assert {name: block_remarks(AttentionSpec(block=f"remarkable:{name}")) for name in said} == said
    assert block_remarks(AttentionSpec()) == []
    identity = {
        name: block_remarks(AttentionSpec(block=f"remarkable:{name}", options=(("identity", True),))) for name in said
    }
    assert identity == {**said, "InPlace": []}  # it is given a copy there
    ended = run("compare", "resnet20_cifar", "--attention", "remarkable:InPlace", "--no-latency")
    assert "ResNet-20 + remarkable:InPlace: remarkable:InPlace changes its input in place" in ended.out
    ended = run("compare", "remarkable:ReadsValues", "--no-latency", "--format", "md")
    assert ended.code == 5
    assert "it fails on images without values, which are counted: RuntimeError" in ended.err
    assert "remarkable.py, line 37; let its forward read no values" in ended.err
    for size, remarked in (((), True), (("--img-size", "64"), False)):
        guessed = run("compare", "remarkable:Plain", "--no-latency", *size)
        assert ("224 px images: nothing says which it is made for; choose with --img-size" in guessed.out) is remarked


class Residual(nn.Module):
    """A residual network over maps of `dims` dimensions of space, with an SE of its own or none."""

    def __init__(self, dims: int, *, gated: bool = False) -> None:
        super().__init__()
        conv, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 3: (nn.Conv3d, nn.BatchNorm3d)}[dims]
        self.stem = conv(2, 8, 3, 2, 1)
        self.branch = nn.Sequential(conv(8, 8, 3, 1, 1), norm(8), nn.ReLU(), conv(8, 8, 3, 1, 1), norm(8))
        self.head = nn.Linear(8, 3)
        self.fc = nn.Linear(8, 8) if gated else None
        self.space = tuple(range(2, dims + 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.branch(x)
        if self.fc is not None:
            gate = torch.sigmoid(self.fc(y.mean(self.space)))
            y = y * (gate[:, :, None] if len(self.space) == 1 else gate[:, :, None, None, None])
        return self.head((x + y).mean(self.space))  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [(2, 32), (2, 4, 16, 16)])
def test_se_is_attached_to_networks_of_one_and_three_dimensions(size: tuple[int, ...]) -> None:
    dims, elements = len(size) - 1, 8 * math.prod(side // 2 for side in size[1:])
    network = Residual(dims)
    mine, (position,) = attach(network, AttentionSpec(reduction=2), size)
    assert (position.name, position.channels, position.size, position.stage) == (
        "branch.4", 8, tuple(side // 2 for side in size[1:]), 1,
    )  # fmt: skip
    plain, gated = count(network, size), count(mine, size)
    assert (gated.se_scale, gated.se_excitation) == (elements, 2 * 8 * 4)
    assert gated.macs - plain.macs == elements + 2 * 8 * 4
    x = torch.randn(2, *size)
    (block,) = attention_blocks(mine).values()
    y = network.eval().branch(network.stem(x))
    scaled = y * block.excitation(y.flatten(2).mean(2)).reshape(2, 8, *(1 for _ in size[1:]))  # type: ignore[operator]
    torch.testing.assert_close(mine.eval()(x), network.head((network.stem(x) + scaled).flatten(2).mean(2)))
    mine.train()(x).sum().backward()
    own = Residual(dims, gated=True)
    assert count(own, size).se_scale == elements
    with pytest.raises(UsageError, match="attention of its own at 1 place"):
        attach(own, SE, size)
    replaced, _ = attach(own, AttentionSpec(block="constant"), size, replaces=True)
    assert parameters(replaced) == parameters(network)


OF_OTHER_RANK = """
from torch import nn
class Net(nn.Module):
    def __init__(self, dims=1):
        super().__init__()
        conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
        self.stem, self.branch, self.head = conv(2, 8, 3, padding=1), conv(8, 8, 3, padding=1), nn.Linear(8, 5)
    def forward(self, x):
        x = self.stem(x).relu()
        return self.head((x + self.branch(x)).relu().flatten(2).mean(2))
def volume():
    return Net(3)
"""


def test_commands_take_networks_of_one_and_three_dimensions(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_other_rank.py").write_text(OF_OTHER_RANK)
    monkeypatch.syspath_prepend(tmp_path)
    for name, size in (("Net", (2, 16)), ("volume", (2, 2, 4, 4))):
        elements, typed = math.prod(size[1:]), ("--input-size", "x".join(map(str, size)), "--format", "json")
        kernel = 3 ** (len(size) - 1)
        ended = run("compare", f"of_other_rank:{name}", "--attach", "-r", "4", "--budget", "0.2", *typed)
        plain, gated = json.loads(ended.out)["rows"]
        assert plain["flops"]["macs"] == (2 + 8) * 8 * kernel * elements + 8 * 5
        assert gated["flops"]["macs"] - plain["flops"]["macs"] == 8 * elements + 2 * 8 * 2
        assert (plain["input_size"], plain["classes"]) == (list(size), 5)
        assert min(row["latency"]["seconds"] for row in (plain, gated)) > 0
        ended = run("ablate", "-m", f"of_other_rank:{name}", "--attach", "--reduction", "2,4", *typed)
        rows = json.loads(ended.out)["rows"]
        assert [row["params"] - rows[0]["params"] for row in rows] == [0, 2 * 8 * 4 + 4 + 8, 2 * 8 * 2 + 2 + 8]
    named, line = ("compare", "of_other_rank:Net", "--alone", "--no-latency"), ("--input-size", "2x16")
    for options, words in (
        (("--input-size", "3x32x32"), "1-D convolutions, and 3x32x32 is an input of 2-D ones"),
        ((*line, "--img-size", "16"), "exclude each other"),
        ((*line, "--classes", "7"), "has 5 classes, not 7"),
        (("--input-size", "4x16"), "takes 2 channels, not 4"),
    ):
        ended = run(*named, *options)
        assert (ended.code, words in ended.err) == (2, True), ended.err
    ended = run("compare", "of_other_rank:Net", "--alone", *line, "--channels-last", "--budget", "0.01")
    assert "leave out --channels-last" in ended.err
    ended = run("compare", "resnet20_cifar", "--no-latency", *line)
    assert "resnet20_cifar takes images, not 2x16" in ended.err


class AsksForSizes(nn.Module):
    """A residual network whose code decides by the sides of its maps, pads by them and counts over them."""

    def __init__(self, *, batch: bool = False) -> None:
        super().__init__()
        self.conv, self.head, self.batch = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3), batch

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if h % 8 or w % 8:
            x = nn.functional.pad(x, (0, -w % 8, 0, -h % 8))
        if self.batch:
            return torch.stack([self.head(self.conv(x[i : i + 1]).mean((2, 3)))[0] for i in range(n)])
        y = self.conv(x)
        rows = sum(row.mean(2) for row in y.permute(2, 0, 1, 3)) / len(y.permute(2, 0, 1, 3))
        for half in y.chunk(2, 1):
            rows = rows + half.mean((2, 3)).repeat(1, 2)
        return self.head((x + y).mean((2, 3)) + rows.reshape(n, c))  # type: ignore[no-any-return]


def test_a_network_that_asks_for_sizes_is_traced_with_them() -> None:
    network = AsksForSizes().eval()
    for size in ((4, 8, 8), (4, 10, 13)):
        mine, (position,) = attach(network, AttentionSpec(block="constant"), size)
        assert (position.name, position.size) == ("conv", tuple(-(-side // 8) * 8 for side in size[1:]))
        gct, _ = attach(network, AttentionSpec(block="gct"), size)  # starts as the identity
        for images in (1, 3):
            x = torch.randn(images, *size)
            torch.testing.assert_close(gct.eval()(x), network(x))
            assert not torch.equal(mine.eval()(x), network(x))
    with pytest.raises(UsageError, match="takes them one by one"):
        attach(AsksForSizes(batch=True), SE, (4, 8, 8))


def test_what_cannot_be_copied_is_named() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    check_copyable("m:Net", network)
    network.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(MeasurementError, match=r"m:Net cannot be copied: cannot pickle '_thread.lock'"):
        check_copyable("m:Net", network)


def test_an_ablation_attaches_or_replaces(run: Run) -> None:
    for name, ending in (("torchvision:resnet18", "--attach"), ("timm:test_efficientnet", "--replace")):
        ended = run("ablate", "-m", name, ending, "--attention", "eca,constant", "--img-size", "32", "--format", "json")
        assert [row["role"] for row in json.loads(ended.out)["rows"]] == ["baseline", "variant", "variant"]
    ended = run("ablate", "-m", "timm:test_efficientnet", "--attach", "--attention", "eca", "--img-size", "32")
    assert (ended.code, "attention of its own" in ended.err) == (2, True)
    assert run("ablate", "-m", "timm:test_efficientnet", "--attach", "--replace", "--attention", "eca").code == 2


def test_an_ablation_asks_of_a_narrow_network_only_what_each_setting_needs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE's own reduction of 16 does not fit 8 channels, and is asked for by none of these."""
    (tmp_path / "narrow.py").write_text(REMARKABLE.replace(".mean((2, 3))", ".relu().mean((2, 3))"))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("narrow:Plain", "narrow:Plain+attach"):
        ended = run("ablate", "-m", name, "--reduction", "2,4", "--format", "json")
        rows = json.loads(ended.out)["rows"]
        assert [row["params"] - rows[0]["params"] for row in rows] == [0, 2 * 8 * 4 + 4 + 8, 2 * 8 * 2 + 2 + 8]
    ended = run("ablate", "-m", "narrow:Plain", "--attention", "eca,se/min_width=1", "--format", "json")
    assert (ended.code, len(json.loads(ended.out)["rows"])) == (0, 3)
    ended = run("ablate", "-m", "narrow:Plain", "--reduction", "2,16")
    assert ended.code == 2
    assert "reduction=16: reduction 16 is larger than the 8 channels" in ended.err
    ended = run("ablate", "-m", "narrow:Plain", "--reduction", "paper", "--format", "json")
    assert [row["axes"].get("reduction") for row in json.loads(ended.out)["rows"]] == [None, 2, 4, 8]
