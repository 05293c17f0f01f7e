"""How timm's and torchvision's checkpoints name what our networks hold, and which layout each name implies.

`legacy_*` are timm's conversions of the authors' networks: stride in the first 1x1 (ResNet), pool without padding.
torchvision's and timm's other ResNets hold the stride in the 3x3 and pad the pool: same shapes, another function. So
are timm's MobileNetV3 (another BatchNorm eps than torchvision's) and its `tf_` networks (another padding).

Of MobileNets and EfficientNet-B0 no unit but the first leaves the expansion out, so an index tells what a layer is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from senet_bench.core import catalog
from senet_bench.core.specs import ModelSpec
from senet_bench.errors import UsageError

DEPTHS: dict[str, tuple[int, ...]] = {
    "v1": (1, 2, 2, 6, 2),
    "v2": (1, 2, 3, 4, 3, 3, 1),
    "v3_large": (1, 2, 3, 4, 2, 3),
    "v3_small": (1, 2, 3, 2, 3),
    "b0": (1, 2, 2, 3, 3, 4, 1),
}
"""How many units timm has in each of its `blocks` (and torchvision's EfficientNet in its `features`)."""
SEPARABLE = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1.0", "bn2": "1.1"}
EXPAND, DEPTHWISE, SQUEEZE, PROJECT = 0, 3, 6, 7
"""Where our branch holds its convolutions and SE, if it expands; without an expansion, three earlier."""
EXPANDING = {"conv_pw": 0, "bn1": 1, "conv_dw": 3, "bn2": 4, "conv_pwl": 7, "bn3": 8}
SEPARABLE_BRANCH = {"conv_dw": 3, "bn1": 4, "conv_pw": 7, "bn2": 8}


def timm_name(name: str, spec: ModelSpec) -> str:
    """Our name for a tensor of timm's networks, whose units are `blocks.2.1.conv_dw`; other names as they are."""
    version = str(spec.options.get("version", "v1"))
    if unit := re.fullmatch(r"blocks\.(\d)\.(\d)\.(\w+)\.(.+)", name):
        group, index, part, rest = int(unit[1]), int(unit[2]), unit[3], unit[4]
        if group == len(DEPTHS[version]):  # MobileNetV3's last 1x1 convolution
            return f"head.{'01'[part == 'bn1']}.{rest}"
        place = sum(DEPTHS[version][:group]) + index
        if version == "v1":
            return f"units.{place}.{SEPARABLE.get(part, part)}.{rest}"
        layer = SQUEEZE if part == "se" else (EXPANDING if place else SEPARABLE_BRANCH).get(part)
        rest = re.sub("^conv_reduce", "fc1", re.sub("^conv_expand", "fc2", rest))
        return name if layer is None else _in_branch(place, layer, rest)
    starts = {"conv_stem.": "stem.0.", "bn1.": "stem.1.", "conv_head.": "head.0.", "bn2.": "head.1."}
    if version.startswith("v3"):
        starts |= {"conv_head.": "classifier.0.", "classifier.": "classifier.3."}
    elif version != "v1":
        starts |= {"classifier.": "classifier.1."}
    start = next((start for start in starts if name.startswith(start)), "")
    return starts.get(start, "") + name.removeprefix(start)


def torchvision_name(name: str, spec: ModelSpec) -> str:
    """Our name for a tensor of torchvision's networks, whose units are `features.3.block` or `features.3.conv`."""
    last = {"v2": 18, "v3_large": 16, "v3_small": 12, "b0": 8}.get(str(spec.options.get("version")))
    if whole := re.fullmatch(r"features\.(\d+)\.([01])\.(\w+)", name):
        part = {0: "stem", last: "head"}.get(int(whole[1]))
        return f"{part}.{whole[2]}.{whole[3]}" if part else name
    if unit := re.fullmatch(r"features\.(\d+)\.(?:(\d+)\.)?(?:block|conv)\.([0-3])\.(.+)", name):
        group, rest = int(unit[1]) - 1, unit[4]
        place = sum(DEPTHS["b0"][:group]) + int(unit[2]) if unit[2] else group
        order = int(unit[3]) + (place == 0)  # as if the first unit expanded too
        if rest.startswith("fc"):
            return _in_branch(place, SQUEEZE, rest)
        if pair := re.fullmatch(r"([01])\.(\w+)", rest):
            return _in_branch(place, (EXPAND, DEPTHWISE, PROJECT, PROJECT)[order] + int(pair[1]), pair[2])
        return _in_branch(place, PROJECT + (order == 3), rest)  # MobileNetV2's last convolution and norm are no pair
    return name


def _in_branch(place: int, layer: int, rest: str) -> str:
    return f"units.{place}.branch.{layer - 3 * (place == 0)}.{rest}"


Style = Literal["ours", "legacy", "plain", "mm", "pycls", "pycls-old", "vgg", "mobilenet", "inverted", "detector"]
Rename = Callable[[str, ModelSpec], str]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint known by name: its library, the network of ours with the same function, its naming."""

    library: Literal["timm", "torchvision"]
    ours: str
    style: Style


def _timm(style: Style, **names: str) -> dict[str, Checkpoint]:
    return {f"timm:{name}": Checkpoint("timm", ours, style) for name, ours in names.items()}


def _torchvision(style: Style, **names: str) -> dict[str, Checkpoint]:
    return {f"torchvision:{name}": Checkpoint("torchvision", ours, style) for name, ours in names.items()}


SOURCES: dict[str, Checkpoint] = {
    **_timm("legacy", legacy_seresnet50="seresnet50", legacy_seresnet101="seresnet101"),
    **_timm("legacy", legacy_seresnet152="seresnet152", legacy_seresnext50_32x4d="seresnext50_32x4d"),
    **_timm("legacy", legacy_seresnext101_32x4d="seresnext101_32x4d", legacy_senet154="senet154"),
    **_timm("plain", seresnet50="seresnet50_v1_5"),
    **_timm("mobilenet", mobilenetv1_100="mobilenet_v1", mobilenetv2_100="mobilenet_v2"),
    **_timm("mobilenet", mobilenetv3_large_100="mobilenet_v3_large", mobilenetv3_small_100="mobilenet_v3_small"),
    **_timm("mobilenet", efficientnet_b0="efficientnet_b0"),
    **_torchvision("vgg", vgg11_bn="vgg11_bn", vgg13_bn="vgg13_bn", vgg16_bn="vgg16_bn", vgg19_bn="vgg19_bn"),
    **_torchvision("plain", resnet18="resnet18_v1_5", resnet34="resnet34_v1_5", resnet50="resnet50_v1_5"),
    **_torchvision("plain", resnet101="resnet101_v1_5", resnet152="resnet152_v1_5"),
    **_torchvision("plain", resnext50_32x4d="resnext50_32x4d", resnext101_64x4d="resnext101_64x4d"),
    **_torchvision("inverted", mobilenet_v2="mobilenet_v2", efficientnet_b0="efficientnet_b0"),
    **_torchvision("inverted", mobilenet_v3_large="mobilenet_v3_large", mobilenet_v3_small="mobilenet_v3_small"),
}


def checkpoint_of(name: str) -> Checkpoint | None:
    """What is known of a checkpoint by its name, with or without its library and its tag; None for an unknown one.

    Raises `UsageError` for a name that both libraries have.
    """
    model = name.split(".")[0]
    matches = [key for key in SOURCES if key == model or key.partition(":")[2] == model]
    if len(matches) > 1:
        raise UsageError(f"weights {name!r} are of two libraries", f"write {' or '.join(matches)}")
    return SOURCES[matches[0]] if matches else None


def style_of(names: Collection[str]) -> Style | None:
    """Whose naming a checkpoint follows, told by its names; None for an unknown one."""
    telling: dict[Style, str] = {
        "ours": r"(backbone\.(body\.)?)?(stem|stages\.0)\.0\.",
        "detector": r"backbone\.body\.(conv1|layer1)\.",
        "legacy": r"layer0\.",
        "plain": r"layer1\.0\.conv1\.",
        "pycls-old": r"s5\.b1\.f\.",
        "pycls": r"s1\.b1\.f\.",
        "mm": r"head\.(layers\.\d\.)?fc\.",
        "inverted": r"features\.0\.0\.",
        "vgg": r"features\.0\.",
        "mobilenet": r"conv_stem\.",
    }
    return next((style for style, start in telling.items() if any(re.match(start, name) for name in names)), None)


def _mm(name: str, spec: ModelSpec) -> str:
    """mmpretrain: torchvision's names in `backbone` and `head`, and SE as two convolution modules."""
    plain = re.sub(r"^(backbone|head(\.layers\.\d)?)\.", "", name)
    return _residual(re.sub(r"\.se_layer\.conv([12])\.conv\.", r".se.fc\1.", plain), spec)


def _pycls(name: str, spec: ModelSpec, *, first: int) -> str:
    """pycls: `s2.b1.f.a_bn` is the first normalisation of a branch; `first` is the number of the first stage."""
    parts = {"a": 0, "a_bn": 1, "b": 3, "b_bn": 4, "c": 7, "c_bn": 8}
    if unit := re.fullmatch(r"s(\d)\.b(\d+)\.(?:f\.)?(\w+)\.(\w+)", name):
        inside = f"branch.{parts.get(unit[3], unit[3])}"
        place = inside if ".f." in name else f"shortcut.{'01'[unit[3] == 'bn']}"
        return f"stages.{int(unit[1]) - first}.{int(unit[2]) - 1}.{place}.{unit[4]}"
    if stem := re.fullmatch(r"(?:s1|stem)\.(conv|bn)\.(\w+)", name):
        return f"stem.{int(stem[1] == 'bn')}.{stem[2]}"
    return re.sub(r"^head\.fc\.", "classifier.", name)


def without_bias(tensors: Mapping[str, Any]) -> bool:
    """Whether the FCs of SE have no biases (moskomule's SE-ResNets), by the names of ours."""
    layers = [name for name in tensors if re.search(r"\.standard\.fc1\.", name)]
    return bool(layers) and not any(name.endswith("bias") for name in layers)


def _residual(name: str, spec: ModelSpec) -> str:
    """ResNet, ResNeXt and SENet: `layer1.0.conv2` is `stages.0.0.branch.3`."""
    name = re.sub(r"\.se\.fc\.([02])\.", lambda layer: f".se.fc{1 + int(layer[1]) // 2}.", name)  # moskomule's
    in_branch = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 7, "bn3": 8}
    if unit := re.fullmatch(r"layer([1-4])\.(\d+)\.(\w+)\.(.+)", name):
        stage, index, part, rest = int(unit[1]) - 1, unit[2], unit[3], unit[4]
        place = {"se_module": "standard", "se": "standard", "downsample": "shortcut"}.get(part)
        return f"stages.{stage}.{index}.{place or f'branch.{in_branch.get(part, part)}'}.{rest}"
    if stem := re.fullmatch(r"(?:layer0\.)?(conv|bn)([1-3])\.(.+)", name):
        return f"stem.{3 * int(stem[2]) - 3 + (stem[1] == 'bn')}.{stem[3]}"
    return re.sub(r"^(fc|last_linear)\.", "classifier.", name)


def _vgg(name: str, spec: ModelSpec) -> str:
    """VGG with BN: torchvision counts all layers of `features`, ours count four per convolution and by stage."""
    layer = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if not layer:
        return name
    left = int(layer[1])
    for stage, depth in enumerate(spec.options["depths"]):
        if left < 3 * depth:
            return f"stages.{stage}.{4 * (left // 3) + left % 3}.{layer[2]}"
        left -= 3 * depth + 1
    return name


TRUNK_OF_DETECTOR = ("backbone.body.", "backbone.stem.", "backbone.stages.", "roi_heads.box_head.stage.")
"""How the names of a detector begin that are its trunk's."""


def in_detector(spec: ModelSpec) -> Callable[[str], str]:
    """From the name of a tensor in the trunk alone to its name in a detector; C4's stage 5 is its box head."""

    def place(name: str) -> str:
        if spec.options["head"] == "fpn":
            return f"backbone.body.{name}"
        head = re.fullmatch(r"stages\.3\.(.+)", name)
        return f"roi_heads.box_head.stage.{head[1]}" if head else f"backbone.{name}"

    return place


def _detector(name: str, spec: ModelSpec) -> str:
    """The name here of a tensor of torchvision's Faster R-CNN; only the trunk has other names."""
    if name.startswith("backbone.body."):
        return in_detector(spec)(_residual(name.removeprefix("backbone.body."), spec))
    older = re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", name)
    return re.sub(r"^(backbone\.fpn\.\w+\.\d)\.(weight|bias)$", r"\1.0.\2", older)


RENAMES: dict[Style, Rename] = {
    "ours": lambda name, spec: name,
    "legacy": _residual,
    "plain": _residual,
    "mm": _mm,
    "pycls": functools.partial(_pycls, first=1),
    "pycls-old": functools.partial(_pycls, first=2),
    "vgg": _vgg,
    "mobilenet": timm_name,
    "inverted": torchvision_name,
    "detector": _detector,
}
FAMILIES_OF_STYLE: dict[Style, tuple[str, ...]] = {
    "legacy": ("resnet", "resnext", "senet"),
    "plain": ("resnet", "resnext"),
    "mm": ("resnet", "resnext"),
    "pycls": ("resnet", "resnext"),
    "pycls-old": ("resnet", "resnext"),
    "vgg": ("vgg",),
    "mobilenet": ("mobilenet", "efficientnet"),
    "inverted": ("mobilenet", "efficientnet"),
    "detector": ("detection",),
}
TENSORFLOW = (
    "pads its strided convolutions on the right and bottom only, as TensorFlow does, which no network here does"
)
REFUSED: dict[str, str] = dict.fromkeys(
    ("tf_mobilenetv3_large_100", "tf_mobilenetv3_small_100", "tf_efficientnet_b0"), TENSORFLOW
)
"""timm's names whose tensors would fit a network of ours that computes another function, and what it does otherwise."""


def fitted(spec: ModelSpec, style: Style) -> tuple[ModelSpec, str | None]:
    """The network that computes what a checkpoint of this style was trained for, and what must be said about it.

    Raises `UsageError` for another family, and for the other layout, naming the id that fits. Where no id has the
    layout (torchvision's ResNeXt pads the pool), the network is built with it and the note says so.
    """
    if style == "ours":
        return spec, None
    if spec.family not in FAMILIES_OF_STYLE[style]:
        raise UsageError(
            f"these weights are of the {'/'.join(FAMILIES_OF_STYLE[style])} family, {spec.name} is of {spec.family}",
            "name a network of that family",
        )
    if style == "mobilenet" and str(spec.options.get("version")).startswith("v3"):
        note = f"{spec.name} is built with the BatchNorm eps 1e-5 that timm's weights were trained with (else 1e-3)"
        return replace(spec, options={**spec.options, "eps": 1e-5}), note
    if style not in ("legacy", "plain", "mm", "pycls", "pycls-old", "detector") or spec.family == "senet":
        return spec, None
    if style.startswith("pycls"):
        stride = spec.options.get("stride_in", "1x1")
        note = f"taken for weights trained with the stride in the {stride} (pycls's STRIDE_1X1 is in no tensor)"
        return replace(spec, options={**spec.options, "padded_pool": True}), f"{note}; channels turned from BGR to RGB"
    if style == "legacy" and not spec.options.get("bottleneck"):
        raise UsageError(
            "these weights are of a network with a ReLU after its second BatchNorm, which no network here has",
            "evaluate timm:legacy_seresnet18 or timm:legacy_seresnet34 itself",
        )
    wanted = _with_layout(spec, style)
    if _same(wanted.options, spec.options):
        return spec, None
    other = next((row for row in catalog.CATALOG.values() if _twin(row, spec, wanted.options)), None)
    where = "first 1x1" if style == "legacy" else "3x3"
    if other is not None:
        raise UsageError(
            f"these weights have the other layout (stride in the {where}) than {spec.name}", f"use {other.name}"
        )
    pool = "unpadded" if style == "legacy" else "padded"
    return wanted, f"{spec.name} is built with the {pool} stem pool that these weights were trained with"


def _with_layout(spec: ModelSpec, style: Style) -> ModelSpec:
    options: dict[str, Any] = {**spec.options, "padded_pool": style != "legacy"}
    if spec.family in ("resnet", "detection") and spec.options.get("bottleneck"):
        options["stride_in"] = "1x1" if style == "legacy" else "3x3"
    return replace(spec, options=options)


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    defaults = {"stride_in": "1x1", "padded_pool": False}
    basic = not first.get("bottleneck")
    clean = [{**defaults, **options, **({"stride_in": ""} if basic else {})} for options in (first, second)]
    return clean[0] == clean[1]


def _twin(row: ModelSpec, spec: ModelSpec, options: Mapping[str, Any]) -> bool:
    """Whether `row` is `spec` with these options: same family, same attention or none."""
    has = row.attention is not None, spec.attention is not None
    return (
        row.family == spec.family and row.builder == spec.builder and has[0] == has[1] and _same(row.options, options)
    )
