"""The colours of plots and pages, each by its role, for light and for dark; and the style of every page."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

ROLE_COLOURS: dict[str, tuple[str, str]] = {
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

LIGHT = {role: light for role, (light, _) in ROLE_COLOURS.items()}
"""The colours a plot on disk is drawn in."""


def variables() -> str:
    """The colours as CSS variables that follow the colour scheme."""
    lines = (f"--{role}: light-dark({light}, {dark});" for role, (light, dark) in ROLE_COLOURS.items())
    return ":root { color-scheme: light dark; " + " ".join(lines) + " }"


def stylesheet() -> str:
    """The style of all pages, in both colour schemes."""
    return f"{variables()}\n{Path(__file__).with_name('page.css').read_text(encoding='utf-8')}"


def digest(text: str) -> str:
    """The hash by which a content security policy knows an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
