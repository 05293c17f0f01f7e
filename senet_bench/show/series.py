"""One setting after the other: a number over an ablation's settings or a network's depth, with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """Values of one source, one a setting, None where there is none."""

    source: Literal["paper", "here"]
    values: tuple[float | None, ...]
    intervals: tuple[Interval | None, ...] = ()

    @property
    def known(self) -> int:
        """How many settings have a value."""
        return sum(value is not None for value in self.values)


@dataclass(frozen=True, slots=True)
class Panel:
    """One number over the settings; `references` are values to compare with: the baseline, the constant gate."""

    title: str
    lines: tuple[Line, ...]
    references: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """The panels of one ablation; `ordered` settings are joined by a line, others are not."""

    name: str
    title: str
    settings: tuple[str, ...]
    panels: tuple[Panel, ...]
    ordered: bool
    source: str = ""
