"""The colours of plots and pages, each by its role, for light and for dark."""

from __future__ import annotations

ROLES: dict[str, tuple[str, str]] = {
    "ink": ("#1d2125", "#e9e6df"),
    "muted": ("#59626c", "#a5adb5"),
    "rule": ("#d9d4c9", "#3a4147"),
    "surface": ("#ffffff", "#1b1f23"),
    "ground": ("#faf8f4", "#121517"),
    "paper": ("#1a5fa3", "#83bdf2"),
    "here": ("#b23c07", "#ff9f68"),
    "control": ("#75600a", "#dcc25a"),
    "match": ("#1b6a39", "#72d193"),
    "near": ("#7d5300", "#e6b95c"),
    "differs": ("#b3231b", "#ff8d84"),
    "not-reproduced": ("#6d389f", "#cba6f4"),
    "class-1": ("#0f766f", "#5ed3c8"),
    "class-2": ("#9c2a62", "#f290be"),
    "class-3": ("#4d6a12", "#b3d465"),
    "class-4": ("#4c4fae", "#a9acf7"),
    "class-5": ("#8a4b16", "#e5ab78"),
}
"""Every pair reads at 4.5:1 or more as text on its ground and surface, but `rule`, which is no text."""

LIGHT = {role: light for role, (light, _) in ROLES.items()}
"""The colours a plot on disk is drawn in."""


def variables() -> str:
    """The colours as CSS variables that follow the colour scheme."""
    lines = (f"--{role}: light-dark({light}, {dark});" for role, (light, dark) in ROLES.items())
    return ":root { color-scheme: light dark; " + " ".join(lines) + " }"


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours as WCAG 2 defines it, 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
