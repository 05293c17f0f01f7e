"""Parts of resized images against PIL's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from senet_bench.training import resampling
from senet_bench.training.augment import Pixels
from senet_bench.training.resampling import Part


def picture(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Noise, or black and white only: the sums at both ends of a byte's range."""
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise if rng.random() < 0.7 else np.where(noise > 127, 255, 0).astype(np.uint8))


def by_pil(image: Image.Image, across: Part, down: Part) -> Pixels:
    pixels = np.asarray(image.resize((across.new, down.new), Image.Resampling.BILINEAR))
    return pixels.transpose(2, 0, 1)[
        :, down.start : down.start + down.length, across.start : across.start + across.length
    ]


def part(old: int, new: int, rng: np.random.Generator) -> Part:
    start = int(rng.integers(new))
    return Part(old, new, start, int(rng.integers(1, new - start + 1)))


@pytest.mark.parametrize("seed", range(60))
def test_any_part_of_an_image_of_any_size_has_the_pixels_of_pil(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(edge) for edge in rng.integers(1, 400, 2))
    scales = np.exp(rng.uniform(-2, 1, 2)) if seed % 2 else [float(np.exp(rng.uniform(-2, 1)))] * 2
    across, down = (part(edge, max(1, int(s * edge)), rng) for edge, s in zip((width, height), scales))
    image = picture(width, height, rng)
    assert np.array_equal(resampling.resized(image, across, down), by_pil(image, across, down))


def test_large_images_are_resized_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(120, 90, np.random.default_rng(1))
    across, down = Part(120, 64, 3, 50), Part(90, 48, 1, 40)
    monkeypatch.setattr(resampling, "BLOCK", 1000)
    assert np.array_equal(resampling.resized(image, across, down), by_pil(image, across, down))


def test_pil_resizes_itself_where_it_rounds_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(50, 40, np.random.default_rng(2))
    across, down = Part(50, 30, 4, 20), Part(40, 24, 2, 20)
    resize = Image.Image.resize

    def brighter(*args: Any) -> Image.Image:
        return resize(*args).point(lambda level: min(255, level + 1))

    monkeypatch.setattr(Image.Image, "resize", brighter)
    resampling._agrees.cache_clear()
    try:
        assert np.array_equal(resampling.resized(image, across, down), by_pil(image, across, down))
    finally:
        resampling._agrees.cache_clear()
