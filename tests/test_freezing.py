"""`freeze`: which gates become constants, what is written and shown, and what it says where nothing can be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from senet_bench.core import catalog
from senet_bench.core.store import Store
from senet_bench.core.stored_errors import stored_errors
from senet_bench.data.sets import load_images
from senet_bench.gates.trained import Freezing, parts_of
from senet_bench.gates.trained_network import trained_network
from senet_bench.models import attention_blocks, build
from senet_bench.models.folding import folded
from senet_bench.training import weights
from tests.conftest import Run

DIGITS = ("--dataset", "digits-full", "--no-latency")


def stored_network(path: Path) -> Path:
    """Weights of a network for the digits whose gates are constant."""
    torch.manual_seed(0)
    network = build("seresnet20_cifar", in_channels=1)
    for block in attention_blocks(network).values():
        fc2: Any = block.fc2
        nn.init.zeros_(fc2.weight)
    weights.save(network, path, catalog.resolve("seresnet20_cifar"), dataset="digits-full", seed=0)
    return path


@pytest.mark.slow
def test_constant_gates_are_frozen_shown_to_lose_nothing_and_the_file_is_loaded_again(run: Run, tmp_path: Path) -> None:
    file, out = stored_network(tmp_path / "w.safetensors"), tmp_path / "frozen.safetensors"
    given = ("seresnet20_cifar", "--weights", str(file), *DIGITS, "--format", "json")
    unshown = run("freeze", *given)
    assert unshown.code == 3
    assert json.loads(unshown.out)["summary"]["needed"] > 180
    ended = run("freeze", *given, "--max-loss", "3", "--out", str(out))
    document = json.loads(ended.out)
    assert ended.code == 0, ended.err
    assert document["schema"] == "senet-bench.freeze/1"
    assert [row["outcome"] for row in document["rows"]] == ["frozen"] * 9
    summary = document["summary"]
    assert (summary["shown"], summary["frozen"]["blocks"], summary["difference"]["value"]) == (True, 0, 0.0)
    assert summary["frozen"]["params"] == sum(p.numel() for p in build("resnet20_cifar", in_channels=1).parameters())
    with_all = run(
        "evaluate", "seresnet20_cifar", "--weights", str(file), "--dataset", "digits-full", "--format", "json"
    )
    plain = run("evaluate", "resnet20_cifar", "--weights", str(out), "--dataset", "digits-full", "--format", "json")
    assert json.loads(with_all.out)["rows"][0]["top1_err"] == json.loads(plain.out)["rows"][0]["top1_err"]
    shown = run("report")
    assert "damaged" not in shown.err


def test_a_network_with_some_gates_folded_is_loaded_without_them(tmp_path: Path) -> None:
    network, file = build("seresnet20_cifar").eval(), tmp_path / "w.safetensors"
    names = list(attention_blocks(network))[2:5]
    gates = {name: torch.full((block_channels(network, name),), 0.4) for name in names}
    plain = folded(network, gates, (3, 32, 32))
    weights.save(plain, file, catalog.resolve("seresnet20_cifar"), frozen=names)
    loaded = weights.load_weights(catalog.resolve("seresnet20_cifar"), str(file))
    assert len(attention_blocks(loaded.network)) == 6
    assert any("3 gates are constants" in note for note in loaded.notes)
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.network.eval()(image), plain(image))


def test_what_was_frozen_before_and_how_images_are_normalised_stand_in_the_next_file_too(tmp_path: Path) -> None:
    network, file = build("seresnet20_cifar", in_channels=1).eval(), tmp_path / "w.safetensors"
    first, *others = attention_blocks(network)
    plain = folded(network, {first: torch.full((block_channels(network, first),), 0.4)}, (1, 8, 8))
    own = {"dataset": "digits-full", "normalisation": ((0.25,), (0.5,))}
    weights.save(plain, file, catalog.resolve("seresnet20_cifar"), **own, frozen=[first])
    spec = replace(catalog.resolve("seresnet20_cifar"), input_size=(1, 8, 8), classes=10)
    request = Freezing(model="seresnet20_cifar", weights=str(file), dataset="digits-full")
    trained = trained_network(request, spec)
    gates = {others[0]: np.full(block_channels(network, others[0]), 0.4)}
    written = trained.write(tmp_path / "more.safetensors", trained.without(gates), [others[0]], (tmp_path, "w"))
    loaded = weights.load_weights(spec, str(written), in_channels=1)
    assert list(attention_blocks(loaded.network)) == others[1:]
    assert loaded.normalisation == trained.images.normalisation == own["normalisation"]


def block_channels(network: nn.Module, name: str) -> int:
    fc2: Any = network.get_submodule(f"{name}.fc2")
    return int(fc2.out_features)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("net.onnx", "--weights", "w"), "holds its weights"),
        (("net.onnx",), "there is no file net.onnx"),
        (("seresnet20_cifar",), "needs --weights"),
        (("seresnet20_cifar", "--weights", "w", "--mean", "0.5"), "of files of ONNX"),
        (("net.onnx", "--shape", "48"), "--shape '48' is no height and width"),
        (("net.onnx", "--mean", "a"), "no list of numbers"),
        (("net.onnx", "--out", "there.safetensors"), "NAME.onnx"),
        (("seresnet20_cifar", "--weights", "w", "--img-size", "32"), "--img-size is 8 on digits, not 32"),
        (("net.onnx", "--img-size", "32"), "--img-size is 8 on digits, not 32"),
        (("net.onnx", "--shape", "8x32"), "--shape is 8 on digits, not 32"),
        (
            ("net.onnx", "--dataset", "folder", "--img-size", "32", "--shape", "8x32"),
            "--img-size and --shape exclude each other",
        ),
        (("seresnet20_cifar", "--weights", "w", "--max-loss", "0"), "--max-loss"),
    ],
)
def test_what_cannot_be_frozen_ends_in_one_line(run: Run, arguments: tuple[str, ...], told: str) -> None:
    ended = run("freeze", *arguments)
    assert ended.code == 2
    assert told in ended.err


def test_the_means_are_of_no_more_images_than_were_asked_for() -> None:
    images = load_images("digits-full")
    labels = images.training().labels
    few, more, again = (parts_of(images, most, 0)["calibration"] for most in (5, 20, 5))
    assert len(set(labels[few].tolist())) == len(few) == 5
    assert np.bincount(labels[more]).tolist() == [2] * 10
    assert few.tolist() == again.tolist()


def test_a_network_without_gates_has_nothing_to_freeze(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    weights.save(build("resnet20_cifar", in_channels=1), file, catalog.resolve("resnet20_cifar"))
    ended = run("freeze", "resnet20_cifar", "--weights", str(file), *DIGITS)
    assert ended.code == 2
    assert "has no gates to freeze" in ended.err


def test_the_error_of_a_network_with_constant_gates_is_its_own(run: Run, tmp_path: Path) -> None:
    network, file = build("seresnet20_cifar", in_channels=1).eval(), tmp_path / "w.safetensors"
    names = list(attention_blocks(network))[:2]
    plain = folded(network, {name: torch.full((block_channels(network, name),), 0.4) for name in names}, (1, 8, 8))
    weights.save(plain, file, catalog.resolve("seresnet20_cifar"), dataset="digits-full", seed=0, frozen=names)
    given = ("evaluate", "seresnet20_cifar", "--weights", str(file), "--dataset", "digits-full")
    ended = run(*given, "--latency", "--budget", "2", "--batch-size", "180", "--format", "json")
    (row,) = json.loads(ended.out)["rows"]
    assert row["latency"]["seconds"] > 0
    assert row["latency"]["conditions"]["batch_size"] == 180
    assert (row["label"], row["constant_gates"]) == ("SE-ResNet-20, 2 gates constant", names)
    assert len(list((tmp_path / "results").glob("runs/*/*.json"))) == 1
    assert stored_errors(Store(tmp_path / "results")).groups == {}
