"""What lies in a file of weights: its tensors under plain names, what it says of itself, and what a reader must know.

A pickle is opened with `weights_only`, so it cannot run code; what trainers put beside the tensors and holds no code
(`argparse.Namespace`, paths, NumPy's numbers) is let through.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from senet_bench.errors import MeasurementError, UsageError
from senet_bench.train import checkpoint

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
PREFIXES = ("_orig_mod.", "module.", "model.")
"""What `torch.compile`, data-parallel wrappers and Lightning put before every name."""
RAW = ("state_dict", "model")
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
"""Where trainers keep the weights, and the average of them (EMA)."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The tensors of a file by name, its metadata (of our own files alone), and what must be said about them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()


def contents(path: Path, *, average: bool | None = None) -> Contents:
    """What a file holds; raises `UsageError` for one that holds other things than weights, or code.

    A trainer's file gives its raw weights, one of ours the average where it has one; `average` chooses otherwise, and
    which was taken is said where there are both.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return _of_safetensors(path, average)
        with torch.serialization.safe_globals(list(SAFE)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than weights and is not opened (or is damaged)", "convert it to safetensors"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError) as error:
        raise MeasurementError(f"{path} is no readable weights file ({error})", "download or save it again") from error
    ours = isinstance(content, dict) and content.get("format") == checkpoint.CHECKPOINT_FORMAT
    metadata = dict(content["identity"]) if ours else {}
    content, notes = _chosen(path, content, ours if average is None and ours else average)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"{path} holds no state dict", "save network.state_dict()")
    return Contents({name: value for name, value in content.items() if name != "n_averaged"}, metadata, notes)


def unwrapped(tensors: Mapping[str, Tensor], own: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors without what wrappers put before their names; as they are where a name is one of the network's."""
    plain = dict(tensors)
    while plain and not any(name in own for name in plain):
        prefix = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in plain)), None)
        if prefix is None:
            break
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
    return plain


def _chosen(path: Path, content: Any, average: bool | None) -> tuple[Any, tuple[str, ...]]:
    """The state dict in a trainer's file, raw or averaged, and which was taken where there are both."""
    if not isinstance(content, dict):
        return content, ()
    raw = next((content[key] for key in RAW if isinstance(content.get(key), dict)), None)
    averaged = next((content[key] for key in AVERAGES if isinstance(content.get(key), dict) and content[key]), None)
    if average and averaged is None and (raw is None or content.get("format") != checkpoint.CHECKPOINT_FORMAT):
        raise UsageError(f"{path} holds no average of the weights (EMA)", "take its raw weights")
    if raw is None and averaged is None:
        return content, ()
    if raw is None or averaged is None:
        return averaged if raw is None else raw, ()
    taken, other = ("the average (EMA)", "the raw weights") if average else ("the raw weights", "the average (EMA)")
    return averaged if average else raw, (f"taken: {taken} of the file, which holds {other} too",)


def _of_safetensors(path: Path, average: bool | None) -> Contents:
    from safetensors import SafetensorError, safe_open

    if average:
        raise UsageError(f"{path} holds no average of the weights (EMA)", "take its raw weights")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    ours = "senet-bench" in metadata.get("format", "")
    return Contents(tensors, {key: json.loads(value) for key, value in metadata.items()} if ours else {})
