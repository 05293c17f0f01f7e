"""Detectors: their parameters and counts, their function, the weights of their trunks."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops.misc import FrozenBatchNorm2d

from senet_bench.bench import race
from senet_bench.bench.clock import Call
from senet_bench.bench.count import Counts, count, parameters
from senet_bench.bench.device import Cpu
from senet_bench.bench.reference_counters import conv_and_linear, verify
from senet_bench.bench.rounds import Plan
from senet_bench.bench.runtimes import Calls
from senet_bench.core.catalog import CATALOG, pair, resolve
from senet_bench.core.devices import DEVICE_KINDS
from senet_bench.core.progress import Steps, result_of
from senet_bench.core.specs import AttentionSpec, Conditions, Runtime
from senet_bench.data import sets
from senet_bench.errors import UsageError
from senet_bench.models import attention_blocks, build, build_spec
from senet_bench.models.detection import FasterRCNN, boxes_over, padded, spread_boxes
from senet_bench.regression.facts import named_facts
from senet_bench.run.latency import Timing
from senet_bench.training import weights
from tests.conftest import Run
from tests.support.detection import detector, small

DETECTORS = [name for name, spec in CATALOG.items() if spec.task == "detection"]


def with_statistics(network: nn.Module) -> nn.Module:
    """The network with BatchNorm tensors that are not those of the identity."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.2, 0.6),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.8, 1.5),
            ):
                assert isinstance(tensor, torch.Tensor)
                tensor.data.uniform_(low, high, generator=generator)
    return network


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detectors_parameters_are_those_of_its_row(name: str) -> None:
    assert parameters(build(name, device="meta")) == CATALOG[name].params


@pytest.mark.parametrize("name", [name for name in DETECTORS if CATALOG[name].baseline is None])
def test_se_adds_to_a_detector_what_it_adds_to_its_trunk(name: str) -> None:
    base, variant = pair(CATALOG[name])
    plain, se = CATALOG[base.trunk or ""], CATALOG[variant.trunk or ""]
    assert variant.params - base.params == se.params - plain.params


# The whole detector at 800x1216 px with 1,000 proposals, multiply-adds.
MACS = {
    "fasterrcnn_resnet50_fpn": 192_250_481_408,
    "fasterrcnn_seresnet50_fpn": 192_360_004_352,
    "fasterrcnn_resnet101_fpn": 264_222_116_608,
    "fasterrcnn_seresnet101_fpn": 264_400_018_176,
    "fasterrcnn_resnet50_c4": 829_713_408_000,
    "fasterrcnn_seresnet50_c4": 831_689_441_280,
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * ("101" in name)) for name in MACS])
def test_a_detector_is_counted_whole(name: str) -> None:
    network, size = build(name, device="meta"), CATALOG[name].input_size
    counts = count(network, size)
    assert counts.macs == MACS[name]
    assert conv_and_linear(network, size) == counts.conv + counts.linear + counts.se_excitation


def test_torchvisions_detector_has_the_same_parameters_and_multiply_adds() -> None:
    # torchvision's documentation: 41,755,286 parameters and 134.38 GFLOPs at 800x800 px
    ours = build("fasterrcnn_resnet50_v1_5_fpn", classes=90, device="meta")
    assert parameters(ours) == 41_755_286
    counts = count(ours, (3, 800, 800))
    assert round(counts.macs / 1e9, 2) == 134.38
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
        theirs.rpn.head(list(theirs.backbone(torch.empty(1, 3, 800, 800)).values()))
        theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(torch.empty(1000, 256, 7, 7)))
    assert counter.get_total_flops() == 2 * counts.macs


def test_the_heads_are_counted_by_their_formulas() -> None:
    counts = count(build("fasterrcnn_resnet18_fpn", device="meta"), (3, 128, 128))
    assert counts.linear == 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * 81 * 5)
    cells = sum((128 // stride) ** 2 for stride in (4, 8, 16, 32, 64))
    proposals = cells * (256 * 256 * 9 + 256 * 3 * 5)
    lateral = sum((128 // stride) ** 2 * c * 256 for stride, c in zip((4, 8, 16, 32), (64, 128, 256, 512)))
    pyramid = sum((128 // stride) ** 2 for stride in (4, 8, 16, 32)) * 256 * 256 * 9
    classifier = count(build("resnet18", device="meta"), (3, 128, 128))
    assert counts.conv == classifier.conv + lateral + pyramid + proposals


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fasterrcnn_seresnet18_fpn", "fasterrcnn_seresnet50_c4"])
def test_three_counters_agree_on_a_detector(name: str) -> None:
    network, size = build(name, device="meta"), (3, 96, 128)
    counts = count(network, size)
    assert isinstance(counts, Counts)
    verify(network, size, counts)


def test_torchvisions_detector_gives_the_same_boxes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 5}
    theirs = fasterrcnn_resnet50_fpn(**options, min_size=160, max_size=1000, box_score_thresh=0.0).eval()
    with_statistics(theirs)
    nn.init.normal_(theirs.roi_heads.box_predictor.cls_score.weight, std=0.5)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = weights.load_weights(
        resolve("fasterrcnn_resnet50_v1_5_fpn"), str(tmp_path / "theirs.pth"), classes=4
    ).network.eval()
    assert isinstance(ours, FasterRCNN)
    ours.roi_heads.score_thresh = 0.0
    image = torch.rand(3, 160, 224)
    normal = (image - torch.tensor(sets.IMAGENET_MEAN)[:, None, None]) / torch.tensor(sets.IMAGENET_STD)[:, None, None]
    with torch.inference_mode():
        (expected,), (found,) = theirs([image]), ours([normal])
    assert len(expected["boxes"]) == 100
    assert torch.equal(found["labels"], expected["labels"])
    torch.testing.assert_close(found["boxes"], expected["boxes"], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found["scores"], expected["scores"], atol=1e-5, rtol=1e-5)


def test_a_detectors_checkpoint_of_the_other_layout_is_refused(tmp_path: Path) -> None:
    theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(UsageError, match="use fasterrcnn_resnet50_v1_5_fpn"):
        weights.load_weights(resolve("fasterrcnn_resnet50_fpn"), str(tmp_path / "theirs.pth"), classes=4)


@pytest.mark.parametrize("head", ["fpn", "c4"])
def test_a_classifiers_weights_become_those_of_the_trunk(head: str, tmp_path: Path) -> None:
    spec = resolve("seresnet50")
    classifier = with_statistics(build_spec(spec, 10)).eval()
    weights.save(classifier, tmp_path / "w.safetensors", spec)
    network = detector(f"fasterrcnn_seresnet50_{head}").eval()
    notes = weights.load_trunk(network, resolve(f"fasterrcnn_seresnet50_{head}"), str(tmp_path / "w.safetensors"))
    assert notes == ()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = classifier.stem(x)  # type: ignore[operator]
        for stage in list(classifier.stages)[:3]:  # type: ignore[arg-type]
            expected = stage(expected)
        maps = list(network.trunk(x).values())
        torch.testing.assert_close(maps[2 if head == "fpn" else 0], expected, atol=1e-5, rtol=1e-5)
        last = classifier.stages[3](expected)  # type: ignore[index, operator]
        found = maps[3] if head == "fpn" else network.roi_heads.box_head.stage(expected)
        torch.testing.assert_close(found, last, atol=1e-5, rtol=1e-5)


def test_a_plain_trunks_weights_leave_the_blocks_fresh_and_another_network_is_refused(tmp_path: Path) -> None:
    for name in ("resnet18", "resnet34"):
        weights.save(build(name, 10), tmp_path / f"{name}.safetensors", resolve(name))
    network, spec = detector(), resolve("fasterrcnn_seresnet18_fpn")
    (note,) = weights.load_trunk(network, spec, str(tmp_path / "resnet18.safetensors"))
    assert "8 attention blocks" in note
    with pytest.raises(UsageError, match="holds resnet34, not seresnet18"):
        weights.load_trunk(network, spec, str(tmp_path / "resnet34.safetensors"))


def test_attention_of_any_kind_goes_into_a_detector_through_its_trunk() -> None:
    spec = resolve("fasterrcnn_seresnet18_fpn")
    eca = build_spec(replace(spec, attention=AttentionSpec(block="eca", stages=(4, 5))), 3, device="meta")
    assert [name.split(".")[3] for name in attention_blocks(eca)] == ["2", "2", "3", "3"]
    with pytest.raises(UsageError, match="no place for attention"):
        build_spec(replace(spec, attention=AttentionSpec(placement="3x3")), 3, device="meta")


def test_frozen_stages_do_not_train_and_norms_never_do() -> None:
    network = detector()
    network.freeze(2)
    still = {name.split(".")[2] + name.split(".")[3] for name, p in network.named_parameters() if not p.requires_grad}
    assert {one[:6] for one in still} == {"stem0", "stages"}
    assert all(p.requires_grad for p in network.trunk.stages[1].parameters())
    assert not any(p.requires_grad for p in network.trunk.stages[0].parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    network.freeze(0)


@pytest.mark.parametrize("block", ["srm", "cbam"])
def test_a_norm_inside_an_attention_block_learns_its_weights_and_takes_no_statistics_of_two_images(block: str) -> None:
    spec = replace(resolve("fasterrcnn_seresnet18_fpn"), attention=AttentionSpec(block=block))
    network = build_spec(spec, 3).train()
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 8
    assert not any(norm.training for norm in norms)
    assert all(parameter.requires_grad for norm in norms for parameter in norm.parameters())


@pytest.mark.parametrize(
    "name", ["fasterrcnn_seresnet18_fpn", pytest.param("fasterrcnn_seresnet50_c4", marks=pytest.mark.slow)]
)
def test_both_heads_learn_and_find(name: str) -> None:
    network = small(name)
    network.freeze(2)
    network.rpn._pre_nms_top_n = {"training": 200, "testing": 100}
    images = [torch.randn(3, 64, 96), torch.randn(3, 80, 64)]
    targets = [
        {"boxes": torch.tensor([[8.0, 8, 50, 50]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[4.0, 4, 40, 70], [20, 20, 60, 60]]), "labels": torch.tensor([3, 2])},
    ]
    losses = network(images, targets)
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    untouched = {key for key, p in network.named_parameters() if p.grad is None}
    assert untouched == {key for key, p in network.named_parameters() if not p.requires_grad}
    with torch.inference_mode():
        found = network.eval()(images)
    for one, image in zip(found, images):
        assert set(one) == {"boxes", "labels", "scores"}
        assert not len(one["boxes"]) or float(one["boxes"][:, 2].max()) <= image.shape[-1]


def test_images_of_several_sizes_are_padded_right_and_below() -> None:
    batch = padded([torch.ones(3, 40, 50), torch.ones(3, 33, 70)])
    assert batch.tensors.shape == (2, 3, 64, 96)
    assert batch.image_sizes == [(40, 50), (33, 70)]
    assert float(batch.tensors[0].sum()) == 3 * 40 * 50


def test_fixed_proposals_lie_in_the_image_and_make_the_work_steady() -> None:
    boxes = boxes_over(96, 128, spread_boxes())
    assert boxes.shape == (1000, 4)
    assert bool((boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 128).all() and (boxes[:, 3] <= 96).all())
    assert bool((boxes[:, 2:] > boxes[:, :2]).all())
    view = detector().with_fixed_proposals().train()
    assert not view.detector.rpn.training
    with torch.inference_mode():
        logits, deltas = view(torch.randn(2, 3, 96, 128))
    assert (logits.shape, deltas.shape) == ((2000, 4), (2000, 16))


def test_fixed_boxes_are_made_once_and_go_where_the_detector_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    network = detector()
    view, names = network.with_fixed_proposals(), set(network.state_dict())
    monkeypatch.setattr("senet_bench.models.detection.spread_boxes", None)
    with torch.inference_mode():
        assert view(torch.randn(1, 3, 96, 128))[0].shape == (1000, 4)
    assert set(view.state_dict()) == {f"detector.{name}" for name in names}
    assert copy.deepcopy(view).to("meta").spread.is_meta


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that passes for a device with graphs and a time of its own."""
    kind = replace(DEVICE_KINDS["cpu"], runtimes=("eager", "cudagraph"), clocks=("end-to-end", "device"))
    monkeypatch.setitem(DEVICE_KINDS, "cpu", kind)
    monkeypatch.setattr(Cpu, "captures", True)


@pytest.mark.usefixtures("graphs")
def test_of_the_usual_runtimes_and_clocks_a_detector_has_those_that_do_not_wait(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    def noted(self: Timing, group: Any, several: list[Conditions], *_: object) -> Steps[list[dict[int, str]]]:
        asked.extend((group.name, one.runtime, one.timing) for one in several)
        yield from ()
        return [dict.fromkeys(group.places, "not here") for _ in several]

    monkeypatch.setattr(Timing, "_group", noted)
    run("compare", "fasterrcnn_resnet18_fpn", "resnet18", "--img-size", "64")
    every = [(runtime, timing) for runtime in ("eager", "cudagraph") for timing in ("end-to-end", "device")]
    assert sorted(asked) == sorted(
        [("fasterrcnn_resnet18_fpn", "eager", "end-to-end"), *(("resnet18", *one) for one in every)]
    )


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("typed", [("--runtime", "eager,cudagraph"), ("--cold-l2",)])
def test_what_a_detector_does_not_have_is_refused_by_name_where_it_is_typed(run: Run, typed: tuple[str, ...]) -> None:
    ended = run("compare", "fasterrcnn_resnet18_fpn", "--img-size", "64", *typed)
    assert ended.code == 2
    assert "fasterrcnn_resnet18_fpn is a detector, whose calls wait for the device" in ended.err
    assert f"leave out {typed[0]}" in ended.err


@pytest.mark.usefixtures("graphs")
def test_a_detector_is_deployed_and_raced_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[Call] = []

    def capture(_: Cpu, call: Call) -> Call:
        captured.append(call)
        return call

    def entrants(*, training: bool, graphs: bool) -> tuple[Runtime, ...]:
        return ("eager", "cudagraph") if graphs else ("eager",)

    monkeypatch.setattr(race, "entrants", entrants)
    monkeypatch.setattr(Cpu, "capture", capture)
    conditions, images = Conditions(runtime="deploy:eager"), torch.randn(1, 3, 8, 8)
    network: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    Calls(network, conditions, images).make()
    assert len(captured) == 1
    network.waits_for_device = detector().with_fixed_proposals().waits_for_device
    Calls(network, conditions, images).make()
    plan = Plan(budget_s=0.1, max_rounds=2)
    assert [one.runtime for one in result_of(race.race(network, (3, 8, 8), Conditions(), plan))] == ["eager"]
    assert len(captured) == 1


def test_table_7_counts_its_detectors_beside_the_papers_ap(run: Run) -> None:
    ended = run("compare", "table7", "--no-latency", "--format", "json")
    rows = json.loads(ended.out)["rows"]
    assert [row["flops"]["macs"] for row in rows] == list(MACS.values())[:4]
    cells = {(row["model"], cell["metric"]): cell for row in rows for cell in row["paper"]}
    assert cells["fasterrcnn_seresnet50_fpn", "ap"]["printed"] == "40.4"
    assert {cell["status"] for cell in cells.values()} == {"not measured"}
    assert "--dataset coco" in cells["fasterrcnn_resnet101_fpn", "ap50"]["explanation"]
    shown = run("compare", "table7", "--no-latency", "-q").out
    assert "62.7" not in shown.split("AP and AP50")[1]
    assert "senet-bench train MODEL --dataset coco" in shown


def test_a_detector_is_ablated_by_its_counts(run: Run) -> None:
    ended = run(
        "ablate", "-m", "fasterrcnn_seresnet18_fpn", "--reduction", "8,16", "--img-size", "128", "--format", "json"
    )
    base, eight, sixteen = json.loads(ended.out)["rows"]
    assert base["params"] < sixteen["params"] < eight["params"]


def test_a_detector_can_be_checked_for_regressions() -> None:
    facts = named_facts("fasterrcnn_seresnet18_fpn", (3, 96, 128))
    assert facts.shapes[:3] == ["0: float32[1000, 81]", "1: float32[1000, 324]", "2: float32[1, 3, 24, 32]"]
    assert len(facts.shapes) == 12
    assert facts.total == CATALOG["fasterrcnn_seresnet18_fpn"].params


@pytest.mark.slow
def test_a_budget_too_short_for_a_detector_is_said_in_its_row(run: Run) -> None:
    ended = run("compare", "fasterrcnn_resnet18_fpn", "--img-size", "64", "--budget", "0.01", "--format", "json")
    assert ended.code == 5
    assert "raise --budget" in ended.err
    assert {row["missing"]["latency"].partition(" (")[0] for row in json.loads(ended.out)["rows"]} == {
        "the budget held no round to keep"
    }


@pytest.mark.slow
def test_the_latency_of_a_pair_of_detectors_is_measured(run: Run) -> None:
    options = ("--img-size", "64", "--classes", "3", "--budget", "4", "--format", "json")
    ended = run("compare", "fasterrcnn_resnet18_fpn", *options)
    base, variant = json.loads(ended.out)["rows"]
    if any("the budget held no round" in row.get("missing", {}).get("latency", "") for row in (base, variant)):
        pytest.skip("this machine is too busy for a round within the budget, which the row says")
    assert ended.code == 0, ended.err
    assert base["latency"]["seconds"] > 0
    assert variant["latency"]["ratio"] > 0
