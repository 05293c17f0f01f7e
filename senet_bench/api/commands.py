"""The commands with the options of the command line as their arguments, and `load`."""

from __future__ import annotations

import dataclasses
import inspect
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from senet_bench.api import (
    checking,
    comparison,
    evaluation,
    excitation,
    freezing,
    probing,
    profiling,
    reporting,
    training,
)
from senet_bench.api import options as o
from senet_bench.api.parameters import flat, made
from senet_bench.api.result import Result, Stored
from senet_bench.core.axes import AXES
from senet_bench.core.given import block_string, import_string
from senet_bench.core.store import Store
from senet_bench.errors import UsageError

Returned = TypeVar("Returned", bound=Result)
ABOUT = """names, or from Python classes and instances: an `nn.Module`, or what makes one,
from images (N, C, H, W) to logits (N, classes); `attention` a block from (N, C, H, W) to the same.
Times come back in seconds, sizes in bytes, errors as fractions with 95 % intervals. Raises
`senet_bench.errors.UsageError` for what is not there or does not fit, `MeasurementError` where nothing
could be measured; single failures are in the result's `failures`."""


KINDS: dict[type, tuple[type, str]] = {
    int: (numbers.Integral, "whole number"),
    float: (numbers.Real, "number"),
    bool: (bool, "truth value"),
    str: (str, "text"),
    Path: (Path, "path"),
}
"""Plain values of options, and what each is called."""
TAKEN: dict[str, Callable[[Any], Any]] = {"what": import_string, "blocks": block_string, "folders": Path}
"""Arguments of which there may be several, and how each is taken."""


def _function(command: Callable[..., Returned], first: str | None = None) -> Callable[..., Returned]:
    """A function of groups of options as one of their options: its argument or arguments first, then by name."""
    hints = {name: kind for name, kind in get_type_hints(command, include_extras=True).items() if name != "return"}
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
    options = {name: one for name, one in inspect.signature(flat(command)).parameters.items() if name != "watch"}
    several = first is not None and (first in TAKEN or get_origin(_plain(hints[first])) is list)
    taken: Callable[[Any], Any] = TAKEN[first] if first in TAKEN else import_string  # noqa: SIM401 - mypy

    def call(*arguments: Any, **given: Any) -> Returned:
        for name in given.keys() - options.keys():
            raise TypeError(f"{command.__name__}() has no option {name!r}; its options: {', '.join(options)}")
        positional = _by_name(command.__name__, first, arguments, several=several)
        if first in given.keys() & positional:
            raise TypeError(f"{command.__name__}() is given {first} twice, by name too")
        values = {name: option.default for name, option in options.items()}
        for name, value in (given | positional).items():
            if name == first and several:
                values[name] = [taken(one) for one in _listed(value)] or values[name]
            elif value is not None:  # which leaves an option out
                usual = options[name]
                values[name] = taken(value) if name == first else _checked(name, _typed(name, value, usual), usual)
        missing = [name for name, value in values.items() if value is inspect.Parameter.empty]
        if missing:
            raise TypeError(f"{command.__name__}() needs {', '.join(missing)}")
        named = {name: made(kind, values) for name, kind in groups.items()}
        return command(**named, **values)

    call.__name__ = call.__qualname__ = command.__name__
    call.__doc__ = _help(command, options, first)
    kind = inspect.Parameter.VAR_POSITIONAL if several else inspect.Parameter.POSITIONAL_OR_KEYWORD
    shown = [inspect.Parameter(first, kind)] if first else []
    shown += [option.replace(annotation=_plain(option.annotation)) for name, option in options.items() if name != first]
    call.__signature__ = inspect.Signature(shown, return_annotation=get_type_hints(command)["return"])  # type: ignore[attr-defined]
    return call


def _by_name(command: str, first: str | None, arguments: Sequence[Any], *, several: bool) -> dict[str, Any]:
    """What is given without a name, under the name of what comes first; `TypeError` for more than that."""
    if not arguments:
        return {}
    if first is None:
        raise TypeError(f"{command}() takes options by name alone")
    if len(arguments) > 1 and not several:
        raise TypeError(f"{command}() takes one {first}, and options by name")
    return {first: arguments if several else arguments[0]}


def _listed(given: Any) -> Iterator[Any]:
    """One thing, or those of a list or of several lists; None is nothing."""
    if isinstance(given, list | tuple):
        for one in given:
            yield from _listed(one)
    elif given is not None:
        yield given


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _help(command: Callable[..., Any], options: Mapping[str, inspect.Parameter], first: str | None) -> str:
    about = "results folders; one alone is rebuilt, several stand side by side" if first == "folders" else ABOUT
    lines = [command.__doc__ or "", "", f"`{first}`: {about}" if first else "", ""]
    for name, option in options.items():
        notes = get_args(option.annotation)[1:] if get_origin(option.annotation) is Annotated else ()
        text = next((note.help for note in notes if getattr(note, "help", None)), "")
        if name != first:
            lines.append(
                f"{name}: {text}" + ("" if option.default in (None, False) else f" Default: {option.default}.")
            )
    return "\n".join(lines)


def _typed(name: str, value: Any, option: inspect.Parameter) -> Any:
    """An argument as its option takes it: lists joined by commas, numbers as text where text is wanted."""
    axis = AXES.get(name.replace("_", "-"))
    if axis and value is True and name != "no_squeeze":
        return o.PAPER_VALUE
    if name == "attention":
        listed = value if isinstance(value, list | tuple) else [value]
        return ",".join(block_string(one) for one in listed)
    if name == "label" and isinstance(value, Mapping):
        return [f"{key}={text}" for key, text in value.items()]
    kinds = (_plain(option.annotation), *get_args(_plain(option.annotation)))
    parts = value if isinstance(value, list | tuple) else [value]
    if any(get_origin(kind) is list for kind in kinds):
        return [str(part) for part in parts]
    if str in kinds and not isinstance(value, str):
        return ",".join(axis.label(part) if axis else _text(part) for part in parts)
    return Path(value) if Path in kinds and isinstance(value, str) else value


def _checked(name: str, value: Any, option: inspect.Parameter) -> Any:
    """The value as the command line reads it; `UsageError` where its option takes no such one."""
    notes = get_args(option.annotation)[1:] if get_origin(option.annotation) is Annotated else ()
    parser = next((note.parser for note in notes if getattr(note, "parser", None)), None)
    if value is option.default or value == option.default:
        return value
    if parser is None:
        _check_kind(name, value, _plain(option.annotation))
        _check_bounds(name, value, notes)
        return value
    try:
        return [parser(part) for part in value] if isinstance(value, list) else parser(value)
    except typer.BadParameter as error:
        raise UsageError(f"{name}: {error.message}") from error


def _check_kind(name: str, value: Any, annotation: Any) -> None:
    """Raise `UsageError` where an option of plain values is given one of another kind."""
    either = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = [kind for kind in either if kind in KINDS]
    whole = isinstance(value, bool) and bool not in kinds  # which Python takes for a number
    if kinds and (whole or not any(isinstance(value, KINDS[kind][0]) for kind in kinds)):
        raise UsageError(f"{name} {value!r} is no {KINDS[kinds[0]][1]}", "give one")


def _check_bounds(name: str, value: Any, notes: tuple[Any, ...]) -> None:
    """Raise `UsageError` where a number is outside of the bounds that its option has on the command line."""
    for note in notes:
        least, most = getattr(note, "min", None), getattr(note, "max", None)
        if (least is not None and value < least) or (most is not None and value > most):
            raise UsageError(f"{name} {value} is not between {least} and {most}", "give one that is")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


compare = _function(comparison.compare, "what")
ablate = _function(comparison.ablate, "model")
train = _function(training.train, "model")
evaluate = _function(evaluation.evaluate, "model")
profile = _function(profiling.profile, "model")
probe = _function(probing.probe, "blocks")
freeze = _function(freezing.freeze, "model")
excitations = _function(excitation.excitations, "model")
check = _function(checking.check)
report = _function(reporting.report, "folders")


def load(results: str | Path = "results") -> Stored:
    """What is stored in a results folder, all runs together: tables of errors by protocol, of times by machine.

    Raises `senet_bench.errors.UsageError` where nothing is stored; where nothing of it can be read, an error that
    names every file.
    """
    from senet_bench.gallery.report import held
    from senet_bench.gallery.tables import error_tables, time_table
    from senet_bench.show.networks import network_table
    from senet_bench.show.records import records

    collection = held(Store(Path(results)))
    rows = tuple(collection.rows("compare", "ablate"))
    times = (time_table(collection, timed) for timed in collection.timings)
    tables = [table for _, table in error_tables(collection)] + [table for table in times if table]
    counted = [network_table("Networks", rows)] if rows else []
    errors = tuple(collection.errors)
    joined = [row for one in errors for row in one.rows]
    others = [row for row in rows if row.accuracy is None]
    return Stored(
        tables=(*tables, *counted),
        records=tuple(line for row in (*joined, *others) for line in records(row)),
        rows=rows,
        errors=errors,
        timings=tuple(collection.timings),
        ablations=tuple(runs.together() for runs in collection.ablations),
        left_out=tuple(one.path for one in collection.left_out),
    )
