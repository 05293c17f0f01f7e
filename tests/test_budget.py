"""The verdict on an overhead, from hand-made figures whose answer is known."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from senet_bench.errors import UsageError
from senet_bench.overhead.budget import (
    BudgetVerdict,
    Candidate,
    CandidateKind,
    Cost,
    error_difference,
    interpolated,
    limit,
    place,
    rank_candidates,
)
from senet_bench.overhead.tables import as_values, sentences, table

BASE = {"0": 0.10, "1": 0.12, "2": 0.11, "3": 0.13}
BETTER = {seed: error - gain for (seed, error), gain in zip(BASE.items(), (0.020, 0.021, 0.019, 0.020))}


def one(
    label: str, kind: CandidateKind = "attention", latency: Any = None, flops: float = 1.0, **fields: Any
) -> Candidate:
    """A network whose latency is a ratio, or an interval with the ratio in its middle."""
    ratios: dict[Cost, float] = {"flops": flops, "params": 1.0}
    intervals: dict[Cost, tuple[float, float]] = {}
    if isinstance(latency, tuple):
        ratios["latency"], intervals["latency"] = sum(latency) / 2, latency
    elif latency is not None:
        ratios["latency"] = latency
    if errors := fields.get("errors"):
        fields["error"] = sum(errors.values()) / len(errors)
    return Candidate(label, label, kind, ratios, intervals, **fields)


def said(*candidates: Candidate, table: str | None = None, **limits: float) -> list[str]:
    judged = rank_candidates(limits, candidates)  # type: ignore[arg-type]
    return list(sentences(BudgetVerdict("base", "Base", "measured", table, limits, "", judged)))  # type: ignore[arg-type]


BASELINE = one("Base", "baseline", latency=1.0, errors=BASE)


def test_importing_it_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, senet_bench.overhead.budget; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "ratio"), [("1.03", 1.03), ("+3 %", 1.03), ("3%", 1.03), (" +0.5% ", 1.005), ("1", 1.0), ("2", 2.0)]
)
def test_an_overhead_is_read_as_typed(text: str, ratio: float) -> None:
    assert limit("latency", text) == pytest.approx(ratio)


@pytest.mark.parametrize(
    "text", ["0.97", "-3 %", "", "three", "nan", "inf", "1e2", "+1.03", "1,03", "11", "950 %", "٣%"]
)
def test_what_is_no_overhead_is_said(text: str) -> None:
    with pytest.raises(UsageError, match=r"--budget-flops .* is no overhead; write 1.03"):
        limit("flops", text)


def test_an_interval_is_inside_undecided_or_outside_and_an_exact_cost_never_undecided() -> None:
    limits: dict[Cost, float] = {"latency": 1.03}
    places = {(1.01, 1.03): "inside", (1.01, 1.031): "undecided", (1.03, 1.05): "undecided", (1.031, 1.05): "outside"}
    for interval, where in places.items():
        assert place(limits, one("a", latency=interval)) == where
    assert place(limits, one("a")) == "not measured"
    assert place(limits, one("a", latency=1.01)) == "undecided"  # a ratio without its interval
    assert place(limits, BASELINE) == "inside"
    assert [place({"flops": 1.01}, one("a", flops=flops)) for flops in (1.01, 1.0100001)] == ["inside", "outside"]


def test_a_network_stands_at_the_worst_of_its_costs() -> None:
    both: dict[Cost, float] = {"latency": 1.03, "flops": 1.01}
    assert place(both, one("a", latency=(1.0, 1.02), flops=1.02)) == "outside"
    assert place(both, one("a", flops=1.005)) == "not measured"
    assert place(both, one("a", latency=(1.02, 1.05), flops=1.005)) == "undecided"


def test_the_lowest_error_surely_inside_wins_even_if_a_lower_one_is_undecided() -> None:
    undecided = one("Undecided", latency=(1.0, 1.06), errors={seed: e - 0.05 for seed, e in BASE.items()})
    outside = one("Outside", latency=(1.1, 1.2), errors={seed: e - 0.09 for seed, e in BASE.items()})
    inside = one("Inside", latency=(1.0, 1.02), errors=BETTER)
    judged = rank_candidates({"latency": 1.03}, [BASELINE, undecided, outside, inside])
    assert judged.best is not None
    assert judged.best.candidate is inside
    assert [row.place for row in judged.rows] == ["inside", "undecided", "outside", "inside"]
    assert judged.tied == judged.untested == ()
    lines = said(BASELINE, undecided, outside, inside, latency=1.03)
    assert "lowest error within the budget: Inside, 9.50 %, -2.00 [-2.13, -1.87] points to the baseline" in lines
    assert "undecided (more timing rounds would tell): Undecided" in lines
    assert not any("Outside" in line for line in lines)


def test_what_the_seeds_cannot_tell_apart_is_tied_the_baseline_too() -> None:
    noisy = one("Noisy", errors={"0": 0.13, "1": 0.08, "2": 0.12, "3": 0.10})
    like = one("Like", errors={"0": 0.12, "1": 0.09, "2": 0.11, "3": 0.12})
    judged = rank_candidates({"flops": 1.01}, [BASELINE, noisy, like])
    assert judged.best is not None
    assert judged.best.candidate is noisy
    assert [row.candidate.label for row in judged.tied] == ["Base", "Like"]
    assert "the data cannot tell it from Base, Like" in said(BASELINE, noisy, like, flops=1.01)


def test_the_lowest_error_is_told_over_the_seeds_that_two_networks_share() -> None:
    lucky = one("Lucky", errors={"0": 0.08})
    usual = one("Usual", errors={"0": 0.07, "1": 0.10, "2": 0.09, "3": 0.10})
    close = one("Close", errors={"0": 0.06, "1": 0.11, "2": 0.10, "3": 0.10})  # lower over the one seed all have
    judged = rank_candidates({"flops": 1.01}, [BASELINE, lucky, usual, close])
    assert judged.best is not None
    assert judged.best.candidate is usual
    assert [row.to_best.value for row in judged.rows[1:] if row.to_best] == pytest.approx([0.01, 0.0025])
    lines = said(BASELINE, lucky, usual, flops=1.01)
    assert "no test is possible against Lucky: fewer than two seeds in common" in lines


def test_of_equal_errors_the_first_wins_and_the_other_is_tied() -> None:
    judged = rank_candidates({"flops": 1.01}, [BASELINE, one("First", errors=BETTER), one("Second", errors=BETTER)])
    assert judged.best is not None
    assert judged.best.candidate.label == "First"
    assert [row.candidate.label for row in judged.tied] == ["Second"]


def test_printed_errors_have_a_difference_but_no_test() -> None:
    base, se = one("Base", "baseline", error=0.248, basis="printed"), one("SE", error=0.2329, basis="printed")
    judged = rank_candidates({"flops": 1.01}, [base, se])
    assert judged.rows[1].to_baseline is not None
    assert judged.rows[1].to_baseline.value == pytest.approx(-0.0151)
    assert judged.rows[1].to_baseline.told_apart is None
    assert [row.candidate.label for row in judged.untested] == ["Base"]
    assert judged.tied == ()
    assert any("prints no intervals" in line for line in said(base, se, table="2", flops=1.01))


def test_the_control_and_plain_networks_are_never_the_best_network_with_attention() -> None:
    control = one("Fixed", "control", errors=dict.fromkeys(BASE, 0.01))
    wide = one("Wide", "plain", errors=dict.fromkeys(BASE, 0.02))
    judged = rank_candidates({"flops": 1.01}, [BASELINE, control, wide, one("SE", errors=BETTER)])
    assert judged.best is not None
    assert judged.best.candidate.label == "SE"
    lines = said(BASELINE, control, wide, one("SE", errors=BETTER), flops=1.01)
    assert any(line.startswith("without attention: Wide (FLOPs +0.00 %") and "2.00 %, -7.50" in line for line in lines)


def test_under_a_latency_alone_it_is_said_that_plain_networks_are_sized_by_flops() -> None:
    wide = one("Wide", "plain", flops=1.02)
    assert any("sized by FLOPs" in line for line in said(BASELINE, wide, latency=1.03))
    assert not any("sized by FLOPs" in line for line in said(BASELINE, wide, latency=1.03, flops=1.03))


def test_no_candidate_and_missing_errors_are_said() -> None:
    (first, *_) = said(BASELINE, one("SE", flops=1.2, errors=BETTER), flops=1.01)
    assert first == "no network with attention can be named: none is surely inside the budget"
    (first, *_) = said(BASELINE, one("SE"), flops=1.01)
    assert first == "no network with attention can be named: their errors are not known"
    (first, *rest) = said(one("SE", errors=BETTER), flops=1.01)
    assert first == "lowest error within the budget: SE, 9.50 %; the baseline's error is not known"
    assert rest == ["without attention: no wider or deeper Base can be built here"]
    lines = said(BASELINE, one("SE"), one("Wide", "plain", flops=1.02, command="senet-bench compare base"), flops=1.01)
    assert lines[-1].endswith("Wide (FLOPs +2.00 %, parameters +0.00 %, outside); senet-bench compare base brings it")


def test_a_best_network_that_is_no_better_than_the_baseline_is_not_recommended() -> None:
    worse = one("SE", errors={seed: error + 0.01 for seed, error in BASE.items()})
    assert said(BASELINE, worse, flops=1.01)[0].endswith("no lower than the baseline's: keep that")


def test_one_seed_gives_no_interval_and_unlike_seeds_only_a_difference() -> None:
    lone = error_difference(one("a", errors={"0": 0.2}), one("b", errors={"0": 0.1, "1": 0.9}))
    assert lone is not None
    assert lone.value == pytest.approx(0.1)
    assert lone.ci is None
    apart = error_difference(one("a", errors={"7": 0.2}), one("b", errors={"0": 0.1}))
    assert apart is not None
    assert apart.told_apart is None


def test_interpolation_is_on_the_line_between_neighbours_and_nowhere_else() -> None:
    known = [(2.0, 0.20), (1.0, 0.24), (3.0, 0.19)]
    assert interpolated(1.5, known) == pytest.approx(0.22)
    assert interpolated(2.5, known) == pytest.approx(0.195)
    assert interpolated(1.0, known) == 0.24
    assert interpolated(3.0, known) == pytest.approx(0.19)
    assert interpolated(3.1, known) is interpolated(0.9, known) is interpolated(1.0, [(1.0, 0.2)]) is None


def test_a_table_has_the_costs_asked_for_and_json_the_whole() -> None:
    candidates = [BASELINE, one("SE", latency=(1.01, 1.02), flops=1.002, errors=BETTER)]
    limits: dict[Cost, float] = {"latency": 1.03}
    verdict = BudgetVerdict(
        "base", "Base", "measured on digits", None, limits, "cpu", rank_candidates(limits, candidates)
    )
    wide, narrow = table(verdict), table(verdict, narrow=True)
    assert wide.title == "Base within latency +3 %, errors measured on digits"
    assert [column.name for column in wide.columns[1:4]] == ["latency +%", "FLOPs +%", "params +%"]
    assert len(narrow.columns) == len(wide.columns) - 2
    assert wide.rows[1] == ("SE", "+1.5 [+1.0, +2.0]", "+0.20", "+0.00", "inside", "9.50", "-2.00 [-2.13, -1.87]")
    values = as_values(verdict)
    assert (values["best"], values["candidates"][1]["place"]) == ("SE", "inside")
    assert values["candidates"][1]["to_baseline"]["value"] == pytest.approx(-0.02)
