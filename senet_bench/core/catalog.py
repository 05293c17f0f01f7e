"""Every network the toolkit builds, one row each; naming one loads no torch.

A row gives the network without attention. Its SE variant is derived: the same builder, `se` before the name,
`AttentionSpec()` as its attention. To add a family, write its builder in `senet_bench/models/` and its rows here.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

from senet_bench.core import detectors
from senet_bench.core.sizing import resized
from senet_bench.core.specs import AttentionSpec, ModelSpec
from senet_bench.errors import UsageError

RESNET = "senet_bench.models.resnet:ResNet"
V1 = "stride in the first 1x1, 3x3 max-pool without padding (ceil mode), as the paper"
V1_BASIC = "stride in the first 3x3, 3x3 max-pool without padding (ceil mode), as the paper"
V1_5 = "stride in the 3x3, padded max-pool, as torchvision"
GROUPED = "stride in the grouped 3x3, 3x3 max-pool without padding (ceil mode), as the paper"
PREACTIVATION = "pre-activation, 1x1 projections over the activated map, stride in the first convolution"
INVERTED = "senet_bench.models.mobilenet:InvertedNet"
V3_SE = (
    "hard-sigmoid SE, r = 4 of the expanded channels rounded to eights, after the depthwise convolution of some units"
)
SHAKE = "two branches with random weights per image in training, shifted two-path shortcut, SE on their mixture"


def _row(
    name: str,
    label: str,
    params: int,
    se_params: int,
    *,
    se_name: str = "",
    se_label: str = "",
    se: AttentionSpec | None = None,
    **fields: Any,
) -> dict[str, ModelSpec]:
    """A baseline and its SE variant; `params` and `se_params` are their trainable parameters."""
    base = ModelSpec(name=name, label=label, params=params, **fields)
    variant = replace(
        base,
        name=se_name or f"se{name}",
        label=se_label or f"SE-{label}",
        params=se_params,
        attention=se or AttentionSpec(),
        baseline=name,
    )
    return {base.name: base, variant.name: variant}


def _resnet(name: str, label: str, params: int, se_params: int, layers: tuple[int, ...]) -> dict[str, ModelSpec]:
    """A ResNet in the paper's layout and in torchvision's (`_v1_5`), each with its SE variant."""
    bottleneck = int(name.removeprefix("resnet")) >= 50
    options: dict[str, Any] = {"layers": layers, "bottleneck": bottleneck}
    v1: dict[str, Any] = {
        "family": "resnet",
        "builder": RESNET,
        "options": options,
        "layout": V1 if bottleneck else V1_BASIC,
    }
    v1_5 = {**v1, "options": {**options, "stride_in": "3x3", "padded_pool": True}, "layout": V1_5}
    return _row(name, label, params, se_params, **v1) | _row(f"{name}_v1_5", f"{label} v1.5", params, se_params, **v1_5)


def _resnext(
    name: str, label: str, params: int, se_params: int, layers: tuple[int, ...], groups: int
) -> dict[str, ModelSpec]:
    options = {"layers": layers, "bottleneck": True, "cardinality": groups, "group_width": 4, "stride_in": "3x3"}
    return _row(name, label, params, se_params, family="resnext", builder=RESNET, options=options, layout=GROUPED)


def _vgg(name: str, label: str, params: int, se_params: int, depths: tuple[int, ...]) -> dict[str, ModelSpec]:
    return _row(
        name,
        label,
        params,
        se_params,
        family="vgg",
        builder="senet_bench.models.vgg:VGG",
        options={"depths": depths},
        layout="BN after each convolution, convolutions with bias, SE after each conv-BN-ReLU",
        stages=(1, 2, 3, 4, 5),
    )


def _cifar(name: str, label: str, params: int, se_params: int, **options: Any) -> dict[str, ModelSpec]:
    """A network for 32 px images; its options say whether it is a Shake-Shake network."""
    shake = "random_backward" in options
    return _row(
        name,
        label,
        params,
        se_params,
        family="cifar",
        builder="senet_bench.models.cifar:ShakeNet" if shake else "senet_bench.models.cifar:PreActivationResNet",
        options=options,
        layout=SHAKE if shake else PREACTIVATION,
        input_size=(3, 32, 32),
        classes=10,
        stages=(2, 3, 4),
    )


def _carries_se(
    name: str, label: str, params: int, se_params: int, version: str, se: AttentionSpec, **fields: Any
) -> dict[str, ModelSpec]:
    """A network of inverted residuals that has SE by its own paper; its baseline is itself without SE."""
    return _row(
        f"{name}_nose",
        f"{label} without SE",
        params,
        se_params,
        se_name=name,
        se_label=label,
        se=se,
        builder=INVERTED,
        options={"version": version},
        **fields,
    )


CLASSIFIERS: dict[str, ModelSpec] = {
    **_resnet("resnet18", "ResNet-18", 11_689_512, 11_778_592, (2, 2, 2, 2)),
    **_resnet("resnet34", "ResNet-34", 21_797_672, 21_958_868, (3, 4, 6, 3)),
    **_resnet("resnet50", "ResNet-50", 25_557_032, 28_088_024, (3, 4, 6, 3)),
    **_resnet("resnet101", "ResNet-101", 44_549_160, 49_326_872, (3, 4, 23, 3)),
    **_resnet("resnet152", "ResNet-152", 60_192_808, 66_821_848, (3, 8, 36, 3)),
    **_resnext("resnext50_32x4d", "ResNeXt-50 (32x4d)", 25_028_904, 27_559_896, (3, 4, 6, 3), 32),
    **_resnext("resnext101_32x4d", "ResNeXt-101 (32x4d)", 44_177_704, 48_955_416, (3, 4, 23, 3), 32),
    **_resnext("resnext101_64x4d", "ResNeXt-101 (64x4d)", 83_455_272, 88_232_984, (3, 4, 23, 3), 64),
    **_vgg("vgg11_bn", "VGG-11", 132_868_840, 133_021_780, (1, 1, 2, 2, 2)),
    **_vgg("vgg13_bn", "VGG-13", 133_053_736, 133_209_440, (2, 2, 2, 2, 2)),
    **_vgg("vgg16_bn", "VGG-16", 138_365_992, 138_596_784, (2, 2, 3, 3, 3)),
    **_vgg("vgg19_bn", "VGG-19", 143_678_248, 143_984_128, (2, 2, 4, 4, 4)),
    **_row(
        "mobilenet_v1",
        "MobileNet",
        4_231_976,
        4_718_044,
        family="mobilenet",
        builder="senet_bench.models.mobilenet:MobileNetV1",
        layout="width 1.0, SE after each pointwise conv-BN-ReLU",
        stages=(1, 2, 3, 4, 5),
    ),
    **_row(
        "mobilenet_v2",
        "MobileNetV2",
        3_504_872,
        4_076_486,
        family="mobilenet",
        builder=INVERTED,
        options={"version": "v2"},
        layout="width 1.0, SE after the depthwise conv-BN-ReLU6 of each unit, where MobileNetV3 has it",
        se=AttentionSpec(placement="3x3"),
        stages=(1, 2, 3, 4, 5),
    ),
    **_carries_se(
        "mobilenet_v3_large",
        "MobileNetV3-Large",
        3_970_752,
        5_483_032,
        "v3_large",
        AttentionSpec("se_hard", reduction=4, placement="3x3"),
        family="mobilenet",
        layout=V3_SE,
        stages=(3, 4, 5),
    ),
    **_carries_se(
        "mobilenet_v3_small",
        "MobileNetV3-Small",
        2_081_216,
        2_542_856,
        "v3_small",
        AttentionSpec("se_hard", reduction=4, placement="3x3"),
        family="mobilenet",
        layout=V3_SE,
        stages=(2, 4, 5),
    ),
    **_carries_se(
        "efficientnet_b0",
        "EfficientNet-B0",
        4_652_008,
        5_288_548,
        "b0",
        AttentionSpec("se_silu", reduction=4, placement="3x3"),
        family="efficientnet",
        layout="SE with SiLU after the depthwise conv-BN-SiLU of each unit, r = 4 of the channels before the expansion",
        stages=(1, 2, 3, 4, 5),
    ),
    **_row(
        "shufflenet_v1_g3",
        "ShuffleNet",
        1_865_728,
        2_441_923,
        family="shufflenet",
        builder="senet_bench.models.shufflenet:ShuffleNetV1",
        options={"groups": 3, "widths": (240, 480, 960)},
        layout="1x (g = 3), first pointwise convolution not grouped, SE on the stride-1 branches",
        stages=(2, 3, 4),
    ),
    **_row(
        "bninception",
        "BN-Inception",
        11_285_224,
        11_931_622,
        family="inception",
        builder="senet_bench.models.inception:BNInception",
        layout="convolutions without bias, SE after each concatenation",
        stages=(3, 4, 5),
    ),
    **_row(
        "inception_resnet_v2",
        "Inception-ResNet-v2",
        55_843_464,
        64_387_444,
        family="inception",
        builder="senet_bench.models.inception:InceptionResNetV2",
        layout="10, 20 and 10 blocks as tf-slim, BN with scale, SE on the residual branch before its scale",
        input_size=(3, 299, 299),
        stages=(3, 4, 5),
    ),
    **_row(
        "senet154_nose",
        "SENet-154 without SE",
        108_459_944,
        115_088_984,
        se_name="senet154",
        se_label="SENet-154",
        family="senet",
        builder="senet_bench.models.resnet:SENet154",
        options={"cardinality": 64, "group_width": 4},
        layout="three 3x3 stem convolutions, first 1x1 halved, stride in the 3x3, 3x3 downsampling projections",
    ),
    **_cifar("resnet20_cifar", "ResNet-20", 272_282, 274_655, units=3, outputs=(16, 32, 64)),
    **_cifar("resnet110_cifar", "ResNet-110", 1_730_522, 1_744_760, units=18, outputs=(16, 32, 64)),
    **_cifar("resnet164_cifar", "ResNet-164", 1_703_258, 1_905_362, units=18, outputs=(64, 128, 256), bottleneck=True),
    **_cifar("wrn16_8_cifar", "WRN-16-8", 10_961_370, 11_049_290, units=2, outputs=(128, 256, 512)),
    **_cifar(
        "shakeshake26_2x96d_cifar",
        "Shake-Shake 26 2x96d + Cutout",
        26_192_922,
        26_292_546,
        units=4,
        outputs=(96, 192, 384),
        random_backward=True,
    ),
    **_cifar(
        "shakeeven29_2x4x64d_cifar",
        "Shake-Even 29 2x4x64d + Cutout",
        34_437_450,
        34_959_258,
        units=3,
        outputs=(256, 512, 1024),
        random_backward=False,
        bottleneck=True,
        cardinality=4,
        group_width=64,
    ),
}

CATALOG: dict[str, ModelSpec] = CLASSIFIERS | detectors.rows(CLASSIFIERS)

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(spec.family for spec in CATALOG.values()))


def normalise(name: str) -> str:
    """A name as it is looked up: case, `-`, `_`, `.`, spaces and parentheses do not count."""
    return name.lower().translate(_UNCOUNTED)


_UNCOUNTED = str.maketrans("", "", "-_. ()")


_BY_NORMALISED = {normalise(name): spec for name, spec in CATALOG.items()}


def resolve(name: str) -> ModelSpec:
    """The catalog's row for `name`, or with `@width=1.05` behind it for another size of that network.

    Raises `UsageError` with the nearest names when there is none.
    """
    name, sized, size = name.partition("@")
    if sized:
        return resized(resolve(name), size)
    spec = _BY_NORMALISED.get(normalise(name))
    if spec is None:
        key = normalise(name)
        begun = [known for known in _BY_NORMALISED if key and known.startswith(key)]
        near = list(dict.fromkeys(begun + difflib.get_close_matches(key, _BY_NORMALISED, n=3, cutoff=0.5)))[:3]
        hint = ", ".join(_BY_NORMALISED[key].name for key in near)
        raise UsageError(
            f"unknown model {name!r}", f"did you mean {hint}?" if hint else "see `senet-bench models` for all names"
        )
    return spec


def root_of(model: str) -> str:
    """The name of a network without its attention."""
    row = CATALOG.get(model)
    return (row.baseline or row.name) if row else model


def usual_attention(name: str) -> AttentionSpec:
    """The attention that a network of the catalog has; the paper's block for others."""
    row = CATALOG.get(name)
    return (row.attention if row else None) or AttentionSpec()


def pair(spec: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
    """The baseline and the variant with attention that `spec` belongs to."""
    if spec.baseline is not None:
        return resolve(spec.baseline), spec
    name, sized, size = spec.name.partition("@")
    variant = next(other for other in CATALOG.values() if other.baseline == name)
    return spec, resolve(f"{variant.name}{sized}{size}")
