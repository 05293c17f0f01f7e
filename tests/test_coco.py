"""COCO's format and measure, and detectors trained and evaluated on a set made here."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from senet_bench.core import recipes
from senet_bench.core.catalog import resolve
from senet_bench.core.learning import EpochRow
from senet_bench.core.progress import result_of
from senet_bench.core.recipes import Scaling
from senet_bench.detection.average_precision import AveragePrecision, Detection, precision_of
from senet_bench.detection.coco import Annotation, Category, DetectionSet, DetectionSplit, Listing, load_detection
from senet_bench.detection.coco import Image as Listed
from senet_bench.detection.evaluate import detector_beside_paper, is_as_printed
from senet_bench.detection.objective import Detecting, Looking, detect, detection
from senet_bench.detection.scenes import Scenes, scaled_size
from senet_bench.errors import MeasurementError
from senet_bench.models import build
from senet_bench.models.detection import FasterRCNN
from senet_bench.run.training import TrainingRequest
from senet_bench.training import weights
from senet_bench.training.loop import train
from senet_bench.training.objective import Settings
from tests.conftest import Run
from tests.support.detection import COLOURS, coco_set, small


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco_set(tmp_path_factory.mktemp("coco"))


def test_objects_are_read_without_crowds_and_in_consecutive_labels(colours: Path) -> None:
    images = load_detection("coco", colours)
    assert images.classes == ("colour 1", "colour 5", "colour 9")
    assert "8 images and 3 categories" in images.notes[0]
    objects = images.training().objects()
    assert [len(labels) for _, labels in objects] == [2] * 7 + [0]
    raw = json.loads((colours / "annotations" / "instances_train2017.json").read_text())["annotations"][0]
    left, top, width, height = raw["bbox"]
    assert objects[0][0][0].tolist() == [left, top, left + width, top + height]
    assert {int(label) for _, labels in objects for label in labels} == {1, 2, 3}


def test_boxes_are_clipped_to_the_image_and_those_of_no_extent_left_out() -> None:
    boxes = [(-5.0, 2.0, 10.0, 10.0), (3.0, 3.0, 0.0, 4.0), (30.0, 30.0, 50.0, 50.0), (45.0, 0.0, 9.0, 9.0)]
    listing = Listing([Listed(1, "a.jpg", 40, 40)], [Annotation(1, 7, box) for box in boxes], [Category(7, "thing")])
    ((found, labels),) = DetectionSplit(listing, (Path("a.jpg"),)).objects()
    assert found.tolist() == [[0, 2, 5, 12], [30, 30, 40, 40]]
    assert labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("size", "scaled"), [((480, 640), (800, 1066)), ((640, 480), (1066, 800)), ((300, 900), (444, 1333))]
)
def test_images_are_scaled_as_detectron_scales_them(size: tuple[int, int], scaled: tuple[int, int]) -> None:
    assert scaled_size(*size, Scaling()) == scaled


def test_a_mirrored_image_has_mirrored_boxes(colours: Path) -> None:
    images = load_detection("coco", colours)
    scenes = Scenes(images, images.training(), Scaling(192, 400))
    objects = images.training().objects()[1]
    plain, mirrored = scenes.scene(1, objects), scenes.scene(1, objects, True)
    assert plain.image.shape == (3, 192, 256)
    assert plain.scale == (2.0, 2.0)
    torch.testing.assert_close(plain.boxes, torch.from_numpy(objects[0]) * 2)
    assert torch.equal(plain.image.flip(-1), mirrored.image)
    assert torch.equal(256 - mirrored.boxes[:, [2, 0]], plain.boxes[:, [0, 2]])
    assert torch.equal(mirrored.boxes[:, [1, 3]], plain.boxes[:, [1, 3]])


def found(split: DetectionSplit, shift: float = 0.0) -> list[Detection]:
    """Every object but the crowds, found with its box moved right by a fraction of its width."""
    return [
        Detection(one.image_id, one.category_id, (one.bbox[0] + shift * one.bbox[2], *one.bbox[1:]), 0.9)
        for one in split.listing.annotations
        if not one.iscrowd
    ]


def test_perfect_detections_have_an_average_precision_of_one(colours: Path) -> None:
    split = load_detection("coco", colours).test
    precision = precision_of(split, found(split))
    assert (precision.ap, precision.ap50, precision.ap75) == (1.0, 1.0, 1.0)
    assert set(precision.by_class) == {"colour 1", "colour 5", "colour 9"}
    assert set(precision.by_class.values()) == {1.0}
    assert precision.ap_large is None


def test_shifted_detections_have_the_average_precision_of_their_overlap(colours: Path) -> None:
    split = load_detection("coco", colours).test
    # a shift by a fifth of the width leaves 0.8 / 1.2 = 0.667 of the union: right at IoU 0.50, 0.55, 0.60 and 0.65
    precision = precision_of(split, found(split, 0.2))
    assert precision.ap == pytest.approx(0.4)
    assert (precision.ap50, precision.ap75) == (1.0, 0.0)


def test_nothing_found_is_zero_and_images_left_out_do_not_count(colours: Path) -> None:
    split = load_detection("coco", colours).test
    assert precision_of(split, []).ap == 0.0
    half = [one for one in found(split) if one.image_id >= 14]
    assert precision_of(split, half, left_out=[10, 11, 12, 13]).ap == 1.0


def whole_coco() -> DetectionSet:
    """A set with as many images and categories as COCO's val2017."""
    images = [Listed(number, f"{number}.jpg", 640, 480) for number in range(5000)]
    listing = Listing(images, [], [Category(number, f"thing {number}") for number in range(80)])
    split = DetectionSplit(listing, tuple(Path(image.file_name) for image in images))
    return DetectionSet("coco", tuple(f"thing {number}" for number in range(80)), None, split)


def test_average_precision_stands_beside_the_papers_on_the_whole_set_by_the_papers_recipe_only(colours: Path) -> None:
    found = AveragePrecision(0.404, 0.615, None, None, None, None, None)
    spec = resolve("fasterrcnn_seresnet50_fpn")
    cells = {cell.metric: cell for cell in detector_beside_paper(whole_coco(), spec, found)}
    assert (cells["ap"].printed, cells["ap"].status) == ("40.4", "match")
    assert (cells["ap50"].printed, cells["ap50"].status) == ("61.0", "differs")
    assert {cell.status for cell in detector_beside_paper(whole_coco(), spec, None)} == {"not measured"}
    assert detector_beside_paper(load_detection("coco", colours), spec, found) == []
    assert detector_beside_paper(whole_coco(), resolve("fasterrcnn_seresnet50_c4"), found) == []


def test_a_precision_is_the_papers_where_training_and_images_are_as_printed() -> None:
    trained_so = {"recipe": "coco", "epochs": 24, "batch_size": 16, "lr": 0.02, "trunk_weights": "w"}
    assert is_as_printed(trained_so, Scaling())
    assert not is_as_printed(trained_so, Scaling(400, 667))
    for other in ({"epochs": 12}, {"trunk_weights": None}, {"lr": 0.01}, {"batch_size": 8}, {"recipe": "coco-smoke"}):
        assert not is_as_printed({**trained_so, **other}, Scaling())
    assert not is_as_printed({}, Scaling())


Damage = Callable[[Path], None]


def without(path: str) -> Damage:
    def damage(root: Path) -> None:
        (root / path).unlink()

    return damage


def changed(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(root: Path) -> None:
        file = root / "annotations" / "instances_val2017.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("annotations/instances_val2017.json"), "expected .*instances_val2017.json"),
        (without("val2017/0003.png"), "1 of 8 listed images are missing, first .*0003.png"),
        (lambda root: (root / "val2017").rename(root / "other"), "expected .*val2017/ or .*images/val2017/"),
        (changed(lambda c: c["annotations"][0].update(image_id=7)), "names image 7, which is not listed"),
        (changed(lambda c: c["annotations"][0].update(category_id=7)), "names category 7, which is not listed"),
        (changed(lambda c: c["annotations"][0].update(bbox=[1, 2])), "is damaged"),
        (changed(lambda c: c["images"].append(c["images"][0])), "image 10 is listed twice"),
        (changed(lambda c: c["images"][0].update(width=0)), "image 10 is 0x96 px"),
        (changed(lambda c: c.pop("categories")), "is damaged"),
        (changed(lambda c: c["categories"].clear()), "lists no categories"),
        (changed(lambda c: c["categories"][0].update(name="mauve")), "different categories"),
        (
            lambda root: (root / "annotations" / "instances_val2017.json").write_bytes(b'{"images": [{"id"'),
            "is damaged",
        ),
    ],
)
def test_a_damaged_set_is_one_clear_line(damage: Damage, message: str, tmp_path: Path) -> None:
    root = coco_set(tmp_path / "coco")
    damage(root)
    with pytest.raises(MeasurementError, match=message) as caught:
        load_detection("coco", root)
    assert "\n" not in str(caught.value)


def test_a_set_without_training_images_can_be_evaluated_on(tmp_path: Path) -> None:
    root = coco_set(tmp_path / "coco")
    (root / "annotations" / "instances_train2017.json").unlink()
    images = load_detection("coco", root)
    assert len(images.test) == 8
    with pytest.raises(MeasurementError, match="no training images"):
        images.training()


SMALL = recipes.smoke(recipes.recipe("coco"))


def test_the_recipe_is_detectrons_two_times_schedule() -> None:
    recipe = recipes.recipe("coco")
    steps = 180_000
    assert (recipe.batch_size, recipe.lr, recipe.weight_decay, recipe.momentum) == (16, 0.02, 1e-4, 0.9)
    assert [round(m * steps / recipe.epochs) for m in recipe.schedule.milestones] == [120_000, 160_000]
    assert round(recipe.schedule.warmup * steps / recipe.epochs) == 500
    assert (recipe.scaling, recipe.freeze_at) == (Scaling(800, 1333), 2)
    assert SMALL.scaling == Scaling(128, 224)


def trained(root: Path, **settings: Any) -> tuple[FasterRCNN, list[EpochRow]]:
    network = small()
    events = train(network, load_detection("coco", root), SMALL, Settings(**settings), task=Detecting)
    return network, result_of(events)


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_bits(colours: Path, tmp_path: Path) -> None:
    whole, ends = trained(colours, evaluate_every=0)
    assert len(ends) == SMALL.epochs
    checkpoint = tmp_path / "d.checkpoint"
    events = train(
        small(),
        load_detection("coco", colours),
        SMALL,
        Settings(evaluate_every=0, checkpoint=checkpoint),
        task=Detecting,
    )
    assert next(event for event in events if event.what == f"epoch 1/{SMALL.epochs}").done == 1
    events.close()
    resumed, rest = trained(colours, evaluate_every=0, checkpoint=checkpoint, resume=True)
    assert [end.epoch for end in rest] == [2]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_every_image_is_seen_once_and_boxes_come_back_in_file_pixels(colours: Path, tmp_path: Path) -> None:
    images = load_detection("coco", colours)
    network = small()
    network.roi_heads.score_thresh = 0.0
    looks = [detect(network, images, images.test, Looking(scaling=Scaling(side, 400), batch=3)) for side in (96, 192)]
    for seen in looks:
        assert len(seen) == 8
        assert {one.image_id for one in seen.found} == set(range(10, 18))
        assert {one.category_id for one in seen.found} <= set(COLOURS)
        assert max(one.bbox[0] + one.bbox[2] for one in seen.found) <= 128 + 1e-3
    assert network.training
    looks[0].save(tmp_path / "found.json")
    first = json.loads((tmp_path / "found.json").read_text())[0]
    assert set(first) == {"image_id", "category_id", "bbox", "score"}


def test_a_corrupt_image_is_named_or_left_out(tmp_path: Path) -> None:
    root = coco_set(tmp_path / "coco", images=3)
    broken = root / "val2017" / "0001.png"
    broken.write_bytes(b"not an image")
    images, network = load_detection("coco", root), small()
    with pytest.raises(MeasurementError, match=r"0001\.png"):
        detect(network, images, images.test, Looking(scaling=Scaling(96, 160)))
    seen = detect(network, images, images.test, Looking(scaling=Scaling(96, 160), skip_corrupt=True))
    assert (len(seen), seen.skipped) == (2, (str(broken),))


@pytest.mark.slow
def test_a_detector_learns_a_small_set_by_heart(tmp_path: Path) -> None:
    root = coco_set(tmp_path / "coco", images=9)
    for file in (root / "train2017").iterdir():
        shutil.copy(file, root / "val2017")
    shutil.copy(root / "annotations" / "instances_train2017.json", root / "annotations" / "instances_val2017.json")
    schedule = recipes.Schedule("steps", (16,), warmup=1)
    recipe = replace(SMALL, epochs=20, max_steps=None, batch_size=4, lr=0.01, schedule=schedule)
    events = train(small(), load_detection("coco", root), recipe, Settings(evaluate_every=20), task=Detecting)
    ends = result_of(events)
    losses = [end.train_loss for end in ends]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])  # 0.45 and 1.9 where this was written
    assert ends[0].ap50 is None
    assert ends[-1].ap50 is not None
    assert ends[-1].ap50 > 0.2  # 0.38


def test_a_batch_is_of_no_more_images_than_have_objects(colours: Path) -> None:
    asked = TrainingRequest(spec=resolve("fasterrcnn_resnet50_fpn"), dataset="coco")
    recipe = asked.filled(detection().count(load_detection("coco", colours))).resolved()
    assert recipe.batch_size == 7
    assert recipe.lr == pytest.approx(0.02 * 7 / 16)


@pytest.mark.slow
def test_a_detector_trains_and_is_evaluated_from_the_command_line(run: Run, colours: Path, tmp_path: Path) -> None:
    where = ("--dataset", "coco", "--data", str(colours))
    weights.save(build("seresnet18", 10), tmp_path / "trunk.safetensors", resolve("seresnet18"))
    options = ("--recipe", "coco-smoke", "--trunk-weights", "trunk.safetensors", "--out", "w.safetensors", "-q")
    ended = run("train", "fasterrcnn_seresnet18_fpn", *where, *options, "--format", "json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert [row["epoch"] for row in document["rows"]] == [1, 2]
    assert document["rows"][-1]["ap"] is not None
    assert document["conditions"]["freeze_at"] == 2
    show = ("--img-size", "96", "--keep-predictions", "kept", "--per-class", "classes.csv")
    ended = run(
        "evaluate", "fasterrcnn_seresnet18_fpn", *where, "--weights", "w.safetensors", *show, "--format", "json", "-q"
    )
    assert ended.code == 0, ended.err
    (row,) = json.loads(ended.out)["rows"]
    assert (row["images"], row["size"], row["longest"]) == (8, 96, 160)
    assert 0 <= row["ap"] <= row["ap50"] <= 1
    assert isinstance(json.loads((tmp_path / "kept" / "fasterrcnn_seresnet18_fpn-coco.json").read_text()), list)
    lines = (tmp_path / "classes.csv").read_text().splitlines()
    assert lines[0] == "class,objects,fasterrcnn_seresnet18_fpn_ap"
    assert len(lines) == 4
    shown = run("evaluate", "fasterrcnn_seresnet18_fpn", *where, "--weights", "w.safetensors", "--img-size", "96", "-q")
    assert "AP50" in shown.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "fasterrcnn_resnet50_fpn", "--dataset", "digits"), 2, "digits has no boxes"),
        (("train", "resnet50", "--dataset", "coco", "--data", "."), 2, "name a detector"),
        (("train", "fasterrcnn_resnet50_fpn", "--dataset", "coco"), 2, "--data"),
        (("train", "fasterrcnn_resnet50_fpn", "--dataset", "coco", "--data", "nowhere"), 5, "nowhere"),
        (("train", "fasterrcnn_resnet50_fpn", "--dataset", "coco", "--data", "."), 5, "instances_val2017.json"),
        (("train", "fasterrcnn_resnet50_fpn", "--dataset", "coco", "--recipe", "imagenet"), 2, "use coco"),
        (("train", "resnet20_cifar", "--recipe", "coco"), 2, "use imagenet"),
        (("train", "resnet20_cifar", "--trunk-weights", "w"), 2, "no detector"),
        (
            ("train", "fasterrcnn_resnet50_fpn", "--dataset", "coco", "--weights", "a", "--trunk-weights", "b"),
            2,
            "exclude each other",
        ),
        (("evaluate", "fasterrcnn_resnet50_fpn", "--dataset", "digits", "--weights", "w"), 2, "no boxes"),
        (("evaluate", "resnet50", "--dataset", "coco", "--data", ".", "--weights", "w"), 2, "name a detector"),
        (
            (
                "evaluate",
                "fasterrcnn_resnet50_fpn",
                "resnet50",
                "--dataset",
                "coco",
                "--weights",
                "a",
                "--weights",
                "b",
            ),
            2,
            "resnet50 is no detector",
        ),
        (("compare", "fasterrcnn_resnet50_fpn", "--dataset", "coco"), 2, "use `train fasterrcnn_resnet50_fpn"),
        (("compare", "resnet50", "--dataset", "coco", "--data", "."), 2, "name a detector"),
        (("compare", "fasterrcnn_resnet50_fpn", "--mode", "train"), 2, "leave out --mode train"),
        (("ablate", "-m", "fasterrcnn_resnet18_fpn", "--placement", "3x3"), 2, "no place for attention"),
        (("compare", "fasterrcnn_resnet51_fpn"), 2, "fasterrcnn_resnet50_fpn"),
        (("profile", "fasterrcnn_seresnet50_fpn"), 2, "profile seresnet50"),
    ],
)
def test_what_does_not_go_together_is_one_line(run: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_without_pycocotools_one_line_says_what_to_install(
    run: Run, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pycocotools", "pycocotools.cocoeval", "pycocotools.coco", "pycocotools.mask"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run("evaluate", "fasterrcnn_resnet18_fpn", "--dataset", "coco", "--weights", "w", "--data", str(colours))
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "senet-bench[detection]" in done.err
