"""What is measured of one network of this checkout: facts, peak memory, latency, its ratio to a baseline."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from senet_bench.bench.process import allocator_of_process, check_allocator
from senet_bench.bench.rounds import CONTROL
from senet_bench.core import foreign, statistics
from senet_bench.core.progress import Steps
from senet_bench.core.source import find_modules_here
from senet_bench.core.statistics import CONTROL_LEVEL, hodges_lehmann, judge
from senet_bench.errors import MeasurementError, one_line
from senet_bench.regression import exact
from senet_bench.regression.baselines import StoredLatency
from senet_bench.regression.config import CheckedNetwork, Config, Ratio
from senet_bench.regression.facts import Portable, counted_facts, named_facts
from senet_bench.regression.launches import Launched, Launches, launch
from senet_bench.regression.limits import Limit, counted_metrics
from senet_bench.regression.outcome import GateVerdict, LimitRow
from senet_bench.regression.workers import Orders

if TYPE_CHECKING:
    from torch import nn

    from senet_bench.bench.latency import NetworkLatency

MOST_APART = 0.02
"""Two processes of the same code that differ by more than this fraction record no latency."""


def facts_here(network: CheckedNetwork, *, function: bool = True) -> Portable:
    """The portable facts of a network of this checkout, its `function` or not; any failure is a `MeasurementError`."""
    with contained_here(network.name):
        if not function:
            return counted_facts(network.name, network.input_size, network.how, counted_metrics())
        return named_facts(network.name, network.input_size, counted_metrics(), how=network.how)


def code_place_here(name: str) -> tuple[str, int]:
    """The file and line that a network's code begins at, empty and 0 where that is not known."""
    from senet_bench.regression.facts import code_place

    try:
        with contained_here(name):
            return code_place(name)
    except MeasurementError:
        return "", 0


def network_here(network: CheckedNetwork) -> nn.Module:
    """A network of this checkout with weights; any failure is a `MeasurementError`."""
    from senet_bench.regression.facts import built

    with contained_here(network.name):
        made: nn.Module = built(network.name, how=network.how)
        return made


@contextlib.contextmanager
def contained_here(name: str, *, limited: bool = True) -> Iterator[None]:
    """Run the code of a network, with modules of the current folder; whatever it raises is a `MeasurementError`."""
    find_modules_here()
    try:
        with foreign.contained(name, says="cannot be run:", limited=limited):
            yield
    except MeasurementError:
        raise
    except Exception as error:  # an error of ours too says what its code lacks
        raise MeasurementError(f"{name} cannot be run: {one_line(error)}") from error


def peak(network: CheckedNetwork, config: Config) -> int:
    """The most bytes that a call of a network holds beyond weights and images."""
    import torch

    from senet_bench.bench.count import steady
    from senet_bench.bench.machine import session
    from senet_bench.bench.process import muted
    from senet_bench.regression.facts import peak_bytes

    with contained_here(network.name), torch.inference_mode(), session(config.conditions):
        built = steady(network_here(network))
        images = torch.randn(config.batch_size, *network.input_size, generator=torch.Generator().manual_seed(0))
        with muted():
            return peak_bytes(lambda: built(images))


def counted_ratio_here(ratio: Ratio, config: Config) -> LimitRow:
    """A network's parameters, multiply-adds or peak memory over its baseline's."""
    size, both = _sized(ratio, config)
    if ratio.metric == "memory":
        base, now = (peak(one, config) for one in both)
    else:
        with contained_here(ratio.network):
            facts = [counted_facts(one.name, size, one.how) for one in both]
        base, now = (exact.total_of(ratio.metric, one) for one in facts)
    return exact.counted_ratio(ratio, base, now)


def _sized(ratio: Ratio, config: Config) -> tuple[tuple[int, int, int], list[CheckedNetwork]]:
    """The images of a ratio, which are its network's, and baseline and network that are given them."""
    known = {network.name: network for network in (*config.networks, *config.beside)}
    size = known[ratio.network].input_size
    return size, [replace(known[name], input_size=size) for name in (ratio.baseline, ratio.network)]


def timed_ratio(ratio: Ratio, config: Config, alpha: float, seed: int) -> LimitRow:
    """A network's time over its baseline's, both in this process and in the same rounds."""
    from senet_bench.bench.latency import measure_networks
    from senet_bench.bench.rounds import gated_plan
    from senet_bench.core.progress import result_of

    size, both = _sized(ratio, config)
    plan = gated_plan(
        ratio.limit.relative or 0.0,
        budget_s=config.budget_s * config.launches,  # one process has the time of all launches
        alpha=alpha,
        seed=seed,
        min_abs_s=max(ratio.limit.min_abs, ratio.limit.absolute or 0.0),
    )
    networks = {one.name: network_here(one) for one in both}
    with contained_here(ratio.network, limited=False):  # each of its calls is
        measured = result_of(measure_networks(networks, ratio.baseline, size, conditions=config.conditions, plan=plan))
    return ratio_row(ratio, measured)


UNJUDGED = 0.01
"""The limit by which the control of a ratio without one is judged, a fraction."""


def ratio_row(ratio: Ratio, measured: NetworkLatency) -> LimitRow:
    """A latency ratio measured in this process, of the networks of `ratio`.

    Raises `MeasurementError` where the network could not be timed.
    """
    arm, base, latency = measured.arm(ratio.network), measured.arm(ratio.baseline), measured.comparison
    assert arm.judgement is not None
    judged, copies = arm.judgement, latency.samples.log_ratios(CONTROL, latency.baseline)
    verdicts: dict[str, GateVerdict] = {"regressed": "fail", "ok": "pass"}
    return LimitRow(
        id=ratio.id,
        network=ratio.network,
        metric="latency-ratio",
        kind="ratio",
        verdict=verdicts.get(judged.verdict, "inconclusive") if ratio.limit.judged else "info",
        reason=f"{judged.ratio:.4f} of {ratio.baseline}'s" + (f"; {judged.reason}" if judged.reason else ""),
        base=base.seconds,
        now=arm.seconds,
        unit="s",
        ratio=judged.ratio,
        ci=judged.ci,
        confidence=judged.confidence,
        gate=ratio.limit.stored(),
        p_worse=judged.p_worse,
        p_ok=judged.p_ok,
        rounds=judged.rounds,
        mde80=judged.mde if math.isfinite(judged.mde) else None,
        control_ratio=latency.control.ratio,
        control_ci=latency.control.ci,
        control_ok=not statistics.control_failed(copies, ratio.limit.fraction(base.seconds) or UNJUDGED),
        elapsed_s=latency.elapsed_s,
    )


def stored_row(network: str, base: StoredLatency, now: StoredLatency, limit: Limit, *, judged: bool) -> LimitRow:
    """A latency against a stored one: unpaired, so never judged tighter than three spreads between processes."""
    ratio = now.floor / base.floor
    spread = max(one.between or 0.0 for one in (base, now)) or None
    text = "unpaired, " + ("spread unknown" if spread is None else f"spread {100 * spread:.2g} %")
    row = LimitRow(
        id=f"{network}/latency",
        network=network,
        metric="latency",
        kind="stored",
        verdict="info",
        reason=f"{text}, {100 * (ratio - 1):+.1f} % since it was recorded",
        base=base.floor,
        now=now.floor,
        unit="s",
        ratio=ratio,
        gate=limit.stored(),
        rounds=now.rounds,
    )
    if not judged or not limit.judged:
        return row
    if spread is None:
        return replace(row, verdict="inconclusive", reason=f"{row.reason}; record it with several launches to gate it")
    margin = max(math.log1p(limit.fraction(base.floor)), 3 * spread)
    verdict: GateVerdict = "fail" if math.log(ratio) > margin else "pass"
    return replace(row, verdict=verdict, mde80=math.expm1(margin), stale=math.log(ratio) < -margin)


def work_of(config: Config, networks: Sequence[CheckedNetwork]) -> Orders:
    """What worker processes are to measure; `UsageError` where the allocator cannot be had."""
    check_allocator(config.allocator)
    return Orders(networks=networks, threads=config.threads, batch_size=config.batch_size, allocator=config.allocator)


def latencies(work: Orders, folder: Path, schedule: Launches) -> Steps[dict[str, StoredLatency]]:
    """The latency of networks in worker processes of this checkout, by network.

    With several launches a second worker runs along; raises `MeasurementError` where the two do not agree.
    """
    arms = {"base": folder, "base_again": folder} if schedule.launches > 1 else {"base": folder}
    samples = yield from launch(arms, work, schedule)
    return {network.name: _latency(network, samples[network.name], work) for network in work.networks}


def _latency(network: CheckedNetwork, launches: Sequence[Launched], work: Orders) -> StoredLatency:
    name = network.name
    kept = [samples.seconds["base"] for samples in launches if samples.seconds["base"].size]
    if not kept:
        raise MeasurementError(f"every round of {name} was disturbed by other guests", "use a quieter machine")
    seconds, floors = np.concatenate(kept), [float(np.log(arm.min())) for arm in kept]
    if len(launches) > 1:
        _check_control(name, launches)
    return StoredLatency(
        seconds=float(np.median(seconds)),
        floor=float(seconds.min()),
        rounds=int(seconds.size),
        between=float(np.std(floors, ddof=1)) if len(floors) > 1 else None,
        threads=work.threads,
        batch_size=work.batch_size,
        input_size=network.input_size,
        allocator=allocator_of_process(work.allocator),
    )


def _check_control(name: str, launches: Sequence[Launched]) -> None:
    """Raise where two workers of the same code differ, which says that the machine is not to be trusted now."""
    pairs = [(samples.seconds["base_again"], samples.seconds["base"]) for samples in launches]
    estimates = [hodges_lehmann(np.log(twin / base)) for twin, base in pairs if base.size]
    judged = judge(estimates, gate=None, level=CONTROL_LEVEL, alpha=CONTROL_LEVEL)
    if (judged.ci[0] > 1 or judged.ci[1] < 1) and abs(math.log(judged.ratio)) > MOST_APART:
        raise MeasurementError(
            f"control failed: two processes of the same {name} differ by {100 * (judged.ratio - 1):+.1f} %",
            "measure again when the machine is quieter",
        )
