"""Attention in networks that are trained already: blocks that start as the identity, and are trained first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from senet_bench.core.blocks import BLOCKS
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import UsageError
from senet_bench.models.attention import attend_with, restart_identities
from senet_bench.train.start import as_identity
from senet_bench.train.weights import load_weights


def made(block: str, channels: int = 32, **switches: object) -> nn.Module:
    """A block as networks get it, that starts as the identity, its weights drawn before."""
    options = (("identity", True), *switches.pop("options", ()))  # type: ignore[misc]
    spec = AttentionSpec(block, options=options, **switches)  # type: ignore[arg-type]
    network = nn.ModuleList([attend_with(spec, (2,))("standard", channels, stage=2)])
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    restart_identities(network)
    return network[0]


class Scale(nn.Module):
    """A user's own block, which is no gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self.scale(x)
        return x + 3 * scaled


KINDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in BLOCKS),
    ("se", {"excitation": "relu"}),
    ("se", {"squeeze": "none"}),
    ("se", {"squeeze": "max", "bias": False}),
    ("ge", {"options": (("mlp", True), ("reduction", 4))}),
    ("ge", {"options": (("learned", True), ("extent", 4))}),
    ("constant", {"options": (("learned", True),)}),
    ("tests.test_finetuning:Scale", {}),
]


def test_every_block_can_start_as_the_identity_to_the_bit_and_learns_from_there() -> None:
    x = torch.randn(4, 32, 8, 8)
    for name, switches in KINDS:
        block = made(name, **switches)
        assert torch.equal(block.eval()(x), x), name
        assert torch.equal(block.train()(x), x), name
        if any(True for _ in block.parameters()):
            block(x).square().sum().backward()
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters()), name


def test_a_gate_that_is_never_one_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="tanh gate is never 1"):
        made("se", excitation="tanh")
    with pytest.raises(UsageError, match="needs its bias"):
        made("se", excitation="relu", bias=False)


TEN = (
    "resnet18", "resnext26ts", "mobilenetv2_050", "resnetv2_18", "densenet121", "regnetx_002",
    "convnext_atto", "mobileone_s0", "dla34", "tf_mobilenetv3_small_minimal_100",
)  # fmt: skip


@pytest.mark.parametrize("name", [TEN[0], *(pytest.param(name, marks=pytest.mark.slow) for name in TEN[1:])])
def test_attached_attention_leaves_the_function_of_trained_weights_as_it_was(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from senet_bench.models import outside

    spec = outside.resolve_outside(f"timm:{name}+attach")
    theirs = timm.create_model(name, pretrained=False, num_classes=7)
    for module in theirs.modules():  # as trained ones have them, so that nothing is zero by chance
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) / 10
            nn.init.uniform_(module.weight, 0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    spec = as_identity(spec, str(tmp_path / "weights.pth"))
    ours = load_weights(spec, str(tmp_path / "weights.pth"), classes=7)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, outputs = theirs.eval()(x), ours.network.eval()(x)
    assert len(ours.fresh) > 0
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
