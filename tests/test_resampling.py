"""Parts of resized images against PIL's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from senet_bench.data import resampling
from senet_bench.data.augment import Pixels
from senet_bench.data.resampling import Box


def picture(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Noise, or black and white only: the sums at both ends of a byte's range."""
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise if rng.random() < 0.7 else np.where(noise > 127, 255, 0).astype(np.uint8))


def by_pil(image: Image.Image, size: tuple[int, int], box: Box) -> Pixels:
    left, top, right, bottom = box
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    return pixels.transpose(2, 0, 1)[:, top:bottom, left:right]


def part(edge: int, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(edge))
    return start, start + int(rng.integers(1, edge - start + 1))


@pytest.mark.parametrize("seed", range(60))
def test_any_part_of_an_image_of_any_size_has_the_pixels_of_pil(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(edge) for edge in rng.integers(1, 400, 2))
    scales = np.exp(rng.uniform(-2, 1, 2)) if seed % 2 else [float(np.exp(rng.uniform(-2, 1)))] * 2
    wide, high = (max(1, int(scale * edge)) for scale, edge in zip(scales, (width, height)))
    (left, right), (top, bottom) = part(wide, rng), part(high, rng)
    image, asked = picture(width, height, rng), ((wide, high), (left, top, right, bottom))
    assert np.array_equal(resampling.resized(image, *asked), by_pil(image, *asked))


def test_large_images_are_resized_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(120, 90, np.random.default_rng(1))
    asked = ((64, 48), (3, 1, 53, 41))
    monkeypatch.setattr(resampling, "BLOCK", 1000)
    assert np.array_equal(resampling.resized(image, *asked), by_pil(image, *asked))


def test_pil_resizes_itself_where_it_rounds_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(50, 40, np.random.default_rng(2))
    asked = ((30, 24), (4, 2, 24, 22))
    resize = Image.Image.resize

    def brighter(*args: Any) -> Image.Image:
        return resize(*args).point(lambda level: min(255, level + 1))

    monkeypatch.setattr(Image.Image, "resize", brighter)
    resampling._agrees.cache_clear()
    try:
        assert np.array_equal(resampling.resized(image, *asked), by_pil(image, *asked))
    finally:
        resampling._agrees.cache_clear()
