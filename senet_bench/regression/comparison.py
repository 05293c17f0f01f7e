"""The rows of a check, as they are found: against a commit, against stored facts, and within this checkout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from senet_bench.core.environment import Environment
from senet_bench.core.progress import Progress, Steps
from senet_bench.errors import BenchError, NotComparableError
from senet_bench.regression import exact, files, measurement
from senet_bench.regression import launches as timing
from senet_bench.regression.baselines import RECORD, Baselines, MachineBaseline, MachineFacts, StoredLatency
from senet_bench.regression.config import Checked, Config, Ratio
from senet_bench.regression.configfile import load_config
from senet_bench.regression.facts import Portable
from senet_bench.regression.limits import portable_metrics
from senet_bench.regression.outcome import LimitRow, failed
from senet_bench.regression.workers import Checkout, Orders, Survey, look

CONFIRMING_SEED = 1000
"""Added to the seed where a failure is measured a second time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a check is run: against which commit (None: the stored facts), on which networks, with which seed."""

    base: str | None = None
    only: str | None = None
    stored: bool = False
    seed: int = 0
    folder: Path = field(default_factory=Path)
    config_path: Path | None = None
    benchmarks: tuple[Path, Path] | None = None
    command: str = "senet-bench check"


@dataclass(frozen=True, slots=True)
class Rows:
    """One check: its rows, as they are found."""

    config: Config
    baselines: Baselines
    options: Options
    environment: Environment

    @property
    def work(self) -> Orders:
        """What worker processes measure."""
        return measurement.work_of(self.config, self.config.networks)

    # --- against a commit -----------------------------------------------------------------------------------

    def against(self, base: Checkout) -> Steps[list[LimitRow]]:
        """Every metric of the base's checkout against this one's, in worker processes."""
        rows = self._vanished_from(base)
        yield Progress("exact facts", 0, 1)
        first, second = look([base.folder, self.options.folder], self.work, memory="memory" in self.config.metrics)
        timed = []
        for network in self.config.networks:
            problem = _unlike(network.name, first, second, base)
            if problem is None:
                rows += self._of_surveys(network.name, first, second)
                timed.append(network)
            else:
                rows.append(problem)
        if "latency" in self.config.metrics and timed:
            rows += yield from self._latency(base, replace(self.work, networks=timed))
        return rows

    def _of_surveys(self, name: str, first: Survey, second: Survey) -> list[LimitRow]:
        """The rows of a network's exact facts and its memory."""
        base, head = (Portable(**_tupled(survey.facts[name])) for survey in (first, second))
        rows = list(self._exact(name, base, head))
        if "memory" in self.config.metrics:
            limit = self.config.limit(name, "memory")
            rows.append(exact.memory_row(name, first.peaks[name], second.peaks[name], limit))
        return rows

    def _vanished_from(self, base: Checkout) -> list[LimitRow]:
        """An error for each network that the base's config names and this one's does not."""
        path = self.options.config_path
        inside = base.folder / path if path is not None and not path.is_absolute() else None
        try:
            before = load_config(inside, base.folder)
        except BenchError:
            return []  # the base had no config, or one that it could not use
        return self._missing([network.name for network in before.networks])

    def _missing(self, before: Sequence[str]) -> list[LimitRow]:
        whole = load_config(self.options.config_path, self.options.folder) if self.options.only else self.config
        names, why = {network.name for network in whole.networks}, "is in the base and not in the check: it vanished"
        return [failed(name, "network", f"{name} {why}") for name in before if name not in names]

    def _latency(self, base: Checkout, work: Orders) -> Steps[list[LimitRow]]:
        """The rows of latency; what failed is measured a second time, and failed only if it does so again."""
        rows = yield from self._timed(base, work, self.options.seed)
        slower = [network for network in work.networks if rows[network.name].verdict == "fail"]
        if slower:
            seed = self.options.seed + CONFIRMING_SEED
            again = yield from self._timed(base, replace(work, networks=slower), seed, note=", to confirm")
            rows |= {name: timing.confirmed(rows[name], row) for name, row in again.items()}
        return list(rows.values())

    def _timed(self, base: Checkout, work: Orders, seed: int, note: str = "") -> Steps[dict[str, LimitRow]]:
        """The rows of latency: after the launches asked for, and after as many again where these do not decide."""
        config, rows = self.config, dict[str, LimitRow]()
        arms = {arm: base.folder if arm.startswith("base") else self.options.folder for arm in timing.ARMS}
        launches: dict[str, list[timing.Launch]] = {network.name: [] for network in work.networks}
        for turn, level in enumerate(timing.levels(config.alpha)):
            undecided = [network for network in work.networks if _undecided(rows.get(network.name))]
            schedule = timing.Launches(
                launches=config.launches,
                budget_s=config.budget_s,
                seed=seed + turn,
                note=f"{', once more' * turn}{note}",
            )
            try:
                samples = yield from timing.launch(arms, replace(work, networks=undecided), schedule)
            except BenchError as error:
                rows |= {network.name: failed(network.name, "latency", str(error)) for network in undecided}
            else:
                for name, more in samples.items():
                    launches[name] += map(timing.Launch.of, more)
                    limit = config.limit(name, "latency")
                    rows[name] = timing.latency_row(name, launches[name], limit, level=level, alpha=config.alpha)
            rows = dict(zip(rows, timing.after_holm(list(rows.values()), level)))
            if not any(row.verdict == "inconclusive" for row in rows.values()):
                break
        return rows

    # --- against what is stored -------------------------------------------------------------------------------

    def against_stored(self) -> Steps[list[LimitRow]]:
        """Every metric against the recorded facts; a stored latency is judged only when that was asked for."""
        stored = self.baselines.portable()
        if stored is None and any(metric in portable_metrics() for metric in self.config.metrics):
            raise NotComparableError(f"no baseline in {self.baselines.folder}", RECORD)
        before = stored.networks if stored else {}
        rows = self._missing([name for name in before if self.options.only is None])
        torch = ".".join(self.environment.packages["torch"].split(".")[:2])
        same_torch = stored is None or stored.torch == torch
        for done, network in enumerate(self.config.networks):
            yield Progress(network.name, done, len(self.config.networks))
            if network.name in before:
                rows += self._against_facts(network, before[network.name].portable(), same_torch)
            elif stored is not None:
                rows.append(failed(network.name, "baseline", f"{network.name} is new: {RECORD}", "new"))
        return rows + (yield from self._machine())

    def _against_facts(self, network: Checked, was: Portable, same_torch: bool) -> Iterator[LimitRow]:
        name, size = network.name, network.input_size
        try:
            now = measurement.facts_here(name, size)
        except BenchError as error:
            yield failed(name, "build", str(error))
            return
        if tuple(was.input_size) != size:
            shapes = ["x".join(map(str, one)) for one in (was.input_size, size)]
            why = f"recorded for {shapes[0]} images and checked with {shapes[1]}; accept {name} anew"
            yield failed(name, "input_size", why, "not comparable")
            return
        for row in self._exact(name, was, now):
            if row.metric == "operators" and row.verdict == "fail" and not same_torch:
                why = f"{row.reason}; recorded with another version of torch, accept {name}:operators anew"
                yield replace(row, verdict="not comparable", reason=why)
            else:
                yield row

    def _exact(self, name: str, was: Portable, now: Portable) -> Iterator[LimitRow]:
        for metric in portable_metrics():
            if metric in self.config.metrics:
                row = exact.exact_row(name, metric, was, now, self.config.limit(name, metric))
                yield row if self.options.base is None else replace(row, stale=False)

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

    def _memory(self, network: Checked, machine: MachineBaseline) -> LimitRow:
        name, size = network.name, network.input_size
        was = machine.networks.get(name, MachineFacts()).peak_bytes
        if was is None:
            return failed(name, "memory", f"no peak memory of {name} is recorded here: {RECORD}", "new")
        try:
            now = measurement.peak(name, size, self.config)
        except BenchError as error:
            return failed(name, "memory", str(error))
        return exact.memory_row(name, was, now, self.config.limit(name, "memory"))

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
        schedule = timing.Launches(launches=count, budget_s=self.config.budget_s, seed=self.options.seed)
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
        for done, ratio in enumerate(self.config.ratios):
            yield Progress(ratio.id, done, len(self.config.ratios))
            rows.append(self._ratio(ratio, max(1, timed)))
        if self.options.benchmarks is not None:
            rows += files.compared(self.options.benchmarks, self.config.limit, self.config.alpha)
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
        return rows

    def _ratio(self, ratio: Ratio, comparisons: int) -> LimitRow:
        try:
            if ratio.metric != "latency":
                return measurement.counted_ratio_here(ratio, self.config)
            first = measurement.timed_ratio(ratio, self.config, self.config.alpha / comparisons, self.options.seed)
            if first.verdict != "fail":
                return first
            seed = self.options.seed + CONFIRMING_SEED
            return timing.confirmed(
                first, measurement.timed_ratio(ratio, self.config, self.config.alpha / comparisons, seed)
            )
        except BenchError as error:
            return failed(ratio.network, f"{ratio.metric}-ratio", str(error))


def _undecided(row: LimitRow | None) -> bool:
    return row is None or row.verdict == "inconclusive"


def _unlike(name: str, first: Survey, second: Survey, base: Checkout) -> LimitRow | None:
    """Why a network of base and head cannot be compared, None when it can."""
    if name in second.errors:
        return failed(name, "build", f"{name} cannot be run: {second.errors[name][0]}")
    if name in first.errors:
        why, missing = first.errors[name]
        if missing:
            return failed(name, "baseline", f"{name} is new: the base has none ({why})", "new")
        return failed(name, "build", f"{name} of the base cannot be run: {why}")
    source = Path(first.sources[name]).resolve()
    if not source.is_relative_to(base.folder.resolve()):
        why = f"{name} comes from {source}, which is not in the checkout: base and head are the same"
        return failed(name, "build", why, "not comparable")
    return None


def _tupled(facts: Mapping[str, Any]) -> dict[str, Any]:
    size = facts["input_size"]
    return {**facts, "input_size": (size[0], size[1], size[2])}
