r"""Numbers in columns of LaTeX's package siunitx, which sets them with their decimal points below each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

USE_PACKAGE = r"\usepackage{siunitx}"
_NUMBER = re.compile(
    r"(?P<sign>[-+−]?)(?P<whole>\d+)(\.(?P<part>\d+))?( ± (?P<spread>\d+(\.\d+)?))?(e(?P<power>[-+]?\d+))?"
)


def column(texts: Sequence[str]) -> str | None:
    """The kind of a column of numbers, spreads behind them or not; None where a cell is another text."""
    known = [_NUMBER.fullmatch(text) for text in texts if text]
    numbers = [match.groupdict("") for match in known if match]
    if not numbers or len(numbers) < len(known):
        return None
    sign = "+" * any(one["sign"] for one in numbers)
    whole, part = (max(len(one[name]) for one in numbers) for name in ("whole", "part"))
    spread = max(len(one["spread"].replace(".", "").lstrip("0")) for one in numbers)
    power = max(len(one["power"].lstrip("+-")) for one in numbers)
    digits = f"{sign}{whole}.{part}" + f"({spread})" * bool(spread) + f"e-{power}" * bool(power)
    return f"S[table-format={digits}{',separate-uncertainty=true' if spread else ''}]"


def cell(text: str) -> str:
    """A number as siunitx reads it."""
    return text.replace("−", "-").replace("±", r"\pm")
