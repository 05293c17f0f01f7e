"""How long counting takes: by shapes, by torch's FlopCounterMode on meta tensors, by plain fvcore on CPU tensors.

`nox -s bench` runs it. All three count the same few networks; ours also counts the twenty of Tables 2 and 3.
`python benchmarks/bench_counting.py` prints the CPU time of ours against plain fvcore over those twenty.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from senet_bench.bench.count import count
from senet_bench.bench.reference_counters import conv_and_linear
from senet_bench.core.catalog import CATALOG
from senet_bench.core.studies import STUDIES
from senet_bench.models import build

FEW = ("seresnet50", "mobilenet_v1", "seshufflenet_v1_g3")
TWENTY = tuple(dict.fromkeys(name for table in ("table2", "table3") for name in STUDIES[table].models))


def by_shapes(name: str) -> int:
    """Built on meta, counted from shapes."""
    return count(build(name, device="meta"), CATALOG[name].input_size).macs


def by_flop_counter(name: str) -> int:
    """Built on meta, counted by FlopCounterMode."""
    return conv_and_linear(build(name, device="meta"), CATALOG[name].input_size)


def by_fvcore(name: str) -> int:
    """Built on the CPU, traced by fvcore as it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it scripts functions, which torch deprecates
        from fvcore.nn import FlopCountAnalysis

        network, images = build(name).eval(), torch.zeros(1, *CATALOG[name].input_size)
        analysis = FlopCountAnalysis(network, images)
        return int(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def all_of(counter: Callable[[str], int], names: Sequence[str]) -> list[int]:
    return [counter(name) for name in names]


@pytest.mark.parametrize("counter", [by_shapes, by_flop_counter, by_fvcore], ids=lambda counter: counter.__name__)
def test_counting_three_networks(benchmark: Any, counter: Callable[[str], int]) -> None:
    benchmark.group = "counting 3 networks"
    counter("resnet18")  # the imports
    rounds = 1 if counter is by_fvcore else 3
    counts = benchmark.pedantic(all_of, (counter, FEW), rounds=rounds)
    assert min(counts) > 10**8


def test_counting_the_twenty_networks_of_tables_2_and_3(benchmark: Any) -> None:
    benchmark.group = "counting 20 networks"
    assert len(benchmark.pedantic(all_of, (by_shapes, TWENTY), rounds=3)) == 20


@pytest.mark.parametrize("name", ["seresnet50", "senet154"])
def test_building_on_meta(benchmark: Any, name: str) -> None:
    benchmark.group = "building on meta"
    benchmark.pedantic(build, (name,), {"device": "meta"}, rounds=5, warmup_rounds=1)


def cpu_seconds(counter: Callable[[str], int], name: str) -> float:
    start = time.process_time()
    counter(name)
    return time.process_time() - start


def main() -> None:
    """CPU seconds of both over the twenty networks, one after the other for each network."""
    torch.set_num_threads(1)
    by_shapes("resnet18"), by_fvcore("resnet18")
    ours = theirs = 0.0
    for name in TWENTY:
        ours, theirs = ours + cpu_seconds(by_shapes, name), theirs + cpu_seconds(by_fvcore, name)
    sys.stdout.write(
        f"{len(TWENTY)} networks: {ours:.2f} s by shapes, {theirs:.2f} s by fvcore: 1/{theirs / ours:.1f}\n"
    )


if __name__ == "__main__":
    main()
