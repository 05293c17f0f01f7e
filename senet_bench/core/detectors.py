"""The detectors of the catalog: Faster R-CNN on the catalog's own ResNets, a row for each trunk and head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from senet_bench.core.specs import ModelSpec

Head = Literal["fpn", "c4"]
LAYOUTS: dict[Head, str] = {
    "fpn": "feature pyramid over stages 2 to 5, box head of two FCs on 7x7",
    "c4": "proposals on stage 4, stage 5 as the box head on 14x14",
}
INPUT_SIZE = (3, 800, 1216)
"""A COCO image of 2:3 with its shorter side at 800 px, as Detectron scales it, padded to multiples of 32."""
COCO_CLASSES = 80

PARAMS: dict[tuple[str, Head], tuple[int, int]] = {
    ("resnet18", "fpn"): (28_678_756, 28_767_836),
    ("resnet50", "fpn"): (41_704_036, 44_235_028),
    ("resnet101", "fpn"): (60_643_940, 65_421_652),
    ("resnet50_v1_5", "fpn"): (41_704_036, 44_235_028),
    ("resnet50", "c4"): (33_799_840, 36_330_832),
    ("resnet101", "c4"): (52_739_744, 57_517_456),
}
"""Parameters with 80 classes of the baseline and of its SE variant; a frozen BatchNorm has none."""


def rows(classifiers: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    """Every detector by name: `fasterrcnn_TRUNK_HEAD` and, with its SE trunk, `fasterrcnn_seTRUNK_HEAD`."""
    specs: dict[str, ModelSpec] = {}
    for (trunk, head), params in PARAMS.items():
        base = _row(classifiers[trunk], head, params[0], None)
        variant = _row(classifiers[f"se{trunk}"], head, params[1], base.name)
        specs |= {base.name: base, variant.name: variant}
    return specs


def _row(trunk: ModelSpec, head: Head, params: int, baseline: str | None) -> ModelSpec:
    return replace(
        trunk,
        name=f"fasterrcnn_{trunk.name}_{head}",
        family="detection",
        label=f"Faster R-CNN {trunk.label} {head.upper()}",
        builder="senet_bench.models.detection:faster_rcnn",
        layout=f"{LAYOUTS[head]}; BN of the trunk frozen; {trunk.layout}",
        params=params,
        options={"head": head, **trunk.options},
        input_size=INPUT_SIZE,
        classes=COCO_CLASSES,
        baseline=baseline,
        trunk=trunk.name,
    )
