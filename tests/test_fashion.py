"""Fashion-MNIST: read from IDX files as torchvision reads them, halved by means, and refused where it is damaged."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from senet_bench.core import datasets
from senet_bench.data import sets
from senet_bench.errors import MeasurementError
from tests.conftest import Run


def written(folder: Path, *, train: int = 40, test: int = 20, packed: bool = True) -> Path:
    """The four files with random images, labels in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, size=(count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
            file = folder / f"{part}-{name}-ubyte"
            if packed:
                file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(content))
            else:
                file.write_bytes(content)
    return folder


def test_its_images_are_torchvisions_and_at_14_px_the_means_of_four(tmp_path: Path) -> None:
    from torchvision.datasets import FashionMNIST

    written(tmp_path / "FashionMNIST" / "raw", packed=False)
    read, small = (sets.load_images(name, tmp_path) for name in ("fashion-mnist", "fashion-mnist-14"))
    assert isinstance(read.train, sets.Arrays)
    assert isinstance(small.train, sets.Arrays)
    theirs = FashionMNIST(tmp_path, train=True)
    assert np.array_equal(read.train.images[:, 0], theirs.data.numpy())
    assert read.train.labels.tolist() == theirs.targets.tolist()
    assert (len(read.test), read.size, read.channels, len(read.classes)) == (20, 28, 1, 10)
    means = read.train.images.reshape(40, 1, 14, 2, 14, 2).mean(axis=(3, 5))
    assert np.abs(small.train.images - means).max() <= 0.5
    assert (small.size, str(small.train.images.dtype)) == (14, "uint8")
    assert small.mean == pytest.approx(read.mean, abs=0.002)
    assert small.std[0] < read.std[0]


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system's package lays the files in a folder."""
    rows = (replace(row, installed=str(folder)) if row.key.startswith("fashion") else row for row in datasets._ROWS)
    monkeypatch.setattr(datasets, "_ROWS", tuple(rows))


def test_it_is_read_where_a_package_lays_it_unless_a_folder_that_has_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(written(tmp_path / "system", train=30), monkeypatch)
    assert len(sets.load_images("FashionMNIST").training()) == 30
    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    assert len(sets.load_images("fashion-mnist-14", tmp_path / "data").training()) == 30
    written(tmp_path / "data" / "fashion-mnist", train=50)
    assert len(sets.load_images("fashion-mnist", tmp_path / "data").training()) == 50


def test_what_is_missing_or_damaged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / "nowhere", monkeypatch)
    with pytest.raises(MeasurementError, match=r"expected .*train-images-idx3-ubyte\.gz"):
        sets.load_images("fashion-mnist", tmp_path)
    folder = written(tmp_path / "whole")
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    sound = labels.read_bytes()
    content = gzip.decompress(sound)
    for damaged in (sound[:20], b"no gzip at all", *map(gzip.compress, (content[:-1], content[:6], b""))):
        labels.write_bytes(damaged)
        with pytest.raises(MeasurementError, match="t10k-labels"):
            sets.load_images("fashion-mnist-14", folder)
    labels.unlink()
    with pytest.raises(MeasurementError, match=r"incomplete: expected .*t10k-labels"):
        sets.load_images("fashion-mnist", folder)


def test_a_network_is_trained_on_it(run: Run, tmp_path: Path) -> None:
    written(tmp_path / "data")
    result = run(
        *("train", "resnet20_cifar", "--dataset", "fashion-mnist-14", "--recipe", "fashion-mnist-smoke"),
        *("--data", str(tmp_path / "data"), "--results", str(tmp_path / "results"), "--format", "json"),
    )
    assert result.code == 0, result.err
    assert '"fashion-mnist-14"' in result.out
