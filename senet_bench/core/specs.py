"""What is built and under which conditions it is measured: frozen, hashable, free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn, get_args

from senet_bench.core.given import block_string
from senet_bench.errors import UsageError

SqueezeName = Literal["avg", "max", "none"]
Excitation = Literal["sigmoid", "tanh", "relu"]
Integration = Literal["standard", "pre", "post", "identity"]
Placement = Literal["standard", "3x3"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Mode = Literal["infer", "train"]
Runtime = Literal[
    "eager", "compile", "cudagraph", "onnxruntime", "openvino",
    "deploy", "deploy:eager", "deploy:compile", "deploy:onnxruntime", "deploy:openvino",
    "onnxruntime:int8", "onnxruntime:int8-fp32gates", "openvino:int8", "openvino:int8-fp32gates", "fastest",
]  # fmt: skip
TimingName = Literal["end-to-end", "device"]
Spread = Literal["columns", "sd", "interval"]
CounterName = Literal["shapes", "fvcore"]
Cache = Literal["warm", "cold"]
Allocator = Literal["as-is", "tuned", "default", "environment", "other"]
Task = Literal["classification", "detection"]
OptionValue = bool | int | float | str
AxisValue = bool | int | str | tuple[int, ...]
ATTACH, REPLACE = "+attach", "+replace"
"""What stands behind the name of a network from outside that attention is put into, or in which it is replaced."""
USUAL_REDUCTION = 16
"""The paper's r."""
LARGEST_NUMBER = 1e100
"""What is measured, counted and given is far below it, and its square is still a number."""
Role = Literal["baseline", "variant", "control", "plain"]
"""What a network is in a comparison: without attention; with it; with its gates fixed at 0.5; or without attention and
larger, to cost what attention costs."""


def import_hint(path: str) -> str:
    """`did you mean mine:Block?` for `mine.py:Block`, `./mine.py:Block` and `mine.Block`; empty for what is unlike."""
    module, colon, attribute = path.partition(":")
    if not colon:
        module, _, attribute = path.rpartition(".")
    module = module.removesuffix(".py").strip("./").replace("/", ".")
    known = attribute.isidentifier() and attribute != "py" and all(part.isidentifier() for part in module.split("."))
    return f"did you mean {module}:{attribute}?" if known and f"{module}:{attribute}" != path else ""


def bare_name(name: str) -> str:
    """The name of a network without what stands behind it where attention is put in."""
    return name.removesuffix(ATTACH).removesuffix(REPLACE)


def by_sides(size: Iterable[int]) -> str:
    """A size as it is typed and shown: `3x224x224`."""
    return "x".join(map(str, size))


def is_outside(name: str) -> bool:
    """Whether a network or a block is named as code from outside (`timm:NAME`, `package.module:name`)."""
    return ":" in name


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """A channel-attention block and where it sits; every switch of section 6 of the paper.

    `reduction` is r of equation 3, one value or one for each stage of the network; 16 unless given, and for a block
    from outside None: its constructor's own. `squeeze="none"` is Table 16's NoSqueeze: the FCs become 1x1
    convolutions over the whole map. `stages=None` means all. `placement="3x3"` is Table 15's SE_3x3, right after the
    3x3 convolution of a bottleneck. `block` is a name in `senet_bench.core.blocks.BLOCKS` or an import string
    `package.module:Class` (or, from Python, a class or an instance), `options` are pairs of a name and a value, passed
    to the block's constructor.
    """

    block: str = "se"
    reduction: int | tuple[int, ...] | None = None
    squeeze: SqueezeName = "avg"
    excitation: Excitation = "sigmoid"
    integration: Integration = "standard"
    placement: Placement = "standard"
    stages: tuple[int, ...] | None = None
    bias: bool = True
    options: tuple[tuple[str, OptionValue], ...] = ()

    def __post_init__(self) -> None:
        """Raise `UsageError` on a value outside its choices, or on a number that is none or cannot be stored."""
        object.__setattr__(self, "block", block_string(self.block))  # from Python it may be a class or an instance
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                _refuse(name, getattr(self, name), choices)
        if self.reduction is None and not is_outside(self.block):
            object.__setattr__(self, "reduction", USUAL_REDUCTION)
        for r in self.reductions:
            if not isinstance(r, int) or isinstance(r, bool) or r < 1:
                raise UsageError(f"reduction must be a positive integer, not {r!r}", "use 16, as the paper does")
            if r > LARGEST_NUMBER:
                raise UsageError(f"reduction is beyond {LARGEST_NUMBER:g}", "use 16, as the paper does")
        for name, value in self.options:
            if isinstance(value, int | float) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
                shown = f" {value:g}" if isinstance(value, float) else ""
                problem = f"{self.block}'s {name}{shown} is not between {-LARGEST_NUMBER:g} and {LARGEST_NUMBER:g}"
                raise UsageError(problem, "give a finite number: it is stored with what is measured")
        if self.placement == "3x3" and self.integration != "standard":
            raise UsageError(
                f"placement 3x3 and integration {self.integration} exclude each other", "choose one of them"
            )

    def __hash__(self) -> int:
        """A digest of what most blocks differ in: rows are looked up by them thousands of times."""
        return hash((self.block, self.reduction))

    @property
    def is_constant(self) -> bool:
        """Whether its gates are fixed at 0.5, so that nothing is attended to."""
        return self.block == "constant"

    @property
    def reductions(self) -> tuple[int, ...]:
        """Reduction ratios as a tuple, one element when all stages share it; the paper's where a block has its own."""
        if self.reduction is None:
            return (USUAL_REDUCTION,)
        return self.reduction if isinstance(self.reduction, tuple) else (self.reduction,)

    @property
    def place(self) -> str:
        """The named place in a residual unit where the block goes."""
        return "3x3" if self.placement == "3x3" else self.integration

    @property
    def sites(self) -> tuple[str, tuple[int, ...] | None]:
        """Where in a network the blocks stand: the place in a residual unit, and the stages."""
        return self.place, self.stages


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One network of the catalog. `builder` is an import string, so that naming a network loads no torch.

    `stages` are the stage numbers that `AttentionSpec.stages` may name; `params` the trainable parameters with
    `classes` classes and three input channels, which the tests check against the built network. `trunk` names the
    classifier whose stages a detector is built on; a detector's `classes` are those of objects, without background.
    `cardinality` is the number of groups C where it is not the network's own. `input_size` is
    (C, H, W) of an image, of a network from outside also (C, L) or (C, D, H, W); `guessed_size` says that it is the
    first that a network from outside could take, and nobody said so.
    """

    name: str
    family: str
    label: str
    builder: str
    layout: str
    params: int
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    input_size: tuple[int, ...] = (3, 224, 224)
    classes: int = 1000
    stages: tuple[int, ...] = (2, 3, 4, 5)
    attention: AttentionSpec | None = None
    baseline: str | None = None
    trunk: str | None = None
    cardinality: int | None = None
    guessed_size: bool = False

    @property
    def outside(self) -> bool:
        """Whether it is of timm, torchvision or the user's own code, and so in no table of the paper."""
        return is_outside(self.name)

    @property
    def built(self) -> Mapping[str, Any]:
        """The options that it is built with, with the number of groups that was asked for."""
        return self.options if self.cardinality is None else {**self.options, "cardinality": self.cardinality}

    def with_groups(self, groups: int | None) -> ModelSpec:
        """The network with another number of groups, each as wide as its own: 32x4d becomes 16x4d in its label."""
        own, width = (self.options.get(name) for name in ("cardinality", "group_width"))
        if groups in (None, own, self.cardinality):
            return self
        printed, named = f"{own}x{width}d", f"{groups}x{width}d"
        label = self.label.replace(printed, named) if printed in self.label else f"{self.label} (C={groups})"
        return replace(self, label=label, cardinality=groups)

    @property
    def foreign(self) -> str | None:
        """The name of code of others that it runs, its own or its attention block's; None where all of it is ours."""
        block = self.attention.block if self.attention else ""
        return self.name if self.outside else block if is_outside(block) else None

    @property
    def task(self) -> Task:
        """What the network does with an image."""
        return "classification" if self.trunk is None else "detection"


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a network is run while it is measured; part of every row that has a time or a memory figure.

    `precision` fp32 means IEEE single precision: TF32 is off. `threads` is torch's intra-operator count.
    `timing` end-to-end is the host's clock around a finished call; device is CUDA events around the work on the
    GPU. `cache` says whether the GPU's L2 is flushed before each call. `allocator` is asked for as it is or tuned; a
    measurement notes what it was: glibc's default, set by the environment, tuned, or another than glibc's.
    """

    device: str = "cpu"
    precision: Precision = "fp32"
    runtime: Runtime = "eager"
    channels_last: bool = False
    threads: int = 1
    batch_size: int = 1
    mode: Mode = "infer"
    timing: TimingName = "end-to-end"
    cache: Cache = "warm"
    allocator: Allocator = "as-is"

    def with_batch(self, batch_size: int) -> Conditions:
        """The same conditions at another batch size (images)."""
        return replace(self, batch_size=batch_size)


_CHOICES: dict[str, tuple[str, ...]] = {
    "squeeze": get_args(SqueezeName),
    "excitation": get_args(Excitation),
    "integration": get_args(Integration),
    "placement": get_args(Placement),
}


def _refuse(name: str, value: object, choices: Sequence[str]) -> NoReturn:
    raise UsageError(f"{name} {value!r} is unknown", f"choose from {', '.join(choices)}")
