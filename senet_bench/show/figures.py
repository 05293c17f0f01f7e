"""Numbers to some significant figures."""

from __future__ import annotations

from senet_bench.show.tables import EMPTY


def significant(value: float | None, figures: int = 4, scale: float = 1) -> str:
    """A number times `scale` to so many figures, empty where there is none; a large one in full, never as 2.3e+04."""
    if value is None:
        return EMPTY
    text = format(scale * value, f".{figures}g")
    return format(scale * value, ".0f") if "e+" in text else text
