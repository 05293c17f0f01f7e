"""The ways of timing side by side: how many runs tell a change, and the table."""

from __future__ import annotations

import time

import pytest

from benchmarks.bench_timers import Way, runs_for, table, ways_on
from senet_bench.bench.clock import Call
from senet_bench.core.specs import Conditions


def test_runs_that_tell_a_change_grow_with_the_square_of_how_far_answers_lie_apart() -> None:
    close, far = [1.000, 1.002, 0.998, 1.001], [1.00, 1.08, 0.92, 1.04]
    assert runs_for(close) == 1
    assert runs_for(far) == pytest.approx(runs_for([1 + (r - 1) / 2 for r in far]) * 4, rel=0.1)


def test_a_line_has_the_median_of_a_ways_answers_and_what_telling_takes() -> None:
    way = Way("by a sundial", lambda base, network: 1.0, [1.05, 1.04, 1.06], [2.0, 2.0, 2.0])
    line = table([way], "a garden").splitlines()[-1]
    assert line == f"| by a sundial | 3 | 1.0500 | 1.0400 | 1.0600 | 2.0 | {runs_for(way.ratios)} | 4 |"


def test_every_way_sees_that_a_network_takes_longer() -> None:
    def taking(seconds: float) -> Call:
        def call() -> object:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                pass
            return 1.0

        return call

    for way in ways_on(Conditions(), 0.2):
        way.run(lambda: taking(1e-4), lambda: taking(5e-4))
        assert way.ratios[0] > 2, way.name
