"""Joules of calls by counters that are pretended: the ratio, its interval, and every way of not knowing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from senet_bench.bench.device import Cpu, Mps
from senet_bench.bench.energy import Meter, measure_energy, package_meter
from senet_bench.core.progress import result_of
from senet_bench.core.results import Energy
from senet_bench.errors import MeasurementError
from tests.conftest import Run


@dataclass
class Board:
    """A board of 100 W at rest whose calls take their joules on top; time passes only in calls."""

    seconds: float = 0.0
    used: float = 0.0
    method: str = "a pretended board"

    def joules(self) -> float:
        return 100 * self.seconds + self.used

    def now(self) -> float:
        return self.seconds

    def call(self, seconds: float, watts: float) -> Callable[[], object]:
        noise = np.random.default_rng(0)

        def run() -> object:
            self.seconds += seconds
            self.used += seconds * watts * (1 + 0.01 * noise.standard_normal())
            return None

        return run


def measured(board: Board, **calls: Callable[[], object]) -> dict[str, Energy]:
    return result_of(measure_energy(calls, "base", board, lambda: None, 4, clock=board.now))


def test_energy_is_joules_an_image_with_the_ratio_of_the_same_rounds() -> None:
    board = Board()
    energies = measured(board, base=board.call(0.01, 200.0), se=board.call(0.011, 200.0))
    assert energies["base"].joules == pytest.approx(0.01 * 300 / 4, rel=0.01)
    assert energies["se"].watts == pytest.approx(300, rel=0.01)
    assert energies["base"].ratio is None
    ratio, ci = energies["se"].ratio, energies["se"].ci
    assert ratio == pytest.approx(1.1, rel=0.01)
    assert ci is not None
    assert ci[0] <= 1.1 <= ci[1]
    assert energies["se"].control_ratio == pytest.approx(1.0, rel=0.01)


def test_a_counter_that_stands_still_is_no_energy() -> None:
    board = Board()

    def idle() -> object:
        board.seconds += 0.5
        return None

    class Still(Board):
        def joules(self) -> float:
            return 7.0

    with pytest.raises(MeasurementError, match="stands still while"):
        result_of(measure_energy({"base": idle}, "base", Still(), lambda: None, 1, clock=board.now))


def zone(folder: Path, name: str, now: int, most: int = 1000) -> Path:
    place = folder / name
    place.mkdir()
    (place / "energy_uj").write_text(str(now))
    (place / "max_energy_range_uj").write_text(str(most))
    return place


def test_packages_are_added_and_a_counter_that_began_again_goes_on(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", 900), zone(tmp_path, "intel-rapl:1", 10)
    zone(tmp_path, "intel-rapl:0:0", 5)  # cores of the first package, which are in its count
    meter = package_meter(tmp_path)
    start = meter.joules()
    (first / "energy_uj").write_text("100")
    (second / "energy_uj").write_text("60")
    assert meter.joules() - start == pytest.approx((200 + 50) / 1e6)


def test_what_has_no_counter_says_so(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no counter of the CPU's packages"):
        package_meter(tmp_path)
    (zone(tmp_path, "intel-rapl:0", 0) / "energy_uj").write_text("none")
    with pytest.raises(MeasurementError, match="cannot be read"):
        package_meter(tmp_path)
    with pytest.raises(MeasurementError, match="Metal"):
        Mps(torch.device("mps")).meter()


COMPARED = ("compare", "seresnet20_cifar", "--budget", "0.2", "--energy")


def test_compare_shows_joules_where_a_counter_is(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Counted(Board):
        def joules(self) -> float:
            self.used += 3.0
            return self.used

    board: Meter = Counted()
    monkeypatch.setattr(Cpu, "meter", lambda _: board)
    monkeypatch.setattr("senet_bench.bench.energy.ENERGY_BLOCK_S", 1e-3)
    monkeypatch.setenv("COLUMNS", "220")
    done = run(*COMPARED)
    assert done.code == 0, done.out
    assert "J an image" in done.out
    (stored,) = tmp_path.glob("results/runs/*/*.json")
    rows = json.loads(stored.read_text())["rows"]
    assert [row["latency"]["energy"]["method"] for row in rows] == ["a pretended board"] * 2
    assert rows[1]["latency"]["energy"]["ratio"] > 0


def test_compare_says_why_there_are_none_elsewhere(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Cpu, "meter", lambda _: package_meter(tmp_path))
    done = run(*COMPARED)
    assert done.code == 5
    assert "no counter of the CPU's packages (RAPL)" in (done.out + done.err).replace("\n", " ")
    refused = run("compare", "seresnet20_cifar", "--no-latency", "--energy")
    assert refused.code == 2
