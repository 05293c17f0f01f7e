"""Weights of another number of classes than a network has: a new head, or the rows of the classes that there are."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor, nn

from senet_bench.errors import UsageError

HeadState: TypeAlias = Literal["same", "new"] | tuple[str, ...]
"""What is done where the classes are others: refuse, begin anew, or take the rows of the classes of these names."""
IMAGENET_CLASSES = 1000
SYNSETS = "data/_info/imagenet_synsets.txt"
"""Where timm keeps the WordNet ids of ImageNet's classes, in their order."""


def fitted_head(
    tensors: Mapping[str, Tensor], network: nn.Module, head: HeadState
) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """The tensors with a head for the network's classes, the names of those that stay new, and what must be said.

    The head is the one module whose tensors differ in their rows alone; without such, all is as it was.
    """
    wanted, kept = network.state_dict(), dict(tensors)
    differing = [name for name, value in kept.items() if name in wanted and not _fits(value, wanted[name])]
    modules = {name.rpartition(".")[0] for name in differing}
    rows_alone = all(kept[name].shape[1:] == wanted[name].shape[1:] for name in differing)
    if head == "same" or len(modules) != 1 or not rows_alone:
        return kept, (), ""
    theirs, ours = (state[differing[0]].shape[0] for state in (kept, wanted))
    if head == "new":
        note = f"the head ({modules.pop()}) is new: the weights are of {theirs:,} classes, the network has {ours:,}"
        return {name: value for name, value in kept.items() if name not in differing}, tuple(differing), note
    rows = class_numbers(head, theirs)
    kept |= {name: kept[name][rows] for name in differing}
    return kept, (), f"{ours:,} of the weights' {theirs:,} classes are chosen from: those of the images"


def _fits(value: Tensor, target: Tensor) -> bool:
    return value.numel() == target.numel()


def class_numbers(names: Sequence[str], classes: int) -> list[int]:
    """The numbers of classes among ImageNet's, by WordNet ids or by the numbers themselves; else `UsageError`."""
    problem = f"the weights are of {classes:,} classes and the images of {len(names):,}"
    if classes != IMAGENET_CLASSES:
        raise UsageError(problem, "give weights of the same classes")
    numbers = {str(number): number for number in range(classes)}
    if all(re.fullmatch(r"n\d{8}", name) for name in names):
        numbers = {name: number for number, name in enumerate(_synsets())}
        if not numbers:
            raise UsageError(f"{problem}; which they are is read from timm's list", "pip install 'senet-bench[timm]'")
    unknown = next((name for name in names if name not in numbers), None)
    if unknown is not None:
        raise UsageError(
            f"{problem}; {unknown!r} is none of ImageNet's", "name folders by WordNet ids (n01440764) or 0 to 999"
        )
    return [numbers[name] for name in names]


def _synsets() -> list[str]:
    """The WordNet ids of ImageNet's classes in their order, none where timm is not installed."""
    library = importlib.util.find_spec("timm")
    for place in library.submodule_search_locations or () if library else ():
        path = Path(place, SYNSETS)
        if path.is_file():
            return path.read_text().split()
    return []
