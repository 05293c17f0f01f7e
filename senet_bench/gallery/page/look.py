"""The look of every page: one style for both colour schemes, one script, and the hashes that let them in."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from senet_bench.show.palette import variables

HERE = Path(__file__).parent


def stylesheet() -> str:
    """The style of all pages, in both colour schemes."""
    return f"{variables()}\n{(HERE / 'page.css').read_text(encoding='utf-8')}"


def script() -> str:
    """What makes the page answer."""
    return (HERE / "page.js").read_text(encoding="utf-8")


def digest(text: str) -> str:
    """The hash by which a content security policy knows an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
