"""`build`: every network of the catalog, with or without attention, from one code path."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._device import DeviceContext

from senet_bench.core import catalog
from senet_bench.core.blocks import switched
from senet_bench.core.garbage import uncollected
from senet_bench.core.specs import AttentionSpec, ModelSpec
from senet_bench.errors import UsageError
from senet_bench.models.attention import attend_with, attention_blocks, restart_identities
from senet_bench.models.conv import made_once

__all__ = ["attention_blocks", "build", "build_spec"]


def build(
    name: str,
    classes: int | None = None,
    in_channels: int = 3,
    cardinality: int | None = None,
    reduction: int | tuple[int, ...] | None = None,
    attention: AttentionSpec | None = None,
    *,
    device: str = "cpu",
) -> nn.Module:
    """A network by its name, in training mode, He-initialised.

    It maps (N, in_channels, H, W) images to (N, classes) logits. `classes` is 1000 unless given, 10 for CIFAR
    networks. `cardinality` is the number of groups C of a ResNeXt, SENet or Shake-Even network. `attention`
    replaces the attention that the name implies (none for `resnet50`, SE with r = 16 for `seresnet50`);
    `reduction` replaces its r, and has no effect on a network without attention. On device `meta` nothing is
    initialised. Raises `UsageError` for an unknown name, a value the network cannot be built with, or a reduction for a
    block that takes none.
    """
    spec = catalog.resolve(name)
    attention = attention or spec.attention
    if attention is not None and reduction is not None:
        attention = switched(attention, {"reduction": reduction})
    spec = replace(spec, attention=attention, cardinality=cardinality)
    return build_spec(spec, classes, in_channels=in_channels, device=device)


@uncollected()
def build_spec(
    spec: ModelSpec,
    classes: int | None = None,
    *,
    in_channels: int | None = None,
    device: str = "cpu",
) -> nn.Module:
    """The network that a row describes, whole; see `build`. `classes` and `in_channels` replace the row's."""
    cardinality = spec.cardinality
    classes = spec.classes if classes is None else classes
    in_channels = spec.input_size[0] if in_channels is None else in_channels
    for name, value in {"classes": classes, "in_channels": in_channels, "cardinality": cardinality or 1}.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} must be a positive integer, not {value!r}")
    if cardinality is not None and "cardinality" not in spec.options:
        raise UsageError(f"{spec.name} has no grouped convolutions", "leave cardinality out")
    with _on(device):
        network: nn.Module = _imported(spec.builder)(
            attend_with(spec.attention, spec.stages), classes=classes, in_channels=in_channels, **spec.built
        )
        if device != "meta":
            start = getattr(network, "initialise", None)  # a detector's parts start as their authors start them
            start() if start else initialise(network)
            restart_identities(network)
    if spec.attention is not None and not attention_blocks(network):
        raise UsageError(
            f"{spec.name} has no place for attention at {spec.attention.place!r}",
            "choose another integration or placement",
        )
    return network


def initialise(network: nn.Module) -> None:
    """He initialisation (the paper's reference 66): convolutions by fan-out, linear layers by fan-in.

    Attention blocks from outside keep the values that their class gave them.
    """
    for module in initialised(network):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def initialised(network: nn.Module) -> Iterator[nn.Module]:
    """The modules whose initial values are ours to set: all but attention blocks from outside and what they hold."""
    if not getattr(network, "keeps_start", False):
        yield network
        for child in network.children():
            yield from initialised(child)


FILLS = frozenset(
    (Tensor.zero_, Tensor.fill_, nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_)
)
"""What sets the values of a tensor in the constructors of torch's layers, as far as a mode is asked."""


class _WithoutMemory(DeviceContext):
    """Makes tensors on `meta`, and leaves them as they are where they would be filled: they hold no values."""

    def __init__(self) -> None:
        super().__init__(torch.device("meta"))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FILLS and (filled := kwargs["tensor"] if "tensor" in kwargs else args[0]).is_meta:
            return filled
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _on(device: str) -> Iterator[None]:
    if device != "meta":
        with torch.device(device):
            yield
    else:
        with _WithoutMemory(), made_once():
            yield


def _imported(path: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    builder: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return builder
