"""Whatever lies in a file or is typed ends in a result or in one line with its exit code, never in an internal error.

The quick profile tries a few derandomised examples, the slow one about two minutes of random ones. What either of
them found stands in the tables below as a case.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from senet_bench.cli import app as application
from senet_bench.core.results import from_json
from senet_bench.core.schemas import DOCUMENT_KINDS
from senet_bench.core.specs import LARGEST_NUMBER
from senet_bench.core.store import TRIAL, Store, TrialStore
from senet_bench.errors import BenchError, NotComparableError, UsageError
from senet_bench.gallery import report
from senet_bench.regression.baselines import (
    MACHINE,
    PORTABLE,
    Baselines,
    MachineBaseline,
    PortableBaseline,
    StoredFacts,
)
from senet_bench.regression.configfile import load_config
from senet_bench.regression.record import recorded_document
from senet_bench.show import chart, terminal
from senet_bench.show.tables import of_tables
from senet_bench.show.writers import FORMATS, render
from tests.support.strategies import NAMES, cut, damaged, of_kind, toml, written
from tests.test_parameters import ARGUMENTS, BAD, BegunError, commands, ended

QUICK = settings(max_examples=10, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck])
SLOW = settings(QUICK, max_examples=150, derandomize=False, print_blob=True)
PROFILES = pytest.mark.parametrize(
    "profile", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "slow"]
)
DOCUMENTS = {schema: of_kind(pkgutil.resolve_name(name), schema) for schema, name in DOCUMENT_KINDS.items()}
CONFIG = {
    "networks": [
        "seresnet20_cifar",
        "resnet20_cifar",
        {"name": "m:Net", "arguments": {"width": 32}, "inputs": [{"shape": [4], "dtype": "int64", "range": [0, 9]}]},
        {"name": "m:Other", "input_size": [3, 32, 32]},
    ],
    "metrics": ["params", "latency", "accuracy"],
    "launches": 7,
    "threads": 1,
    "batch_size": 2,
    "max_seconds": 60,
    "allocator": "as-is",
    "gate": {
        "alpha": 0.02,
        "budget_s": 3,
        "inconclusive": "pass",
        "latency": {"max": "+2.5 %", "min_abs": "20 us"},
        "memory": {"max": "256 KiB"},
        "accuracy": {"max_drop": "0.3 pt", "test": "mcnemar"},
        "se*": {"params": {"max": "any"}},
    },
    "ratio": [{"network": "seresnet20_cifar", "metric": "flops", "max": "+1 %"}],
    "predictions": [{"network": "seresnet20_cifar", "base": "a.npz", "head": "b.npz"}],
    "allow": [{"id": "seresnet20_cifar/latency", "until": date(2027, 1, 1), "reason": "x"}],
    "drift": {"since": "v1.0", "max": "+5 %"},
}

T = TypeVar("T")
LONGEST_LINE = 2000
FACTS = StoredFacts(input_size=(3, 8, 8), params={"fc.weight": 10}, flops={"linear": 10}, state={}, operators={})


def tried(profile: settings, strategy: st.SearchStrategy[Any], attempt: Callable[[Any], None]) -> None:
    """Try what a strategy makes."""
    profile(given(strategy)(attempt))()


def files(documents: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Files of sound documents, of damaged ones, and damaged files."""
    trees = documents | documents.flatmap(damaged)
    return trees.map(written) | trees.map(written).flatmap(cut)


def answered(action: Callable[[], T], name: str) -> T | None:
    """What an action gives back, None where it is refused in one line that names the file; anything else is raised."""
    try:
        return action()
    except (UsageError, NotComparableError) as error:
        if is_clear(error, name):
            return None
        raise


def is_clear(error: BenchError, name: str) -> bool:
    """Whether an error is one line of a bearable length that names the file."""
    return name in str(error) and "\n" not in str(error) and len(str(error)) < LONGEST_LINE


@PROFILES
@pytest.mark.parametrize("schema", DOCUMENTS)
def test_a_stored_document_is_read_or_refused_by_its_name(schema: str, profile: settings) -> None:
    def attempt(data: bytes) -> None:
        answered(lambda: from_json(data, "a file"), "a file")

    tried(profile, files(DOCUMENTS[schema]), attempt)


@PROFILES
def test_a_report_shows_what_is_stored_or_names_it_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: settings
) -> None:
    monkeypatch.setattr(chart, "files_of", lambda *_: iter(()))  # drawing has its own tests
    folder = tmp_path / "runs" / "aaaaaaaaaaaa"
    folder.mkdir(parents=True)

    def attempt(stored: list[bytes]) -> None:
        for path in folder.iterdir():
            path.unlink()
        for number, data in enumerate(stored):
            (folder / f"20261121T00000{number}Z-compare-{number:06x}.json").write_bytes(data)
        found = report.read_gallery(Store(tmp_path))
        places = [source.path for source in found.collection.sources] + [one.path for one in found.collection.left_out]
        assert len(places) == len(stored)
        assert all(is_clear(one.error, one.path.rpartition("/")[2]) for one in found.collection.left_out)
        assert all(render(of_tables("report", found.summary), form) for form in FORMATS)
        assert len(list(report.write_gallery(found, tmp_path))) == len(found.files)

    few = settings(profile, max_examples=2 if profile is QUICK else 60)
    tried(few, st.lists(files(st.one_of(*DOCUMENTS.values())), min_size=1, max_size=4), attempt)


@PROFILES
def test_a_stored_trial_is_read_or_refused_by_its_name(tmp_path: Path, profile: settings) -> None:
    path = tmp_path / "0123456789abcdef.json"

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        answered(lambda: TrialStore(tmp_path).get(path.stem), path.name)

    result = {"top1_err": 0.1, "seconds": 2.0, "model": "seresnet20_cifar", "seed": 0, "attention": {"block": "se"}}
    trial = {"schema": TRIAL, "key": path.stem, "definition": {"model": "seresnet20_cifar"}, "result": result}
    tried(profile, files(st.just(trial)), attempt)


@PROFILES
@pytest.mark.parametrize("name", ["portable", "machine", "history"])
def test_recorded_facts_are_shown_or_refused_by_their_name(tmp_path: Path, name: str, profile: settings) -> None:
    kept = Baselines(tmp_path)
    machine = kept.here().machine
    line = {"id": "a:params", "who": "x", "when": "2026", "commit": "c", "old": 1, "new": 2, "reason": "why"}
    kinds: dict[str, tuple[Path, st.SearchStrategy[Any]]] = {
        "portable": (kept.portable_path, of_kind(PortableBaseline, PORTABLE)),
        "machine": (
            kept.machine_path(machine),
            of_kind(MachineBaseline, MACHINE).map(lambda one: {**one, "machine": machine}),
        ),
        "history": (kept.history_path, st.just(line)),
    }
    path, documents = kinds[name]
    if name != "portable":
        kept.write(PortableBaseline(networks={"m:Net": FACTS}))

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        shown = answered(lambda: recorded_document(kept), path.name)
        assert shown is None or all(render(shown, form) for form in FORMATS)

    tried(profile, files(documents), attempt)


@PROFILES
def test_a_configuration_is_taken_with_finite_limits_or_refused_by_its_name(tmp_path: Path, profile: settings) -> None:
    path = tmp_path / "senet-bench.toml"

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        config = answered(lambda: load_config(path), path.name)
        limits = [] if config is None else [*config.limits.values(), *(limit for _, _, limit in config.special)]
        assert all(limit.margin(1e6) < LARGEST_NUMBER for limit in limits)

    tables = st.just(CONFIG) | st.just(CONFIG).flatmap(damaged)
    tried(profile, tables.map(toml) | tables.map(toml).flatmap(cut), attempt)


def _lines() -> st.SearchStrategy[list[str]]:
    """Command lines: a command, and some of its options with bad and sound values."""
    lines = []
    group: Any = typer.main.get_command(application)
    for names, command in commands(group):
        known = [one for one in command.params if one.param_type_name == "option" and "--help" not in one.opts]
        values = st.sampled_from((*BAD, *NAMES, "1", "2", "se", "digits", "x.txt"))
        parts = [
            st.just([one.opts[-1]]) if one.is_flag else st.tuples(st.just(one.opts[-1]), values).map(list)
            for one in known
        ]
        given = st.just([*names, *ARGUMENTS.get(names[0], "").split()])
        chosen = st.lists(st.one_of(parts), max_size=4).map(lambda parts: [text for part in parts for text in part])
        lines.append(st.tuples(given, chosen).map(lambda pair: [*pair[0], *pair[1]]))
    return st.one_of(lines)


@PROFILES
def test_a_command_line_begins_or_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: settings
) -> None:
    def begin(*_: object, **__: object) -> None:
        raise BegunError

    for function in ("run_steps", "show", "print_text", "remark"):
        monkeypatch.setattr(terminal, function, begin)
    monkeypatch.chdir(tmp_path)
    group: Any = typer.main.get_command(application)

    def attempt(line: list[str]) -> None:
        code, text = ended(group, line)
        assert code in (0, 2, 4, None, *([125] if "--bisect" in line else [])), (line, text)
        assert "internal error" not in text
        assert len([one for one in text.splitlines() if not one.startswith("::error ")]) <= 1
        assert "::error " not in text or "--annotations" in line

    tried(profile, _lines(), attempt)
