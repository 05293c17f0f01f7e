"""Networks of the catalog as parameters of tests: one of each kind always, the others in the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from senet_bench.core.catalog import CATALOG
from senet_bench.core.specs import ModelSpec


def each(names: Iterable[str]) -> list[Any]:
    """All of them, slow but for the smallest of each family and layout, with and without attention."""
    names = list(names)
    smallest: dict[tuple[object, ...], str] = {}
    for name in sorted(names, key=lambda name: CATALOG[name].params):
        smallest.setdefault(_kind(CATALOG[name]), name)
    quick = set(smallest.values())
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def _kind(spec: ModelSpec) -> tuple[object, ...]:
    return spec.family, spec.layout, spec.trunk is None, spec.attention is None
