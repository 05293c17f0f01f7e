"""`--seeds auto` beside AdaStop, simulated: wrong verdicts and the seeds they use.

    python -m benchmarks.bench_seeds --runs 500

Both see the same errors of two networks with `difference`, in standard deviations of one network's error over seeds.
Paired seeds share a part of the error, their correlation. AdaStop is our reading of its published procedure (Mathieu
et al., arXiv 2306.10882) for one pair: groups of `GROUP` runs of each side, at most `LOOKS`; the statistic is the sum
over groups of the difference of sums in each; its null is labels exchanged within groups; a look's boundary is the
quantile that spends `alpha * look / LOOKS` by then, over permutations that passed no earlier boundary. It was held
against the package `adastop` 0.1.3 once, whose boundary spends alpha on one side (`docs/related.md`).
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from senet_bench.core.sequential import ALPHA, Stopping

Floats = NDArray[np.float64]
GROUP, LOOKS, PERMUTATIONS = 5, 6, 2000
DIFFERENCES = (0.0, 0.5, 1.0, 2.0)
SPREAD = 0.01
"""Standard deviation of an error over seeds, as a fraction; `--seeds auto`'s width is half of it."""


def adastop(ours: Floats, theirs: Floats, rng: np.random.Generator) -> tuple[int, int]:
    """The sign that is told (0 for none) and the runs of each side."""
    passed = np.zeros(PERMUTATIONS, dtype=bool)
    sums, statistic, spent = np.zeros(PERMUTATIONS), 0.0, 0
    for look in range(1, LOOKS + 1):
        part = slice((look - 1) * GROUP, look * GROUP)
        both = np.concatenate([ours[part], theirs[part]])
        statistic += ours[part].sum() - theirs[part].sum()
        shuffled = rng.permuted(np.tile(both, (PERMUTATIONS, 1)), axis=1)
        sums += shuffled[:, :GROUP].sum(1) - shuffled[:, GROUP:].sum(1)
        share = int(ALPHA * look / LOOKS * PERMUTATIONS) - spent
        left = np.sort(np.abs(sums[~passed]))[::-1]
        boundary = left[share]
        if abs(statistic) > boundary:
            return int(np.sign(statistic)), look * GROUP
        above = ~passed & (np.abs(sums) > boundary)
        spent += int(above.sum())
        passed |= above
    return 0, LOOKS * GROUP


def automatic(ours: Floats, theirs: Floats) -> tuple[int, int]:
    """The same of `--seeds auto`; 0 also where the difference is shown to be small."""
    stopping = Stopping(width=SPREAD / 2, most=GROUP * LOOKS)
    for look, seeds in enumerate(stopping.looks):
        known = stopping.judged(look, {0: (list(ours[:seeds]), list(theirs[:seeds]))}, {})[0]
        if known.verdict != "open":
            return {"lower": -1, "higher": 1}.get(known.verdict, 0), seeds
    return 0, stopping.most


def simulated(difference: float, correlation: float, runs: int) -> list[tuple[str, float, float, float]]:
    """By method: its name, the fractions of wrong and of right signs, and the mean of the seeds of each side."""
    rng, told = np.random.default_rng(0), dict[str, list[tuple[int, int]]]()
    for _ in range(runs):
        shared = rng.standard_normal(GROUP * LOOKS) * correlation**0.5
        own = rng.standard_normal((2, GROUP * LOOKS)) * (1 - correlation) ** 0.5
        theirs, ours = 0.1 + SPREAD * (shared + own[0]), 0.1 + SPREAD * (shared + own[1] + difference)
        told.setdefault("--seeds auto", []).append(automatic(ours, theirs))
        told.setdefault("AdaStop", []).append(adastop(ours, theirs, rng))
    out = []
    for name, pairs in told.items():
        signs, seeds = np.array(pairs).T
        wrong = signs != 0 if difference == 0 else signs < 0
        right = signs > 0 if difference > 0 else signs == 0
        out.append((name, float(wrong.mean()), float(right.mean()), float(seeds.mean())))
    return out


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    runs = parser.parse_args().runs
    head = "| correlation of pairs | difference, sd | method | false signs | right | seeds |"
    sys.stdout.write(f"{head}\n|--:|--:|---|--:|--:|--:|\n")
    for correlation in (0.0, 0.5):
        for difference in DIFFERENCES:
            for name, wrong, right, seeds in simulated(difference, correlation, runs):
                line = f"| {correlation:g} | {difference:g} | {name} | {wrong:.1%} | {right:.0%} | {seeds:.1f} |"
                sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
