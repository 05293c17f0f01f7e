"""`compare`, `ablate` and `profile` as functions: the commands' own, whose options are their arguments."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from senet_bench.api.result import Result, Stored
from senet_bench.cli import compare as comparing
from senet_bench.cli import options as o
from senet_bench.cli import profile as profiling
from senet_bench.cli.parameters import flat, made
from senet_bench.cli.showing import Showing
from senet_bench.core.axes import AXES
from senet_bench.core.given import block_string, import_string
from senet_bench.core.progress import Steps, result_of
from senet_bench.core.store import Store
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.show.tables import Document

PRINTED = ("format", "output", "quiet", "no_progress", "dry_run")
"""Options of the command line that a function has no use for."""


ABOUT = """names, or from Python classes and instances: an `nn.Module`, or what makes one,
from images (N, C, H, W) to logits (N, classes); `attention` a block from (N, C, H, W) to the same.
Times come back in seconds, sizes in bytes, errors as fractions with 95 % intervals. Raises
`senet_bench.errors.UsageError` for what is not there or does not fit, `MeasurementError` where nothing
could be measured; single failures are in the result's `failures`."""


@dataclass(frozen=True, slots=True)
class _Caught(Showing):
    """Takes what a command would print."""

    documents: list[Document] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    def follow(self, steps: Steps[Any]) -> Any:
        """The result, with no progress drawn."""
        return result_of(steps)

    def emit(self, document: Document) -> None:
        """Keep the document."""
        self.documents.append(document)

    def stored(self, path: Path) -> None:
        """Keep the path."""
        self.paths.append(path)


def _function(command: Callable[..., None], first: str) -> Callable[..., Result]:
    """A command as a function of the same name: its argument or arguments, then its options by their names."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
    options = {name: one for name, one in inspect.signature(flat(command)).parameters.items() if name not in PRINTED}
    several = first == "what"

    def call(*arguments: Any, **given: Any) -> Result:
        for name in given.keys() - options.keys():
            raise TypeError(f"{command.__name__}() has no option {name!r}; its options: {', '.join(options)}")
        values = {name: option.default for name, option in options.items()}
        values |= {name: _typed(name, value, options[name]) for name, value in given.items()}
        if several:
            values["what"] = [import_string(one) for one in arguments] or values["what"]
        elif arguments:
            values[first] = import_string(arguments[0])
        caught = _Caught(results=Path(values.pop("results")))
        failures: tuple[str, ...] = ()
        named = {name: made(kind, values) for name, kind in groups.items() if not issubclass(kind, Showing)}
        try:
            command(**named, **{name: values[name] for name in values if name in hints}, showing=caught)
        except MeasurementError as error:
            if not caught.documents:
                raise
            failures = (str(error),)
        document = caught.documents[-1]
        path = caught.paths[-1] if caught.paths else None
        return Result(document.wide, document.records, document, path, failures)

    call.__name__ = call.__qualname__ = command.__name__
    call.__doc__ = _help(command, options, first)
    kind = inspect.Parameter.VAR_POSITIONAL if several else inspect.Parameter.POSITIONAL_OR_KEYWORD
    shown = [inspect.Parameter(first, kind)] + [
        option.replace(annotation=_plain(option.annotation)) for name, option in options.items() if name != first
    ]
    call.__signature__ = inspect.Signature(shown, return_annotation=Result)  # type: ignore[attr-defined]
    return call


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _help(command: Callable[..., None], options: Mapping[str, inspect.Parameter], first: str) -> str:
    lines = [command.__doc__ or "", "", f"`{first}`: {ABOUT}", ""]
    for name, option in options.items():
        notes = get_args(option.annotation)[1:] if get_origin(option.annotation) is Annotated else ()
        told = next((note.help for note in notes if getattr(note, "help", None)), "")
        if name != first:
            lines.append(
                f"{name}: {told}" + ("" if option.default in (None, False) else f" Default: {option.default}.")
            )
    return "\n".join(lines)


def _typed(name: str, value: Any, option: inspect.Parameter) -> Any:
    """An argument as its option takes it: lists joined by commas, numbers as text where text is wanted."""
    if name == "attention":
        listed = value if isinstance(value, list | tuple) else [value]
        return ",".join(block_string(one) for one in listed)
    if name.replace("_", "-") in AXES and value is True and name != "no_squeeze":
        return o.PAPER_VALUE
    if name == "label" and isinstance(value, Mapping):
        return [f"{key}={text}" for key, text in value.items()]
    kinds = (_plain(option.annotation), *get_args(_plain(option.annotation)))
    if str in kinds and not isinstance(value, str | None):
        parts = value if isinstance(value, list | tuple) else [value]
        return ",".join("/".join(map(str, part)) if isinstance(part, tuple) else str(part).lower() for part in parts)
    return Path(value) if Path in kinds and isinstance(value, str) else value


compare = _function(comparing.compare, "what")
ablate = _function(comparing.ablate, "model")
profile = _function(profiling.profile, "model")


def load(results: str | Path = "results") -> Stored:
    """What is stored in a results folder, all runs together: tables of errors by protocol, of times by machine.

    Raises `senet_bench.errors.UsageError` where nothing is stored.
    """
    from senet_bench.gallery.collection import gather
    from senet_bench.gallery.tables import error_tables
    from senet_bench.show.measurements import latency_table
    from senet_bench.show.networks import network_table, record

    root = Path(results)
    collection = gather(root, Store(root).survey())
    if not collection.sources:
        raise UsageError(f"no runs are stored under {root}", "run `senet-bench compare` first")
    rows = tuple(collection.rows("compare", "ablate"))
    times = (latency_table(timed.rows, name=lambda row: row.label) for timed in collection.timings)
    tables = [table for _, table in error_tables(collection)] + [table for table in times if table]
    counted = [network_table("Networks", rows)] if rows else []
    errors = tuple(collection.errors)
    joined = [row for one in errors for row in one.rows]
    others = [row for row in rows if row.accuracy is None]
    return Stored(
        tables=(*tables, *counted),
        records=tuple(map(record, [*joined, *others])),
        rows=rows,
        errors=errors,
        timings=tuple(collection.timings),
        ablations=tuple(collection.ablations),
        left_out=tuple(one.path for one in collection.left_out),
    )
