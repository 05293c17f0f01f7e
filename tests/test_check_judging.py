"""Launches, ratios, stored latencies and predictions as rows; times here are made up, drawn with a seed."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from senet_bench.bench.rounds import Plan
from senet_bench.core.progress import Progress, Steps, result_of
from senet_bench.errors import BenchError, MeasurementError, NotComparableError, UsageError
from senet_bench.gates.trained import timed_beside
from senet_bench.regression import measurement
from senet_bench.regression.baselines import StoredLatency
from senet_bench.regression.config import Allowed, CheckedNetwork, Config, PredictionPair, Ratio
from senet_bench.regression.files import accuracy_row
from senet_bench.regression.launches import Launch, Launched, Launches, after_holm, confirmed, latency_row, levels
from senet_bench.regression.limits import Limit, usual_limits
from senet_bench.regression.measurement import stored_row
from senet_bench.regression.outcome import LimitRow, exit_code, failed, with_allowances
from senet_bench.regression.workers import Orders
from senet_bench.training.evaluation import Predictions

GATE = Limit(relative=0.02)


def launches(
    change: float, *, seed: int, twin: float = 0.0, count: int = 5, tau: float = 0.006, disturbed: float = 0.02
) -> list[Launch]:
    """Launches of programs whose times differ by `change` (a fraction), with 7 % noise a round and tau a process.

    A process is disturbed now and then, 10 % slower from its first round to its last; the second ones of each side
    differ from the first by `twin`.
    """
    rng = np.random.default_rng(seed)

    def arm(shift: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        level = np.log1p(shift) + rng.normal(0, tau) + 0.1 * (rng.random() < disturbed)
        return np.asarray(4e-3 * np.exp(level + np.abs(rng.normal(0, 0.07, 60))))

    return [
        Launch(base=arm(0), head=arm(change), base_again=arm(twin), head_again=arm(change + twin)) for _ in range(count)
    ]


def judged(change: float, *, seed: int) -> LimitRow:
    """The row as `check` finds it: where the first launches do not decide, as many again."""
    first, second = levels(0.01)
    row = latency_row("n", launches(change, seed=seed), GATE, level=first, alpha=0.01)
    if row.verdict != "inconclusive":
        return row
    return latency_row("n", launches(change, seed=seed, count=10), GATE, level=second, alpha=0.01)


def test_identical_code_fails_at_most_2_of_200_times() -> None:
    rows = [judged(0, seed=seed) for seed in range(200)]
    assert sum(row.verdict == "fail" for row in rows) <= 2
    assert sum(row.verdict == "pass" for row in rows) >= 180


def test_5_percent_more_time_is_found_and_said() -> None:
    rows = [judged(0.05, seed=seed) for seed in range(40)]
    assert sum(row.verdict == "fail" for row in rows) >= 36
    assert not [row for row in rows if row.verdict == "pass"]
    row = next(row for row in rows if row.verdict == "fail")
    assert row.id == "n/latency"
    assert 1.03 < (row.ratio or 0) < 1.07
    assert "(gate +2 %)" in row.reason
    assert len(row.launches) in (10, 20)


def test_the_levels_of_both_looks_are_alpha_and_the_second_has_more_pairs() -> None:
    assert sum(levels(0.01)) == pytest.approx(0.01)
    loose = [latency_row("n", launches(0.03, seed=seed), GATE, level=levels(0.01)[0], alpha=0.01) for seed in range(40)]
    kept = [judged(0.03, seed=seed) for seed in range(40)]
    decided = [sum(row.verdict == "fail" for row in rows) for rows in (loose, kept)]
    assert decided[1] > decided[0]


def test_twins_that_differ_leave_the_row_undecided() -> None:
    row = latency_row("n", launches(0.05, seed=1, twin=0.05), GATE, level=0.006, alpha=0.01)
    assert (row.verdict, row.control_ok) == ("inconclusive", False)
    assert "control failed" in row.reason


def test_too_few_rounds_and_disturbed_rounds_are_no_verdict() -> None:
    few = Launch(base=np.ones(2), head=np.ones(2), base_again=np.ones(2), head_again=np.ones(2))
    assert latency_row("n", [few] * 3, GATE, level=0.006, alpha=0.01).verdict == "inconclusive"
    slower = launches(0.2, seed=3)
    found = latency_row("n", [replace(one, dropped=100) for one in slower], GATE, level=0.006, alpha=0.01)
    assert (found.verdict, "disturbed" in found.reason) == ("inconclusive", True)
    row = latency_row("n", slower[:1], GATE, level=0.006, alpha=0.01)
    assert (row.verdict, "too few --launches" in row.reason) == ("inconclusive", True)


def test_a_failure_counts_only_when_it_is_seen_twice() -> None:
    slow, same = (judged(change, seed=5) for change in (0.08, 0.0))
    assert confirmed(slow, slow).verdict == "fail"
    assert confirmed(slow, same).verdict == "inconclusive"


def test_holm_takes_back_what_is_not_significant_over_all_rows() -> None:
    rows = [
        LimitRow(id=f"{i}", network="n", metric="latency", kind="statistical", verdict="fail", p_worse=0.004)
        for i in "abc"
    ]
    assert {row.verdict for row in after_holm(rows, 0.01)} == {"inconclusive"}
    assert {row.verdict for row in after_holm(rows[:2], 0.01)} == {"fail"}
    assert after_holm([], 0.01) == []


def latency(floor: float, between: float | None) -> StoredLatency:
    return StoredLatency(seconds=floor, floor=floor, rounds=100, between=between)


@pytest.mark.parametrize(
    ("now", "between", "judged", "verdict"),
    [
        (1.5, 0.01, False, "info"),
        (1.5, 0.01, True, "fail"),
        (1.025, 0.01, True, "pass"),
        (1.5, None, True, "inconclusive"),
        (1.5, 0.5, True, "pass"),
    ],
)
def test_a_stored_latency_gates_only_when_asked_and_never_tighter_than_its_spread(
    now: float, between: float | None, judged: bool, verdict: str
) -> None:
    row = stored_row("n", latency(1.0, between), latency(now, None), GATE, judged=judged)
    assert row.verdict == verdict
    assert "unpaired" in row.reason


def test_a_latency_is_recorded_with_what_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(*_: object) -> Steps[dict[str, list[Launched]]]:
        yield Progress("n", 1, 1)
        return {"n": [Launched({"base": np.array([2.0, 3.0, 4.0])})]}

    monkeypatch.setattr(measurement, "launch", timed)
    orders = Orders(networks=[CheckedNetwork("n", (3, 8, 8))], batch_size=4)
    found = result_of(measurement.latencies(orders, tmp_path, Launches(launches=1, budget_s=1, seed=0)))["n"]
    assert (found.floor, found.seconds, found.batch_size, found.input_size) == (2.0, 3.0, 4, (3, 8, 8))


def predictions(path: Path, wrong: int, *, first: int = 0, images: int = 2000) -> Path:
    labels = np.zeros(images, dtype=np.int64)
    best = np.tile(np.arange(5), (images, 1))
    best[first : first + wrong, 0] = 7
    Predictions(np.arange(images), labels, best, np.ones(images, dtype=np.float32)).save(path)
    return path


def pair(tmp_path: Path, base: int, head: int, first: int = 0) -> PredictionPair:
    return PredictionPair(
        "n", predictions(tmp_path / "a.npz", base), predictions(tmp_path / "b.npz", head, first=first)
    )


def test_a_point_of_accuracy_on_2000_images_is_found(tmp_path: Path) -> None:
    row = accuracy_row(pair(tmp_path, 200, 220), usual_limits()["accuracy"], 0.01)
    assert (row.verdict, row.id) == ("fail", "n/accuracy")
    assert "+1.00 pt on 2,000 images" in row.reason


def test_the_same_predictions_pass_and_noisy_ones_are_not_decided(tmp_path: Path) -> None:
    gate = usual_limits()["accuracy"]
    assert accuracy_row(pair(tmp_path, 200, 200), gate, 0.01).verdict == "pass"
    assert accuracy_row(pair(tmp_path, 200, 150), gate, 0.01).verdict == "pass"
    assert accuracy_row(pair(tmp_path, 200, 205, first=150), gate, 0.01).verdict == "inconclusive"


def test_a_change_of_accuracy_is_judged_against_the_limit_and_not_against_none(tmp_path: Path) -> None:
    limit = usual_limits()["accuracy"]
    inside = accuracy_row(pair(tmp_path, 200, 206), limit, 0.01)  # +0.30 points, told from 0 and not from the limit
    assert inside.verdict == "inconclusive"
    assert accuracy_row(pair(tmp_path, 200, 220), limit, 0.01).verdict == "fail"
    assert accuracy_row(pair(tmp_path, 200, 220), Limit(absolute=0.02), 0.01).verdict == "pass"
    assert accuracy_row(pair(tmp_path, 200, 220), Limit(absolute=0.008), 0.01).verdict == "inconclusive"


def test_predictions_that_are_missing_damaged_or_of_other_images(tmp_path: Path) -> None:
    good = pair(tmp_path, 10, 10)
    gate = usual_limits()["accuracy"]
    with pytest.raises(BenchError, match="not there"):
        accuracy_row(PredictionPair("n", tmp_path / "none.npz", good.head), gate, 0.01)
    (tmp_path / "c.npz").write_bytes(b"PK")
    with pytest.raises((UsageError, BenchError)):
        accuracy_row(PredictionPair("n", tmp_path / "c.npz", good.head), gate, 0.01)
    other = predictions(tmp_path / "d.npz", 10, images=1999)
    with pytest.raises(NotComparableError):
        accuracy_row(PredictionPair("n", good.base, other), gate, 0.01)


def rows_of(*verdicts: str) -> list[LimitRow]:
    return [LimitRow(id="n/x", network="n", metric="x", kind="exact", verdict=one) for one in verdicts]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("pass", "info", "new", "allowed"), (0, 0, 0)),
        (("pass", "fail", "error"), (1, 1, 1)),
        (("inconclusive", "error", "not comparable"), (5, 5, 5)),
        (("inconclusive", "not comparable"), (4, 4, 4)),
        (("inconclusive", "pass"), (3, 0, 1)),
    ],
)
def test_the_exit_code_is_that_of_the_gravest_row(verdicts: tuple[str, ...], expected: tuple[int, ...]) -> None:
    assert tuple(exit_code(rows_of(*verdicts), how) for how in ("warn", "pass", "fail")) == expected


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("lost")


def test_a_network_that_cannot_be_timed_ends_no_other_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"n": Broken(), "base": nn.Flatten()}
    monkeypatch.setattr(measurement, "network_here", lambda one: made[one.name])
    both = tuple(CheckedNetwork(name, (3, 8, 8)) for name in made)
    ratio = Ratio("n", "base", "latency", GATE)
    config = Config(source="x", networks=both, ratios=(ratio,), budget_s=0.1, launches=1)
    with pytest.raises(MeasurementError, match="KeyError: 'lost'"):
        measurement.timed_ratio(ratio, config, 0.01, 0)
    steps = timed_beside(made["base"], made["n"], (3, 8, 8), config.conditions, Plan(budget_s=0.1))
    latency, reason = result_of(steps)
    assert (latency, "KeyError: 'lost'" in str(reason)) == (None, True)


def test_an_allowance_ends() -> None:
    config = Config(
        source="x",
        networks=(CheckedNetwork("n", (3, 8, 8)),),
        allowed=(Allowed("n/latency", date(2026, 12, 1), "known"),),
    )
    row = failed("n", "latency", "slow", "fail")
    (held,) = with_allowances([row], config, date(2026, 12, 1))
    assert (held.verdict, "known" in held.reason) == ("allowed", True)
    (ended,) = with_allowances([row], config, date(2026, 12, 2))
    assert (ended.verdict, "ended" in ended.reason) == ("fail", True)
    (crashed,) = with_allowances([failed("n", "latency", "crashed")], config, date(2026, 11, 1))
    assert crashed.verdict == "error"
