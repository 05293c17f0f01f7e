"""The check's table as the user writes it, validated: every mistake is one line that names the key.

The table is `[tool.senet-bench.check]` of pyproject.toml, or the whole of senet-bench.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from senet_bench.core.catalog import CATALOG, normalise, resolve
from senet_bench.core.files import read_file
from senet_bench.core.specs import is_outside
from senet_bench.errors import UsageError, nearest
from senet_bench.regression.config import (
    ALLOCATORS,
    FEWEST_LAUNCHES,
    MOST_LAUNCHES,
    MOST_SECONDS,
    Allowed,
    CheckedNetwork,
    Config,
    Drift,
    PredictionPair,
    Ratio,
    matches,
    meaning,
)
from senet_bench.regression.limits import Limit, judged_metrics, limit_of, usual_limits

DTYPES = ("float32", "float64", "int64", "int32", "bool")
FILES = ("senet-bench.toml", "pyproject.toml")
SECTION = "tool.senet-bench.check"
LARGEST_INPUT = 1e30
LARGEST_CONFIG = 1 << 20
RATIO_METRICS = ("latency", "params", "flops", "memory")
SETTINGS = ("threads", "batch_size", "launches", "allocator", "max_seconds")
KEYS = ("networks", "metrics", "flops_of", *SETTINGS, "gate", "ratio", "predictions", "allow", "drift")


def load_config(path: Path | None = None, folder: Path | None = None, *, optional: bool = False) -> Config:
    """The config in `path`, else in senet-bench.toml or pyproject.toml of `folder` (the current one).

    Where none is there and it is `optional`, that of no network, with the usual limits. Raises `UsageError` that names
    the key at fault, or says where a config is looked for.
    """
    folder = folder or Path()
    candidates = [path] if path is not None else [folder / name for name in FILES if (folder / name).exists()]
    for candidate in candidates:
        table = _table(candidate)
        if table is not None:
            return parse(table, str(candidate), candidate.parent)
    if path is None and optional:
        return Config(source="", networks=(), metrics=("latency",))
    if path is not None:
        raise UsageError(f"{path} has no [{SECTION}]", "add it, with networks = [...]")
    raise UsageError("nothing says what to check", f"add [{SECTION}] to pyproject.toml, or write senet-bench.toml")


def _table(path: Path) -> dict[str, object] | None:
    """The check's table of a TOML file, None where a file has none."""
    data = read_file(path)
    if len(data) > LARGEST_CONFIG:
        raise UsageError(f"{path} has {len(data)} bytes", "a config is a few lines; name the right file")
    try:
        whole = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise UsageError(f"{path} is no TOML ({error})", "correct it") from error
    table: Any = whole
    if "tool" in whole or path.name == "pyproject.toml":
        for key in SECTION.split("."):
            table = table.get(key) if isinstance(table, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{path}: {SECTION} must be a table", f"write [{SECTION}]")
    return table


def parse(table: Mapping[str, object], source: str, folder: Path) -> Config:
    """The config that a table describes; paths in it are relative to `folder`."""
    try:
        return _parsed(table, source, folder)
    except UsageError as error:
        if error.problem.startswith(source):
            raise
        raise UsageError(f"{source}: {error.problem}", error.remedy) from error


def _parsed(table: Mapping[str, object], source: str, folder: Path) -> Config:
    _known(table, KEYS, "")
    flops_of = _flops_of(table)
    networks = tuple(replace(one, flops_of=flops_of) for one in _networks(table.get("networks")))
    names = tuple(one.name for one in networks)
    gate = _a_table(table.get("gate", {}), "gate")
    limits, special = _limits(gate, names)
    return Config(
        source=source,
        networks=networks,
        metrics=_metrics(table.get("metrics", list(judged_metrics()))),
        limits=limits,
        special=special,
        ratios=tuple(_ratio(one, f"ratio[{i}]", names) for i, one in enumerate(_tables(table, "ratio"))),
        predictions=tuple(
            _prediction(one, f"predictions[{i}]", names, folder) for i, one in enumerate(_tables(table, "predictions"))
        ),
        allowed=tuple(_allowed(one, f"allow[{i}]") for i, one in enumerate(_tables(table, "allow"))),
        drift=_drift(table["drift"]) if "drift" in table else None,
        alpha=_number(gate, "alpha", 0.01, "gate.alpha", 0, 0.5),
        budget_s=_number(gate, "budget_s", 1.5, "gate.budget_s", 0, MOST_SECONDS),
        launches=_whole(table, "launches", 5, FEWEST_LAUNCHES, MOST_LAUNCHES),
        max_seconds=_number(table, "max_seconds", 300.0, "max_seconds", 0, MOST_SECONDS * 24),
        threads=_whole(table, "threads", 1, 1, 1024),
        batch_size=_whole(table, "batch_size", 1, 1, 65536),
        allocator=_one_of(table.get("allocator", "as-is"), ALLOCATORS, "allocator"),  # type: ignore[arg-type]
        inconclusive=meaning(gate.get("inconclusive", "warn"), "gate.inconclusive"),
    )


def _flops_of(table: Mapping[str, object]) -> str | None:
    """The import string of formulas for operators that are not counted, None where there are none."""
    if "flops_of" not in table:
        return None
    remedy = 'write flops_of = "package.module:formulas"'
    path = _text(table, "flops_of", "flops_of must be an import string", remedy)
    module, _, name = path.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise UsageError(f"flops_of {path[:60]!r} is no import string", remedy)
    return path


def _networks(listed: object) -> tuple[CheckedNetwork, ...]:
    if not isinstance(listed, list) or not listed:
        raise UsageError(
            "networks must be a list of names", 'write networks = ["seresnet50", "package.module:callable"]'
        )
    networks = [_network(one, f"networks[{i}]") for i, one in enumerate(listed)]
    names = [one.name for one in networks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"networks names {twice} twice", "leave one out")
    return tuple(networks)


def _network(one: object, where: str) -> CheckedNetwork:
    table = {"name": one} if isinstance(one, str) else _a_table(one, where)
    _known(table, ("name", "input_size", "arguments", "inputs"), where)
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where}.name must be a name, not {name!r}", 'use "seresnet50" or "package.module:callable"')
    spec = None if is_outside(name) else _resolved(name, where)
    arguments = _a_table(table.get("arguments", {}), f"{where}.arguments")
    inputs = tuple(_input(one, f"{where}.inputs[{i}]") for i, one in enumerate(_tables(table, "inputs")))
    if inputs and "input_size" in table:
        raise UsageError(f"{where} has input_size and inputs", "leave one of them out")
    if inputs:
        return CheckedNetwork(spec.name if spec else name, (1, 1, 1), arguments, inputs)
    size = table.get("input_size", spec.input_size if spec else (3, 224, 224))
    if not isinstance(size, list | tuple) or len(size) != 3 or not all(_is_side(n, 1 << 16) for n in size):
        raise UsageError(f"{where}.input_size must be three positive integers, not {size!r}", "use [3, 224, 224]")
    return CheckedNetwork(spec.name if spec else name, (size[0], size[1], size[2]), arguments)


def _input(table: Mapping[str, object], where: str) -> dict[str, object]:
    """One input of a network: its shape without the batch, its dtype, the range of its values, its name."""
    _known(table, ("shape", "dtype", "range", "name"), where)
    shape, dtype = table.get("shape"), table.get("dtype", "float32")
    if not isinstance(shape, list) or not all(_is_side(n, 1 << 24) for n in shape):
        raise UsageError(f"{where}.shape must be positive integers, not {shape!r}", "use [128], without the batch")
    _choice(dtype, DTYPES, f"{where}.dtype")
    bounds = table.get("range", [0, 2] if dtype in DTYPES[2:] else [-1.7, 1.7])
    numbers = [one for one in bounds if isinstance(one, int | float)] if isinstance(bounds, list) else []
    if len(numbers) != 2 or not -LARGEST_INPUT <= numbers[0] < numbers[1] <= LARGEST_INPUT:
        raise UsageError(f"{where}.range must be two numbers, not {bounds!r}", "use [0, 1000]: the second is not drawn")
    kept = {"shape": shape, "dtype": dtype, "range": numbers}
    if "name" in table:
        kept["name"] = _text(table, "name", f"{where}.name must be a name", "use that of a parameter of forward")
    return kept


def _is_side(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _resolved(name: str, where: str) -> Any:
    try:
        return resolve(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error.problem}", error.remedy) from error


def _metrics(listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list) or not listed:
        raise UsageError("metrics must be a list", f"choose from {', '.join(judged_metrics())}")
    for name in listed:
        _choice(name, tuple(judged_metrics()), "metrics")
    return tuple(dict.fromkeys(listed))


Special = tuple[str, str, Limit]
"""A limit of some networks: the pattern of their names, the metric, the limit."""


def _limits(gate: Mapping[str, object], names: Sequence[str]) -> tuple[dict[str, Limit], tuple[Special, ...]]:
    """The limits of the metrics and of the patterns in a `gate` table."""
    usual, settings = usual_limits(), ("alpha", "budget_s", "inconclusive")
    known = (*usual, *settings)
    limits = usual | {key: limit_of(key, one, f"gate.{key}", usual[key]) for key, one in gate.items() if key in usual}
    special: list[Special] = []
    for pattern, table in gate.items():
        if pattern in known:
            continue
        where = f"gate.{pattern!r}"
        if not isinstance(table, dict) or any(key in ("max", "min_abs", "max_drop", "test") for key in table):
            _choice(pattern, known, "gate")
        for metric, one in _a_table(table, where).items():
            _choice(metric, tuple(usual), where)
            special.append((pattern, metric, limit_of(metric, one, f"{where}.{metric}", limits[metric])))
        if not any(matches(name, pattern) for name in names):
            raise UsageError(f"{where} matches none of the networks", "correct the pattern or leave it out")
    return limits, tuple(special)


def _ratio(table: Mapping[str, object], where: str, names: Sequence[str]) -> Ratio:
    _known(table, ("network", "baseline", "metric", "max", "min_abs"), where)
    network = _one_of(table.get("network"), names, f"{where}.network")
    spec = CATALOG.get(network)
    baseline = table.get("baseline", spec.baseline if spec else None)
    if not isinstance(baseline, str):
        raise UsageError(f"{where} names no baseline", 'add baseline = "resnet50"')
    baseline = _one_of(baseline, names, f"{where}.baseline")
    if baseline == network:
        raise UsageError(f"{where} compares {network} with itself", 'write baseline = "resnet50"')
    metric = _choice(table.get("metric", "latency"), RATIO_METRICS, f"{where}.metric")
    if "max" not in table:
        raise UsageError(f"{where}.max is missing", 'write max = "+10 %"')
    limits = {key: table[key] for key in ("max", "min_abs") if key in table}
    return Ratio(network, baseline, metric, limit_of(metric, limits, where, Limit()))


def _prediction(table: Mapping[str, object], where: str, names: Sequence[str], folder: Path) -> PredictionPair:
    _known(table, ("network", "base", "head"), where)
    network = _one_of(table.get("network"), names, f"{where}.network")
    remedy = "make it with evaluate --keep-predictions"
    base, head = (_text(table, key, f"{where}.{key} must be the path of a file", remedy) for key in ("base", "head"))
    return PredictionPair(network, folder / base, folder / head)


def _drift(typed: object) -> Drift:
    table = _a_table(typed, "drift")
    _known(table, ("since", "max"), "drift")
    since = _text(table, "since", "drift.since must be a commit or a tag", 'write since = "v1.0"')
    return Drift(since, limit_of("params", {"max": table.get("max", "+5 %")}, "drift", Limit()))


def _allowed(table: Mapping[str, object], where: str) -> Allowed:
    _known(table, ("id", "until", "reason"), where)
    remedy = 'write id = "seresnet50/latency" and reason = "..."'
    row, reason = (_text(table, key, f"{where}.{key} is missing", remedy) for key in ("id", "reason"))
    until = table.get("until")
    if not isinstance(until, date) or isinstance(until, datetime):
        raise UsageError(f"{where}.until must be a day, not {until!r}", "write until = 2026-12-01")
    return Allowed(row, until, reason)


def _text(table: Mapping[str, object], key: str, problem: str, remedy: str) -> str:
    """A text that is not blank; `UsageError` with that problem and remedy for anything else."""
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(problem, remedy)
    return value


def _one_of(name: object, names: Sequence[str], where: str) -> str:
    """A name among the networks, as the networks spell it."""
    match = next((one for one in names if isinstance(name, str) and normalise(one) == normalise(name)), None)
    if match is None:
        raise UsageError(f"{where} {name!r} is not among the networks", f"the networks are {', '.join(names)}")
    return match


def _tables(table: Mapping[str, object], key: str) -> list[dict[str, object]]:
    tables = table.get(key, [])
    if not isinstance(tables, list):
        raise UsageError(f"{key} must be a list of tables", f"write [[{key}]]")
    return [_a_table(one, f"{key}[{i}]") for i, one in enumerate(tables)]


def _a_table(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} must be a table, not {value!r}")
    return value


def _known(table: Mapping[str, object], known: Sequence[str], where: str) -> None:
    for key in table:
        _choice(key, known, where or "the table", "key")


def _choice(value: object, known: Sequence[str], where: str, what: str = "name") -> str:
    """A name among those known; `UsageError` with the nearest ones for another."""
    if not isinstance(value, str) or value not in known:
        hint = nearest(str(value), known, most=1) or f"choose from {', '.join(known)}"
        raise UsageError(f"{where} has the unknown {what} {value!r}", hint)
    return value


def _number(table: Mapping[str, object], key: str, usual: float, where: str, low: float, high: float) -> float:
    value = table.get(key, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise UsageError(f"{where} must lie between {low:g} and {high:g}, not {value!r}", f"use {usual:g}")
    return float(value)


def _whole(table: Mapping[str, object], key: str, usual: int, low: int, high: int) -> int:
    value = table.get(key, usual)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{key} must be an integer from {low} to {high}, not {value!r}", f"use {usual}")
    return value
