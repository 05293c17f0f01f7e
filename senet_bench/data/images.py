"""Image files to uint8 crops: decoded by the fastest library at hand, resized exactly as PIL does or faster.

`exact` gives the very pixels of torchvision's v1 transforms on PIL images (Resize, CenterCrop); `fast` resizes
with torch's antialiased uint8 kernel, which differs by at most one grey level.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from senet_bench.bench.process import cores
from senet_bench.core.files import check_regular, read_file, write_atomically, written_whole
from senet_bench.data.augment import Pixels, empty
from senet_bench.data.sets import Arrays, Files, LabelArray
from senet_bench.errors import MeasurementError, UsageError

Fidelity = Literal["exact", "fast"]
Decode = Callable[[bytes], Tensor]
Crop = Callable[[Path, int], Pixels]
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
    UsageError,
)
"""What decoders and the look at a file raise for an image that cannot be read."""
TOGETHER = 8  # images decoded in one job: fewer hand-overs between threads


@dataclass(frozen=True, slots=True)
class CentreCrop:
    """The shorter edge resized to `resize` pixels, then the central square of `size` pixels."""

    resize: int
    size: int


def centre_crop(size: int) -> CentreCrop:
    """The paper's evaluation crops (section 5.1, Table 8): 256 -> 224, 352 -> 299 and 320; else 8/7 of the size."""
    return CentreCrop({224: 256, 299: 352, 320: 352}.get(size, round(size * 8 / 7)), size)


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Some images of a split: their row numbers (N,) and their pixels (N, 3, size, size)."""

    rows: LabelArray
    images: Pixels


@cache
def decoder() -> tuple[str, Decode]:
    """The library that decodes JPEG files and its function from bytes to (3, H, W) uint8: all give PIL's pixels.

    torchcodec, then torchvision, then PIL. torchvision's public functions warn since 0.29, so its operator is called.
    """
    try:
        from torchcodec.decoders import decode_jpeg  # type: ignore[import-not-found]

        return "torchcodec", partial(decode_jpeg, mode="RGB")
    except (ImportError, OSError, RuntimeError):
        import torchvision.io
    if not hasattr(torch.ops.image, "decode_jpeg"):
        return "PIL", _by_pil
    rgb = torchvision.io.ImageReadMode.RGB.value
    return "torchvision", lambda data: torch.ops.image.decode_jpeg(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), rgb, False
    )


def _by_pil(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def decoded(path: Path) -> Tensor:
    """An image file as (3, H, W) uint8, RGB, its EXIF orientation ignored as PIL does."""
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as header:
        plain = header.format == "JPEG" and header.mode in ("RGB", "L") and _upright(header)
    return decoder()[1](data) if plain else _by_pil(data)


def _upright(header: Image.Image) -> bool:
    """Whether a file says that its image is to be shown as it lies; not where that cannot be read."""
    try:
        return bool(header.getexif().get(0x0112, 1) == 1)
    except (*UNREADABLE, KeyError, IndexError, TypeError, ZeroDivisionError):
        return False


def exact(path: Path, crop: CentreCrop) -> Pixels:
    """(3, size, size): bit for bit torchvision's Resize and CenterCrop on a PIL image.

    PIL decodes too: handing it another library's pixels costs more than that saves.
    """
    with Image.open(path) as file:
        file.load()
        image = file if file.mode == "RGB" else file.convert("RGB")
    size, (left, top) = _geometry(*image.size, crop)
    box = (left, top, left + crop.size, top + crop.size)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR).crop(box)).transpose(2, 0, 1)


def fast(path: Path, crop: CentreCrop) -> Pixels:
    """(3, size, size): as `exact`, to one grey level."""
    image = decoded(path)
    (width, height), (left, top) = _geometry(image.shape[2], image.shape[1], crop)
    return _resized(image, height, width)[:, top : top + crop.size, left : left + crop.size].numpy()


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """(3, height, width) by torch's antialiased kernel, from (3, H, W) stored as decoders write: channels last.

    The batch axis goes in front of (H, W, 3): before (3, H, W) its stride would hide from torch that the image is
    stored channels last, and the result would be transposed twice.
    """
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return F.interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]


def _geometry(width: int, height: int, crop: CentreCrop) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size after resizing (width, height) and the crop's left and top, rounded as torchvision rounds them."""
    short = min(width, height)
    new = (int(crop.resize * width / short), int(crop.resize * height / short))
    return new, (round((new[0] - crop.size) / 2.0), round((new[1] - crop.size) / 2.0))


def random_resized(
    path: Path, size: int, area: tuple[float, float], ratio: tuple[float, float], seed: tuple[int, ...]
) -> Pixels:
    """(3, size, size): a random part of the image (the paper's reference 5), a pure function of `seed`."""
    image, rng = decoded(path), np.random.default_rng(seed)
    height, width = image.shape[1:]
    for _ in range(10):
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        pixels = rng.uniform(*area) * height * width
        w, h = round(float(np.sqrt(pixels * aspect))), round(float(np.sqrt(pixels / aspect)))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            break
    else:
        w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
        top, left = (height - h) // 2, (width - w) // 2
    return _resized(image[:, top : top + h, left : left + w], size, size).numpy()


def read_images(
    files: Files,
    rows: LabelArray,
    batch: int,
    size: int | tuple[int, int],
    cut: Crop,
    *,
    workers: int = 2,
    corrupt: list[Path] | None = None,
) -> Iterator[Crops]:
    """The images `rows` in batches of at most `batch`, decoded ahead by `workers` threads.

    `cut(path, row)` makes (3, size, size), or (3, H, W) for two sides. An unreadable image raises `MeasurementError`
    with its name; where a list `corrupt` is given, it is left out of its batch and added there.
    """
    groups = iter([rows[start : start + batch] for start in range(0, len(rows), batch)])
    ahead: deque[tuple[LabelArray, Pixels, list[Future[list[bool]]]]] = deque()
    height, width = (size, size) if isinstance(size, int) else size
    with ThreadPoolExecutor(workers) as pool:

        def submit(group: LabelArray) -> None:
            out = empty(len(group), 3, height, width)
            jobs = [
                pool.submit(_into, out[at : at + TOGETHER], [files.paths[row] for row in some], some, cut)
                for at in range(0, len(group), TOGETHER)
                for some in [group[at : at + TOGETHER].tolist()]
            ]
            ahead.append((group, out, jobs))

        try:
            for group in groups:
                submit(group)
                if len(ahead) > max(1, 4 * workers // batch) + 1:
                    yield _gathered(files, *ahead.popleft(), corrupt)
            while ahead:
                yield _gathered(files, *ahead.popleft(), corrupt)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _into(targets: Pixels, paths: list[Path], rows: list[int], cut: Crop) -> list[bool]:
    """Fill the targets; for each whether its image could be read."""
    read_well = []
    for target, path, row in zip(targets, paths, rows):
        try:
            check_regular(path)  # a pipe would never end
            target[:] = cut(path, row)
        except UNREADABLE:
            read_well.append(False)
        else:
            read_well.append(True)
    return read_well


def _gathered(
    files: Files, group: LabelArray, out: Pixels, jobs: list[Future[list[bool]]], corrupt: list[Path] | None
) -> Crops:
    keep = np.array([well for job in jobs for well in job.result()], dtype=bool)
    if keep.all():
        return Crops(group, out)
    named = [files.paths[row] for row in group[~keep]]
    if corrupt is None:
        raise unreadable(named[0])
    corrupt.extend(named)
    return Crops(group[keep], out[keep])


def unreadable(path: Path) -> MeasurementError:
    """What is said of an image that cannot be read, whichever command reads it."""
    skipping = "train, evaluate and excitations leave such images out with --skip-corrupt"
    return MeasurementError(f"image {path} is missing or corrupt", f"replace it ({skipping})")


def centre_crops(
    files: Files,
    crop: CentreCrop,
    *,
    fidelity: Fidelity = "exact",
    rows: LabelArray | None = None,
    batch: int = 64,
    workers: int | None = None,
    corrupt: list[Path] | None = None,
) -> Iterator[Crops]:
    """Evaluation crops of a split (or its `rows`), in order; see `read_images`. `workers` is all cores unless given."""
    cut = exact if fidelity == "exact" else fast
    chosen = np.arange(len(files)) if rows is None else rows
    return read_images(
        files, chosen, batch, crop.size, lambda path, _: cut(path, crop), workers=workers or cores(), corrupt=corrupt
    )


def cached(
    files: Files, crop: CentreCrop, folder: Path, *, fidelity: Fidelity = "exact", skip_corrupt: bool = False
) -> Arrays:
    """The crops of a split in one file of `folder`, made at the first call and mapped into memory afterwards.

    3 x size x size bytes an image. Its name holds a digest of paths, sizes, times and the crop, so a changed image
    gives a new file. A corrupt image raises, or with `skip_corrupt` is `unread`, which a file beside the crops lists;
    nothing half-made is left under the final name.
    """
    target = folder / f"crops-{_digest(files, crop, fidelity)}.npy"
    listing = target.with_suffix(".unread.txt")
    if not target.is_file():
        shape, read = (len(files), crop.size, crop.size, 3), np.zeros(len(files), dtype=bool)
        corrupt: list[Path] | None = [] if skip_corrupt else None
        with written_whole(target) as partial:
            stored = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            for crops in centre_crops(files, crop, fidelity=fidelity, corrupt=corrupt):
                stored[crops.rows] = crops.images.transpose(0, 2, 3, 1)
                read[crops.rows] = True
            stored.flush()
            if read.all():
                listing.unlink(missing_ok=True)
            else:
                write_atomically(listing, "".join(f"{row}\n" for row in np.flatnonzero(~read)))
    rows = [int(row) for row in read_file(listing).split()] if listing.is_file() else []
    if rows and not skip_corrupt:
        raise unreadable(files.paths[rows[0]])
    images = np.load(target, mmap_mode="r").transpose(0, 3, 1, 2)
    return Arrays(images, files.labels, {row: files.paths[row] for row in rows})


def _digest(files: Files, crop: CentreCrop, fidelity: Fidelity) -> str:
    digest = hashlib.sha256(f"{crop} {fidelity}".encode())
    for path in files.paths:
        status = path.stat() if path.is_file() else None
        digest.update(f"{path} {status and (status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]
