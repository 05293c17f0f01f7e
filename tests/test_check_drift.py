"""Slow drift over accepted changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from senet_bench.regression.config import Drift
from senet_bench.regression.drift import drift_rows, line_of
from senet_bench.regression.facts import Portable
from senet_bench.regression.limits import Limit, usual_limits
from senet_bench.regression.outcome import LimitRow, drifts
from tests.test_check_base import baselines
from tests.test_check_cli import git

PARAMS = LimitRow(id="net/params", network="net", metric="params", kind="exact", verdict="pass", now=120.0)


def accepted(what: str, old: object, when: str) -> dict[str, Any]:
    return {"id": what, "old": old, "when": when}


def gate(network: str, metric: str) -> Limit:
    return usual_limits()[metric]


def test_changes_that_were_accepted_one_by_one_add_up() -> None:
    history = [
        accepted("net:params", {"a": 60, "b": 40}, "2026-01-02T00:00:00Z"),
        accepted("other:params", {"a": 1}, "2026-01-03T00:00:00Z"),
        accepted("net:all", {"params": {"a": 110}, "flops": {"conv": 5}}, "2026-02-02T00:00:00Z"),
    ]
    (row,) = drifts(history, [PARAMS], gate)
    assert (row.id, row.verdict, row.base, row.now) == ("net/params-drift", "info", 100.0, 120.0)
    assert row.reason == "+20 % since 2026-01-02, over 2 accepted changes"


def test_a_network_back_where_it_began_has_not_drifted() -> None:
    assert not drifts([accepted("net:params", {"a": 120}, "2026-01-02")], [PARAMS], gate)


def test_what_stays_within_the_gate_is_not_told() -> None:
    latency = replace(PARAMS, id="net/latency", metric="latency", now=1.01)
    history = [accepted("net:latency", {"floor": 1.0, "seconds": 1.2}, "2026-01-02")]
    assert not drifts(history, [latency], gate)
    (row,) = drifts(history, [replace(latency, now=1.05)], gate)
    assert row.reason == "+5 % since 2026-01-02, over one accepted change"


@pytest.mark.parametrize("old", [None, "text", [], {}, {"a": "text"}, True])
def test_a_history_of_something_else_tells_nothing(old: object) -> None:
    assert not drifts([accepted("net:params", old, "2026-01-02"), accepted("net:all", old, "")], [PARAMS], gate)


def test_rows_that_were_not_measured_do_not_drift() -> None:
    history = [accepted("net:params", {"a": 1}, "2026-01-02"), {}]
    assert not drifts(history, [replace(PARAMS, now=None), replace(PARAMS, metric="outputs")], gate)


def test_operators_that_another_torch_called_have_not_drifted_but_are_not_comparable(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    before = Portable(input_size=(3, 8, 8), params={"a": 1000}, operators={"aten::silu": 10}, shapes=["x"])
    kept = baselines(tmp_path / "results" / "baselines", {"n": before}, [])
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "one")
    git(tmp_path, "tag", "v1.0")
    now = replace(before, params={"a": 2000}, operators={"aten::sigmoid": 10, "aten::mul": 10})
    rows = {row.id: row for row in drift_rows(Drift("v1.0", Limit(relative=0.05)), tmp_path, kept, {"n": now})}
    row = rows["n/operators-drift"]
    assert (row.verdict, "name a release since" in row.reason) == ("not comparable", True)
    assert rows["n/params-drift"].verdict == "fail"


def test_many_small_changes_since_a_release_fail_together_and_are_a_line(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    folder = tmp_path / "results" / "baselines"

    def grown(params: int) -> Portable:
        return Portable(input_size=(3, 8, 8), params={"a": params}, shapes=["x"])

    for step in range(6):
        kept = baselines(folder, {"n": grown(1000 + 10 * step)}, [])
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", f"{step}")
        if step == 0:
            git(tmp_path, "tag", "v1.0")
    facts = {"n": grown(1060)}
    rows = {row.id: row for row in drift_rows(Drift("v1.0", Limit(relative=0.05)), tmp_path, kept, facts)}
    row = rows["n/params-drift"]
    assert (row.verdict, row.base, row.now) == ("fail", 1000, 1060)
    assert row.reason == "+6 % since v1.0, over 6 changes ▁▂▃▅▆▇█"
    assert (rows["n/flops-drift"].verdict, rows["n/flops-drift"].reason) == ("pass", "")
    (wider, *_) = drift_rows(Drift("v1.0", Limit(relative=0.07)), tmp_path, kept, facts)
    assert wider.verdict == "pass"
    (unknown,) = drift_rows(Drift("v9", Limit(relative=0.07)), tmp_path, kept, facts)
    assert (unknown.verdict, "fetch it" in unknown.reason) == ("not comparable", True)
    assert (line_of([1, 1]), line_of([1, 2])) == ("", "▁█")
