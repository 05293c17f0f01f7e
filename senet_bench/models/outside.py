"""Networks from outside: `timm:NAME`, `torchvision:NAME` and `package.module:callable`, and their rows for a command.

`resolve_outside` gives such a name what the catalog gives its own: a `ModelSpec` that every command can build. The name
with `+attach` behind it is the same network with attention attached (`senet_bench.models.attach`), with `+replace` that
with its own attention replaced.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from senet_bench.core.foreign import contained, place_of
from senet_bench.core.source import imported
from senet_bench.core.specs import ATTACH, REPLACE, AttentionSpec, ModelSpec, bare_name, by_sides
from senet_bench.errors import BenchError, CallTimeoutError, UsageError, first_line, nearest
from senet_bench.models.attach import attach_with, positions
from senet_bench.models.attention import Attend
from senet_bench.models.graph import check_copyable, on_meta, tensors

BUILDER = "senet_bench.models.outside:network"
# What torchvision's networks need so as to give logits alone, and to start without minutes of sampling.
TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
TRIED_SIDES = (224, 32, 28, 64, 96, 128, 160, 192, 256, 299, 331, 384, 448, 512, 16, 8)
"""Sides of images that are tried, in this order, where nothing says which a network takes."""


def load(
    name: str, classes: int | None = None, in_channels: int = 3, sides: tuple[int, ...] | None = None
) -> nn.Module:
    """The network called `timm:NAME`, `torchvision:NAME` or `package.module:callable`, without trained weights.

    It maps (N, in_channels, H, W) to (N, classes); without `classes` it has its own number. A callable is given
    `classes` or `num_classes`, and `in_channels` or `in_chans`, where it has parameters of these names; `sides` are
    those of its inputs where they are known. Raises `UsageError` for a library that is missing, an unknown name and a
    network that cannot be built so.
    """
    for what, value in (("classes", classes), ("in_channels", in_channels)):
        if value is not None and value < 1:
            raise UsageError(f"{what} must be a positive integer, not {value}")
    library, _, model = name.partition(":")
    libraries: dict[str, Callable[[str, int | None, int], Any]] = {"timm": _timm, "torchvision": _torchvision}

    def make() -> Any:
        if library in libraries:
            return libraries[library](model, classes, in_channels)
        return _called(name, classes, in_channels, sides)

    made = _on_any_device(make, name)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{name} makes a {type(made).__name__}, not an nn.Module", "name a callable that makes one")
    return made


def resolve_outside(name: str, given: tuple[int, ...] | None = None) -> ModelSpec:
    """The row of a network from outside, with `+attach` or `+replace` of it with SE; errors as of `load`, `attach`.

    It is for inputs of the `given` size (C, H, W), (C, L) or (C, D, H, W), else for those that it was made for.
    """
    source = bare_name(name)
    with torch.device("meta"):
        network = load(source)
    check_copyable(source, network)
    size, classes = _sizes(source, network, given)
    plain = ModelSpec(
        name=source,
        family="outside",
        label=source,
        builder=BUILDER,
        layout=f"{type(network).__name__} as {source.partition(':')[0]} defines it",
        params=_parameters(network),
        options={"source": source, "own": classes, **({} if given is None else {"sides": size[1:]})},
        input_size=size,
        classes=classes,
        guessed_size=given is None and source.partition(":")[0] not in ("timm", "torchvision"),
    )
    return plain if source == name else attached(plain, replaces=name.endswith(REPLACE))


def attached(spec: ModelSpec, attention: AttentionSpec | None = None, *, replaces: bool = False) -> ModelSpec:
    """The row of a network from outside with attention attached, SE unless given; its baseline is `spec`.

    What `replaces` stands where the network has attention of its own; its baseline has that.
    """
    with torch.device("meta"):
        source, own, sides = (spec.options.get(key) for key in ("source", "own", "sides"))
        bare = _own(str(source), own or 0, spec.classes, spec.input_size[0], sides)
    try:
        places = positions(bare, spec.input_size, replaces=replaces)
    except UsageError as error:
        raise UsageError(f"{spec.name}: {error.problem}", error.remedy) from error
    variant = replace(
        spec,
        name=f"{spec.name}{REPLACE if replaces else ATTACH}",
        label=f"{spec.label} + attention{' in place of its own' if replaces else ''}",
        layout=f"attention at {len(places)} places: {places[0].name} to {places[-1].name}",
        options={**spec.options, "size": spec.input_size[1:], **({"replaces": True} if replaces else {})},
        stages=tuple(sorted({position.stage for position in places})),
        attention=attention or AttentionSpec(),
        baseline=spec.name,
    )
    from senet_bench.models import build_spec

    return replace(variant, params=_parameters(build_spec(variant, in_channels=spec.input_size[0], device="meta")))


def network(
    attend: Attend,
    *,
    classes: int,
    in_channels: int,
    source: str,
    own: int,
    size: tuple[int, ...] | None = None,
    sides: tuple[int, ...] | None = None,
    replaces: bool = False,
) -> nn.Module:
    """What the rows of `resolve_outside` build: the network, with what `attend` hands out where they give a size."""
    bare = _own(source, own, classes, in_channels, sides)
    return attach_with(bare, attend, (in_channels, *size), replaces=replaces)[0] if size else bare


def _own(source: str, own: int, classes: int, in_channels: int, sides: tuple[int, ...] | None) -> nn.Module:
    """The network with that many classes; with its `own` number nothing is handed to what makes it."""
    return load(source, None if classes == own else classes, in_channels, sides)


def pair_outside(spec: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
    """The baseline and the variant with attention of a row of `resolve_outside`; what `catalog.pair` is for its own."""
    return (resolve_outside(spec.baseline), spec) if spec.baseline else (spec, attached(spec))


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


OutsideConvolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True, slots=True)
class _Call:
    """What a call of a network with an image shows: the first convolution it reaches, and its outputs' number.

    Both are None where there is none, the outputs also where the image cannot be taken; `failure` says why.
    """

    first: OutsideConvolution | None
    outputs: int | None
    failure: str = ""


def _call(network: nn.Module, size: tuple[int, ...]) -> _Call:
    """What a call without memory for the values shows; the network is not changed."""
    reached: list[OutsideConvolution] = []
    copied = on_meta(network)
    twins = dict(zip(copied.modules(), network.modules()))

    def reach(module: nn.Module, inputs: Any) -> None:
        if isinstance(twin := twins[module], OutsideConvolution):
            reached.append(twin)

    for module in copied.modules():
        if isinstance(module, OutsideConvolution):
            module.register_forward_pre_hook(reach)
    dtype, failure = next((parameter.dtype for parameter in network.parameters()), torch.float32), ""
    try:
        with contained(type(network).__name__), torch.no_grad(), torch.device("meta"):
            output = next(tensors(copied(torch.empty((1, *size), dtype=dtype))), None)
    except CallTimeoutError:
        raise
    except Exception as error:  # noqa: BLE001 - of whatever code the network has; said again where it is measured
        output, failure = None, error.problem if isinstance(error, BenchError) else first_line(error)
    outputs = None if output is None or output.dim() < 2 else int(output.shape[1])
    return _Call(reached[0] if reached else None, outputs, failure)


def _any_call(network: nn.Module, channels: int, sides: Sequence[int] = TRIED_SIDES) -> tuple[_Call, int]:
    """The call with the first side that the network can take, else that with the first side; and the side."""
    calls: list[_Call] = []
    for side in sides:
        calls.append(_call(network, (channels, side, side)))
        if calls[-1].outputs is not None:
            return calls[-1], side
    return calls[0], sides[0]


def _sizes(source: str, network: nn.Module, given: tuple[int, ...] | None) -> tuple[tuple[int, ...], int]:
    """The images a network was made for, or those given, and how many outputs it gives for one.

    Where nothing says so, images of 224 px or of the first side that it can take.
    """
    if given is not None:
        return given, _outputs_of(source, network, given)
    channels, height, width = _input_size(source, network)
    if source.partition(":")[0] in ("timm", "torchvision"):
        outputs = _call(network, (channels, height, width)).outputs
    else:
        call, height = _any_call(network, channels)
        if call.outputs is None and call.first is not None and call.first.in_channels != channels:
            channels = call.first.in_channels
            call, height = _any_call(network, channels)
        outputs, width = call.outputs, height
    said = getattr(network, "num_classes", None)
    return (channels, height, width), outputs or (said if isinstance(said, int) and said > 0 else 1000)


def _outputs_of(source: str, network: nn.Module, size: tuple[int, ...]) -> int:
    """How many outputs a network gives for an input; `UsageError` where its convolutions are of other dimensions."""
    call = _call(network, size)
    wanted = None if call.first is None else len(call.first.kernel_size)
    if wanted is not None and wanted != len(size) - 1:
        raise UsageError(
            f"{source} has {wanted}-D convolutions, and {by_sides(size)} is an input of {len(size) - 1}-D ones",
            f"give --input-size {('3x128', '3x224x224', '3x8x64x64')[wanted - 1]}",
        )
    return call.outputs or 1000


def _input_size(source: str, network: nn.Module) -> tuple[int, ...]:
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
    """What `make` makes; on `meta` also what needs values to be made, or chooses the CPU itself."""
    shapes_alone = torch.empty(0).is_meta
    try:
        made = _made(make, name)
    except UsageError:
        if not shapes_alone:
            raise
        with torch.device("cpu"):
            made = _made(make, name)
    return made.to("meta") if shapes_alone and isinstance(made, nn.Module) else made


def _made(make: Callable[[], Any], name: str) -> Any:
    with contained(name, draws=True):
        try:
            return make()
        except BenchError:
            raise
        except Exception as error:
            raise UsageError(
                f"{name} cannot be built: {type(error).__name__} ({first_line(error)}){place_of(error)}",
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
    first = _any_call(network, 3, (224, 299))[0].first
    if not isinstance(first, nn.Conv2d):
        raise UsageError(f"{type(network).__name__} has no convolution on its image", "leave out --in-channels")
    name = next(name for name, module in network.named_modules() if module is first)
    sizes: dict[str, Any] = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation")}
    parent, _, leaf = name.rpartition(".")
    conv = nn.Conv2d(in_channels, first.out_channels, **sizes, bias=first.bias is not None)
    setattr(network.get_submodule(parent), leaf, conv)


def _called(name: str, classes: int | None, in_channels: int, sides: tuple[int, ...] | None) -> Any:
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
        given = {key: value for key, value in wanted.items() if key in known and value is not None}
        made = make(**given)
        if {"classes", "num_classes"} & set(given) and {"in_channels", "in_chans"} & set(given):
            return made
    if isinstance(made, nn.Module) and (classes is not None or in_channels != 3):
        call = _any_call(made, in_channels)[0] if sides is None else _call(made, (in_channels, *sides))
        _check_sizes(name, call, classes, in_channels)
    return made


def _check_sizes(name: str, call: _Call, classes: int | None, in_channels: int) -> None:
    """Raise `UsageError` for a network that a call shows to have other sizes than are wanted."""
    if call.first is not None and call.first.in_channels != in_channels:
        raise UsageError(f"{name} takes {call.first.in_channels} channels, not {in_channels}", "give it `in_channels`")
    if classes is not None and call.outputs != classes:
        known = "an unknown number of" if call.outputs is None else call.outputs
        why = f": {call.failure}" if call.failure else ""
        raise UsageError(f"{name} has {known} classes, not {classes}{why}", "give it a parameter `classes`")


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
