"""The rows of a check against a commit: base and head beside each other in worker processes."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from senet_bench.core.fingerprint import TOLERANCES, Function, first_difference
from senet_bench.core.progress import Progress, Steps
from senet_bench.regression import exact
from senet_bench.regression.config import CheckedNetwork, Config
from senet_bench.regression.facts import Portable
from senet_bench.regression.limits import counted_metrics, portable_metrics
from senet_bench.regression.outcome import LimitRow, failed, unchanged_row, with_seconds
from senet_bench.regression.sameness import Read, Sides
from senet_bench.regression.timing import Deadline, Duel
from senet_bench.regression.workers import Checkout, Described, Nursery, Orders, Worker, WorkerAnswer, answers

SIDES = ("base", "head")
BROKEN = "the base works and this change does not"


@dataclass(frozen=True, slots=True)
class CheckAgainst:
    """A check against a commit: under which configuration, of which checkout, with which orders."""

    config: Config
    base: Checkout
    head: Path
    work: Orders
    seed: int
    facts: dict[str, Portable] = field(default_factory=dict)
    """What was found of the head, by network."""

    def rows(self, deadline: Deadline) -> Steps[list[LimitRow]]:
        """Every metric of the networks, exact facts first, then time."""
        rows: list[LimitRow] = []
        timed: list[CheckedNetwork] = []
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="senet-bench-outputs-")))
            roots = (self.base.folder, self.head)
            nursery = stack.enter_context(Nursery(self.work))
            workers = [stack.enter_context(Worker(root, nursery)) for root in roots]
            for done, network in enumerate(self.config.networks):
                yield Progress(f"{network.name}, exact facts", done, len(self.config.networks))
                began = time.monotonic()
                more = self._exact(network, workers, folder / str(done))
                more = with_seconds(more, time.monotonic() - began)
                rows += more
                if not any(row.metric in ("build", "baseline") for row in more):
                    timed.append(network)
            unchanged = self._unchanged(timed, workers) if "latency" in self.config.metrics else []
            rows += unchanged
            timed = [network for network in timed if network.name not in {row.network for row in unchanged}]
            if "latency" in self.config.metrics and timed:
                for worker in workers:
                    worker.end()
                timing = Duel(self.base.folder, self.head, self.config, self.seed, deadline, nursery)
                rows += yield from timing.rows(timed, self.work)
        return rows

    def _unchanged(self, networks: Sequence[CheckedNetwork], workers: Sequence[Worker]) -> list[LimitRow]:
        """The latency rows of networks whose code is the base's: there is nothing to time."""
        base, head = answers(workers, Read, "read")
        if base.value is None or head.value is None:
            return []
        sides = Sides((self.base.folder, self.head), (base.value, head.value))
        if not sides.same_data(self.base.commit):
            return []
        same = [network for network in networks if sides.same_code(network.name)]
        return [unchanged_row(network.name, self.config.limit(network.name, "latency")) for network in same]

    def _exact(self, network: CheckedNetwork, workers: Sequence[Worker], folder: Path) -> list[LimitRow]:
        """The rows of a network's exact facts and its memory."""
        folder.mkdir()
        files = [folder / f"{side}.npz" for side in SIDES]
        request = {"network": network.request(), "counted": counted_metrics()}
        judged = "outputs" in self.config.metrics
        each = [{"keep": str(file) if judged else None} for file in files]
        first, second = answers(workers, Described, "facts", each=each, **request)
        problem = self._unlike(network.name, first, second)
        if problem is not None or first.value is None or second.value is None:
            return [problem] if problem is not None else []
        base, head = first.value.facts, second.value.facts
        self.facts[network.name] = head
        rows, free = [], not self.config.limit(network.name, "state_dict").judged
        for metric in (one for one in portable_metrics() if one in self.config.metrics):
            limit = self.config.limit(network.name, metric)
            row = exact.exact_row(network.name, metric, base, head, limit, weights_free=free)
            if metric == "outputs" and base.function and head.function and not (free and base.state != head.state):
                row = self._outputs(row, network, (base, head), files, workers)
            rows.append(replace(row, stale=False))
        if "memory" in self.config.metrics:
            rows.append(self._memory(network, workers))
        return [replace(row, file=second.value.file, line=second.value.line) for row in rows]

    def _outputs(
        self,
        row: LimitRow,
        network: CheckedNetwork,
        facts: tuple[Portable, Portable],
        files: Sequence[Path],
        workers: Sequence[Worker],
    ) -> LimitRow:
        """The row of the outputs by their largest difference, and the first module that differs."""
        precisions = [str((one.function or {}).get("precision")) for one in facts]
        if facts[0].shapes == facts[1].shapes and all(file.exists() for file in files):
            most, limit = max(TOLERANCES[one] for one in precisions), self.config.limit(network.name, "outputs")
            row = replace(row, verdict="pass", reason="")
            renamed = facts[0].state != facts[1].state
            row = exact.judged_function(row, largest_difference(*files), most, limit, renamed)
        if not row.reason:
            return row
        first, second = answers(workers, Function, "modules", network=network.request())
        name = first_difference(first.value, second.value) if first.value and second.value else None
        if name is None:
            return row
        return replace(row, reason=f"{row.reason}; first in {name}", explain=[*row.explain, (name, "first to differ")])

    def _memory(self, network: CheckedNetwork, workers: Sequence[Worker]) -> LimitRow:
        request = {"network": network.request(), "batch_size": self.work.batch_size}
        first, second = answers(workers, int, "memory", **request)
        if first.value is None or second.value is None:
            return failed(network.name, "memory", second.error or f"the base: {first.error}")
        limit = self.config.limit(network.name, "memory")
        return exact.memory_row(network.name, first.value, second.value, limit)

    def _unlike(self, name: str, first: WorkerAnswer[Described], second: WorkerAnswer[Described]) -> LimitRow | None:
        """Why a network of base and head cannot be compared, None when it can."""
        if first.value is None and first.missing and second.value is not None:
            return failed(name, "baseline", f"{name} is new: the base has none ({first.error})", "new")
        if second.value is None:
            why = f"{name} cannot be run: {second.error}"
            if first.value is None or second.machine:
                return failed(name, "build", why)
            file = first.value.file.replace(str(self.base.folder.resolve()), str(self.head.resolve()))
            return replace(failed(name, "build", f"{why}; {BROKEN}", "fail"), file=file, line=first.value.line)
        if first.value is None:
            return failed(name, "build", f"{name} of the base cannot be run: {first.error}")
        source = Path(first.value.file).resolve()
        if not source.is_relative_to(self.base.folder.resolve()):
            why = f"{name} comes from {source}, which is not in the checkout: base and head are the same"
            return failed(name, "build", why, "not comparable")
        return None


def largest_difference(first: Path, second: Path) -> float:
    """The largest difference of the arrays in two files over the largest value; infinite for other shapes."""
    apart = 0.0
    with np.load(first) as base, np.load(second) as head:
        if sorted(base.files) != sorted(head.files):
            return math.inf
        for name in base.files:
            was, now = base[name], head[name]
            if was.shape != now.shape or not np.array_equal(np.isfinite(was), np.isfinite(now)):
                return math.inf
            finite = np.isfinite(was)
            was, now = was[finite], now[finite]
            largest = max(np.abs(was).max(initial=0.0), np.abs(now).max(initial=0.0))
            apart = max(apart, float(np.abs(was - now).max(initial=0.0) / largest) if largest else 0.0)
    return apart
