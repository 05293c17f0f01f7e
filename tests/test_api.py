"""From Python: the commands as functions, with classes and instances, and what is stored as tables and frames."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import senet_bench
from senet_bench.api.networks import Sizes
from senet_bench.api.parameters import flat
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.cli.functions import shown_result
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.show.tables import Column, Document, Table
from tests.support import stored


class Gate(nn.Module):
    """Scales every channel by a number that is learnt."""

    def __init__(self, channels: int, start: float = 1.0) -> None:
        super().__init__()
        self.channels, self.linear = channels, nn.Conv2d(channels, channels, 1, groups=channels)
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.linear(x.mean((2, 3), keepdim=True)).sigmoid() * self.start
        return x * gate


class Halve(nn.Module):
    """Halves what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_compare_returns_what_the_command_prints() -> None:
    result = senet_bench.compare("resnet20_cifar", no_latency=True, against="none")
    assert [row.model for row in result.rows] == ["resnet20_cifar", "seresnet20_cifar"]
    assert result.rows[1].params == 274_655
    assert list(result.to_pandas()["params"]) == [272_282, 274_655]
    assert "<h2>" in result._repr_html_()
    assert "274655" not in result._repr_html_()  # millions, as the command prints them
    assert "| SE-ResNet-20" in str(result)
    assert result.path is not None
    assert result.path.is_file()
    assert repr(result).startswith("<2 rows, stored in results/runs/")
    assert result.failures == ()


def test_blocks_and_networks_may_be_classes_or_instances() -> None:
    result = senet_bench.ablate("seresnet20_cifar", attention=["se", Gate, Halve()])
    assert [row.label for row in result.rows][2:] == [
        f"ResNet-20 + {Gate.__module__}:Gate",
        "ResNet-20 + given_in_python:Halve",
    ]
    assert AttentionSpec(block=Gate).block == f"{Gate.__module__}:Gate"  # type: ignore[arg-type]
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    alone = senet_bench.compare(network, alone=True, no_latency=True, img_size=32)
    assert (alone.rows[0].params, alone.rows[0].classes) == (269, 5)
    assert senet_bench.ablate("seresnet20_cifar", reduction=[4, 8]).rows[2].axes == {"reduction": 8}
    joined = senet_bench.ablate("seresnet20_cifar", reduction=[(8, 8, 4)], stages=[(2, 3), "all"], no_squeeze=False)
    assert [row.axes for row in joined.rows[1:]] == [
        {"reduction": (8, 8, 4), "stages": stages, "no-squeeze": False} for stages in ((2, 3), "all")
    ]


def test_networks_and_blocks_may_be_given_by_name_and_none_leaves_an_option_out() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    for what in (network, [network]):
        alone = senet_bench.compare(what=what, alone=True, no_latency=True, img_size=32, attention=None, threads=None)
        assert (alone.rows[0].params, alone.rows[0].classes) == (269, 5)
    about: dict[str, Any] = {"task": "count", "seeds": 2, "dry_run": True}
    planned = senet_bench.probe(Gate, **about), senet_bench.probe(blocks=[Gate], **about)
    assert str(planned[0]) == str(planned[1])
    with pytest.raises(UsageError, match=r"freeze given_in_python:Sequential\w* needs --weights"):
        senet_bench.freeze(model=network)
    with pytest.raises(TypeError, match=r"evaluate\(\) needs model, weights"):
        senet_bench.evaluate(model=None)


def test_an_axis_that_is_true_takes_the_papers_values_attention_too() -> None:
    settings = [row.axes for row in senet_bench.ablate("seresnet20_cifar", attention=True).rows[1:]]
    assert {"attention": "se"} in settings
    assert {"attention": "eca"} in settings


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: senet_bench.ablate("resnet18", "resnet50"), r"ablate\(\) takes one model, and options by name"),
        (lambda: senet_bench.profile("seresnet50", 8), r"profile\(\) takes one model"),
        (lambda: senet_bench.compare("resnet18", what=["resnet50"]), r"compare\(\) is given what twice, by name too"),
        (lambda: senet_bench.train("resnet18", model="resnet50"), r"train\(\) is given model twice"),
        (lambda: senet_bench.check("resnet18"), r"check\(\) takes options by name alone"),
    ],
)
def test_what_is_given_beside_the_subject_or_twice_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_train_and_evaluate_return_what_the_commands_store(tmp_path: Path) -> None:
    weights = tmp_path / "Kept.safetensors"
    trained = senet_bench.train("resnet20_cifar", dataset="digits", epochs=1, out=weights)
    assert [row.epoch for row in trained.rows] == [1]
    assert trained.summary.weights == str(weights)
    tested = senet_bench.evaluate("resnet20_cifar", weights=weights, dataset="digits")
    assert tested.rows[0].top1_err == trained.summary.top1_err
    assert tested.rows[0].images == 1697
    assert list(tested.to_pandas()["top1_err"]) == [trained.summary.top1_err]
    with pytest.raises(TypeError, match=r"evaluate\(\) needs weights"):
        senet_bench.evaluate("resnet20_cifar")
    with pytest.raises(UsageError, match="1 networks and 2 weights given"):
        senet_bench.evaluate("resnet20_cifar", weights=[weights, weights], dataset="digits")


def test_errors_are_those_of_the_command_line() -> None:
    with pytest.raises(UsageError, match="unknown model 'resnet51'"):
        senet_bench.compare("resnet51", no_latency=True)
    with pytest.raises(TypeError, match=r"compare\(\) has no option 'colour'; its options: "):
        senet_bench.compare("resnet18", colour=3)
    with pytest.raises(UsageError, match="no runs are stored under results"):
        senet_bench.load("results")


def test_help_explains_options_units_and_errors() -> None:
    told = inspect.getdoc(senet_bench.compare) or ""
    assert "dataset: " in told
    assert "errors as fractions with 95 % intervals" in told
    assert "UsageError" in told
    names = inspect.signature(senet_bench.ablate).parameters
    assert {"model", "reduction", "attention", "dataset", "seeds", "against", "results"} <= names.keys()
    assert {"quiet", "format"}.isdisjoint(names)
    assert {"build", "deploy", "load"} <= set(dir(senet_bench))


def test_load_joins_what_all_runs_hold(tmp_path: Path) -> None:
    stored.store(tmp_path / "results", stored.ablation(), "20261120T100000Z-ablate-1")
    stored.store(tmp_path / "results", stored.ablation("bbbbbbbbbbbb"), "20261120T100001Z-ablate-2")
    held = senet_bench.load()
    assert [len(errors.rows) for errors in held.errors] == [5]
    assert [timed.machine for timed in held.timings] == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    frame = held.to_pandas()
    assert len(frame) == 5
    assert frame["accuracy_top1_err"].notna().all()
    assert "Top-1 error on digits" in held._repr_html_()
    assert repr(held) == "<5 networks, 1 protocols of errors, 2 of times>"


def test_importing_the_top_loads_no_torch() -> None:
    code = "import sys, senet_bench; dir(senet_bench); sys.exit('torch' in sys.modules or 'typer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "from senet_bench import build; print(sum(p.numel() for p in build('resnet20_cifar').parameters()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "272282\n"


def test_the_command_line_shows_what_a_function_returns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = []

    def count(sizes: Sizes = Sizes(), results: Path = tmp_path, watch: Watch = UNWATCHED) -> Result:  # noqa: B008
        """Count."""
        asked.append((sizes.img_size, results, watch.follow(finished())))
        table = Table("Sum", (Column("what"),), (("3",),))
        return Result((table,), (), Document({}, (table,), (table,), ()), None, ("one crashed", "another did"))

    def finished() -> Steps[int]:
        yield Progress("counting", 0, 1)
        return 7

    command = flat(shown_result(count))
    assert command.__name__ == "count"
    assert {"img_size", "format", "results", "quiet"} <= inspect.signature(command).parameters.keys()
    values = {name: option.default for name, option in inspect.signature(command).parameters.items()}
    with pytest.raises(MeasurementError, match="not measured: one crashed, and 1 more"):
        command(**values | {"img_size": 32, "results": tmp_path / "there"})
    assert asked == [(32, tmp_path / "there", 7)]
    assert "Sum" in capsys.readouterr().out


def test_rows_are_typed_where_an_overhead_was_asked_for_and_its_verdict_stands_beside_them() -> None:
    result = senet_bench.ablate("seresnet20_cifar", reduction=[2, 8], budget_flops="+5 %")
    assert [row.axes for row in result.rows[1:]] == [{"reduction": 2}, {"reduction": 8}]
    (verdict,) = result.fits
    assert [one["place"] for one in verdict["candidates"]] == ["inside"] * 3
    assert senet_bench.compare("resnet20_cifar", no_latency=True).fits == ()


def test_a_dry_run_is_a_table_too() -> None:
    result = senet_bench.ablate("seresnet20_cifar", reduction=[4, 8], dataset="digits", dry_run=True)
    assert result.path is None
    assert "trial" in str(result)


def test_report_probe_check_and_freeze_are_functions_too(tmp_path: Path) -> None:
    stored.store(tmp_path / "results", stored.ablation(), "20261120T100000Z-ablate-0")
    stored.store(tmp_path / "other", stored.ablation("bbbbbbbbbbbb"), "20261120T100000Z-ablate-0")
    whole = senet_bench.report("results")
    assert whole.written[-1] == Path("results/index.html")
    assert whole.left_out == ()
    beside = senet_bench.report("results", tmp_path / "other")
    assert beside.written == ()
    assert [row["title"] for row in beside.rows][-2:] == ["Parameters", "Multiply-adds"]
    assert len(beside.to_pandas()) > len(beside.rows)
    assert senet_bench.report(["results", tmp_path / "other"]).tables == beside.tables
    with pytest.raises(UsageError, match="by: 'day' is none of machine, torch"):
        senet_bench.report("results", by="day")
    planned = senet_bench.probe(Gate, "se", task="count", seeds=2, dry_run=True)
    assert "<table>" in planned._repr_html_()
    with pytest.raises(UsageError, match="cannot be read"):
        senet_bench.check(config="nowhere.toml")
    with pytest.raises(UsageError, match="freeze seresnet20_cifar needs --weights"):
        senet_bench.freeze("seresnet20_cifar")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"results": 5}, "results 5 is no path"),
        ({"threads": 0}, "threads 0 is not between 1 and 1024"),
        ({"threads": "x"}, "threads 'x' is no whole number"),
        ({"seed": True}, "seed True is no whole number"),
        ({"img_size": 1e9}, "img_size 1000000000.0 is no whole number"),
        ({"no_latency": 3}, "no_latency 3 is no truth value"),
        ({"budget": "x"}, "budget: 'x' is no number"),
    ],
)
def test_values_have_the_kinds_and_bounds_of_the_command_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        senet_bench.compare("seresnet20_cifar", **options)
