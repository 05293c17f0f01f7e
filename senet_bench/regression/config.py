"""What is checked: networks, metrics, limits, ratios, predictions, exceptions; `configfile` reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from senet_bench.core.catalog import normalise
from senet_bench.core.specs import Allocator, Conditions
from senet_bench.errors import UsageError
from senet_bench.regression.limits import Limit, judged_metrics, usual_limits

Inconclusive = Literal["warn", "pass", "fail"]
ALLOCATORS: tuple[Allocator, ...] = ("as-is", "tuned")
INCONCLUSIVE: tuple[Inconclusive, ...] = ("warn", "pass", "fail")
FEWEST_LAUNCHES, MOST_LAUNCHES, MOST_SECONDS = 3, 100, 3600


@dataclass(frozen=True, slots=True)
class CheckedNetwork:
    """A network to check: a catalog name or `package.module:callable`, and the images it is given (C, H, W).

    It is made with `arguments`, and called with `inputs` instead of images where there are any. `flops_of` is the
    import string of formulas for operators that are not counted.
    """

    name: str
    input_size: tuple[int, int, int]
    arguments: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[Mapping[str, object], ...] = ()
    flops_of: str | None = None

    @property
    def how(self) -> dict[str, object] | None:
        """How it is made, called and counted, None where as usual."""
        if not self.arguments and not self.inputs and self.flops_of is None:
            return None
        inputs = [dict(one) for one in self.inputs] or None
        return {"arguments": dict(self.arguments), "inputs": inputs, "flops_of": self.flops_of}

    def request(self) -> list[object]:
        """What a worker is told of it."""
        return [self.name, list(self.input_size), self.how]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A limit on a network against its baseline, both of this checkout."""

    network: str
    baseline: str
    metric: str
    limit: Limit

    @property
    def id(self) -> str:
        """The row's name, unless another ratio has it too."""
        return f"{self.network}/{self.metric}-ratio"


@dataclass(frozen=True, slots=True)
class PredictionPair:
    """Files of predictions of the same images by the base's and by this checkout's network."""

    network: str
    base: Path
    head: Path


@dataclass(frozen=True, slots=True)
class Drift:
    """A limit on what changes add up to since a release: a commit or tag that has recorded facts."""

    since: str
    limit: Limit


@dataclass(frozen=True, slots=True)
class Allowed:
    """An exception: rows whose id matches may fail until that day."""

    id: str
    until: date
    reason: str

    def covers(self, row: str) -> bool:
        """Whether a row's id (`network/metric`, or a network's name) is meant."""
        return matches(row, self.id) or matches(row, f"{self.id}/*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The validated table; `limits` are those of every metric, `special` those of patterns, later ones stronger.

    `path` is the file's, relative to the folder that is checked, where one was named; `max_seconds` bound a check
    against a commit. `beside` are networks that are not checked: ratios of those that are stand over them.
    """

    source: str
    networks: tuple[CheckedNetwork, ...]
    beside: tuple[CheckedNetwork, ...] = ()
    path: Path | None = None
    metrics: tuple[str, ...] = field(default_factory=lambda: tuple(judged_metrics()))
    limits: Mapping[str, Limit] = field(default_factory=usual_limits)
    special: tuple[tuple[str, str, Limit], ...] = ()
    ratios: tuple[Ratio, ...] = ()
    predictions: tuple[PredictionPair, ...] = ()
    allowed: tuple[Allowed, ...] = ()
    drift: Drift | None = None
    alpha: float = 0.01
    budget_s: float = 1.5
    launches: int = 5
    max_seconds: float = 300.0
    threads: int = 1
    batch_size: int = 1
    allocator: Allocator = "as-is"
    inconclusive: Inconclusive = "warn"

    @property
    def conditions(self) -> Conditions:
        """How networks are run."""
        return Conditions(threads=self.threads, batch_size=self.batch_size, allocator=self.allocator)

    @property
    def ratio_ids(self) -> list[str]:
        """The names of the rows of `ratios`; those of one network and metric name their baselines."""
        counts = Counter(one.id for one in self.ratios)
        return [one.id if counts[one.id] == 1 else name for name, one in by_name(self.ratios).items()]

    def limit(self, network: str, metric: str) -> Limit:
        """The limit of a metric of a network."""
        fitting = [limit for pattern, name, limit in self.special if name == metric and matches(network, pattern)]
        return fitting[-1] if fitting else self.limits[metric]

    def allowance(self, row: str) -> Allowed | None:
        """The exception for a row that holds longest, None without one."""
        return max((one for one in self.allowed if one.covers(row)), key=lambda one: one.until, default=None)

    def overridden(
        self, budget_s: float | None, launches: int | None, allocator: Allocator | None, inconclusive: str | None = None
    ) -> Config:
        """It with what a command line says instead; `UsageError` on values that measure nothing."""
        budget_s = self.budget_s if budget_s is None else budget_s
        launches = self.launches if launches is None else launches
        if not 0 < budget_s < MOST_SECONDS:
            raise UsageError(f"--budget {budget_s:g} measures nothing or too much", "give some seconds, such as 1.5")
        if not FEWEST_LAUNCHES <= launches <= MOST_LAUNCHES:
            raise UsageError(f"--launches must be {FEWEST_LAUNCHES} to {MOST_LAUNCHES}, not {launches}", "use 5")
        meant = meaning(inconclusive or self.inconclusive, "--inconclusive")
        allocator = allocator or self.allocator
        return replace(self, budget_s=budget_s, launches=launches, allocator=allocator, inconclusive=meant)

    def only(self, pattern: str | None) -> Config:
        """The part of it about networks whose name matches, with their ratios; `UsageError` where none does."""
        if pattern is None:
            return self
        kept = tuple(one for one in self.networks if matches(one.name, pattern))
        if not kept:
            names = ", ".join(one.name for one in self.networks)
            raise UsageError(f"--only {pattern!r} matches no network", f"the networks are {names}")
        chosen = {one.name for one in kept}
        ratios = tuple(one for one in self.ratios if one.network in chosen)
        baselines = {one.baseline for one in ratios} - chosen
        return replace(
            self,
            networks=kept,
            beside=tuple(one for one in self.networks if one.name in baselines),
            ratios=ratios,
            predictions=tuple(one for one in self.predictions if one.network in chosen),
        )


def meaning(typed: object, where: str) -> Inconclusive:
    """What a row that could not be decided means; `UsageError` naming `where` for anything else."""
    meant = next((one for one in INCONCLUSIVE if one == typed), None)
    if meant is None:
        raise UsageError(f"{where} {typed!r} is unknown", 'use "warn", "pass" or "fail"')
    return meant


def by_name(ratios: Sequence[Ratio]) -> dict[str, Ratio]:
    """Ratios by names that have their baselines."""
    return dict(zip(numbered(f"{one.id}/{one.baseline}" for one in ratios), ratios))


def numbered(names: Iterable[str]) -> list[str]:
    """The names, the second of one with `/2` behind it, the third with `/3`."""
    counts, apart = Counter[str](), []
    for name in names:
        counts[name] += 1
        apart.append(name if counts[name] == 1 else f"{name}/{counts[name]}")
    return apart


def matches(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern with `*` and `?`; both are read as model ids are (case, `-`, `_`, `.`)."""
    return fnmatchcase(normalise(name), normalise(pattern))
