"""Counts are of arithmetic, agree with independent witnesses, and reach the paper's cells."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.bench.count import Counts, count, parameters
from senet_bench.bench.reference_counters import conv_and_linear, count_fvcore, verify
from senet_bench.core.catalog import CATALOG, CLASSIFIERS, pair, resolve
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models import attention_blocks, build, build_spec
from senet_bench.models.outside import load
from tests.support.networks import one_of_each_kind

SE = AttentionSpec()


@pytest.mark.parametrize("name", one_of_each_kind(CLASSIFIERS))
def test_convolutions_and_matrix_products_agree_with_torchs_own_counter(name: str) -> None:
    network, size = build(name, device="meta"), CATALOG[name].input_size
    counts = count(network, size)
    assert counts.conv + counts.linear + counts.se_excitation == conv_and_linear(network, size)


@pytest.mark.parametrize("name", ["seresnet18", "seshufflenet_v1_g3", "sevgg11_bn"])
def test_fvcore_with_our_handles_gives_the_same_counts_of_every_kind(name: str) -> None:
    size = (3, 64, 64)
    network = build(name, device="meta")
    assert count_fvcore(network, size) == count(network, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_fvcore_agrees_on_every_network_at_its_own_size(name: str) -> None:
    network, size = build(name, device="meta"), CATALOG[name].input_size
    verify(network, size, count(network, size))


class Spelled(nn.Module):
    """An SE block on 8 channels, r = 2, with its arithmetic spelled one way or another."""

    attention_place = "standard"

    def __init__(self, how: Callable[["Spelled", Tensor], Tensor], *, as_convolutions: bool = False) -> None:
        super().__init__()
        self.fc1: nn.Module = nn.Conv2d(8, 4, 1) if as_convolutions else nn.Linear(8, 4)
        self.fc2: nn.Module = nn.Conv2d(4, 8, 1) if as_convolutions else nn.Linear(4, 8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def plain(block: Spelled, x: Tensor) -> Tensor:
    gate = torch.sigmoid(block.fc2(torch.relu(block.fc1(x.mean((2, 3))))))
    return x * gate[:, :, None, None]


def pooled_module(block: Spelled, x: Tensor) -> Tensor:
    return block.fc2(block.fc1(block.pool(x)).relu()).sigmoid().mul(x)  # type: ignore[no-any-return]


def functional(block: Spelled, x: Tensor) -> Tensor:
    z = F.adaptive_avg_pool2d(x, 1).flatten(1)
    z = F.linear(F.relu(F.linear(z, block.fc1.weight, block.fc1.bias)), block.fc2.weight)  # type: ignore[arg-type]
    return torch.mul(x, F.hardsigmoid(z).view(-1, 8, 1, 1))


def einsum(block: Spelled, x: Tensor) -> Tensor:
    z = torch.relu(torch.einsum("nc,hc->nh", x.mean(dim=[-1, -2]), block.fc1.weight))
    return torch.einsum("nchw,nc->nchw", x, torch.sigmoid(torch.einsum("nh,ch->nc", z, block.fc2.weight)))


def matmul_in_place(block: Spelled, x: Tensor) -> Tensor:
    z = x.flatten(2).mean(-1) @ block.fc1.weight.t()  # type: ignore[operator]
    gate = torch.addmm(block.fc2.bias, z.clamp(min=0), block.fc2.weight.T).sigmoid_()  # type: ignore[arg-type]
    return x.clone().mul_(gate.unsqueeze(-1).unsqueeze(-1))


SPELLINGS = {
    "linear": (plain, False),
    "1x1 convolutions": (pooled_module, True),
    "functional": (functional, False),
    "einsum": (einsum, False),
    "matmul": (matmul_in_place, False),
}


class Around(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), block)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_count_however_the_block_is_spelled(spelling: str) -> None:
    how, as_convolutions = SPELLINGS[spelling]
    network = Around(Spelled(how, as_convolutions=as_convolutions))
    expected = Counts(
        conv=3 * 9 * 8 * 16 * 16,
        linear=80,
        se_excitation=2 * 8 * 4,
        se_scale=8 * 16 * 16,
        bn=8 * 16 * 16,
        global_pool=8 * 16 * 16,
    )
    assert count(network, (3, 16, 16)) == expected
    assert count_fvcore(network, (3, 16, 16)) == expected


def test_an_einsum_that_sums_over_no_letter_of_both_is_no_product_of_matrices() -> None:
    class Sums(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("nchw,nk->nc", x, x.new_ones(len(x), 1))

    assert count(Sums(), (3, 8, 8)).macs == count_fvcore(Sums(), (3, 8, 8)).macs == 0


@pytest.mark.parametrize(
    "head",
    [
        lambda x: x.mean((2, 3)),
        lambda x: x.mean(dim=(-1, -2), keepdim=True).flatten(1),
        lambda x: F.adaptive_avg_pool2d(x, (1, 1)).flatten(1),
        lambda x: torch.mean(x, (3, 2)),
    ],
)
def test_the_final_pool_counts_its_input_however_it_is_spelled(head: Callable[[Tensor], Tensor]) -> None:
    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return head(F.avg_pool2d(x, 2))

    assert count(Pooled(), (3, 8, 8)) == Counts(global_pool=3 * 4 * 4)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build("seresnet18", classes=5)
    network.layer_marker = nn.BatchNorm2d(1).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count(network, (3, 64, 64))
    count_fvcore(network, (3, 64, 64))
    assert network.training
    assert not network.layer_marker.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_wrong_count_does_not_pass_verification() -> None:
    network = build("resnet18", device="meta")
    counts = count(network, (3, 64, 64))
    with pytest.raises(MeasurementError, match="shape counter"):
        verify(network, (3, 64, 64), replace(counts, conv=counts.conv + 1))


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("resnet50", 3_857_973_248),
        ("seresnet50", 3_866_007_552),
        ("seresnet152", 11_302_139_904),
        ("seresnext50_32x4d", 4_238_514_176),
    ],
)
def test_multiply_adds_by_the_first_convention(name: str, macs: int) -> None:
    assert count(build(name, device="meta"), (3, 224, 224)).macs == macs


def test_senet154_counts() -> None:
    counts = count(build("senet154", device="meta"), (3, 224, 224))
    assert round(counts.macs / 1e9, 3) == 20.702
    assert round((counts.conv + counts.linear + counts.se_excitation) / 1e9, 3) == 20.688


@pytest.mark.parametrize("name", one_of_each_kind(spec.name for spec in CLASSIFIERS.values() if spec.attention))
def test_se_adds_its_fcs_and_one_operation_an_element_and_nothing_else(name: str) -> None:
    base, spec = pair(resolve(name))
    without, with_se = (count(build_spec(one, device="meta"), one.input_size) for one in (base, spec))
    added = {kind: with_se.by_kind()[kind] - amount for kind, amount in without.by_kind().items()}
    network = build_spec(spec, device="meta")
    weights = sum(
        p.numel()
        for block in attention_blocks(network).values()
        for key, p in block.named_parameters()
        if key.endswith("weight")
    )
    assert added.pop("se_excitation") == weights
    assert added.pop("se_scale") > 0
    assert set(added.values()) == {0}


@pytest.mark.parametrize("place", ["pre", "post", "identity"])
@pytest.mark.parametrize("name", ["seresnet18", "seresnet20_cifar"])
def test_other_integrations_count_too(name: str, place: str) -> None:
    spec = replace(resolve(name), attention=replace(SE, integration=place))  # type: ignore[arg-type]
    network = build_spec(spec, device="meta")
    counts = count(network, spec.input_size)
    assert counts.se_scale > 0
    assert counts.conv + counts.linear + counts.se_excitation == conv_and_linear(network, spec.input_size)


def test_an_image_too_small_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="cannot take 3x5x5") as caught:
        count(build("bninception", device="meta"), (3, 5, 5))
    assert "\n" not in str(caught.value)


def test_counting_the_catalog_loads_neither_the_compiler_nor_triton() -> None:
    code = """
import sys
from dataclasses import replace
from senet_bench.core.catalog import CATALOG, CLASSIFIERS
from senet_bench.bench.count import count
from senet_bench.models import build_spec
from senet_bench.core.specs import AttentionSpec
falling = sorted(CLASSIFIERS.values(), key=lambda spec: -spec.params)
for spec in {spec.family: spec for spec in falling}.values():  # torchvision (for detectors) loads it
    count(build_spec(spec, device="meta"), spec.input_size)
others = {"squeeze": "max"}, {"squeeze": "none"}, {"excitation": "tanh"}, {"excitation": "relu"}, {"block": "constant"}
for switches in others:
    spec = replace(CATALOG["seresnet18"], attention=AttentionSpec(**switches))
    count(build_spec(spec, device="meta"), spec.input_size)
assert "torch._dynamo" not in sys.modules, "3 s of imports for nothing"
assert "torch.utils.flop_counter" not in sys.modules, "it loads triton"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_parameters_are_the_trainable_ones() -> None:
    layer = nn.Linear(3, 4)
    layer.bias.requires_grad_(False)
    assert parameters(layer) == 12


# --- one count for one function -------------------------------------------------------------------------------------

SIZE = (3, 64, 64)


def from_outside(name: str) -> nn.Module:
    pytest.importorskip(name.partition(":")[0])
    with torch.device("meta"):
        return load(name)


@pytest.mark.parametrize(("ours", "theirs"), [("seresnet50_v1_5", "timm:seresnet50")])
def test_a_network_of_timm_has_the_counts_of_the_same_network_of_ours(ours: str, theirs: str) -> None:
    mine, other = (count(network, (3, 224, 224)) for network in (build(ours, device="meta"), from_outside(theirs)))
    assert mine.macs == other.macs == 4_097_218_560
    assert mine.bn_inclusive == other.bn_inclusive


SCALES = {
    "timm:seresnet18": True,
    "timm:resnet18": False,
    "timm:ecaresnet26t": True,
    "timm:mobilenetv3_small_100": True,
    "timm:vit_tiny_patch16_224": False,
    "timm:convnext_atto": False,
    "timm:regnety_002": True,
    "torchvision:resnet18": False,
    "torchvision:mobilenet_v3_small": True,
    "torchvision:efficientnet_b0": True,
    "torchvision:regnet_y_400mf": True,
    "torchvision:convnext_tiny": False,
}


@pytest.mark.parametrize("name", SCALES)
def test_a_count_is_torch_s_own_and_one_operation_for_each_element_a_gate_scales(name: str) -> None:
    size = (3, 224, 224) if "vit" in name else SIZE
    network = from_outside(name)
    counts, products = count(network, size), conv_and_linear(network, size)
    scaled: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        scaled.append(output.numel())

    kinds = ("SEModule", "SqueezeExcite", "EcaModule", "SqueezeExcitation")
    for module in network.modules():
        if type(module).__name__ in kinds:
            module.register_forward_hook(note)
    with torch.no_grad():
        network.eval()(torch.empty(1, *size, device="meta"))
    assert counts.macs - products == counts.se_scale == sum(scaled)
    assert (counts.se_scale > 0) == SCALES[name]
    assert counts.uncounted == ()


FAMILIES = {
    "torchvision": (
        "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t "
        "mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf "
        "regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 "
        "squeezenet1_0 swin_t swin_v2_t vgg11 vit_b_16 wide_resnet50_2"
    ),
    "timm": (
        "beit_base_patch16_224 halonet26t gernet_l coat_mini convit_base convmixer_768_32 convnext_atto crossvit_9_240 "
        "darknet17 davit_base deit_base_patch16_224 densenet121 dla34 dpn68 edgenext_base efficientformer_l1 "
        "efficientformerv2_l mixnet_l efficientvit_b0 efficientvit_m0 fastvit_t8 focalnet_base_lrf gcvit_base "
        "ghostnet_050 hardcorenas_a hgnet_base hiera_base_224 hieradet_small hrnet_w18 fasternet_l "
        "cspnext_l resnet10t lcnet_035 tinynet_e mobilenetv3_small_050 mobilevit_xxs mobilevitv2_050 repvgg_a0 "
        "repghostnet_050 seresnext26ts eca_nfnet_l0 nf_regnet_b0 regnetx_002 regnety_002 res2net50_26w_4s resnest14d "
        "rexnetr_200 selecsls42 semnasnet_050 skresnet18 spnasnet_100 tf_efficientnet_b0 tresnet_m vgg11 "
        "visformer_tiny ese_vovnet19b_dw xception41 cs3darknet_s csatv2 poolformer_s12 pvt_v2_b0 mixer_s32_224 "
        "resmlp_12_224 gmlp_ti16_224"
    ),
}
"""A network of each family."""


@pytest.mark.slow
@pytest.mark.parametrize("library", FAMILIES)
def test_every_family_is_counted_as_torch_counts_it_and_scaled(library: str) -> None:
    models = pytest.importorskip(library)
    known = set(models.list_models() if library == "timm" else models.models.list_models())
    differing = {}
    for name in (name for name in FAMILIES[library].split() if name in known):
        network = from_outside(f"{library}:{name}")
        side = 299 if name == "inception_v3" else 224
        size = getattr(network, "pretrained_cfg", {}).get("input_size", (3, side, side))
        counts, products = count(network, size), conv_and_linear(network, size)
        if counts.macs != products + counts.se_scale:
            differing[name] = counts.macs - products - counts.se_scale
    assert not differing


def gated_by(how: Callable[[Tensor, Tensor], Tensor]) -> Counts:
    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return how(x, torch.sigmoid(x.mean((2, 3), keepdim=True)))

    return count(Gated(), (3, 8, 8))


@pytest.mark.parametrize(
    "how",
    [
        lambda x, gate: x * gate,
        lambda x, gate: gate * x,
        lambda x, gate: x * gate.expand_as(x),
        lambda x, gate: x.mul_(gate),
        torch.mul,
        lambda x, gate: torch.addcmul(x, x, gate),
        lambda x, gate: torch.einsum("nchw,nc->nchw", x, gate.flatten(1)),
    ],
)
def test_a_gate_outside_of_our_blocks_counts_as_in_them(how: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert gated_by(how) == Counts(se_scale=3 * 8 * 8)


def test_a_scale_that_does_not_depend_on_the_image_is_no_gate() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(1, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gamma * F.softplus(self.gamma)

    assert count(Scaled(), (3, 8, 8)) == Counts()


class Odd(nn.Module):
    """A layer that torch's counters or fvcore once counted as nothing."""

    def __init__(self, layer: nn.Module, products: int) -> None:
        super().__init__()
        self.layer, self.products = layer, products

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


class Deformed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(3, 18, 3, padding=1)
        self.conv = pytest.importorskip("torchvision").ops.DeformConv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.offsets(x))  # type: ignore[no-any-return]


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lstm(x.flatten(2).transpose(1, 2))[0]
        return self.attention(x, x, x)[0]  # type: ignore[no-any-return]


CONVOLUTION = 8 * 27 * 64
ODD = {
    "same": lambda: Odd(nn.Conv2d(3, 8, 3, padding="same"), CONVOLUTION),
    "deformed": lambda: Odd(Deformed(), CONVOLUTION + 18 * 27 * 64),
    "sequence": lambda: Odd(Sequence(), 64 * (16 * 3 + 16 * 4) + 64 * 4 * 16 + 2 * 64 * 64 * 4),
}


@pytest.mark.parametrize("name", ODD)
def test_no_counter_is_silent_about_what_it_can_count(name: str) -> None:
    network = ODD[name]()
    assert count(network, (3, 8, 8)).macs == network.products
    assert conv_and_linear(network, (3, 8, 8)) == network.products
    assert count_fvcore(network, (3, 8, 8)).macs == network.products


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_convolution_inside_a_scripted_or_traced_module_is_counted(how: str) -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    trace: Any = torch.jit.trace
    inside = torch.jit.script(conv) if how == "script" else trace(conv, torch.zeros(1, 3, 8, 8))
    assert count(Odd(inside, CONVOLUTION), (3, 8, 8)).conv == CONVOLUTION


def test_an_einsum_over_one_channel_is_the_product_it_is() -> None:
    class Contracted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("nchw,dc->ndhw", x, x.new_ones(5, x.shape[1]))

    counts = [count(Contracted(), (channels, 8, 8)).linear for channels in (1, 2)]
    assert counts == [5 * 64, 2 * 5 * 64]
    assert [conv_and_linear(Contracted(), (channels, 8, 8)) for channels in (1, 2)] == counts


def test_work_that_has_no_count_is_named() -> None:
    class Fourier(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.ifft2(torch.fft.fft2(x)).real  # type: ignore[no-any-return]

    class Distances(nn.Module):
        attention_place = "standard"

        def forward(self, x: Tensor) -> Tensor:
            distance = (x - x.mean((2, 3), keepdim=True)).square()
            return x * torch.sigmoid(distance / (4 * distance.mean((2, 3), keepdim=True)) + 0.5)

    assert count(Fourier(), (3, 8, 8)).uncounted == ("fft_c2c",)
    assert count(Around(Distances()), (3, 8, 8)).uncounted == ("add", "div", "pow", "sub")
    assert count(build("seresnet18", device="meta"), SIZE).uncounted == ()
