"""Trials are known by what decides their results: data by their contents, and those stored by earlier versions."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from senet_bench.core import catalog
from senet_bench.core.learning import TrialResult
from senet_bench.core.recipes import recipe
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.store import Store, TrialStore
from senet_bench.core.stored_errors import stored_errors
from senet_bench.core.trial import Trial
from senet_bench.training.identity import data_of, former, identity_of

A_TRIAL = Trial(arm="0", spec=catalog.resolve("seresnet20_cifar"), recipe=recipe("digits").lasting(2), seed=0)


def tree(folder: Path) -> Path:
    """A folder of images: two classes, three to train on and one to test on."""
    for number, (split, name) in enumerate([("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")]):
        (folder / split / name).mkdir(parents=True)
        for image in range(3 if split == "train" else 1):
            noise = np.random.default_rng([number, image]).integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / split / name / f"{image}.png")
    return folder


@pytest.fixture(autouse=True)
def _read_anew() -> None:
    data_of.cache_clear()


def test_moving_the_data_keeps_a_trial_and_changing_them_does_not(tmp_path: Path) -> None:
    trial = replace(A_TRIAL, dataset="folder", folder=str(tree(tmp_path / "here")))
    key = identity_of(trial).key
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = replace(trial, folder=str(tmp_path / "there"))
    assert identity_of(moved).key == key
    train, val = tmp_path / "there/train", tmp_path / "there/val"
    (train / "a/0.png").write_bytes(b"another size")
    data_of.cache_clear()
    edits = [key, identity_of(moved).key]
    for old, new in ((train / "a/1.png", train / "a/9.png"), (train / "a/2.png", train / "b/2b.png")):
        old.rename(new)
        data_of.cache_clear()
        edits.append(identity_of(moved).key)
    shutil.copy(val / "b/0.png", val / "b/1.png")
    data_of.cache_clear()
    edits.append(identity_of(moved).key)
    assert len(set(edits)) == 5


def test_the_digits_are_told_by_their_pixels_and_labels() -> None:
    digits, full = data_of("digits"), data_of("digits-full")
    assert (digits.train, digits.test, digits.size, digits.classes) == (100, 1697, 8, 10)
    assert digits.labels != full.labels
    assert digits.images != full.images


def test_the_number_of_groups_is_in_the_key_and_its_own_one_is_no_other() -> None:
    trial = replace(A_TRIAL, spec=catalog.resolve("resnext50_32x4d"))
    asked = {groups: replace(trial, spec=replace(trial.spec, cardinality=groups)) for groups in (16, 32)}
    assert identity_of(asked[16]).as_dict()["network"]["options"]["cardinality"] == 16
    assert identity_of(asked[32]).key == identity_of(trial).key != identity_of(asked[16]).key


def test_a_trial_with_another_number_of_groups_is_not_one_of_the_printed_network(tmp_path: Path) -> None:
    store, results = Store(tmp_path), {16: 0.3, None: 0.2}
    for groups, error in results.items():
        trial = replace(A_TRIAL, spec=replace(catalog.resolve("resnext50_32x4d"), cardinality=groups))
        identity = identity_of(trial)
        result = TrialResult(model="resnext50_32x4d", dataset="digits", seed=0, top1_err=error)
        store.trials("here").put(identity.key, identity.as_dict(), result, {})
    (group,) = stored_errors(store).of(("resnext50_32x4d", None, 10))
    assert group.by_seed() == {0: 0.2}


def test_what_decides_nothing_is_in_no_key() -> None:
    assert identity_of(replace(A_TRIAL, arm="3", threads=2)).key == identity_of(A_TRIAL).key
    told = json.dumps(identity_of(A_TRIAL).as_dict())
    assert not [word for word in ("torch", "version", "folder", "code") if word in told]


def as_before(trial: Trial, **changes: Any) -> dict[str, Any]:
    """The definition that earlier versions stored of a trial."""
    told = {
        "model": trial.spec.name,
        "builder": "senet_bench.models.cifar:resnet",
        "options": {name: repr(value) for name, value in trial.spec.options.items()},
        "attention": asdict(trial.spec.attention) if trial.spec.attention else None,
        "recipe": trial.recipe.as_dict(),
        "dataset": trial.dataset,
        "folder": trial.folder,
        "seed": trial.seed,
        "precision": trial.precision,
        "threads": 1,
        "torch": "2.13.0",
        "version": "0.1.0",
        "code": "0123456789ab",
    }
    return json.loads(json.dumps(told | changes))  # type: ignore[no-any-return]


def kept(folder: Path, *definitions: dict[str, Any]) -> TrialStore:
    """A store with trials of earlier versions, the error of each its place."""
    store = TrialStore(folder / "machine/trials", folder)
    for place, definition in enumerate(definitions):
        store.put(f"old{place}", definition, TrialResult(top1_err=place / 10), {})
    return store


def test_trials_of_earlier_versions_are_adopted_where_they_say_the_same_science(tmp_path: Path) -> None:
    others = [
        replace(A_TRIAL, seed=1),
        replace(A_TRIAL, precision="bf16"),
        replace(A_TRIAL, recipe=recipe("digits").lasting(3)),
        replace(A_TRIAL, dataset="digits-full"),
        replace(A_TRIAL, spec=replace(A_TRIAL.spec, attention=AttentionSpec(reduction=4))),
        replace(A_TRIAL, spec=replace(A_TRIAL.spec, attention=None)),
        replace(A_TRIAL, spec=replace(A_TRIAL.spec, options={**A_TRIAL.spec.options, "units": 4})),
    ]
    before = former(kept(tmp_path, as_before(A_TRIAL), *map(as_before, others[1:])).texts())
    assert before.result(A_TRIAL) == TrialResult(top1_err=0)
    assert before.result(others[0]) is None
    assert [before.result(other) for other in others[1:]] == [TrialResult(top1_err=place / 10) for place in range(1, 7)]
    assert before.result(replace(others[-2], spec=catalog.resolve("resnet20_cifar"))) == TrialResult(top1_err=0.5)
    assert before.left_out == 0


def test_trials_of_code_from_outside_are_left_out_and_counted(tmp_path: Path) -> None:
    block = asdict(AttentionSpec(block="my_blk:Gate"))
    definitions = (
        as_before(A_TRIAL, attention=block),
        as_before(A_TRIAL, model="timm:resnet18"),
        as_before(A_TRIAL, recipe=None),
        as_before(A_TRIAL),
    )
    before = former(kept(tmp_path, *definitions).texts())
    assert before.left_out == 3
    assert before.result(A_TRIAL) == TrialResult(top1_err=0.3)
    outside = replace(A_TRIAL, spec=replace(A_TRIAL.spec, attention=AttentionSpec(block="my_blk:Gate")))
    assert before.result(outside) is None


def test_a_trial_of_now_is_no_former_one(tmp_path: Path) -> None:
    store = TrialStore(tmp_path / "machine/trials", tmp_path)
    store.put("key", identity_of(A_TRIAL).as_dict(), TrialResult(top1_err=0.1), {})
    assert former(store.texts()).result(A_TRIAL) is None
    assert former(store.texts()).left_out == 0
