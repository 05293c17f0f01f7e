"""Checkpoints by name: from the cache when they are there, else from where timm and torchvision keep them.

What is downloaded is compared with its published SHA-256, and so is what is found in a cache.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch

from senet_bench.errors import MeasurementError, UsageError

HUB_FILE = "model.safetensors"
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, of values in 0..1."""


def fetch(library: str, name: str) -> Path:
    """The file with the weights `name` of timm (`seresnet50.a1_in1k`) or torchvision (`resnet50.IMAGENET1K_V1`)."""
    return _from_timm(name) if library == "timm" else _from_torchvision(name)


def normalisation(library: str, name: str) -> Normalisation | None:
    """What images were normalised with when these weights were trained; None for torchvision's, always ImageNet's."""
    if library != "timm":
        return None
    about = _about_timm(name)
    return tuple(about.mean), tuple(about.std)


def _about_timm(name: str) -> Any:
    """What timm knows of the weights of that name; `UsageError` when it has none."""
    try:
        from timm.models import get_pretrained_cfg
    except ImportError as error:
        raise UsageError("weights of timm need timm to be found", "pip install senet-bench[timm,hub]") from error
    try:
        config: Any = get_pretrained_cfg(name)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UsageError(f"timm has no weights {name!r}", "see timm.list_pretrained()") from error
    if config is None or not (config.hf_hub_id or config.url):
        raise UsageError(f"timm has no weights for {name!r}", "give a file")
    return config


def _from_timm(name: str) -> Path:
    config = _about_timm(name)
    if config.hf_hub_id:
        repository = config.hf_hub_id if "/" in config.hf_hub_id.rstrip("/") else f"timm/{name}"
        return from_hub(repository, config.hf_hub_filename or HUB_FILE)
    return from_url(config.url)


def _from_torchvision(name: str) -> Path:
    from torchvision.models import get_model_weights

    model, _, tag = name.partition(".")
    known = get_model_weights(model)
    if tag and tag not in known.__members__:
        raise UsageError(f"torchvision has no weights {name!r}", f"choose from {', '.join(known.__members__)}")
    return from_url((known[tag] if tag else known.DEFAULT).url)


def from_hub(repository: str, file: str) -> Path:
    """A file of the Hugging Face hub, cached copies first; its name in the cache is its SHA-256."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise UsageError("weights on the hub need huggingface_hub", "pip install senet-bench[hub]") from error
    try:
        path = Path(hf_hub_download(repository, file, local_files_only=True))
    except LocalEntryNotFoundError:
        try:
            path = Path(hf_hub_download(repository, file))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise MeasurementError(
                f"{repository}/{file} is not cached and cannot be downloaded", "connect once, or give a file"
            ) from error
    blob = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob):
        _check(path, blob)
    return path


def from_url(url: str) -> Path:
    """A release file whose name ends in the start of its SHA-256, kept in torch's own cache."""
    name = url.rsplit("/", 1)[-1]
    marked = re.search(r"-([0-9a-f]{8,64})\.", name)
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), marked[1] if marked else None, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise MeasurementError(
                f"{url} is not cached and cannot be downloaded ({error})", f"put it at {path}"
            ) from error
    if marked:
        _check(path, marked[1])
    return path


def _check(path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if not digest.hexdigest().startswith(expected):
        raise MeasurementError(
            f"{path} is damaged: its SHA-256 starts with {digest.hexdigest()[: len(expected)]}, not {expected}",
            "delete it and load it again",
        )
