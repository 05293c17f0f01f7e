"""Networks of the catalog as parameters of tests: some always, the others in the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from senet_bench.core.catalog import CATALOG
from senet_bench.core.specs import ModelSpec

DEEP = ("inception_resnet_v2", "senet154_nose", "resnet101", "resnet152", "resnet164_cifar", "resnext101_64x4d")


def one_of_each_kind(names: Iterable[str], below: float = float("inf")) -> list[Any]:
    """All of them, slow but for the smallest of each family and layout, with and without attention.

    What has as many parameters as `below` is slow too.
    """
    names = list(names)
    smallest: dict[tuple[object, ...], str] = {}
    for name in sorted(names, key=lambda name: CATALOG[name].params):
        smallest.setdefault(_kind(CATALOG[name]), name)
    return slow_but(names, (name for name in smallest.values() if CATALOG[name].params < below))


def shallow(names: Iterable[str]) -> list[Any]:
    """All of them, the deep ones slow."""
    names = list(names)
    return slow_but(names, set(names) - set(DEEP))


def slow_but(names: Iterable[str], quick: Iterable[str]) -> list[Any]:
    """All of them, slow but for those that are quick."""
    always = set(quick)
    return [name if name in always else pytest.param(name, marks=pytest.mark.slow) for name in names]


def _kind(spec: ModelSpec) -> tuple[object, ...]:
    return spec.family, spec.layout, spec.trunk is None, spec.attention is None
