"""Seeds until it is known: paired differences are looked at as seeds are added, and what is said holds over all looks.

Group-sequential: each look has its share of the error (Lan and DeMets' spending function like Pocock's), divided as
Holm does among the rows that are not shown to differ yet. One interval a look says all: where it leaves out 0 the sign
is known, where it lies within the width the difference is known to be no larger. The shares of all looks add up to
`ALPHA`, so a false sign is told in at most 5 of 100 runs (simulated in the tests). AdaStop (Mathieu et al., 2023) has
the same aim with permutations in place of t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from senet_bench.core.results import Seeding
from senet_bench.core.statistics import spent
from senet_bench.errors import UsageError

ALPHA = 0.05
FIRST_LOOK = 6
GROWTH = 1.5
SeedVerdict = Literal["lower", "higher", "same", "open"]


@dataclass(frozen=True, slots=True)
class Stopping:
    """When seeds are enough: a difference is known to `width`, a fraction, or its sign is; `most` seeds at all."""

    width: float = 0.005
    most: int = 30

    def __post_init__(self) -> None:
        """Raise `UsageError` where there would be no look."""
        if self.most < FIRST_LOOK:
            raise UsageError(f"--max-seeds {self.most} leaves no look", f"give {FIRST_LOOK} or more")

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many seeds the differences are looked at."""
        counts = [FIRST_LOOK]
        while counts[-1] < self.most:
            counts.append(min(self.most, math.ceil(counts[-1] * GROWTH)))
        return tuple(counts)

    def level(self, look: int) -> float:
        """The share of the error of a look, by its place."""
        fractions = [0.0, *(seeds / self.most for seeds in self.looks)]
        return spent(fractions[look + 1], ALPHA) - spent(fractions[look], ALPHA)

    def judged(
        self, look: int, pairs: Mapping[int, tuple[Sequence[float], Sequence[float]]], known: Mapping[int, Seeding]
    ) -> dict[int, Seeding]:
        """What is known of each row at a look: what was known before, and what the pairs of the other rows show.

        `pairs` are by row the errors of the row and of what it is compared with, in the order of the seeds.
        """
        decided = {row: seeding for row, seeding in known.items() if seeding.verdict != "open"}
        differing = sum(seeding.verdict in ("lower", "higher") for seeding in decided.values())
        judged = dict(decided)
        remaining = {row: both for row, both in pairs.items() if row not in decided}
        family = len(remaining) + len(decided) - differing
        while remaining:
            shown = {row: self._of(both, self.level(look) / max(1, family)) for row, both in remaining.items()}
            apart = {row: seeding for row, seeding in shown.items() if seeding.verdict in ("lower", "higher")}
            judged |= apart or shown
            if not apart:
                break
            remaining = {row: both for row, both in remaining.items() if row not in apart}
            family -= len(apart)  # those shown to differ leave the others their share
        return judged

    def _of(self, both: tuple[Sequence[float], Sequence[float]], alpha: float) -> Seeding:
        from senet_bench.core.intervals import paired_seeds

        ours, theirs = both
        paired = paired_seeds(theirs, ours, 1 - alpha)
        verdict: SeedVerdict = "open"
        needed = None
        if paired.ci is None:  # every seed has the same difference
            if paired.difference == 0:
                verdict = "same"
            elif paired.p_value is not None and paired.p_value <= alpha:
                verdict = "lower" if paired.difference < 0 else "higher"
        elif paired.ci[0] > 0 or paired.ci[1] < 0:
            verdict = "lower" if paired.ci[1] < 0 else "higher"
        elif -self.width <= paired.ci[0] and paired.ci[1] <= self.width:
            verdict = "same"
        else:
            needed = self._needed(paired.difference, (paired.ci[1] - paired.ci[0]) / 2, paired.n)
        return Seeding(
            verdict=verdict, seeds=paired.n, width=self.width, ci=paired.ci, confidence=1 - ALPHA, needed=needed
        )

    def _needed(self, difference: float, half: float, seeds: int) -> int:
        """About how many seeds more would tell if the difference and its spread stayed (width as 1 / sqrt(seeds))."""
        reach = max(abs(difference), self.width - abs(difference))
        return max(1, math.ceil(seeds * (half / reach) ** 2) - seeds)
