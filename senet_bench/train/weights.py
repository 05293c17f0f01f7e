"""Weights in and out: our safetensors checkpoints, and those of timm and torchvision renamed into our networks."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from senet_bench.core import catalog
from senet_bench.core.specs import AttentionSpec, ModelSpec
from senet_bench.core.store import whole
from senet_bench.data.sets import IMAGENET_MEAN, IMAGENET_STD
from senet_bench.errors import MeasurementError, UsageError, one_line
from senet_bench.models import attention_blocks, build_spec
from senet_bench.train import checkpoint, downloads
from senet_bench.train.renaming import (
    REFUSED,
    RENAMES,
    SOURCES,
    TRUNK_OF_DETECTOR,
    Source,
    fitted,
    in_detector,
    source_of,
    style_of,
)

FORMAT = "senet-bench.weights/1"


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A network with weights: the row it was built from, where they came from, and what a reader must know.

    `fresh` names the attention blocks that the checkpoint does not have and that keep their initial values.
    `metadata` is what our own checkpoints say about their training. `normalisation` is the mean and the standard
    deviation that images were normalised with there, None where nothing says so.
    """

    network: nn.Module
    spec: ModelSpec
    source: str
    fresh: tuple[str, ...]
    notes: tuple[str, ...]
    metadata: Mapping[str, Any]
    normalisation: downloads.Normalisation | None = None


def save(network: nn.Module, path: Path, spec: ModelSpec, **metadata: Any) -> None:
    """Write the network's weights as safetensors with what they are, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    about = {"format": FORMAT, "model": spec.name, "attention": _attention(spec), **metadata}
    with whole(path) as partial:
        try:
            save_file(tensors, partial, metadata={key: json.dumps(value) for key, value in about.items()})
        except SafetensorError as error:
            raise OSError(one_line(error)) from error


def load(
    spec: ModelSpec, weights: str, *, classes: int | None = None, in_channels: int = 3, as_trained: bool = False
) -> Loaded:
    """The network of a catalog row with weights from a file, or by a timm or torchvision name (see `SOURCES`).

    A name may start with `timm:` or `torchvision:` and end with a tag (`seresnet50.a1_in1k`); what it names is
    taken from the cache when it is there. With `as_trained` the network has the attention that a checkpoint of ours
    says it was trained with. Raises `UsageError` for weights of another network or layout.
    """
    path, source = _located(weights)
    tensors, metadata = read(path)
    as_named = metadata.get("format") == FORMAT or ":" in spec.name  # ours, or of a network that is not ours
    style = source.style if source else "ours" if as_named else style_of(tensors)
    if style is None:
        raise UsageError(f"the names in {path} belong to no known library", "give a checkpoint of timm or torchvision")
    if style == "ours":
        spec = _as_trained(spec, metadata) if as_trained else spec
        _check_same_network(spec, metadata, path)
    spec, note = fitted(spec, style)
    network = build_spec(spec, classes, in_channels=in_channels)
    renamed = {RENAMES[style](name, spec): value for name, value in tensors.items()}
    _check_has_places(spec, renamed, path)
    fresh = _fill(network, renamed, path)
    notes = [note] if note else []
    if source is None and style == "mobilenet" and spec.options.get("version") not in (None, "v2"):
        notes.append("taken for weights of timm's own network: those of its tf_ network have the same names")
    if fresh:
        notes.append(f"{len(fresh)} attention blocks keep their initial values: the weights have none")
    normalisation = downloads.normalisation(source.library, weights.rpartition(":")[2]) if source else None
    if normalisation not in (None, (IMAGENET_MEAN, IMAGENET_STD)):
        notes.append("images are normalised by mean {} and deviation {}, as in its training".format(*normalisation))
    return Loaded(network, spec, str(path), fresh, tuple(notes), metadata, normalisation)


def load_trunk(network: nn.Module, spec: ModelSpec, weights: str) -> tuple[str, ...]:
    """Put a classifier's weights into the trunk of a detector; what must be said about them.

    They come from a file or by a name, as in `load`, and must be those of the trunk (`spec.trunk`, or its baseline).
    """
    trunk = replace(catalog.resolve(spec.trunk or ""), attention=spec.attention)
    path, source = _located(weights)
    tensors, metadata = read(path)
    style = source.style if source else style_of(tensors)
    if style is None:
        raise UsageError(f"the names in {path} belong to no known library", "give a checkpoint of timm or torchvision")
    if style == "ours":
        _check_same_network(trunk, metadata, path)
    try:
        fitted(trunk, style)
    except UsageError as error:
        raise UsageError(error.problem, f"{error.remedy} as the trunk") from error
    named = {RENAMES[style](name, trunk): value for name, value in tensors.items()}
    place = in_detector(spec)
    placed = {place(name): value for name, value in named.items() if not name.startswith("classifier.")}
    parts = {name: value for name, value in network.state_dict().items() if name.startswith(TRUNK_OF_DETECTOR)}
    fresh = _fill(network, placed, path, parts)
    return (f"{len(fresh)} attention blocks start untrained: the trunk's weights have none",) if fresh else ()


def _located(weights: str) -> tuple[Path, Source | None]:
    """The file of a path or name, and what the name says of it."""
    path = Path(weights).expanduser()
    if path.is_file():
        return path, None
    source = source_of(weights)
    if source is not None:
        return downloads.fetch(source.library, weights.rpartition(":")[2]), source
    name = weights.rpartition(":")[2].split(".")[0]
    if name in REFUSED:
        raise UsageError(f"{weights} is not loaded: {name} {REFUSED[name]}", f"use {name.removeprefix('tf_')}")
    if path.suffix in (".safetensors", ".pth", ".pt", ".bin", ".ckpt") or os.sep in weights:
        raise MeasurementError(f"there is no weights file {weights}", "give an existing file or a name")
    raise UsageError(f"unknown weights {weights!r}", f"give a file, or one of {', '.join(SOURCES)}")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file and its metadata; a pickle is opened with `weights_only`, so it cannot run code.

    Training checkpoints give their model, and its average where they have one.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than weights and is not opened (or is damaged)", "convert it to safetensors"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise MeasurementError(f"{path} is no readable weights file ({error})", "download or save it again") from error
    metadata: dict[str, Any] = {}
    if isinstance(content, dict) and content.get("format") == checkpoint.FORMAT:
        metadata = dict(content["identity"])
        content = content["ema"] or content["model"]
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"{path} holds no state dict", "save network.state_dict()")
    return {name.removeprefix("module."): value for name, value in content.items()}, metadata


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    ours = "senet-bench" in metadata.get("format", "")
    return tensors, {key: json.loads(value) for key, value in metadata.items()} if ours else {}


def _attention(spec: ModelSpec) -> dict[str, Any] | None:
    """The attention of a row as JSON gives it back."""
    plain: dict[str, Any] | None = json.loads(json.dumps(asdict(spec.attention) if spec.attention else None))
    return plain


def _as_trained(spec: ModelSpec, metadata: Mapping[str, Any]) -> ModelSpec:
    """The row with the attention of a checkpoint of the same network."""
    if metadata.get("model") != spec.name or "attention" not in metadata:
        return spec
    return replace(spec, attention=msgspec.convert(metadata["attention"], AttentionSpec | None))


def _check_same_network(spec: ModelSpec, metadata: Mapping[str, Any], path: Path) -> None:
    stored = metadata.get("model", spec.name)
    if stored not in (spec.name, spec.baseline):
        raise UsageError(f"{path} holds {stored}, not {spec.name}", f"evaluate {stored}")
    if stored == spec.name and "attention" in metadata and metadata["attention"] != _attention(spec):
        trained, asked = metadata["attention"] or {"block": None}, _attention(spec) or {"block": None}
        names = (name for name in trained if trained[name] != asked.get(name))
        differing = ", ".join(f"{name} {trained[name]} (not {asked.get(name)})" for name in names)
        raise UsageError(f"{path} was trained with {differing}", "give the same attention options")


def _check_has_places(spec: ModelSpec, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `UsageError` for weights of attention blocks that the network of `spec` leaves out."""
    variant = next((row for row in catalog.CATALOG.values() if row.baseline == spec.name), None)
    if spec.attention is not None or variant is None:
        return
    places = attention_blocks(build_spec(variant, device="meta"))
    filled = {place for place in places for name in tensors if name.startswith(f"{place}.")}
    if filled:
        raise UsageError(
            f"{path} holds {len(filled)} attention blocks and {spec.name} has none: it would compute another function",
            f"use {variant.name}",
        )


def _fill(
    network: nn.Module, tensors: dict[str, Tensor], path: Path, wanted: Mapping[str, Tensor] | None = None
) -> tuple[str, ...]:
    """Put the tensors into the network; the attention blocks that stay as they are.

    Anything else of `wanted`, the whole network unless given, must fit.
    """
    wanted = network.state_dict() if wanted is None else wanted
    blocks = tuple(attention_blocks(network))
    tensors = {name: value for name, value in tensors.items() if name in wanted or not name.endswith("_tracked")}
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    absent = [name for name in missing if not name.startswith(tuple(f"{block}." for block in blocks))]
    foreign = [name for name in tensors if name not in wanted]
    if absent or foreign:
        raise UsageError(
            f"{path} does not fit: {len(absent)} tensors are absent and {len(foreign)} unknown "
            f"({', '.join([*absent, *foreign][:3])})",
            "name the network these weights belong to",
        )
    shaped = {name: _shaped(name, value, wanted[name], path) for name, value in tensors.items()}
    network.load_state_dict(shaped, strict=False)
    return tuple(block for block in blocks if any(name.startswith(f"{block}.") for name in missing))


def _shaped(name: str, value: Tensor, target: Tensor, path: Path) -> Tensor:
    """A 1x1 convolution's weight as a linear layer's; other differences of shape raise."""
    if value.shape == target.shape:
        return value
    if value.dim() == 4 and target.dim() == 2 and value.shape[:2] == target.shape:
        return value.reshape(target.shape)
    raise UsageError(
        f"{path} does not fit: {name} is {tuple(value.shape)} there and {tuple(target.shape)} in the network",
        "give the same model, classes and reduction",
    )
