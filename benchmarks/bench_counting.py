"""How long counting takes: by shapes, by torch's FlopCounterMode on meta tensors, by plain fvcore on CPU tensors.

`nox -s bench` runs it. All three count the same few networks; ours also counts the forty of 224 px.
`python benchmarks/bench_counting.py` prints the CPU time of ours against plain fvcore over those forty, each network
built and counted by the one and then by the other.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from senet_bench.bench.count import count
from senet_bench.bench.reference_counters import conv_and_linear
from senet_bench.core.catalog import CATALOG, CLASSIFIERS
from senet_bench.models import build

FEW = ("seresnet50", "mobilenet_v1", "seshufflenet_v1_g3")
FORTY = tuple(
    name for name, spec in CLASSIFIERS.items() if spec.input_size == (3, 224, 224) and not name.endswith("_v1_5")
)
"""Baselines and SE networks for images of 224 px; torchvision's layouts cost what the paper's do."""


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


def test_counting_forty_networks(benchmark: Any) -> None:
    benchmark.group = "counting 40 networks"
    assert len(benchmark.pedantic(all_of, (by_shapes, FORTY), rounds=3)) == 40


@pytest.mark.parametrize("name", ["seresnet50", "senet154"])
def test_building_on_meta(benchmark: Any, name: str) -> None:
    benchmark.group = "building on meta"
    benchmark.pedantic(build, (name,), {"device": "meta"}, rounds=5, warmup_rounds=1)


def cpu_seconds(counter: Callable[[str], int], name: str) -> float:
    gc.collect()  # else one pays for what the other left behind
    start = time.process_time()
    counter(name)
    return time.process_time() - start


def main() -> None:
    """CPU seconds of both over the forty networks, and the quartiles of how many times as fast ours is."""
    torch.set_num_threads(1)
    by_shapes("resnet18"), by_fvcore("resnet18")
    both = [(cpu_seconds(by_shapes, name), cpu_seconds(by_fvcore, name)) for name in FORTY]
    ours, theirs = map(sum, zip(*both))
    low, middle, high = statistics.quantiles([other / one for one, other in both], n=4)
    sys.stdout.write(
        f"{len(FORTY)} networks: {ours:.2f} s by shapes, {theirs:.2f} s by fvcore: 1/{theirs / ours:.1f}; "
        f"of a network 1/{middle:.1f} (quartiles 1/{low:.1f} and 1/{high:.1f})\n"
    )


if __name__ == "__main__":
    main()
