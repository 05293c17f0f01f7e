"""`--flops-of`: a user's formulas for what no counter knows, wherever networks are counted."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from senet_bench.bench.count import count
from senet_bench.breakdown.parts import trace_parts
from senet_bench.core.formulas import Formulas, formulas_at
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import BenchError, MeasurementError, UsageError
from senet_bench.models import build
from tests.conftest import Run

NETS = """
import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return self.conv(x).sort(2).values.sort(3).values.mean((2, 3))


class SimAM(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x):
        d = (self.pointwise(x) - x.mean((2, 3), keepdim=True)).square()
        return x * torch.sigmoid(d / (4 * d.mean((2, 3), keepdim=True)) + 0.5)


def elements(x, *rest, **named):
    return x[0] * x[1] * x[2] * x[3]


def half_of_result(x, dim, *rest, out_shape):
    assert dim in (2, 3)
    return elements(out_shape[0]) / 2


by_operator = {"sort": elements}
by_result = {"sort": half_of_result}
by_block = {"SimAM": lambda x, out_shape: 6 * elements(out_shape)}
within = {"add": elements, "div": elements, "pow": elements, "sub": elements}
typo = {"sort": lambda: 1}
raising = {"sort": lambda x, *rest: x["n"]}
exits = {"sort": lambda *rest: exit(0)}
fraction = {"sort": lambda *rest: 0.5}
endless = {"sort": lambda *rest: float("inf")}
text = {"sort": lambda *rest: "7"}
known = {"convolution": elements}
nothing = {}
number = 7
unnamed = {7: elements}
no_function = {"sort": 7}
"""
SIZE = (3, 8, 8)
MAPS = 8 * 8 * 8
"""Elements of the map that `Mixer` sums twice."""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "formulated.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("formulated", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    return importlib.import_module("formulated")


def test_a_formula_counts_what_was_named_as_uncounted(nets: Any) -> None:
    plain = count(nets.Mixer(), SIZE)
    assert (plain.uncounted, plain.by_formula, "formulas" in plain.by_kind()) == (("sort",), (), False)
    for name, amount in (("by_operator", 2 * MAPS), ("by_result", MAPS)):
        counts = count(nets.Mixer(), SIZE, formulas_at(f"formulated:{name}"))
        assert (counts.uncounted, counts.by_formula) == ((), (("sort", amount),))
        assert counts.macs == plain.macs + amount
        assert counts.by_kind()["formulas"] == amount


def test_inside_attention_a_formula_is_part_of_the_excitation(nets: Any) -> None:
    network = build("resnet20_cifar", attention=AttentionSpec(block="formulated:SimAM"), device="meta")
    size = (3, 32, 32)
    plain, bare = count(network, size), count(build("resnet20_cifar", device="meta"), size)
    maps = plain.se_scale
    assert plain.uncounted == ("add", "div", "pow", "sub")
    within = count(network, size, formulas_at("formulated:within"))
    assert within.se_excitation - plain.se_excitation == sum(amount for _, amount in within.by_formula) == 4 * maps
    whole = count(network, size, formulas_at("formulated:by_block"))  # in the place of the block's own convolution
    assert (whole.uncounted, whole.by_formula) == ((), (("SimAM", 6 * maps),))
    assert whole.macs - bare.macs == 7 * maps
    qualified = Formulas("here", {"formulated.SimAM": nets.by_block["SimAM"]})
    assert count(network, size, qualified).macs == whole.macs
    part = {key: trace_parts(network, size, formulas)[1] for key, formulas in (("own", qualified), ("none", None))}
    assert sum(block.operations("attention") for block in part["own"].values()) == 12 * maps
    assert part["none"] != part["own"]


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("typo", MeasurementError, "does not take ((1, 8, 8, 8), 2)"),
        ("raising", MeasurementError, "raises TypeError"),
        ("exits", MeasurementError, "raises SystemExit"),
        ("fraction", MeasurementError, "gives '0.5'; give a whole number from 0 to"),
        ("endless", MeasurementError, "gives 'inf'"),
        ("text", MeasurementError, "gives '7'"),
        ("known", UsageError, "'convolution', which is counted already"),
        ("nothing", UsageError, "is no mapping, or empty"),
        ("number", UsageError, "int is no mapping"),
        ("unnamed", UsageError, "'7' has no function"),
        ("no_function", UsageError, "'sort' has no function"),
        ("knwon", UsageError, "did you mean known"),
    ],
)
def test_what_a_formula_does_wrong_is_said_in_one_line(
    name: str, error: type[BenchError], said: str, nets: Any
) -> None:
    with pytest.raises(error) as raised:
        count(nets.Mixer(), SIZE, formulas_at(f"formulated:{name}"))
    assert said in str(raised.value)
    assert "formulated:" in str(raised.value)


def test_a_run_knows_that_formulas_were_used(nets: Any, run: Run) -> None:
    typed = ("compare", "formulated:Mixer", "--img-size", "8", "--no-latency", "--format", "json")
    document = json.loads(run(*typed, "--flops-of", "formulated:by_operator", "--verify").out)
    row = document["rows"][0]
    assert document["conditions"]["flops_of"] == "formulated:by_operator"
    assert (row["formulas"], row["uncounted"]) == ({"sort": 2 * MAPS}, [])
    assert row["flops_by_kind"]["formulas"] == 2 * MAPS
    bare = json.loads(run(*typed).out)
    assert "flops_of" not in bare["conditions"]
    assert row["flops"]["macs"] == bare["rows"][0]["flops"]["macs"] + 2 * MAPS
    shown = run(*typed[:-2], "--flops-of", "formulated:by_operator").out
    assert "counted by formulas of your own: sort 1,024" in " ".join(shown.split())
    refused = run(*typed, "--flops-of", "formulated:by_operator", "--counter", "fvcore")
    assert (refused.code, "leave out --counter fvcore" in refused.err) == (2, True)
    failed = run(*typed, "--flops-of", "formulated:raising")
    assert (failed.code, failed.err.count("formulated.py, line ")) == (5, 1)
    varied = run(
        "ablate", "-m", "seresnet20_cifar", "--attention", "formulated:SimAM", "--flops-of", "formulated:by_block",
        "--format", "json",
    )  # fmt: skip
    assert json.loads(varied.out)["rows"][1]["formulas"].keys() == {"SimAM"}


def test_check_judges_what_is_not_counted_and_takes_formulas(nets: Any, run: Run, tmp_path: Path) -> None:
    def configure(formulas: str = "") -> None:
        networks = 'networks = [{ name = "formulated:Mixer", input_size = [3, 8, 8] }]'
        (tmp_path / "senet-bench.toml").write_text(f'{formulas}\n{networks}\nmetrics = ["params", "flops"]\n')

    configure()
    assert run("baseline", "record").code == 0
    path = tmp_path / "results" / "baselines" / "portable.json"
    stored = json.loads(path.read_text())
    assert stored["networks"]["formulated:Mixer"]["uncounted"] == ["sort"]
    assert run("check").code == 0
    configure('flops_of = "formulated:by_operator"')
    ended = run("check", "--format", "json")
    row = next(row for row in json.loads(ended.out)["rows"] if row["metric"] == "flops")
    assert (ended.code, row["verdict"]) == (1, "fail")
    assert "sort is not among the uncounted any more" in row["reason"]
    accepted = run("baseline", "accept", "formulated:Mixer:flops", "--reason", "formulas")
    assert (accepted.code, run("check").code) == (0, 0)
    configure('flops_of = "formulated by_operator"')
    refused = run("check")
    assert (refused.code, "flops_of" in refused.err) == (2, True)
    configure()
    del stored["networks"]["formulated:Mixer"]["uncounted"]  # as an earlier version wrote it
    path.write_text(json.dumps(stored))
    older = run("check")
    assert (older.code, "not counted: sort" in " ".join(older.out.split())) == (0, True)
    assert "formulated:Mixer:flops" in run("baseline", "record").err


def test_a_module_with_a_formula_hides_what_is_inside() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor, *, times: int = 1) -> torch.Tensor:
            return self.conv(x) * times  # type: ignore[no-any-return]

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x, times=3)  # type: ignore[no-any-return]

    counts = count(Outer(), SIZE, Formulas("here", {"Inner": lambda x, times: 1000 * times}))
    assert (counts.conv, counts.formulas, counts.macs) == (0, 3000, 3000)
