"""Gates that are constants fold into the layers around them: the same outputs without the blocks, for every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.core import catalog
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import UsageError
from senet_bench.models import attention_blocks, build, build_spec, folding
from senet_bench.models.attach import positions
from senet_bench.models.attention import GATES
from senet_bench.models.folding import folded, without
from senet_bench.models.gates import gate_blocks, gate_stages
from senet_bench.models.graph import difference

SAME = 1e-6
PLACES: tuple[dict[str, Any], ...] = tuple({"integration": name} for name in ("standard", "pre", "post", "identity"))
THREE: dict[str, Any] = {"placement": "3x3"}
SMALL = 64


def with_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in double precision and evaluation, its BatchNorms with statistics and weights of their own."""
    torch.manual_seed(seed)
    for module in network.double().eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network


def made_constant(network: nn.Module) -> dict[str, Tensor]:
    """Let the gates of every SE block depend on its last bias alone, and return them."""
    gates = {}
    for name, block in attention_blocks(network).items():
        fc2: Any = block.fc2
        nn.init.zeros_(fc2.weight)
        nn.init.normal_(fc2.bias)
        gates[name] = GATES[str(block.gate_kind)](fc2.bias.detach())
    return gates


def check_folds(name: str, change: dict[str, Any], side: int) -> None:
    row = catalog.resolve(name)
    assert row.attention is not None
    spec = replace(row, attention=replace(row.attention, **change))
    size = (row.input_size[0], side, side)
    network = with_statistics(build_spec(spec, 10))
    gates = made_constant(network)
    image = torch.randn(2, *size, dtype=torch.float64)
    every_other = dict(list(gates.items())[1::2])
    for some in (gates, every_other):
        plain = folded(network, some, size)
        assert attention_blocks(plain).keys() == gates.keys() - some.keys()
        assert difference(network, plain, image) < SAME, (name, change, len(some))


@pytest.mark.parametrize("change", PLACES, ids=lambda change: change["integration"])
def test_constant_gates_fold_at_every_place_of_a_residual_unit(change: dict[str, Any]) -> None:
    check_folds("seresnet20_cifar", change, 32)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "sebninception"])
def test_constant_gates_fold_in_networks_that_have_one_place(name: str) -> None:
    check_folds(name, {}, SMALL)


def test_a_gate_that_may_be_negative_folds() -> None:
    check_folds("seresnet20_cifar", {"excitation": "tanh"}, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "seresnet18",
        "seresnext50_32x4d",
        "seshufflenet_v1_g3",
        "semobilenet_v1",
        "semobilenet_v2",
        "efficientnet_b0",
        "seresnet164_cifar",
        "sewrn16_8_cifar",
        "seshakeshake26_2x96d_cifar",
        "seshakeeven29_2x4x64d_cifar",
        "seinception_resnet_v2",
        "sevgg11_bn",
    ],
)
def test_constant_gates_fold_in_every_other_family(name: str) -> None:
    one_place = any(part in name for part in ("vgg", "mobilenet", "efficient"))
    three = name in ("seresnext50_32x4d", "seresnet164_cifar", "seshufflenet_v1_g3", "seshakeeven29_2x4x64d_cifar")
    places = ({},) if one_place else (*PLACES, *([THREE] * three))
    for change in places:
        check_folds(name, change, 32 if "cifar" in name else 96 if "inception" in name else SMALL)


def test_what_cannot_be_folded_says_so() -> None:
    """A gate of 0 after a sum: its inverse would be needed where the skip joins the next branch."""
    spec = replace(catalog.resolve("seresnet20_cifar"), attention=AttentionSpec(integration="post"))
    network = with_statistics(build_spec(spec))
    name = next(iter(gates := made_constant(network)))
    gate = gates[name].clone()
    gate[0] = 0
    with pytest.raises(UsageError, match="a gate cannot pass add"):
        folded(network, {name: gate}, (3, 32, 32))
    with pytest.raises(UsageError, match="has no block nowhere"):
        without(network, ["nowhere"])


def test_the_network_that_is_folded_stays_as_it_is() -> None:
    network = build("seresnet20_cifar")
    network.get_submodule("stages.0").eval()  # a frozen part
    widths: dict[str, Any] = {name: block.fc2 for name, block in attention_blocks(network).items()}
    channels = {name: layer.out_features for name, layer in widths.items()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gates = {name: torch.full((unit,), 0.5) for name, unit in channels.items()}
    plain = folded(network, gates, (3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [one.training for one in (network, *network.get_submodule("stages").children())] == [True, False, True, True]
    assert [one.training for one in (plain, *plain.get_submodule("stages").children())] == [True, False, True, True]
    assert plain.state_dict().keys() == build("resnet20_cifar").state_dict().keys()


@pytest.mark.parametrize(
    ("library", "name", "count", "first"),
    [
        ("timm", "mobilenetv3_small_050", 9, "blocks.0.0.se"),
        pytest.param("timm", "regnety_002", 13, "s1.b1.se", marks=pytest.mark.slow),
        pytest.param("timm", "seresnet50", 16, "layer1.0.se", marks=pytest.mark.slow),
        pytest.param("timm", "mobilenetv3_large_100", 8, "blocks.2.0.se", marks=pytest.mark.slow),
        pytest.param("torchvision", "mobilenet_v3_small", 9, "features.1.block.1", marks=pytest.mark.slow),
        pytest.param("torchvision", "efficientnet_b0", 16, "features.1.0.block.1", marks=pytest.mark.slow),
    ],
)
def test_gates_of_other_libraries_are_recognised_by_what_they_do_and_fold(
    library: str, name: str, count: int, first: str
) -> None:
    module = pytest.importorskip("timm" if library == "timm" else "torchvision.models")
    make = module.create_model(name) if library == "timm" else getattr(module, name)(weights=None)
    network, size = with_statistics(make), (3, SMALL, SMALL)
    blocks = gate_blocks(network, size)
    stages = gate_stages(network, size)
    assert (len(blocks), next(iter(blocks))) == (count, first)
    assert list(stages) == list(blocks)
    assert set(stages.values()) <= {1, 2, 3, 4, 5}
    image, held = torch.randn(2, *size, dtype=torch.float64), dict[str, Tensor]()

    def hold(block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        channels = output.shape[1]
        held[names[block]] = gate = torch.linspace(0.3, 0.9, channels, dtype=torch.float64)
        return inputs[0] * gate[:, None, None]

    names = {block: name for name, block in blocks.items()}
    hooks = [block.register_forward_hook(hold) for block in blocks.values()]
    wanted = network(image)
    for hook in hooks:
        hook.remove()
    apart = (folded(network, held, size)(image) - wanted).abs().max() / wanted.abs().max()
    assert float(apart.detach()) < SAME


def test_gates_are_recognised_in_images_so_small_that_maps_shrink_to_one_place() -> None:
    network = pytest.importorskip("timm").create_model("mobilenetv3_small_050")
    large, small = (3, SMALL, SMALL), (3, 8, 8)
    assert gate_stages(network, small) == gate_stages(network, large)
    replaced = [position.name for position in positions(network, small, replaces=True)]
    assert replaced == [position.name for position in positions(network, large, replaces=True)]
    with pytest.raises(UsageError, match="attention of its own at 9 places"):
        positions(network, small)


def test_a_network_without_gates_has_none() -> None:
    assert gate_blocks(build("resnet20_cifar"), (3, 32, 32)) == {}


class Unit(nn.Module):
    """A convolution, a gate and an operation before the next convolution."""

    def __init__(self, operation: Callable[[Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Conv2d(channels, 5, 1)
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.operation(self.gate(self.first(x))))
        return logits


GATE = torch.tensor([0.2, 0.9, 0.4, 0.7], dtype=torch.float64)
OPERATIONS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "a square": (4, lambda y: y * y),
    "a number over it": (4, lambda y: 2 / y),
    "it over a number": (4, lambda y: y / 2),
    "more channels": (8, lambda y: F.pad(y, (0, 0, 0, 0, 2, 2))),
    "more places": (4, lambda y: F.pad(y, (1, 1, 1, 1))),
    "twice itself": (4, lambda y: y + y),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_gate_passes_what_is_linear_and_is_settled_before_what_is_not(name: str) -> None:
    torch.manual_seed(0)
    channels, operation = OPERATIONS[name]
    network, image = Unit(operation, channels).double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    wanted = network.last(operation(network.first(image) * GATE[:, None, None]))
    plain = folded(network, {"gate": GATE}, (3, 8, 8))
    torch.testing.assert_close(plain(image), wanted)


@pytest.mark.parametrize(("channels", "join"), [(4, lambda y: y + y), (8, lambda y: torch.cat([y, y], 1))])
def test_a_layer_that_one_operation_reads_twice_is_not_scaled_twice(
    channels: int, join: Callable[[Tensor], Tensor]
) -> None:
    with pytest.raises(UsageError, match="cannot pass square"):
        folded(Unit(lambda y: join(y).square(), channels).double(), {"gate": GATE}, (3, 8, 8))


def test_what_folds_into_another_function_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "LINEAR", folding.LINEAR | {"exp"})
    with pytest.raises(UsageError, match="computes something else"):
        folded(Unit(torch.exp).double(), {"gate": GATE}, (3, 8, 8))
