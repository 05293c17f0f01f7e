"""Energy of a call: the counter of a GPU's board or of the CPU's packages, read around blocks of calls.

A counter moves in steps (of NVML's some 20 to 100 ms, of RAPL's about 1 ms), so a block lasts a second. It counts the
whole board or package, at rest too: what else runs there is in it, as in the baseline's blocks of the same rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from senet_bench.bench.clock import Call, FreshCall
from senet_bench.core import statistics
from senet_bench.core.foreign import guarded
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.results import Energy
from senet_bench.errors import MeasurementError

ENERGY_BLOCK_S = 1.0
ENERGY_ROUNDS = 8
"""Six are the fewest that have an interval at 95 %."""
ENERGY_ALPHA = 0.025
MOST_CALLS = 100_000
RAPL = Path("/sys/class/powercap")
SECOND_BLOCKS = "control"


class Meter(Protocol):
    """A counter of energy; `joules` has been counting since some moment."""

    @property
    def method(self) -> str:
        """Who counts what."""

    def joules(self) -> float:
        """Joules used since then."""


@dataclass(slots=True)
class PackageMeter:
    """Intel's and AMD's counters of the CPU's packages as Linux shows them, those that began again at 0 added on."""

    zones: tuple[Path, ...]
    method: ClassVar[str] = "RAPL, whole packages"
    _last: dict[Path, int] = field(default_factory=dict)
    _total: int = 0

    def joules(self) -> float:
        """The sum over packages; a counter that is below what it was has begun again."""
        for zone in self.zones:
            now, last = _number(zone / "energy_uj"), self._last.get(zone)
            if last is not None:
                self._total += now - last if now >= last else now - last + _number(zone / "max_energy_range_uj")
            self._last[zone] = now
        return self._total / 1e6


def package_meter(folder: Path = RAPL) -> PackageMeter:
    """The meter of all packages; raises `MeasurementError` where there is none or it may not be read."""
    zones = tuple(sorted(zone for zone in folder.glob("intel-rapl:*") if zone.name.count(":") == 1))
    if not zones:
        raise MeasurementError("energy: this system shows no counter of the CPU's packages (RAPL)")
    meter = PackageMeter(zones)
    try:
        meter.joules()
    except PermissionError:
        raise MeasurementError("energy: the counters of the CPU's packages are root's to read") from None
    except (OSError, ValueError) as error:
        raise MeasurementError(f"energy: the counters of the CPU's packages cannot be read: {error}") from error
    return meter


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def measure_energy(
    calls: Mapping[str, Call],
    baseline: str,
    meter: Meter,
    finish: Callable[[], object],
    images: int,
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> Steps[dict[str, Energy]]:
    """Joules an image of each call, and its ratio to the baseline's; a second block of the baseline is the control.

    `finish` waits for the device, `images` is how many a call is given. Each of eight rounds holds a block of about a
    second of every call, in random order; images are drawn anew before a block. The ratio is the Hodges-Lehmann
    estimate over rounds with its 95 % interval, as for time. Raises `MeasurementError` on a counter that stands still.
    """
    random = np.random.default_rng(seed)
    arms = {**calls, SECOND_BLOCKS: calls[baseline]}
    counts = {name: _block_size(name, call, finish, clock) for name, call in arms.items()}
    used: dict[str, list[float]] = {name: [] for name in arms}
    taken: dict[str, float] = dict.fromkeys(arms, 0.0)
    names = sorted(arms)
    for turn in range(ENERGY_ROUNDS):
        for place in random.permutation(len(names)):
            name = names[place]
            joules, seconds = _block(name, arms[name], counts[name], meter, finish, clock)
            if joules <= 0:
                raise MeasurementError(f"energy: the counter ({meter.method}) stands still while {name} runs")
            used[name].append(joules / counts[name] / images)
            taken[name] += seconds
        yield Progress("energy", turn + 1, ENERGY_ROUNDS)
    control = _ratio(used[SECOND_BLOCKS], used[baseline])
    return {name: _energy(name, baseline, used, counts, taken, images, control, meter.method) for name in calls}


def _energy(
    name: str,
    baseline: str,
    used: Mapping[str, list[float]],
    counts: Mapping[str, int],
    taken: Mapping[str, float],
    images: int,
    control: statistics.Judgement,
    method: str,
) -> Energy:
    ratio = None if name == baseline else _ratio(used[name], used[baseline])
    return Energy(
        joules=float(np.median(used[name])),
        watts=sum(used[name]) * counts[name] * images / taken[name],
        ratio=ratio.ratio if ratio else None,
        ci=ratio.ci if ratio else None,
        control_ratio=control.ratio,
        rounds=ENERGY_ROUNDS,
        method=method,
    )


def _ratio(used: list[float], base: list[float]) -> statistics.Judgement:
    logs = [math.log(one / other) for one, other in zip(used, base, strict=True)]
    return statistics.judge(logs, gate=None, level=ENERGY_ALPHA, alpha=ENERGY_ALPHA)


def _block_size(name: str, call: Call, finish: Callable[[], object], clock: Callable[[], float]) -> int:
    """How many calls last about a second, by one call after one that is not counted."""
    with guarded(name, draws=True):
        call()
        finish()
        start = clock()
        call()
        finish()
        return min(MOST_CALLS, max(1, math.ceil(ENERGY_BLOCK_S / max(clock() - start, 1e-9))))


def _block(
    name: str, call: Call, count: int, meter: Meter, finish: Callable[[], object], clock: Callable[[], float]
) -> tuple[float, float]:
    """Joules and seconds of a block of calls."""
    with guarded(name, draws=True):
        if isinstance(call, FreshCall):
            call.renew()
        finish()
        before, start = meter.joules(), clock()
        for _ in range(count):
            call()
        finish()
        return meter.joules() - before, clock() - start
