"""What check stored over commits, and runs of two commits side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from senet_bench.core.checkout import commit_of
from senet_bench.regression.baselines import (
    Baselines,
    MachineBaseline,
    MachineFacts,
    PortableBaseline,
    StoredFacts,
    StoredLatency,
)
from senet_bench.regression.trend import trend_tables
from tests.conftest import Run
from tests.support import stored
from tests.test_check_cli import commit, git


def facts(params: int) -> StoredFacts:
    return StoredFacts(
        input_size=(3, 8, 8), params={"w": params}, flops={"conv": 5}, state={"w": "float32[1]"}, operators={"conv": 2}
    )


def write(folder: Path, params: int, seconds: float) -> None:
    baselines = Baselines(folder)
    baselines.write(PortableBaseline(networks={"net": facts(params)}))
    latency = MachineFacts(peak_bytes=2048, latency=StoredLatency(seconds=seconds, floor=seconds))
    baselines.write(MachineBaseline(machine="aaaaaaaaaaaa", networks={"net": latency}))


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A checkout with three commits of baselines and one that is not committed; the second file was damaged once."""
    folder = tmp_path / "results" / "baselines"
    write(folder, 100, 0.002)
    commit(tmp_path)
    (folder / "portable.json").write_text("{")
    git(tmp_path, "commit", "-qam", "damaged")
    write(folder, 120, 0.003)
    git(tmp_path, "commit", "-qam", "wider")
    write(folder, 110, 0.003)
    return folder


def test_the_trend_tells_first_and_last_value_and_where_it_changed(history: Path, tmp_path: Path) -> None:
    everywhere, machine = trend_tables(Baselines(history))
    assert everywhere.title.startswith("What check stored on every machine: 3 commits, ")
    assert everywhere.title.endswith(" to not committed")
    lines = {row[1]: row[2:] for row in everywhere.texts}
    assert lines["params"] == ("100", "110", "+10 %", "2", "not committed", "▁█▅")
    assert lines["flops"] == ("5", "5", "", "0", "", "")
    times = {row[1]: row[2:] for row in machine.texts}
    wider = commit_of(tmp_path).rstrip("+")
    assert times["latency"][:4] == ("2 ms", "3 ms", "+50 %", "1")
    assert wider.startswith(times["latency"][4])
    assert times["memory"][:2] == ("2 KiB", "2 KiB")


def test_report_by_commit_sets_runs_beside_each_other_behind_the_trend(history: Path, run: Run, tmp_path: Path) -> None:
    for place, name in enumerate(("0123456789ab", "ba9876543210+")):
        made = stored.ablation()
        about = replace(made, environment=replace(made.environment, commit=name))
        stored.store(tmp_path / "results", about, f"20261120T10000{place}Z-ablate-{place}")
    ended = run("report", "--by", "commit", "-q")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("What check stored on every machine")
    assert "commit 0123456789ab" in ended.out
    assert "commit ba9876543210+" in ended.out
    assert run("report", "--by", "commit", "--format", "csv").out.startswith("table,network,metric,first,last")


def test_without_a_commit_the_trend_is_of_what_lies_there_alone(tmp_path: Path) -> None:
    assert trend_tables(Baselines(tmp_path)) == []
    write(tmp_path, 100, 0.002)
    everywhere, _ = trend_tables(Baselines(tmp_path))
    assert everywhere.title.endswith("not committed")
