"""SE's relatives: parameters by each paper's formula, outputs as timm's or the equations', and outside blocks."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from senet_bench.bench.count import count, parameters
from senet_bench.bench.reference_counters import verify
from senet_bench.core import axes
from senet_bench.core.blocks import BLOCKS, switched
from senet_bench.core.catalog import CATALOG, pair, resolve
from senet_bench.core.source import imported
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models import attention_blocks, build
from senet_bench.models.attach import attach
from senet_bench.models.attention import attend_with, maker
from senet_bench.models.blocks import make_divisible
from senet_bench.training.start import initialise_by_name
from tests.conftest import Run

# What each block adds at C channels and reduction r, from the formula in its docstring.
FORMULAS: dict[str, Callable[[int, int], int]] = {
    "se": lambda c, r: 2 * c * (c // r) + c // r + c,
    "constant": lambda c, r: 0,
    "se_hard": lambda c, r: 2 * c * make_divisible(c // r) + make_divisible(c // r) + c,
    "se_silu": lambda c, r: 2 * c * (c // r) + c // r + c,
    "eca": lambda c, r: {64: 3, 256: 5, 512: 5, 1024: 5, 2048: 7}[c],  # |(log2(C) + 1) / 2| odd
    "cbam": lambda c, r: 2 * c * (c // r) + 2 * 7 * 7 + 2,
    "ese": lambda c, r: c * c + c,
    "ge": lambda c, r: 0,
    "ge_theta": lambda c, r: 3 * (9 * c + 2 * c),
    "ge_theta_plus": lambda c, r: 3 * (9 * c + 2 * c) + 2 * c * (c // r) + c // r + c,
    "srm": lambda c, r: 4 * c,
    "gct": lambda c, r: 3 * c,
}
PLACES = ("pre", "standard", "identity", "post")


pytestmark = pytest.mark.usefixtures("one_thread")


def made(name: str, channels: int, reduction: int = 16, **switches: Any) -> nn.Module:
    return maker(name)(channels, AttentionSpec(block=name, **switches), reduction)


def filled(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return module.eval()


# --- each block -----------------------------------------------------------------------------------------------------


def test_every_block_has_a_formula_and_is_a_value_of_the_axis() -> None:
    assert set(FORMULAS) == set(BLOCKS) == set(axes.AXES["attention"].values)


@pytest.mark.parametrize("channels", [64, 256, 512, 1024, 2048])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_block_adds_the_parameters_of_its_formula(name: str, channels: int) -> None:
    with torch.device("meta"):
        assert parameters(made(name, channels, 4)) == FORMULAS[name](channels, 4)
        assert parameters(made(name, channels, 16)) == FORMULAS[name](channels, 16)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_block_keeps_shapes_and_can_be_traced_and_trained(name: str) -> None:
    block = made(name, 32, 4).train()
    x = torch.randn(3, 32, 9, 5, requires_grad=True)
    traced = fx.symbolic_trace(block)
    out = block(x)
    assert out.shape == x.shape
    assert fx.symbolic_trace(made(name, 32, 4).eval())(x).shape == x.shape
    assert traced(x[:, :, :4]).shape == (3, 32, 4, 5)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
    assert made(name, 32, 4).eval()(torch.zeros(1, 32, 1, 1)).isfinite().all()


def timms(kind: str, channels: int) -> nn.Module:
    layers = pytest.importorskip("timm.layers")
    blocks = pytest.importorskip("timm.models._efficientnet_blocks")
    rounded = {"rd_ratio": 0.25, "gate_layer": "hard_sigmoid", "rd_round_fn": layers.make_divisible}
    makers: dict[str, Callable[[], nn.Module]] = {
        "eca": lambda: layers.EcaModule(channels),
        "cbam": lambda: pytest.importorskip("timm.layers.cbam").CbamModule(channels),
        "ese": lambda: layers.EffectiveSEModule(channels),
        "se": lambda: layers.SEModule(channels, rd_divisor=1),
        "se_hard": lambda: blocks.SqueezeExcite(channels, **rounded),
        "se_silu": lambda: blocks.SqueezeExcite(channels, rd_ratio=0.25, act_layer=nn.SiLU),
        "ge": lambda: layers.GatherExcite(channels, use_mlp=False),
        "ge/extent=4": lambda: layers.GatherExcite(channels, use_mlp=False, extent=4),
        "ge_theta": lambda: _timms_learned(layers, channels, mlp=False),
        "ge_theta_plus": lambda: _timms_learned(layers, channels, mlp=True),
    }
    return makers[kind]()


def _timms_learned(layers: Any, channels: int, mlp: bool) -> nn.Module:
    """timm 1.0's GatherExcite with the parts it means to make (its constructor passes two arguments too many)."""
    block: nn.Module = layers.GatherExcite(channels, use_mlp=False, extent=8)
    gather = nn.Sequential()
    for index in range(3):
        conv = layers.create_conv2d(channels, channels, kernel_size=3, stride=2, depthwise=True)
        gather.extend([conv, nn.BatchNorm2d(channels), *([nn.ReLU()] if index < 2 else [])])
    del block.mlp
    block.gather = gather
    block.mlp = layers.ConvMlp(channels, channels // 16, act_layer=nn.ReLU) if mlp else nn.Identity()
    return block


@pytest.mark.parametrize(
    "kind",
    ["se", "eca", "cbam", "ese", "se_hard", "se_silu", "ge", "ge/extent=4", "ge_theta", "ge_theta_plus"],
)
@pytest.mark.parametrize("channels", [64, 256])
def test_timm_has_the_same_parameters_and_computes_the_same(kind: str, channels: int) -> None:
    spec = axes.AXES["attention"].apply(AttentionSpec(), kind)
    ours = filled(maker(spec.block)(channels, spec, 4 if kind in ("se_hard", "se_silu") else 16))
    theirs = timms(kind, channels).eval()
    assert parameters(ours) == parameters(theirs)
    wanted = theirs.state_dict()
    values = list(ours.state_dict().values())
    theirs.load_state_dict({key: v.reshape(wanted[key].shape) for key, v in zip(wanted, values, strict=True)})
    x = torch.randn(2, channels, 12, 9)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert multiply_adds(ours, x) == multiply_adds(theirs, x)


def multiply_adds(block: nn.Module, x: Tensor) -> int:
    """What torch's own counter sees: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block(x)
    total: int = counter.get_total_flops() // 2
    return total


def equation(name: str, block: Any, x: Tensor) -> Tensor:
    """The blocks that timm does not have, written out for one image, channel by channel."""
    out, (channels, pixels) = torch.empty_like(x), (x.shape[1], x.shape[2] * x.shape[3])
    for n in range(len(x)):
        if name == "gct":
            s = [block.alpha[0, c] * (x[n, c].pow(2).sum() + 1e-5).sqrt() for c in range(channels)]
            norm = (sum(v.pow(2) for v in s) / channels + 1e-5).sqrt()
        for c in range(channels):
            mean = x[n, c].sum() / pixels
            if name == "srm":
                deviation = (((x[n, c] - mean) ** 2).sum() / pixels + 1e-5).sqrt()
                z = block.weigh.weight[c, 0, 0] * mean + block.weigh.weight[c, 0, 1] * deviation
                z = (z - block.norm.running_mean[c]) / (block.norm.running_var[c] + 1e-5).sqrt()
                gate = 1 / (1 + torch.exp(-(z * block.norm.weight[c] + block.norm.bias[c])))
            else:
                gate = 1 + torch.tanh(block.gamma[0, c] * s[c] / norm + block.beta[0, c])
            out[n, c] = gate * x[n, c]
    return out


@pytest.mark.parametrize("name", ["srm", "gct"])
def test_blocks_that_timm_lacks_compute_their_equations(name: str) -> None:
    block = filled(made(name, 6)).double()
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block(x), equation(name, block, x), rtol=1e-10, atol=1e-10)


def test_blocks_start_as_their_papers_say() -> None:
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(made("gct", 8).eval()(x), x)
    torch.testing.assert_close(made("srm", 8).eval()(x), x / 2)


def test_the_hard_gate_and_silu_keep_se_s_switches() -> None:
    block: Any = made("se_hard", 32, 4, squeeze="max", bias=False)
    x = torch.randn(2, 32, 4, 4)
    expected = x * F.hardsigmoid(block.fc2(torch.relu(block.fc1(x.amax((2, 3)))))).view(2, 32, 1, 1)
    torch.testing.assert_close(block(x), expected)
    block = made("se_silu", 32, 4, excitation="tanh")
    torch.testing.assert_close(block(x), x * torch.tanh(block.fc2(F.silu(block.fc1(x.mean((2, 3)))))).view(2, 32, 1, 1))


@pytest.mark.parametrize(("value", "multiple"), [(4, 8), (12, 16), (18, 24), (30, 32), (60, 64), (168, 168)])
def test_squeeze_channels_are_rounded_as_mobilenet_rounds(value: int, multiple: int) -> None:
    assert make_divisible(value) == multiple


# --- in networks ----------------------------------------------------------------------------------------------------

ONE_PER_BUILDER = list({row.builder: row.name for row in reversed(CATALOG.values()) if row.baseline is None}.values())


@pytest.mark.parametrize("name", ONE_PER_BUILDER)
@pytest.mark.parametrize("block", ["eca", "ge_theta_plus"])
def test_blocks_go_wherever_se_goes(name: str, block: str) -> None:
    spec = pair(resolve(name))[1]
    with_se = attention_blocks(build(spec.name, device="meta"))
    attention = axes.AXES["attention"].apply(spec.attention or AttentionSpec(), block)
    network = build(name, attention=attention, device="meta")
    assert list(attention_blocks(network)) == list(with_se)
    counted = count(network, spec.input_size)
    assert counted.se_excitation > 0
    assert counted.se_scale == count(build(spec.name, device="meta"), spec.input_size).se_scale


@pytest.mark.parametrize("block", FORMULAS)
def test_every_place_takes_every_block_and_three_counters_agree(block: str) -> None:
    plain = parameters(build("resnet20_cifar", device="meta"))
    for place in PLACES:
        spec = AttentionSpec(block=block, integration=place, reduction=4)  # type: ignore[arg-type]
        network = build("resnet20_cifar", attention=spec, device="meta")
        added = parameters(network) - plain
        assert added == sum(parameters(one) for one in attention_blocks(network).values())
        if place == "standard":
            verify(network, (3, 32, 32), count(network, (3, 32, 32)))


def test_options_travel_in_the_spec_and_through_json() -> None:
    spec = AttentionSpec(block="ge", options=(("extent", 4), ("note", "x"), ("flag", True), ("scale", 0.5)))
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(spec)), AttentionSpec) == spec
    assert msgspec.convert({"block": "se"}, AttentionSpec) == AttentionSpec()
    assert hash(spec) == hash(AttentionSpec(block="ge", options=spec.options))


# --- the axis -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "block", "options"),
    [
        ("ECA", "eca", ()),
        ("ge/extent=4", "ge", (("extent", 4),)),
        ("my.blocks:Thing", "my.blocks:Thing", ()),
        ("m:T/k=3/s=0.5/on=true/kind=Soft", "m:T", (("k", 3), ("s", 0.5), ("on", True), ("kind", "Soft"))),
    ],
)
def test_a_block_is_read_as_typed(text: str, block: str, options: tuple[tuple[str, object], ...]) -> None:
    axis = axes.AXES["attention"]
    (value,) = axis.parse(text)
    spec = axis.apply(AttentionSpec(block="cbam", options=(("kernel", 3),), reduction=8), value)
    assert (spec.block, spec.options, spec.reduction) == (block, options, 8)


def test_the_axis_without_a_value_is_every_built_in_block() -> None:
    assert axes.AXES["attention"].parse(None) == tuple(BLOCKS)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_row_names_the_paper_and_the_options_of_its_class(name: str) -> None:
    row = BLOCKS[name]
    factory = imported(row.factory, "block")
    arguments = inspect.signature(factory).parameters
    assert all(option.name in arguments for option in row.options)
    assert row.switches or row.reduces <= ("reduction" in arguments)
    source = row.source.rpartition(" ")[2]
    assert source in factory.__doc__ or not source.startswith("1")


@pytest.mark.parametrize("text", ["ge/extent=0", "eca/kernel=0", "cbam/kernel=x", "gct/eps=0", "ese/k=1", "ge/mlp=2"])
def test_an_option_outside_its_bounds_is_refused_where_it_is_typed(text: str) -> None:
    block, _, option = text.partition("/")
    with pytest.raises(UsageError, match=rf"{block}('s|.*option) '?{option.partition('=')[0]}"):
        axes.AXES["attention"].parse(text)


def test_an_r_typed_for_a_block_that_takes_none_is_refused_and_a_block_s_own_is_kept() -> None:
    with pytest.raises(UsageError, match="gct takes no reduction"):
        switched(AttentionSpec(), {"block": "gct", "reduction": 2})
    with pytest.raises(UsageError, match="gct takes no reduction"):
        switched(AttentionSpec(block="gct"), {"reduction": 2})
    assert switched(AttentionSpec(block="constant"), {"reduction": 2}).reduction == 2  # the control of another block
    assert switched(AttentionSpec(reduction=4), {"block": "cbam"}).reduction == 4
    assert switched(AttentionSpec(), {"block": "m:Class"}).reduction is None
    assert switched(AttentionSpec(), {"block": "m:Class", "reduction": 16}).reduction == 16
    assert AttentionSpec(block="m:Class").reduction is None
    assert AttentionSpec().reduction == 16


@pytest.mark.parametrize(
    ("text", "said"), [("ecaa", "'ecaa' is none of se"), ("ge/extent", "'extent' is no option"), ("", "none of")]
)
def test_a_block_that_cannot_be_is_said_without_torch(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        axes.AXES["attention"].parse(text)


# --- from outside ---------------------------------------------------------------------------------------------------

OUTSIDE = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, channels, *, factor=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, channels, 1, 1), float(factor)))
    def forward(self, x):
        return self.weight * x

class Reduced(nn.Module):
    def __init__(self, channels, reduction):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels // reduction, 1)
        self.back = nn.Conv2d(channels // reduction, channels, 1)
    def forward(self, x):
        return x + self.back(self.conv(x))

class Own(Reduced):
    def __init__(self, channels, reduction=4):
        super().__init__(channels, reduction)

class Ones(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(channels, channels, 1, groups=channels))
        nn.init.ones_(self.inner[0].weight)
        nn.init.constant_(self.inner[0].bias, 0.5)
    def forward(self, x):
        return self.inner(x)

class Shrinks(nn.Module):
    def __init__(self, channels):
        super().__init__()
    def forward(self, x):
        return x[:, :, ::2]

class Raises(nn.Module):
    def __init__(self, channels):
        super().__init__()
    def forward(self, x):
        raise RuntimeError("not today\\nnor tomorrow")

class Refuses(nn.Module):
    def __init__(self, channels):
        raise ValueError("no")

def function(channels):
    return Scale(channels, factor=2)

def nothing(channels):
    return None

number = 3
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "outside_blocks.py").write_text(OUTSIDE)
    (tmp_path / "broken_blocks.py").write_text("import torch\nraise KeyError('half')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("outside_blocks", None)


@pytest.mark.usefixtures("outside")
def test_a_class_from_outside_is_built_counted_and_given_its_options() -> None:
    spec = AttentionSpec(block="outside_blocks:Scale", options=(("factor", 0.25),))
    network = build("resnet20_cifar", attention=spec)
    blocks: list[Any] = list(attention_blocks(network).values())
    assert len(blocks) == 9
    assert {block.weight[0, 0, 0, 0].item() for block in blocks} == {0.25}
    assert all(block.training for block in blocks)
    assert count(network, (3, 32, 32)).se_scale > 0
    doubled: Any = attend_with(AttentionSpec(block="outside_blocks:function"), (2,))("standard", 4, stage=2)
    assert doubled.weight[0, 0, 0, 0] == 2


@pytest.mark.usefixtures("outside")
def test_a_class_from_outside_keeps_its_own_initial_values_and_the_network_has_ours() -> None:
    torch.manual_seed(0)
    network = build("resnet20_cifar", attention=AttentionSpec(block="outside_blocks:Ones"))
    attached = attach(build("resnet20_cifar"), AttentionSpec(block="outside_blocks:Ones"), (3, 32, 32))[0]
    trained = build("resnet20_cifar", attention=AttentionSpec(block="outside_blocks:Ones"))
    initialise_by_name(trained, 3)
    for each in (network, attached, trained):
        blocks: list[Any] = list(attention_blocks(each).values())
        assert len(blocks) == 9
        assert all((b.inner[0].weight == 1).all() and (b.inner[0].bias == 0.5).all() for b in blocks)
        ours = each.get_parameter("stages.0.0.branch.0.weight")
        assert ours.std().item() == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("block", ["se", "cbam", "ge_theta_plus"])
def test_built_in_blocks_are_he_initialised(block: str) -> None:
    network = build("resnet20_cifar", attention=AttentionSpec(block=block, reduction=2))
    layers = [
        m for b in attention_blocks(network).values() for m in b.modules() if isinstance(m, nn.Linear | nn.Conv2d)
    ]
    assert all((layer.bias == 0).all() for layer in layers if layer.bias is not None)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(("options", "hidden"), [((), 4), ((("reduction", 2),), 16)])
def test_a_class_with_a_reduction_gets_its_stage_s_unless_it_is_an_option(options: Any, hidden: int) -> None:
    spec = AttentionSpec(block="outside_blocks:Reduced", reduction=8, options=options)
    block: Any = attend_with(spec, (2, 3))("standard", 32, stage=3)
    assert block.conv.out_channels == hidden


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(("reduction", "hidden"), [(None, 8), (16, 2), (8, 4)])
def test_a_default_reduction_of_a_class_from_outside_is_kept_unless_one_is_given(reduction: Any, hidden: int) -> None:
    spec = AttentionSpec(block="outside_blocks:Own", reduction=reduction)
    block: Any = attend_with(spec, (2, 3))("standard", 32, stage=3)
    assert block.conv.out_channels == hidden


@pytest.mark.usefixtures("outside")
def test_a_class_that_wants_a_reduction_gets_the_paper_s() -> None:
    block: Any = attend_with(AttentionSpec(block="outside_blocks:Reduced"), (2,))("standard", 32, stage=2)
    assert block.conv.out_channels == 2


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"block": "ec"}, ["'ec' is unknown", "did you mean eca", "package.module:Class"]),
        ({"block": "outside_blocks.py:Scale"}, ["names a file", "did you mean outside_blocks:Scale?"]),
        ({"block": "there/mine.py:Scale"}, ["no import string", "did you mean there.mine:Scale?"]),
        ({"block": "outside_blocks.Scale"}, ["is unknown", "did you mean outside_blocks:Scale?"]),
        ({"block": "nowhere.at_all:X"}, ["there is no module nowhere", "install"]),
        ({"block": "outside_blocks:Scal"}, ["has no Scal", "did you mean Scale"]),
        ({"block": "broken_blocks:X"}, ["KeyError", "half"]),
        ({"block": "no import:string"}, ["is no import string", "package.module:Name"]),
        ({"block": "outside_blocks:number"}, ["is a int, not a class"]),
        ({"block": "outside_blocks:nothing"}, ["NoneType, not an nn.Module"]),
        ({"block": "outside_blocks:Refuses"}, ["ValueError (no)"]),
        ({"block": "outside_blocks:Shrinks"}, ["2x32x16x16 into 2x32x8x16", "same shape"]),
        ({"block": "outside_blocks:Raises"}, ["RuntimeError (not today)"]),
        ({"block": "outside_blocks:Scale", "options": (("k", 3),)}, ["'k'", "its options are factor"]),
        ({"block": "outside_blocks:Scale", "squeeze": "max"}, ["no choice of squeeze", "leave out --squeeze"]),
        ({"block": "eca", "excitation": "tanh"}, ["eca has no choice of excitation"]),
        ({"block": "eca", "options": (("kernel", 4),)}, ["kernel 4 is not odd"]),
        ({"block": "cbam", "options": (("kernel", 2),)}, ["kernel 2 is not odd"]),
        ({"block": "ge", "options": (("extent", 3),)}, ["extent 3 is no power of two"]),
        ({"block": "ge", "options": (("learned", True),)}, ["learned gathering needs an extent"]),
        ({"block": "se", "options": (("k", 3),)}, ["se has no option 'k'"]),
        ({"block": "ge", "options": (("extent", 0),)}, ["ge's extent 0", "a power of two from 2 to 64"]),
        ({"block": "eca", "options": (("kernel", 0),)}, ["eca's kernel 0", "an odd integer from 1 to 63"]),
        ({"block": "eca", "options": (("kernel", True),)}, ["eca's kernel True is not an integer"]),
        ({"block": "ge", "options": (("learned", 1),)}, ["ge's learned 1 is not true or false"]),
        ({"block": "srm", "options": (("eps", float("nan")),)}, ["srm's eps nan is not between"]),
        ({"block": "constant", "options": (("k", 3),)}, ["constant has no option 'k'"]),
        ({"block": "outside_blocks:Scale", "reduction": 8}, ["takes no reduction", "its options are factor"]),
        ({"block": "cbam", "reduction": 64}, ["reduction 64", "32 channels"]),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(spec: dict[str, Any], said: list[str]) -> None:
    raises = spec["block"].endswith((":Raises", ":Refuses"))  # code of hers: a row of its own, exit 5
    with pytest.raises(MeasurementError if raises else UsageError) as caught:
        attend_with(AttentionSpec(**spec), (2,))("standard", 32, stage=2)
    assert all(words in str(caught.value) for words in said), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("outside")
def test_a_block_that_raises_is_a_row_of_its_own_and_the_others_go_on(run: Run) -> None:
    typed = ("--attention", "eca,outside_blocks:Raises,outside_blocks:Refuses", "--format", "json")
    ended = run("ablate", "-m", "seresnet20_cifar", *typed)
    rows = json.loads(ended.out)["rows"]
    assert ended.code == 5
    assert [row["params"] is not None for row in rows] == [True, True, False, False]
    assert "RuntimeError (not today)" in rows[2]["missing"]["count"]
