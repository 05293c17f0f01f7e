"""Rows judged from files that were made elsewhere: pytest-benchmark's JSON, and predictions of the same images."""

from __future__ import annotations

import math
import statistics
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from senet_bench.core.files import read_file
from senet_bench.core.results import Seconds, json_object
from senet_bench.errors import BenchError, MeasurementError, UsageError
from senet_bench.regression.config import PredictionPair
from senet_bench.regression.limits import Limit
from senet_bench.regression.outcome import GateVerdict, LimitRow, failed

if TYPE_CHECKING:
    from senet_bench.training.evaluation import Predictions

LARGEST_BENCHMARK = 256 << 20
FEWEST_STORED_ROUNDS = 5
BETWEEN_PROCESSES = 0.01
"""Two processes of identical code differ by this much, which no file tells (the sd of the logarithm of times)."""


class Stats(msgspec.Struct):
    """The part of a benchmark's statistics that is read; seconds."""

    min: Seconds
    median: Seconds
    rounds: Annotated[int, msgspec.Meta(ge=1)]
    stddev: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None

    @property
    def variance(self) -> float | None:
        """That of the logarithm of the median, None where the file has no spread."""
        if self.stddev is None or self.rounds < FEWEST_STORED_ROUNDS:
            return None
        return (math.pi / 2) * (self.stddev / self.median) ** 2 / self.rounds + BETWEEN_PROCESSES**2


class Benchmark(msgspec.Struct):
    """A benchmark; its full name has the file and the class."""

    name: str
    stats: Stats
    fullname: str = ""

    @property
    def key(self) -> str:
        """What it is known by."""
        return self.fullname or self.name


class BenchmarkFile(msgspec.Struct):
    """A file that pytest-benchmark saved."""

    benchmarks: list[Benchmark]


def compared_files(paths: tuple[Path, Path], limit: Callable[[str, str], Limit], alpha: float) -> list[LimitRow]:
    """The times in two files of pytest-benchmark, base and head; a benchmark that vanished is an error."""
    base, head = (benchmark_stats(path) for path in paths)
    rows = []
    for name, was in base.items():
        if name in head:
            rows.append(_row(name, was, head[name], limit(name, "latency"), alpha))
        else:
            rows.append(failed(name, "latency", f"{name} is in {paths[0]} and not in the other"))
    return rows


def _row(name: str, base: Stats, now: Stats, limit: Limit, alpha: float) -> LimitRow:
    """The ratio of two medians against the limit: beyond it, inside it, or not decided at `alpha`, one-sided."""
    change, allowed = math.log(now.median / base.median), math.log1p(limit.fraction(base.median))
    row = LimitRow(
        id=f"{name}/latency",
        network=name,
        metric="latency",
        kind="stored",
        verdict="inconclusive" if limit.judged and change > allowed else "info",
        reason=f"unpaired, {100 * math.expm1(change):+.1f} % by the medians of pytest-benchmark",
        base=base.median,
        now=now.median,
        unit="s",
        ratio=math.exp(change),
        gate=limit.stored(),
        rounds=now.rounds,
    )
    if base.variance is None or now.variance is None:
        return replace(row, reason=f"{row.reason}; too few rounds or no spread in the files to judge it")
    half = statistics.NormalDist().inv_cdf(1 - alpha) * math.sqrt(base.variance + now.variance)
    row = replace(row, ci=(math.exp(change - half), math.exp(change + half)), confidence=1 - 2 * alpha)
    if not limit.judged:
        return row
    verdict: GateVerdict = "fail" if change - half > allowed else "pass" if change + half < allowed else "inconclusive"
    return replace(row, verdict=verdict)


def benchmark_stats(path: Path) -> dict[str, Stats]:
    """The statistics in a file of pytest-benchmark by full name; `UsageError` for another or a damaged file."""
    data = read_file(path)
    if len(data) > LARGEST_BENCHMARK:
        raise UsageError(
            f"{path} is larger than {LARGEST_BENCHMARK >> 20} MiB", "save it without --benchmark-save-data"
        )
    try:
        benchmarks = msgspec.convert(json_object(data, str(path)), BenchmarkFile)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path} is no file of pytest-benchmark ({error})", "make it with --benchmark-json") from error
    if not benchmarks.benchmarks:
        raise MeasurementError(f"{path} holds no benchmark", "run pytest with its benchmarks")
    names = [benchmark.key for benchmark in benchmarks.benchmarks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{path} has two benchmarks called {twice}", "give them different names")
    return {benchmark.key: benchmark.stats for benchmark in benchmarks.benchmarks}


# --- predictions -----------------------------------------------------------------------------------------------


def accuracy_row(pair: PredictionPair, limit: Limit, alpha: float) -> LimitRow:
    """Two networks on the same images: the difference of their errors against the limit.

    It fails only where the one-sided interval at `alpha` lies above the limit, and passes only where it lies below;
    McNemar's p, against no difference at all, is told beside it.
    """
    from senet_bench.training.evaluation import paired_errors

    first, second = (_loaded(path) for path in (pair.base, pair.head))
    paired = paired_errors(first, second, 1 - 2 * alpha)
    worse, most = paired.difference, limit.absolute or 0.0
    low, high = paired.ci or (-1.0, 1.0)
    p = paired.p_value if paired.p_value is not None else 1.0
    verdict: GateVerdict = "inconclusive"
    if low > most:
        verdict = "fail"
    elif high < most or (p == 1.0 and worse == 0 and not (first.wrong ^ second.wrong).any()):
        verdict = "pass"
    reason = (
        f"top-1 error {100 * worse:+.2f} pt on {paired.n:,} images (gate +{100 * most:g} pt), McNemar p = {p:.2g},"
        f" {100 * (1 - 2 * alpha):g} % interval {100 * low:+.2f} to {100 * high:+.2f} pt"
    )
    return LimitRow(
        id=f"{pair.network}/accuracy",
        network=pair.network,
        metric="accuracy",
        kind="paired",
        verdict=verdict if limit.judged else "info",
        reason=reason,
        base=first.top1_err,
        now=second.top1_err,
        unit="top-1 error",
        gate=limit.stored(),
        p_worse=None,
        confidence=1 - 2 * alpha,
        rounds=paired.n,
    )


def _loaded(path: Path) -> Predictions:
    """The predictions in a file; any damage is a `BenchError` that names it."""
    from senet_bench.training.evaluation import Predictions

    if not path.is_file():
        raise BenchError(f"predictions {path} are not there", "make them with evaluate --keep-predictions")
    if not zipfile.is_zipfile(path):
        raise BenchError(f"{path} holds no predictions", "make it with evaluate --keep-predictions")
    try:
        predictions = Predictions.load(path)
        shapes = {len(one) for one in (predictions.rows, predictions.labels, predictions.best, predictions.losses)}
    except (zipfile.BadZipFile, zlib.error, EOFError, TypeError, MemoryError) as error:
        raise BenchError(f"{path} is damaged ({type(error).__name__})", "make it again") from error
    if len(shapes) != 1 or predictions.best.ndim != 2 or not len(predictions) or not predictions.best.shape[1]:
        raise BenchError(f"{path} is damaged (its parts do not fit)", "make it again")
    return predictions
