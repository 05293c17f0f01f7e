"""The check's table: what it means, and one line that names the key for every mistake."""

import tomllib
from datetime import date
from pathlib import Path

import pytest

from senet_bench.errors import UsageError
from senet_bench.regression.config import Config
from senet_bench.regression.configfile import load_config, parse
from senet_bench.regression.limits import Limit, threshold

WHOLE = """
networks = ["SE-ResNet-50", "resnet50", { name = "pkg.nets:Small", input_size = [3, 32, 32] }]
metrics = ["params", "latency", "accuracy"]
launches = 7
[gate]
alpha = 0.02
budget_s = 3
inconclusive = "pass"
[gate.latency]
max = "+2.5 %"
min_abs = "20 us"
[gate.memory]
max = "256 KiB"
[gate.accuracy]
max_drop = "0.3 pt"
test = "mcnemar"
[gate."se_resnet*".latency]
max = "+3 %"
[[ratio]]
network = "seresnet50"
metric = "flops"
max = "+1 %"
[[predictions]]
network = "seresnet50"
base = "a.npz"
head = "b.npz"
[[allow]]
id = "seresnet50/latency"
until = 2026-12-01
reason = "a better gate"
"""


def config(text: str) -> Config:
    return parse(tomllib.loads(text), "senet-bench.toml", Path("here"))


def test_a_whole_table() -> None:
    found = config(WHOLE)
    assert [one.name for one in found.networks] == ["seresnet50", "resnet50", "pkg.nets:Small"]
    assert [one.input_size for one in found.networks] == [(3, 224, 224), (3, 224, 224), (3, 32, 32)]
    assert (found.alpha, found.budget_s, found.launches, found.inconclusive) == (0.02, 3.0, 7, "pass")
    assert found.limit("resnet50", "latency") == Limit(relative=0.025, min_abs=20e-6)
    assert found.limit("seresnet50", "latency") == Limit(relative=0.03, min_abs=20e-6)
    assert found.limit("resnet50", "memory") == Limit(absolute=256 * 1024)
    assert found.limit("resnet50", "accuracy") == Limit(absolute=0.003)
    assert found.limit("resnet50", "params") == Limit(absolute=0)
    (ratio,) = found.ratios
    assert (ratio.baseline, ratio.id) == ("resnet50", "seresnet50/flops-ratio")
    assert found.predictions[0].base == Path("here/a.npz")
    allowance = found.allowance("seresnet50/latency")
    assert allowance is not None
    assert allowance.until == date(2026, 12, 1)
    assert found.allowance("seresnet50/params") is None


@pytest.mark.parametrize(
    ("metric", "typed", "expected"),
    [
        ("latency", "+2 %", (0.02, True)),
        ("latency", "+0.25%", (0.0025, True)),
        ("latency", "20 us", (2e-5, False)),
        ("latency", "1.5 ms", (1.5e-3, False)),
        ("params", "+0", (0, False)),
        ("params", "+12,288", (12288, False)),
        ("memory", "256 KiB", (262144, False)),
        ("accuracy", "0.3 pt", (0.003, False)),
    ],
)
def test_thresholds(metric: str, typed: str, expected: tuple[float, bool]) -> None:
    assert threshold(metric, typed, "here") == expected


def test_relative_and_absolute_must_both_be_exceeded() -> None:
    gate = Limit(relative=0.02, min_abs=20e-6)
    assert not gate.exceeded(1e-4, 1.15e-4)
    assert gate.exceeded(1e-4, 1.25e-4)
    assert not gate.exceeded(1e-2, 1.015e-2)
    assert gate.exceeded(1e-2, 1.025e-2)
    assert not Limit(judged=False).exceeded(1, 100)


MISTAKES = {
    'networks = "resnet50"': "networks must be a list",
    "networks = []": "networks must be a list",
    'networks = ["seresnet51"]': "seresnet50",
    'networks = ["resnet50", "ResNet-50"]': "twice",
    'networks = [{ nam = "resnet50" }]': "did you mean name?",
    "networks = [{ name = 3 }]": "networks[0].name",
    'networks = [{ name = "a:b", input_size = [3, 0, 3] }]': "networks[0].input_size",
    'metrics = ["latnecy"]': "did you mean latency?",
    "metrics = []": "metrics",
    "launches = 1": "launches",
    "launches = true": "launches",
    "threads = 0": "threads",
    "nettworks = 1": "did you mean networks?",
    "gate = 3": "gate must be a table",
    "gate.alpha = 0.7": "gate.alpha",
    "gate.budget_s = nan": "gate.budget_s",
    'gate.inconclusive = "maybe"': "gate.inconclusive",
    "gate.latnecy.max = 1": "did you mean latency?",
    "gate.latency = 3": "gate.latency must be a table",
    'gate.latency.maximum = "+2 %"': "gate.latency",
    'gate.latency.max = "2 percent"': "gate.latency.max",
    'gate.latency.max = "+2 KiB"': "KiB",
    "gate.latency.max = 2": "gate.latency.max",
    'gate.latency.max = "-2 %"': "gate.latency.max",
    'gate.latency.min_abs = "2 %"': "gate.latency.min_abs",
    'gate.outputs.max = "+1"': "gate.outputs.max",
    'gate.accuracy.max_drop = "2 %"': "gate.accuracy.max_drop",
    'gate.accuracy.test = "t"': "gate.accuracy.test",
    'gate."vgg*".latency.max = "+2 %"': "matches none",
    'gate."res*".speed.max = "+2 %"': "speed",
    'ratio = [{ network = "vgg16_bn", max = "+1 %" }]': "ratio[0].network",
    'ratio = [{ network = "resnet50", max = "+1 %" }]': "ratio[0] names no baseline",
    'allow = [{ id = "resnet50", reason = "x" }]': "allow[0].until",
    'allow = [{ id = "resnet50", until = 2026-01-01 }]': "allow[0].reason",
    'allow = [{ id = "resnet50", until = "soon", reason = "x" }]': "allow[0].until",
    'predictions = [{ network = "resnet50", base = "a" }]': "predictions[0].head",
    "predictions = 3": "predictions",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(mistake: str) -> None:
    networks = "" if mistake.startswith("networks") else 'networks = ["resnet50"]\n'
    with pytest.raises(UsageError) as raised:
        config(networks + mistake)
    assert MISTAKES[mistake] in str(raised.value)
    assert str(raised.value).startswith("senet-bench.toml: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("senet-bench.toml", b"networks = ["),
        ("senet-bench.toml", b"\xff\xfe"),
        ("senet-bench.toml", b"# " + b"x" * (1 << 20)),
        ("senet-bench.toml", b""),
        ("pyproject.toml", b'[project]\nname = "x"'),
        ("pyproject.toml", b"[tool]\nsenet-bench = 3"),
        ("pyproject.toml", b"[tool.senet-bench]\ncheck = 3"),
    ],
)
def test_a_file_without_a_usable_table(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError):
        load_config(None, tmp_path)
    with pytest.raises(UsageError):
        load_config(tmp_path / name)


def test_the_table_of_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.senet-bench.check]\nnetworks = ["resnet18"]\ngate.alpha = 0.05\n')
    assert load_config(None, tmp_path).alpha == 0.05


def test_ratios_of_one_network_and_metric_are_told_apart_by_their_baselines() -> None:
    ratio = '[[ratio]]\nnetwork = "seresnet50"\nbaseline = "{}"\nmetric = "{}"\nmax = "+1 %"\n'
    kinds = [("resnet50", "latency"), ("resnet101", "latency"), ("resnet101", "flops"), ("resnet50", "latency")]
    found = config(
        'networks = ["seresnet50", "resnet50", "resnet101"]\n' + "".join(ratio.format(*one) for one in kinds)
    )
    assert found.ratio_ids == [
        "seresnet50/latency-ratio/resnet50",
        "seresnet50/latency-ratio/resnet101",
        "seresnet50/flops-ratio",
        "seresnet50/latency-ratio/resnet50/2",
    ]


def test_only_keeps_what_is_about_the_networks_named() -> None:
    assert not config(WHOLE).only("resnet*").ratios
    assert len(config(WHOLE).only("se*").ratios) == 1
    with pytest.raises(UsageError, match="--only"):
        config(WHOLE).only("vgg*")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"max_seconds = {'9' * 400}", "max_seconds must lie between"),
        ("[gate.params]\nmax = '+\u0663 %'", "is no threshold"),
        (f"[gate.flops]\nmax = '+{'9' * 400} %'", "is too large"),
        ("[[ratio]]\nnetwork = 'resnet50'\nbaseline = 'ResNet-50'\nmax = '+1 %'", "compares resnet50 with itself"),
    ],
    ids=["400 digits", "digits of another script", "a limit of 400 digits", "a ratio to itself"],
)
def test_numbers_and_ratios_that_judge_nothing_are_refused(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        config(f"networks = ['resnet50']\n{text}")
    assert len(str(caught.value)) < 2000
