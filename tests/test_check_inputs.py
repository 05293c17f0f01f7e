"""Networks that are no plain image classifiers: arguments, tokens, several inputs, 1-D and 3-D, pairs with inputs."""

import json

import pytest

from senet_bench.regression.facts import counted_facts, named_facts
from tests.conftest import Run
from tests.support.checks import Folder, folder

__all__ = ["folder"]

SOURCE = """
import torch
from torch import nn

class Wide(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)

    def forward(self, x):
        return self.stem(x).mean((2, 3))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens, mask=None):
        x = self.embed(tokens)
        x = x if mask is None else x * mask[..., None]
        return self.head(x.mean(1))

class Wave(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 5)

    def forward(self, x):
        return {"mean": self.conv(x).mean(2)}

class Video(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3)

    def forward(self, x, scale):
        return self.conv(x).mean((2, 3, 4)) * scale

def pair(width=4):
    return Wide(width), torch.ones(2, 3, 8, 8)

def named():
    return Words(), {"tokens": torch.tensor([[1, 2, 3]]), "mask": torch.ones(1, 3)}
"""
CONFIG = """
networks = [
  { name = "zoo:Wide", input_size = [3, 8, 8], arguments = { width = 32 } },
  { name = "zoo:Words", inputs = [
    { shape = [12], dtype = "int64", range = [0, 50] }, { shape = [12], name = "mask" },
  ] },
  { name = "zoo:Wave", inputs = [{ shape = [2, 40] }] },
  { name = "zoo:Video", inputs = [{ shape = [3, 4, 8, 8] }, { shape = [1], range = [0.5, 1.0] }] },
  "zoo:pair",
  { name = "zoo:named" },
]
metrics = ["params", "flops", "outputs", "state_dict", "operators", "memory"]
"""


@pytest.fixture
def zoo(folder: Folder) -> Folder:
    import sys

    (folder.path / "zoo.py").write_text(SOURCE)
    sys.modules.pop("zoo", None)
    folder.configure(CONFIG)
    return folder


def test_every_kind_of_input_is_recorded_and_checked(zoo: Folder, run: Run) -> None:
    recorded = run("baseline", "record")
    assert recorded.code == 0, recorded.err
    facts = json.loads(zoo.baseline.read_text())["networks"]
    assert facts["zoo:Wide"]["params"]["stem.weight"] == 32 * 27
    assert facts["zoo:Words"]["shapes"] == ["float32[1, 2]"]
    assert facts["zoo:Wave"]["shapes"] == ["mean: float32[1, 4]"]
    assert facts["zoo:Video"]["params"]["conv.weight"] == 4 * 81
    assert facts["zoo:pair"]["shapes"] == ["float32[2, 4]"]
    assert facts["zoo:named"]["shapes"] == ["float32[1, 2]"]
    assert {one["outputs"]["precision"] for one in facts.values()} == {"float64"}
    assert run("check").code == 0
    (zoo.path / "zoo.py").write_text(SOURCE.replace("x.mean(1)", "x.mean(1) * 1.01"))
    import sys

    sys.modules.pop("zoo")
    ended = run("check", "--format", "json")
    failing = {row["id"] for row in json.loads(ended.out)["rows"] if row["verdict"] == "fail"}
    assert {"zoo:Words/outputs", "zoo:named/outputs"} <= failing
    assert not [name for name in failing if "Wave" in name or "Wide" in name]


def test_arguments_are_those_of_a_catalog_network_too() -> None:
    narrow, usual = (
        counted_facts("seresnet20_cifar", (3, 32, 32), how) for how in ({"arguments": {"reduction": 4}}, None)
    )
    assert narrow.total > usual.total
    assert named_facts("seresnet20_cifar", (3, 32, 32)).shapes == ["float32[1, 10]"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('arguments = 3', "networks[0].arguments must be a table"),
        ('inputs = 3', "inputs must be a list of tables"),
        ('inputs = [{ dtype = "int64" }]', "networks[0].inputs[0].shape must be positive integers"),
        ('inputs = [{ shape = [3], dtype = "int63" }]', "did you mean int64?"),
        ('inputs = [{ shape = [3], range = [1, 1] }]', "networks[0].inputs[0].range must be two numbers"),
        ('inputs = [{ shape = [3] }], input_size = [3, 8, 8]', "has input_size and inputs"),
    ],
)  # fmt: skip
def test_mistakes_about_inputs_are_one_line(folder: Folder, run: Run, entry: str, message: str) -> None:
    folder.configure(f'networks = [{{ name = "zoo:Wide", {entry} }}]\n')
    ended = run("check")
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
