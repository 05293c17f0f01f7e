"""Every network the toolkit builds, one row each; naming one loads no torch.

A row gives the network without attention. Its SE variant is derived: the same builder, `se` before the name,
`AttentionSpec()` as its attention. To add a family, write its builder in `senet_bench/models/` and its rows here.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

from senet_bench.errors import UsageError
from senet_bench.specs import AttentionSpec, ModelSpec

RESNET = "senet_bench.models.resnet:resnet"
V1 = "stride in the first 1x1, 3x3 max-pool without padding (ceil mode), as the paper"
V1_BASIC = "stride in the first 3x3, 3x3 max-pool without padding (ceil mode), as the paper"
V1_5 = "stride in the 3x3, padded max-pool, as torchvision"
GROUPED = "stride in the grouped 3x3, 3x3 max-pool without padding (ceil mode), as the paper"


def _row(
    name: str, label: str, params: int, se_params: int, *, se_name: str = "", se_label: str = "", **fields: Any
) -> dict[str, ModelSpec]:
    """A baseline and its SE variant; `params` and `se_params` are their trainable parameters."""
    base = ModelSpec(name=name, label=label, params=params, **fields)
    se = replace(
        base,
        name=se_name or f"se{name}",
        label=se_label or f"SE-{label}",
        params=se_params,
        attention=AttentionSpec(),
        baseline=name,
    )
    return {base.name: base, se.name: se}


def _resnet(name: str, label: str, params: int, se_params: int, layers: tuple[int, ...]) -> dict[str, ModelSpec]:
    """A ResNet in the paper's layout and in torchvision's (`_v1_5`), each with its SE variant."""
    bottleneck = int(name.removeprefix("resnet")) >= 50
    options: dict[str, Any] = {"layers": layers, "bottleneck": bottleneck}
    v1 = {"family": "resnet", "builder": RESNET, "options": options, "layout": V1 if bottleneck else V1_BASIC}
    v1_5 = {**v1, "options": {**options, "stride_in": "3x3", "padded_pool": True}, "layout": V1_5}
    return _row(name, label, params, se_params, **v1) | _row(f"{name}_v1_5", f"{label} v1.5", params, se_params, **v1_5)


def _resnext(
    name: str, label: str, params: int, se_params: int, layers: tuple[int, ...], groups: int
) -> dict[str, ModelSpec]:
    options = {"layers": layers, "bottleneck": True, "cardinality": groups, "group_width": 4, "stride_in": "3x3"}
    return _row(name, label, params, se_params, family="resnext", builder=RESNET, options=options, layout=GROUPED)


CATALOG: dict[str, ModelSpec] = {
    **_resnet("resnet18", "ResNet-18", 11_689_512, 11_778_592, (2, 2, 2, 2)),
    **_resnet("resnet34", "ResNet-34", 21_797_672, 21_958_868, (3, 4, 6, 3)),
    **_resnet("resnet50", "ResNet-50", 25_557_032, 28_088_024, (3, 4, 6, 3)),
    **_resnet("resnet101", "ResNet-101", 44_549_160, 49_326_872, (3, 4, 23, 3)),
    **_resnet("resnet152", "ResNet-152", 60_192_808, 66_821_848, (3, 8, 36, 3)),
    **_resnext("resnext50_32x4d", "ResNeXt-50 (32x4d)", 25_028_904, 27_559_896, (3, 4, 6, 3), 32),
    **_resnext("resnext101_32x4d", "ResNeXt-101 (32x4d)", 44_177_704, 48_955_416, (3, 4, 23, 3), 32),
    **_resnext("resnext101_64x4d", "ResNeXt-101 (64x4d)", 83_455_272, 88_232_984, (3, 4, 23, 3), 64),
}

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(spec.family for spec in CATALOG.values()))


def normalise(name: str) -> str:
    """A name as it is looked up: case, `-`, `_`, `.`, spaces and parentheses do not count."""
    return name.lower().translate(str.maketrans("", "", "-_. ()"))


_BY_NORMALISED = {normalise(name): spec for name, spec in CATALOG.items()}


def resolve(name: str) -> ModelSpec:
    """The catalog's row for `name`; `UsageError` with the nearest names when there is none."""
    spec = _BY_NORMALISED.get(normalise(name))
    if spec is None:
        near = difflib.get_close_matches(normalise(name), _BY_NORMALISED, n=3, cutoff=0.5)
        hint = ", ".join(_BY_NORMALISED[key].name for key in near)
        raise UsageError(
            f"unknown model {name!r}", f"did you mean {hint}?" if hint else "see `senet-bench models` for all names"
        )
    return spec


def pair(spec: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
    """The baseline and the variant with attention that `spec` belongs to."""
    if spec.baseline is not None:
        return CATALOG[spec.baseline], spec
    return spec, next(other for other in CATALOG.values() if other.baseline == spec.name)
