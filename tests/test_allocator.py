"""The C library's allocator: read, set on request in real processes, part of every row that has a time."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from senet_bench.bench.doctor import checks
from senet_bench.bench.process import (
    ALLOCATOR_VARIABLES,
    allocator_environment,
    allocator_setting,
    tune_allocator,
    tuning_obstacle,
)
from senet_bench.core.specs import Conditions
from senet_bench.errors import UsageError
from senet_bench.regression.baselines import StoredLatency
from senet_bench.regression.config import CheckedNetwork
from senet_bench.regression.configfile import load_config
from senet_bench.regression.workers import Nursery, Orders, Worker
from tests.conftest import Run

glibc = pytest.mark.skipif(bool(tuning_obstacle()), reason="glibc's allocator only")
PLAIN = {name: value for name, value in os.environ.items() if name not in ALLOCATOR_VARIABLES}
MAP_BYTES = 32 << 20
FAULTS = f"""
import resource, sys
from senet_bench.bench.process import applied_allocator
found = [applied_allocator(sys.argv[1])]
b"x" * {MAP_BYTES}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    b"x" * {MAP_BYTES}
print(found[0], resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(asked: str, environment: Mapping[str, str]) -> tuple[str, int]:
    """The setting and the page faults of four maps in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, asked],
        env={**PLAIN, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    setting, count = done.stdout.split()
    return setting, int(count)


@glibc
def test_tuned_maps_are_not_paged_in_again() -> None:
    setting, default = faults("as-is", {})
    assert setting == "default"
    assert default >= 4 * MAP_BYTES // os.sysconf("SC_PAGE_SIZE") // 2  # huge pages would make fewer
    setting, tuned = faults("tuned", {})
    assert setting == "tuned"
    assert tuned < default / 10
    setting, started = faults("as-is", allocator_environment("tuned"))
    assert setting == "tuned"
    assert started < default / 10


@glibc
def test_variables_that_set_it_are_noted() -> None:
    assert faults("as-is", {"MALLOC_TOP_PAD_": "65536"})[0] == "environment"


COMMANDS = {
    "compare": ("compare", "seresnet20_cifar", "--img-size", "8", "--budget", "0.3"),
    "ablate": ("ablate", "-m", "seresnet20_cifar", "--reduction", "4", "--latency", "--img-size", "8", "--budget", "1"),
    "profile": ("profile", "seresnet20_cifar", "--img-size", "8", "--budget", "0.3"),
    "selftest": ("selftest", "--null", "1", "--slower", "0", "--visible", "0", "--peers", "0"),
    "check": ("check", "--only", "seresnet20_cifar"),
}
CONFIG = """
networks = ["seresnet20_cifar"]
metrics = ["params", "memory"]
"""
EACH = """
import json, pathlib, sys
from senet_bench.cli import main
for name, command in json.loads(sys.argv[1]).items():
    try:
        main([*command, "--allocator", "tuned", "--format", "json", "-o", f"{name}.json", "-q"])
    except SystemExit as end:
        assert end.code in (0, 4), (name, end.code)
"""


@glibc
@pytest.mark.slow
def test_every_command_that_times_sets_it_and_notes_it(tmp_path: Path) -> None:
    (tmp_path / "senet-bench.toml").write_text(CONFIG)
    record = [sys.executable, "-m", "senet_bench", "baseline", "record", "-q"]
    subprocess.run(record, cwd=tmp_path, check=True, env=PLAIN)
    subprocess.run([sys.executable, "-c", EACH, json.dumps(COMMANDS)], cwd=tmp_path, check=True, env=PLAIN)
    found: dict[str, Any] = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in COMMANDS}
    for name in ("compare", "ablate"):
        settings = [row["latency"]["conditions"]["allocator"] for row in found[name]["rows"]]
        assert set(settings) == {"tuned"}
    for name in ("profile", "selftest", "check"):
        assert found[name]["conditions"]["allocator"] == "tuned"
    assert "--allocator tuned" in found["check"]["reproduce"]


def test_a_row_says_what_it_was_timed_with(run: Run) -> None:
    ended = run("compare", "seresnet20_cifar", "--img-size", "8", "--budget", "0.3", "--format", "json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    settings = {row["latency"]["conditions"]["allocator"] for row in document["rows"]}
    assert settings == {allocator_setting()}
    assert document["environment"]["allocator"]["can_be_tuned"] is not bool(tuning_obstacle())


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_setting_is_a_usage_error(run: Run, command: str) -> None:
    ended = run(command, "--allocator", "fast")
    assert ended.code == 2
    assert "fast" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("system", "library", "preloaded", "why"),
    [
        ("Darwin", "", "", "Darwin"),
        ("Linux", "", "", "not glibc"),
        ("Linux", "glibc", "/usr/lib/libjemalloc.so.2", "libjemalloc.so.2 is preloaded"),
    ],
)
def test_what_cannot_be_tuned_is_said_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, system: str, library: str, preloaded: str, why: str
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    ended = run("compare", "seresnet20_cifar", "--allocator", "tuned")
    assert ended.code == 2
    assert "cannot be tuned" in ended.err
    assert why in ended.err
    assert len(ended.err.splitlines()) == 1
    assert allocator_setting() == "other"
    assert not tune_allocator()
    told = next(check for check in checks() if check.name == "allocator")
    assert told.found == "not glibc's"
    assert why in told.remedy


def test_conditions_that_this_process_does_not_have_are_refused() -> None:
    from senet_bench.bench.machine import check_conditions

    other = "other" if allocator_setting() != "other" else "default"
    with pytest.raises(UsageError, match="the allocator of this process is"):
        check_conditions(Conditions(allocator=other))  # type: ignore[arg-type]


@glibc
def test_doctor_says_how_to_set_it(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("doctor", "--format", "json").out)["rows"]}
    assert "--allocator tuned" in rows["allocator"]["remedy"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads the environment of a process")
def test_worker_processes_start_with_the_setting(tmp_path: Path) -> None:
    asked = Orders(networks=(CheckedNetwork("seresnet20_cifar", (3, 32, 32)),), allocator="tuned")
    with Nursery(asked) as nursery, Worker(tmp_path, nursery) as worker:
        worker.ask("repeats", repeats=[])
        worker.answer()  # it has started
        started = Path(f"/proc/{worker.process.pid}/environ").read_bytes().split(b"\0")
    assert b"MALLOC_MMAP_MAX_=0" in started


def test_a_config_names_it_and_the_command_line_is_stronger(tmp_path: Path) -> None:
    file = tmp_path / "senet-bench.toml"
    file.write_text(CONFIG.strip() + '\nallocator = "tuned"\n')
    found = load_config(file)
    assert found.conditions.allocator == "tuned"
    assert found.overridden(None, None, "as-is").allocator == "as-is"
    assert found.overridden(None, None, None).allocator == "tuned"
    file.write_text(CONFIG.strip() + '\nallocator = "fast"\n')
    with pytest.raises(UsageError, match="allocator 'fast'"):
        load_config(file)


def test_a_stored_latency_of_another_setting_is_not_compared() -> None:
    default, tuned, before = (
        StoredLatency(seconds=1.0, floor=1.0, allocator=one) for one in ("default", "tuned", "as-is")
    )
    assert tuned.unlike(default) == "allocator tuned"
    assert before.unlike(tuned) == "allocator as-is"
    assert before.unlike(default) == default.unlike(default) == ""


def test_a_stored_latency_of_other_images_is_not_one_of_these_and_an_older_one_does_not_say() -> None:
    small, large = (StoredLatency(seconds=1.0, floor=1.0, input_size=(3, side, side)) for side in (32, 64))
    assert small.unlike(large) == "input size 3x32x32"
    assert small.unlike(StoredLatency(seconds=1.0, floor=1.0)) == small.unlike(small) == ""
