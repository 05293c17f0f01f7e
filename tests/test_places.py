"""Places365 as ImageNet: Table 6 with its own classes and protocol, the recipe, training and evaluation of a tree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from senet_bench.core import catalog
from senet_bench.core.recipes import DEFAULTS, recipe
from senet_bench.core.reproduction import cells_of
from senet_bench.core.results import Row
from senet_bench.run.cases import select
from tests.conftest import Run


def places_tree(root: Path, images: int = 6) -> Path:
    """Places365-Standard's own layout, small: the list of 365 categories, two lists of images, two folders."""
    categories = [f"/{chr(97 + index % 26)}/scene_{index} {index}" for index in range(365)]
    root.mkdir()
    (root / "categories_places365.txt").write_text("\n".join(categories) + "\n")
    validation, training = [], []
    for index in range(images):
        label = 61 * index  # up to class 305
        validation.append(f"Places365_val_{index + 1:08d}.jpg {label}")
        training.append(f"/a/scene_{label}/{index + 1:08d}.jpg {label}")
        for path in (
            root / "val_256" / validation[-1].split()[0],
            root / f"data_256_standard{training[-1].split()[0]}",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(index).integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    (root / "places365_val.txt").write_text("\n".join(validation) + "\n")
    (root / "places365_train_standard.txt").write_text("\n".join(training) + "\n")
    return root


def test_table_6_has_365_classes_its_printed_rows_and_its_protocol(run: Run) -> None:
    rows = json.loads(run("compare", "table6", "--no-latency", "--format", "json").out)["rows"]
    # ResNet-152 with 365 classes instead of 1,000: 635 rows of 2,048 weights and a bias less
    assert [(row["classes"], row["params"]) for row in rows] == [
        (365, 60_192_808 - 635 * 2_049),
        (365, 66_821_848 - 635 * 2_049),
    ]
    printed = [{cell["metric"]: cell["printed"] for cell in row["paper"]} for row in rows]
    assert printed == [{"top1_err": "41.15", "top5_err": "11.61"}, {"top1_err": "40.37", "top5_err": "11.01"}]
    text = run("compare", "table6", "--no-latency", "--format", "md").out
    assert "Places-365-CNN: top-1 err % 41.07, top-5 err % 11.48" in text
    assert "protocol: Section 5.2: trained from scratch on 8 million images of 365 scene categories" in text


def test_a_network_stands_in_a_table_only_with_that_table_s_classes() -> None:
    both = select(["table2", "table6", "table4", "table5"])
    assert [one.spec.classes for one in both if one.spec.name == "resnet152"] == [1000, 365]
    assert [one.spec.classes for one in both if one.spec.name == "resnet110_cifar"] == [10, 100]

    def tables(name: str, classes: int) -> set[str]:
        spec = catalog.resolve(name)
        row = Row(
            model=name, label="", family="", input_size=spec.input_size, classes=classes, attention=spec.attention
        )
        return {cell.table for cell in cells_of(row, ["table2", "table4", "table5", "table6"])}

    assert (tables("resnet152", 1000), tables("resnet152", 365)) == ({"2"}, {"6"})
    assert (tables("seresnet110_cifar", 10), tables("seresnet110_cifar", 100)) == ({"4"}, {"5"})
    assert tables("resnet152", 10) == set()


def test_the_recipe_is_the_paper_s_as_far_as_it_is_printed() -> None:
    found = recipe("places365")
    assert (DEFAULTS["places365"], found.source) == ("places365", "section 5.2")
    same = replace(recipe("imagenet"), name="places365", source=found.source, deviations=found.deviations)
    assert found == same
    assert any("not printed for Places365" in note for note in found.deviations)


def test_a_tree_in_the_official_layout_trains_and_evaluates_at_256_to_224(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    data = ("--dataset", "places365", "--data", str(places_tree(tmp_path / "places")))
    smoke = ("--recipe", "places365-smoke", "-b", "2", "--out", "w.safetensors", "--format", "json", "-q")
    ended = run("train", "resnet18", *data, *smoke)
    assert ended.code == 0, ended.err
    trained = json.loads(ended.out)
    assert any("differ from the official lists" in note for note in trained["conditions"]["notes"])
    ended = run("evaluate", "resnet18", *data, "--weights", "w.safetensors", "--per-class", "c.csv", "--format", "json")
    (row,) = json.loads(ended.out)["rows"]
    assert (row["images"], row["size"], row["dataset"]) == (6, 224, "places365")
    assert 0 <= row["top5_err"] <= row["top1_err"] <= 1
    assert len(Path("c.csv").read_text().splitlines()) == 366
    (tmp_path / "places" / "places365_val.txt").unlink()
    ended = run("evaluate", "resnet18", *data, "--weights", "w.safetensors")
    assert (ended.code, ended.err.count("\n")) == (5, 1)
    assert "places365_val.txt" in ended.err


def test_compare_counts_and_trains_at_365_classes(run: Run, tmp_path: Path) -> None:
    data = ("--dataset", "places365", "--data", str(places_tree(tmp_path / "places", 3)))
    recipe = ("--recipe", "places365-smoke", "--seeds", "1", "--workers", "1", "--img-size", "64", "--no-latency")
    ended = run("compare", "resnet18", *data, *recipe, "--format", "json", "-q")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)["rows"]
    assert {row["classes"] for row in rows} == {365}
    assert all(row["accuracy"]["dataset"] == "places365" for row in rows)
