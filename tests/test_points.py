"""The errors of weights that were evaluated, beside what was counted and timed of that very network or of none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from senet_bench.core.learning import ClassifierRow
from senet_bench.core.results import Row
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.store import Store
from senet_bench.gallery.collection import Collection, gather
from senet_bench.gallery.points import PricedError, points, timed_points
from tests.support import stored

SE, ECA = AttentionSpec(), AttentionSpec(block="eca")
COUNTS = {SE: 4000, ECA: 3000, None: 2000}
"""Multiply-adds by attention."""


def counted(attention: AttentionSpec | None) -> Row:
    """A CIFAR network that `compare` counted and timed."""
    row = stored.row("SE-ResNet-20" if attention else "ResNet-20", attention, 0.1)
    flops = {"macs": COUNTS[attention]}
    return replace(row, input_size=(3, 32, 32), classes=10, flops=flops, accuracy=None)


def evaluated(**changes: Any) -> ClassifierRow:
    """Evaluated weights of SE-ResNet-20."""
    (_, line) = stored.evaluated("SE-ResNet-20").rows
    assert isinstance(line, ClassifierRow)
    about = {"model": "seresnet20_cifar", "dataset": "cifar10", "size": 32, "classes": 10, "mean": [0.5] * 3}
    return structs.replace(line, **about | changes)


def collected(root: Path, *lines: ClassifierRow) -> Collection:
    """A counted network without attention, one with SE and one with ECA, and evaluated weights."""
    run = replace(stored.ablation(), schema="senet-bench.compare/1", rows=[counted(one) for one in (None, SE, ECA)])
    stored.store(root, run, "20261120T100000Z-compare-1")
    stored.store(root, replace(stored.evaluated(), rows=[*lines]), "20261120T110000Z-evaluate-2")
    return gather(root, Store(root).survey())


def here(collection: Collection) -> list[PricedError]:
    """The points of what was evaluated."""
    return [point for point in points(collection) if point.source == "here"]


def test_an_arrow_leads_from_the_baseline_of_as_many_groups(tmp_path: Path) -> None:
    rows = [
        replace(stored.row("a network", attention, 0.1), cardinality=groups)
        for groups in (None, 16)
        for attention in (None, SE)
    ]
    run = replace(stored.ablation(), schema="senet-bench.compare/1", rows=rows)
    stored.store(tmp_path, run, "20261120T100000Z-compare-1")
    kinds: dict[str, list[str]] = {}
    for point in here(gather(tmp_path, Store(tmp_path).survey())):
        kinds.setdefault(point.pair, []).append(point.kind)
    assert [*kinds.values()] == [["baseline", "attention"]] * 2


@pytest.mark.parametrize(("attention", "flops"), [(SE, 4000), (ECA, 3000)])
def test_an_evaluated_error_has_the_counts_of_its_own_block(
    tmp_path: Path, attention: AttentionSpec, flops: int
) -> None:
    (point,) = here(collected(tmp_path, evaluated(attention=attention)))
    assert point.costs["flops"].value == pytest.approx(flops / 1e9)
    assert point.network is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": AttentionSpec(stages=(2,))},
        {"attention": AttentionSpec(squeeze="none")},
        {"size": 40},
        {"mean": [0.5]},
        {"classes": 100},
        {"constant_gates": ["layer1.0"]},
        {"runtime": "onnxruntime:int8"},
    ],
)
def test_an_error_of_a_network_that_nothing_was_counted_of_has_no_costs(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    collection = collected(tmp_path, evaluated(**changes))
    (point,) = here(collection)
    assert (point.costs, point.network) == ({}, None)
    assert timed_points([point], collection.timings[0]) == []


def test_an_error_in_int8_does_not_take_the_place_of_the_networks_own(tmp_path: Path) -> None:
    int8 = evaluated(runtime="onnxruntime:int8", top1_err=0.5, ci=(0.4, 0.6))
    known = here(collected(tmp_path, evaluated(), int8))
    assert [point.error for point in known] == pytest.approx([22.9, 50])
    assert ["flops" in point.costs for point in known] == [True, False]


def test_a_later_evaluation_of_the_same_takes_the_place_of_the_earlier(tmp_path: Path) -> None:
    (point,) = here(collected(tmp_path, evaluated(), evaluated(top1_err=0.25)))
    assert point.error == pytest.approx(25)


def test_errors_by_other_labels_are_in_a_group_of_their_own(tmp_path: Path) -> None:
    known = here(collected(tmp_path, evaluated(), evaluated(labels="ImageNet-Real")))
    assert len({point.group for point in known}) == 2
