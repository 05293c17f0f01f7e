"""What lies in a file of weights: its tensors under plain names, what it says of itself, and what a reader must know.

A pickle is opened with `weights_only`, so it cannot run code; what trainers put beside the tensors and holds no code
(`argparse.Namespace`, paths, NumPy's numbers) is let through.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from senet_bench.core.files import check_regular
from senet_bench.errors import BenchError, MeasurementError, UsageError, first_line
from senet_bench.training import checkpoint

SAFE: tuple[Any, ...] = (
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    np.dtype,
    np.ndarray,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
    np.float64(0).__reduce__()[0],  # numpy's own maker of scalars
)
"""What a pickle may hold beside tensors: plain values, none of which runs code when it is made."""
RAW = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "params", "weights")
"""Where trainers keep the weights, the more usual first."""
AVERAGING = re.compile(r"(^|_)(ema|swa|averaged?)(_|$)")
"""What the name of an average of the weights (EMA) has in it."""
Taken = Literal["raw", "average"]
"""Which of two states was taken."""
TAKEN_WORDS: dict[Taken, str] = {"raw": "the raw weights", "average": "the average (EMA)"}


@dataclass(frozen=True, slots=True)
class Contents:
    """The tensors of a file by name, its metadata (of our own files alone), and what must be said about them.

    `taken` is which of two states they are, None for a file of one.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()
    taken: Taken | None = None


def contents(path: Path, *, average: bool | None = None) -> Contents:
    """What a file holds; raises `UsageError` for one that holds other things than weights, or code.

    A trainer's file gives its raw weights, one of ours the average where it has one; `average` chooses otherwise, and
    which was taken is said where there are both.
    """
    check_regular(path)
    try:
        if _is_safetensors(path):
            return _of_safetensors(path, average)
        with torch.serialization.safe_globals(list(SAFE)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except BenchError:
        raise
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than weights and is not opened (or is damaged)", "convert it to safetensors"
        ) from error
    except Exception as error:  # an unpickler raises whatever the bytes lead it to
        why = first_line(error)
        raise MeasurementError(f"{path} is no readable weights file ({why})", "download or save it again") from error
    ours = isinstance(content, dict) and content.get("format") == checkpoint.CHECKPOINT_FORMAT
    metadata = dict(content["identity"]) if ours else {}
    state, taken = _chosen(path, content, ours if average is None else average, ours=ours)
    tensors = {name: value for name, value in state.items() if name != "n_averaged"}
    return Contents(tensors, metadata, _said(taken), taken)


def _said(taken: Taken | None) -> tuple[str, ...]:
    if taken is None:
        return ()
    other: Taken = "raw" if taken == "average" else "average"
    return (f"taken: {TAKEN_WORDS[taken]} of the file, which holds {TAKEN_WORDS[other]} too",)


def unwrapped(held: Contents, known: Callable[[Collection[str]], bool], *, average: bool = False) -> Contents:
    """The contents without what wrappers put before the names, until these are `known`; as they are where none is.

    Of networks side by side, such as Lightning's `model.` and `criterion.`, the one that is known is taken; of two, the
    raw weights or their average.
    """
    tensors, notes, taken = held.tensors, held.notes, held.taken
    while tensors and not known(tensors):
        groups = _groups(tensors)
        if not any("." in name for name in tensors):
            return held
        if len(groups) == 1:
            tensors = next(iter(groups.values()))
            continue
        alone = {name: unwrapped(Contents(group, {}), known).tensors for name, group in groups.items()}
        fitting = {name: group for name, group in alone.items() if known(group)}
        if not fitting:
            return held
        name, chose = _one_of(fitting, average=average)
        left = [f"{other}.*" for other in groups if other != name and other not in fitting]
        tensors, taken = fitting[name], chose or taken
        notes += (*_said(chose), *([f"left out: {', '.join(left)[:200]}"] if left else []))
    return replace(held, tensors=tensors, notes=notes, taken=taken)


def _groups(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors by the first part of their names, under what is left of them."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        groups.setdefault(first, {})[rest or first] = value
    return groups


def _chosen(path: Path, content: Any, average: bool, *, ours: bool) -> tuple[Mapping[str, Tensor], Taken | None]:
    """The state dict in a file, raw or averaged, and which was taken where there are both."""
    if _is_state(content):
        _check_average(path, {name.partition(".")[0] for name in content}, average=average)
        return content, None
    states = {key: value for key, value in content.items() if _is_state(value)} if isinstance(content, dict) else {}
    if not states:
        raise UsageError(f"{path} holds no state dict", "save network.state_dict()")
    inside = {name.partition(".")[0] for state in states.values() for name in state}
    _check_average(path, {*states, *inside}, average=average and not ours)
    try:
        key, taken = _one_of(states, average=average)
    except UsageError as error:
        raise UsageError(f"{path}: {error.problem}", error.remedy) from error
    return states[key], taken


def _check_average(path: Path, names: Collection[str], *, average: bool) -> None:
    """Raise `UsageError` where an average is wanted and no name is one's."""
    if average and not any(map(AVERAGING.search, names)):
        raise UsageError(f"{path} holds no average of the weights (EMA)", "leave out --ema-weights")


def _is_state(value: Any) -> bool:
    """Whether a value is a state dict with something in it."""
    named = isinstance(value, dict) and value and all(isinstance(name, str) for name in value)
    return bool(named) and all(isinstance(tensor, Tensor) for tensor in value.values())


def _one_of(states: Mapping[str, object], *, average: bool) -> tuple[str, Taken | None]:
    """The name of the raw weights or of their average, and which it is where there are both."""
    averages = [name for name in states if AVERAGING.search(name)]
    others = [name for name in states if name not in averages]
    raws = [name for name in RAW if name in others][:1] or others
    chosen = (averages or raws) if average else (raws or averages)
    if len(chosen) > 1:
        raise UsageError(f"it holds the weights of {len(chosen)} networks: {', '.join(chosen)[:200]}", "save one alone")
    taken: Taken = "average" if chosen[0] in averages else "raw"
    return chosen[0], taken if averages and raws else None


def _is_safetensors(path: Path) -> bool:
    """Whether a file is called so, or begins as such files do: the length of a JSON object, and that object."""
    with path.open("rb") as file:
        return path.suffix.lower() == ".safetensors" or file.read(10)[8:] == b'{"'


def _of_safetensors(path: Path, average: bool | None) -> Contents:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    ours = "senet-bench" in metadata.get("format", "")
    _check_average(path, {name.partition(".")[0] for name in tensors}, average=bool(average))
    return Contents(tensors, {key: json.loads(value) for key, value in metadata.items()} if ours else {})
