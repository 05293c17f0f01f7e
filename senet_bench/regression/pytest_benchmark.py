"""pytest-benchmark's JSON: a report's times written so that its tools read them, and its files read as latencies."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from senet_bench.core.results import header
from senet_bench.core.store import read
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.regression.limits import Limit
from senet_bench.regression.outcome import LimitRow, Report, Verdict, failed

LARGEST_FILE = 256 << 20
FEWEST_ROUNDS = 5
BETWEEN_PROCESSES = 0.01
"""Two processes of identical code differ by this much, which no file tells (the sd of the logarithm of times)."""
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class Stats(msgspec.Struct):
    """The part of a benchmark's statistics that is read; seconds."""

    min: Positive
    median: Positive
    rounds: Annotated[int, msgspec.Meta(ge=1)]
    stddev: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None

    @property
    def variance(self) -> float | None:
        """That of the logarithm of the median, None where the file has no spread."""
        if self.stddev is None or self.rounds < FEWEST_ROUNDS:
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


class File(msgspec.Struct):
    """A file that pytest-benchmark saved."""

    benchmarks: list[Benchmark]


def compared(paths: tuple[Path, Path], limit: Callable[[str, str], Limit], alpha: float) -> list[LimitRow]:
    """The times in two files of pytest-benchmark, base and head; a benchmark that vanished is an error."""
    base, head = (imported(path) for path in paths)
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
    verdict: Verdict = "fail" if change - half > allowed else "pass" if change + half < allowed else "inconclusive"
    return replace(row, verdict=verdict)


def imported(path: Path) -> dict[str, Stats]:
    """The statistics in a file of pytest-benchmark by full name; `UsageError` for another or a damaged file."""
    data = read(path)
    if len(data) > LARGEST_FILE:
        raise UsageError(f"{path} is larger than {LARGEST_FILE >> 20} MiB", "save it without --benchmark-save-data")
    try:
        found = msgspec.convert(header(data, str(path)), File)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path} is no file of pytest-benchmark ({error})", "make it with --benchmark-json") from error
    if not found.benchmarks:
        raise MeasurementError(f"{path} holds no benchmark", "run pytest with its benchmarks")
    names = [benchmark.key for benchmark in found.benchmarks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{path} has two benchmarks called {twice}", "give them different names")
    return {benchmark.key: benchmark.stats for benchmark in found.benchmarks}


def exported(report: Report) -> dict[str, Any]:
    """The report's times as a file that `pytest-benchmark compare` reads."""
    hard, head = report.machine.hard, report.baseline.head
    machine = {"node": report.machine.key, "processor": hard.get("cpu"), "machine": hard.get("isa")}
    machine |= {"cpu": {"brand_raw": hard.get("cpu"), "count": hard.get("cores")}, "python_version": ""}
    machine |= {"system": "", "release": "", "python_implementation": "", "python_compiler": ""}
    commit = {"id": head or "unknown", "dirty": head.endswith("+")}
    return {
        "machine_info": machine,
        "commit_info": {**commit, "time": report.created, "branch": "", "project": "senet-bench"},
        "benchmarks": [_benchmark(row) for row in report.rows if row.unit == "s" and isinstance(row.now, float)],
        "datetime": report.created,
        "version": "5.1.0",
    }


def _benchmark(row: LimitRow) -> dict[str, Any]:
    """A row of time; spreads are those between launches, where there were several."""
    now = float(row.now or 0.0)
    times = [now * math.exp(one - statistics.fmean(row.launches)) for one in row.launches] or [now]
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [now, now, now]
    stats = {
        "min": min(times),
        "max": max(times),
        "mean": statistics.fmean(times),
        "stddev": statistics.stdev(times) if len(times) > 1 else 0.0,
        "rounds": row.rounds or 1,
        "median": statistics.median(times),
        "iqr": quartiles[2] - quartiles[0],
        "q1": quartiles[0],
        "q3": quartiles[2],
        "iqr_outliers": 0,
        "stddev_outliers": 0,
        "outliers": "0;0",
        "ld15iqr": min(times),
        "hd15iqr": max(times),
        "ops": 1 / now,
        "total": sum(times),
        "iterations": 1,
    }
    extra = {"verdict": row.verdict, "ratio": row.ratio, "ci": row.ci, "gate": row.gate}
    options = {
        "disable_gc": True,
        "timer": "perf_counter",
        "min_rounds": 1,
        "max_time": 0,
        "min_time": 0,
        "warmup": True,
    }
    names = {"group": row.metric, "name": row.network, "fullname": row.id, "params": None, "param": None}
    return {**names, "extra_info": extra, "options": options, "stats": stats}
