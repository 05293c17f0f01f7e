"""Options of what is built: sizes, attention and its switches, axes, partners."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from senet_bench.api.options import (
    MOST_CHANNELS,
    MOST_CLASSES,
    PAPER_VALUE,
    Attach,
    ImageSide,
    InputShape,
    Replace,
    _sides,
)
from senet_bench.core import specs
from senet_bench.core.axes import AXES, switches_at
from senet_bench.core.specs import AxisValue, ModelSpec, is_outside
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.run.cases import Changes, Reference


def groups_option(panel: str) -> Any:
    """`--cardinality` in a panel of the help."""
    about = "Groups C of ResNeXt-like networks."
    return typer.Option("--cardinality", min=1, max=MOST_CHANNELS, help=about, rich_help_panel=panel)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is changed in every network: images, classes, channels, groups."""

    PANEL: ClassVar[str] = "What is built"
    img_size: ImageSide = None
    input_size: InputShape = None
    classes: Annotated[int | None, typer.Option("--classes", min=1, max=MOST_CLASSES, help="Number of classes.")] = None
    in_channels: Annotated[
        int | None, typer.Option("--in-channels", min=1, max=MOST_CHANNELS, help="Input channels.")
    ] = None
    cardinality: Annotated[int | None, groups_option(PANEL)] = None

    def changes(self, switches: Mapping[str, Any] | None = None) -> Changes:
        """The changes, with attention switches where there are any."""
        from senet_bench.run.cases import Changes

        size = _sides(self.input_size, {"--img-size": self.img_size, "--in-channels": self.in_channels})
        return Changes(self.img_size, self.classes, self.in_channels, self.cardinality, switches or {}, input_size=size)


def axis_options(names: Iterable[str], *, several: bool) -> dict[str, Any]:
    """An option for each axis, by the name of its parameter: one value, or several."""
    made: dict[str, Any] = {}
    for name in names:
        flags = [f"--{name}"] if several or name != "reduction" else ["-r", f"--{name}"]
        text = AXES[name].several if several else AXES[name].help
        made[name.replace("-", "_")] = Annotated[str | None, typer.Option(*flags, help=text)]
    return made


@dataclass(frozen=True, slots=True)
class Switches:
    """The attention that networks are built with, one value a switch; `values` are those typed, None elsewhere."""

    PANEL: ClassVar[str] = "What is built"
    OPTIONS: ClassVar[dict[str, Any]] = axis_options((name for name in AXES if name != "no-squeeze"), several=False)
    values: dict[str, str | None] = field(default_factory=dict)
    attach: Attach = False
    replace: Replace = False
    fc_bias: Annotated[bool, typer.Option("--fc-bias/--no-fc-bias", help="Biases in the FCs.")] = True

    def typed(self) -> dict[str, Any]:
        """The switches of the attention that were typed."""
        return switches_of(self.values) | ({} if self.fc_bias else {"bias": False})

    def named(self, names: Sequence[str] | None) -> list[str]:
        """The networks' names; those from outside with attention attached where that is asked for."""
        return [attached_name(name, attach=self.attach, replace=self.replace) for name in names or ()]

    def network(
        self, model: str, img_size: int | None, size: str | None = None, cardinality: int | None = None
    ) -> ModelSpec:
        """One network so built; `UsageError` on switches that would change nothing in it."""
        from senet_bench.run.cases import Changes, check_switched, spec_of

        typed, (name,) = self.typed(), self.named([model])
        sides = _sides(size, {"--img-size": img_size})
        spec = spec_of(name, Changes(img_size=img_size, cardinality=cardinality, attention=typed, input_size=sides))
        check_switched(spec, typed)
        return spec


def attached_name(name: str, *, attach: bool, replace: bool) -> str:
    """The name of a network from outside with attention put in as asked; a network of the catalog keeps its own."""
    if attach and replace:
        raise UsageError("--attach and --replace exclude each other", "leave one out")
    ending = specs.REPLACE if replace else specs.ATTACH if attach else ""
    return f"{name}{ending}" if is_outside(name) and specs.bare_name(name) == name else name


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of an ablation, each with several values; without a value an axis takes the paper's."""

    PANEL: ClassVar[str] = "What is varied"
    OPTIONS: ClassVar[dict[str, Any]] = axis_options(AXES, several=True)
    values: dict[str, str | None] = field(default_factory=dict)
    attach: Attach = False
    replace: Replace = False

    def named(self, model: str) -> str:
        """The network's name; that of one from outside says whether its own attention is replaced."""
        return attached_name(model, attach=self.attach, replace=self.replace)

    def chosen(self) -> dict[str, str | None]:
        """The axes that were typed, with their values, None for the paper's."""
        typed = {name.replace("_", "-"): text for name, text in self.values.items() if text is not None}
        return {name: None if text == PAPER_VALUE else text for name, text in typed.items()}


@dataclass(frozen=True, slots=True)
class Partners:
    """What the networks of a comparison are compared with."""

    PANEL: ClassVar[str] = Switches.PANEL
    pair: Annotated[bool, typer.Option("--pair", help="Compare the networks as named with the first of them.")] = False
    alone: Annotated[bool, typer.Option("--alone", help="The networks as named, without partners.")] = False
    only: Annotated[
        str | None,
        typer.Option("--only", help="Only networks whose name, label or printed row matches: 'ResNet-110*'."),
    ] = None

    def reference(self) -> Reference:
        """What each network is compared with."""
        if self.pair and self.alone:
            raise UsageError("--pair and --alone exclude each other", "leave one out")
        return "first" if self.pair else "none" if self.alone else "partner"


def switches_of(typed: dict[str, str | None]) -> dict[str, Any]:
    """The attention switches that were typed, one value each."""
    setting: dict[str, AxisValue] = {}
    for name, text in typed.items():
        if text is not None:
            values = AXES[name].parse(text)
            if len(values) > 1:
                raise UsageError(f"--{name} {text} names {len(values)} values", "use `ablate` for more than one")
            setting[name] = values[0]
    return switches_at(setting)
