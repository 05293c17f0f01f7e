"""A pytest plugin: the fixture `senet_bench` gates a network inside its own project's tests.

    @pytest.mark.senet_bench(params="+0", latency="+2 %", budget=3)
    def test_small_net(senet_bench):
        senet_bench.check(SmallNet(), (3, 32, 32))               # facts against results/baselines/pytest/
        senet_bench.not_slower(SmallNet(), OldNet(), (3, 32, 32))  # time against another network, same rounds

`pytest --senet-bench-record` stores the facts of networks that have none yet; changed ones are left as they are
unless it is `--senet-bench-record=all`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn

    from senet_bench.regression.limits import Limit
    from senet_bench.regression.outcome import LimitRow

TIMING_SETTINGS = ("budget", "alpha", "seed", "threads", "batch_size", "inconclusive")
INCONCLUSIVE = ("skip", "pass", "fail")
FACTS = ("params", "flops", "outputs", "shapes", "state_dict", "operators")


@dataclass(frozen=True, slots=True)
class SenetBench:
    """What a test asks: `check` a network's facts, or that one is `not_slower` than another."""

    name: str
    folder: Path
    recording: str = ""
    wanted: Mapping[str, object] = field(default_factory=dict)
    checked: set[str] = field(default_factory=set)

    def check(self, network: nn.Module, input_size: tuple[int, int, int], name: str = "") -> list[LimitRow]:
        """The exact limits of a network's facts against the recorded ones; fails the test and names what changed.

        Other operators than another version of torch called skip it. A test that checks several networks gives each
        a `name`.
        """
        from senet_bench.regression.baselines import facts_stored, torch_here
        from senet_bench.regression.exact import across_torch, exact_row
        from senet_bench.regression.facts import network_facts

        name = f"{self.name} {name}" if name else self.name
        now = network_facts(network, input_size)
        before, torch = self._recorded(name, facts_stored(now))
        again = "; a test of several networks gives each its own name=..." * (name in self.checked)
        self.checked.add(name)
        if before is None:
            pytest.fail(
                f"{name} has no recorded facts in {self.folder}; run pytest --senet-bench-record", pytrace=False
            )
        if before.input_size != input_size:
            pytest.fail(f"{name} was recorded for {before.input_size} images, not {input_size}", pytrace=False)
        free = not self._limit("state_dict").judged
        rows = [exact_row(name, metric, before, now, self._limit(metric), weights_free=free) for metric in FACTS]
        rows = [across_torch(row, torch, torch_here(), "run pytest --senet-bench-record=all") for row in rows]
        failed = [row.reason for row in rows if row.verdict == "fail"]
        if failed:
            pytest.fail("; ".join(failed) + again, pytrace=False)
        if apart := [row.reason for row in rows if row.verdict == "not comparable"]:
            pytest.skip(f"not comparable: {'; '.join(apart)}")
        return rows

    def not_slower(self, candidate: nn.Module, base: nn.Module, input_size: tuple[int, int, int]) -> LimitRow:
        """The time of a network over another's in the same rounds, measured again where it is beyond the gate.

        Fails the test on a confirmed slowdown, or where one cannot be timed; what could not be decided skips it, or as
        `inconclusive` says.
        """
        from senet_bench.errors import MeasurementError
        from senet_bench.regression.launches import confirmed

        try:
            row = self._timed(candidate, base, input_size, self._setting("seed", 0))
            if row.verdict == "fail":
                row = confirmed(row, self._timed(candidate, base, input_size, self._setting("seed", 0) + 1000))
        except MeasurementError as error:
            pytest.fail(f"{self.name}: latency: {error}", pytrace=False)
        meant = self._setting("inconclusive", "skip")
        if row.verdict == "fail" or (row.verdict == "inconclusive" and meant == "fail"):
            pytest.fail(f"{self.name}: latency {row.verdict}: {row.reason}", pytrace=False)
        if row.verdict == "inconclusive" and meant == "skip":
            pytest.skip(f"inconclusive: {row.reason}")
        return row

    def _timed(self, candidate: nn.Module, base: nn.Module, size: tuple[int, int, int], seed: int) -> LimitRow:
        from senet_bench.bench.latency import measure_networks
        from senet_bench.bench.rounds import gated_plan
        from senet_bench.core.progress import result_of
        from senet_bench.core.specs import Conditions
        from senet_bench.regression.config import Ratio
        from senet_bench.regression.measurement import ratio_row

        limit = self._limit("latency")
        conditions = Conditions(threads=self._setting("threads", 1), batch_size=self._setting("batch_size", 1))
        least = max(limit.min_abs, limit.absolute or 0.0)
        budget, alpha = float(self._setting("budget", 3.0)), float(self._setting("alpha", 0.01))
        plan = gated_plan(limit.relative or 0.0, budget_s=budget, alpha=alpha, seed=seed, min_abs_s=least)
        arms = {"base": base.eval(), "candidate": candidate.eval()}
        measured = result_of(measure_networks(arms, "base", size, conditions=conditions, plan=plan))
        return ratio_row(Ratio("candidate", "base", "latency", limit), measured)

    def _recorded(self, name: str, now: Any) -> tuple[Any, str]:
        """The recorded facts of a network and the torch that they are of; recorded first where that was asked for."""
        from filelock import FileLock

        from senet_bench.core.checkout import commit_of
        from senet_bench.regression.baselines import Baselines, PortableBaseline, torch_here, updated

        baselines = Baselines(self.folder / "pytest")  # what `check` compares with is not a test's
        replacing = self.recording == "all" and name not in self.checked
        if self.recording:
            baselines.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(baselines.folder / ".lock"):  # several workers of pytest-xdist may record
                torch = torch_here()
                kept = baselines.portable() or PortableBaseline(torch=torch)
                recorded = kept.networks.get(name), kept.torch_of(name)
                if recorded[0] is None or (replacing and recorded != (now, torch)):
                    torches = {one: of for one, of in {**kept.torches, name: torch}.items() if of != kept.torch}
                    baselines.write(updated(kept, {name: now}, commit_of(self.folder), torches=torches))
        # older versions wrote bare names, of tests or as given, and among those of `check`
        bare = name.rpartition("::")[2]
        for folder, key in ((baselines, name), (baselines, bare.rpartition(" ")[2]), (Baselines(self.folder), bare)):
            stored = folder.portable()
            if stored is not None and key in stored.networks:
                return stored.networks[key].portable(), stored.torch_of(key)
        return None, ""

    def _limit(self, metric: str) -> Limit:
        from senet_bench.regression.limits import limit_of, usual_limits

        usual = usual_limits()[metric]
        if metric not in self.wanted:
            return usual
        typed = self.wanted[metric]
        return limit_of(metric, typed if isinstance(typed, dict) else {"max": typed}, f"senet_bench({metric})", usual)

    def _setting(self, name: str, usual: Any) -> Any:
        return self.wanted.get(name, usual)


@pytest.fixture
def senet_bench(request: pytest.FixtureRequest) -> SenetBench:
    """Limits for networks; thresholds and settings come from `@pytest.mark.senet_bench(...)`."""
    marks = reversed(list(request.node.iter_markers("senet_bench")))
    wanted = {key: value for mark in marks for key, value in mark.kwargs.items()}
    unknown = [key for key in wanted if key not in (*FACTS, "latency", *TIMING_SETTINGS)]
    if unknown:
        raise pytest.UsageError(
            f"senet_bench has no {unknown[0]!r}; there are {', '.join((*FACTS, 'latency', *TIMING_SETTINGS))}"
        )
    if wanted.get("inconclusive", "skip") not in INCONCLUSIVE:
        raise pytest.UsageError(
            f"senet_bench(inconclusive={wanted['inconclusive']!r}) is unknown; use {', '.join(INCONCLUSIVE)}"
        )
    folder = request.config.rootpath / str(request.config.getini("senet_bench_baselines"))
    return SenetBench(request.node.nodeid, folder, request.config.getoption("--senet-bench-record") or "", wanted)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option `--senet-bench-record` and the folder of the baselines."""
    parser.getgroup("senet-bench").addoption(
        "--senet-bench-record",
        nargs="?",
        const="new",
        choices=["new", "all"],
        help="store the facts of networks that have none yet (=all: also of changed ones); write it behind the paths",
    )
    parser.addini("senet_bench_baselines", "folder of senet-bench's baselines", default="results/baselines")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "senet_bench(**gates): thresholds for the fixture senet_bench")
