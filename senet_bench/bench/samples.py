"""The rounds as recorded, and the comparison computed from them; the raw samples stay with the result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from senet_bench.bench.clock import TimedCalls
from senet_bench.core.intervals import t_quantile
from senet_bench.core.results import Latency
from senet_bench.core.statistics import CONTROL_LEVEL, Floats, Judgement, judge
from senet_bench.errors import MeasurementError

FEWEST_CPU_EPOCHS = 3
"""With fewer epochs the ratio of CPU times has no interval."""


@dataclass(slots=True)
class Samples:
    """Seconds of every block by round and arm, also of dropped rounds; nan where an arm did not run."""

    arms: tuple[str, ...]
    seconds: list[tuple[float, ...]] = field(default_factory=list)
    cpu_seconds: list[tuple[float, ...]] = field(default_factory=list)
    means: list[tuple[float, ...]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    epoch: list[int] = field(default_factory=list)

    def add(self, blocks: Mapping[str, TimedCalls], dropped: str, epoch: int) -> None:
        """Record a round; `dropped` is why it does not count."""
        self.seconds.append(tuple(blocks[a].seconds if a in blocks else math.nan for a in self.arms))
        self.cpu_seconds.append(tuple(blocks[a].cpu_seconds if a in blocks else math.nan for a in self.arms))
        self.means.append(tuple(blocks[a].mean if a in blocks else math.nan for a in self.arms))
        self.dropped.append(dropped)
        self.epoch.append(epoch)

    @property
    def rounds(self) -> int:
        """Rounds run, dropped ones too."""
        return len(self.seconds)

    @property
    def kept(self) -> int:
        """Rounds that count."""
        return self.dropped.count("")

    @property
    def dropped_share(self) -> float:
        """Dropped rounds as a fraction of all."""
        return 1 - self.kept / self.rounds if self.rounds else 0.0

    def of(self, arm: str) -> Floats:
        """The kept blocks of an arm, in seconds."""
        return self._kept(self.seconds, arm)

    def cpu_of(self, arm: str) -> Floats:
        """CPU seconds of a call, in the kept blocks of an arm."""
        return self._kept(self.cpu_seconds, arm)

    def mean_of(self, arm: str) -> float:
        """Seconds of a call over all calls in the kept blocks of an arm, nan where no clock told them."""
        means = self._kept(self.means, arm)
        return float(means.mean()) if means.size else math.nan

    def log_ratios(self, arm: str, baseline: str, *, cpu: bool = False) -> Floats:
        """ln(arm / baseline) of the kept rounds in which both ran, of wall or CPU seconds."""
        columns = [self.arms.index(arm), self.arms.index(baseline)]
        pairs = self._matrix(self.cpu_seconds if cpu else self.seconds)[:, columns]
        pairs = pairs[(pairs > 0).all(axis=1)]
        return np.asarray(np.log(pairs[:, 0] / pairs[:, 1]))

    def cpu_by_epoch(self, arm: str, baseline: str) -> Floats:
        """ln(arm / baseline) of CPU times, the median of each epoch's kept rounds in which both ran."""
        columns = [self.arms.index(arm), self.arms.index(baseline)]
        pairs = self._matrix(self.cpu_seconds)[:, columns]
        epochs = np.array([epoch for epoch, why in zip(self.epoch, self.dropped) if not why])
        valid = (pairs > 0).all(axis=1)
        ratios, epochs = np.log(pairs[valid, 0] / pairs[valid, 1]), epochs[valid]
        return np.array([float(np.median(ratios[epochs == epoch])) for epoch in np.unique(epochs)])

    def settled(self, arms: Collection[str]) -> bool:
        """Whether no arm's later half is, at its median, over 2 % faster than the fastest of its earlier half."""
        halves = [(s[: s.size // 2], s[s.size // 2 :]) for s in map(self.of, arms) if s.size >= 2]
        return all(np.median(later) >= 0.98 * earlier.min() for earlier, later in halves)

    def _matrix(self, rows: list[tuple[float, ...]]) -> Floats:
        keep = np.array([not why for why in self.dropped], dtype=bool)
        matrix: Floats = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(self.arms))
        return np.asarray(matrix[keep])

    def _kept(self, rows: list[tuple[float, ...]], arm: str) -> Floats:
        column = self._matrix(rows)[:, self.arms.index(arm)]
        return np.asarray(column[~np.isnan(column)])


@dataclass(frozen=True, slots=True)
class ArmLatency:
    """One arm: median and floor over its blocks in seconds of a call, mean of all its calls, CPU seconds, judgement.

    The baseline has no judgement.
    """

    name: str
    seconds: float
    mean: float
    floor: float
    cpu_seconds: float
    judgement: Judgement | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arms timed in the same rounds: every arm, the control's judgement, and the conditions of belief in them."""

    baseline: str
    arms: Mapping[str, ArmLatency]
    control: Judgement
    settled: bool
    rounds: int
    dropped: Mapping[str, int]
    epochs: int
    elapsed_s: float
    samples: Samples
    remedy: str = ""

    def latency(self, arm: str) -> Latency:
        """What is stored of an arm; raises `MeasurementError` where no round of it counts."""
        known, judged = self.arms[arm], self.arms[arm].judgement
        if not math.isfinite(known.seconds):
            lost = ", ".join(f"{count} dropped: {why}" for why, count in self.dropped.items())
            raise MeasurementError(
                f"the budget held no round to keep ({lost or 'one call of each network took longer'})",
                self.remedy,
            )
        latency = Latency(
            seconds=known.seconds,
            floor=known.floor,
            mean_seconds=_finite(known.mean),
            cpu_seconds=_finite(known.cpu_seconds),
            rounds=self.rounds - sum(self.dropped.values()),
            settled=self.settled,
            dropped=dict(self.dropped),
            epochs=self.epochs,
            elapsed_s=self.elapsed_s,
        )
        return latency if judged is None else self._judged(latency, arm, judged)

    def _judged(self, latency: Latency, arm: str, judged: Judgement) -> Latency:
        """The latency with what its rounds say beside the baseline's."""
        cpu = self.samples.cpu_by_epoch(arm, self.baseline)
        ratios = np.exp(self.samples.log_ratios(arm, self.baseline))
        return replace(
            latency,
            ratio=_finite(judged.ratio),
            ci=_bounds(judged),
            confidence=judged.confidence,
            quartiles=_quartiles(ratios),
            rounds=judged.rounds,
            mde=_finite(judged.mde),
            verdict=judged.verdict,
            reason=judged.reason,
            control_ratio=_finite(self.control.ratio),
            control_ci=_bounds(self.control),
            cpu_ratio=math.exp(float(cpu.mean())) if cpu.size else None,
            cpu_ci=_cpu_interval(cpu),
            p_worse=judged.p_worse,
            p_ok=judged.p_ok,
        )


def comparison_of(
    samples: Samples,
    baseline: str,
    control: str,
    judgements: Mapping[str, Judgement],
    settled: bool,
    elapsed_s: float,
    epochs: int,
) -> Comparison:
    """The latency of every arm that the samples hold, and their judgements."""
    arms = {name: _arm(samples, name, judgements.get(name)) for name in samples.arms if name != control}
    return Comparison(
        baseline=baseline,
        arms=arms,
        control=judge(samples.log_ratios(control, baseline), gate=None, level=CONTROL_LEVEL, alpha=CONTROL_LEVEL),
        settled=settled,
        rounds=samples.rounds,
        dropped=Counter(why for why in samples.dropped if why),
        epochs=epochs,
        elapsed_s=elapsed_s,
        samples=samples,
    )


def _quartiles(ratios: Floats) -> tuple[float, float] | None:
    if not ratios.size:
        return None
    low, high = np.quantile(ratios, (0.25, 0.75))
    return float(low), float(high)


def _cpu_interval(by_epoch: Floats) -> tuple[float, float] | None:
    """The 95 % t interval of the mean over epochs of the ratio of CPU times; None of fewer than `FEWEST_CPU_EPOCHS`.

    Two copies of one network keep differing for as long as they live, so that the rounds of an epoch are no replicates.
    """
    if by_epoch.size < FEWEST_CPU_EPOCHS:
        return None
    half = t_quantile(by_epoch.size - 1, 0.975) * float(by_epoch.std(ddof=1)) / math.sqrt(by_epoch.size)
    middle = float(by_epoch.mean())
    return math.exp(middle - half), math.exp(middle + half)


def _arm(samples: Samples, name: str, judgement: Judgement | None) -> ArmLatency:
    seconds, cpu = samples.of(name), samples.cpu_of(name)
    if seconds.size == 0:
        return ArmLatency(name, math.nan, math.nan, math.nan, math.nan, judgement)
    mean, typical = samples.mean_of(name), float(np.median(seconds))
    mean = mean if math.isfinite(mean) else typical
    return ArmLatency(name, typical, mean, float(seconds.min()), float(np.median(cpu)), judgement)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bounds(judged: Judgement) -> tuple[float, float] | None:
    return judged.ci if all(map(math.isfinite, judged.ci)) else None
