"""The SE block against the paper's equations written out, its control, and the rule that hands blocks out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from senet_bench.core.specs import AttentionSpec, Excitation, SqueezeName
from senet_bench.errors import UsageError
from senet_bench.models import attention_blocks, initialise
from senet_bench.models.attention import ConstantGate, SqueezeExcitation, attend_with

Array = npt.NDArray[np.float64]
GATES: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
}
STAGES = (2, 3, 4, 5)


def block_of(spec: AttentionSpec, channels: int = 12, reduction: int = 3) -> SqueezeExcitation:
    torch.manual_seed(0)
    block = SqueezeExcitation(channels, spec, reduction).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block


def weights(layer: nn.Module) -> tuple[Array, Array]:
    """W of shape (outputs, inputs) and the bias, zeros where there is none."""
    state = layer.state_dict()
    weight: Array = state["weight"].flatten(1).numpy()
    return weight, state["bias"].numpy() if "bias" in state else np.zeros(len(weight))


@pytest.mark.parametrize(
    "value", [float("inf"), -float("inf"), float("nan"), 1e101, pytest.param(-(10**101), id="an integer")]
)
def test_a_number_that_cannot_be_stored_is_refused_of_an_option(value: float) -> None:
    with pytest.raises(UsageError, match=r"mine:Gate's scale.* is not between -1e"):
        AttentionSpec(block="mine:Gate", options=(("scale", value),))
    AttentionSpec(block="mine:Gate", options=(("scale", 1e99), ("kind", "inf"), ("wide", True)))
    with pytest.raises(UsageError, match="reduction is beyond"):
        AttentionSpec(reduction=10**101)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("excitation", get_args(Excitation))
@pytest.mark.parametrize("squeeze", get_args(SqueezeName))
def test_the_block_computes_equations_2_to_4(squeeze: SqueezeName, excitation: Excitation, bias: bool) -> None:
    block = block_of(AttentionSpec(squeeze=squeeze, excitation=excitation, bias=bias))
    x = np.random.default_rng(0).normal(size=(2, 12, 5, 4))
    (w1, b1), (w2, b2) = weights(block.fc1), weights(block.fc2)
    expected = np.empty_like(x)
    for image in range(2):
        u = x[image]
        for i in range(5):
            for j in range(4):
                z = {"avg": u.mean(axis=(1, 2)), "max": u.max(axis=(1, 2)), "none": u[:, i, j]}[squeeze]  # equation 2
                s = GATES[excitation](w2 @ np.maximum(w1 @ z + b1, 0) + b2)  # equation 3
                expected[image, :, i, j] = s * u[:, i, j]  # equation 4
    np.testing.assert_allclose(block(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_without_bias_the_block_has_two_weights_only() -> None:
    assert [name for name, _ in block_of(AttentionSpec(bias=False)).named_parameters()] == ["fc1.weight", "fc2.weight"]


def test_a_reduction_that_does_not_divide_rounds_the_hidden_width_down() -> None:
    assert weights(block_of(AttentionSpec(), channels=12, reduction=5).fc1)[0].shape == (2, 12)


def test_the_constant_gate_halves_the_map_and_has_no_parameters() -> None:
    gate = ConstantGate(8, AttentionSpec(), 16)
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(gate(x), 0.5 * x)
    assert not list(gate.parameters())


def test_initialisation_is_he_and_biases_start_at_zero() -> None:
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(64, 128, 3), nn.Linear(256, 512)
    initialise(nn.Sequential(conv, linear))
    assert conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert linear.weight.std().item() == pytest.approx((1 / 256) ** 0.5, rel=0.02)
    assert abs(conv.weight.mean().item()) < 1e-3
    assert conv.bias is not None
    assert not conv.bias.any()
    assert not linear.bias.any()


@pytest.mark.parametrize("place", ["pre", "standard", "identity", "post", "3x3"])
def test_a_block_is_handed_out_at_its_place_only(place: str) -> None:
    spec = AttentionSpec(placement="3x3") if place == "3x3" else AttentionSpec(integration=place)  # type: ignore[arg-type]
    attend = attend_with(spec, STAGES)
    handed = {p: attend(p, 32, stage=2) for p in ("pre", "standard", "identity", "post", "3x3")}
    assert [p for p, module in handed.items() if not isinstance(module, nn.Identity)] == [place]


def test_stages_and_reductions_are_those_of_the_spec() -> None:
    attend = attend_with(AttentionSpec(stages=(3, 5), reduction=(2, 4, 8, 16)), STAGES)
    handed = nn.ModuleDict({str(stage): attend("standard", 64, stage=stage) for stage in STAGES})
    assert list(attention_blocks(handed)) == ["3", "5"]
    assert weights(handed["3"].fc1)[0].shape == (16, 64)  # type: ignore[arg-type]
    assert weights(handed["5"].fc1)[0].shape == (4, 64)  # type: ignore[arg-type]


def test_no_spec_means_no_block_anywhere() -> None:
    assert isinstance(attend_with(None, STAGES)("standard", 64, stage=2), nn.Identity)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stages": (2, 9)}, ["stage 9", "2, 3, 4, 5"]),
        ({"stages": ()}, ["2, 3, 4, 5"]),
        ({"reduction": (4, 8)}, ["2 reductions", "4 stages"]),
        ({"block": "nosuch"}, ["nosuch", "constant"]),
    ],
)
def test_what_does_not_exist_is_said_in_one_line(change: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        attend_with(replace(AttentionSpec(), **change), STAGES)
    assert all(words in str(caught.value) for words in said)
    assert "\n" not in str(caught.value)


def test_a_reduction_larger_than_the_channels_names_both() -> None:
    attend = attend_with(AttentionSpec(reduction=32), STAGES)
    with pytest.raises(UsageError, match=r"reduction 32 .* 16 channels"):
        attend("standard", 16, stage=2)


@pytest.mark.parametrize("reduction", [0, -4, 2.5, True, "16"])
def test_a_reduction_that_is_no_positive_integer_is_refused(reduction: Any) -> None:
    with pytest.raises(UsageError, match="positive integer"):
        AttentionSpec(reduction=reduction)


def test_placement_3x3_and_another_integration_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        AttentionSpec(placement="3x3", integration="pre")


@pytest.mark.parametrize(
    ("block", "options", "channels", "r", "hidden"),
    [
        ("se", (), 64, 16, 4),
        ("se", (("min_width", 8),), 64, 16, 8),
        ("se", (("min_width", 1),), 8, 16, 1),  # max(1, C // r)
        ("se", (("divisor", 8),), 100, 4, 24),
        ("se", (("min_width", 17), ("divisor", 16)), 64, 16, 32),
        ("se_hard", (), 72, 4, 24),
        ("se_hard", (("divisor", 1),), 72, 4, 18),
        ("se_silu", (("min_width", 6),), 16, 4, 6),
    ],
)
def test_the_hidden_width_of_se_has_a_least_value_and_a_divisor(
    block: str, options: tuple[tuple[str, int], ...], channels: int, r: int, hidden: int
) -> None:
    attend = attend_with(AttentionSpec(block=block, reduction=r, options=options), (2,))
    assert attend("standard", channels, stage=2).fc1.out_features == hidden  # type: ignore[union-attr]
