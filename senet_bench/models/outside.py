"""Networks from outside: `timm:NAME`, `torchvision:NAME` and `package.module:callable`, and their rows for a command.

`resolve` gives such a name what the catalog gives its own: a `ModelSpec` that every command can build. The name
with `+attach` behind it is the same network with attention attached (`senet_bench.models.attach`).
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from senet_bench.core.specs import AttentionSpec, ModelSpec
from senet_bench.errors import UsageError, nearest
from senet_bench.models.attach import attach_with, positions
from senet_bench.models.attention import Attend
from senet_bench.models.importing import first_line, imported

ATTACH = "+attach"
BUILDER = "senet_bench.models.outside:network"
# What torchvision's networks need so as to give logits alone, and to start without minutes of sampling.
TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}


def load(name: str, classes: int | None = None, in_channels: int = 3) -> nn.Module:
    """The network called `timm:NAME`, `torchvision:NAME` or `package.module:callable`, without trained weights.

    It maps (N, in_channels, H, W) to (N, classes); without `classes` it has its own number. A callable is given
    `classes` or `num_classes`, and `in_channels` or `in_chans`, where it has parameters of these names. Raises
    `UsageError` for a library that is missing, an unknown name and a network that cannot be built so.
    """
    for what, value in (("classes", classes), ("in_channels", in_channels)):
        if value is not None and value < 1:
            raise UsageError(f"{what} must be a positive integer, not {value}")
    library, _, model = name.partition(":")
    make = {"timm": _timm, "torchvision": _torchvision}.get(library, _called)
    made = _on_any_device(lambda: make(name if make is _called else model, classes, in_channels), name)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{name} makes a {type(made).__name__}, not an nn.Module", "name a callable that makes one")
    return made


def resolve(name: str) -> ModelSpec:
    """The row of a network from outside, or with `+attach` of it with SE; `UsageError` as `load` and `attach` raise."""
    source = name.removesuffix(ATTACH)
    with torch.device("meta"):
        network = load(source)
    plain = ModelSpec(
        name=source,
        family="outside",
        label=source,
        builder=BUILDER,
        layout=f"{type(network).__name__} as {source.partition(':')[0]} defines it",
        params=_parameters(network),
        options={"source": source},
        input_size=_input_size(source, network),
        classes=_classes(network),
    )
    return plain if source == name else attached(plain)


def attached(spec: ModelSpec, attention: AttentionSpec | None = None) -> ModelSpec:
    """The row of a network from outside with attention attached, SE unless given; its baseline is `spec`."""
    with torch.device("meta"):
        bare = load(spec.options["source"], spec.classes, spec.input_size[0])
    found = positions(bare, spec.input_size)
    variant = replace(
        spec,
        name=f"{spec.name}{ATTACH}",
        label=f"{spec.label} + attention",
        layout=f"attention at {len(found)} places: {found[0].name} to {found[-1].name}",
        options={**spec.options, "size": spec.input_size[1:]},
        stages=tuple(sorted({position.stage for position in found})),
        attention=attention or AttentionSpec(),
        baseline=spec.name,
    )
    from senet_bench.models import build_spec

    return replace(variant, params=_parameters(build_spec(variant, in_channels=spec.input_size[0], device="meta")))


def network(
    attend: Attend, *, classes: int, in_channels: int, source: str, size: tuple[int, int] | None = None
) -> nn.Module:
    """What the rows of `resolve` build: the network alone, or where they give a size with what `attend` hands out."""
    bare = load(source, classes, in_channels)
    return attach_with(bare, attend, (in_channels, *size))[0] if size else bare


def pair(spec: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
    """The baseline and the variant with attention of a row of `resolve`; what `catalog.pair` is for its own."""
    return (resolve(spec.baseline), spec) if spec.baseline else (spec, attached(spec))


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _classes(network: nn.Module) -> int:
    """Outputs of the last layer."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    last = layers[-1] if layers else None
    return 1000 if last is None else last.out_features if isinstance(last, nn.Linear) else last.out_channels


def _input_size(source: str, network: nn.Module) -> tuple[int, int, int]:
    """Channels and sides of the images a network was made for, 224 px where nothing says so."""
    library, _, model = source.partition(":")
    if library == "timm":
        channels, height, width = getattr(network, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
        return channels, height, width
    side = 224
    if library == "torchvision":
        weights = importlib.import_module("torchvision.models").get_model_weights(model)
        side = getattr(weights["DEFAULT"].transforms(), "crop_size", [224])[0] if len(weights) else 224
    return 3, side, side


def _on_any_device(make: Callable[[], Any], name: str) -> Any:
    """What `make` makes; where that needs values and the device has none, made on the CPU and moved."""
    try:
        return _made(make, name)
    except UsageError:
        if not torch.empty(0).is_meta:
            raise
    with torch.device("cpu"):
        made = _made(make, name)
    return made.to("meta") if isinstance(made, nn.Module) else made


def _made(make: Callable[[], Any], name: str) -> Any:
    try:
        return make()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{name} cannot be built: {type(error).__name__} ({first_line(error)})",
            "see what its library says of its classes and channels",
        ) from error


def _timm(model: str, classes: int | None, in_channels: int) -> nn.Module:
    timm = _library("timm", "pip install 'senet-bench[timm]'")
    _check_name(f"timm:{model}", model.split(".")[0], timm.list_models())
    options = {} if classes is None else {"num_classes": classes}
    made: nn.Module = timm.create_model(model, pretrained=False, in_chans=in_channels, **options)
    return made


def _torchvision(model: str, classes: int | None, in_channels: int) -> nn.Module:
    models = _library("torchvision.models", "pip install torchvision")
    _check_name(f"torchvision:{model}", model, models.list_models(module=models))
    options = {} if classes is None else {"num_classes": classes}
    made: nn.Module = models.get_model(model, weights=None, **options, **TORCHVISION_OPTIONS.get(model, {}))
    if in_channels != 3:
        _take(made, in_channels)
    return made


def _take(network: nn.Module, in_channels: int) -> None:
    """Give the network's first convolution another number of input channels."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    sizes: dict[str, Any] = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation")}
    parent, _, leaf = name.rpartition(".")
    conv = nn.Conv2d(in_channels, first.out_channels, **sizes, bias=first.bias is not None)
    setattr(network.get_submodule(parent), leaf, conv)


def _called(name: str, classes: int | None, in_channels: int) -> Any:
    make = imported(name, "network")
    if isinstance(make, nn.Module):
        made: Any = copy.deepcopy(make)
    elif not callable(make):
        raise UsageError(f"network {name!r} is a {type(make).__name__}", "name a callable that makes an nn.Module")
    else:
        try:
            known = set(inspect.signature(make).parameters)
        except (TypeError, ValueError):
            known = set()
        wanted = {"classes": classes, "num_classes": classes, "in_channels": in_channels, "in_chans": in_channels}
        made = make(**{key: value for key, value in wanted.items() if key in known and value is not None})
    _check_sizes(name, made, classes, in_channels)
    return made


def _check_sizes(name: str, made: Any, classes: int | None, in_channels: int) -> None:
    """Raise `UsageError` for a network that visibly has other sizes than asked for."""
    if isinstance(made, nn.Module):
        first = next((module for module in made.modules() if isinstance(module, nn.Conv2d)), None)
        if first is not None and first.in_channels != in_channels:
            raise UsageError(f"{name} takes {first.in_channels} channels, not {in_channels}", "give it `in_channels`")
        if classes is not None and _classes(made) != classes:
            raise UsageError(f"{name} has {_classes(made)} classes, not {classes}", "give it a parameter `classes`")


def _library(name: str, remedy: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"{name.partition('.')[0]} cannot be imported ({first_line(error)})", remedy) from error


def _check_name(name: str, model: str, known: list[str]) -> None:
    if model not in known:
        library = name.partition(":")[0]
        hint = nearest(name, [f"{library}:{other}" for other in known], cutoff=0.5)
        raise UsageError(f"unknown model {name!r}", hint or f"see {library}'s list")
