"""Data sets read from small files of the real formats, augmentation, and crops of image files."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from senet_bench.bench.device import Cpu
from senet_bench.core.recipes import Augmentation
from senet_bench.data import images, sets
from senet_bench.data.augment import Pixels, cropped, draw, normalised, zero_padded
from senet_bench.data.batches import Batches
from senet_bench.data.sets import Arrays
from senet_bench.errors import MeasurementError, UsageError


def cifar(root: Path, per_file: int = 4) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = rng.integers(0, 256, (per_file, 3072), dtype=np.uint8)
        content = {"data": pixels, "labels": [i % 10 for i in range(per_file)], "batch_label": name}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = {"label_names": [f"thing{i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    return folder


def jpeg(path: Path, size: tuple[int, int] = (60, 48), seed: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + rng.integers(-25, 26, (size[1], size[0], 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode).save(path, quality=int(rng.integers(70, 97)))


def tree(root: Path, classes: int = 2, per_class: int = 3, splits: tuple[str, ...] = ("train", "val")) -> Path:
    for split in splits:
        for label in range(classes):
            for index in range(per_class):
                jpeg(root / split / f"c{label:04d}" / f"{index}.jpg", seed=10 * label + index)
    return root


def test_digits_have_ten_training_images_of_each_class() -> None:
    digits = sets.load_images("digits-100")
    train = digits.training()
    assert isinstance(train, sets.Arrays)
    assert isinstance(digits.test, sets.Arrays)
    assert np.bincount(train.labels).tolist() == [10] * 10
    assert (len(digits.test), train.images.shape, digits.size) == (1697, (100, 1, 8, 8), 8)
    together = np.concatenate([train.images, digits.test.images]).reshape(1797, -1)
    assert len(np.unique(together, axis=0)) == len(np.unique(_sklearn_pixels(), axis=0))


def _sklearn_pixels() -> Pixels:
    from sklearn.datasets import load_digits

    return np.asarray(load_digits().data).astype(np.uint8)


def test_another_draw_chooses_other_digits_and_the_same_draw_the_same() -> None:
    first, again, other = (sets.load_images("digits", draw=draw).training() for draw in (1, 1, 2))
    assert isinstance(first, sets.Arrays)
    assert isinstance(again, sets.Arrays)
    assert isinstance(other, sets.Arrays)
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert len(sets.load_images("digits-full").training()) == 1437


def test_cifar_is_read_and_said_to_differ_from_the_official_files(tmp_path: Path) -> None:
    cifar(tmp_path)
    read = sets.load_images("cifar10", tmp_path)
    assert isinstance(read.train, sets.Arrays)
    assert (len(read.train), len(read.test), read.channels, read.size) == (20, 4, 3, 32)
    assert read.classes[3] == "thing3"
    raw = pickle.loads((tmp_path / "cifar-10-batches-py/data_batch_2").read_bytes())["data"]
    assert np.array_equal(read.train.images[4], raw[0].reshape(3, 32, 32))
    assert "data_batch_1" in read.notes[0]


def test_an_incomplete_cifar_names_the_missing_file(tmp_path: Path) -> None:
    folder = cifar(tmp_path)
    (folder / "data_batch_3").unlink()
    with pytest.raises(MeasurementError, match=r"expected .*data_batch_3"):
        sets.load_images("cifar10", tmp_path)


def test_a_truncated_cifar_file_is_named(tmp_path: Path) -> None:
    file = cifar(tmp_path) / "test_batch"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(MeasurementError, match="test_batch is damaged"):
        sets.load_images("cifar10", tmp_path)


def test_a_cifar_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("ran",)

    (cifar(tmp_path) / "data_batch_1").write_bytes(pickle.dumps({"data": Evil(), "labels": [0]}))
    with pytest.raises(MeasurementError, match="never needs"):
        sets.load_images("cifar10", tmp_path)


def test_cifar100_reads_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        content = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [7, 99], "coarse_labels": [0, 1]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}, protocol=2))
    assert sets.load_images("cifar100", tmp_path).test.labels.tolist() == [7, 99]


def test_imagenet_needs_all_its_classes(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(MeasurementError, match=r"expected 1000 class folders in .*val, found 2"):
        sets.load_images("imagenet", tmp_path)
    with pytest.raises(MeasurementError, match="expected the folder"):
        sets.load_images("imagenet", tmp_path / "train")
    flat = tmp_path / "flat"
    (flat / "val").mkdir(parents=True)
    jpeg(flat / "val" / "one.jpg")
    with pytest.raises(MeasurementError, match=r"or flat, with .*val.txt of lines FILE LABEL"):
        sets.load_images("imagenet", flat)


def test_imagenet_reads_a_thousand_class_folders(tmp_path: Path) -> None:
    jpeg(tmp_path / "one.jpg")
    content = (tmp_path / "one.jpg").read_bytes()
    for label in range(1000):
        folder = tmp_path / "val" / f"n{label:08d}"
        folder.mkdir(parents=True)
        (folder / "a.JPEG").write_bytes(content)
    read = sets.load_images("imagenet", tmp_path)
    assert (len(read.test), len(read.classes), read.train) == (1000, 1000, None)
    assert "1,000 of 50,000" in read.notes[0]
    torch.save(({f"n{label:08d}": (f"name{label}", "other") for label in range(1000)}, []), tmp_path / "meta.bin")
    assert sets.load_images("imagenet", tmp_path).classes[17] == "name17"


def test_the_training_images_of_imagenet_have_the_classes_of_its_validation_images(tmp_path: Path) -> None:
    jpeg(tmp_path / "one.jpg")
    for split, first in (("val", 0), ("train", 1)):
        for label in range(first, first + 1000):
            (tmp_path / split / f"n{label:08d}").mkdir(parents=True)
            (tmp_path / split / f"n{label:08d}" / "a.JPEG").symlink_to(tmp_path / "one.jpg")
    with pytest.raises(MeasurementError, match=r"different classes \(n00000000, n00001000\)"):
        sets.load_images("imagenet", tmp_path)
    for label in range(1000):
        (tmp_path / "val" / f"n{label:08d}").rename(tmp_path / "val" / str(label))
    assert len(sets.load_images("imagenet", tmp_path).training()) == 1000


@pytest.mark.parametrize("name", ["imagenet", "folder"])
def test_imagenet_folders_that_are_numbers_are_the_labels(tmp_path: Path, name: str) -> None:
    jpeg(tmp_path / "one.jpg")
    for label in range(1000):
        folder = tmp_path / "val" / str(label)
        folder.mkdir(parents=True)
        (folder / "a.JPEG").write_bytes((tmp_path / "one.jpg").read_bytes())
    read = sets.load_images(name, tmp_path)
    assert isinstance(read.test, sets.Files)
    assert [int(path.parent.name) for path in read.test.paths] == read.test.labels.tolist()
    assert read.classes == tuple(map(str, range(1000)))


def test_imagenet_reads_a_flat_folder_by_its_validation_list(tmp_path: Path) -> None:
    for index in range(3):
        jpeg(tmp_path / "val" / f"ILSVRC2012_val_{index:08d}.JPEG", seed=index)
    lines = [f"ILSVRC2012_val_{index:08d}.JPEG {300 * index}" for index in range(3)]
    (tmp_path / "val.txt").write_text("\n".join(lines))
    assert sets.load_images("imagenet", tmp_path).test.labels.tolist() == [0, 300, 600]
    (tmp_path / "val.txt").write_text("\n".join([*lines, "ILSVRC2012_val_00000009.JPEG 1"]))
    with pytest.raises(MeasurementError, match=r"1 of 4 listed images are missing, first .*00000009"):
        sets.load_images("imagenet", tmp_path)
    (tmp_path / "val.txt").write_text("\n".join([*lines, "ILSVRC2012_val_00000002.JPEG 1000"]))
    with pytest.raises(MeasurementError, match=r"line 4 of .*val.txt .* from 0 to 999; .*counted from 0"):
        sets.load_images("imagenet", tmp_path)


def test_places365_follows_its_lists(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"expected .*val_256"):
        sets.load_images("places365", tmp_path)
    jpeg(tmp_path / "val_256" / "Places365_val_00000001.jpg")
    with pytest.raises(MeasurementError, match=r"expected .*categories_places365.txt"):
        sets.load_images("places365", tmp_path)
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n/a/alcove 1\n")
    (tmp_path / "places365_val.txt").write_text("Places365_val_00000001.jpg 1\n")
    read = sets.load_images("places365", tmp_path)
    assert (read.test.labels.tolist(), len(read.classes)) == ([1], 2)
    assert "differ from the official lists" in read.notes[0]
    for label in (" 2", ""):
        (tmp_path / "places365_val.txt").write_text(f"Places365_val_00000001.jpg{label}\n")
        with pytest.raises(MeasurementError, match=r"line 1 of .*places365_val.txt .* label from 0 to 1"):
            sets.load_images("places365", tmp_path)
    for file, text in (("places365_val.txt", ""), ("categories_places365.txt", "/a/airfield\n")):
        (tmp_path / file).write_text(text)
        with pytest.raises(MeasurementError, match=f"{file}.* is damaged"):
            sets.load_images("places365", tmp_path)


def test_a_folder_tree_is_read_and_its_classes_must_agree(tmp_path: Path) -> None:
    read = sets.load_images("folder", tree(tmp_path))
    assert (len(read.training()), len(read.test), read.classes) == (6, 6, ("c0000", "c0001"))
    jpeg(tmp_path / "train" / "c0002" / "0.jpg")
    with pytest.raises(MeasurementError, match="different classes"):
        sets.load_images("folder", tmp_path)


def test_unknown_sets_and_missing_folders_are_one_line_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean cifar10"):
        sets.load_images("cifar11")
    with pytest.raises(UsageError, match="--data DIR"):
        sets.load_images("cifar10")
    with pytest.raises(MeasurementError, match="there is no folder"):
        sets.load_images("folder", tmp_path / "nowhere")


def test_whole_batch_augmentation_is_a_padded_crop_and_a_flip() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    draws = draw(Augmentation(pad=2, flip=True), 5, rng)
    rows = np.array([5, 0, 3, 3, 1])
    out = cropped(zero_padded(pixels, 2), rows, draws, (8, 8))
    for image, row, (y, x), flip in zip(out, rows, draws.offsets, draws.flips):
        padded = torch.nn.functional.pad(torch.from_numpy(pixels[row]), (2, 2, 2, 2))
        expected = padded[:, y : y + 8, x : x + 8]
        assert np.array_equal(image, expected.flip(-1) if flip else expected)
    assert draws.flips.any()


def test_normalising_agrees_bit_by_bit_with_torchvision() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    v1 = transforms.Compose([transforms.ToTensor(), transforms.Normalize(sets.IMAGENET_MEAN, sets.IMAGENET_STD)])
    expected = torch.stack([v1(Image.fromarray(image)) for image in pixels])
    ours = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = ours.contiguous(memory_format=layout)
        found = normalised(given, sets.IMAGENET_MEAN, sets.IMAGENET_STD)
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (231, 640), (640, 231), (257, 256), (300, 300), (90, 70)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_exact_crops_are_the_pixels_of_torchvision_and_fast_ones_within_a_level(
    tmp_path: Path, size: tuple[int, int], mode: str
) -> None:
    file = tmp_path / "a.jpg"
    jpeg(file, size, seed=size[0], mode=mode)
    v1 = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    expected = np.asarray(v1(Image.open(file).convert("RGB"))).transpose(2, 0, 1)
    crop = images.centre_crop(224)
    assert np.array_equal(images.exact(file, crop), expected)
    assert np.abs(images.fast(file, crop).astype(int) - expected).max() <= 1


def test_every_decoder_gives_the_pixels_of_pil_and_ignores_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(
        tmp_path / "a.jpg", exif=exif
    )
    jpeg(tmp_path / "b.png")
    for name in ("a.jpg", "b.png"):
        expected = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert np.array_equal(images.decoded(tmp_path / name).permute(1, 2, 0), expected)


@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF header", b"Exif\0\0II*\0"])
def test_an_image_is_read_though_its_orientation_cannot_be(tmp_path: Path, exif: bytes) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", exif=exif, dpi=(72, 72))
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    assert np.array_equal(images.decoded(tmp_path / "a.jpg").permute(1, 2, 0), expected)


def test_the_papers_crops() -> None:
    assert [images.centre_crop(size).resize for size in (224, 299, 320)] == [256, 352, 352]


def test_crops_come_in_order_and_a_corrupt_image_is_named_or_counted(tmp_path: Path) -> None:
    files = sets.load_images("folder", tree(tmp_path, per_class=5)).test
    assert isinstance(files, sets.Files)
    crop = images.CentreCrop(40, 32)
    batches = list(images.centre_crops(files, crop, batch=4, workers=2))
    assert np.concatenate([part.rows for part in batches]).tolist() == list(range(10))
    assert all(np.array_equal(part.images[0], images.exact(files.paths[part.rows[0]], crop)) for part in batches)
    files.paths[6].write_bytes(files.paths[6].read_bytes()[:60])
    with pytest.raises(MeasurementError, match=f"{files.paths[6]} is missing or corrupt"):
        list(images.centre_crops(files, crop, batch=4))
    corrupt: list[Path] = []
    rest = list(images.centre_crops(files, crop, batch=4, corrupt=corrupt))
    assert np.concatenate([part.rows for part in rest]).tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert corrupt == [files.paths[6]]
    files.paths[6].unlink()
    os.mkfifo(files.paths[6])  # which never ends
    with pytest.raises(MeasurementError, match="is missing or corrupt"):
        list(images.centre_crops(files, crop, batch=4))


def test_the_cache_holds_the_crops_and_follows_changed_files(tmp_path: Path) -> None:
    files = sets.load_images("folder", tree(tmp_path / "set")).test
    assert isinstance(files, sets.Files)
    crop, folder = images.CentreCrop(40, 32), tmp_path / "cache"
    for _ in range(2):
        kept = images.cached(files, crop, folder)
        assert np.array_equal(kept.images[4], images.exact(files.paths[4], crop))
    assert len(list(folder.iterdir())) == 1
    jpeg(files.paths[4], (80, 80), seed=99)
    assert np.array_equal(images.cached(files, crop, folder).images[4], images.exact(files.paths[4], crop))
    files.paths[0].unlink()
    with pytest.raises(MeasurementError):
        images.cached(files, crop, folder)
    assert len(list(folder.iterdir())) == 2


def test_batches_are_a_function_of_epoch_and_step_and_ranks_share_them(tmp_path: Path) -> None:
    digits = sets.load_images("digits").training()
    augmentation = Augmentation(pad=1, flip=True)
    whole = [list(Batches(digits, 20, 3, augmentation, 8).epoch(epoch)) for epoch in (0, 1)]
    later = list(Batches(digits, 20, 3, augmentation, 8).epoch(1, start=3))
    assert all(torch.equal(a, b) for old, new in zip(whole[1][3:], later) for a, b in zip(old, new))
    assert not torch.equal(whole[0][0][0], whole[1][0][0])
    parts = [list(Batches(digits, 20, 3, augmentation, 8, rank, 2).epoch(0)) for rank in (0, 1)]
    assert all(torch.equal(full[0], torch.cat([a[0], b[0]])) for full, a, b in zip(whole[0], parts[0], parts[1]))
    seen = torch.cat([labels for _, labels in whole[0]])
    assert torch.bincount(seen).tolist() == [10] * 10
    with pytest.raises(UsageError, match="cannot be shared by 3"):
        Batches(digits, 20, 3, augmentation, 8, 0, 3)


def test_training_crops_of_files_do_not_depend_on_where_an_epoch_is_entered(tmp_path: Path) -> None:
    split = sets.load_images("folder", tree(tmp_path)).training()
    batches = Batches(split, 2, 0, Augmentation(flip=True), 24)
    epoch = list(batches.epoch(0))
    assert [tuple(x.shape) for x, _ in epoch] == [(2, 3, 24, 24)] * 3
    entered = list(batches.epoch(0, start=1))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(epoch[1:], entered))


def test_the_digits_file_is_the_one_scikit_learn_ships() -> None:
    digits = sets.load_images("digits-full")
    assert isinstance(digits.test, sets.Arrays)
    assert int(digits.test.images.max()) == 240
    assert len(hashlib.sha256(digits.test.images.tobytes()).hexdigest()) == 64


@pytest.mark.parametrize("cutout", [0, 6])
def test_a_set_on_a_device_gives_the_batches_of_the_one_in_memory(cutout: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    split = Arrays(rng.integers(0, 255, (40, 3, 12, 10), dtype=np.uint8), rng.integers(0, 9, 40))
    augmentation = Augmentation(pad=2, flip=True, cutout=cutout)
    told: dict[str, Any] = {"split": split, "batch": 8, "seed": 3, "augmentation": augmentation, "size": 12}
    told |= {"rank": 1, "world": 2, "colour": (1, 2, 3)}
    expected = list(Batches(**told).epoch(1, start=1))
    monkeypatch.setattr(Cpu, "in_host_memory", False)
    resident = Batches(**told)
    assert resident._resident is not None
    for (batch, labels), (pixels, own) in zip(resident.epoch(1, start=1), expected, strict=True):
        assert torch.equal(batch, pixels)
        assert torch.equal(labels, own)
        assert batch.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr("senet_bench.data.resident.MOST_BYTES", 10)
    assert Batches(**told)._resident is None
