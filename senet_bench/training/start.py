"""What a training starts from: layers drawn by their names, or the weights of a network that is trained already."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import nn

from senet_bench.core.specs import ModelSpec, bare_name
from senet_bench.data.sets import DataSet
from senet_bench.errors import UsageError
from senet_bench.models import build_spec, initialise, initialised
from senet_bench.models.attention import restart_identities, starts_as_identity
from senet_bench.training.weights import attention_in, has_blocks, load_weights

DRAWN_ANEW = "its convolutions and linear layers are drawn anew (He), not as its own code draws them"
"""What is said of a network from outside that starts from no weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """The images of a training and its network before the first step, and what a reader must know of them."""

    images: DataSet
    network: nn.Module
    notes: tuple[str, ...] = ()


def start_of_training(spec: ModelSpec, images: DataSet, seed: int, weights: str | None = None) -> Start:
    """The network of a row as a seed draws it, each layer by its name, or with weights from a file or by a name.

    What the weights do not have is drawn: a head of other classes, and attention blocks. The images are normalised as
    in the training of the weights, where that is known.
    """
    torch.manual_seed(seed)  # for what starts by its own rule: blocks from outside, one-dimensional convolutions
    if weights is None:
        network = build_spec(spec, len(images.classes), in_channels=images.channels)
        initialise_by_name(network, seed)
        return Start(images, network, (DRAWN_ANEW,) if spec.outside else ())
    classes, channels = len(images.classes), images.channels
    loaded, images = load_weights(spec, weights, classes=classes, in_channels=channels, head="new").on(images)
    initialise_by_name(loaded.network, seed, (*loaded.fresh, *filter(None, (loaded.head,))))
    notes = tuple(note for note in loaded.notes if not (loaded.fresh and "initial values" in note))
    if loaded.fresh:
        notes += (_about_blocks(spec, len(loaded.fresh)),)
    return Start(images, loaded.network, notes)


def _about_blocks(spec: ModelSpec, count: int) -> str:
    how = "as the identity" if starts_as_identity(spec.attention) else "untrained, so the error is another"
    return f"{count} attention blocks start {how}: the weights have none"


def initialise_by_name(network: nn.Module, seed: int, within: Collection[str] | None = None) -> None:
    """Initial weights that depend on the seed and each layer's name alone: what arms share starts out equal.

    Of the modules of some names alone where these are given. Attention blocks from outside keep their own, and those
    that start as the identity are it.
    """
    ours = set(initialised(network))
    for name, module in network.named_modules():
        if within is not None and not any(name == part or name.startswith(f"{part}.") for part in within):
            continue
        if isinstance(module, nn.Conv2d | nn.Linear) and module in ours:
            torch.manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
            initialise(module)
    for part in ("",) if within is None else within:
        restart_identities(network.get_submodule(part))


def own_weights(spec: ModelSpec, weights: str) -> str:
    """Weights as they are named: `timm` and `torchvision` alone are those of the network of that library itself."""
    name = bare_name(spec.name)
    library = name.partition(":")[0]
    if weights in ("timm", "torchvision") and weights == library:
        return name
    if weights in ("timm", "torchvision"):
        raise UsageError(f"{spec.name} is no network of {weights}", f"name its weights: a file, or {weights}:NAME")
    return weights


def as_identity(spec: ModelSpec, weights: str) -> ModelSpec:
    """The row whose attention blocks start as the identity where the weights have none of them.

    A choice that was typed stays. `UsageError` where a network's own attention, which the weights have, is to go.
    """
    attention = spec.attention
    if attention is None or "identity" in dict(attention.options):
        return spec
    if spec.options.get("replaces"):
        raise UsageError(
            f"{spec.name} loses the attention that its weights were trained with",
            "fine-tune a network without attention of its own, with --attach",
        )
    changed = replace(attention, options=(*attention.options, ("identity", True)))
    trained = attention_in(weights)
    if trained is not None:
        return replace(spec, attention=trained) if trained == changed else spec
    return spec if has_blocks(spec, weights) else replace(spec, attention=changed)
