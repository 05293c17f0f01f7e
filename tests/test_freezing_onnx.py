"""`freeze` of files of ONNX: gates found by pattern in graphs of several exporters, and folded in place."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from senet_bench.data.sets import digits_full
from senet_bench.deployment.engines import write_onnx
from senet_bench.models import attention_blocks, build
from tests.conftest import Run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")
DIGITS = ("--dataset", "digits-full", "--no-latency", "--format", "json")


class Small(nn.Module):
    """Two gates for digits: one before a convolution, one before a sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)
        self.body = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.shrink, self.grow = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        y = self.body(x * gate[:, :, None, None])
        second = self.grow(torch.relu(self.shrink(y.mean((2, 3), keepdim=True))))
        y = torch.relu(x + y * nn.functional.hardsigmoid(second))
        return self.head(y.mean((2, 3)))  # type: ignore[no-any-return]


def trained(steps: int = 150) -> Small:
    """A few steps on the digits: its gates vary, and it errs on few of them."""
    network, images = Small(), digits_full()
    x = (torch.from_numpy(images.training().images) / 255.0 - images.mean[0]) / images.std[0]  # type: ignore[union-attr]
    labels = torch.from_numpy(images.training().labels)
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for step in range(steps):
        rows = torch.arange(step * 100, (step + 1) * 100) % len(x)
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()


def outputs(path: Path, x: Tensor) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def with_constant_nodes(path: Path) -> None:
    """Rewrite a file as another exporter does: `Constant` nodes for initialisers, no names, a Softmax at the end."""
    model = onnx.load(str(path))
    held = list(model.graph.initializer)
    nodes = [onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in held]
    nodes += [copy.deepcopy(node) for node in model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    for node in nodes:
        node.name = ""
    last = model.graph.output[0].name
    nodes.append(onnx.helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    model.graph.node.extend(nodes)
    model.graph.output[0].name = "probabilities"
    onnx.save(model, str(path))


@pytest.mark.parametrize("style", ["torch", "constants"])
def test_a_file_is_frozen_by_its_own_errors_and_written_again(run: Run, tmp_path: Path, style: str) -> None:
    file, out = tmp_path / "net.onnx", tmp_path / "frozen.onnx"
    write_onnx(trained(), torch.zeros(1, 1, 8, 8), file)
    if style == "constants":
        with_constant_nodes(file)
    ended = run("freeze", str(file), *DIGITS, "--max-loss", "20", "--out", str(out))
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    summary = document["summary"]
    assert [row["outcome"] for row in document["rows"]] == ["frozen"] * 2
    assert [row["channels"] for row in document["rows"]] == [8, 8]
    assert summary["as_is"]["error"] < 0.35
    assert summary["frozen"]["blocks"] == 0
    assert summary["frozen"]["params"] == summary["as_is"]["params"] - 2 * (8 * 4 + 4 + 4 * 8 + 8)
    assert summary["as_is"]["macs"] - summary["frozen"]["macs"] == 2 * (8 * 4 * 2 + 8 * 64)
    kinds = {node.op_type for node in onnx.load(str(out)).graph.node}
    assert not kinds & {"Mul", "Sigmoid", "HardSigmoid"}
    images = digits_full()
    x = (torch.from_numpy(images.test.images) / 255.0 - images.mean[0]) / images.std[0]  # type: ignore[union-attr]
    answers = np.concatenate([outputs(out, x[row : row + 1]) for row in range(len(x))])
    wrong = (answers.argmax(1) != images.test.labels).mean()
    assert abs(wrong - summary["frozen"]["error"]) < 0.08  # by half of these images
    assert "damaged" not in run("report").err


@pytest.mark.parametrize("dynamic", [False, True])
def test_gates_that_are_constant_fold_to_equal_outputs(run: Run, tmp_path: Path, dynamic: bool) -> None:
    network, file, out = build("seresnet20_cifar", in_channels=1).eval(), tmp_path / "net.onnx", tmp_path / "out.onnx"
    for block in attention_blocks(network).values():
        fc2: Any = block.fc2
        nn.init.zeros_(fc2.weight)
    write_onnx(network, torch.zeros(7, 1, 8, 8), file, dynamic=dynamic)
    ended = run("freeze", str(file), *DIGITS, "--max-loss", "10", "--images", "20", "--out", str(out))
    document = json.loads(ended.out)
    assert {row["outcome"] for row in document["rows"]} == {"frozen"}
    assert document["summary"]["difference"]["value"] == 0
    x = torch.randn(7, 1, 8, 8)
    before, after = outputs(file, x), outputs(out, x)
    assert np.abs(before - after).max() <= 1e-5 * np.abs(before).max()


def test_a_gate_that_no_layer_takes_stays_a_product_by_a_constant(tmp_path: Path) -> None:
    from senet_bench.deployment.onnx_folding import fold
    from senet_bench.deployment.onnx_gates import gates_of, name_nodes

    class Ends(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
            return torch.tanh(x * gate)

    file = tmp_path / "net.onnx"
    write_onnx(Ends(), torch.zeros(1, 3, 4, 4), file)
    model = onnx.load(str(file))
    name_nodes(model)
    (gate,) = gates_of(model)
    constant = np.array([0.5, -1, 2], np.float32).reshape(1, 3, 1, 1)
    assert fold(model, {gate.product: constant}) == [gate.product]
    onnx.save(model, str(file))
    assert [node.op_type for node in model.graph.node] == ["Mul", "Tanh"]
    x = torch.randn(1, 3, 4, 4)
    assert np.allclose(outputs(file, x), torch.tanh(x * torch.from_numpy(constant)).numpy(), atol=1e-6)


def test_what_does_not_fit_is_one_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_text("no graph")
    for arguments, told in (((), "is no file of ONNX"), (("--device", "cuda"), "on the CPU here")):
        ended = run("freeze", str(file), *DIGITS, *arguments)
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
        assert told in ended.err
    for network, told in (
        (nn.Sequential(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)), "no gates"),
        (build("seresnet20_cifar"), "takes images of 3 channels"),
        (build("seresnet20_cifar", in_channels=1, classes=7), "gives 7 numbers"),
    ):
        channels = 3 if "channels" in told else 1
        write_onnx(network.eval(), torch.zeros(1, channels, 8, 8), file)
        ended = run("freeze", str(file), *DIGITS)
        assert (ended.code, told in ended.err) == (2, True), ended.err
