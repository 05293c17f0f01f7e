"""A trained network in a file of ONNX whose gates `freeze` holds and folds, in ONNX Runtime."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from senet_bench.bench.rounds import Plan
from senet_bench.core.files import written_whole
from senet_bench.core.progress import Steps
from senet_bench.core.specs import Conditions
from senet_bench.core.statistics import Floats
from senet_bench.data import sets
from senet_bench.data.augment import Pixels, normalised
from senet_bench.data.images import Crops, read_images
from senet_bench.data.sets import DataSet, Files, LabelArray
from senet_bench.deployment.onnx_folding import fold
from senet_bench.deployment.onnx_network import (
    OnnxNetwork,
    channel_gates,
    input_shape,
    multiply_adds,
    read_model,
    weight_count,
)
from senet_bench.errors import UsageError
from senet_bench.gates.trained import (
    About,
    FixedGates,
    Freezing,
    ImagePart,
    OnnxImages,
    TimedOrReason,
    parts_of,
    shown_images,
    timed_beside,
)
from senet_bench.training.evaluation import BatchAnswers, Predictions, Viewing, answers_of, assembled, crops_of

GRAPH_BATCH = 64
MOST_KEPT_BYTES = 1 << 29
"""Calibration images of this size are kept: every gate is held on them alone."""


@dataclass(frozen=True, slots=True)
class TrainedGraph:
    """A model, the value of each gate by its product, a data set and the images' height and width.

    `shapes` has the shape of each gate that is one number for each channel, once `means` has seen it.
    """

    file: Path
    model: Any
    images: DataSet
    sides: tuple[int, int]
    parts: Mapping[ImagePart, LabelArray]
    notes: tuple[str, ...]
    gates: Mapping[str, str]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kept: list[Crops] = field(default_factory=list)

    @property
    def about(self) -> About:
        """By the name of the file."""
        name = self.file.stem
        return About(model=name, label=name, weights=self.file.name, notes=(*self.images.notes, *self.notes))

    @property
    def side(self) -> int:
        """The height of an image, in pixels."""
        return self.sides[0]

    def means(self) -> Generator[int, None, FixedGates]:
        """Each gate's mean over the calibration images, of those that are one number for each channel."""
        network, sums, count = OnnxNetwork(self.model, list(self.gates.values())), dict[str, Floats](), 0
        for crops in self._crops("calibration"):
            count += len(crops.rows)
            values = network.inside(normalised(torch.from_numpy(crops.images), self.images.mean, self.images.std))
            for name, value in self.gates.items():
                total = values[value].astype(np.float64).sum(axis=0, keepdims=True)
                sums[name] = sums.get(name, 0.0) + total
            yield count
        alike = {name: total / count for name, total in sums.items() if total.size == max(total.shape)}
        self.shapes.update({name: mean.shape for name, mean in alike.items()})
        return {name: mean.reshape(-1) for name, mean in alike.items()}

    def errors(
        self, part: ImagePart, variants: Mapping[str, FixedGates]
    ) -> Generator[int, None, dict[str, Predictions]]:
        """The answers of each variant's own graph, in which its gates are folded; one variant after another."""
        answers, images = dict[str, Predictions](), shown_images(self.images, part)
        viewing, device = Viewing(channels_last=False), torch.device("cpu")
        for place, (name, gates) in enumerate(variants.items()):
            network, batches, done = OnnxNetwork(self._held(gates)[0]), list[BatchAnswers](), 0
            for crops in self._crops(part):
                with torch.inference_mode():
                    batches.append(answers_of(network, images, images.test.labels, crops, viewing, device))
                done += len(crops.rows)
                yield (place * len(self.parts[part]) + done) // len(variants)
            answers[name] = assembled(batches, images, images.test, [])
        return answers

    def _held(self, gates: FixedGates) -> tuple[Any, list[str]]:
        """The model with these gates folded, and those whose product stays."""
        model = copy.deepcopy(self.model)
        shaped = {name: gate.reshape(self.shapes[name]).astype(np.float32) for name, gate in gates.items()}
        return model, fold(model, shaped)

    def _crops(self, part: ImagePart) -> Iterator[Crops]:
        """The images of a part in batches; those of the calibration are kept where they are small."""
        if part == "calibration" and self.kept:
            yield from self.kept
            return
        kept, rows = list[Crops](), self.parts[part]
        keeps = part == "calibration" and len(rows) * self.images.channels * np.prod(self.sides) <= MOST_KEPT_BYTES
        for crops in _batches(shown_images(self.images, part), rows, self.sides):
            kept += [crops] if keeps else []
            yield crops
        self.kept.extend(kept)

    def stage(self, block: str) -> str:
        """A graph has no stages: the gate's place among the gates."""
        return str([*self.gates].index(block) + 1)

    def obstacle(self, gates: FixedGates) -> str | None:
        """None: where no layer takes a gate, its product by the constant stays."""
        return None

    def remark(self, gates: FixedGates, block: str) -> str | None:
        """Whether the product by the constant stays."""
        return "no layer takes a gate's constants: a product stays" if block in self._held(gates)[1] else None

    def without(self, gates: FixedGates) -> Self:
        """The graph with the gates folded."""
        left = {name: value for name, value in self.gates.items() if name not in gates}
        return replace(self, model=self._held(gates)[0], gates=left)

    def costs(self) -> tuple[int, int]:
        """Constants in floating point; multiply-adds of convolutions, linear layers and gates."""
        image = torch.zeros(1, self.images.channels, *self.sides)
        return weight_count(self.model), multiply_adds(self.model, image, list(self.gates))

    def write(self, path: Path | None, plain: Self, frozen: list[str], default: tuple[Path, str]) -> Path:
        """The file of the graph without these gates."""
        import onnx

        file = path or default[0] / f"{default[1]}.onnx"
        with written_whole(file) as partial:
            onnx.save(plain.model, str(partial), format="protobuf")
        return file

    def timed(self, plain: Self, budget_s: float, seed: int) -> Steps[TimedOrReason]:
        """The latency of `plain` in ONNX Runtime in the same rounds as this graph, or why there is none."""
        before, after = OnnxNetwork(self.model), OnnxNetwork(plain.model)
        conditions, plan = Conditions(batch_size=after.most or 1), Plan(budget_s=budget_s, seed=seed)
        size = (self.images.channels, *self.sides)
        latency, reason = yield from timed_beside(before, after, size, conditions, plan)
        if latency is None:
            return None, reason
        in_runtime = replace(conditions, runtime="onnxruntime")
        return replace(latency, conditions=in_runtime, difference_from_eager=None), reason


def trained_graph(request: Freezing) -> TrainedGraph:
    """The model of a file, and the images of a data set as it takes them; `UsageError` where they do not fit."""
    file = Path(request.model)
    model = read_model(file)
    images = sets.load_images(request.dataset, request.folder)
    images, notes = _normalised(images, request.onnx)
    sides = _sides(request, model, images)
    gates = channel_gates(model)
    if not gates:
        raise UsageError(
            f"{file} has no gates to freeze: no product of a map with what is made of its own mean",
            "give a network with attention",
        )
    _check_classes(model, images, sides)
    return TrainedGraph(file, model, images, sides, parts_of(images, request.most, request.seed), notes, gates)


def _normalised(images: DataSet, asked: OnnxImages) -> tuple[DataSet, tuple[str, ...]]:
    """The data set with the mean and deviation that were asked for, and what is to be said of that."""
    channels, own = images.channels, []
    for name, numbers in (("mean", asked.mean), ("std", asked.std)):
        if numbers is not None and len(numbers) not in (1, channels):
            problem = f"--{name} has {len(numbers)} numbers, the images of {images.name} {channels} channels"
            raise UsageError(problem, "give one number, or one for each channel")
        own.append(numbers)
    mean, std = (tuple(numbers * channels if len(numbers) == 1 else numbers) if numbers else None for numbers in own)
    changed = replace(images, mean=mean or images.mean, std=std or images.std)
    words = "; ".join(
        f"{name} {', '.join(f'{number:.3g}' for number in numbers)}"
        for name, numbers in (("mean", changed.mean), ("std", changed.std))
    )
    return changed, (f"pixels from 0 to 1 normalised by {words}",)


def _sides(request: Freezing, model: Any, images: DataSet) -> tuple[int, int]:
    """The height and width of images: the data set's own, else the file's, else those that were asked for."""
    _, channels, *own = input_shape(model)
    wanted = request.onnx.shape or ((request.size, request.size) if request.size else (None, None))
    if not isinstance(images.test, Files):
        wanted = (images.size, images.size)
    if channels not in (None, images.channels):
        problem = f"{request.model} takes images of {channels} channels, those of {images.name} have {images.channels}"
        raise UsageError(problem, "name its data set with --dataset")
    height, width = (side or known for side, known in zip(wanted, own))
    if height is None or width is None:
        raise UsageError(f"{request.model} takes images of any size", "give --img-size 224, or --shape 48x192")
    if any(known not in (None, side) for known, side in zip(own, (height, width))):
        known = "x".join(str(side or "any") for side in own)
        raise UsageError(f"{request.model} takes images of {known} pixels, not {height}x{width}", f"use {known}")
    return height, width


def _check_classes(model: Any, images: DataSet, sides: tuple[int, int]) -> None:
    """Raise `UsageError` where the file's classes are not those of the data set."""
    with torch.inference_mode():
        classes = OnnxNetwork(model)(torch.zeros(1, images.channels, *sides)).shape[1]
    if classes != len(images.classes):
        raise UsageError(
            f"the file gives {classes} numbers for an image, {images.name} has {len(images.classes)} classes",
            "name its data set with --dataset",
        )


def _batches(images: DataSet, rows: LabelArray, sides: tuple[int, int]) -> Iterator[Crops]:
    """Images in memory as they are; files by their centre crop, resized as a whole where they are no squares."""
    height, width = sides
    split = images.test
    if not isinstance(split, Files) or height == width:
        yield from crops_of(split, Viewing(size=height, batch=GRAPH_BATCH), rows, [])
        return
    yield from read_images(split, rows, GRAPH_BATCH, sides, lambda path, _: _whole(path, height, width))


def _whole(path: Path, height: int, width: int) -> Pixels:
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)
