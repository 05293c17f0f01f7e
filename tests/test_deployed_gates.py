"""Where the deploy form puts its gates: behind strided depthwise convolutions, and in ONNX Runtime's own layout."""

from __future__ import annotations

import operator
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from senet_bench.core.specs import AttentionSpec, Excitation
from senet_bench.deployment import deploy, transformed
from senet_bench.deployment.blocked import keep_blocked
from senet_bench.deployment.graph import kind, submodule, traced
from senet_bench.models.attention import maker
from tests.test_deployment import assert_same, lived_in

CHANNELS = 32  # two blocks of the widest


def se(gate: Excitation = "sigmoid") -> nn.Module:
    return maker("se")(CHANNELS, AttentionSpec(reduction=2, excitation=gate), 2)


class Residual(nn.Module):
    """A sum of a map and its gated convolution."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.conv, self.attention = nn.Conv2d(CHANNELS, CHANNELS, 1), attention

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.attention(self.conv(x)))


class Pooled(nn.Module):
    """The classifier of a trunk."""

    def __init__(self, trunk: nn.Module, channels: int = CHANNELS) -> None:
        super().__init__()
        self.trunk, self.classifier = trunk, nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.trunk(x).mean((2, 3)))  # type: ignore[no-any-return]


def depthwise(stride: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, stride, 1, groups=CHANNELS, bias=bias)


def units(attention: nn.Module, stride: int = 2, *, bias: bool = True) -> nn.Module:
    """Convolution, gate, depthwise convolution, a residual with a gate that can be early, and a strided end."""
    stem, end = nn.Conv2d(3, CHANNELS, 3, 1, 1), nn.Conv2d(CHANNELS, CHANNELS, 1, 2)
    gated = (nn.ReLU(), attention, depthwise(stride, bias=bias), nn.ReLU())
    return Pooled(nn.Sequential(stem, *gated, Residual(se("tanh")), Residual(nn.Identity()), end))


def plain_form(network: nn.Module) -> fx.GraphModule:
    graph = traced(network)
    assert graph is not None
    return transformed(graph)


def gated_before(form: fx.GraphModule) -> list[nn.Conv2d]:
    """The depthwise convolutions that read a product."""
    convs = [(submodule(form, n), n) for n in form.graph.nodes if kind(form, n) is nn.Conv2d]
    return [conv for conv, n in convs if conv.groups > 1 and kind(form, n.args[0]) is operator.mul]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("stride", "waits"), [(2, True), (1, False)])
def test_a_gate_waits_behind_a_strided_depthwise_convolution(stride: int, waits: bool, bias: bool) -> None:
    torch.manual_seed(0)
    network = lived_in(units(se(), stride, bias=bias), torch.randn(2, 3, 16, 16))
    assert len(gated_before(plain_form(network))) == (not waits)
    for images in (torch.randn(2, 3, 16, 16), torch.randn(1, 3, 17, 11)):
        for runtime in ("torch", "eager"):
            assert_same(network, deploy(network, runtime), images)


def test_a_gated_map_that_another_node_reads_is_gated_where_it_was() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.attention, self.down = nn.Conv2d(3, CHANNELS, 1), se(), depthwise(2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.attention(torch.relu(self.stem(x)))
            return self.down(y).mean((2, 3)) + y.amax((2, 3))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    network, x = lived_in(Both(), torch.randn(2, 3, 9, 9)), torch.randn(2, 3, 9, 9)
    assert len(gated_before(plain_form(network))) == 1
    assert_same(network, deploy(network), x)


@pytest.mark.parametrize("gate", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("side", [16, 13])
def test_the_form_for_onnx_runtime_gives_the_same(gate: Excitation, side: int) -> None:
    torch.manual_seed(0)
    network, x = lived_in(units(se(gate)), torch.randn(2, 3, side, side)), torch.randn(3, 3, side, side)
    plain = plain_form(network)
    before = str(plain.graph)
    assert_same(network, keep_blocked(plain, (3, side, side)), x)
    assert str(plain.graph) == before  # it made a copy


def reorders(path: Path) -> int:
    """How often ONNX Runtime takes a map out of its blocks, or puts it into them."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    options: Any = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path.with_suffix(".optimised")), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    return kinds["ReorderInput"] + kinds["ReorderOutput"]


def test_with_gates_no_map_leaves_the_layout_of_onnx_runtimes_convolutions(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = {}
    for name, attention in (("se", se()), ("without", nn.Identity())):
        torch.manual_seed(0)
        for runtime in ("onnxruntime", "eager"):
            path = tmp_path / f"{name}_{runtime}.onnx"
            deploy(units(attention).eval(), runtime).save(path, (1, 3, 16, 16))  # type: ignore[operator]
            found[name, runtime] = reorders(path)
    assert found["se", "onnxruntime"] == found["without", "onnxruntime"] == 1  # before the classifier
    assert found["se", "eager"] > 4  # the plain operators, for whoever else reads the file


def test_maps_that_are_in_no_blocks_are_left_alone() -> None:
    grouped = nn.Sequential(nn.Conv2d(6, CHANNELS, 3, groups=2), nn.ReLU(), se())
    plain = plain_form(lived_in(Pooled(grouped), torch.randn(2, 6, 8, 8)))
    assert str(keep_blocked(plain, (6, 8, 8)).graph) == str(plain.graph)


def test_a_thousand_operators_between_two_convolutions_are_no_depth() -> None:
    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x + self.conv(x))

    units = (Unit() for _ in range(520))
    deep = plain_form(Pooled(nn.Sequential(nn.Conv2d(3, CHANNELS, 1), *units, se(), depthwise(1))).eval())
    graph = keep_blocked(deep, (3, 4, 4)).graph
    assert sum(node.target is nn.functional.interpolate for node in graph.nodes) == 1
