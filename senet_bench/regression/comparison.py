"""The rows of a check, as they are found: against a commit, against stored facts, and within this checkout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from senet_bench.errors import BenchError, NotComparableError
from senet_bench.regression import exact, judgement, measurement
from senet_bench.regression import launches as duets
from senet_bench.regression.baselines import RECORD, Baselines, MachineFacts, StoredLatency
from senet_bench.regression.checkouts import Checkout
from senet_bench.regression.config import Config, Ratio
from senet_bench.regression.configfile import load
from senet_bench.regression.facts import Portable
from senet_bench.regression.limits import PORTABLE
from senet_bench.regression.outcome import Row
from senet_bench.regression.pytest_benchmark import imported
from senet_bench.regression.workers import Asked, Looked, Progress, launches, look

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
    environment: Mapping[str, Any]

    @property
    def asked(self) -> Asked:
        """What worker processes are asked for."""
        return measurement.asked_of(self.config, self.config.networks)

    # --- against a commit -----------------------------------------------------------------------------------

    def against(self, base: Checkout) -> Iterator[Progress | Row]:
        """Every metric of the base's checkout against this one's, in worker processes."""
        yield from self._vanished_from(base)
        yield Progress("exact facts", 0, 1)
        first, second = look([base.folder, self.options.folder], self.asked, memory="memory" in self.config.metrics)
        timed = []
        for network in self.config.networks:
            problem = _unlike(network.name, first, second, base)
            if problem is not None:
                yield problem
                continue
            facts = [Portable(**_tupled(one.facts[network.name])) for one in (first, second)]
            yield from self._exact(network.name, facts[0], facts[1])
            if "memory" in self.config.metrics:
                gate = self.config.gate(network.name, "memory")
                yield exact.memory_row(network.name, first.peaks[network.name], second.peaks[network.name], gate)
            timed.append(network)
        if "latency" in self.config.metrics and timed:
            yield from self._duets(base, replace(self.asked, networks=timed))

    def _vanished_from(self, base: Checkout) -> Iterator[Row]:
        """An error for each network that the base's config names and this one's does not."""
        path = self.options.config_path
        inside = base.folder / path if path is not None and not path.is_absolute() else None
        try:
            before = load(inside, base.folder)
        except BenchError:
            return  # the base had no config, or one that it could not use
        yield from self._missing([one.name for one in before.networks])

    def _missing(self, before: Sequence[str]) -> Iterator[Row]:
        whole = load(self.options.config_path, self.options.folder) if self.options.only else self.config
        names = {one.name for one in whole.networks}
        for name in before:
            if name not in names:
                yield judgement.failed(name, "network", f"{name} is in the base and not in the check: it vanished")

    def _duets(self, base: Checkout, asked: Asked) -> Iterator[Progress | Row]:
        rows: list[Row] = []
        for step in self._timed(base, asked, self.options.seed):
            if isinstance(step, Progress):
                yield step
            else:
                rows.append(step)
        slower = {row.network for row in rows if row.verdict == "fail"}
        again = replace(asked, networks=[one for one in asked.networks if one.name in slower])
        for step in self._timed(base, again, self.options.seed + CONFIRMING_SEED) if slower else ():
            if isinstance(step, Progress):
                yield replace(step, what=f"{step.what}, to confirm")
            else:
                place = next(i for i, row in enumerate(rows) if row.network == step.network)
                rows[place] = duets.confirmed(rows[place], step)
        yield from rows

    def _timed(self, base: Checkout, asked: Asked, seed: int) -> Iterator[Progress | Row]:
        """The rows of latency: after the launches asked for, and after as many again where these do not decide."""
        config, rows = self.config, dict[str, Row]()
        arms = {arm: base.folder if arm.startswith("base") else self.options.folder for arm in duets.ARMS}
        found: dict[str, list[duets.Launch]] = {one.name: [] for one in asked.networks}
        for turn, level in enumerate(duets.levels(config.alpha)):
            undecided = [
                one for one in asked.networks if one.name not in rows or rows[one.name].verdict == "inconclusive"
            ]
            try:
                for step in launches(
                    arms,
                    replace(asked, networks=undecided),
                    count=config.launches,
                    budget_s=config.budget_s,
                    seed=seed + turn,
                ):
                    if isinstance(step, Progress):
                        yield replace(step, what=f"{step.what}{', once more' * turn}")
                        continue
                    for name, samples in step.items():
                        found[name] += [duets.Launch(**one) for one in samples]
                        gate = config.gate(name, "latency")
                        rows[name] = duets.duet_row(name, found[name], gate, level=level, alpha=config.alpha)
            except BenchError as error:
                rows |= {one.name: judgement.failed(one.name, "latency", str(error)) for one in undecided}
            rows = dict(zip(rows, duets.after_holm(list(rows.values()), level)))
            if not any(row.verdict == "inconclusive" for row in rows.values()):
                break
        yield from rows.values()

    # --- against what is stored -------------------------------------------------------------------------------

    def against_stored(self) -> Iterator[Progress | Row]:
        """Every metric against the recorded facts; a stored latency is judged only when that was asked for."""
        stored = self.baselines.portable()
        if stored is None and any(metric in PORTABLE for metric in self.config.metrics):
            raise NotComparableError(f"no baseline in {self.baselines.folder}", RECORD)
        before = stored.networks if stored else {}
        kept = self.config.only(self.options.only)
        yield from self._missing([name for name in before if self.options.only is None])
        torch = ".".join(str(self.environment["packages"]["torch"]).split(".")[:2])
        same_torch = stored is None or stored.torch == torch
        for done, network in enumerate(kept.networks):
            yield Progress(network.name, done, len(kept.networks))
            if network.name in before:
                was = before[network.name].portable()
                yield from self._against_facts(network.name, network.input_size, was, same_torch)
            elif stored is not None:
                yield judgement.failed(network.name, "baseline", f"{network.name} is new: {RECORD}", "new")
        yield from self._machine()

    def _against_facts(self, name: str, size: tuple[int, int, int], was: Portable, same_torch: bool) -> Iterator[Row]:
        try:
            now = measurement.facts(name, size)
        except BenchError as error:
            yield judgement.failed(name, "build", str(error))
            return
        if tuple(was.input_size) != size:
            shapes = ["x".join(map(str, one)) for one in (was.input_size, size)]
            why = f"recorded for {shapes[0]} images and checked with {shapes[1]}; accept {name} anew"
            yield judgement.failed(name, "input_size", why, "not comparable")
            return
        for row in self._exact(name, was, now):
            if row.metric == "operators" and row.verdict == "fail" and not same_torch:
                why = f"{row.reason}; recorded with another version of torch, accept {name}:operators anew"
                yield replace(row, verdict="not comparable", reason=why)
            else:
                yield row

    def _exact(self, name: str, was: Portable, now: Portable) -> Iterator[Row]:
        for metric in PORTABLE:
            if metric in self.config.metrics:
                row = exact.exact_row(name, metric, was, now, self.config.gate(name, metric))
                yield row if self.options.base is None else replace(row, stale=False)

    def _machine(self) -> Iterator[Progress | Row]:
        """Memory against the file of this machine, and latency beside it; refused on another machine."""
        config, key = self.config, str(self.environment["machine"])
        judged = {"memory"} if "memory" in config.metrics else set()
        judged |= {"latency"} if "latency" in config.metrics and self.options.stored else set()
        found = self.baselines.machine(key)
        if found is None:
            differing = self.baselines.differing(key, self.environment["hard"])
            why = f"no facts of this machine ({key}) are recorded"
            why += f"; {differing}" if differing else f"; {RECORD}, or leave memory and latency out"
            if judged or "latency" in config.metrics:
                row = judgement.failed("machine", "+".join(sorted(judged)) or "latency", why)
                yield replace(row, verdict="not comparable" if judged else "info")
            return
        for network in config.networks:
            was = found.networks.get(network.name, MachineFacts())
            if "memory" in judged:
                yield self._memory(network.name, network.input_size, was.peak_bytes)
        if "latency" in config.metrics:
            yield from self._stored_latency({name: one.latency for name, one in found.networks.items() if one.latency})

    def _memory(self, name: str, size: tuple[int, int, int], was: int | None) -> Row:
        if was is None:
            return judgement.failed(name, "memory", f"no peak memory of {name} is recorded here: {RECORD}", "new")
        try:
            now = measurement.peak(name, size, self.config)
        except BenchError as error:
            return judgement.failed(name, "memory", str(error))
        return exact.memory_row(name, was, now, self.config.gate(name, "memory"))

    def _stored_latency(self, before: Mapping[str, StoredLatency]) -> Iterator[Progress | Row]:
        known = [one for one in self.config.networks if one.name in before]
        judged = self.options.stored
        for one in self.config.networks:
            if one.name not in before:
                yield judgement.failed(
                    one.name, "latency", f"no latency of {one.name} is recorded here: {RECORD}", "new"
                )
        if not known:
            return
        asked = replace(self.asked, networks=known)
        count = self.config.launches if judged else 1
        try:
            for step in measurement.latency_now(
                asked, self.options.folder, count, self.config.budget_s, self.options.seed
            ):
                if isinstance(step, Progress):
                    yield step
                    continue
                for name, now in step.items():
                    yield self._stored_row(name, before[name], now)
        except BenchError as error:
            yield from (judgement.failed(one.name, "latency", str(error)) for one in known)

    def _stored_row(self, name: str, was: StoredLatency, now: StoredLatency) -> Row:
        if differing := was.unlike(now):
            why = f"recorded with {differing}; accept {name}:latency anew"
            return judgement.failed(name, "latency", why, "not comparable" if self.options.stored else "info")
        return judgement.stored_row(name, was, now, self.config.gate(name, "latency"), judged=self.options.stored)

    # --- within this checkout -----------------------------------------------------------------------------------

    def within(self) -> Iterator[Progress | Row]:
        """The ratios of networks to their baselines, and predictions of the same images."""
        rows = []
        timed = sum(one.metric == "latency" for one in self.config.ratios)
        for done, ratio in enumerate(self.config.ratios):
            yield Progress(ratio.id, done, len(self.config.ratios))
            rows.append(self._ratio(ratio, max(1, timed)))
        yield from rows
        yield from self._benchmarks()
        for pair in self.config.predictions if "accuracy" in self.config.metrics else ():
            try:
                yield judgement.accuracy_row(pair, self.config.gate(pair.network, "accuracy"), self.config.alpha)
            except NotComparableError as error:
                yield judgement.failed(pair.network, "accuracy", str(error), "not comparable")
            except BenchError as error:
                yield judgement.failed(pair.network, "accuracy", str(error))

    def _benchmarks(self) -> Iterator[Row]:
        """The times in two files of pytest-benchmark, unpaired; a benchmark that vanished is an error."""
        if self.options.benchmarks is None:
            return
        base, head = (imported(path) for path in self.options.benchmarks)
        for name, was in base.items():
            if name in head:
                gate = self.config.gates["latency"]
                yield judgement.stored_row(name, was, head[name], gate, judged=self.options.stored)
            else:
                yield judgement.failed(
                    name, "latency", f"{name} is in {self.options.benchmarks[0]} and not in the other"
                )

    def _ratio(self, ratio: Ratio, comparisons: int) -> Row:
        try:
            if ratio.metric != "latency":
                return measurement.counted_ratio(ratio, self.config)
            first = measurement.timed_ratio(ratio, self.config, self.config.alpha / comparisons, self.options.seed)
            if first.verdict != "fail":
                return first
            seed = self.options.seed + CONFIRMING_SEED
            return duets.confirmed(
                first, measurement.timed_ratio(ratio, self.config, self.config.alpha / comparisons, seed)
            )
        except BenchError as error:
            return judgement.failed(ratio.network, f"{ratio.metric}-ratio", str(error))


def _unlike(name: str, first: Looked, second: Looked, base: Checkout) -> Row | None:
    """Why a network of base and head cannot be compared, None when it can."""
    if name in second.errors:
        return judgement.failed(name, "build", f"{name} cannot be run: {second.errors[name][0]}")
    if name in first.errors:
        why, missing = first.errors[name]
        if missing:
            return judgement.failed(name, "baseline", f"{name} is new: the base has none ({why})", "new")
        return judgement.failed(name, "build", f"{name} of the base cannot be run: {why}")
    source = Path(first.sources[name]).resolve()
    if not source.is_relative_to(base.folder.resolve()):
        why = f"{name} comes from {source}, which is not in the checkout: base and head are the same"
        return judgement.failed(name, "build", why, "not comparable")
    return None


def _tupled(facts: Mapping[str, Any]) -> dict[str, Any]:
    size = facts["input_size"]
    return {**facts, "input_size": (size[0], size[1], size[2])}
