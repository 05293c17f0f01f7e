"""Latency of base and head within a bounded time: launches, as many again where these do not decide, a confirmation."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from senet_bench.core.progress import Progress, Steps
from senet_bench.errors import BenchError
from senet_bench.regression import launches as launching
from senet_bench.regression.config import CheckedNetwork, Config
from senet_bench.regression.outcome import LimitRow, failed
from senet_bench.regression.workers import Nursery, Orders

CONFIRMING_SEED = 1000
"""Added to the seed where a failure is measured a second time."""
WARM_S = 1.2
"""About the seconds that a worker takes to build and warm up four copies of a small network."""
FOR_FAILURES, AT_THE_END = 0.4, 0.1
"""The share of the time that is kept to confirm failures, and where none is in sight."""
WIDER = 0.1
"""The bound that a busy machine may decide instead of the limit, a fraction."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the check is to end."""

    max_seconds: float
    began: float = field(default_factory=time.monotonic)

    def left(self, share: float = 0.0) -> float:
        """Seconds until then, less a share of all."""
        return self.began + (1 - share) * self.max_seconds - time.monotonic()

    def launch_s(self, config: Config, networks: int) -> float:
        """About the seconds of one launch."""
        return networks * (WARM_S + config.budget_s)

    def forecast(self, config: Config, networks: int) -> str:
        """What is told before the first launch."""
        seconds = min(config.launches * self.launch_s(config, networks), max(self.left(), 0.0))
        return f"latency of {networks} networks: about {seconds:.0f} s, at most {max(self.left(), 0.0):.0f} s"


@dataclass(frozen=True, slots=True)
class Duel:
    """Base and head to be timed: their folders, under which configuration, from which seed, until when.

    The `nursery` forks the workers.
    """

    base: Path
    head: Path
    config: Config
    seed: int
    deadline: Deadline
    nursery: Nursery | None = None

    def rows(self, networks: Sequence[CheckedNetwork], work: Orders) -> Steps[list[LimitRow]]:
        """The rows of latency; what failed is measured a second time, and failed only if it does so again."""
        work = replace(work, networks=tuple(networks))
        yield Progress(self.deadline.forecast(self.config, len(networks)), 0, 1, forecast=True)
        rows = yield from self._timed(work, self.seed, FOR_FAILURES)
        slower = [network for network in networks if rows[network.name].verdict == "fail"]
        if slower:
            again = yield from self._timed(
                replace(work, networks=slower), self.seed + CONFIRMING_SEED, 0.0, "to confirm"
            )
            rows |= {name: launching.confirmed(rows[name], row) for name, row in again.items()}
        return list(rows.values())

    def _timed(self, work: Orders, seed: int, reserved: float, note: str = "") -> Steps[dict[str, LimitRow]]:
        """The rows after the launches asked for, and after as many again where these do not decide."""
        config, launches = self.config, {network.name: list[launching.Launch]() for network in work.networks}
        rows = dict[str, LimitRow]()
        for turn, level in enumerate(launching.levels(config.alpha)):
            open_now = tuple(one for one in work.networks if _undecided(rows.get(one.name)))
            if turn and not any(map(self._slower, rows.values())):
                reserved = min(reserved, AT_THE_END)
            notes = [", once more"] * turn + [f", {note}"] * bool(note)
            schedule = launching.Launches(
                launches=2 * config.launches - _launched(launches, open_now) if turn else config.launches,
                budget_s=config.budget_s,
                seed=seed + turn,
                note="".join(notes),
                until=time.monotonic() + self.deadline.left(reserved),
                clock="cpu",
                limits={network.name: config.limit(network.name, "latency") for network in open_now},
                as_one=True,
            )
            try:
                orders = replace(work, networks=open_now)
                samples = yield from launching.launch(self._arms(), orders, schedule, self.nursery)
            except BenchError as error:
                rows |= {network.name: failed(network.name, "latency", str(error)) for network in open_now}
            else:
                if turn and not any(samples.values()):
                    break  # no time for another: what was judged stands
                rows |= self._judged(launches, samples, level)
            rows = dict(zip(rows, launching.after_holm(list(rows.values()), level)))
            if not any(_undecided(row) for row in rows.values()):
                break
        return {name: self._ended(row, launches[name]) for name, row in rows.items()}

    def _slower(self, row: LimitRow) -> bool:
        """Whether a row may come to fail: it was not measured, or is beyond its limit and surely slower at all."""
        if row.ratio is None or row.ci is None:
            return True
        return row.ratio > 1 + self._allowed(row) and row.ci[0] > 1

    def _allowed(self, row: LimitRow) -> float:
        base = row.base if isinstance(row.base, float) else 0.0
        return self.config.limit(row.network, "latency").fraction(base)

    def _judged(
        self,
        launches: Mapping[str, list[launching.Launch]],
        samples: Mapping[str, Sequence[launching.Launched]],
        level: float,
    ) -> dict[str, LimitRow]:
        """The rows after some more launches, which are added to those before."""
        rows = {}
        for name, more in samples.items():
            launches[name].extend(map(launching.Launch.of, more))
            limit, alpha = self.config.limit(name, "latency"), self.config.alpha
            rows[name] = (
                launching.latency_row(name, launches[name], limit, level=level, alpha=alpha)
                if launches[name]
                else failed(name, "latency", "not measured", "inconclusive")
            )
        return rows

    def _ended(self, row: LimitRow, launches: Sequence[launching.Launch]) -> LimitRow:
        """The row; an undecided one says when it was the time that ended it, and passes to a wider bound if it can."""
        if row.verdict != "inconclusive":
            return row
        ended = len(launches) < 2 * self.config.launches
        why = f"{len(launches)} launches did not tell"
        if ended:
            why = f"max_seconds = {self.config.max_seconds:g} ended it after {len(launches)} launches"
        if not busy() or row.ci is None or not self._within_wider(row):
            return replace(row, reason=f"{row.reason}; {why}; raise it") if ended else row
        most, allowed = 100 * (row.ci[1] - 1), 100 * self._allowed(row)
        text = f"not slower by more than {most:.2g} %; whether by {allowed:.2g} % is not known: {why} on a busy machine"
        return replace(row, verdict="pass", reason=text, wider=True)

    def _within_wider(self, row: LimitRow) -> bool:
        """Whether a row may pass to the wider bound: not by the interval of too few pairs, which holds less surely."""
        if row.ci is None or not row.control_ok or self._slower(row):
            return False
        return row.ci[1] <= 1 + WIDER and (row.confidence or 0.0) >= 1 - 2 * self.config.alpha

    def _arms(self) -> dict[str, Path]:
        return {arm: self.base if arm.startswith("base") else self.head for arm in launching.ARMS}


def busy() -> bool:
    """Whether more wants to run on this machine than it has cores; False where the system does not say."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


def _launched(launches: Mapping[str, Sequence[object]], networks: Sequence[CheckedNetwork]) -> int:
    """The fewest launches that any of these networks has had."""
    return min((len(launches[network.name]) for network in networks), default=0)


def _undecided(row: LimitRow | None) -> bool:
    return row is None or row.verdict == "inconclusive"
