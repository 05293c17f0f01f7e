"""Checkpoints that hold all a run needs to go on as if nothing had happened, and are whole or absent."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from senet_bench.bench.device import DEVICE_CLASSES, Device
from senet_bench.core.files import written_whole
from senet_bench.errors import UsageError, one_line


class UnfitCheckpointError(UsageError):
    """A checkpoint that is damaged, or of another run."""


CHECKPOINT_FORMAT = "senet-bench.checkpoint/1"


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Store `content` under `path`, whole or not at all."""
    with written_whole(path) as partial:
        try:
            with partial.open("wb") as file:
                torch.save({"format": CHECKPOINT_FORMAT, **content}, file)
        except RuntimeError as error:  # torch's writer does not say itself that the disk is full
            cause = error.__context__
            raise OSError(*cause.args if isinstance(cause, OSError) else (one_line(error),)) from error


def read_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint in `path`, on the CPU; `UnfitCheckpointError` if it is damaged, or of a run unlike `identity`."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content.get("format") != CHECKPOINT_FORMAT:
            raise ValueError("not a checkpoint of senet-bench")
        stored: dict[str, Any] = dict(content["identity"])
    except Exception as error:  # an unpickler raises whatever the bytes lead it to
        raise UnfitCheckpointError(
            f"{path} is not a checkpoint to resume from ({type(error).__name__})", "start anew, without --resume"
        ) from error
    different = [key for key in sorted(stored.keys() | identity.keys()) if stored.get(key) != identity.get(key)]
    if different:
        key = different[0]
        raise UnfitCheckpointError(
            f"{path} is of another run ({key}: {stored.get(key)!r} there, {identity.get(key)!r} here)",
            "give the same settings, or start anew without --resume",
        )
    return content


def random_state() -> dict[str, Any]:
    """The state of every generator of this process: Python, NumPy, torch, and each CUDA device in use."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": (version, list(words), gauss),
        "numpy": (str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        **{kind: make(torch.device(kind)).random_state() for kind, make in _accelerators()},
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Set every generator to a state from `random_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for kind, make in _accelerators():
        make(torch.device(kind)).restore_random_state(state.get(kind, []))


def _accelerators() -> list[tuple[str, type[Device]]]:
    return [(kind, make) for kind, make in DEVICE_CLASSES.items() if kind != "cpu"]
