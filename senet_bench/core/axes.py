"""The axes along which a network's attention is varied: the switches of section 6 of the paper, then the block itself.

To add an axis, write its row in `AXES`; the command line, tables and plots take it from there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from senet_bench.core.blocks import BLOCKS, find_block
from senet_bench.core.files import LONGEST_SHOWN
from senet_bench.core.specs import (
    AttentionSpec,
    AxisValue,
    Excitation,
    Integration,
    OptionValue,
    Placement,
    SqueezeName,
    import_hint,
    is_outside,
)
from senet_bench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Axis:
    """A switch of section 6: its values in the paper's print order, and what a value does to an attention block.

    `table` is the study whose rows the paper's values reproduce, None where the paper has none and `values` are all
    there are here; a value is a plain JSON value or a tuple of integers. `help` says on the command line what a value
    is, and `bare` what is taken where an ablation names the axis alone, the paper's values unless given.
    """

    name: str
    table: str | None
    values: tuple[AxisValue, ...]
    parse_one: Callable[[str], AxisValue]
    switches: Callable[[AxisValue], Mapping[str, Any]]
    help: str
    bare: str = ""

    @property
    def several(self) -> str:
        """The help of the axis in an ablation."""
        return f"{self.help} Bare: {self.bare or ','.join(self.label(value) for value in self.values)}."

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
            hint = next(filter(None, map(import_hint, inside.split(","))), "")
            remedy = (
                f"the paper's values are {shown}"
                if self.table
                else f"{hint} choose from {shown}, or give package.module:Class"
            )
            raise UsageError(f"--{self.name} {_short(text)}: {error}", remedy) from None

    def apply(self, attention: AttentionSpec, value: AxisValue) -> AttentionSpec:
        """`attention` with this axis at `value`; `UsageError` when the combination makes no sense."""
        return replace(attention, **self.switches(value))

    def label(self, value: AxisValue) -> str:
        """A value as it is typed and shown: `16`, `16/16/8/4`, `2+3`, `all`, `true`."""
        if isinstance(value, tuple):
            return ("+" if self.name == "stages" else "/").join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text)):
        raise ValueError(f"{_short(text)!r} is no positive integer")
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
    given = set[str]()
    for option in options:
        key, equals, value = option.partition("=")
        if not (key.isidentifier() and equals and value):
            raise ValueError(f"{option!r} is no option written as name=value")
        if key in given:
            raise ValueError(f"{key} is given twice")
        given.add(key)
    if not is_outside(name):
        name = str(_choice(*BLOCKS)(name))
        find_block(name).check(_options(options))
    return "/".join((name, *options))


def _set_block(value: AxisValue) -> Mapping[str, Any]:
    """The block with its options; the r of a built-in one that takes r is that of every block."""
    name, *texts = str(value).split("/")
    options = _options(texts)
    if is_outside(name) or not find_block(name).reduces:
        return {"block": name, "options": options}
    own = {key: given for key, given in options if key == "reduction"}
    return {"block": name, "options": tuple(one for one in options if one[0] not in own), **own}


def _options(texts: Iterable[str]) -> tuple[tuple[str, OptionValue], ...]:
    pairs = (text.partition("=") for text in texts)
    return tuple((key, _option(value)) for key, _, value in pairs)


def _option(text: str) -> OptionValue:
    """The value an option's text stands for: true, false, an integer, a number, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float) if text.isascii() and "_" not in text else ():
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _set_integration(value: AxisValue) -> Mapping[str, Any]:
    """Another integration than the standard one takes a block out of the branch."""
    return {"integration": value} | ({} if value == "standard" else {"placement": "standard"})


def _set_no_squeeze(value: AxisValue) -> Mapping[str, Any]:
    return {"squeeze": "none"} if value else {}


def _row(name: str, table: int | None, help: str, values: tuple[AxisValue, ...], **how: Any) -> Axis:  # noqa: A002
    return Axis(name=name, table=f"table{table}" if table else None, help=help, values=values, **how)


def _of(kind: Any) -> Callable[[str], AxisValue]:
    """Takes one of the values of a Literal."""
    return _choice(*get_args(kind))


_ROWS = (
    _row(
        "reduction",
        10,
        "r, or one r a stage: 16/16/8/4.",
        (2, 4, 8, 16, 32),
        parse_one=_reduction,
        switches=_set("reduction"),
    ),
    _row("squeeze", 11, "avg, max or none.", ("max", "avg"), parse_one=_of(SqueezeName), switches=_set("squeeze")),
    _row(
        "excitation",
        12,
        "sigmoid, tanh or relu.",
        ("relu", "tanh", "sigmoid"),
        parse_one=_of(Excitation),
        switches=_set("excitation"),
    ),
    _row(
        "stages",
        13,
        "Stages with attention: 2+3, or all.",
        (2, 3, 4, "all"),
        parse_one=_stages,
        switches=_set_stages,
    ),
    _row(
        "integration",
        14,
        "standard, pre, post or identity.",
        ("standard", "pre", "post", "identity"),
        parse_one=_of(Integration),
        switches=_set_integration,
    ),
    _row(
        "placement",
        15,
        "standard or 3x3.",
        ("standard", "3x3"),
        parse_one=_of(Placement),
        switches=_set("placement"),
    ),
    _row(
        "no-squeeze",
        16,
        "Whether the squeeze is left out: true or false.",
        (True, False),
        parse_one=_flag,
        switches=_set_no_squeeze,
    ),
    _row(
        "attention",
        None,
        "A block: eca, cbam, ..., or package.module:Class.",
        tuple(BLOCKS),
        parse_one=_block,
        switches=_set_block,
        bare="every built-in block",
    ),
)

AXES: dict[str, Axis] = {axis.name: axis for axis in _ROWS}
"""Every axis of `ablate`: the switches of the SE block in print order of the paper's tables, then the block itself."""


def switches_at(setting: Mapping[str, AxisValue]) -> dict[str, Any]:
    """What a setting on the axes sets; `UsageError` where it names a squeeze and leaves it out, or gives r twice."""
    squeeze, no_squeeze = setting.get("squeeze"), setting.get("no-squeeze")
    if None not in (squeeze, no_squeeze) and (squeeze == "none") is not no_squeeze:
        words = f"squeeze {squeeze} and no-squeeze {AXES['no-squeeze'].label(bool(no_squeeze))}"
        raise UsageError(f"{words} exclude each other", "choose one of them")
    block = str(setting.get("attention", ""))
    if "reduction" in setting and "/reduction=" in block:
        words = f"reduction {AXES['reduction'].label(setting['reduction'])} and attention {block}"
        raise UsageError(f"{words} exclude each other", "give r once")
    switches: dict[str, Any] = {}
    for name, value in setting.items():
        switches |= AXES[name].switches(value)
    return switches


def setting_label(axes: Mapping[str, AxisValue]) -> str:
    """A setting on the axes in a few words."""
    return ", ".join(
        f"{name}={AXES[name].label(value)}" if name in AXES else f"{name}={value}" for name, value in axes.items()
    )
