"""What changed, by name: `params +12,288: layer3.0.se.fc1`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

SHOWN = 6
"""So many names are written out in a sentence."""


def changed_counts(base: Mapping[str, int], now: Mapping[str, int]) -> list[tuple[str, int]]:
    """Names whose count differs with the difference, the largest first."""
    names = dict.fromkeys((*now, *base))
    found = [(name, now.get(name, 0) - base.get(name, 0)) for name in names]
    return sorted((one for one in found if one[1]), key=lambda one: -abs(one[1]))


def by_module(changes: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Changes of tensors added up over the module that holds them, the largest first."""
    sums: Counter[str] = Counter()
    for name, change in changes:
        sums[name.rpartition(".")[0] or name] += change
    return sorted(((name, change) for name, change in sums.items() if change), key=lambda one: -abs(one[1]))


def changed_texts(base: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str]]:
    """Keys that came, went or have another value, each with what happened to it."""
    found = [(key, f"new, {now[key]}") for key in now if key not in base]
    found += [(key, "gone") for key in base if key not in now]
    found += [(key, f"{base[key]} -> {now[key]}") for key in now if key in base and base[key] != now[key]]
    return found


def sentence(what: str, changes: Sequence[tuple[str, int | str]], total: int | None = None) -> str:
    """One line: the total, then the names with their changes, the rest as a number."""
    shown = [_shown(name, change, alone=len(changes) == 1 and total == change) for name, change in changes[:SHOWN]]
    rest = f", and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    amount = "" if total is None else f" {total:+,}"
    return f"{what}{amount}: {', '.join(shown)}{rest}" if shown else f"{what}{amount}"


def _shown(name: str, change: int | str, *, alone: bool) -> str:
    if isinstance(change, str):
        return f"{name} {change}"
    return name if alone else f"{name} {change:+,}"
