"""The paper's error cells, filled from stored errors of their own protocol and from no others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from senet_bench.core.catalog import resolve
from senet_bench.core.datasets import DATASETS
from senet_bench.core.error_cells import ERRORS, Asked, error_cell, gain_cells, printed_gain
from senet_bench.core.identity import recipe_facts
from senet_bench.core.learning import ClassifierRow, TrialResult
from senet_bench.core.paper import CellStatus, cells
from senet_bench.core.recipes import Recipe, recipe
from senet_bench.core.reproduction import paper_cells
from senet_bench.core.specs import AttentionSpec, ModelSpec
from senet_bench.core.store import Store
from senet_bench.core.stored_errors import StoredErrors, of_evaluation, stored_errors, trial_errors
from senet_bench.core.studies import STUDIES
from tests.conftest import Run


def put(store: Store, model: str, by: Recipe, errors: list[float], **changes: Any) -> None:
    """Store trials of a network by a recipe on the whole of a data set, one a seed."""
    precision = changes.pop("precision", "fp32")
    spec = changes.pop("spec", resolve(model))
    dataset = changes.pop("dataset", "cifar10")
    train, test = DATASETS[dataset].images or (0, 0)
    classes = DATASETS[dataset].classes or 10
    data = {"name": dataset, "size": spec.input_size[1], "classes": classes, "train": train, "test": test}
    data |= changes.pop("data", {})
    for seed, error in enumerate(errors):
        definition = {"data": data, "recipe": recipe_facts(by), "batch": by.batch_size, "seed": seed, **changes}
        result = TrialResult(
            model=spec.name,
            attention=spec.attention,
            dataset=dataset,
            recipe=by.name,
            epochs=by.epochs,
            lr=by.lr,
            seed=seed,
            precision=precision,
            images=data["test"],
            top1_err=error,
            top5_err=error / 4,
        )
        key = f"{len(list((store.root / 'runs').glob('m/trials/*.json'))):016x}"
        store.trials("m").put(key, definition, result, {})


def judged(store: Store, model: str, table: str, **changes: Any) -> dict[str, CellStatus]:
    """The error cells of a network in a table by column and metric, its gain among them."""
    study = STUDIES[f"table{table}"]
    spec = changes.pop("spec", resolve(model))
    spec = replace(spec, classes=study.classes or spec.classes)
    asked = Asked(spec, stored_errors(store), **changes)
    printed = [cell for cell in paper_cells(spec, study.id) if cell.metric in ERRORS]
    found = [*(error_cell(cell, asked) for cell in printed), *gain_cells(printed, asked)]
    return {f"{cell.column}.{cell.metric}": cell for cell in found}


PREACT = recipe("cifar-preact")


def test_an_error_of_the_cells_protocol_is_judged_by_its_interval_over_seeds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "resnet110_cifar", PREACT, [0.0630, 0.0641, 0.0645])
    put(store, "seresnet110_cifar", PREACT, [0.0560, 0.0571, 0.0569])
    base, variant = judged(store, "resnet110_cifar", "4"), judged(store, "seresnet110_cifar", "4")
    cell = base["original.top1_err"]
    assert (cell.status, cell.printed, cell.convention) == ("match", "6.37", "table4")
    assert (cell.seeds, cell.ci_over) == (3, "seeds")
    assert cell.measured == pytest.approx(6.3867, abs=1e-3)
    assert cell.ci is not None
    assert cell.ci[0] < 6.37 < cell.ci[1]
    assert cell.command is None
    worse = variant["senet.top1_err"]
    assert (worse.status, worse.printed) == ("differs", "5.21")
    assert worse.explanation.startswith("+0.46 points (+")
    gain = variant["senet.top1_gain"]
    assert (gain.status, gain.printed, gain.seeds) == ("same sign", "1.16", 3)
    assert gain.measured == pytest.approx(0.72, abs=0.01)
    assert "difference of two printed errors" in gain.explanation


def test_an_error_of_one_seed_has_wilsons_interval(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "resnet110_cifar", PREACT, [0.0640])
    put(store, "seresnet110_cifar", PREACT, [0.0530])
    cell = judged(store, "resnet110_cifar", "4")["original.top1_err"]
    assert (cell.status, cell.ci_over, cell.seeds) == ("match", "images", 1)
    assert cell.ci == pytest.approx((5.94, 6.90), abs=0.02)
    gain = judged(store, "seresnet110_cifar", "4")["senet.top1_gain"]
    assert (gain.status, gain.ci) == ("not shown", None)
    assert gain.measured == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("changes", "by", "said"),
    [
        ({}, PREACT.lasting(30), "30 epochs, not 164"),
        ({}, PREACT.scaled(64), "batch 64, not 128"),
        ({}, replace(PREACT, lr=0.05), "learning rate 0.05, not 0.1"),
        ({}, recipe("cifar"), "recipe cifar, not cifar-preact"),
        ({}, replace(PREACT, weight_decay=0), "another weight decay"),
        ({}, recipe("cifar-preact-smoke"), "2 epochs, not 164, batch 16, not 128, another number of steps"),
        ({"data": {"train": 100}}, PREACT, "100 training images, not 50,000"),
        ({"data": {"test": 20}}, PREACT, "20 test images, not 10,000"),
        ({"data": {"size": 40}}, PREACT, "40 px, not 32"),
        ({"start": "weights a.safetensors"}, PREACT, "started from weights a.safetensors"),
        ({"ema": 0.99}, PREACT, "an average of its weights"),
        ({"code": "0123", "batch": None}, PREACT, "another recipe (its facts are not stored)"),
    ],
)
def test_a_cell_names_what_differs_and_shows_the_number_only_when_asked(
    changes: dict[str, Any], by: Recipe, said: str, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    put(store, "resnet110_cifar", by, [0.3, 0.4], **changes)
    cell = judged(store, "resnet110_cifar", "4")["original.top1_err"]
    assert (cell.status, cell.measured) == ("not measured", None)
    assert said in ", ".join(cell.differs_in)
    assert said in cell.explanation
    assert cell.command == "senet-bench compare table4 --only 'ResNet-110' --no-latency --dataset cifar10 --data DIR"
    shown = judged(store, "resnet110_cifar", "4", any_protocol=True)["original.top1_err"]
    assert (shown.status, shown.convention) == ("other protocol", by.name)
    assert shown.measured == pytest.approx(35)


def test_every_error_cell_can_be_filled_and_says_which_command_does_it(tmp_path: Path) -> None:
    store, filled = Store(tmp_path), dict[str, int]()
    for study in STUDIES.values():
        if study.table == "7":
            continue
        for subject in study.subjects:
            spec = replace(resolve(subject.model), attention=subject.attention)
            images = study.train_images or (DATASETS[study.dataset].images or (0, 0))[0]
            put(
                store,
                spec.name,
                recipe(study.recipe_of(spec.baseline or spec.name)),
                [0.2],
                spec=spec,
                dataset=study.dataset,
                data={"train": images},
            )
    for study in STUDIES.values():
        for subject in study.subjects if study.table != "7" else ():
            spec = replace(resolve(subject.model), attention=subject.attention)
            for cell in judged(store, spec.name, study.table, spec=spec).values():
                repeated = cell.column == "original" and study.table in ("2", "3")
                larger = cell.column == "320/299" and spec.input_size[1] == 224
                known = cell.status != "not measured"
                assert known != (repeated or larger or cell.printed == "-"), cell
                assert bool(cell.command) == (larger and cell.printed != "-"), cell
                filled[study.table] = filled.get(study.table, 0) + known
    assert set(filled) == {"2", "3", "4", "5", "6", "8", *map(str, range(10, 17))}


def test_the_gain_of_an_ablation_is_over_table_10s_baseline() -> None:
    (relu,) = (cell for cell in cells("12", "ReLU") if cell.metric == "top1_err")
    gain = printed_gain(relu)
    assert gain is not None
    assert gain.printed == "-0.17"
    (own,) = (cell for cell in cells("2", "ResNet-50", "senet") if cell.metric == "top1_err")
    assert printed_gain(own) == next(cell for cell in cells("2", "ResNet-50", "senet") if cell.metric == "top1_gain")
    (base,) = (cell for cell in cells("10", "r=original") if cell.metric == "top1_err")
    assert printed_gain(base) is None


@pytest.mark.parametrize(
    ("base", "own", "status"),
    [
        ([0.0640, 0.0642, 0.0638], [0.0525, 0.0526, 0.0521], "same sign and inside"),
        ([0.0640, 0.0642, 0.0638], [0.0600, 0.0602, 0.0597], "same sign"),
        ([0.0640, 0.0642, 0.0638], [0.0600, 0.0690, 0.0630], "not shown"),
        ([0.0640, 0.0642, 0.0638], [0.0700, 0.0702, 0.0697], "opposite"),
    ],
)
def test_a_gain_has_a_status_of_its_own(base: list[float], own: list[float], status: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "resnet110_cifar", PREACT, base)
    put(store, "seresnet110_cifar", PREACT, own)
    assert judged(store, "seresnet110_cifar", "4")["senet.top1_gain"].status == status


def test_an_error_on_another_data_set_stands_in_no_cell_and_hides_none_on_the_cells_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "resnet110_cifar", PREACT, [0.03, 0.04], dataset="digits")
    cell = judged(store, "resnet110_cifar", "4", any_protocol=True)["original.top1_err"]
    assert (cell.status, cell.measured, cell.differs_in) == ("not measured", None, ("on digits, not cifar10",))
    put(store, "resnet110_cifar", replace(PREACT, lr=0.05).lasting(30), [0.3, 0.4])
    cell = judged(store, "resnet110_cifar", "4", any_protocol=True)["original.top1_err"]
    assert cell.status == "other protocol"
    assert cell.measured == pytest.approx(35)


def test_a_gain_is_over_the_most_seeds_that_share_their_data(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = {"labels": "other", "images": "other"}
    put(store, "seresnet110_cifar", PREACT, [0.09], precision="bf16")
    put(store, "seresnet110_cifar", PREACT, [0.05, 0.06, 0.07, 0.05], data=other)
    put(store, "seresnet110_cifar", PREACT, [0.0525, 0.0526, 0.0521])
    put(store, "resnet110_cifar", PREACT, [0.0640, 0.0642, 0.0638])
    gain = judged(store, "seresnet110_cifar", "4")["senet.top1_gain"]
    assert gain.seeds == 3
    assert gain.measured == pytest.approx(1.16)


def evaluated(**changes: Any) -> ClassifierRow:
    told: dict[str, Any] = {
        "model": "seresnet50",
        "label": "SE-ResNet-50",
        "attention": resolve("seresnet50").attention,
        "weights": "/cache/blob",
        "notes": [],
        "dataset": "imagenet",
        "size": 224,
        "precision": "fp32",
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "images": 50_000,
        "skipped": [],
        "top1_err": 0.2236,
        "ci": (0.22, 0.227),
        "top5_err": 0.063,
        "loss": 1.0,
        "recipe": None,
        "epochs": None,
        "classes": 1000,
        "origin": "timm:legacy_seresnet50.in1k",
    }
    return ClassifierRow(**told | changes)


def cell_of(row: ClassifierRow, table: str, spec: ModelSpec) -> CellStatus:
    cell = next(cell for cell in paper_cells(spec, f"table{table}") if cell.metric == "top1_err")
    return error_cell(cell, Asked(spec, StoredErrors([of_evaluation(row)])))


def test_the_authors_weights_stand_in_table_2_as_released_weights() -> None:
    spec = resolve("seresnet50")
    cell = cell_of(evaluated(), "2", spec)
    assert cell.status == "released weights"
    assert cell.measured == pytest.approx(22.36)
    assert cell.differs_in == ("the authors' released weights, of another training",)
    few = cell_of(evaluated(images=2000), "2", spec)
    assert few.differs_in[0] == "2,000 test images, not 50,000"
    assert few.status == "released weights"
    assert cell_of(evaluated(size=320), "2", spec).differs_in[0] == "320 px, not 224"
    assert cell_of(evaluated(labels="ImageNetV2"), "2", spec).differs_in[0] == "labels of ImageNetV2"
    assert cell_of(evaluated(origin="timm:seresnet50.a1_in1k"), "2", spec).status == "not measured"
    assert cell_of(evaluated(), "14", spec).status == "not measured"


def test_a_table_with_cells_of_every_status_is_drawn_in_every_format(run: Run, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    put(store, "resnet110_cifar", PREACT, [0.0630, 0.0641, 0.0645])
    put(store, "seresnet110_cifar", PREACT, [0.0560, 0.0571, 0.0569])
    put(store, "wrn16_8_cifar", recipe("cifar-wrn").lasting(30), [0.06])
    asked = ("compare", "table4", "--no-latency")
    rows = json.loads(run(*asked, "--format", "json").out)["rows"]
    found = {row["model"]: {cell["metric"]: cell for cell in row["paper"]} for row in rows}
    assert found["resnet110_cifar"]["top1_err"]["status"] == "match"
    assert found["seresnet110_cifar"]["top1_err"]["status"] == "differs"
    assert found["seresnet110_cifar"]["top1_gain"]["status"] == "same sign"
    assert found["wrn16_8_cifar"]["top1_err"]["differs_in"] == ["30 epochs, not 200"]
    assert "training_operations" in found["resnet164_cifar"]["top1_err"]
    table = run(*asked, "--any-protocol").out
    assert "other protocol: 30 epochs, not 200" in " ".join(table.split())
    for form in ("csv", "latex"):
        text = run(*asked, "--format", form).out
        assert "differs" in text
        assert "6.39" in text or "6.386" in text, form
    run("report")
    page = (tmp_path / "results" / "index.html").read_text()
    assert "same sign" in page
    assert "30 epochs, not 200" in page
    assert "differs" in (tmp_path / "results" / "tables" / "table4.md").read_text()


def test_a_gain_of_two_networks_on_the_same_images_is_paired_by_image(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "seresnet50", recipe("imagenet"), [0.24], dataset="imagenet")
    ((key, (network, _)),) = trial_errors(store).items()
    told = {"against": "resnet50", "difference": -0.0148, "difference_ci": (-0.019, -0.011)}
    row = evaluated(origin=None, trial=key, recipe="imagenet", epochs=100, **told)
    same, error = of_evaluation(row, trial_errors(store))
    assert (same, error.seed, error.origin.train_images) == (network, 0, 1_281_167)
    spec = resolve("seresnet50")
    printed = paper_cells(spec, "table2")
    (gain,) = gain_cells(printed, Asked(spec, StoredErrors([(same, error)])))
    assert (gain.status, gain.printed, gain.ci_over) == ("same sign and inside", "1.51", "images")
    assert gain.measured == pytest.approx(1.48)
    assert gain.ci == pytest.approx((1.1, 1.9))


def test_seeds_that_were_evaluated_at_another_crop_are_joined(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "seresnet50", recipe("imagenet"), [0.24, 0.25, 0.26], dataset="imagenet")
    trials = trial_errors(store)
    told: dict[str, Any] = {"origin": None, "recipe": "imagenet", "epochs": 100}
    rows = [evaluated(trial=key, weights=f"/{key}", size=320, **told) for key in trials]
    rows.append(evaluated(trial=next(iter(trials)), size=320, precision="bf16", **told))
    rows += [evaluated(origin=None, weights=f"/{name}", size=320) for name in ("a", "b")]
    known = StoredErrors(of_evaluation(row, trials) for row in rows)
    network, _ = of_evaluation(rows[0], trials)
    assert [len(group.errors) for group in known.of(network)] == [3, 1, 1, 1]


def test_a_gain_of_one_seed_gives_way_to_one_by_image(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "resnet50", recipe("imagenet"), [0.25], dataset="imagenet")
    put(store, "seresnet50", recipe("imagenet"), [0.24], dataset="imagenet")
    trials = trial_errors(store)
    key = next(key for key, (network, _) in trials.items() if network[1] is not None)
    told: dict[str, Any] = {"against": "resnet50", "difference": -0.0148, "difference_ci": (-0.019, -0.011)}
    row = evaluated(origin=None, trial=key, recipe="imagenet", epochs=100, **told)
    known = StoredErrors([*trials.values(), of_evaluation(row, trials)])
    spec = resolve("seresnet50")
    (gain,) = gain_cells(paper_cells(spec, "table2"), Asked(spec, known))
    assert gain.ci_over == "images"
    assert gain.measured == pytest.approx(1.48)


def test_what_train_stored_stands_in_the_row_of_an_ablation(run: Run, tmp_path: Path) -> None:
    pre = replace(resolve("seresnet50"), attention=AttentionSpec(integration="pre"))
    put(Store(tmp_path / "results"), "seresnet50", recipe("ablation-smoke"), [0.9], spec=pre, dataset="imagenet")
    asked = ("ablate", "--integration", "standard,pre", "--any-protocol", "--format", "json")
    rows = json.loads(run(*asked).out)["rows"]
    found = {row["label"]: {cell["metric"]: cell for cell in row["paper"]} for row in rows}
    cell = found["SE-ResNet-50 (integration=pre)"]["top1_err"]
    assert (cell["table"], cell["row"], cell["status"], cell["measured"]) == ("14", "SE-PRE", "other protocol", 90)
    assert "2 epochs, not 300" in cell["differs_in"]
    assert found["SE-ResNet-50"]["top1_err"]["status"] == "not measured"
