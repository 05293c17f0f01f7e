"""The paper's comparisons and ablations as data, one row each.

A study says which network, with which attention, stands in which printed row. Networks are named by their ids
in the catalog; naming a study loads neither torch nor the network.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Any, Literal

from senet_bench.core.catalog import root_of
from senet_bench.core.paper import TABLES
from senet_bench.core.specs import (
    AttentionSpec,
)
from senet_bench.errors import UsageError

StudyKind = Literal["comparison", "ablation"]

SE = AttentionSpec()


@dataclass(frozen=True, slots=True)
class Subject:
    """A network of a study and the printed row and column it stands in; `attention` None is the plain network.

    `recipe` is what it is trained by where that is not its study's.
    """

    label: str
    model: str
    attention: AttentionSpec | None
    row: str
    column: str = "reported"
    recipe: str | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """A table of the paper as something to run; subjects in print order.

    Its networks are trained and tested on `dataset` by `recipe`. `classes` is the number that they tell apart where
    that is not the catalog's, `train_images` what they are trained on where that is not the data set's official split.
    """

    id: str
    title: str
    kind: StudyKind
    subjects: tuple[Subject, ...]
    dataset: str = "imagenet"
    recipe: str = "imagenet"
    classes: int | None = None
    train_images: int | None = None

    @property
    def table(self) -> str:
        """The number of the printed table."""
        return self.id.removeprefix("table")

    def recipe_of(self, model: str) -> str:
        """What one of its networks is trained by, named with its attention or without: both are trained alike."""
        alike = (subject for subject in self.subjects if root_of(subject.model) == root_of(model))
        return next((subject.recipe for subject in alike if subject.recipe), self.recipe)

    @property
    def models(self) -> tuple[str, ...]:
        """The ids of the networks, each once."""
        return tuple(dict.fromkeys(subject.model for subject in self.subjects))


def _pair(row: str, base: str, plain: str = "reimplementation", recipe: str | None = None) -> tuple[Subject, Subject]:
    """A baseline and its SE variant, which the paper prints in one row."""
    return Subject(row, base, None, row, plain, recipe), Subject(f"SE-{row}", f"se{base}", SE, row, "senet", recipe)


def _plain(row: str, model: str, column: str = "reported") -> Subject:
    return Subject(row, model, None, row, column)


def _se(row: str, model: str, column: str = "reported", recipe: str | None = None) -> Subject:
    return Subject(row, model, SE, row, column, recipe)


def _variant(row: str, label: str = "", **switches: Any) -> Subject:
    """SE-ResNet-50 with some switches of section 6 set; FC biases stay on, as in the released definitions."""
    return Subject(label or row, "seresnet50", replace(SE, **switches), row)


def _study(table: int, kind: StudyKind, *subjects: Subject, **trained: Any) -> dict[str, Study]:
    return {f"table{table}": Study(f"table{table}", TABLES[str(table)].title, kind, subjects, **trained)}


def _ablation(table: int, *subjects: Subject) -> dict[str, Study]:
    return _study(table, "ablation", *subjects, recipe="ablation")


_RESNET50 = _plain("ResNet-50", "resnet50")

STUDIES: dict[str, Study] = {
    **_study(
        2,
        "comparison",
        *_pair("ResNet-50", "resnet50"),
        *_pair("ResNet-101", "resnet101"),
        *_pair("ResNet-152", "resnet152"),
        *_pair("ResNeXt-50", "resnext50_32x4d"),
        *_pair("ResNeXt-101", "resnext101_32x4d"),
        *_pair("VGG-16", "vgg16_bn"),
        *_pair("BN-Inception", "bninception"),
        *_pair("Inception-ResNet-v2", "inception_resnet_v2"),
    ),
    **_study(
        3,
        "comparison",
        *_pair("MobileNet", "mobilenet_v1"),
        *_pair("ShuffleNet", "shufflenet_v1_g3"),
        recipe="mobile",
    ),
    **_study(
        4,
        "comparison",
        *_pair("ResNet-110", "resnet110_cifar", "original", "cifar-preact"),
        *_pair("ResNet-164", "resnet164_cifar", "original", "cifar-preact"),
        *_pair("WRN-16-8", "wrn16_8_cifar", "original", "cifar-wrn"),
        *_pair("Shake-Shake 26 2x96d + Cutout", "shakeshake26_2x96d_cifar", "original", "cifar-shakeshake"),
        dataset="cifar10",
        recipe="cifar",
    ),
    **_study(
        5,
        "comparison",
        *_pair("ResNet-110", "resnet110_cifar", "original", "cifar-preact"),
        *_pair("ResNet-164", "resnet164_cifar", "original", "cifar-preact"),
        *_pair("WRN-16-8", "wrn16_8_cifar", "original", "cifar-wrn"),
        *_pair("Shake-Even 29 2x4x64d + Cutout", "shakeeven29_2x4x64d_cifar", "original", "cifar-shakeeven"),
        dataset="cifar100",
        recipe="cifar",
        classes=100,
    ),
    **_study(
        6,
        "comparison",
        _plain("ResNet-152 (ours)", "resnet152"),
        _se("SE-ResNet-152", "seresnet152"),
        dataset="places365",
        recipe="places365",
        classes=365,
        train_images=8_026_628,  # Places365-Challenge; the paper prints 8 million
    ),
    **_study(
        7,
        "comparison",
        _plain("ResNet-50", "fasterrcnn_resnet50_fpn"),
        _se("SE-ResNet-50", "fasterrcnn_seresnet50_fpn"),
        _plain("ResNet-101", "fasterrcnn_resnet101_fpn"),
        _se("SE-ResNet-101", "fasterrcnn_seresnet101_fpn"),
        dataset="coco",
        recipe="coco",
    ),
    **_study(
        8,
        "comparison",
        _plain("ResNet-152", "resnet152", "224"),
        _plain("Inception-ResNet-v2", "inception_resnet_v2", "320/299"),
        _plain("ResNeXt-101 (64x4d)", "resnext101_64x4d", "224"),
        _se("SENet-154", "senet154", "224", "senet154"),
    ),
    **_ablation(
        10,
        *(_variant(f"r={r}", str(r), reduction=r) for r in (2, 4, 8, 16, 32)),
        Subject("original", "resnet50", None, "r=original"),
    ),
    **_ablation(11, _variant("Max", squeeze="max"), _variant("Avg", squeeze="avg")),
    **_ablation(
        12,
        _variant("ReLU", excitation="relu"),
        _variant("Tanh", excitation="tanh"),
        _variant("Sigmoid", excitation="sigmoid"),
    ),
    **_ablation(
        13,
        _RESNET50,
        _variant("SE Stage 2", stages=(2,)),
        _variant("SE Stage 3", stages=(3,)),
        _variant("SE Stage 4", stages=(4,)),
        _variant("SE All"),
    ),
    **_ablation(
        14,
        _variant("SE"),
        _variant("SE-PRE", integration="pre"),
        _variant("SE-POST", integration="post"),
        _variant("SE-Identity", integration="identity"),
    ),
    **_ablation(15, _variant("SE"), _variant("SE 3x3", placement="3x3")),
    **_ablation(16, _RESNET50, _variant("NoSqueeze", squeeze="none"), _variant("SE")),
}


def find_study(name: str) -> Study:
    """The study called `table2`, `Table 2` or `2`; `UsageError` with the nearest ones when there is none."""
    number = "".join(char for char in name.lower() if char.isalnum()).removeprefix("table")
    if f"table{number}" in STUDIES:
        return STUDIES[f"table{number}"]
    close = difflib.get_close_matches(number, [study.table for study in STUDIES.values()], n=3)
    near = ", ".join(f"table{other}" for other in close) or ", ".join(STUDIES)
    if number.isdigit() and number in TABLES:
        raise UsageError(f"Table {number} of the paper has nothing to run", f"choose from {near}")
    raise UsageError(f"unknown study {name!r}", f"choose from {near}")
