"""What the errors of the paper's tables were measured by, and what a stored error was measured by otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from senet_bench.core.catalog import resolve
from senet_bench.core.datasets import DATASETS
from senet_bench.core.identity import recipe_facts
from senet_bench.core.paper import PrintedCell
from senet_bench.core.recipes import Recipe, recipe
from senet_bench.core.specs import ModelSpec
from senet_bench.core.stored_errors import StoredOrigin
from senet_bench.core.studies import STUDIES, Study

LARGE_CROPS = "320/299"
"""The column of Table 8 whose crops are larger than those that the networks were trained on."""
OVERALL = ("epochs", "lr")
"""What of a recipe's facts is compared under names of its own."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What an error of the paper was measured by: the data, the recipe, and the side of the centre crop in pixels."""

    dataset: str
    train_images: int
    test_images: int
    recipe: Recipe
    size: int

    def differences(self, origin: StoredOrigin) -> tuple[str, ...]:
        """What a stored error was measured by otherwise, a few words each; empty where nothing differs."""
        return tuple(self._differences(origin))

    def distance(self, origin: StoredOrigin) -> tuple[bool, int]:
        """What is less the nearer a stored error's protocol is: another data set is farther than all else."""
        return origin.dataset != self.dataset, len(self.differences(origin))

    def _differences(self, origin: StoredOrigin) -> Iterator[str]:
        if origin.dataset != self.dataset:
            yield f"on {origin.dataset}, not {self.dataset}"
            return
        if origin.labels:
            yield f"labels of {origin.labels}"
        if origin.size != self.size:
            yield f"{origin.size} px, not {self.size}"
        if origin.test_images != self.test_images:
            yield f"{origin.test_images:,} test images, not {self.test_images:,}"
        if origin.released:
            yield "the authors' released weights, of another training"
            return
        if origin.train_images != self.train_images:
            known = "unknown" if origin.train_images is None else f"{origin.train_images:,}"
            yield f"{known} training images, not {self.train_images:,}"
        yield from self._of_recipe(origin)
        if origin.start:
            yield f"started from {origin.start}"
        if origin.averaged:
            yield "an average of its weights"

    def _of_recipe(self, origin: StoredOrigin) -> Iterator[str]:
        own = self.recipe
        if origin.recipe is None:
            yield "no recipe is stored"
            return
        if origin.epochs != own.epochs:
            yield f"{origin.epochs} epochs, not {own.epochs}"
        if origin.batch_size != own.batch_size:
            yield f"batch {origin.batch_size or 'unknown'}, not {own.batch_size}"
        expected = own.lasting(origin.epochs).scaled(origin.batch_size)
        if origin.lr is not None and abs(origin.lr - expected.lr) > 1e-9 * expected.lr:
            yield f"learning rate {origin.lr:g}, not {expected.lr:g}"
        others = _other_facts(recipe_facts(expected), origin.facts)
        if others and origin.recipe not in (own.name, f"{own.name}-smoke"):
            yield f"recipe {origin.recipe}, not {own.name}"
        elif others:
            yield f"another {' and '.join(others)}"


def _other_facts(expected: Mapping[str, Any], facts: Mapping[str, Any] | None) -> list[str]:
    """The names of what two recipes train by otherwise; `recipe` where nothing is known."""
    if facts is None:
        return ["recipe (its facts are not stored)"]
    names = sorted(expected.keys() | facts.keys())
    return [
        name.replace("max_steps", "number of steps").replace("_", " ")
        for name in names
        if name not in OVERALL and expected.get(name) != facts.get(name)
    ]


def study_of(cell: PrintedCell) -> Study | None:
    """The study of a cell whose error can be measured; None where the cell repeats another paper's, or none is run."""
    study = STUDIES.get(f"table{cell.table}")
    if study is None or study.dataset == "coco" or (cell.column == "original" and cell.table in ("2", "3")):
        return None
    return study


def protocol_of(cell: PrintedCell, model: str) -> Protocol | None:
    """What the error of a cell was measured by, with the network (without attention) that stands in it."""
    study = study_of(cell)
    if study is None:
        return None
    train, test = DATASETS[study.dataset].images or (0, 0)
    side = resolve(model).input_size[1]
    return Protocol(
        dataset=study.dataset,
        train_images=study.train_images or train,
        test_images=test,
        recipe=recipe(study.recipe_of(model)),
        size=320 if cell.column == LARGE_CROPS and side == 224 else side,
    )


def command_of(cell: PrintedCell, spec: ModelSpec) -> str | None:
    """The command that brings the error of a cell; None where none does."""
    study = study_of(cell)
    if study is None:
        return None
    if cell.column == LARGE_CROPS and spec.input_size[1] == 224:
        return f"senet-bench evaluate {spec.name} --weights FILE --dataset {study.dataset} --data DIR --img-size 320"
    return f"senet-bench compare {study.id} --only '{cell.row}' --no-latency --dataset {study.dataset} --data DIR"


def training_operations(protocol: Protocol, macs: int | None) -> float | None:
    """About how many floating-point operations a training takes: forward and backward are three forward passes."""
    steps = protocol.recipe.epochs * protocol.train_images
    return None if macs is None else 3.0 * 2.0 * macs * steps
