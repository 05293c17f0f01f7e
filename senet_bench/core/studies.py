"""The paper's comparisons and ablations as data, one row each; and the axes along which a network is varied.

A study says which network, with which attention, stands in which printed row. Networks are named by their ids
in the catalog; naming a study loads neither torch nor the network.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from senet_bench.core.blocks import BLOCKS, find_block
from senet_bench.core.catalog import CATALOG, resolve
from senet_bench.core.paper import RULES, TABLES, Cell, cells
from senet_bench.core.specs import (
    AttentionSpec,
    Excitation,
    Integration,
    ModelSpec,
    OptionValue,
    Placement,
    Squeeze,
    is_outside,
)
from senet_bench.errors import UsageError

Kind = Literal["comparison", "ablation"]
AxisValue: TypeAlias = int | bool | str | tuple[int, ...]

SE = AttentionSpec()


@dataclass(frozen=True, slots=True)
class Subject:
    """A network of a study and the printed row and column it stands in; `attention` None is the plain network."""

    label: str
    model: str
    attention: AttentionSpec | None
    row: str
    column: str = "reported"


@dataclass(frozen=True, slots=True)
class Study:
    """A table of the paper as something to run; subjects in print order.

    `classes` is the number that its networks tell apart where that is not the catalog's.
    """

    id: str
    title: str
    kind: Kind
    subjects: tuple[Subject, ...]
    classes: int | None = None

    @property
    def table(self) -> str:
        """The number of the printed table."""
        return self.id.removeprefix("table")

    @property
    def models(self) -> tuple[str, ...]:
        """The ids of the networks, each once."""
        return tuple(dict.fromkeys(subject.model for subject in self.subjects))


def _pair(row: str, base: str, plain: str = "reimplementation") -> tuple[Subject, Subject]:
    """A baseline and its SE variant, which the paper prints in one row."""
    return Subject(row, base, None, row, plain), Subject(f"SE-{row}", f"se{base}", SE, row, "senet")


def _plain(row: str, model: str, column: str = "reported") -> Subject:
    return Subject(row, model, None, row, column)


def _se(row: str, model: str, column: str = "reported") -> Subject:
    return Subject(row, model, SE, row, column)


def _variant(row: str, label: str = "", **switches: Any) -> Subject:
    """SE-ResNet-50 with some switches of section 6 set; FC biases stay on, as in the released definitions."""
    return Subject(label or row, "seresnet50", replace(SE, **switches), row)


def _study(table: int, kind: Kind, *subjects: Subject, classes: int | None = None) -> dict[str, Study]:
    return {f"table{table}": Study(f"table{table}", TABLES[str(table)].title, kind, subjects, classes)}


_RESNET50 = _plain("ResNet-50", "resnet50")

STUDIES: dict[str, Study] = {
    **_study(
        2,
        "comparison",
        *_pair("ResNet-50", "resnet50"),
        *_pair("ResNet-101", "resnet101"),
        *_pair("ResNet-152", "resnet152"),
        *_pair("ResNeXt-50", "resnext50_32x4d"),
        *_pair("ResNeXt-101", "resnext101_32x4d"),
        *_pair("VGG-16", "vgg16_bn"),
        *_pair("BN-Inception", "bninception"),
        *_pair("Inception-ResNet-v2", "inception_resnet_v2"),
    ),
    **_study(3, "comparison", *_pair("MobileNet", "mobilenet_v1"), *_pair("ShuffleNet", "shufflenet_v1_g3")),
    **_study(
        4,
        "comparison",
        *_pair("ResNet-110", "resnet110_cifar", "original"),
        *_pair("ResNet-164", "resnet164_cifar", "original"),
        *_pair("WRN-16-8", "wrn16_8_cifar", "original"),
        *_pair("Shake-Shake 26 2x96d + Cutout", "shakeshake26_2x96d_cifar", "original"),
    ),
    **_study(
        5,
        "comparison",
        *_pair("ResNet-110", "resnet110_cifar", "original"),
        *_pair("ResNet-164", "resnet164_cifar", "original"),
        *_pair("WRN-16-8", "wrn16_8_cifar", "original"),
        *_pair("Shake-Even 29 2x4x64d + Cutout", "shakeeven29_2x4x64d_cifar", "original"),
        classes=100,
    ),
    **_study(
        6, "comparison", _plain("ResNet-152 (ours)", "resnet152"), _se("SE-ResNet-152", "seresnet152"), classes=365
    ),
    **_study(
        7,
        "comparison",
        _plain("ResNet-50", "fasterrcnn_resnet50_fpn"),
        _se("SE-ResNet-50", "fasterrcnn_seresnet50_fpn"),
        _plain("ResNet-101", "fasterrcnn_resnet101_fpn"),
        _se("SE-ResNet-101", "fasterrcnn_seresnet101_fpn"),
    ),
    **_study(
        8,
        "comparison",
        _plain("ResNet-152", "resnet152", "224"),
        _plain("Inception-ResNet-v2", "inception_resnet_v2", "320/299"),
        _plain("ResNeXt-101 (64x4d)", "resnext101_64x4d", "224"),
        _se("SENet-154", "senet154", "224"),
    ),
    **_study(
        10,
        "ablation",
        *(_variant(f"r={r}", str(r), reduction=r) for r in (2, 4, 8, 16, 32)),
        Subject("original", "resnet50", None, "r=original"),
    ),
    **_study(11, "ablation", _variant("Max", squeeze="max"), _variant("Avg", squeeze="avg")),
    **_study(
        12,
        "ablation",
        _variant("ReLU", excitation="relu"),
        _variant("Tanh", excitation="tanh"),
        _variant("Sigmoid", excitation="sigmoid"),
    ),
    **_study(
        13,
        "ablation",
        _RESNET50,
        _variant("SE Stage 2", stages=(2,)),
        _variant("SE Stage 3", stages=(3,)),
        _variant("SE Stage 4", stages=(4,)),
        _variant("SE All"),
    ),
    **_study(
        14,
        "ablation",
        _variant("SE"),
        _variant("SE-PRE", integration="pre"),
        _variant("SE-POST", integration="post"),
        _variant("SE-Identity", integration="identity"),
    ),
    **_study(15, "ablation", _variant("SE"), _variant("SE 3x3", placement="3x3")),
    **_study(16, "ablation", _RESNET50, _variant("NoSqueeze", squeeze="none"), _variant("SE")),
}


def find_study(name: str) -> Study:
    """The study called `table2`, `Table 2` or `2`; `UsageError` with the nearest ones when there is none."""
    number = "".join(char for char in name.lower() if char.isalnum()).removeprefix("table")
    if f"table{number}" in STUDIES:
        return STUDIES[f"table{number}"]
    close = difflib.get_close_matches(number, [study.table for study in STUDIES.values()], n=3)
    near = ", ".join(f"table{other}" for other in close) or ", ".join(STUDIES)
    if number.isdigit() and number in TABLES:
        raise UsageError(f"Table {number} of the paper has nothing to run", f"choose from {near}")
    raise UsageError(f"unknown study {name!r}", f"choose from {near}")


@dataclass(frozen=True, slots=True)
class Axis:
    """A switch of section 6: its values in the paper's print order, and what a value does to an attention block.

    `table` is the study whose rows the paper's values reproduce, None where the paper has none and `values` are all
    there are here; a value is a plain JSON value or a tuple of integers.
    """

    name: str
    table: str | None
    values: tuple[AxisValue, ...]
    parse_one: Callable[[str], AxisValue]
    switches: Callable[[AxisValue], Mapping[str, Any]]

    def parse(self, text: str | None) -> tuple[AxisValue, ...]:
        """The values of `2,4,8` or `[2,4,8]`, each once; the paper's when `text` is None; else `UsageError`."""
        if text is None:
            return self.values
        inside = text.strip()
        if inside.startswith("[") and inside.endswith("]"):
            inside = inside[1:-1].strip()
        try:
            return tuple(dict.fromkeys(self.parse_one(item.strip()) for item in inside.split(",")))
        except ValueError as error:
            shown = ",".join(self.label(value) for value in self.values)
            remedy = (
                f"the paper's values are {shown}"
                if self.table
                else f"choose from {shown}, or give package.module:Class"
            )
            raise UsageError(f"--{self.name} {text}: {error}", remedy) from None

    def apply(self, attention: AttentionSpec, value: AxisValue) -> AttentionSpec:
        """`attention` with this axis at `value`; `UsageError` when the combination makes no sense."""
        return replace(attention, **self.switches(value))

    def label(self, value: AxisValue) -> str:
        """A value as it is typed and shown: `16`, `16/16/8/4`, `2+3`, `all`, `true`."""
        if isinstance(value, tuple):
            return ("+" if self.name == "stages" else "/").join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else str(value)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text)):
        raise ValueError(f"{text!r} is no positive integer")
    return int(text)


def _reduction(text: str) -> AxisValue:
    ratios = tuple(_positive(part.strip()) for part in text.split("/"))
    return ratios if len(ratios) > 1 else ratios[0]


def _stages(text: str) -> AxisValue:
    if text.lower() == "all":
        return "all"
    stages = tuple(sorted({_positive(part.strip()) for part in text.split("+")}))
    return stages if len(stages) > 1 else stages[0]


def _choice(*choices: str) -> Callable[[str], AxisValue]:
    def parse_one(text: str) -> AxisValue:
        if text.lower() not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text.lower()

    return parse_one


def _flag(text: str) -> AxisValue:
    return _choice("true", "false")(text) == "true"


def _set(name: str) -> Callable[[AxisValue], Mapping[str, Any]]:
    return lambda value: {name: value}


def _set_stages(value: AxisValue) -> Mapping[str, Any]:
    return {"stages": None if value == "all" else value if isinstance(value, tuple) else (value,)}


def _block(text: str) -> AxisValue:
    """A block as typed: `eca`, `ge/extent=4` or `package.module:Class/kernel=5/bias=false`."""
    name, *options = (part.strip() for part in text.split("/"))
    for option in options:
        key, equals, value = option.partition("=")
        if not (key.isidentifier() and equals and value):
            raise ValueError(f"{option!r} is no option written as name=value")
    if not is_outside(name):
        name = str(_choice(*BLOCKS)(name))
        find_block(name).check(_options(options))
    return "/".join((name, *options))


def _set_block(value: AxisValue) -> Mapping[str, Any]:
    name, *options = str(value).split("/")
    return {"block": name, "options": _options(options)}


def _options(texts: Iterable[str]) -> tuple[tuple[str, OptionValue], ...]:
    pairs = (text.partition("=") for text in texts)
    return tuple((key, _option(value)) for key, _, value in pairs)


def _option(text: str) -> OptionValue:
    """The value an option's text stands for: true, false, an integer, a number, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _set_integration(value: AxisValue) -> Mapping[str, Any]:
    """Another integration than the standard one takes a block out of the branch."""
    return {"integration": value} | ({} if value == "standard" else {"placement": "standard"})


def _set_no_squeeze(value: AxisValue) -> Mapping[str, Any]:
    return {"squeeze": "none"} if value else {}


AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("reduction", "table10", (2, 4, 8, 16, 32), _reduction, _set("reduction")),
        Axis("squeeze", "table11", ("max", "avg"), _choice(*get_args(Squeeze)), _set("squeeze")),
        Axis("excitation", "table12", ("relu", "tanh", "sigmoid"), _choice(*get_args(Excitation)), _set("excitation")),
        Axis("stages", "table13", (2, 3, 4, "all"), _stages, _set_stages),
        Axis(
            "integration",
            "table14",
            ("standard", "pre", "post", "identity"),
            _choice(*get_args(Integration)),
            _set_integration,
        ),
        Axis("placement", "table15", ("standard", "3x3"), _choice(*get_args(Placement)), _set("placement")),
        Axis("no-squeeze", "table16", (True, False), _flag, _set_no_squeeze),
        Axis("attention", None, tuple(BLOCKS), _block, _set_block),
    )
}
"""Every axis of `ablate`: the switches of the SE block in print order of the paper's tables, then the block itself."""


def setting_label(axes: Mapping[str, AxisValue]) -> str:
    """A setting on the axes in a few words."""
    return ", ".join(
        f"{name}={AXES[name].label(value)}" if name in AXES else f"{name}={value}" for name, value in axes.items()
    )


_OWN_ROWS = ("table2", "table3", "table4", "table5", "table7", "table8")
_SHOWN = frozenset({"gflops", "mflops", "params_m", "top1_err", "top5_err", "cpu_ms", "train_ms", "ap", "ap50"})


def paper_cells(model: ModelSpec | str, study: str | None = None) -> tuple[Cell, ...]:
    """The printed cells that stand beside a network with its attention: a row is compared with its own table only.

    With a study, that table's cells (with Table 2 also the times that the text gives). Without one, the network's
    rows in Tables 2 to 5, 7 and 8, and those times. A network or an attention that the paper did not print has none;
    one with another input size, number of classes or option than the catalog's has no counts.
    """
    spec = resolve(model) if isinstance(model, str) else model
    studies = [find_study(study)] if study else [STUDIES[name] for name in _OWN_ROWS]
    found = [cell for each in studies for subject in each.subjects for cell in _beside(spec, each, subject)]
    if study in (None, "table2") and spec.name in ("resnet50", "seresnet50"):
        row = {None: "ResNet-50", SE: "SE-ResNet-50"}.get(_plainly(spec, "comparison"), "")
        found += (cell for cell in cells("text", row) if cell.metric in ("cpu_ms", "train_ms"))
    as_printed = _as_catalogued(spec)
    return tuple(cell for cell in found if cell.metric in _SHOWN and (as_printed or cell.metric not in RULES))


def _beside(spec: ModelSpec, study: Study, subject: Subject) -> tuple[Cell, ...]:
    """The cells of a subject when it is this network with this attention, else none."""
    known_as = (spec.name, spec.baseline, f"se{spec.name}")
    same = subject.model in known_as and _plainly(spec, study.kind) == subject.attention
    columns = (subject.column, "original") if subject.column == "reimplementation" else (subject.column,)
    return tuple(cell for column in columns if same for cell in cells(study.table, subject.row, column))


def _as_catalogued(spec: ModelSpec) -> bool:
    """Whether everything but the attention is as in the catalog, and so as the paper counts it."""
    row = CATALOG.get(spec.name, spec)
    own = (row.input_size, row.classes, row.cardinality, row.options)
    return (spec.input_size, spec.classes, spec.cardinality, spec.options) == own


def _plainly(spec: ModelSpec, kind: Kind) -> AttentionSpec | None:
    """The attention with two spellings of one block made one; an ablation's FC biases are left open by the paper."""
    attention = spec.attention
    if attention is None:
        return None
    ratios = set(attention.reductions)
    stages = attention.stages
    return replace(
        attention,
        reduction=ratios.pop() if len(ratios) == 1 else attention.reduction,
        stages=None if stages is not None and set(stages) >= set(spec.stages) else stages,
        bias=attention.bias or kind == "ablation",
    )
