"""The rows of the paper's tables are trained by recipes of their own, Cutout among their augmentations."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from senet_bench.core.catalog import resolve
from senet_bench.core.learning import TrialResult
from senet_bench.core.recipes import RECIPES, Augmentation, recipe
from senet_bench.core.studies import STUDIES
from senet_bench.core.trial import Trial
from senet_bench.data.augment import cut_out, draw, empty
from senet_bench.data.batches import Batches
from senet_bench.data.sets import Arrays
from senet_bench.errors import UsageError
from senet_bench.run.cases import Changes, select, spec_of, with_controls
from senet_bench.run.error import Sweep
from senet_bench.run.local import Local
from senet_bench.training import trials
from senet_bench.training.optimisation import LearningRate
from tests.conftest import Run


def cifar(folder: Path, images: int = 20) -> Path:
    """Small sets in the files of CIFAR-10 and CIFAR-100: `images` in each."""
    rng = np.random.default_rng(0)

    def split(labels: str, classes: int) -> bytes:
        pixels = rng.integers(0, 255, (images, 3072), dtype=np.uint8)
        return pickle.dumps({"data": pixels, labels: [number % classes for number in range(images)]})

    ten, hundred = folder / "cifar-10-batches-py", folder / "cifar-100-python"
    for root in (ten, hundred):
        root.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (ten / name).write_bytes(split("labels", 10))
    for name in ("train", "test"):
        (hundred / name).write_bytes(split("fine_labels", 100))
    (ten / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{number}" for number in range(10)]}))
    (hundred / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"c{number}" for number in range(100)]}))
    return folder


def test_every_row_of_tables_4_and_5_is_trained_as_its_own_paper_says() -> None:
    sweep = Sweep(engine=Local(1), dataset="cifar10", seeds=1)
    cases = with_controls(select(["table4"]))
    names = dict(zip([case.spec.name for case in cases], [found.name for _, found in sweep.asked(cases)]))
    assert names == {
        **dict.fromkeys(
            ("resnet110_cifar", "seresnet110_cifar", "resnet164_cifar", "seresnet164_cifar"), "cifar-preact"
        ),
        **dict.fromkeys(("wrn16_8_cifar", "sewrn16_8_cifar"), "cifar-wrn"),
        **dict.fromkeys(("shakeshake26_2x96d_cifar", "seshakeshake26_2x96d_cifar"), "cifar-shakeshake"),
    }
    controls = [
        found.name for case, found in zip(cases, [found for _, found in sweep.asked(cases)]) if case.role == "control"
    ]
    assert controls == ["cifar-preact", "cifar-preact", "cifar-wrn", "cifar-shakeshake"]
    other = Sweep(engine=Local(1), dataset="cifar10", recipe="smoke")
    assert [found.name for _, found in other.asked(cases)][:3] == ["cifar-preact-smoke"] * 3
    assert sweep.asked(select(["resnet110_cifar"]))[0][1].name == "cifar"
    (seventh,) = {found.name for _, found in Sweep(engine=Local(1), dataset="imagenet").asked(select(["table10"]))}
    assert seventh == "ablation"
    eight = with_controls(select(["table8"]))
    found = {
        case.spec.name: lesson.name
        for case, (_, lesson) in zip(eight, Sweep(engine=Local(1), dataset="imagenet").asked(eight))
    }
    assert (found["senet154"], found["resnet152"]) == ("senet154", "imagenet")
    assert STUDIES["table8"].recipe_of("senet154_nose") == STUDIES["table8"].recipe_of("senet154") == "senet154"


def test_the_recipes_are_those_of_the_networks_papers() -> None:
    wrn, shake, even = (recipe(f"cifar-{name}") for name in ("wrn", "shakeshake", "shakeeven"))
    assert (wrn.epochs, wrn.batch_size, wrn.lr, wrn.weight_decay, wrn.nesterov) == (200, 128, 0.1, 5e-4, True)
    assert [LearningRate(wrn).at(epoch) for epoch in (0, 60, 120, 160)] == pytest.approx([0.1, 0.02, 0.004, 0.0008])
    assert (shake.epochs, shake.batch_size, shake.lr, shake.weight_decay) == (1800, 128, 0.2, 1e-4)
    assert (even.epochs, even.batch_size, even.lr, even.weight_decay) == (1800, 32, 0.025, 5e-4)
    assert (shake.augmentation.cutout, even.augmentation.cutout, shake.schedule.kind) == (16, 8, "cosine")
    rate = LearningRate(recipe("cifar-preact"))
    expected = [(0, 0.01), (1.02, 0.01), (1.03, 0.1), (81.9, 0.1), (82, 0.01), (123, 0.001)]
    assert [rate.at(epoch) for epoch, _ in expected] == pytest.approx([lr for _, lr in expected])
    assert all("arXiv" in RECIPES[name].source and RECIPES[name].deviations for name in RECIPES if "cifar-" in name)
    assert recipe("cifar-preact").lasting(82).schedule.low == pytest.approx(200 / 390)


def test_switches_that_came_later_are_in_no_earlier_recipe() -> None:
    told = recipe("cifar").as_dict()
    assert ("low" in told["schedule"], "cutout" in told["augmentation"]) == (False, False)
    assert recipe("cifar-shakeeven").as_dict()["augmentation"]["cutout"] == 8


def test_cutout_paints_one_square_an_image_and_changes_no_other_draw() -> None:
    plain, cut = Augmentation(pad=4, flip=True), Augmentation(pad=4, flip=True, cutout=8)
    one, other = (draw(augmentation, 50, np.random.default_rng(5)) for augmentation in (plain, cut))
    assert np.array_equal(one.offsets, other.offsets)
    assert np.array_equal(one.flips, other.flips)
    images = empty(50, 3, 32, 32)
    images[:] = 200
    cut_out(images, other, 8, (1, 2, 3))
    holes = (images[:, 0] == 1).sum((1, 2))
    assert holes.max() == 64
    assert holes.min() >= 16  # a quarter stays where the middle is in a corner
    assert set(np.unique(images)) == {1, 2, 3, 200}
    split = Arrays(np.full((20, 3, 32, 32), 200, dtype=np.uint8), np.zeros(20, dtype=np.int64))
    batch, _ = next(Batches(split, 10, 0, Augmentation(cutout=8), 32, colour=(9, 9, 9)).epoch(0))
    assert {9, 200} == set(np.unique(batch.numpy()))


def test_only_the_rows_that_match_are_compared() -> None:
    cases = select(["table4"], Changes(only="resnet-110*"))
    assert [case.spec.name for case in cases] == ["resnet110_cifar", "seresnet110_cifar"]
    alone = select(["table4"], Changes(only="SE-WRN*"))
    assert [case.spec.name for case in alone] == ["wrn16_8_cifar", "sewrn16_8_cifar"]
    assert [case.spec.attention.reduction for case in select(["10"], Changes(only="r=8")) if case.spec.attention] == [8]
    with pytest.raises(UsageError, match="matches none"):
        select(["table4"], Changes(only="vgg*"))


def test_tables_are_trained_row_by_row_and_go_on_where_they_were_killed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = list[Trial]()

    def fake(trial: Trial) -> TrialResult:
        ran.append(trial)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return TrialResult(
            model=trial.spec.name,
            attention=trial.spec.attention,
            dataset=trial.dataset,
            recipe=trial.recipe.name,
            epochs=trial.recipe.epochs,
            lr=trial.recipe.lr,
            seed=trial.seed,
            top1_err=0.25,
            images=20,
        )

    monkeypatch.setattr(trials, "run_trial", fake)
    asked: tuple[str, ...] = (
        "compare",
        "table4",
        "table5",
        "--only",
        "ResNet-110",
        "--no-latency",
        "--dataset",
        "paper",
    )
    asked += ("--data", str(cifar(tmp_path / "data")), "--recipe", "smoke", "--seeds", "1", "--workers", "1")
    assert run(*asked).code == 130
    done = run(*asked, "--any-protocol", "--format", "json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["rows"]
    assert len(ran) == len(rows) + 1 == 7  # the killed one twice, no other
    assert {(row["classes"], row["accuracy"]["dataset"]) for row in rows} == {(10, "cifar10"), (100, "cifar100")}
    assert {row["accuracy"]["protocol"]["recipe"] for row in rows} == {"cifar-preact-smoke"}
    cells = [cell for row in rows for cell in row["paper"] if cell["metric"] == "top1_err"]
    assert [(cell["table"], cell["status"], cell["measured"]) for cell in cells] == [
        *[("4", "other protocol", 25)] * 2,
        *[("5", "other protocol", 25)] * 2,
    ]
    assert "100 training images, not 50,000" in cells[0]["differs_in"]
    assert "2 epochs, not 164" in cells[0]["differs_in"]
    plan = run(*asked, "--dry-run", "--format", "json")
    assert json.loads(plan.out)["summary"]["stored"] == len(rows)
    assert run("compare", "seresnet20_cifar", "--dataset", "paper", "--data", str(tmp_path)).code == 2


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].task == "classification"])
def test_the_smoke_variant_of_each_recipe_trains_to_the_loss_that_it_always_has(name: str, tmp_path: Path) -> None:
    by, small = recipe(f"{name}-smoke"), spec_of("seresnet20_cifar", Changes(8, 10, 1))
    planned = Trial(arm="0", spec=small, recipe=by, seed=3, dataset="digits")
    if name.startswith("cifar"):
        folder = str(cifar(tmp_path / "data"))
        planned = replace(planned, spec=resolve("seresnet20_cifar"), dataset="cifar10", folder=folder)
    first, again = trials.run_trial(planned), trials.run_trial(planned)
    assert (first.recipe, first.top1_err) == (f"{name}-smoke", again.top1_err)
    assert first.test_loss == again.test_loss == pytest.approx(LOSSES[name], rel=1e-3)


LOSSES = {"cifar-preact": 2.33315, "cifar-wrn": 2.33087, "cifar-shakeshake": 2.32710, "cifar-shakeeven": 2.33060}
LOSSES |= {"cifar": 2.33241, "imagenet": 2.30183, "mobile": 2.29872, "ablation": 2.29909, "senet154": 2.30034}
LOSSES |= {"places365": 2.30183, "digits": 2.29989, "fashion-mnist": 2.29816}
"""The test loss of seed 3 after two steps an epoch, two epochs: small sets in CIFAR-10's files, or the digits."""
