from __future__ import annotations

import pytest
import torch

from senet_bench.errors import UsageError
from senet_bench.run.selftest import (
    LAYERS,
    Amounts,
    TimingTrial,
    chain,
    layers_of,
    rule_counts,
    summarise,
    timing_trials,
)


def trial(kind: str, alarm: bool, ratio: float = 1.0, seconds: float = 1.0) -> TimingTrial:
    truth = layers_of(kind) / LAYERS  # type: ignore[arg-type]
    verdict = "regressed" if alarm else "ok"
    return TimingTrial(kind, 1, 9, truth, {"senet-bench": alarm}, verdict, seconds, 2.0, ratio, (ratio - 0.01, ratio + 0.01), 0.01)  # type: ignore[arg-type]  # fmt: skip # noqa: E501


def test_alarms_are_counted_as_false_or_right() -> None:
    ended = [trial("same", False), trial("same", True, 1.3), trial("slower", True, 1.05), trial("visible", True, 1.02)]
    found = summarise(ended, 2.0, 1e-3)
    (row,) = rule_counts(ended)
    assert (row.same, row.false_alarms, row.slower, row.found) == (2, 1, 1, 1)
    assert (found.covered, found.covered_slower, found.visible) == ((1, 2), (1, 1), (1, 1))
    assert found.longest_overrun_s == -1.0


def test_the_slowdown_is_more_of_the_same_work() -> None:
    assert (layers_of("same"), layers_of("slower"), layers_of("visible")) == (100, 105, 102)
    output = chain(3)()()
    assert isinstance(output, torch.Tensor)
    assert output.isfinite().all()


def test_a_short_self_test_runs_every_kind_and_counts_each_rule() -> None:
    amounts = Amounts(same=1, slower=1, visible=1, peers=1, budget_s=0.1, slower_s=0.1, visible_s=0.1, peer_s=0.02)
    ended = list(timing_trials(amounts))
    rules = rule_counts(ended)
    assert sorted(t.kind for t in ended) == [
        "peers same", "peers slower", "same", "same visible", "slower", "visible"
    ]  # fmt: skip
    assert [row.same for row in rules] == [1] * 7
    assert {row.rule for row in rules} >= {
        "senet-bench", "pytest-benchmark min:3%", "sequential mean:3%", "torch Timer median:3%", "torch Timer median:5%"
    }  # fmt: skip


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    running = timing_trials(Amounts(same=1, slower=0, visible=0, peers=0, budget_s=0.05))
    next(running)
    assert torch.get_num_threads() == 1
    running.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == before


def test_no_trial_at_all_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="at least one trial"):
        Amounts(same=0, slower=0, visible=0, peers=0)
