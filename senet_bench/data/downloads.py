"""Data sets that can be fetched: archives with their published checksums, unpacked into the folder of --data."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from senet_bench.core.datasets import DATA_VARIABLE, dataset
from senet_bench.data.sets import place_in
from senet_bench.errors import MeasurementError, UsageError

CIFAR, IMAGENETTE = "https://www.cs.toronto.edu/~kriz/", "https://s3.amazonaws.com/fast-ai-imageclas/"
PLACES365_URL = "http://data.csail.mit.edu/places/places365/"


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive by its address and MD5, and what lies in the folder once it is unpacked.

    `inside` is the name that this has in the archive where that is another one.
    """

    url: str
    md5: str
    unpacked: str
    inside: str = ""


ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "cifar10": (Archive(f"{CIFAR}cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py"),),
    "cifar100": (Archive(f"{CIFAR}cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python"),),
    "imagenette": (Archive(f"{IMAGENETTE}imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3", "imagenette2-320"),),
    "places365": (
        Archive(
            f"{PLACES365_URL}filelist_places365-standard.tar", "35a0585fee1fa656440f3ab298f8479c", "places365_val.txt"
        ),
        Archive(f"{PLACES365_URL}val_256.tar", "e27b17d8d44f4af9a78502beb927f808", "val_256"),
        Archive(
            f"{PLACES365_URL}train_256_places365standard.tar",
            "53ca1c756c3d1e7809517cc47c5561c5",
            "data_256_standard",
            "data_256",
        ),
    ),
}
"""What is fetched of each data set; those of torchvision."""


def download(name: str, folder: Path | None) -> None:
    """Fetch what is missing of a data set into a folder, which is made where it is not there, to where it is read.

    Raises `UsageError` for a set that cannot be fetched, `MeasurementError` where there is no network or the archive is
    not the published one.
    """
    key = dataset(name, "classification").key
    if key not in ARCHIVES:
        raise UsageError(f"{key} cannot be fetched", f"--download is for {', '.join(ARCHIVES)}")
    if folder is None:
        raise UsageError(f"{key} is fetched into a folder", f"give it with --data DIR or ${DATA_VARIABLE}")
    root, archives = place_in(folder, key), ARCHIVES[key]
    root = root.parent if root.name == archives[0].unpacked else root
    for archive in archives:
        if not (root / archive.unpacked).exists():
            _fetch(archive, root)


def _fetch(archive: Archive, root: Path) -> None:
    """Fetch and unpack an archive beside its place, and move what it holds there once it is whole.

    An archive that lies there already is taken, and left; one that was fetched is kept until it is unpacked.
    """
    name = archive.url.rpartition("/")[2]
    theirs, fetched = root / name, root / f"fetched-{name}"
    hint = f"connect, or unpack it yourself into {root}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        whole = check_integrity(str(theirs), archive.md5)
        if not whole:
            _download(archive, fetched)
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=root) as place:
            part = Path(place)
            extract_archive(str(theirs if whole else fetched), place)
            if archive.inside and (part / archive.inside).exists():
                (part / archive.inside).rename(part / archive.unpacked)
            if not (part / archive.unpacked).exists():
                raise MeasurementError(f"{archive.url} does not hold {archive.unpacked}", hint)
            for entry in sorted(part.iterdir(), key=lambda entry: entry.name == archive.unpacked):
                entry.rename(root / entry.name)
        fetched.unlink(missing_ok=True)
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise MeasurementError(f"{archive.url} cannot be fetched ({reason})", hint) from error


def _download(archive: Archive, file: Path) -> None:
    """Fetch an archive into a file, unless that holds it; nothing is left of one that is not whole."""
    try:
        download_url(archive.url, str(file.parent), file.name, archive.md5)
    except BaseException:
        with contextlib.suppress(OSError):
            file.unlink()
        raise
