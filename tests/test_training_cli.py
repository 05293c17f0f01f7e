"""`train` and `evaluate` as a user types them, on the embedded digits and on small folders that the tests write."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from senet_bench.api import training
from senet_bench.api.networks import Switches
from senet_bench.core.identity import NetworkIdentity
from senet_bench.core.store import Store
from senet_bench.core.stored_errors import stored_errors
from senet_bench.models import build_spec
from senet_bench.run.cases import Changes, select, spec_of
from senet_bench.training import weights
from tests.conftest import Run

QUICK = ("--dataset", "digits", "--epochs", "2", "-q", "--format", "json")


def trained(run: Run, model: str, *options: str) -> dict[str, Any]:
    ended = run("train", model, *QUICK, *options)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def jpeg_tree(root: Path, classes: int = 3, images: int = 4, side: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(images):
                noise = rng.integers(0, 255, (side, side + index, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{index}.jpg", quality=90)
    return root


def test_training_reports_every_epoch_and_keeps_weights(run: Run, tmp_path: Path) -> None:
    document = trained(run, "seresnet20_cifar", "--out", "w.safetensors")
    assert document["schema"] == "senet-bench.train/1"
    rows = document["rows"]
    assert isinstance(rows, list)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert 0 < rows[-1]["top1_err"] < 1
    assert (tmp_path / "w.safetensors").exists()


def test_a_pair_is_compared_on_the_same_images_none_of_which_it_was_trained_on(run: Run, tmp_path: Path) -> None:
    trained_rows = trained(run, "resnet20_cifar", "--out", "a.safetensors", "--seed", "1")["rows"]
    trained(run, "seresnet20_cifar", "--out", "b.safetensors", "--seed", "1")
    options = ("--weights", "a.safetensors", "--weights", "b.safetensors", "--dataset", "digits", "--format", "json")
    ended = run(
        "evaluate", "resnet20_cifar", "seresnet20_cifar", *options, "--per-class", "c.csv", "--keep-predictions", "p"
    )
    first, second = json.loads(ended.out)["rows"]
    assert first["images"] == second["images"] == 1697
    assert isinstance(trained_rows, list)
    assert first["top1_err"] == pytest.approx(trained_rows[-1]["top1_err"])
    low, high = first["ci"]
    assert low < first["top1_err"] < high
    assert second["difference"] == pytest.approx(second["top1_err"] - first["top1_err"])
    assert 0 <= second["mcnemar_p"] <= 1
    assert second["differs_in"] == []
    lines = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert sum(int(line["resnet20_cifar_wrong"]) for line in lines) == round(1697 * first["top1_err"])
    assert len(list((tmp_path / "p").glob("*.npz"))) == 2
    assert run("train", "seresnet20_cifar", "--epochs", "1", "--out", "c.safetensors", "-q").code == 0  # of seed 0
    refused = run("evaluate", "resnet20_cifar", "seresnet20_cifar", *options[:3], "c.safetensors", *options[4:])
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "the weights of seeds 0 and 1 were trained on other draws of digits" in refused.err


def test_weights_are_evaluated_with_the_attention_they_were_trained_with(run: Run, tmp_path: Path) -> None:
    trained(run, "seresnet20_cifar", "--out", "a.safetensors")
    trained(run, "seresnet20_cifar", "-r", "4", "--out", "b.safetensors")
    options = ("--weights", "a.safetensors", "--weights", "b.safetensors", "--dataset", "digits", "--format", "json")
    kept = ("--per-class", "c.csv", "--keep-predictions", "p")
    ended = run("evaluate", "seresnet20_cifar", "seresnet20_cifar", *options, *kept)
    assert ended.code == 0, ended.err
    first, second = json.loads(ended.out)["rows"]
    assert [row["attention"]["reduction"] for row in (first, second)] == [16, 4]
    assert [row["label"] for row in (first, second)] == ["SE-ResNet-20", "SE-ResNet-20 (reduction=4)"]
    assert {file.name for file in (tmp_path / "p").iterdir()} == {
        "seresnet20_cifar-digits.npz",
        "seresnet20_cifar-2-digits.npz",
    }
    lines = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    for name, row in (("seresnet20_cifar", first), ("seresnet20_cifar-2", second)):
        assert sum(int(line[f"{name}_wrong"]) for line in lines) == round(1697 * row["top1_err"])
    asked = ("excitations", "seresnet20_cifar", "--weights", "b.safetensors", "--dataset", "digits")
    ended = run(*asked, "--format", "json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["conditions"]["attention"]["reduction"] == 4


def test_an_unlike_recipe_is_said(run: Run) -> None:
    trained(run, "resnet20_cifar", "--out", "a.safetensors")
    assert run("train", "seresnet20_cifar", "--epochs", "1", "--out", "b.safetensors", "-q").code == 0
    options = ("--weights", "a.safetensors", "--weights", "b.safetensors", "--dataset", "digits")
    ended = run("evaluate", "resnet20_cifar", "seresnet20_cifar", *options)
    assert "not like for like: epochs: 2 against 1" in ended.out


def test_a_folder_of_images_trains_and_evaluates(run: Run, tmp_path: Path) -> None:
    data = str(jpeg_tree(tmp_path / "tree"))
    smoke = ("--recipe", "imagenet-smoke", "-b", "4", "--img-size", "64")
    ended = run("train", "seresnet18", "--dataset", "folder", "--data", data, *smoke, "--out", "w.safetensors", "-q")
    assert ended.code == 0, ended.err
    options = ("--weights", "w.safetensors", "--dataset", "folder", "--data", data, "--img-size", "64")
    as_json = ("evaluate", "seresnet18", *options, "--format", "json")
    for more in (("--cache", "crops"), ("--cache", "crops", "--fast")):
        (row,) = json.loads(run(*as_json, *more).out)["rows"]
        assert (row["images"], row["size"], row["top5_err"]) == (12, 64, None)
    broken = tmp_path / "tree" / "val" / "class1" / "0.jpg"
    broken.write_bytes(b"not an image")
    failed = run(*as_json)
    assert failed.code == 5
    assert str(broken) in failed.err
    for cache in ((), ("--cache", "crops")):
        (row,) = json.loads(run(*as_json, "--skip-corrupt", *cache).out)["rows"]
        assert (row["images"], row["skipped"]) == (11, [str(broken)])
    printed = run("evaluate", "seresnet18", *options, "--skip-corrupt").out
    assert "1 unreadable image left out" in printed
    assert "no top-5 error: the data set has fewer than five classes" in printed


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "resnet20"), 2, "resnet20_cifar"),
        (("train", "resnet20_cifar", "--dataset", "mnist"), 2, "mnist"),
        (("train", "resnet20_cifar", "--dataset", "cifar10"), 2, "--data"),
        (("train", "resnet20_cifar", "--dataset", "cifar10", "--data", "nowhere"), 5, "nowhere"),
        (("train", "resnet20_cifar", "--recipe", "cifra"), 2, "cifar"),
        (("train", "resnet20_cifar", "--epochs", "0"), 2, "epochs"),
        (("train", "resnet20_cifar", "-b", "0"), 2, "batch"),
        (("train", "resnet20_cifar", "--device", "cuda:97"), 2, "cuda:97"),
        (("train", "resnet20_cifar", "--out", "."), 2, "folder"),
        (("evaluate", "resnet20_cifar", "--dataset", "digits"), 2, "weights"),
        (("evaluate", "resnet20_cifar", "--dataset", "digits", "--weights", "no.safetensors"), 5, "no.safetensors"),
        (
            ("evaluate", "resnet20_cifar", "--dataset", "digits", "--weights", "w", "--img-size", "32"),
            2,
            "--img-size is 8 on digits, not 32",
        ),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_a_network_of_other_groups_is_trained_stored_and_evaluated_as_such(run: Run, tmp_path: Path) -> None:
    spec = spec_of("resnext50_32x4d", Changes(cardinality=16))
    weights.save(build_spec(spec, 3), tmp_path / "w.safetensors", spec, dataset="folder")
    data = str(jpeg_tree(tmp_path / "tree", images=1))
    options = ("--weights", "w.safetensors", "--dataset", "folder", "--data", data, "--img-size", "32")
    ended = run("evaluate", "resnext50_32x4d", *options, "--format", "json")
    assert ended.code == 0, ended.err
    (row,) = json.loads(ended.out)["rows"]
    assert (row["label"], row["cardinality"]) == ("ResNeXt-50 (16x4d)", 16)
    assert stored_errors(Store(tmp_path / "results")).groups == {}
    refused = run("train", "resnext50_32x4d", *options)
    assert (refused.code, "with 16 groups, not 32; give --cardinality 16" in refused.err) == (2, True)
    no_groups = run("train", "resnet50", "--dataset", "digits", "--cardinality", "16")
    assert (no_groups.code, "no grouped convolutions" in no_groups.err) == (2, True)
    asked = training._spec("seresnext50_32x4d", "digits", Switches(), None, 16)
    trial = select(["seresnext50_32x4d"], Changes(cardinality=16))[1].spec
    assert (
        NetworkIdentity.of(asked) == NetworkIdentity.of(trial) != NetworkIdentity.of(replace(trial, cardinality=None))
    )


def test_weights_of_another_network_are_refused_with_the_id_that_fits(run: Run) -> None:
    trained(run, "seresnet20_cifar", "--out", "w.safetensors")
    ended = run("evaluate", "resnet20_cifar", "--dataset", "digits", "--weights", "w.safetensors")
    assert ended.code == 2
    assert "seresnet20_cifar" in ended.err


def test_a_killed_run_resumes_to_the_same_bits(run: Run, tmp_path: Path) -> None:
    asked = ("train", "seresnet20_cifar", "--dataset", "digits", "--epochs", "2", "-q", "--out")
    command = [sys.executable, "-m", "senet_bench", *asked, "cut.safetensors"]
    victim = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut.checkpoint").exists() and victim.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert run(*asked, "cut.safetensors", "--resume").code == 0
    assert run(*asked, "whole.safetensors", "--fresh").code == 0
    whole, cut = load_file("whole.safetensors"), load_file("cut.safetensors")
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize(
    ("settings", "changed", "told"),
    [
        (("--img-size", "32"), ("--img-size", "40"), "data.size: 32 there, 40 here"),
        ((), ("--accumulate", "2"), "accumulate: None there, 2 here"),
    ],
)
def test_a_checkpoint_goes_on_under_its_own_settings_alone(
    run: Run, tmp_path: Path, settings: tuple[str, ...], changed: tuple[str, ...], told: str
) -> None:
    folder = jpeg_tree(tmp_path / "images")
    asked = ("train", "seresnet18", "--dataset", "folder", "--data", str(folder), "--epochs", "1", "-b", "4")
    command = (*asked, "--recipe", "cifar", "--out", "cut.safetensors", "-q")
    assert run(*command, *settings).code == 0
    Path("cut.safetensors").unlink()  # as where it was cut before its end
    ended = run(*command, *changed, "--resume")
    assert ended.code == 2, ended.err
    assert f"cut.checkpoint is of another run ({told})" in ended.err


@pytest.mark.slow
def test_torchrun_trains_with_two_processes(run: Run, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        "-m",
        "senet_bench",
        "train",
        "seresnet20_cifar",
        "--dataset",
        "digits",
        "--epochs",
        "2",
        "--format",
        "json",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, *command, "--sync-bn", "--out", "two.safetensors"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    one = trained(run, "seresnet20_cifar", "--out", "one.safetensors")
    assert two["conditions"]["processes"] == 2
    rows = one["rows"]
    assert isinstance(rows, list)
    assert two["rows"][-1]["train_loss"] == pytest.approx(rows[-1]["train_loss"], rel=1e-3)


def test_compare_with_a_data_set_shows_the_whole_trade_off(run: Run) -> None:
    options = ("--dataset", "digits", "--seeds", "2", "--epochs", "1", "--budget", "0.4", "--format", "json")
    ended = run("compare", "resnet20_cifar", *options, "--workers", "1")
    assert ended.code == 0, ended.err
    base, variant, control = json.loads(ended.out)["rows"]
    assert base["input_size"] == [1, 8, 8]
    assert control["attention"]["block"] == "constant"
    assert variant["latency"]["ratio"] > 0
    accuracy = variant["accuracy"]
    assert accuracy["seeds"] == 2
    low, high = accuracy["difference_ci"]
    assert low <= accuracy["difference"] <= high
    assert accuracy["control_difference"] == pytest.approx(accuracy["top1_err"] - control["accuracy"]["top1_err"])
    assert base["accuracy"]["protocol"] == accuracy["protocol"]


def test_a_training_that_left_images_out_is_no_trial_and_no_answer_to_one_over_all(run: Run, tmp_path: Path) -> None:
    folder = jpeg_tree(tmp_path / "images")
    asked = ("train", "seresnet18", "--dataset", "folder", "--data", str(folder), "--recipe", "cifar", "-b", "4")
    options = ("--img-size", "32", "--epochs", "1", "--skip-corrupt", "--format", "json")
    trials = tmp_path / "results" / "runs"
    next((folder / "val").rglob("*.jpg")).write_bytes(b"no image")
    (row,) = json.loads(run(*asked, *options).out)["rows"]
    assert row["skipped"] == 1
    assert not [*trials.glob("*/trials/*.json")]
    again = json.loads(run(*asked, *options).out)["conditions"]["notes"]
    assert "nothing was trained (--fresh trains again)" in again[-1]
    for more in ((), ("--resume",)):
        whole = run(*asked, *(option for option in options if option != "--skip-corrupt"), *more)
        assert (whole.code, "is missing or corrupt" in whole.err) == (5, True)


def test_a_batch_that_the_images_do_not_fill_is_trained_and_told_as_what_it_is(run: Run) -> None:
    sizes = ("256", "100")
    large, exact = (trained(run, "resnet20_cifar", "-b", size, "--out", f"{size}.safetensors") for size in sizes)
    for document in (large, exact):
        conditions = document["conditions"]
        assert (conditions["batch_size"], conditions["lr"]) == (100, pytest.approx(0.2))
    assert large["summary"]["top1_err"] == exact["summary"]["top1_err"]
    told = "batch 100 instead of 256 and lr 0.2 instead of 0.512: there are no more training images"
    assert told in large["conditions"]["notes"]
    assert not any("instead of" in note for note in exact["conditions"]["notes"])
    rated = trained(run, "resnet20_cifar", "-b", "256", "--lr", "0.05", "--fresh")["conditions"]
    assert (rated["batch_size"], rated["lr"]) == (100, 0.05)


def test_an_alias_of_a_data_set_is_the_data_set(run: Run) -> None:
    asked = ("--epochs", "1", "--format", "json")
    done = json.loads(run("train", "resnet20_cifar", "--dataset", "Digits-100", *asked).out)["conditions"]
    assert (done["dataset"], done["recipe"]) == ("digits", "digits")
    options = ("--no-latency", "--dataset", "digits-100", "--seeds", "1", "--workers", "1", *asked)
    rows = json.loads(run("compare", "resnet20_cifar", *options).out)["rows"]
    assert {tuple(row["input_size"]) for row in rows} == {(1, 8, 8)}
    assert {(row["accuracy"]["dataset"], row["accuracy"]["protocol"]["recipe"]) for row in rows} == {("digits",) * 2}


def test_no_run_writes_over_the_weights_of_another(run: Run, tmp_path: Path) -> None:
    asked = ("train", "seresnet20_cifar", "--recipe", "digits-smoke", "-q")
    for more in ((), ("-r", "4"), ("--seed", "3"), ("--ema", "0.9"), ()):
        ended = run(*asked, *more)
        assert ended.code == 0, ended.err
    names = sorted(path.name for path in (tmp_path / "results" / "weights").glob("*.safetensors"))
    assert len(names) == 4
    assert all(re.fullmatch(r"seresnet20_cifar-digits-digits-smoke-[0-9a-f]{8}\.safetensors", name) for name in names)
    assert run(*asked, "--out", "w.safetensors").code == 0
    ended = run(*asked, "--out", "w.safetensors", "--seed", "1")
    assert (ended.code, ended.out) == (2, "")
    assert "w.safetensors holds the weights of another run; move it away" in ended.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--accumulate", "0"),
        ("--accumulate", "-1"),
        ("--ema", "2"),
        ("--lr", "-1"),
        ("--seed", "-1"),
        ("--seed", "9" * 20),
    ],
)
def test_numbers_that_nothing_can_be_trained_with_are_usage_errors(run: Run, option: str, value: str) -> None:
    ended = run("train", "seresnet20_cifar", option, value, "-q")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)


def test_what_a_recipe_takes_otherwise_than_the_paper_is_stored_and_shown() -> None:
    from senet_bench.core.learning import TrainSummary
    from senet_bench.core.recipes import recipe
    from senet_bench.core.results import Facts, from_json, to_json
    from senet_bench.core.schemas import schema_of
    from senet_bench.run.tables import training_document

    about = {"model": "m", "dataset": "d", "recipe": "cifar", "batch_size": 1, "lr": 0.1, "epochs": 1, "seed": 0}
    about |= {"device": "cpu", "precision": "fp32", "deviations": list(recipe("cifar").deviations)}
    document = {
        "schema": schema_of("train"),
        "version": "",
        "created": "",
        "environment": {},
        "conditions": about,
        "rows": [],
    }
    facts = from_json(to_json(document).encode(), "f")
    assert isinstance(facts, Facts)
    notes = training_document(facts).wide[0].notes
    assert any("64k iterations taken as 164 epochs" in note for note in notes)
    assert notes[-1] == "it did not end: there are no weights of it"
    ended = replace(facts, summary=TrainSummary(weights="w.safetensors"))
    assert training_document(ended).wide[0].notes[-1] == "weights in w.safetensors"


def test_files_are_shown_at_the_networks_own_size(tmp_path: Path) -> None:
    from senet_bench.core.catalog import resolve
    from senet_bench.run.training import TrainingRequest

    tree = jpeg_tree(tmp_path / "set")
    sizes = {"inception_resnet_v2": 299, "seresnet20_cifar": 32, "resnet50": 224}
    for model, size in sizes.items():
        assert TrainingRequest(spec=resolve(model), dataset="folder", folder=tree).read().size == size


def test_a_training_is_the_trial_of_a_sweep_at_its_settings_and_seed(run: Run) -> None:
    options = ("--dataset", "digits", "--epochs", "1", "--format", "json", "-q")
    switches = ("--integration", "pre", "--attention", "eca")
    trained = json.loads(run("train", "seresnet20_cifar", *switches, *options).out)
    assert run("train", "resnet20_cifar", *options).code == 0
    planned = json.loads(run("compare", "seresnet20_cifar", *switches, "--no-latency", *options, "--seeds", "1").out)
    base, variant = (row["accuracy"] for row in planned["rows"] if row["role"] != "control")
    assert variant["per_seed"] == {"0": pytest.approx(trained["summary"]["top1_err"], abs=1e-12)}
    assert len(list(Path("results").glob("runs/*/trials/*.json"))) == 3
    assert base["seeds"] == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("resnet20_cifar", "-r", "4"), "has no attention to switch"),
        (("seresnet20_cifar", "--img-size", "32", "--dataset", "digits"), "--img-size is 8 on digits, not 32"),
        (("fasterrcnn_seresnet18_fpn", "--img-size", "32", "--dataset", "coco"), "leave out --img-size"),
    ],
)
def test_what_would_change_nothing_in_a_training_is_refused(run: Run, options: tuple[str, ...], text: str) -> None:
    ended = run("train", *options)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert text in ended.err


def test_what_is_stored_is_not_trained_again_and_says_so(run: Run, tmp_path: Path) -> None:
    asked = ("train", "seresnet20_cifar", "--recipe", "digits-smoke", "-q", "--format", "json")
    first = json.loads(run(*asked).out)
    (file,) = (tmp_path / "results" / "weights").glob("*.safetensors")
    written = file.stat().st_mtime_ns
    for more in ((), ("--resume",)):
        again = json.loads(run(*asked, *more).out)
        assert (again["rows"], again["summary"]) == (first["rows"], first["summary"])
        assert "nothing was trained (--fresh trains again)" in again["conditions"]["notes"][-1]
    assert file.stat().st_mtime_ns == written
    fresh = json.loads(run(*asked, "--fresh").out)
    assert "trained again with --fresh" in fresh["conditions"]["notes"][-1]
    elsewhere = json.loads(run(*asked, "--out", "w.safetensors").out)
    assert "trained again for its weights" in elsewhere["conditions"]["notes"][-1]
    for name in (file.stem, file.stem[-8:]):
        row = json.loads(run("evaluate", asked[1], "--weights", name, "--dataset", "digits", *asked[-3:]).out)
        assert row["rows"][0]["top1_err"] == pytest.approx(first["summary"]["top1_err"], abs=1e-12)
    for record in (tmp_path / "results" / "runs").glob("*/*train*.json"):
        record.unlink()
    assert "is stored, top-1 error" in run(*asked[:-2]).out


def test_a_finished_training_that_is_no_trial_is_shown_when_it_is_resumed(run: Run) -> None:
    asked = ("train", "seresnet20_cifar", "--recipe", "digits-smoke", "-q", "--format", "json")
    run(*asked, "--out", "w.safetensors")
    tuned = (*asked, "--weights", "w.safetensors", "--out", "v.safetensors")
    first, again = (json.loads(run(*tuned, *more).out) for more in ((), ("--resume",)))
    assert again["rows"] == first["rows"]
    assert "this training has ended before; nothing was trained" in again["conditions"]["notes"][-1]


class Tiny(torch.nn.Module):
    """Two stages and a classifier."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(in_chans, 16, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.fc = torch.nn.Linear(32, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_a_network_from_outside_with_attention_is_trained_evaluated_and_observed(run: Run, tmp_path: Path) -> None:
    name = "tests.test_training_cli:Tiny"
    images = ("--dataset", "digits", "-q", "--format", "json")
    ended = run("train", name, "--attach", "--attention", "eca", "--epochs", "1", *images)
    assert ended.code == 0, ended.err
    (file,) = (tmp_path / "results" / "weights").glob("*.safetensors")
    for model in ((name, "--attach"), (f"{name}+attach",)):
        (row,) = json.loads(run("evaluate", *model, "--weights", file.stem[-8:], *images).out)["rows"]
        assert (row["attention"]["block"], row["label"]) == ("eca", f"{name} + attention + eca")
        assert row["top1_err"] == pytest.approx(json.loads(ended.out)["summary"]["top1_err"], abs=1e-12)
    gates = run("excitations", name, "--attach", "--attention", "eca", "--weights", file.stem[-8:], *images)
    assert gates.code == 0, gates.err
    assert json.loads(gates.out)["rows"]


def test_an_interrupted_training_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Progress as Bar

    def interrupt(bar: Bar, task: object, **moment: object) -> None:
        if float(str(moment.get("completed", 0))) >= 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "update", interrupt)
    ended = run("train", "seresnet20_cifar", "--recipe", "digits-smoke", "--epochs", "3")
    assert (ended.code, ended.out) == (130, "")
    assert ended.err.endswith("; go on with --resume\n")


NARROW = """
from torch import nn

def narrow(num_classes=10, in_chans=1):
    layers = [nn.Conv2d(in_chans, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


def test_a_network_too_narrow_for_the_usual_reduction_is_evaluated_as_it_was_trained(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "narrow_net.py").write_text(NARROW)
    asked = ("narrow_net:narrow", "--attach", "--dataset", "digits", "--img-size", "8")
    ended = run("train", *asked, "-r", "4", "--recipe", "digits-smoke", "--out", "w.safetensors")
    assert ended.code == 0, ended.err
    found = run("evaluate", *asked, "--weights", "w.safetensors", "--format", "json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["rows"][0]["attention"]["reduction"] == 4
