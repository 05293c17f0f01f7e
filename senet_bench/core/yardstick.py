"""The row that others are compared with where one is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from senet_bench.core.results import Row
from senet_bench.core.union import Key, identity


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What rows are compared with instead of their baselines, found once among all rows, whatever part is shown.

    `name` is what it was asked for by, or the name that was given to it; `title` its label where one row alone is
    meant, else that name. `others` has, by the `identity` of each row, the row that it is compared with.
    """

    name: str
    title: str
    others: Mapping[Key, Row]

    def of(self, row: Row) -> Row | None:
        """The row that this one is compared with; None for that row itself, and where none of its kind is named."""
        return self.others.get(identity(row))
