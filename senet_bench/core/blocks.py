"""The built-in attention blocks, a row each: what makes a block, its paper, whether it takes r, and its options.

A new block costs its class and a row here: the axis of `ablate`, the builders and the messages read this list.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from senet_bench.core.specs import AttentionSpec, OptionValue, import_hint, is_outside
from senet_bench.errors import UsageError, nearest

TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number"}


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a block: its type, and for a number its bounds, both allowed, and which values between them."""

    name: str
    kind: type[bool] | type[int] | type[float]
    least: float = -math.inf
    most: float = math.inf
    only: Literal["all", "odd", "powers of two"] = "all"

    @property
    def form(self) -> str:
        """What may be given, in words."""
        bounds = "" if self.kind is bool else f" from {self.least:g} to {self.most:g}"
        kind = {"all": TYPE_NAMES[self.kind], "odd": "an odd integer", "powers of two": "a power of two"}[self.only]
        return f"{kind}{bounds}"

    def fault(self, value: OptionValue) -> str:
        """What is wrong with a value, in a few words; empty when nothing is."""
        if self.kind is bool:
            return "" if isinstance(value, bool) else f"is not {TYPE_NAMES[bool]}"
        whole = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, str) or not (whole or (self.kind is float and isinstance(value, float))):
            return f"is not {TYPE_NAMES[self.kind]}"
        if not self.least <= value <= self.most:
            return f"is not between {self.least:g} and {self.most:g}"
        if self.only == "odd" and not int(value) % 2:
            return "is not odd"
        return "is no power of two" if self.only == "powers of two" and int(value) & (int(value) - 1) else ""


IDENTITY = Option("identity", bool)
"""Whether a block gives its input until it is trained: for networks that are trained already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block that is built in.

    `factory` is the import string of its class and `given` what the class is always given; `reduces` says that it
    takes the r of its stage, `switches` that it takes SE's squeeze, excitation and bias.
    """

    name: str
    factory: str
    title: str
    source: str
    reduces: bool = False
    switches: bool = False
    given: Mapping[str, Any] = field(default_factory=dict, hash=False)
    options: tuple[Option, ...] = (IDENTITY,)

    def check(self, options: Iterable[tuple[str, OptionValue]]) -> None:
        """Raise `UsageError` for an option that the block does not have, or a value outside its bounds."""
        known = {option.name: option for option in self.options}
        for name, value in options:
            if name not in known:
                choice = f"its options are {', '.join(known)}" if known else "it has none"
                raise UsageError(f"{self.name} has no option {name!r}", f"leave it out: {choice}")
            if fault := known[name].fault(value):
                raise UsageError(f"{self.name}'s {name} {value} {fault}", f"give {known[name].form}")


SE_CLASS = "senet_bench.models.attention:SqueezeExcitation"
GE = "senet_bench.models.blocks:GatherExcite"
KERNEL = Option("kernel", int, 1, 63, "odd")
EXTENT = Option("extent", int, 2, 64, "powers of two")
EPS = Option("eps", float, 1e-12, 1)
WIDTH_OPTIONS = (Option("min_width", int, 1, 65536), Option("divisor", int, 1, 1024), IDENTITY)
"""The least hidden width of SE, what its hidden width is rounded to a multiple of, and how it starts."""
REDUCTION = Option("reduction", int, 1, 65536)

BLOCKS: dict[str, Block] = {
    row.name: row
    for row in (
        Block(
            name="se",
            factory=SE_CLASS,
            title="Squeeze-and-Excitation",
            source="Hu et al., arXiv 1709.01507v4",
            reduces=True,
            switches=True,
            options=WIDTH_OPTIONS,
        ),
        Block(
            name="constant",
            factory="senet_bench.models.attention:ConstantGate",
            title="every gate fixed at 0.5",
            source="the control without attention",
            switches=True,
            options=(IDENTITY, Option("learned", bool)),
        ),
        Block(
            name="eca",
            factory="senet_bench.models.blocks:EfficientChannelAttention",
            title="Efficient Channel Attention",
            source="Wang et al., arXiv 1910.03151",
            options=(KERNEL, IDENTITY),
        ),
        Block(
            name="cbam",
            factory="senet_bench.models.blocks:CBAM",
            title="Convolutional Block Attention Module",
            source="Woo et al., arXiv 1807.06521",
            reduces=True,
            options=(KERNEL, REDUCTION, IDENTITY),
        ),
        Block(
            name="ese",
            factory="senet_bench.models.blocks:EffectiveSE",
            title="effective SE",
            source="Lee and Park, arXiv 1911.06667",
        ),
        Block(
            name="ge",
            factory=GE,
            title="Gather-Excite, theta-minus",
            source="Hu et al., arXiv 1810.12348",
            options=(EXTENT, Option("learned", bool), Option("mlp", bool), REDUCTION, IDENTITY),
        ),
        Block(
            name="ge_theta",
            factory=GE,
            title="Gather-Excite, theta",
            source="Hu et al., arXiv 1810.12348",
            given={"learned": True, "extent": 8},
            options=(EXTENT, IDENTITY),
        ),
        Block(
            name="ge_theta_plus",
            factory=GE,
            title="Gather-Excite, theta-plus",
            source="Hu et al., arXiv 1810.12348",
            reduces=True,
            given={"learned": True, "extent": 8, "mlp": True},
            options=(EXTENT, REDUCTION, IDENTITY),
        ),
        Block(
            name="srm",
            factory="senet_bench.models.blocks:StyleRecalibration",
            title="Style-based Recalibration Module",
            source="Lee et al., arXiv 1903.10829",
            options=(EPS, IDENTITY),
        ),
        Block(
            name="gct",
            factory="senet_bench.models.blocks:GatedChannelTransformation",
            title="Gated Channel Transformation",
            source="Yang et al., arXiv 1909.11519",
            options=(EPS, IDENTITY),
        ),
        Block(
            name="se_hard",
            factory=SE_CLASS,
            title="SE of MobileNetV3",
            source="Howard et al., arXiv 1905.02244",
            reduces=True,
            switches=True,
            given={"divisor": 8, "hard": True},
            options=WIDTH_OPTIONS,
        ),
        Block(
            name="se_silu",
            factory=SE_CLASS,
            title="SE of EfficientNet",
            source="Tan and Le, arXiv 1905.11946",
            reduces=True,
            switches=True,
            given={"activation": "silu"},
            options=WIDTH_OPTIONS,
        ),
    )
}
"""Every built-in block, in the order in which a bare `--attention` takes them."""


def find_block(name: str) -> Block:
    """The row of a built-in block; `UsageError` when there is none."""
    if name not in BLOCKS:
        choice = f"choose from {', '.join(BLOCKS)}, or give package.module:Class"
        raise UsageError(
            f"attention block {name!r} is unknown", f"{nearest(name, BLOCKS, most=1) or import_hint(name)} {choice}"
        )
    return BLOCKS[name]


def switched(attention: AttentionSpec, switches: Mapping[str, Any]) -> AttentionSpec:
    """The attention with switches as they were typed.

    A block from outside keeps the r of its own constructor unless one was typed. Raises `UsageError` for an r that
    was typed for a built-in block that takes none; a constant gate that stands in for a block takes its switches.
    """
    block = switches.get("block", attention.block)
    if is_outside(block):
        own = {"reduction": None} if "block" in switches else {}
        return replace(attention, **{**own, **switches})
    stands_in = block == "constant" and "block" not in switches
    if "reduction" in switches and not find_block(block).reduces and not stands_in:
        raise UsageError(f"{block} takes no reduction", "leave out -r or --reduction, or choose another block")
    return replace(attention, **switches)


def constant_of(attention: AttentionSpec) -> AttentionSpec:
    """The control for attention: gates fixed at 0.5; where its blocks start as the identity, learned ones from 1 on."""
    identity = dict(attention.options).get("identity") is True
    return replace(attention, block="constant", options=(("identity", True), ("learned", True)) if identity else ())


def constant_words(attention: AttentionSpec, usual: AttentionSpec | None = None) -> str:
    """What the gates of a control are, in a few words; and where they stand, if elsewhere than `usual` ones."""
    options = dict(attention.options)
    fixed = f"gates fixed at {1 if options.get('identity') else 0.5:g}"
    words = "gates learned, the same for every image" if options.get("learned") else fixed
    named = ("stages", "integration", "placement") if usual is not None else ()
    sites = [(name, getattr(attention, name)) for name in named if getattr(attention, name) != getattr(usual, name)]
    if not sites:
        return words
    told = (
        f"{name}={'+'.join(map(str, value)) if isinstance(value, tuple) else value or 'all'}" for name, value in sites
    )
    return f"{words} ({', '.join(told)})"


def learns(attention: AttentionSpec | None) -> bool:
    """Whether blocks have anything to learn: all but gates that are fixed."""
    return attention is not None and not (attention.is_constant and not dict(attention.options).get("learned"))
