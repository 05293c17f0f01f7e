"""The part of `train` that is for detectors: images with boxes, four losses, and the first stages of a trunk kept."""

from __future__ import annotations

from typing import Any

from senet_bench.detection import coco
from senet_bench.detection.objective import Detecting
from senet_bench.run.train import Lesson, Training

FROM_NOTHING = "the trunk starts from no weights, so that none of its stages is frozen (the paper: from ImageNet's)"


def detection() -> Lesson:
    """The lesson of detectors."""
    return Lesson(lambda asked: coco.load(asked.dataset, asked.folder), Detecting, _frozen)


def _frozen(asked: Training, network: Any) -> tuple[str, ...]:
    """Keep the first stages of a detector's trunk as they are; says where it has none worth keeping."""
    network.freeze(asked.freeze_at)
    return () if asked.freeze_at else (FROM_NOTHING,)
