"""The rows of a check, as they are found: against stored facts, and within this checkout."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from senet_bench.core.catalog import CATALOG
from senet_bench.core.environment import Environment
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.specs import is_outside
from senet_bench.errors import BenchError, NotComparableError, out_of_memory
from senet_bench.regression import exact, files, launches, measurement
from senet_bench.regression.baselines import (
    RECORD,
    Baselines,
    MachineBaseline,
    MachineFacts,
    StoredLatency,
    torch_here,
)
from senet_bench.regression.config import CheckedNetwork, Config, Inconclusive, Ratio, numbered
from senet_bench.regression.facts import Portable
from senet_bench.regression.limits import portable_metrics
from senet_bench.regression.outcome import GateVerdict, LimitRow, failed, with_seconds
from senet_bench.regression.timing import CONFIRMING_SEED
from senet_bench.regression.workers import Orders


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a check is run: against which commit (None: the stored facts), on which networks, with which seed.

    `by_head`: this checkout's configuration judges, also against a commit.
    """

    base: str | None = None
    only: str | None = None
    stored: bool = False
    seed: int = 0
    folder: Path = field(default_factory=Path)
    config_path: Path | None = None
    by_head: bool = False
    inconclusive: Inconclusive | None = None
    benchmarks: tuple[Path, Path] | None = None
    command: str = "senet-bench check"


@dataclass(frozen=True, slots=True)
class Rows:
    """One check: its rows, as they are found."""

    config: Config
    baselines: Baselines
    options: Options
    environment: Environment
    facts: dict[str, Portable] = field(default_factory=dict)
    """What was found of this checkout's networks, by name."""

    @property
    def work(self) -> Orders:
        """What worker processes measure."""
        return measurement.work_of(self.config, self.config.networks)

    def _missing(self, before: Mapping[str, object]) -> list[LimitRow]:
        """A row for each network that is recorded and no longer checked."""
        names = {network.name for network in self.config.networks}
        gone = [name for name in before if name not in names and (name in CATALOG or is_outside(name))]
        return [vanished(name, "is recorded and not in the check") for name in gone]  # others are of tests, once

    # --- against what is stored -------------------------------------------------------------------------------

    def against_stored(self) -> Steps[list[LimitRow]]:
        """Every metric against the recorded facts; a stored latency is judged only when that was asked for."""
        stored = self.baselines.portable()
        if stored is None and any(metric in portable_metrics() for metric in self.config.metrics):
            raise NotComparableError(f"no baseline in {self.baselines.folder}", RECORD)
        before = stored.networks if stored else {}
        torch = stored.torch if stored else ""
        rows = self._missing(before) if self.options.only is None else []
        for done, network in enumerate(self.config.networks):
            yield Progress(network.name, done, len(self.config.networks))
            if network.name in before:
                began = time.monotonic()
                judged = list(self._against_facts(network, before[network.name].portable(), torch))
                rows += with_seconds(judged, time.monotonic() - began)
            elif stored is not None:
                rows.append(failed(network.name, "baseline", f"{network.name} is new: {RECORD}", "new"))
        return rows + (yield from self._machine())

    def _against_facts(self, network: CheckedNetwork, was: Portable, torch: str) -> Iterator[LimitRow]:
        name, size = network.name, network.input_size
        try:
            now = measurement.facts_here(network, function="outputs" in self.config.metrics)
        except BenchError as error:
            yield _broken(name, error)
            return
        self.facts[name] = now
        if tuple(was.input_size) != size:
            shapes = ["x".join(map(str, one)) for one in (was.input_size, size)]
            why = f"recorded for {shapes[0]} images and checked with {shapes[1]}; accept {name} anew"
            yield failed(name, "input_size", why, "not comparable")
            return
        file, line = measurement.code_place_here(name)
        for found in self._exact(name, was, now):
            row = exact.across_torch(found, torch, torch_here(), f"accept {name}:operators anew")
            yield replace(row, file=file, line=line)

    def _exact(self, name: str, was: Portable, now: Portable) -> Iterator[LimitRow]:
        for metric in portable_metrics():
            if metric in self.config.metrics:
                limit, free = self.config.limit(name, metric), not self.config.limit(name, "state_dict").judged
                yield exact.exact_row(name, metric, was, now, limit, weights_free=free)

    def _machine(self) -> Steps[list[LimitRow]]:
        """Memory against the file of this machine, and latency beside it; refused on another machine."""
        config, key = self.config, self.environment.machine
        judged = ["latency"] if "latency" in config.metrics and self.options.stored else []
        judged += ["memory"] if "memory" in config.metrics else []
        machine = self.baselines.machine(key)
        if machine is None:
            return [self._other_machine(key, judged)] if judged or "latency" in config.metrics else []
        rows = [self._memory(network, machine) for network in config.networks if "memory" in judged]
        if "latency" in config.metrics:
            before = {name: facts.latency for name, facts in machine.networks.items() if facts.latency}
            rows += yield from self._stored_latency(before)
        return rows

    def _other_machine(self, key: str, judged: Sequence[str]) -> LimitRow:
        """The row of a machine that nothing is recorded of, and how it differs from the likest recorded one."""
        differing = self.baselines.differing(key, asdict(self.environment.hard))
        why = f"no facts of this machine ({key}) are recorded"
        why += f"; {differing}" if differing else f"; {RECORD}, or leave memory and latency out"
        return failed("machine", "+".join(judged) or "latency", why, "not comparable" if judged else "info")

    def _memory(self, network: CheckedNetwork, machine: MachineBaseline) -> LimitRow:
        name = network.name
        was = machine.facts(name)
        if was.peak_bytes is None:
            return failed(name, "memory", f"no peak memory of {name} is recorded here: {RECORD}", "new")
        if differing := was.unlike(MachineFacts(batch_size=self.config.batch_size, input_size=network.input_size)):
            why = f"recorded with {differing}; accept {name}:memory anew"
            return failed(name, "memory", why, "not comparable")
        try:
            now = measurement.peak(network, self.config)
        except BenchError as error:
            return failed(name, "memory", str(error))
        return exact.memory_row(name, was.peak_bytes, now, self.config.limit(name, "memory"))

    def _stored_latency(self, before: Mapping[str, StoredLatency]) -> Steps[list[LimitRow]]:
        known = [network for network in self.config.networks if network.name in before]
        rows = [
            failed(network.name, "latency", f"no latency of {network.name} is recorded here: {RECORD}", "new")
            for network in self.config.networks
            if network.name not in before
        ]
        if not known:
            return rows
        count = self.config.launches if self.options.stored else 1
        schedule = launches.Launches(launches=count, budget_s=self.config.budget_s, seed=self.options.seed)
        work = replace(self.work, networks=known)
        try:
            latencies = yield from measurement.latencies(work, self.options.folder, schedule)
        except BenchError as error:
            return rows + [failed(network.name, "latency", str(error)) for network in known]
        return rows + [self._stored_row(name, before[name], now) for name, now in latencies.items()]

    def _stored_row(self, name: str, was: StoredLatency, now: StoredLatency) -> LimitRow:
        if differing := was.unlike(now):
            why = f"recorded with {differing}; accept {name}:latency anew"
            return failed(name, "latency", why, "not comparable" if self.options.stored else "info")
        return measurement.stored_row(name, was, now, self.config.limit(name, "latency"), judged=self.options.stored)

    # --- within this checkout -----------------------------------------------------------------------------------

    def within(self) -> Steps[list[LimitRow]]:
        """The ratios of networks to their baselines, and predictions of the same images."""
        rows = []
        timed = sum(ratio.metric == "latency" for ratio in self.config.ratios)
        for done, (name, ratio) in enumerate(zip(self.config.ratio_ids, self.config.ratios)):
            yield Progress(name, done, len(self.config.ratios))
            rows.append(replace(self._ratio(ratio, max(1, timed)), id=name))
        if self.options.benchmarks is not None:
            rows += files.compared_files(self.options.benchmarks, self.config.limit, self.config.alpha)
        return rows + (self._accuracy() if "accuracy" in self.config.metrics else [])

    def _accuracy(self) -> list[LimitRow]:
        rows = []
        for pair in self.config.predictions:
            limit = self.config.limit(pair.network, "accuracy")
            try:
                rows.append(files.accuracy_row(pair, limit, self.config.alpha))
            except NotComparableError as error:
                rows.append(failed(pair.network, "accuracy", str(error), "not comparable"))
            except BenchError as error:
                rows.append(failed(pair.network, "accuracy", str(error)))
        return [replace(row, id=name) for row, name in zip(rows, numbered(row.id for row in rows))]

    def _ratio(self, ratio: Ratio, comparisons: int) -> LimitRow:
        try:
            if ratio.metric != "latency":
                return measurement.counted_ratio_here(ratio, self.config)
            first = measurement.timed_ratio(ratio, self.config, self.config.alpha / comparisons, self.options.seed)
            if first.verdict != "fail":
                return first
            seed = self.options.seed + CONFIRMING_SEED
            return launches.confirmed(
                first, measurement.timed_ratio(ratio, self.config, self.config.alpha / comparisons, seed)
            )
        except BenchError as error:
            return failed(ratio.network, f"{ratio.metric}-ratio", str(error))


def vanished(name: str, where: str) -> LimitRow:
    """The row of a network that a change takes out: it fails until it is accepted or allowed."""
    return failed(name, "network", f"{name} {where}: it vanished", "fail")


def _broken(name: str, error: BenchError) -> LimitRow:
    """The row of a network that was recorded and cannot be run now: the change broke it, unless memory ran out."""
    verdict: GateVerdict = "error" if out_of_memory(error) else "fail"
    return failed(name, "build", f"{error}; it could when it was recorded", verdict)
