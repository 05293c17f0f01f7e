"""Every network of the catalog: exact counts, independent witnesses, shapes, places, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from senet_bench.core.catalog import CATALOG, CLASSIFIERS, pair
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import UsageError
from senet_bench.models import attention_blocks, build, build_spec
from senet_bench.models.cifar import PreActivationUnit, Shake, ShakeUnit
from senet_bench.models.cifar import preactivation_branch as preactivation_branch
from senet_bench.models.graph import QuickShapes
from senet_bench.models.inception import InceptionResidual, branches_a
from senet_bench.models.resnet import ResidualUnit, basic_branch
from senet_bench.models.shufflenet import ShuffleUnit
from tests.support.networks import one_of_each_kind, shallow

# Trainable parameters, without and with SE. Sources: P the paper's reference counts (complexity.md), V torchvision,
# T timm; the rest were read off networks whose conv and FC multiply-adds reproduce the paper's.
PARAMS = {
    "resnet18": (11_689_512, 11_778_592),  # V
    "resnet34": (21_797_672, 21_958_868),  # V
    "resnet50": (25_557_032, 28_088_024),  # P V T
    "resnet101": (44_549_160, 49_326_872),  # P V T
    "resnet152": (60_192_808, 66_821_848),  # P V T
    "resnext50_32x4d": (25_028_904, 27_559_896),  # P V T
    "resnext101_32x4d": (44_177_704, 48_955_416),  # T
    "resnext101_64x4d": (83_455_272, 88_232_984),  # V
    "vgg11_bn": (132_868_840, 133_021_780),  # V
    "vgg13_bn": (133_053_736, 133_209_440),  # V
    "vgg16_bn": (138_365_992, 138_596_784),  # P V
    "vgg19_bn": (143_678_248, 143_984_128),  # V
    "mobilenet_v1": (4_231_976, 4_718_044),  # P T
    "shufflenet_v1_g3": (1_865_728, 2_441_923),  # P: 1.866 and 2.442 M
    "bninception": (11_285_224, 11_931_622),  # P: 11.285 M
    "inception_resnet_v2": (55_843_464, 64_387_444),  # T
    "senet154_nose": (108_459_944, 115_088_984),  # P T
    "resnet20_cifar": (272_282, 274_655),
    "resnet110_cifar": (1_730_522, 1_744_760),  # P: 1.7305 and 1.7448 M
    "resnet164_cifar": (1_703_258, 1_905_362),  # P: 1.7033 and 1.9054 M
    "wrn16_8_cifar": (10_961_370, 11_049_290),  # P: 10.961 and 11.049 M
    "shakeshake26_2x96d_cifar": (26_192_922, 26_292_546),  # 26.2 M, arXiv 1705.07485
    "shakeeven29_2x4x64d_cifar": (34_437_450, 34_959_258),  # 34.4 M, arXiv 1705.07485
}
PARAMS |= {f"{name}_v1_5": PARAMS[name] for name in list(PARAMS) if name.startswith("resnet") and "_" not in name}

# N_s blocks of C_s channels in the standard place: {C_s: N_s}.
RESNET_BLOCKS = {
    "18": {64: 2, 128: 2, 256: 2, 512: 2},
    "34": {64: 3, 128: 4, 256: 6, 512: 3},
    "50": {256: 3, 512: 4, 1024: 6, 2048: 3},
    "101": {256: 3, 512: 4, 1024: 23, 2048: 3},
    "152": {256: 3, 512: 8, 1024: 36, 2048: 3},
}
BLOCKS: dict[str, dict[int, int]] = {
    **{f"resnet{depth}": blocks for depth, blocks in RESNET_BLOCKS.items()},
    **{f"resnet{depth}_v1_5": blocks for depth, blocks in RESNET_BLOCKS.items()},
    "resnext50_32x4d": RESNET_BLOCKS["50"],
    "resnext101_32x4d": RESNET_BLOCKS["101"],
    "resnext101_64x4d": RESNET_BLOCKS["101"],
    "vgg11_bn": {64: 1, 128: 1, 256: 2, 512: 4},
    "vgg13_bn": {64: 2, 128: 2, 256: 2, 512: 4},
    "vgg16_bn": {64: 2, 128: 2, 256: 3, 512: 6},
    "vgg19_bn": {64: 2, 128: 2, 256: 4, 512: 8},
    "mobilenet_v1": {64: 1, 128: 2, 256: 2, 512: 6, 1024: 2},
    "shufflenet_v1_g3": {240: 3, 480: 7, 960: 3},
    "bninception": {256: 1, 320: 1, 576: 3, 608: 2, 1056: 1, 1024: 2},
    "inception_resnet_v2": {320: 10, 1088: 20, 2080: 10},
    "senet154_nose": RESNET_BLOCKS["152"],
    "resnet20_cifar": {16: 3, 32: 3, 64: 3},
    "resnet110_cifar": {16: 18, 32: 18, 64: 18},
    "resnet164_cifar": {64: 18, 128: 18, 256: 18},
    "wrn16_8_cifar": {128: 2, 256: 2, 512: 2},
    "shakeshake26_2x96d_cifar": {96: 4, 192: 4, 384: 4},
    "shakeeven29_2x4x64d_cifar": {256: 3, 512: 3, 1024: 3},
}
INVERTED = "senet_bench.models.mobilenet:InvertedNet"  # networks with their own SE: tests/test_mobile.py
BASELINES = [name for name, spec in CLASSIFIERS.items() if spec.baseline is None and spec.builder != INVERTED]
ONE_PER_BUILDER = list({CATALOG[name].builder: name for name in reversed(BASELINES)}.values())


pytestmark = pytest.mark.usefixtures("one_thread")


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def se_name(baseline: str) -> str:
    return pair(CATALOG[baseline])[1].name


def small(name: str) -> int:
    """A small image side the network takes."""
    return 8 if name.endswith("cifar") else {"inception_resnet_v2": 75}.get(name, 40)


# --- counts ---------------------------------------------------------------------------------------------------------


def test_every_row_has_a_reference_count() -> None:
    assert set(PARAMS) == set(BLOCKS) == set(BASELINES)
    inverted = {name for name, spec in CLASSIFIERS.items() if spec.builder == INVERTED}
    assert {se_name(name) for name in BASELINES} | set(BASELINES) == set(CLASSIFIERS) - inverted


@pytest.mark.parametrize("name", BASELINES)
def test_parameters_are_exactly_the_reference(name: str) -> None:
    se = se_name(name)
    assert (CATALOG[name].params, CATALOG[se].params) == PARAMS[name]
    assert (parameters(build(name, device="meta")), parameters(build(se, device="meta"))) == PARAMS[name]


@pytest.mark.parametrize("name", BASELINES)
def test_se_adds_the_parameters_of_equation_5_and_biases(name: str) -> None:
    blocks = BLOCKS[name].items()
    plain, with_se = PARAMS[name]

    def weights(r: int) -> int:
        return sum(n * 2 * c * (c // r) for c, n in blocks)

    def biases(r: int) -> int:
        return sum(n * (c + c // r) for c, n in blocks)

    assert weights(16) == 2 * sum(n * c * c for c, n in blocks) / 16 or any(c % 16 for c, _ in blocks)
    assert with_se - plain == weights(16) + biases(16)
    assert parameters(build(se_name(name), reduction=7, device="meta")) - plain == weights(7) + biases(7)
    unbiased = build(name, attention=AttentionSpec(bias=False, reduction=2), device="meta")
    assert parameters(unbiased) - plain == weights(2)


def macs(name: str) -> int:
    """Conv and FC multiply-adds by FlopCounterMode, and one operation per element an attention block scales."""
    network, scaled = build(name, device="meta").eval(), 0

    def add(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal scaled
        scaled += output.numel()

    for block in attention_blocks(network).values():
        block.register_forward_hook(add)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), QuickShapes():
        network(torch.empty(1, *CATALOG[name].input_size, device="meta"))
    total: int = counter.get_total_flops() // 2 + scaled
    return total


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("vgg16_bn", 15.4703),
        ("sevgg16_bn", 15.4840),
        ("bninception", 2.0326),
        ("sebninception", 2.0344),
        ("inception_resnet_v2", 13.1558),
        ("seinception_resnet_v2", 13.1758),
        ("mobilenet_v1", 0.56874),
        ("semobilenet_v1", 0.57193),
        ("shufflenet_v1_g3", 0.13746),
        ("seshufflenet_v1_g3", 0.13939),
        ("senet154", 20.702),
    ],
)
def test_multiply_adds_are_those_that_reproduce_the_paper(name: str, giga: float) -> None:
    digits = len(str(giga).partition(".")[2])
    assert round(macs(name) / 1e9, digits) == giga


# --- witnesses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "witness"),
    [(f"resnet{depth}_v1_5", f"resnet{depth}") for depth in RESNET_BLOCKS]
    + [(name, name) for name in BASELINES if name.startswith(("vgg", "resnext")) and name != "resnext101_32x4d"],
)
def test_torchvision_counts_the_same_parameters(name: str, witness: str) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        network = models.get_model(witness)
    assert parameters(network) == PARAMS[name][0]


@pytest.mark.parametrize("name", ["seresnet50", "semobilenet_v2", "sebninception", "seshufflenet_v1_g3"])
def test_a_network_without_memory_is_that_with_memory(name: str) -> None:
    held, empty = build(name), build(name, device="meta")
    assert str(empty) == str(held)
    for mine, other in zip(empty.modules(), held.modules(), strict=True):
        assert vars(mine).keys() == vars(other).keys()
        assert mine._non_persistent_buffers_set == other._non_persistent_buffers_set
    assert all(tensor.is_meta for tensor in tensors_of(empty).values())
    assert [*map(described, tensors_of(empty).items())] == [*map(described, tensors_of(held).items())]


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def described(named: tuple[str, Tensor]) -> tuple[object, ...]:
    name, tensor = named
    return name, type(tensor), tensor.shape, tensor.dtype, tensor.requires_grad


@pytest.mark.parametrize(
    ("name", "witness"),
    [
        ("seresnet101", "legacy_seresnet101"),
        ("seresnet152", "legacy_seresnet152"),
        ("seresnext101_32x4d", "legacy_seresnext101_32x4d"),
        ("mobilenet_v1", "mobilenetv1_100"),
    ],
)
def test_timm_counts_the_same_parameters(name: str, witness: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model(witness)
    assert parameters(network) == CATALOG[name].params


@pytest.mark.parametrize(
    ("name", "witness"),
    [
        ("resnet18_v1_5", "torchvision:BasicBlock"),
        ("resnet50_v1_5", "torchvision:Bottleneck"),
        ("seresnet50", "timm:legacy_seresnet50"),
        ("seresnext50_32x4d", "timm:legacy_seresnext50_32x4d"),
        ("senet154", "timm:legacy_senet154"),
        ("inception_resnet_v2", "timm:inception_resnet_v2"),
    ],
)
def test_an_independent_network_computes_the_same_function(name: str, witness: str) -> None:
    """The witness's tensors, taken over in their order, give the same logits; four stages are cut short."""
    spec, side, shape = CATALOG[name], 64, {"layers": (1, 2, 1, 1)}
    if name == "inception_resnet_v2":
        side, shape = 75, {}
    with torch.device("meta"):
        theirs = witness_network(witness, shape)
    theirs = filled(theirs.to_empty(device="cpu")).eval()
    ours = build_spec(replace(spec, options={**spec.options, **shape}), device="meta").eval()
    keys, values = ours.state_dict(), theirs.state_dict().values()
    assert len(keys) == len(values)
    ours.load_state_dict({key: v.reshape(keys[key].shape) for key, v in zip(keys, values)}, assign=True)
    image = torch.rand(1, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-4)


def witness_network(witness: str, shape: dict[str, Any]) -> nn.Module:
    library, _, model = witness.partition(":")
    network: nn.Module
    if library == "timm":
        network = pytest.importorskip("timm").create_model(model, **shape)
    else:
        resnet = pytest.importorskip("torchvision.models.resnet")
        network = resnet.ResNet(getattr(resnet, model), **shape)
    return network


def filled(network: nn.Module) -> nn.Module:
    """The network with random values that keep activations in range."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = (3 / module.weight[0].numel()) ** 0.5
            module.weight.data.uniform_(-bound, bound)
            if module.bias is not None:
                module.bias.data.uniform_(-0.1, 0.1)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.2)
    return network


# --- what is built --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", one_of_each_kind(CLASSIFIERS))
def test_logits_have_the_shape_asked_for(name: str) -> None:
    """At a small square image with attention, at an odd and oblong one without."""
    spec = CATALOG[name]
    side = small(pair(spec)[0].name)
    size = (side, side) if spec.attention else (side + 5, side + 26)
    network = build(name, classes=7, in_channels=1, device="meta")
    with torch.no_grad(), QuickShapes():
        assert network(torch.empty(2, 1, *size, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet20_cifar", "wrn16_8_cifar", "shakeshake26_2x96d_cifar", "shufflenet_v1_g3"])
def test_a_training_step_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    network = build(se_name(name), classes=5, in_channels=1, reduction=4)
    side = 32 if name == "shufflenet_v1_g3" else 8
    loss = F.cross_entropy(network(torch.rand(4, 1, side, side)), torch.tensor([0, 1, 2, 3]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("name", shallow(ONE_PER_BUILDER))
def test_networks_can_be_traced_symbolically_in_both_modes(name: str) -> None:
    network = build(se_name(name), device="meta")
    image = torch.empty(2, 3, small(name), small(name), device="meta")
    for mode in (True, False):
        traced = fx.symbolic_trace(network.train(mode))
        assert traced(image).shape == network(image).shape


def test_the_readme_style_call_sets_classes_channels_cardinality_and_reduction() -> None:
    network = build("seresnext50_32x4d", classes=10, in_channels=1, cardinality=16, reduction=8, device="meta")
    grouped = {m.groups for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    hidden = [block.fc1.out_features for block in attention_blocks(network).values()]  # type: ignore[union-attr]
    assert grouped == {16}
    assert hidden == [32] * 3 + [64] * 4 + [128] * 6 + [256] * 3
    assert network(torch.empty(2, 1, 64, 64, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "width"), [("resnext50_32x4d", 4), ("senet154", 4), ("seshakeeven29_2x4x64d_cifar", 64)]
)
@pytest.mark.parametrize("groups", [7, 8])
def test_cardinality_is_the_number_of_groups_each_as_wide_as_before(name: str, width: int, groups: int) -> None:
    network = build(name, cardinality=groups, device="meta")
    grouped = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert {m.groups for m in grouped} == {groups}
    assert min(m.out_channels for m in grouped) == groups * width


@pytest.mark.parametrize("name", shallow(name for name in BASELINES if not name.endswith("v1_5")))
def test_each_stage_can_have_its_blocks_alone_and_its_own_reduction(name: str) -> None:
    spec = CATALOG[se_name(name)]
    everywhere = list(attention_blocks(build_spec(spec, device="meta")))
    assert len(everywhere) == sum(BLOCKS[name].values())
    found: list[str] = []
    for index, stage in enumerate(spec.stages):
        reduction = tuple(4 if i == index else 8 for i in range(len(spec.stages)))
        network = build(name, attention=AttentionSpec(stages=(stage,), reduction=reduction), device="meta")
        blocks = attention_blocks(network)
        assert blocks
        for block in blocks.values():
            fc1: Any = block.fc1
            assert fc1.out_features == fc1.in_features // 4
        found += blocks
    assert found == everywhere


def test_a_constant_gate_takes_the_place_of_se_and_adds_no_parameters() -> None:
    network = build("resnet50", attention=AttentionSpec(block="constant"), device="meta")
    assert len(attention_blocks(network)) == 16
    assert parameters(network) == PARAMS["resnet50"][0]


# --- where attention sits (Figure 5, Table 15) ----------------------------------------------------------------------


class Gate(nn.Module):
    """A gate forced to `value`."""

    value = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.value * x


def gates(place: str, channels: int, *, stage: int, expansion: int = 1) -> nn.Module:
    return Gate()


def shake_unit() -> ShakeUnit:
    branches = basic_branch(8, 16, 2), basic_branch(8, 16, 2)
    return ShakeUnit(8, 16, 2, branches, gates, 2, random_backward=True, activation=nn.ReLU())


UNITS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "residual": (lambda: ResidualUnit(8, 16, 2, basic_branch(8, 16, 2), gates, 2), 8),
    "pre-activation": (lambda: PreActivationUnit(16, 16, 1, preactivation_branch(16, 16, 1, gates, 2), gates, 2), 16),
    "pre-activation, projecting": (
        lambda: PreActivationUnit(8, 16, 2, preactivation_branch(8, 16, 2, gates, 2), gates, 2),
        8,
    ),
    "shuffle": (lambda: ShuffleUnit(24, 3, gates, 2), 24),
    "inception-resnet": (lambda: InceptionResidual(320, branches_a(), gates, 3, scale=0.5), 320),
    "shake": (shake_unit, 8),
}


def figure_5(unit: Any, x: Tensor, place: str, gate: float) -> Tensor:
    """What the unit must give when the gate at `place` is forced and no other acts."""

    def at(here: str) -> float:
        return gate if here == place else 1.0

    enters = unit.activation(x) if isinstance(unit, PreActivationUnit) else x
    scale = unit.scale if isinstance(unit, InceptionResidual) else 1.0
    entry = at("pre") * enters
    branches = (unit.branch_a, unit.branch_b) if isinstance(unit, ShakeUnit) else (unit.branch,)
    branch = sum(each(entry) for each in branches) / len(branches)
    shortcut = getattr(unit, "shortcut", nn.Identity())
    skip = shortcut(enters if getattr(unit, "projects", False) else x)
    total = scale * at("standard") * branch + at("identity") * skip
    return at("post") * (total if isinstance(unit, PreActivationUnit) else F.relu(total))


@pytest.mark.parametrize("place", ["pre", "standard", "identity", "post"])
@pytest.mark.parametrize("kind", UNITS)
def test_a_forced_gate_acts_where_figure_5_puts_it(kind: str, place: str) -> None:
    torch.manual_seed(0)
    make, channels = UNITS[kind]
    unit: Any = make().eval()
    x = torch.randn(2, channels, 8, 8)
    with torch.no_grad():
        plain = unit(x)
        getattr(unit, place).value = 3.0
        gated = unit(x)
        torch.testing.assert_close(plain, figure_5(unit, x, place, 1.0))
        torch.testing.assert_close(gated, figure_5(unit, x, place, 3.0))
    assert not torch.allclose(plain, gated)


@pytest.mark.parametrize("name", ["resnet50", "resnet34", "senet154_nose", "resnet164_cifar", "shufflenet_v1_g3"])
@pytest.mark.parametrize("place", ["pre", "standard", "identity", "post"])
def test_every_integration_gives_each_unit_one_block(name: str, place: str) -> None:
    attention = AttentionSpec(integration=place)  # type: ignore[arg-type]
    blocks = attention_blocks(build(name, attention=attention, device="meta"))
    assert len(blocks) == sum(BLOCKS[name].values())
    assert {key.rpartition(".")[2] for key in blocks} == {place}


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("resnet50", [64] * 3 + [128] * 4 + [256] * 6 + [512] * 3),
        ("resnext50_32x4d", [128] * 3 + [256] * 4 + [512] * 6 + [1024] * 3),
        ("senet154_nose", [256] * 3 + [512] * 8 + [1024] * 36 + [2048] * 3),
        ("resnet164_cifar", [16] * 18 + [32] * 18 + [64] * 18),
        ("shufflenet_v1_g3", [60] * 3 + [120] * 7 + [240] * 3),
        ("shakeeven29_2x4x64d_cifar", [256] * 6 + [512] * 6 + [1024] * 6),
    ],
)
def test_placement_3x3_is_right_after_the_3x3_convolution(name: str, widths: list[int]) -> None:
    network = build(name, attention=AttentionSpec(placement="3x3"), device="meta")
    blocks: dict[str, Any] = attention_blocks(network)
    assert [block.fc1.in_features for block in blocks.values()] == widths
    for key in blocks:
        branch, _, index = key.rpartition(".")
        layers = list(network.get_submodule(branch).children())
        before = [m for m in layers[: int(index)] if isinstance(m, nn.Conv2d)]
        assert before[-1].kernel_size == (3, 3)


# --- Shake-Shake ----------------------------------------------------------------------------------------------------


def shaken(random_backward: bool, images: int = 2000) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weights of the first branch that a training pass used: (alpha, beta), and the gradients per branch."""
    torch.manual_seed(0)
    a = torch.ones(images, 2, 2, 2, requires_grad=True)
    b = torch.zeros(images, 2, 2, 2, requires_grad=True)
    out = Shake(random_backward)(a, b)
    out.sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    for each in (out, a.grad, b.grad):  # one weight for the whole of an image
        assert torch.equal(each, each[:, :1, :1, :1].expand_as(each))
    return out.detach()[:, 0, 0, 0], a.grad[:, 0, 0, 0], a.grad, b.grad


def test_shake_in_evaluation_is_exactly_the_average() -> None:
    a, b = torch.randn(2, 3, 4, 5, 5)
    assert torch.equal(Shake(True).eval()(a, b), (a + b) / 2)


def test_shake_in_training_draws_a_weight_for_each_image_anew() -> None:
    alpha = shaken(True)[0]
    assert 0 <= alpha.min() < 0.01
    assert 0.99 < alpha.max() <= 1
    assert alpha.mean().item() == pytest.approx(0.5, abs=0.03)
    assert len(set(alpha.tolist())) > 1900
    shake, a, b = Shake(True), torch.ones(4, 1, 1, 1), torch.zeros(4, 1, 1, 1)
    assert not torch.equal(shake(a, b), shake(a, b))


def test_shake_shake_draws_its_backward_weights_independently() -> None:
    alpha, beta, grad_a, grad_b = shaken(True)
    assert abs(torch.corrcoef(torch.stack([alpha, beta]))[0, 1].item()) < 0.1
    assert beta.std().item() == pytest.approx(12**-0.5, rel=0.05)
    torch.testing.assert_close(grad_a + grad_b, torch.ones_like(grad_a))


def test_shake_even_gives_both_branches_half_of_the_gradient() -> None:
    alpha, _, grad_a, grad_b = shaken(False)
    assert alpha.std().item() > 0.2
    assert torch.equal(grad_a, torch.full_like(grad_a, 0.5))
    assert torch.equal(grad_b, torch.full_like(grad_b, 0.5))


@pytest.mark.parametrize(("name", "random"), [("shakeshake26_2x96d_cifar", True), ("shakeeven29_2x4x64d_cifar", False)])
def test_the_networks_shake_backward_as_their_names_say(name: str, random: bool) -> None:
    shakes = [m for m in build(name, device="meta").modules() if isinstance(m, Shake)]
    assert {shake.random_backward for shake in shakes} == {random}
    assert len(shakes) == sum(BLOCKS[name].values())


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "seresnet110_cifar", "reduction": 32}, ["reduction 32", "16 channels"]),
        ({"name": "seresnet50", "reduction": (4, 8)}, ["2 reductions", "4 stages"]),
        ({"name": "resnet50", "attention": AttentionSpec(stages=(1,))}, ["stage 1", "2, 3, 4, 5"]),
        ({"name": "vgg16_bn", "attention": AttentionSpec(placement="3x3")}, ["vgg16_bn", "'3x3'"]),
        ({"name": "resnet18", "attention": AttentionSpec(placement="3x3")}, ["resnet18", "'3x3'"]),
        ({"name": "bninception", "attention": AttentionSpec(integration="identity")}, ["'identity'"]),
        ({"name": "mobilenet_v1", "cardinality": 4}, ["no grouped"]),
        ({"name": "resnet50", "attention": AttentionSpec(block="eca"), "reduction": 8}, ["eca takes no reduction"]),
        ({"name": "resnet50", "classes": 0}, ["classes", "0"]),
        ({"name": "resnet50", "in_channels": -1}, ["in_channels", "-1"]),
        ({"name": "seresnet51"}, ["seresnet51", "seresnet50"]),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(options: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        build(device="meta", **options)
    assert all(words in str(caught.value) for words in said)
    assert "\n" not in str(caught.value)
