"""`compare --budget-...` from hand-made facts, from printed errors, and end to end on the digits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from senet_bench.bench.count import count, parameters
from senet_bench.bench.process import allocator_setting
from senet_bench.core import catalog
from senet_bench.core.environment import Environment
from senet_bench.core.results import Accuracy, Latency, Row, Run, TrainingProtocol
from senet_bench.core.schemas import schema_of
from senet_bench.core.specs import Allocator, AttentionSpec, Conditions
from senet_bench.core.store import Store
from senet_bench.models import build_spec
from senet_bench.overhead import origins
from senet_bench.overhead.answer import Budget, plain_networks, untimed
from senet_bench.overhead.fitting import fitting_rows
from senet_bench.overhead.tables import sentences
from senet_bench.run.cases import Changes
from senet_bench.run.cases import select as cases_of
from senet_bench.run.forecast import of_timing
from senet_bench.run.latency import Timing
from tests.conftest import Run as Command

PROTOCOL = TrainingProtocol(dataset="digits", recipe="digits", epochs=60, lr=0.1, seeds=3)
BASE = (0.11, 0.12, 0.10)
R4 = AttentionSpec(reduction=4)


def row(model: str, errors: tuple[float, ...] = (), attention: AttentionSpec | None = None, **fields: Any) -> Row:
    spec = catalog.resolve(model)
    plain = model.partition("@")[0] == "resnet20_cifar" and attention is None
    accuracy = None
    if errors:
        by_seed = {str(seed): error for seed, error in enumerate(errors)}
        mean = sum(errors) / len(errors)
        accuracy = Accuracy(dataset="digits", top1_err=mean, protocol=PROTOCOL, per_seed=by_seed)
    fields = {"baseline": None if plain and "@" not in model else "resnet20_cifar", **fields}
    return Row(
        model=model,
        label=spec.label,
        family=spec.family,
        input_size=(1, 8, 8),
        classes=10,
        attention=None if plain else attention or AttentionSpec(),
        accuracy=accuracy,
        **fields,
    )


def timed(ratio: float, low: float, high: float, **conditions: Any) -> Latency:
    return Latency(seconds=0.001, ratio=ratio, ci=(low, high), conditions=Conditions(**conditions))


def keep(*rows: Row, machine: str = "here", created: str = "2026-01-01T00:00:00Z", command: str = "compare") -> None:
    store = Store(Path("results"))
    about: dict[str, Any] = {"version": "0", "created": created, "environment": Environment(machine=machine)}
    run = Run(schema=schema_of(command), rows=list(rows), **about)
    store.write(run, store.new_path(run))


def asked(run: Command, *options: str) -> list[dict[str, Any]]:
    ended = run("compare", "resnet20_cifar", *options, "--format", "json")
    assert ended.code == 0, ended.err
    verdicts: list[dict[str, Any]] = json.loads(ended.out)["verdict"]
    return verdicts


def by_label(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["label"]: one for one in verdict["candidates"]}


def test_the_answer_comes_from_stored_rows_of_every_command_and_nothing_is_stored(run: Command) -> None:
    keep(row("resnet20_cifar", BASE), row("seresnet20_cifar", tuple(e - 0.02 for e in BASE)))
    keep(row("seresnet20_cifar", tuple(e - 0.03 for e in BASE), R4), command="ablate", created="2026-01-02T00:00:00Z")
    before = sorted(Path("results").rglob("*.json"))
    (verdict,) = asked(run, "--budget-params", "1.05")
    assert sorted(Path("results").rglob("*.json")) == before
    found = by_label(verdict)
    assert (verdict["best"], verdict["table"]) == ("SE-ResNet-20 (reduction=4)", None)
    assert found["SE-ResNet-20 (reduction=4)"]["to_baseline"]["value"] == pytest.approx(-0.03)
    assert found["SE-ResNet-20"]["ratios"]["params"] == pytest.approx(274_655 / 272_282, abs=1e-3)
    (verdict,) = asked(run, "--budget-params", "+2.5 %")
    assert verdict["best"] == "SE-ResNet-20"
    assert by_label(verdict)["SE-ResNet-20 (reduction=4)"]["place"] == "outside"
    wide = next(one for label, one in by_label(verdict).items() if "wide" in label)
    assert wide["error"] is None
    assert wide["command"] == "senet-bench compare resnet20_cifar --budget-params 1.025 --dataset digits"
    assert wide["ratios"]["params"] <= 1.025


def test_the_latency_of_a_block_that_was_edited_since_answers_nothing(run: Command) -> None:
    gate = AttentionSpec(block="mine:Gate")
    before = row("seresnet20_cifar", BASE, gate, source="aaaa", latency=timed(1.01, 1.0, 1.02))
    keep(row("resnet20_cifar", BASE), before)
    base = catalog.resolve("resnet20_cifar")

    def known() -> int:
        store = Store(Path("results"))
        (origin,) = (origin for origin in origins.stored(base, store) if origin.dataset == "digits")
        return len(origins.latest_latencies(base, origin, store, Conditions())[0])

    assert known() == 1
    keep(row("seresnet20_cifar", BASE, gate, source="bbbb"), created="2026-01-02T00:00:00Z")
    assert known() == 0


def test_the_newest_fact_of_a_network_counts_and_other_protocols_are_apart(run: Command) -> None:
    keep(row("resnet20_cifar", BASE), row("seresnet20_cifar", BASE))
    keep(row("seresnet20_cifar", tuple(e - 0.02 for e in BASE)), created="2026-01-02T00:00:00Z")
    longer = row("seresnet20_cifar", (0.01, 0.01, 0.01))
    assert longer.accuracy is not None
    other = replace(longer, accuracy=replace(longer.accuracy, protocol=replace(PROTOCOL, epochs=600)))
    keep(other, created="2026-01-03T00:00:00Z")
    first, second = asked(run, "--budget-flops", "1.05")
    assert by_label(first)["SE-ResNet-20"]["error"] == pytest.approx(0.09)
    assert ("epochs 60," in first["source"], "epochs 600," in second["source"]) == (True, True)
    assert by_label(second)["ResNet-20"]["error"] is None
    assert second["sentences"][0].endswith("the baseline's error is not known")


def test_latency_is_looked_up_under_the_conditions_on_the_machine_that_timed_last(run: Command) -> None:
    errors = tuple(e - 0.02 for e in BASE)
    keep(row("resnet20_cifar", BASE), row("seresnet20_cifar", errors, latency=timed(1.5, 1.4, 1.6)), machine="there")
    keep(
        row("seresnet20_cifar", errors, latency=timed(1.05, 1.04, 1.06)),
        row("seresnet20_cifar", errors, R4, latency=timed(1.09, 1.05, 1.13, batch_size=8)),
        created="2026-01-02T00:00:00Z",
    )
    (verdict,) = asked(run, "--no-latency", "--budget-latency", "1.06")
    places = {label: one["place"] for label, one in by_label(verdict).items()}
    assert (places["SE-ResNet-20"], places["SE-ResNet-20 (reduction=4)"]) == ("inside", "not measured")
    assert "machine here" in verdict["latency"]
    (verdict,) = asked(run, "--no-latency", "--budget-latency", "1.06", "-b", "8")
    places = {label: one["place"] for label, one in by_label(verdict).items()}
    assert (places["SE-ResNet-20"], places["SE-ResNet-20 (reduction=4)"]) == ("not measured", "undecided")
    assert verdict["best"] is None
    (verdict,) = asked(run, "--no-latency", "--budget-latency", "1.06", "--threads", "2")
    assert verdict["latency"].startswith("none stored at device cpu, batch_size 1, threads 2")


def test_a_latency_is_judged_under_the_first_of_several_conditions_and_those_are_told(run: Command) -> None:
    first, *others = (
        timed(ratio, ratio - 0.01, ratio + 0.01, device="cuda", **conditions)
        for ratio, conditions in ((1.02, {}), (1.2, {"timing": "device"}), (1.3, {"runtime": "cudagraph"}))
    )
    errors = tuple(e - 0.02 for e in BASE)
    keep(
        row("resnet20_cifar", BASE),
        row("seresnet20_cifar", errors, latency=first, more_latency=others),
        row("seresnet20_cifar", errors, R4, latency=others[0]),
    )
    (verdict,) = asked(run, "--no-latency", "--budget-latency", "1.06", "--device", "cuda")
    candidates = by_label(verdict)
    assert candidates["SE-ResNet-20"]["ratios"]["latency"] == 1.02
    assert candidates["SE-ResNet-20 (reduction=4)"]["place"] == "not measured"
    told = "device cuda, batch_size 1, threads 1, precision fp32, runtime eager, machine here"
    assert verdict["latency"] == told
    budget = Budget({"latency": 1.06}, Conditions(device="cuda"))
    (cases,) = untimed(["resnet20_cifar"], Store(Path("results")), budget)
    assert [case.spec.attention for case in cases] == [None, R4]
    (verdict,) = asked(run, "--no-latency", "--budget-latency", "1.06", "--mode", "train")
    assert verdict["latency"].endswith("runtime eager, mode train")


def test_a_latency_that_is_missing_is_measured_and_each_network_is_placed(run: Command) -> None:
    errors = tuple(e - 0.02 for e in BASE)
    keep(row("resnet20_cifar", BASE), row("seresnet20_cifar", errors), row("seresnet20_cifar", errors, R4))
    other: Allocator = "default" if allocator_setting() == "tuned" else "tuned"
    apart = replace(timed(1.05, 1.04, 1.06), conditions=Conditions(allocator=other))
    keep(row("seresnet20_cifar", errors, latency=apart), created="2026-01-02T00:00:00Z")
    (verdict,) = asked(run, "--no-latency", "--budget-latency", "10")
    assert verdict["latency"].endswith(f"allocator as-is: stored with {other}")
    (verdict,) = asked(run, "--budget", "0.3", "--budget-latency", "10")
    places = {label: one["place"] for label, one in by_label(verdict).items() if one["kind"] == "attention"}
    assert places.keys() == {"SE-ResNet-20", "SE-ResNet-20 (reduction=4)"}
    assert "not measured" not in places.values()
    stored = sorted(Path("results").rglob("*.json"))
    asked(run, "--budget-latency", "10")
    assert sorted(Path("results").rglob("*.json")) == stored


def test_the_settings_of_a_run_stand_inside_outside_or_open_and_few_rounds_decide_nothing() -> None:
    rows = [
        row("resnet20_cifar", params=100, flops={"macs": 100}),
        row("seresnet20_cifar", params=101, flops={"macs": 101}, latency=timed(1.02, 1.01, 1.03)),
        row("seresnet20_cifar", params=104, flops={"macs": 101}, attention=R4, latency=timed(1.08, 1.06, 1.10)),
        row("seresnet20_cifar", flops={"macs": 101}, params=101, latency=replace(timed(1, 1, 1), reason="too few")),
        row("seresnet20_cifar", flops={"macs": 101}, params=101),
    ]
    (verdict,) = fitting_rows(rows, {"latency": 1.05, "flops": 1.02})
    assert [one.place for one in verdict.judgement.rows] == ["inside", "inside", "outside", "undecided", "not measured"]
    (verdict,) = fitting_rows(rows, {"params": 1.03})
    assert [one.place for one in verdict.judgement.rows][1:3] == ["inside", "outside"]
    lines = list(sentences(verdict))
    assert lines[1] == f"surely outside: {rows[2].label}"
    assert not any("error" in line for line in lines)


def test_verdicts_under_several_conditions_are_named_by_what_tells_them_apart() -> None:
    under: tuple[dict[str, Any], ...] = ({}, {"timing": "device"}, {"batch_size": 8, "channels_last": True})
    latencies = [timed(1.02, 1.01, 1.03, device="cuda", **conditions) for conditions in under]
    rows = [
        row("resnet20_cifar", params=100, flops={"macs": 100}),
        row("seresnet20_cifar", params=101, flops={"macs": 101}, latency=latencies[0], more_latency=latencies[1:]),
    ]
    always = "device cuda, batch_size {}, threads 1, precision fp32, runtime eager"
    assert [verdict.latency for verdict in fitting_rows(rows, {"latency": 1.05})] == [
        always.format(1),
        f"{always.format(1)}, timing device",
        f"{always.format(8)}, channels_last True",
    ]


def test_the_seconds_of_all_timings_are_shared_out_and_bound_them() -> None:
    timing = Timing(budget_s=10, most_s=12)
    cases = cases_of(["seresnet20_cifar", "sewrn16_8_cifar"])
    assert [timing._share_s(*at) for at in ((0, 2), (2, 1), (2, 2), (12, 1))] == [6, 10, 5, 0]
    assert (timing.lasts_s(cases), replace(timing, most_s=None).lasts_s(cases)) == (12, 20)
    assert of_timing(cases, {"latency": timing}) == ""
    long = of_timing(cases, {"latency": replace(timing, budget_s=30, most_s=None)})
    assert long.startswith("2 timings take about 60 s")


def test_a_plain_network_that_was_trained_is_judged_by_its_error(run: Command) -> None:
    plain = [spec.name for spec in plain_of("resnet20_cifar", flops=1.1)]
    keep(row("resnet20_cifar", BASE), row("seresnet20_cifar", tuple(e - 0.02 for e in BASE)))
    keep(row(plain[0], tuple(e - 0.025 for e in BASE)), created="2026-01-02T00:00:00Z")
    (verdict,) = asked(run, "--budget-flops", "1.1")
    assert (verdict["best"], verdict["tied"]) == ("SE-ResNet-20", [])
    wide = next(one for one in verdict["candidates"] if one["model"] == plain[0])
    assert wide["to_best"]["value"] == pytest.approx(-0.005)
    assert any(f"without attention: {plain[0]}" in line and "-0.50" in line for line in verdict["sentences"])


def plain_of(name: str, **limits: float) -> list[Any]:
    budget = Budget(limits)  # type: ignore[arg-type]
    return list(plain_networks(Changes(8, 10, 1).apply(catalog.resolve(name)), budget))


@pytest.mark.parametrize("limits", [{"flops": 1.1}, {"params": 1.03}, {"flops": 1.3, "params": 1.05}, {"latency": 1.2}])
def test_the_widest_network_of_equal_cost_is_inside_and_the_next_is_not(limits: dict[str, float]) -> None:
    def costs(name: str) -> dict[str, float]:
        network = build_spec(catalog.resolve(name), 10, in_channels=1, device="meta")
        return {"flops": count(network, (1, 8, 8)).macs, "params": parameters(network)}

    base = costs("resnet20_cifar")
    wide, deep = plain_of("resnet20_cifar", **limits)
    width = float(wide.name.partition("=")[2])
    most = {"flops": limits["latency"]} if "latency" in limits else limits
    assert all(costs(wide.name)[cost] <= limit * base[cost] for cost, limit in most.items())
    next_one = costs(f"resnet20_cifar@width={width + 0.001:.3f}")
    assert any(next_one[cost] > limit * base[cost] for cost, limit in most.items())
    assert deep.name == "resnet20_cifar@depth=1"  # the least, shown as outside


def test_too_small_a_budget_buys_no_width(run: Command) -> None:
    assert [spec.name for spec in plain_of("resnet20_cifar", flops=1.001)] == ["resnet20_cifar@depth=1"]
    assert [spec.name for spec in plain_of("resnet20_cifar", flops=2.1)][1] == "resnet20_cifar@depth=3"
    assert plain_of("shakeshake26_2x96d_cifar", flops=1.5) == []


def test_printed_errors_are_told_apart_and_interpolated_between_the_papers_depths(run: Command) -> None:
    ended = run("compare", "resnet50", "--budget-flops", "1.01", "--format", "json")
    ablations, main = json.loads(ended.out)["verdict"]
    assert (main["table"], ablations["table"]) == ("2", "10 to 16")
    assert main["source"] == "as the paper prints them in Table 2"
    assert main["best"] == "SE-ResNet-50"
    assert by_label(main)["SE-ResNet-50"]["to_baseline"] == {"value": pytest.approx(-0.0151), "ci": None}
    (line,) = [one for one in main["candidates"] if one["basis"] == "interpolated"]
    # 24.80 at 3.8578 G and 23.17 at 7.5702 G: 1 % more is 0.0104 of the way
    assert line["error"] == pytest.approx(0.2480 - 0.0163 * 0.01 * 3.8578 / (7.5702 - 3.8578), abs=2e-5)
    assert "nothing was trained" in line["note"]
    assert ablations["best"] == "SE-ResNet-50 (integration=identity)"  # 22.20 in Table 14
    assert by_label(ablations)["SE-ResNet-50 (squeeze=none)"]["place"] == "outside"
    assert not [one for one in ablations["candidates"] if one["basis"] == "interpolated"]


@pytest.mark.parametrize("format", ["table", "md", "csv", "latex", "html"])
def test_every_format_has_the_verdict(run: Command, format: str) -> None:  # noqa: A002
    keep(row("resnet20_cifar", BASE), row("seresnet20_cifar", tuple(e - 0.02 for e in BASE)))
    ended = run("compare", "resnet20_cifar", "--budget-flops", "1.05", "--format", format)
    assert (ended.code, ended.err) == (0, "")
    assert "SE-ResNet-20" in ended.out
    assert "inside" in ended.out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("resnet20_cifar", "--budget-flops", "0.9"), 2, "--budget-flops '0.9' is no overhead; write 1.03"),
        (("resnet20_cifar", "--budget-latency", "3 ms"), 2, "--budget-latency '3 ms' is no overhead"),
        (("resnet20_cifar", "--budget-params", "1.1"), 2, "--budget-params 1.1 --dataset digits"),
        (("resnet20_cifar", "--budget-latency", "1.1", "-b", "1,8"), 2, "not --batch-size 1,8; give one"),
        (("resnet20_cifar", "--budget-latency", "1.1", "--runtime", "fastest"), 2, "not --runtime fastest; give one"),
        (("resnet51", "--budget-flops", "1.1"), 2, "unknown model 'resnet51'"),
        (("resnet20_cifar@width=0.5", "--no-latency"), 2, "no size 'width=0.5'"),
    ],
)
def test_bad_values_and_an_empty_store_are_one_line(
    run: Command, options: tuple[str, ...], code: int, said: str
) -> None:
    ended = run("compare", *options)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert said in ended.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("-r", "8", "--img-size", "320"), "--reduction, --img-size"),
        (("--attention", "eca", "--no-fc-bias"), "--attention, --no-fc-bias"),
        (("--classes", "7", "--pair", "--only", "x*"), "--classes, --pair, --only"),
        (("--flops-of", "mine:FORMULAS", "--verify"), "--flops-of, --verify"),
        (("--rows", "se", "--against", "se", "--label", "se=SE"), "--against, --rows, --label"),
        (("--energy", "--dry-run"), "--energy, --dry-run"),
    ],
)
def test_an_answer_from_what_is_known_refuses_what_it_does_not_heed(
    run: Command, options: tuple[str, ...], named: str
) -> None:
    ended = run("compare", "resnet50", "--budget-flops", "1.05", *options)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"stored and printed, without {named}; add --dataset, or leave it out" in ended.err


def test_an_evaluation_of_weights_is_an_origin_of_its_own(run: Command) -> None:
    pytest.importorskip("safetensors")
    for name in ("resnet20_cifar", "seresnet20_cifar"):
        run("train", name, "--dataset", "digits", "--recipe", "digits-smoke", "--out", f"{name}.safetensors", "-q")
    weights = ("--weights", "resnet20_cifar.safetensors", "--weights", "seresnet20_cifar.safetensors")
    assert run("evaluate", "resnet20_cifar", "seresnet20_cifar", *weights, "--dataset", "digits", "-q").code == 0
    (verdict,) = asked(run, "--budget-flops", "1.05")
    assert verdict["source"].startswith("evaluated on 1697 images of digits (recipe digits-smoke, epochs 2")
    assert by_label(verdict)["SE-ResNet-20"]["ci"] is not None


def test_with_a_data_set_the_plain_networks_of_equal_cost_are_trained_too(run: Command) -> None:
    options = ("--no-latency", "--dataset", "digits", "--recipe", "digits-smoke", "--seeds", "2", "--workers", "1")
    ended = run("compare", "resnet20_cifar", "--budget-flops", "1.1", *options, "--format", "json", "-q")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["schema"] == "senet-bench.compare/1"
    models = [one["model"] for one in document["rows"]]
    wide = plain_of("resnet20_cifar", flops=1.1)[0].name
    assert models == ["resnet20_cifar", "seresnet20_cifar", "seresnet20_cifar", wide]
    plain = document["rows"][3]
    assert (plain["baseline"], plain["attention"], plain["accuracy"]["seeds"]) == ("resnet20_cifar", None, 2)
    (verdict,) = document["verdict"]
    missing = [(one["model"], one["place"]) for one in verdict["candidates"] if one["error"] is None]
    assert missing == [("resnet20_cifar@depth=1", "outside")]
    bringing = "senet-bench compare resnet20_cifar@depth=1 --dataset digits brings it"
    assert verdict["sentences"][-1].endswith(bringing)
    ended = run("compare", "resnet20_cifar@depth=1", *options, "--format", "json", "-q")
    assert ended.code == 0, ended.err
    (verdict,) = asked(run, "--budget-flops", "1.1")  # and so it does
    assert all(one["error"] is not None for one in verdict["candidates"])
    stored = [json.loads(path.read_text()) for path in Path("results").glob("runs/*/*.json")]
    assert all("verdict" not in one for one in stored)  # a verdict is derived, never a fact
