"""The authors' own weights fill the paper's cells; other labels for the same images, other images with labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from senet_bench.core.specs import ModelSpec
from senet_bench.core.stored_errors import RELEASED
from senet_bench.errors import UsageError
from senet_bench.run.released import weighted
from senet_bench.training import downloads, weights
from senet_bench.training.evaluation import Predictions
from senet_bench.training.renaming import SOURCES
from senet_bench.training.weights import Loaded
from tests.conftest import Run


class Guess(nn.Module):
    """A network that says 3, then 0, 1, 2 and 4, of every image."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(x), 1000)
        out[:, [3, 0, 1, 2, 4]] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
        return out + self.nothing * x.mean()


@pytest.fixture
def guessing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Weights are not fetched: every network guesses; what was asked for is listed."""
    asked = list[str]()

    def load(spec: ModelSpec, source: str, **_: Any) -> Loaded:
        asked.append(source)
        origin = source if source.startswith("timm:") else None
        return Loaded(Guess(), spec, source, (), (), {}, origin=origin)

    monkeypatch.setattr(weights, "load_weights", load)
    return asked


def imagenet(folder: Path, labels: list[int]) -> Path:
    """Validation images in one folder with their list, as ImageNet's are often kept."""
    (folder / "val").mkdir(parents=True)
    lines = []
    for number, label in enumerate(labels, 1):
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        Image.fromarray(np.full((260, 260, 3), label % 256, dtype=np.uint8)).save(folder / "val" / name)
        lines.append(f"{name} {label}")
    (folder / "val.txt").write_text("\n".join(lines))
    return folder


def test_the_released_weights_are_timms_copies_of_our_networks() -> None:
    assert {SOURCES[origin].ours for origin in RELEASED.values()} == set(RELEASED)
    assert {SOURCES[origin].style for origin in RELEASED.values()} == {"legacy"}


def test_a_table_names_its_networks_with_their_released_weights() -> None:
    chosen = weighted(["table2"], ["released"], "imagenet", None)
    assert chosen.models == tuple(RELEASED)[:5]
    assert chosen.notes == ("the authors released no weights of SE-VGG-16, SE-BN-Inception, SE-Inception-ResNet-v2",)
    assert weighted(["Table 8"], ["released"], "imagenet", 320).models == ("senet154",)
    assert weighted(["seresnet50"], ["released"], "imagenet", 320).weights == ("timm:legacy_seresnet50",)
    assert weighted(["resnet50"], ["a.safetensors"], "digits", None).weights == ("a.safetensors",)


@pytest.mark.parametrize(
    ("models", "given", "dataset", "size", "said"),
    [
        (["table2"], ["released"], "imagenet", 320, "centre crops of 224 px, not 320"),
        (["table2"], ["released"], "imagenet", 299, "centre crops of 224 px, not 299"),
        (["table2"], ["released"], "cifar10", None, "Table 2 is of imagenet, not cifar10"),
        (["table2"], ["a.safetensors"], "imagenet", None, "use --weights released"),
        (["table3"], ["released"], "imagenet", None, "no weights for Table 3; use table2 or table8"),
        (["resnet50"], ["released"], "imagenet", None, "released no weights of resnet50; choose from seresnet50"),
    ],
)
def test_what_the_authors_did_not_release_or_show_is_refused(
    models: list[str], given: list[str], dataset: str, size: int | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        weighted(models, given, dataset, size)


def test_one_command_fills_table_2_with_the_released_weights(run: Run, tmp_path: Path, guessing: list[str]) -> None:
    data = imagenet(tmp_path / "data", [3, 3, 3, 5])
    ended = run("evaluate", "table2", "--weights", "released", "--data", str(data), "--format", "json")
    assert ended.code == 0, ended.err
    assert guessing == list(RELEASED.values())[:5]
    first = json.loads(ended.out)["rows"][0]
    assert (first["origin"], first["top1_err"]) == ("timm:legacy_seresnet50", 0.25)
    cell = next(cell for cell in first["paper"] if cell["metric"] == "top1_err")
    assert (cell["table"], cell["status"], cell["measured"]) == ("2", "released weights", 25)
    assert cell["differs_in"][0] == "4 test images, not 50,000"
    table = run("compare", "table2", "--only", "ResNet-50", "--no-latency", "--format", "md")
    assert "released weights" in table.out, table.err
    again = run("evaluate", "table2", "--weights", "released", "--data", str(data), "--img-size", "320")
    assert (again.code, "not 320" in again.err) == (2, True)


def test_imagenet_real_counts_every_right_class_and_leaves_out_what_has_none(
    run: Run, tmp_path: Path, guessing: list[str]
) -> None:
    data = imagenet(tmp_path / "data", [3, 7, 9, 5])
    real = tmp_path / "real.json"
    real.write_text(json.dumps([[3, 8], [3], [], [6, 4]]))
    asked = ("evaluate", "seresnet50", "--weights", "released", "--data", str(data), "--labels")
    row = json.loads(run(*asked, str(real), "--format", "json").out)["rows"][0]
    assert (row["images"], row["top1_err"], row["top5_err"]) == (3, pytest.approx(1 / 3), 0)
    assert (row["labels"], "1 of 4 images have no label in ImageNet-Real" in row["notes"]) == ("ImageNet-Real", True)
    assert all("labels of ImageNet-Real" in cell["differs_in"] for cell in row["paper"])
    assert len(guessing) == 1
    for text, said in (("{}", "list of lists"), ("[[3]]", "not one of the 1 images"), ("no", "not a list of labels")):
        real.write_text(text)
        assert said in run(*asked, str(real)).err


def test_imagenet_v2_is_read_as_it_is_unpacked(run: Run, tmp_path: Path, guessing: list[str]) -> None:
    tree = tmp_path / "data" / "imagenetv2-matched-frequency-format-val"
    for label in range(1000):
        (tree / str(label)).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tree / str(label) / "0.png")
    asked = ("evaluate", "seresnet50", "--weights", "released", "--labels", "v2", "--img-size", "8")
    document = json.loads(run(*asked, "--data", str(tmp_path / "data"), "--format", "json").out)
    (row,), notes = document["rows"], document["conditions"]["notes"]
    assert (row["images"], row["dataset"], row["labels"]) == (1000, "ImageNetV2", "ImageNetV2")
    assert "ImageNetV2 from imagenetv2-matched-frequency-format-val" in notes
    assert (row["top1_err"], row["top5_err"]) == (0.999, 0.995)
    assert run(*asked, "--data", str(tmp_path)).code == 5
    (tmp_path / "data" / "imagenetv2-threshold0.7-format-val" / "0").mkdir(parents=True)
    several = run(*asked, "--data", str(tmp_path / "data"))
    assert (several.code, "matched-frequency-format-val, imagenetv2-threshold0.7" in several.err) == (2, True)
    assert run(*asked, "--data", str(tree)).code == 0
    assert run(*asked, "--data", str(tmp_path), "--dataset", "digits").code == 2


def test_a_predicted_class_that_is_right_becomes_the_label() -> None:
    best = np.array([[5, 1, 2, 3, 4], [9, 8, 7, 6, 5], [0, 1, 2, 3, 4]])
    seen = Predictions(np.arange(3), np.zeros(3, dtype=np.int64), best, np.zeros(3, dtype=np.float32))
    found = seen.relabelled([frozenset({5, 3}), frozenset({6}), frozenset()])
    assert (found.labels.tolist(), found.wrong.tolist(), found.top5_err) == ([3, 6], [False, True], 0)


@pytest.mark.slow
def test_a_tree_of_a_thousand_classes_fills_table_2_by_one_command_and_wrong_crops_are_refused(
    run: Run, tmp_path: Path, guessing: list[str]
) -> None:
    for number in range(1000):
        folder = tmp_path / "data" / "val" / f"n{number:08}"
        folder.mkdir(parents=True)
        for image in range(2):
            Image.fromarray(np.full((40, 40, 3), number % 256, dtype=np.uint8)).save(folder / f"{image}.JPEG")
    asked = ("evaluate", "table2", "--weights", "released", "--data", str(tmp_path / "data"))
    ended = run(*asked, "--format", "json")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)["rows"]
    assert guessing == list(RELEASED.values())[:5]
    assert [(row["images"], row["top1_err"], row["top5_err"]) for row in rows] == [(2000, 0.999, 0.995)] * 5
    cells = [
        cell for row in rows for cell in row["paper"] if cell["metric"] == "top1_err" and cell["column"] == "senet"
    ]
    assert [cell["status"] for cell in cells] == ["released weights"] * 5
    assert all(cell["differs_in"][0] == "2,000 test images, not 50,000" for cell in cells)
    for wrong in ("320", "299", "160"):
        refused = run(*asked, "--img-size", wrong)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert run("report", "-q").code == 0
    assert "released weights" in (tmp_path / "results" / "index.html").read_text()


@pytest.mark.slow
def test_networks_of_timm_saved_to_files_are_evaluated_through_the_mapping_of_their_names(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    files, said = {}, {}
    shown = torch.from_numpy(np.full((1, 3, 224, 224), 7, dtype=np.float32) / 255)
    usual = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in usual)
    for place, origin in enumerate(list(RELEASED.values())[:5]):
        name = origin.partition(":")[2]
        torch.manual_seed(place)
        network = timm.create_model(name).eval()
        files[name] = tmp_path / f"{name}.pth"
        torch.save(network.state_dict(), files[name])
        with torch.no_grad():
            said[name] = int(network((shown - mean) / std).argmax())
    monkeypatch.setattr(downloads, "fetch", lambda library, name: files[name])
    labels = [*dict.fromkeys(said.values())]
    data = imagenet(tmp_path / "data", labels)
    for image in (data / "val").iterdir():
        Image.fromarray(np.full((260, 260, 3), 7, dtype=np.uint8)).save(image, format="PNG")
    ended = run("evaluate", "table2", "--weights", "released", "--data", str(data), "--format", "json")
    assert ended.code == 0, ended.err
    for row in json.loads(ended.out)["rows"]:
        # untrained, so deep a network tells two near classes apart by rounding alone
        assert row["top5_err"] <= 1 - 1 / len(labels) + 1e-9, row["origin"]
