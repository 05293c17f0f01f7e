"""Wider and deeper forms of a network, by name: `resnet50@width=1.05` and `resnet50@depth=1`.

They are what a network's cost could be spent on instead of attention. Width multiplies the channels of every stage,
rounded to whole channels; depth adds units to the stage that has most of them, the first of equals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from senet_bench.core.specs import ModelSpec
from senet_bench.errors import UsageError

WIDEST, DEEPEST = 4.0, 64


def resized(spec: ModelSpec, size: str) -> ModelSpec:
    """The row of a network in another size, `width=1.05` or `depth=1`; its baseline is named in that size too.

    Raises `UsageError` for another form, and for a network whose builder has no such size. The row's `params` are
    those of the network as catalogued.
    """
    what, _, text = size.partition("=")
    number = _number(text)
    if what == "width" and 1 <= number <= WIDEST:
        label = f"{spec.label} {number:g}x wide"
    elif what == "depth" and number in range(1, DEEPEST + 1):
        label = f"{spec.label} + {number:g} unit{'s' * (number > 1)}"
    else:
        raise UsageError(f"{spec.name} has no size {size!r}", "write @width=1.05 or @depth=1, no smaller than it is")
    size = f"{what}={number:g}"
    return replace(
        spec,
        name=f"{spec.name}@{size}",
        label=label,
        options={**spec.options, **_changed(spec, what, number)},
        baseline=spec.baseline and f"{spec.baseline}@{size}",
    )


def sizes_of(spec: ModelSpec) -> tuple[str, ...]:
    """Which of `width` and `depth` a network can be built with."""
    return tuple(what for what, known in FORMS.items() if _option(spec, known))


def _number(text: str) -> float:
    plain = text.replace(".", "", 1)
    return float(text) if plain.isascii() and plain.isdigit() else 0.0


def _scaled(channels: tuple[int, ...], width: float) -> tuple[int, ...]:
    return tuple(int(each * width + 0.5) for each in channels)


def _more(units: tuple[int, ...], number: int) -> tuple[int, ...]:
    place = units.index(max(units))
    return tuple(each + number * (index == place) for index, each in enumerate(units))


FORMS: dict[str, dict[str, Callable[[Any, float], dict[str, Any]]]] = {
    "width": {
        "layers": lambda _, width: {"width": width},
        "outputs": lambda outputs, width: {"outputs": _scaled(outputs, width)},
    },
    "depth": {
        "layers": lambda layers, number: {"layers": _more(layers, int(number))},
        "depths": lambda depths, number: {"depths": _more(depths, int(number))},
        "units": lambda units, number: {"units": units + int(number)},  # as this family counts: in every stage
    },
}
"""By what is changed and the option of a builder: what that option becomes."""


def _option(spec: ModelSpec, known: dict[str, Any]) -> str | None:
    """The option of a network's builder that a size changes."""
    if "random_backward" in spec.options:  # Shake-Shake: widths and units are tied to its regularisation
        return None
    return next((name for name in known if name in spec.options), None)


def _changed(spec: ModelSpec, what: str, by: float) -> dict[str, Any]:
    option = _option(spec, FORMS[what])
    if option is None:
        raise UsageError(f"{spec.name} has no other {what} here", "resnet, resnext and CIFAR networks have")
    return FORMS[what][option](spec.options[option], by)
