"""What the tests of detectors share: small networks, and a set of COCO's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from senet_bench.models import build
from senet_bench.models.detection import FasterRCNN

COLOURS = {1: (220, 30, 30), 5: (30, 200, 40), 9: (40, 60, 230)}
"""Category ids with gaps, as COCO's are, and what their objects look like."""


def detector(name: str = "fasterrcnn_seresnet18_fpn", classes: int = 3) -> FasterRCNN:
    torch.manual_seed(0)
    network = build(name, classes=classes)
    assert isinstance(network, FasterRCNN)
    return network


def small(name: str = "fasterrcnn_seresnet18_fpn") -> FasterRCNN:
    """A detector that looks at few boxes, to be quick."""
    network = detector(name)
    network.roi_heads.fg_bg_sampler.batch_size_per_image = 32
    network.rpn._post_nms_top_n = {"training": 100, "testing": 50}
    return network


def coco_set(root: Path, images: int = 8, size: tuple[int, int] = (96, 128)) -> Path:
    """Rectangles in three colours on grey noise, one crowd, one image without objects, as JPEG and PNG."""
    rng = np.random.default_rng(0)
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        listed: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for number in range(images):
            height, width = size
            pixels = rng.integers(90, 130, (height, width, 3), dtype=np.uint8)
            for place in range(0 if number == images - 1 else 2):
                category = sorted(COLOURS)[(number + place) % 3]
                w, h = int(rng.integers(30, 50)), int(rng.integers(30, 60))
                left, top = int(rng.integers(0, 60 - w + 1)) + 64 * place, int(rng.integers(0, height - h))
                pixels[top : top + h, left : left + w] = COLOURS[category]
                box = {"bbox": [left, top, w, h], "area": w * h, "iscrowd": 0}
                objects.append({"id": len(objects) + 1, "image_id": 10 + number, "category_id": category, **box})
            name = f"{number:04d}.{'png' if number % 2 else 'jpg'}"
            Image.fromarray(pixels).save(root / split / name)
            listed.append({"id": 10 + number, "file_name": name, "width": width, "height": height})
        crowd = {"id": 999, "image_id": 10, "category_id": 1, "bbox": [0, 0, 90, 90], "area": 8100, "iscrowd": 1}
        categories = [{"id": number, "name": f"colour {number}"} for number in reversed(COLOURS)]
        content = {"info": {}, "images": listed, "annotations": [*objects, crowd], "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root
