"""MobileNetV2, MobileNetV3 and EfficientNet-B0 against torchvision's and timm's networks, with and without their SE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from senet_bench.bench.count import count, parameters
from senet_bench.core.catalog import CATALOG, pair, resolve
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import UsageError
from senet_bench.models import attention_blocks, build, build_spec
from senet_bench.models.mobilenet import InvertedResidual, InvertedUnit, StochasticDepth

# Without and with SE. Those that torchvision has are its counts; the others differ from them by SE's formula.
PARAMS = {
    "mobilenet_v2": (3_504_872, 4_076_486),
    "mobilenet_v3_large_nose": (3_970_752, 5_483_032),
    "mobilenet_v3_small_nose": (2_081_216, 2_542_856),
    "efficientnet_b0_nose": (4_652_008, 5_288_548),
}
THEIRS = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0")
# Expanded channels and hidden channels of the blocks, from the papers' tables.
BLOCKS = {
    "semobilenet_v2": [
        (c, c // 16) for c, n in ((32, 1), (96, 1), (144, 2), (192, 3), (384, 4), (576, 3), (960, 3)) for _ in range(n)
    ],
    "mobilenet_v3_large": [(72, 24), (120, 32), (120, 32), (480, 120), (672, 168), (672, 168), (960, 240), (960, 240)],
    "mobilenet_v3_small": [(16, 8), (96, 24), *[(240, 64)] * 2, (120, 32), (144, 40), (288, 72), *[(576, 144)] * 2],
    "efficientnet_b0": [
        *[(32, 8), (96, 4), (144, 6), (144, 6), (240, 10), (240, 10), *[(480, 20)] * 3],
        *[(672, 28)] * 3,
        *[(1152, 48)] * 4,
    ],
}


pytestmark = pytest.mark.usefixtures("one_thread")


def multiply_adds(network: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    total: int = counter.get_total_flops() // 2
    return total


def torchvisions(name: str) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = pytest.importorskip("torchvision.models").get_model(name)
    return network


def timms(name: str) -> nn.Module:
    network: nn.Module = pytest.importorskip("timm").create_model(name)
    return network


@pytest.mark.parametrize("name", PARAMS)
def test_parameters_are_exactly_the_reference(name: str) -> None:
    variant = pair(resolve(name))[1]
    assert (CATALOG[name].params, variant.params) == PARAMS[name]
    assert tuple(parameters(build(each, device="meta")) for each in (name, variant.name)) == PARAMS[name]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_have_the_channels_of_the_papers_tables(name: str) -> None:
    blocks: list[Any] = list(attention_blocks(build(name, device="meta")).values())
    assert [(block.fc1.in_features, block.fc1.out_features) for block in blocks] == BLOCKS[name]
    added = sum(2 * c * h + c + h for c, h in BLOCKS[name])
    base = CATALOG[name].baseline
    assert base is not None
    assert CATALOG[name].params - CATALOG[base].params == added


@pytest.mark.parametrize("name", THEIRS)
def test_torchvision_counts_the_same_parameters_and_multiply_adds(name: str) -> None:
    theirs, ours = torchvisions(name), build(name, device="meta")
    assert parameters(ours) == parameters(theirs)
    assert multiply_adds(ours) == multiply_adds(theirs)
    counts = count(ours, (3, 224, 224))
    assert counts.macs - counts.se_scale == multiply_adds(theirs)


@pytest.mark.parametrize("name", THEIRS)
def test_torchvision_s_network_with_the_same_weights_computes_the_same(name: str) -> None:
    check_same_function(name, torchvisions(name).to_empty(device="cpu"))


@pytest.mark.parametrize(
    ("name", "witness"),
    [
        ("mobilenet_v2", "mobilenetv2_100"),
        ("efficientnet_b0", "efficientnet_b0"),
        ("mobilenet_v3_large", "mobilenetv3_large_100"),
        ("mobilenet_v3_small", "mobilenetv3_small_100"),
    ],
)
def test_timm_s_network_with_the_same_weights_computes_the_same(name: str, witness: str) -> None:
    check_same_function(name, timms(witness))


def check_same_function(name: str, theirs: nn.Module) -> None:
    """Tensors taken over in their order, FCs reshaped, in double precision; a witness may have its own eps."""
    ours, theirs = build(name, device="meta").eval(), filled(theirs).double().eval()
    (eps,) = {module.eps for module in theirs.modules() if isinstance(module, nn.BatchNorm2d)}
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
    keys, values = ours.state_dict(), list(theirs.state_dict().values())
    ours.load_state_dict({key: v.reshape(keys[key].shape) for key, v in zip(keys, values, strict=True)}, assign=True)
    image = torch.rand(2, 3, 96, 72, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(image)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(image), expected, rtol=1e-8, atol=1e-10)


def filled(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = (6 / module.weight[0].numel()) ** 0.5
            module.weight.data.uniform_(-bound, bound)
            if module.bias is not None:
                module.bias.data.uniform_(-0.1, 0.1)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.uniform_(-0.2, 0.2)
    return network


@pytest.mark.parametrize("name", THEIRS)
def test_batchnorm_is_as_in_torchvision(name: str) -> None:
    def norms(network: nn.Module) -> list[tuple[float, float | None]]:
        return [(m.eps, m.momentum) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    assert norms(build(name, device="meta")) == norms(torchvisions(name))


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["pre", "standard", "identity", "post"])
@pytest.mark.parametrize(("name", "sums"), [("mobilenet_v2", 10), ("mobilenet_v3_large", 5), ("efficientnet_b0", 9)])
def test_units_with_a_sum_have_the_places_of_figure_5(name: str, sums: int, place: str) -> None:
    attention = AttentionSpec(integration=place, reduction=4)  # type: ignore[arg-type]
    blocks = attention_blocks(build(name, attention=attention, device="meta"))
    assert len(blocks) == sums
    assert {key.rpartition(".")[2] for key in blocks} == {place}


@pytest.mark.parametrize("name", BLOCKS)
def test_stages_are_those_of_the_catalog(name: str) -> None:
    spec = CATALOG[name]
    assert spec.attention is not None
    found: list[str] = []
    for stage in spec.stages:
        alone = replace(spec, attention=replace(spec.attention, stages=(stage,)))
        found += attention_blocks(build_spec(alone, device="meta"))
    assert found == list(attention_blocks(build(name, device="meta")))


def test_another_block_keeps_the_network_s_places_and_reduction() -> None:
    spec = CATALOG["efficientnet_b0"]
    assert spec.attention is not None
    network = build_spec(replace(spec, attention=replace(spec.attention, block="cbam")), device="meta")
    blocks: list[Any] = list(attention_blocks(network).values())
    assert [(block.fc1.in_features, block.fc1.out_features) for block in blocks] == BLOCKS["efficientnet_b0"]


def test_a_reduction_for_which_there_are_too_few_channels_is_refused() -> None:
    with pytest.raises(UsageError, match="larger than the 96 channels"):
        build("efficientnet_b0", reduction=17, device="meta")


def test_a_training_step_reaches_every_parameter() -> None:
    for name in ("semobilenet_v2", "mobilenet_v3_small"):
        torch.manual_seed(0)
        network = build(name, classes=5, in_channels=1)
        loss = F.cross_entropy(network(torch.rand(4, 1, 32, 32)), torch.tensor([0, 1, 2, 3]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(loss)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


# --- stochastic depth -----------------------------------------------------------------------------------------------


def test_stochastic_depth_drops_whole_branches_in_training_only_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer, x = StochasticDepth(0.25), torch.ones(4000, 2, 2, 2)
    assert torch.equal(layer.eval()(x), x)
    out = layer.train()(x)
    assert torch.equal(out, out[:, :1, :1, :1].expand_as(out))
    assert {round(value, 4) for value in out.unique().tolist()} == {0.0, round(4 / 3, 4)}
    assert out.mean().item() == pytest.approx(1, abs=0.03)


def test_efficientnet_drops_more_the_deeper_as_torchvision() -> None:
    ours = [m.drop for m in build("efficientnet_b0", device="meta").modules() if isinstance(m, StochasticDepth)]
    theirs = [m.p for m in torchvisions("efficientnet_b0").modules() if type(m).__name__ == "StochasticDepth"]
    assert ours == pytest.approx(theirs)


def test_a_unit_adds_its_input_where_the_shape_stays() -> None:
    def nothing(place: str, channels: int, *, stage: int, expansion: int = 1) -> nn.Module:
        return nn.Identity()

    for inputs, stride, adds in ((8, 1, True), (8, 2, False), (16, 1, False)):
        unit = InvertedResidual(inputs, InvertedUnit(3, 24, 8, stride, "relu6"), nothing, 2).eval()
        x = torch.randn(1, inputs, 8, 8)
        expected = unit.branch(x) + x if adds else unit.branch(x)
        torch.testing.assert_close(unit(x), expected)
