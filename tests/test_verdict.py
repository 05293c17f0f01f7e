from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import wilcoxon

from senet_bench.core import statistics

RNG = np.random.default_rng


def heavy(rng: np.random.Generator, n: int, centre: float = 0.0) -> statistics.Floats:
    """Log ratios as timing gives them: mostly narrow, a tenth of them wild, symmetric."""
    wild = rng.random(n) < 0.1
    return np.asarray(centre + rng.standard_normal(n) * np.where(wild, 0.2, 0.01))


def test_importing_the_judgement_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, senet_bench.core.statistics; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("n", [1, 5, 12, 25, 40])
def test_exact_p_values_are_scipys(n: int) -> None:
    r = heavy(RNG(n), n, 0.01)
    p_worse, p_ok = statistics.p_values(r, 0.005)
    assert p_worse == pytest.approx(wilcoxon(r - 0.005, alternative="greater", method="exact").pvalue)
    assert p_ok == pytest.approx(wilcoxon(r - 0.005, alternative="less", method="exact").pvalue)


def test_normal_p_values_are_scipys() -> None:
    r = heavy(RNG(1), 300, 0.001)
    expected = wilcoxon(r, alternative="greater", method="approx", correction=True).pvalue
    assert statistics.p_values(r)[0] == pytest.approx(expected)


@pytest.mark.parametrize("n", [statistics.EXACT_UP_TO, statistics.EXACT_UP_TO + 1, 400])
@pytest.mark.parametrize("level", [0.05, 0.01, 0.001])
def test_the_critical_rank_is_the_last_one_within_the_level(n: int, level: float) -> None:
    w = statistics.critical_rank(n, level)
    assert statistics.signed_rank_cdf(w, n) <= level < statistics.signed_rank_cdf(w + 1, n)


def test_five_rounds_cannot_reach_one_percent() -> None:
    assert statistics.critical_rank(5, 0.01) == -1
    assert statistics.interval([0.1] * 5, 0.01) is None


def test_the_looks_spend_alpha_exactly() -> None:
    fractions = statistics.look_fractions(5)
    assert list(fractions) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    totals = [statistics.spent(t, 0.01) for t in fractions]
    assert totals == sorted(totals)
    assert totals[-1] == pytest.approx(0.01)


def test_hodges_lehmann_is_the_median_of_the_walsh_averages() -> None:
    assert statistics.hodges_lehmann([1.0, 2.0, 6.0]) == pytest.approx(np.median([1, 1.5, 3.5, 2, 4, 6]))


@pytest.mark.parametrize("seed", range(60))
def test_verdict_and_interval_and_p_values_never_contradict_each_other(seed: int) -> None:
    rng = RNG(seed)
    n, level, gate = int(rng.integers(6, 120)), float(rng.choice([0.001, 0.01, 0.04])), 0.02
    r = np.round(heavy(rng, n, float(rng.choice([0.0, 0.0198, 0.04]))), int(rng.choice([2, 3, 9])))
    judged = statistics.judge(r, gate=gate, level=level, alpha=0.05)
    regressed, ok = judged.verdict == "regressed", judged.verdict == "ok"
    if statistics.interval(r, level) is not None:
        assert regressed == (math.log(judged.ci[0]) > math.log1p(gate)) == (judged.p_worse <= level)
        assert ok == (math.log(judged.ci[1]) < math.log1p(gate)) == (judged.p_ok <= level)
        assert judged.ci[0] <= judged.ratio <= judged.ci[1]


def _sequence(rng: np.random.Generator, centre: float, gate: float, alpha: float, n_max: int = 160) -> tuple[str, bool]:
    """The verdict at the first deciding look, and whether every interval on the way held the truth."""
    r, before, covered = heavy(rng, n_max, centre), 0.0, True
    for fraction in statistics.look_fractions(5):
        total = statistics.spent(fraction, alpha)
        judged = statistics.judge(r[: int(n_max * fraction)], gate=gate, level=total - before, alpha=alpha)
        if statistics.critical_rank(judged.rounds, total - before) >= 0:
            before = total
            covered &= judged.ci[0] <= math.exp(centre) <= judged.ci[1]
        if judged.verdict != "inconclusive":
            break
    return judged.verdict, covered


def test_no_margin_and_equal_arms_give_at_most_one_percent_false_alarms_over_all_looks() -> None:
    rng = RNG(3)
    verdicts = [_sequence(rng, 0.0, 0.0, 0.01)[0] for _ in range(1500)]
    assert verdicts.count("regressed") <= 22  # 15 expected at most; three standard deviations above would be 27
    assert verdicts.count("ok") <= 22


def test_a_slowdown_beyond_the_gate_is_found_and_never_called_ok() -> None:
    rng = RNG(4)
    verdicts = [_sequence(rng, math.log(1.05), 0.02, 0.01)[0] for _ in range(200)]
    assert verdicts.count("regressed") >= 198
    assert verdicts.count("ok") == 0


def test_the_repeated_interval_covers_the_truth_at_all_looks_together() -> None:
    rng = RNG(5)
    covered = [_sequence(rng, 0.01, 0.02, 0.025)[1] for _ in range(600)]
    assert sum(covered) >= 0.94 * 600


NOISE: dict[str, Callable[[np.random.Generator, int, int], statistics.Floats]] = {
    "normal": lambda rng, *size: rng.standard_normal(size),
    "t2": lambda rng, *size: rng.standard_t(2, size),
    "exponential": lambda rng, *size: rng.exponential(size=size) - 0.8392,  # whose Walsh averages have the median 0
    "outliers": lambda rng, *size: rng.standard_normal(size) * np.where(rng.random(size) < 0.1, 10, 1),
}
LAST = 1 - statistics.spent(0.5, 1.0)
"""The share of alpha that the last of the looks has, at which the interval is made."""


def power(noise: str, n: int, alpha: float, gate: float | None, tries: int) -> float:
    """How often n rounds show what n other rounds of the same noise name as seen, from the gate where there is one."""
    rounds = 0.001 * NOISE[noise](RNG(100 + n), tries, n) + math.log1p(gate or 0.0)
    judged = [statistics.judge(r, gate=gate, level=LAST * alpha, alpha=alpha) for r in rounds]
    lacking = np.sort([math.log1p(gate or 0.0) - math.log(one.ci[0]) for one in judged])
    return float(np.searchsorted(lacking, [math.log1p(one.mde) for one in judged]).mean()) / tries


@pytest.mark.parametrize("noise", NOISE)
def test_what_is_seen_is_seen_eight_times_in_ten(noise: str) -> None:
    cases = [(8, 0.025, None), (30, 0.025, None), (30, 0.01, 0.02)]
    assert [round(power(noise, *case, 400), 2) for case in cases] == pytest.approx([0.8] * 3, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize(("alpha", "gate"), [(0.025, None), (0.01, 0.02)])
def test_what_is_seen_is_seen_eight_times_in_ten_whatever_the_rounds(
    noise: str, alpha: float, gate: float | None
) -> None:
    for n in (8, 10, 12, 16, 21, 30, 51, 82, 100)[gate is not None :]:
        assert power(noise, n, alpha, gate, 1000) == pytest.approx(0.8, abs=0.05 if n < 18 else 0.04), n


def test_what_is_seen_lies_beyond_the_interval_and_shrinks_with_the_rounds() -> None:
    widths = {}
    for n in (50, 200, 800):
        judged = statistics.judge(RNG(7).normal(0, 0.02, n), gate=None, level=0.025, alpha=0.025)
        assert judged.mde > 1.4 * judged.half_width
        widths[n] = judged.mde
    assert widths[50] / widths[200] == pytest.approx(2, rel=0.2)
    assert widths[200] / widths[800] == pytest.approx(2, rel=0.2)


def test_too_few_rounds_for_the_level_see_nothing_and_equal_rounds_see_everything() -> None:
    assert statistics.smallest_visible_change(RNG(0).normal(size=6), 0.01) == math.inf
    assert statistics.smallest_visible_change([], 0.01) == math.inf
    assert statistics.smallest_visible_change([0.1] * 20, 0.01) == 0


def test_too_few_rounds_say_what_their_interval_is_worth() -> None:
    judged = statistics.judge([0.01, 0.02, 0.03, 0.04], gate=None, level=0.01, alpha=0.025)
    assert judged.confidence == pytest.approx(1 - 2 / 16)
    assert judged.ci == pytest.approx((math.exp(0.01), math.exp(0.04)))
    assert judged.verdict == "estimated"
    assert statistics.judge([0.5] * 4, gate=0.02, level=0.01, alpha=0.01).verdict == "inconclusive"


def test_no_round_at_all_is_inconclusive() -> None:
    assert statistics.judge([], gate=0.02, level=0.01, alpha=0.01).verdict == "inconclusive"
    assert statistics.judge([], gate=None, level=0.01, alpha=0.01).reason == "no round was finished"


def test_a_wide_inconclusive_result_says_what_it_could_have_seen() -> None:
    judged = statistics.judge(RNG(8).normal(0, 0.3, 30), gate=0.02, level=0.01, alpha=0.01)
    assert judged.verdict == "inconclusive"
    assert "increase the budget" in judged.reason


def test_holm_adjusts_in_order_and_never_decreases() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_the_control_fails_only_when_off_by_more_than_half_the_gate_and_surely() -> None:
    rng = RNG(9)
    assert statistics.control_failed(rng.normal(0.02, 0.005, 50), 0.02)
    assert not statistics.control_failed(rng.normal(0.005, 0.001, 50), 0.02)
    assert not statistics.control_failed(rng.normal(0.0, 0.01, 50), 0.02)
    assert not statistics.control_failed([0.5] * 3, 0.02)


def test_refusals_have_their_reasons() -> None:
    def refusal(*, control: float = 0.0, dropped: float = 0.0, settled: bool = True, steady: bool = True) -> str:
        noise = RNG(1).normal(control, 0.001, 40)
        return statistics.refusal(control=noise, gate=0.02, dropped=dropped, settled=settled, steady=steady)

    assert refusal() == ""
    assert "control failed" in refusal(control=0.05)
    assert "30 % of the rounds" in refusal(dropped=0.3)
    assert "faster" in refusal(settled=False)
    assert "changed" in refusal(steady=False)
