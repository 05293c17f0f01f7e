"""Cases: everything a network is built from stands in its spec, resolved once where the command line is read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from senet_bench.api.measuring import Running
from senet_bench.api.profiling import _one
from senet_bench.core.metrics import METRICS, Metric
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import UsageError
from senet_bench.run.cases import Changes, grid_cases, label, select, with_controls
from tests.conftest import Run

SMALL = "seresnet20_cifar"


def test_changes_are_in_the_spec_of_every_case_and_of_its_baseline() -> None:
    base, variant = select([SMALL], Changes(img_size=16, classes=7, in_channels=1, attention={"reduction": 4}))
    assert (base.role, variant.role, variant.baseline) == ("baseline", "variant", base.spec)
    for case in (base, variant):
        assert (case.spec.input_size, case.spec.classes) == ((1, 16, 16), 7)
    assert variant.spec.attention == AttentionSpec(reduction=4)
    network = variant.build("meta")
    assert network.state_dict()["stem.weight"].shape[1] == 1


def test_a_group_number_is_part_of_the_spec() -> None:
    base, variant = select(["seresnext50_32x4d"], Changes(cardinality=16))
    assert variant.spec.cardinality == 16
    assert [case.spec.label for case in (base, variant)] == ["ResNeXt-50 (16x4d)", "SE-ResNeXt-50 (16x4d)"]
    assert select(["senet154"], Changes(cardinality=32))[1].spec.label == "SENet-154 (C=32)"
    assert select(["seresnext50_32x4d"], Changes(cardinality=32))[1].spec.label == "SE-ResNeXt-50 (32x4d)"
    (base, _), _ = grid_cases("seresnext50_32x4d", {"reduction": "2"}, Changes(cardinality=8))
    assert base.spec.label.endswith("(8x4d)")
    groups = {layer.groups for layer in variant.build("meta").modules() if isinstance(layer, nn.Conv2d)}
    assert groups == {1, 16}


def test_the_control_of_another_block_has_its_gates_fixed() -> None:
    _, variant, control = with_controls(select(["resnet20_cifar"], Changes(attention={"block": "eca"})))
    assert (variant.role, control.role) == ("variant", "control")
    assert control.spec.attention is not None
    assert (control.spec.attention.block, label(control.spec)) == ("constant", "SE-ResNet-20, gates fixed at 0.5")


def test_the_control_has_its_gates_in_all_stages_where_a_setting_has_and_says_where_else() -> None:
    def control(axes: dict[str, str | None]) -> str:
        (case,) = (case for case in with_controls(grid_cases("seresnet50", axes)[0]) if case.role == "control")
        return label(case.spec)

    assert (
        control({"stages": "2,3,all"}) == control({"placement": "3x3,standard"}) == "SE-ResNet-50, gates fixed at 0.5"
    )
    assert control({"stages": "2+3,4"}) == "SE-ResNet-50, gates fixed at 0.5 (stages=2+3)"
    assert control({"integration": "pre,post"}).endswith("(integration=pre)")
    (v3,) = (case for case in with_controls(select(["mobilenet_v3_large"])) if case.role == "control")
    assert label(v3.spec) == f"{v3.spec.label}, gates fixed at 0.5"


def test_all_impossible_settings_are_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"2 impossible: .*integration=pre.*integration=post"):
        grid_cases(SMALL, {"integration": "pre,post", "placement": "3x3"})


def test_a_squeeze_that_is_named_and_left_out_is_no_setting() -> None:
    with pytest.raises(UsageError, match=r"2 impossible: squeeze=none, no-squeeze=false: .*squeeze=avg, no-squeeze=tr"):
        grid_cases(SMALL, {"squeeze": "none,avg", "no-squeeze": "false,true"})
    (_, *settings), _ = grid_cases(SMALL, {"squeeze": "max,avg", "no-squeeze": "false"})
    assert [case.spec.attention and case.spec.attention.squeeze for case in settings] == ["max", "avg"]


def test_an_option_of_a_block_is_written_as_it_is_typed() -> None:
    (base, setting), _ = grid_cases("seresnet50", {"attention": "ge/extent=4"})
    assert label(setting.spec) == "ResNet-50 + ge (extent=4)"
    assert base.role == "baseline"


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999", "1" + "0" * 120])
def test_an_option_that_is_no_number_that_can_be_stored_is_refused(value: str, run: Run, tmp_path: Path) -> None:
    ended = run("ablate", "-m", SMALL, "--attention", f"mine:Gate/scale={value}")
    assert (ended.code, "mine:Gate's scale" in ended.err, "is not between -1e+100" in ended.err) == (2, True, True)
    assert not list(tmp_path.rglob("*.json"))


def test_r_is_given_once_as_an_option_of_a_block_or_by_itself(run: Run) -> None:
    (_, setting), _ = grid_cases(SMALL, {"attention": "cbam/kernel=3/reduction=8"})
    assert setting.spec.attention == AttentionSpec("cbam", reduction=8, options=(("kernel", 3),))
    for block in ("cbam", "mine:Gate"):
        with pytest.raises(UsageError, match=f"2 impossible.*attention {block}/reduction=8 exclude each other"):
            grid_cases(SMALL, {"attention": f"{block}/reduction=8", "reduction": "4,16"})
        refused = run("compare", SMALL, "--no-latency", "-r", "4", "--attention", f"{block}/reduction=8")
        assert (refused.code, "give r once" in refused.err) == (2, True)
    twice = AttentionSpec("cbam", reduction=4, options=(("reduction", 8),))
    with pytest.raises(UsageError, match="give r once"):
        replace(setting, spec=replace(setting.spec, attention=twice)).build("meta")
    with pytest.raises(UsageError, match="kernel is given twice"):
        grid_cases(SMALL, {"attention": "cbam/kernel=3/kernel=5"})
    asked = ("ablate", "-m", SMALL, "--attention", "se,cbam/reduction=8", "--against", "cbam/reduction=8")
    assert run(*asked).code == 0


def test_an_ablation_builds_and_counts_each_network_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from senet_bench import models

    real, built = models.build_spec, []

    def build(spec: Any, *arguments: Any, **options: Any) -> Any:
        built.append((spec.name, spec.attention))
        return real(spec, *arguments, **options)

    monkeypatch.setattr(models, "build_spec", build)
    assert run("ablate", "-m", SMALL, "--reduction", "2,4,8", "--format", "json").code == 0
    assert len(built) == len(set(built)) == 4


@pytest.mark.parametrize(
    ("axes", "settings", "left_out"),
    [
        (("--reduction", "4", "--attention"), 5, "reduction=4, attention=eca"),
        (("--reduction", "--attention"), 20, "reduction=2, attention=eca"),
        (("--integration", "--placement", "-m", "seresnet50"), 5, "integration=post, placement=3x3"),
        (("--squeeze", "--no-squeeze"), 2, "squeeze=max, no-squeeze=true"),
        (("--integration", "pre", "-m", "seresnet50", "--placement", "--no-squeeze"), 2, "integration=pre, placement"),
    ],
)
def test_a_bare_axis_leaves_out_what_makes_no_sense(
    run: Run, axes: tuple[str, ...], settings: int, left_out: str
) -> None:
    ended = run("ablate", "-m", SMALL, *axes, "--format", "json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert len(document["rows"]) == settings + 1
    assert any(name.startswith(left_out) for name in document["conditions"]["left_out"])


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (("--reduction", "8,512", "--squeeze"), "2 impossible: reduction=512, squeeze=max: "),
        (("--attention", "eca,se", "--reduction"), "5 impossible: reduction=2, attention=eca: eca takes no reduction"),
        (("--integration", "pre", "--placement"), "placement 3x3 and integration pre exclude each other"),
    ],
)
def test_what_was_typed_and_goes_with_no_value_of_a_bare_axis_is_an_error(
    run: Run, axes: tuple[str, ...], said: str
) -> None:
    ended = run("ablate", "-m", SMALL, *axes)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert said in ended.err


def test_a_dry_run_takes_what_the_run_takes(run: Run) -> None:
    bare = run("ablate", "-m", SMALL, "--reduction", "--dry-run", "--format", "json")
    assert bare.code == 0, bare.err
    document = json.loads(bare.out)
    assert len(document["rows"]) == 5
    assert "larger than the 16 channels" in document["conditions"]["left_out"]["reduction=32"]
    outside = run(
        "ablate",
        "-m",
        "torchvision:resnet18",
        "--reduction",
        "4,8",
        "--img-size",
        "32",
        "--dry-run",
        "--format",
        "json",
    )
    assert outside.code == 0, outside.err
    assert [row["axes"] for row in json.loads(outside.out)["rows"]] == [{}, {"reduction": 4}, {"reduction": 8}]


def test_attention_is_attached_with_the_options_that_were_typed(run: Run) -> None:
    typed = ("compare", "torchvision:resnet18", "--attach", "-r", "4", "--in-channels", "1", "--img-size", "32")
    ended = run(*typed, "--no-latency", "--format", "json")
    assert ended.code == 0, ended.err
    base, variant = json.loads(ended.out)["rows"]
    assert base["input_size"] == variant["input_size"] == [1, 32, 32]
    assert variant["attention"]["reduction"] == 4


@pytest.mark.parametrize("typed", [["-b", "1,8"], ["--runtime", "eager,deploy"], ["--cold-l2"]], ids=" ".join)
def test_a_profile_refuses_what_it_would_leave_out(run: Run, typed: list[str]) -> None:
    ended = run("profile", SMALL, *typed)
    assert (ended.code, ended.out) == (2, "")
    assert "a profile is" in ended.err


def test_a_profile_is_of_the_runtime_that_was_named_and_of_no_second_one(run: Run) -> None:
    assert _one(Running()).runtime == "eager"
    assert _one(Running(torchcompile=True)).runtime == "compile"
    assert _one(Running(device="cuda")).runtime == "eager"
    refused = run("profile", SMALL, "--runtime", "eager", "--torchcompile")
    assert (refused.code, "exclude each other" in refused.err) == (2, True)


def convolutions(network: nn.Module, size: tuple[int, int, int]) -> int:
    return sum(isinstance(layer, nn.Conv2d) for layer in network.modules())


def test_a_counted_metric_is_its_function_and_its_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Metric(
        key="convolutions",
        title="convolutions",
        quantity="count",
        value=lambda row: row.counts.get("convolutions"),
        counted=f"{__name__}:convolutions",
        gate="+0",
    )
    monkeypatch.setitem(METRICS, "convolutions", counted)
    ended = run("compare", SMALL, "--no-latency", "--format", "json")
    assert [row["counts"] for row in json.loads(ended.out)["rows"]] == [{"convolutions": 21}] * 2
    assert "convolutions" in run("compare", SMALL, "--no-latency").out


def test_given_networks_are_a_pair_and_a_network_alone_is_timed(run: Run) -> None:
    pair = run("compare", "resnet20_cifar", "wrn16_8_cifar", "--pair", "--no-latency", "--format", "json")
    rows = json.loads(pair.out)["rows"]
    assert [(row["model"], row["role"], row["baseline"]) for row in rows] == [
        ("resnet20_cifar", "baseline", None),
        ("wrn16_8_cifar", "plain", "resnet20_cifar"),
    ]
    alone = run(
        "compare", "resnet20_cifar", "--alone", "--budget", "0.2", "--runtime", "eager,deploy", "--format", "json"
    )
    (row,) = json.loads(alone.out)["rows"]
    assert row["latency"]["seconds"] > 0
    assert row["latency"].get("ratio") is None
    assert [further["conditions"]["runtime"] for further in row["more_latency"]] == ["deploy"]
    for typed, said in {
        ("resnet20_cifar", "--pair"): "--pair wants two networks by name or more",
        ("--alone",): "--alone wants a network by name or more",
        (
            "resnet20_cifar",
            "resnet18",
            "--pair",
        ): "take other images (3x32x32 and 3x224x224); name one size",
        ("resnet20_cifar", "--pair", "--alone"): "exclude each other",
    }.items():
        ended = run("compare", *typed, "--no-latency")
        assert (ended.code, said in ended.err) == (2, True), ended.err
