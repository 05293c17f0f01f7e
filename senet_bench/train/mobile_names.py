"""How timm and torchvision name the parts of MobileNets and EfficientNet-B0 that ours call `units.N.branch.M`.

No unit but the first leaves the expansion out, in all of these networks, so an index tells what a layer is.
"""

from __future__ import annotations

import re

from senet_bench.core.specs import ModelSpec

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
