"""What a section of the page is made of: charts with the tables of their numbers, in tabs and tabs of tabs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from senet_bench.show.drawing import Chart
from senet_bench.show.tables import Table


@dataclass(frozen=True, slots=True)
class Leaf:
    """A chart with the table of its numbers, under a short name among its neighbours."""

    name: str
    chart: Chart | None = None
    table: Table | None = None
    table_name: str = ""
    row_ids: tuple[str, ...] = ()
    leaves: tuple[Leaf, ...] = ()


def flat(leaves: Sequence[Leaf]) -> list[Leaf]:
    """Every leaf with those below it."""
    return [one for leaf in leaves for one in (leaf, *flat(leaf.leaves))]


def with_tables(leaf: Leaf, change: Callable[[Table], Table]) -> Leaf:
    """The leaf with every table of its own and of those below it changed."""
    leaves = tuple(with_tables(one, change) for one in leaf.leaves)
    return replace(leaf, table=leaf.table and change(leaf.table), leaves=leaves)


def together(name: str, leaves: Sequence[Leaf]) -> list[Leaf]:
    """Leaves as one of that name, which is what stands in the only one; none of none."""
    if len(leaves) == 1:
        return [replace(leaves[0], name=name)]
    return [Leaf(name, leaves=tuple(leaves))] if leaves else []
