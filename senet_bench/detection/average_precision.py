"""COCO's average precision by pycocotools, the yardstick of the field: over IoU 0.50 to 0.95 and all classes."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from senet_bench.detection.coco import DetectionSplit
from senet_bench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Detection:
    """Something found in an image: COCO's ids, the box as left, top, width, height in its pixels, a score in 0..1."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """COCO's average precisions as fractions, None where no object is of that size; `by_class` AP by class name.

    `ap` is over IoU 0.50:0.05:0.95, `ap50` and `ap75` at one; small is below 32^2 pixels, large above 96^2.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar100: float | None
    by_class: Mapping[str, float | None] = field(default_factory=dict)


def check_installed() -> None:
    """Raise `UsageError` where there is no pycocotools."""
    try:
        importlib.import_module("pycocotools.cocoeval")
    except ImportError as error:
        raise UsageError(
            "COCO's average precision needs pycocotools", "run: python -m pip install 'senet-bench[detection]'"
        ) from error


def precision_of(
    split: DetectionSplit, detections: Iterable[Detection], left_out: Sequence[int] = ()
) -> AveragePrecision:
    """The average precision of detections on a split, but for the images `left_out` (by COCO's ids)."""
    check_installed()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth, results = COCO(), COCO()
        truth.dataset = _truth(split)
        results.dataset = truth.dataset | {"annotations": [_result(n, one) for n, one in enumerate(detections, 1)]}
        truth.createIndex()
        results.createIndex()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.imgIds = sorted({image.id for image in split.listing.images} - set(left_out))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75, small, medium, large, _, _, ar100 = (_or_none(value) for value in evaluation.stats[:9])
    return AveragePrecision(ap, ap50, ap75, small, medium, large, ar100, _by_class(split, evaluation))


def _truth(split: DetectionSplit) -> dict[str, Any]:
    listing = split.listing
    annotations = []
    for number, one in enumerate(listing.annotations, 1):
        area = one.bbox[2] * one.bbox[3] if one.area is None else one.area
        annotations.append(msgspec.to_builtins(one) | {"id": number, "area": area, "bbox": list(one.bbox)})
    return {
        "images": [msgspec.to_builtins(image) for image in listing.images],
        "categories": [msgspec.to_builtins(category) for category in listing.categories],
        "annotations": annotations,
    }


def _result(number: int, one: Detection) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": one.image_id,
        "category_id": one.category_id,
        "bbox": list(one.bbox),
        "area": one.bbox[2] * one.bbox[3],
        "iscrowd": 0,
        "score": one.score,
    }


def _or_none(value: float) -> float | None:
    return None if value < 0 else float(value)


def _by_class(split: DetectionSplit, evaluation: Any) -> dict[str, float | None]:
    """AP of each class from the precisions (IoU, recall, class, area, detections): all areas, 100 detections."""
    names = {category.id: category.name for category in split.listing.categories}
    found = {}
    for index, category in enumerate(evaluation.params.catIds):
        precisions = evaluation.eval["precision"][:, :, index, 0, -1]
        seen = precisions[precisions > -1]
        found[names[category]] = float(seen.mean()) if seen.size else None
    return found
