"""Attention blocks in place: their gates observed while labelled images pass, and what the network errs without them.

A block with a gate per channel multiplies each channel of its map by one number. SE's own formula gives it (equation
3); of any other block it is read from the map before and after, and a block that does something else is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from senet_bench.bench.device import device_of
from senet_bench.bench.machine import arithmetic
from senet_bench.bench.turns import one_thread
from senet_bench.core.statistics import Floats
from senet_bench.data.images import Crops
from senet_bench.data.sets import DataSet, LabelArray, Split
from senet_bench.errors import UsageError, nearest
from senet_bench.gates.tally import NEAR_CONSTANT, GateTally, evenly
from senet_bench.models.attention import SqueezeExcitation
from senet_bench.models.gates import Act, acting, gate_blocks, gate_stages, held_at
from senet_bench.models.modes import evaluating
from senet_bench.training.evaluation import BatchAnswers, Predictions, Viewing, answers_of, assembled, crops_of

SMALL_SIDE = 64
MISFIT = 1e-3
"""The largest relative difference between a block's output and its input times a gate per channel."""
PAPER_CLASSES = {"goldfish": 1, "plane": 404, "pug": 254, "cliff": 972}
"""The four classes of Figures 6 and 7 by their place among ImageNet's; "plane" is taken for the airliner."""
ALL_CLASSES, FEW_CLASSES = 10, 4


def gate_of(block: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gates (N, C) by which a block turned the map x (N, C, H, W) into y.

    For a block other than SE they are least squares, sum(x y) / sum(x x) over places, NaN where a channel is zero all
    over. Raises `UsageError` where y is not x times such gates.
    """
    if isinstance(block, SqueezeExcitation) and block.squeeze_kind != "none":
        return device_of(x.device).doubled(block.excitation(block.squeeze(x)))
    x, y = (device_of(x.device).doubled(map_) for map_ in (x, y))
    power = x.square().sum((2, 3))
    gates = (x * y).sum((2, 3)) / power  # 0 / 0 is NaN: a gate on nothing cannot be seen
    left = (y - x * gates.nan_to_num()[:, :, None, None]).square().sum()
    if left > MISFIT**2 * y.square().sum():
        raise UsageError(
            f"{type(block).__name__} has no gate per channel: its output is not each channel times one number",
            "name a network whose attention acts on whole channels, such as se, eca, ese, srm or gct",
        )
    return gates


class GateWatch:
    """Some images of a split shown to a network whose attention blocks are observed, or held at fixed gates.

    All of its blocks unless one is named by `only`.
    `tallies` and `seen` are there after `observe`, and in `calls` how often an image calls each block: each call counts
    in the tally. `held` has the predictions of every variant after `hold`.
    Both are generators of the number of images shown so far; both leave the network as it was.
    """

    def __init__(
        self,
        network: nn.Module,
        data: DataSet,
        rows: LabelArray,
        viewing: Viewing,
        near: float = NEAR_CONSTANT,
        only: str | None = None,
    ) -> None:
        self.network, self.data, self.rows, self.viewing = network, data, rows, viewing
        self.split: Split = data.test
        side = viewing.size or data.size
        blocks = gate_blocks(network, (data.channels, side, side))
        self.blocks = blocks if only is None else {only: blocks[only]}
        self.stages = gate_stages(network, (data.channels, side, side))
        self.tallies = {name: GateTally(len(data.classes), near) for name in self.blocks}
        self.calls: dict[str, int] = {}
        self.held: dict[str, Predictions] = {}

    def observe(self) -> Iterator[int]:
        """Show the images once, each block's gates counted into its tally; a block that is not run has none."""
        parts: list[BatchAnswers] = []
        corrupt: list[Path] = []
        with _evaluating(self.network, self.viewing):
            for done, crops in self._batches(corrupt):
                gates: dict[str, list[Tensor]] = {name: [] for name in self.blocks}
                with acting((block, _noting(gates[name])) for name, block in self.blocks.items()):
                    parts.append(self._show(crops))
                for name, calls in gates.items():
                    self.calls[name] = max(len(calls), self.calls.get(name, 0))
                    for gate in calls:
                        self.tallies[name].add(gate.cpu().numpy(), self.split.labels[crops.rows])
                yield done
        self.tallies = {name: tally for name, tally in self.tallies.items() if tally.origin is not None}
        self.seen = assembled(parts, self.data, self.split, [str(path) for path in corrupt])

    def hold(self, variants: Mapping[str, Mapping[str, Tensor]]) -> Iterator[int]:
        """Show the images once to every variant: the blocks that each names, held at the gates (C,) it gives them."""
        parts: dict[str, list[BatchAnswers]] = {variant: [] for variant in variants}
        corrupt: list[Path] = []
        with _evaluating(self.network, self.viewing):
            for done, crops in self._batches(corrupt):
                for variant, gates in variants.items():
                    with acting((self.blocks[name], held_at(gate)) for name, gate in gates.items()):
                        parts[variant].append(self._show(crops))
                yield done
        skipped = [str(path) for path in corrupt]
        self.held |= {
            name: assembled(predictions, self.data, self.split, skipped) for name, predictions in parts.items()
        }

    def means(self) -> dict[str, Tensor]:
        """Each block's mean gates over the images (C,); 1 where a channel's gate was never seen."""
        device = torch.device(self.viewing.device)
        return {
            name: torch.from_numpy(np.nan_to_num(tally.mean(), nan=1.0)).float().to(device)
            for name, tally in self.tallies.items()
        }

    def images(self, block: str) -> Floats:
        """How many images of each class a block has seen (classes,)."""
        return np.asarray(self.tallies[block].count.max(1) // self.calls[block])

    def stage(self, block: str) -> str:
        """The stage that a block stands in, by its number."""
        return str(self.stages[block])

    def _batches(self, corrupt: list[Path]) -> Iterator[tuple[int, Crops]]:
        done = 0
        for crops in crops_of(self.split, self.viewing, self.rows, corrupt):
            done += len(crops.rows)
            yield done, crops

    def _show(self, crops: Crops) -> BatchAnswers:
        device = torch.device(self.viewing.device)
        with torch.inference_mode():
            return answers_of(self.network, self.data, self.split.labels, crops, self.viewing, device)


def variants(means: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """For `Watch.hold`: every block at 1 (`NAME=1`) and at its mean gate (`NAME=mean`), and all blocks so (`*=...`).

    At 1 the block is the identity, as the paper's taking it out; but the layers behind it then see another scale than
    they were trained with. At its mean that scale stays, and only what depends on the image is gone.
    """
    ones = {name: torch.ones_like(mean) for name, mean in means.items()}
    fixed: dict[str, dict[str, Tensor]] = {}
    for kind, gates in (("1", ones), ("mean", dict(means))):
        fixed |= {f"{name}={kind}": {name: gate} for name, gate in gates.items()}
        fixed[f"*={kind}"] = gates
    return fixed


@contextlib.contextmanager
def _evaluating(network: nn.Module, viewing: Viewing) -> Iterator[None]:
    """The network in evaluation mode and IEEE single precision, on one thread for small images; then as it was."""
    small = viewing.size is not None and viewing.size <= SMALL_SIDE
    threads = one_thread() if small else contextlib.nullcontext()  # a second would wait: four times the CPU time
    with evaluating(network), threads, arithmetic(tf32=False):
        yield


def _noting(gates: list[Tensor]) -> Act:
    def note(block: nn.Module, x: Tensor, y: Tensor) -> None:
        gates.append(gate_of(block, x, y))

    return note


def drawn_rows(labels: LabelArray, per_class: int | None, seed: int) -> LabelArray:
    """The rows of at most `per_class` images of every class, drawn by the seed; all rows for None."""
    if per_class is None:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen)) if chosen else np.arange(0)


def chosen_classes(names: Sequence[str], images: DataSet) -> dict[str, int]:
    """The classes to be looked at one by one, by name, with their places; a place may be given for a name.

    Without names: all of at most ten; of ImageNet the paper's four; else four uniformly spaced, of those that have
    test images. Raises `UsageError` for a class that the data set does not have or has no image of.
    """
    present = set(images.test.labels.tolist())
    if names:
        found = {name: _class_place(name, images) for name in names}
        empty = next((name for name, place in found.items() if place not in present), None)
        if empty is not None:
            raise UsageError(f"{images.name} has no image of class {empty!r} here", "choose another with --classes")
        return found
    if images.name == "imagenet" and present.issuperset(PAPER_CLASSES.values()):
        return dict(PAPER_CLASSES)
    places = sorted(present)
    wanted = ALL_CLASSES if len(places) <= ALL_CLASSES else FEW_CLASSES
    return {images.classes[places[index]]: places[index] for index in evenly(len(places), wanted)}


def _class_place(name: str, images: DataSet) -> int:
    if name in images.classes:
        return images.classes.index(name)
    if name.isascii() and name.isdigit() and int(name) < len(images.classes):
        return int(name)
    begin = f"its {len(images.classes)} classes begin {', '.join(images.classes[:3])}"
    raise UsageError(f"{images.name} has no class {name!r}", nearest(name, images.classes) or begin)
