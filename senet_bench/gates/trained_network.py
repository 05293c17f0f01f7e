"""A trained network of torch whose gates `freeze` holds and folds."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from senet_bench.bench.count import count
from senet_bench.bench.rounds import Plan
from senet_bench.core.progress import Steps
from senet_bench.core.specs import Conditions, ModelSpec
from senet_bench.data.sets import DataSet, LabelArray
from senet_bench.errors import UsageError
from senet_bench.gates.subject import shown_at, trained_subject
from senet_bench.gates.trained import (
    About,
    FixedGates,
    Freezing,
    ImagePart,
    TimedOrReason,
    parts_of,
    shown_images,
    timed_beside,
)
from senet_bench.gates.watch import GateWatch
from senet_bench.models.folding import folded
from senet_bench.run.cases import label
from senet_bench.training import weights
from senet_bench.training.evaluation import Predictions, Viewing
from senet_bench.training.weights import Loaded

KEPT_FACTS = ("recipe", "epochs", "seed")
"""What frozen weights say of the training of those that they were made from."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A network with its weights, a data set, how its images are shown, and what frozen weights say of both."""

    loaded: Loaded
    facts: Mapping[str, str]
    images: DataSet
    viewing: Viewing
    parts: Mapping[ImagePart, LabelArray]
    watches: dict[ImagePart, GateWatch] = field(default_factory=dict)

    @property
    def about(self) -> About:
        """By its row of the catalog and the facts in its file."""
        return About(
            model=self.loaded.spec.name,
            label=label(self.loaded.spec),
            weights=Path(self.loaded.source).name,
            attention=self.loaded.spec.attention,
            key=self.loaded.metadata.get("key"),
            notes=(*self.images.notes, *self.loaded.notes),
        )

    @property
    def side(self) -> int:
        """The side of an image, in pixels."""
        return self.viewing.size or self.images.size

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as the network sees it."""
        return (self.images.channels, self.side, self.side)

    def watch(self, part: ImagePart) -> GateWatch:
        """The images of a part before the network."""
        if part not in self.watches:
            images = shown_images(self.images, part)
            self.watches[part] = GateWatch(self.loaded.network, images, self.parts[part], self.viewing)
        return self.watches[part]

    def means(self) -> Generator[int, None, FixedGates]:
        """Each block's mean gates over the calibration images."""
        watch = self.watch("calibration")
        if not watch.blocks:
            return {}
        yield from watch.observe()
        return {name: gate.double().cpu().numpy() for name, gate in watch.means().items()}

    def errors(
        self, part: ImagePart, variants: Mapping[str, FixedGates]
    ) -> Generator[int, None, dict[str, Predictions]]:
        """The predictions of all variants, image by image."""
        watch = self.watch(part)
        yield from watch.hold({name: self._tensors(gates) for name, gates in variants.items()})
        return {name: watch.held[name] for name in variants}

    def _tensors(self, gates: FixedGates) -> dict[str, Tensor]:
        device = torch.device(self.viewing.device)
        return {name: torch.from_numpy(gate).float().to(device) for name, gate in gates.items()}

    def stage(self, block: str) -> str:
        """The stage that a block stands in, by its number."""
        return self.watch("calibration").stage(block)

    def obstacle(self, gates: FixedGates) -> str | None:
        """What the folding says that cannot be done."""
        try:
            folded(self.loaded.network, self._tensors(gates), self.input_size)
        except UsageError as error:
            return error.problem
        return None

    def remark(self, gates: FixedGates, block: str) -> str | None:
        """Nothing: what cannot be folded whole is kept."""
        return None

    def without(self, gates: FixedGates) -> Self:
        """The network with an identity where each block was."""
        plain = folded(self.loaded.network, self._tensors(gates), self.input_size)
        return replace(self, loaded=replace(self.loaded, network=plain), watches={})

    def costs(self) -> tuple[int, int]:
        """All parameters, and the multiply-adds of `count`."""
        params = sum(parameter.numel() for parameter in self.loaded.network.parameters())
        return params, count(self.loaded.network, self.input_size).macs

    def write(self, path: Path | None, plain: Self, frozen: list[str], default: tuple[Path, str]) -> Path:
        """The file of the frozen weights: the baseline's where no block is left, else the network's without some."""
        loaded, spec, file = self.loaded, self.loaded.spec, path or default[0] / f"{default[1]}.safetensors"
        facts = {key: loaded.metadata[key] for key in KEPT_FACTS if key in loaded.metadata}
        gone = [*loaded.metadata.get("frozen", ()), *frozen]
        left = {} if len(frozen) == len(self.watch("calibration").tallies) and spec.baseline else {"frozen": gone}
        if not left and spec.baseline:
            spec = replace(spec, name=spec.baseline, attention=None)
        facts |= {"normalisation": self.images.normalisation}
        weights.save(plain.loaded.network, file, spec, **{**facts, **left, **self.facts})
        return file

    def timed(self, plain: Self, budget_s: float, seed: int) -> Steps[TimedOrReason]:
        """The latency of `plain` in the same rounds as this network, or why there is none."""
        conditions, plan = Conditions(device=self.viewing.device), Plan(budget_s=budget_s, seed=seed)
        return timed_beside(self.loaded.network, plain.loaded.network, self.input_size, conditions, plan)


def trained_network(request: Freezing, spec: ModelSpec) -> TrainedNetwork:
    """The network of a row with the weights that were asked for, and the images."""
    assert request.weights is not None  # checked
    loaded, images = trained_subject(spec, request.weights, request.dataset, request.folder, as_trained=True)
    loaded.network.to(request.device)
    facts = {"dataset": request.dataset, "frozen_from": request.weights}
    viewing = shown_at(spec, images, request.device, size=request.size)
    return TrainedNetwork(loaded, facts, images, viewing, parts_of(images, request.most, request.seed))
