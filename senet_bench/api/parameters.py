"""Options as dataclasses: a command takes groups of options, and its command line is the fields of all of them.

A group is a frozen dataclass whose fields are `Annotated` with `typer.Option`; `PANEL` heads them in `--help`. Where a
table has its options, `OPTIONS` holds them by name, and they reach the group's field `values` as a mapping.
`flat` gives the function that Typer is handed: one parameter a field, put together again before the call.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
import typer.core
from typer.models import ParameterInfo

from senet_bench.core.files import kind_of_path

OTHER = "Options"


def flat(command: Callable[..., Any]) -> Callable[..., None]:
    """The command with every parameter that is a group of options replaced by the group's fields.

    A group's default (`timing: Timing = Timing(budget=30.0)`) gives the defaults of its fields.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    fields: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if not dataclasses.is_dataclass(kind):
            fields.append(_parameter(name, kind, parameter.default, OTHER))
            continue
        assert isinstance(kind, type)
        groups[name] = kind
        usual = None if parameter.default is inspect.Parameter.empty else parameter.default
        fields += _fields(kind, usual)

    @functools.wraps(command)
    def called(**values: Any) -> None:
        for value in values.values():
            if isinstance(value, Path):
                kind_of_path(value)  # one that cannot be is refused, whichever option it was
        command(**{name: made(kind, values) for name, kind in groups.items()}, **values)

    called.__signature__ = inspect.Signature(fields)  # type: ignore[attr-defined]
    called.__annotations__ = {field.name: field.annotation for field in fields}
    del called.__wrapped__
    return called


def made(kind: type, values: dict[str, Any]) -> Any:
    """A group of the values of its options, which are taken out of `values`."""
    listed = getattr(kind, "OPTIONS", {})
    names = [field.name for field in dataclasses.fields(kind) if not (listed and field.name == "values")]
    mapping = {"values": {name: values.pop(name) for name in listed}} if listed else {}
    return kind(**{name: values.pop(name) for name in names}, **mapping)


def options_typed(*groups: Any) -> list[str]:
    """The options of some groups that are not as they are by default."""
    names: list[str] = []
    for group in groups:
        for field in dataclasses.fields(group):
            value = getattr(group, field.name)
            if isinstance(value, dict):
                names += [name for name, text in value.items() if text is not None]
            elif value not in (field.default, []):
                names.append(f"no-{field.name}" if field.default is True else field.name)
    return [f"--{name.replace('_', '-')}" for name in names]


def _fields(kind: type, usual: object | None) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    panel = getattr(kind, "PANEL", OTHER)
    listed = getattr(kind, "OPTIONS", {})
    options = [_parameter(name, option, None, panel) for name, option in listed.items()]
    for field in dataclasses.fields(kind):
        if listed and field.name == "values":
            continue
        default = field.default if usual is None else getattr(usual, field.name)
        default = inspect.Parameter.empty if default is dataclasses.MISSING else default
        options.append(_parameter(field.name, hints[field.name], default, panel))
    return options


def _parameter(name: str, kind: Any, default: Any, panel: str) -> inspect.Parameter:
    """A parameter whose option stands under a panel of `--help`."""
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        notes = [_under(note, panel) if isinstance(note, ParameterInfo) else note for note in notes]
        kind = Annotated[(base, *notes)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _under(note: ParameterInfo, panel: str) -> ParameterInfo:
    note = copy.copy(note)
    note.rich_help_panel = note.rich_help_panel or panel
    return note


class Command(typer.core.TyperCommand):
    """A command whose `--help` lists its options under the headings of their panels."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As ever, where older versions of Typer take digits of other scripts and let a required option be missing."""
        parameters: list[Any] = self.get_params(ctx)
        kinds = [(one, getattr(getattr(one, "type", None), "name", "")) for one in parameters]
        whole = {name for one, kind in kinds if "integer" in kind for name in one.opts}
        for option, following in zip(args, [*args[1:], ""]):
            name, equals, value = option.partition("=")
            value = value if equals else following
            if name in whole and not value.isascii():
                raise typer.BadParameter(f"{value[:20]!r} is no whole number", param_hint=name)
        rest: list[str] = super().parse_args(ctx, args)
        missing = [one for one in parameters if one.required and ctx.params.get(one.name, ...) in (None, ())]
        if missing and not ctx.resilient_parsing:
            raise typer.BadParameter("is missing", param_hint=missing[0].opts[0])
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then each panel's options."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                argument = parameter.param_type_name == "argument"
                title = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or OTHER
                panels.setdefault(title, []).append(record)
        for title, records in panels.items():
            with formatter.section(title):
                formatter.write_dl(records)


def choice(*values: str) -> dict[str, Any]:
    """What makes an option take one of some values: `typer.Option(**choice("warn", "fail"))`."""

    def parsed(text: str) -> str:
        if text not in values:
            raise typer.BadParameter(f"{text!r} is none of {', '.join(values)}")
        return text

    return {"parser": parsed, "metavar": f"<{'|'.join(values)}>"}


def read_by(parse: Callable[[str], object], metavar: str = "TEXT") -> dict[str, Any]:
    """What makes an option take the texts that a function can read; it raises `UsageError` on others."""

    def parsed(text: Any) -> str:
        parse(str(text))
        return str(text)

    return {"parser": parsed, "metavar": metavar}


def within(least: float, most: float) -> dict[str, Any]:
    """What makes an option take a number between two bounds, and no `nan`: `typer.Option(**within(0, 1))`."""

    def parsed(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or (isinstance(text, str) and not text.isascii()):
            raise typer.BadParameter(f"{str(text)[:20]!r} is no number from {least:g} to {most:g}")
        return value

    return {"parser": parsed, "metavar": "FLOAT"}
