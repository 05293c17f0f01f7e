"""Data sets are fetched with their checksum, from a server of this machine in these tests, and read where they lie."""

from __future__ import annotations

import functools
import hashlib
import http.server
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from senet_bench.data import downloads
from senet_bench.data.downloads import ARCHIVES, download
from senet_bench.data.sets import load_images
from senet_bench.errors import MeasurementError, UsageError
from tests.conftest import Run
from tests.test_table_recipes import cifar


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that says nothing."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's name
        """Nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose archives stand in for the published ones."""
    folder = tmp_path / "served"
    folder.mkdir()
    (tree := tmp_path / "tree").mkdir()
    cifar(tree)
    for split in ("train", "val"):
        for label in range(10):
            (tree / "imagenette2-320" / split / str(label)).mkdir(parents=True)
            noise = np.zeros((8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tree / "imagenette2-320" / split / str(label) / "0.png")
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for key in ("cifar10", "imagenette"):
        (archive,) = ARCHIVES[key]
        file = folder / archive.url.rpartition("/")[2]
        with tarfile.open(file, "w:gz") as packed:
            packed.add(tree / archive.unpacked, archive.unpacked)
        md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        url = f"http://127.0.0.1:{server.server_port}/{file.name}"
        monkeypatch.setitem(downloads.ARCHIVES, key, (replace(archive, url=url, md5=md5),))
    yield folder
    server.shutdown()
    server.server_close()


def test_a_set_is_fetched_once_and_read(tmp_path: Path, served: Path) -> None:
    root = tmp_path / "data"
    download("cifar10", root)
    images = load_images("cifar10", root)
    assert (len(images.training()), len(images.test)) == (100, 20)
    assert sorted(path.name for path in root.iterdir()) == ["cifar-10-batches-py"]
    for file in served.iterdir():
        file.unlink()
    download("cifar10", root)  # it is there
    with pytest.raises(MeasurementError, match="cannot be fetched"):
        download("imagenette", root)


def test_imagenette_stands_in_for_imagenet(tmp_path: Path, served: Path) -> None:
    download("imagenette", tmp_path / "all" / "imagenette")
    images = load_images("imagenette", tmp_path / "all")
    assert (images.name, len(images.classes), images.size) == ("imagenette", 10, 224)


def test_another_archive_than_the_published_one_is_refused(tmp_path: Path, served: Path) -> None:
    next(served.glob("cifar*")).write_bytes(b"something else")
    with pytest.raises(MeasurementError, match="cannot be fetched"):
        download("cifar10", tmp_path / "data")
    assert [*(tmp_path / "data").iterdir()] == []


def test_what_is_unpacked_in_part_only_is_not_taken_for_the_set(
    tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tar: tarfile.TarFile, folder: str, **named: Any) -> None:
        tar.extract(tar.getmembers()[0], folder, **named)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tarfile.TarFile, "extractall", full)
        with pytest.raises(MeasurementError, match="No space left on device"):
            download("imagenette", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["fetched-imagenette2-320.tgz"]
    next(served.glob("imagenette*")).unlink()  # what was fetched is not fetched again
    download("imagenette", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["imagenette2-320"]


def test_an_archive_that_was_there_is_taken_and_left(tmp_path: Path, served: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    archive = next(served.glob("cifar*"))
    archive.rename(root / archive.name)
    download("cifar10", root)
    assert {path.name for path in root.iterdir()} == {"cifar-10-batches-py", archive.name}


@pytest.mark.parametrize(("there", "given"), [("data/cifar10", "data"), ("data", "data/cifar-10-batches-py")])
def test_a_set_is_fetched_to_where_it_is_read(tmp_path: Path, served: Path, there: str, given: str) -> None:
    (tmp_path / there).mkdir(parents=True)
    download("cifar10", tmp_path / given)
    assert len(load_images("cifar10", tmp_path / given).test) == 20


def test_the_sets_of_all_tables_are_not_fetched_at_once(run: Run, tmp_path: Path) -> None:
    asked = ("compare", "table4", "--dataset", "paper", "--data", str(tmp_path), "--download")
    ended = run(*asked)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "--download fetches one data set" in ended.err


def test_what_cannot_be_fetched_is_one_line(
    run: Run, tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="imagenet cannot be fetched; --download is for cifar10, cifar100"):
        download("imagenet", tmp_path)
    asked = ("train", "resnet20_cifar", "--dataset", "cifar10", "--recipe", "cifar-smoke", "--epochs", "1", "-q")
    assert "give it with --data DIR or $SENET_BENCH_DATA" in run(*asked, "--download").err
    monkeypatch.setenv("SENET_BENCH_DATA", str(tmp_path / "data"))
    (archive,) = ARCHIVES["cifar10"]
    monkeypatch.setitem(downloads.ARCHIVES, "cifar10", (replace(archive, url="http://127.0.0.1:9/cifar.tar.gz"),))
    ended = run(*asked, "--download")
    assert (ended.code, len(ended.err.strip().splitlines())) == (5, 1)
    assert "unpack it yourself" in ended.err
    monkeypatch.setitem(downloads.ARCHIVES, "cifar10", (archive,))
    assert run(*asked, "--download").code == 0
