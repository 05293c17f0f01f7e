"""The files of charts, and the names and texts that they and pages have."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping

from senet_bench.show import pdf, svg
from senet_bench.show.drawing import Chart

LONGEST = 60
_NO_NAME = re.compile("[^A-Za-z0-9_-]")


def files_of(charts: Iterable[Chart], drawn: Mapping[str, str] | None = None) -> Iterator[tuple[str, bytes]]:
    """Charts as SVG and PDF by their paths below the results folder; `drawn` has their elements of a page by name."""
    for chart in charts:
        yield f"plots/{chart.name}.svg", svg.svg_file(chart, (drawn or {}).get(chart.name))
        yield f"plots/{chart.name}.pdf", pdf.pdf_file(chart)


def name_of(text: str) -> str:
    """Text as a name of files and ids: what cannot stand there is replaced, and a digest tells such names apart."""
    plain = _NO_NAME.sub("_", text)[:100]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:6]}"


def shown(text: object, longest: int = LONGEST) -> str:
    """Text that can be drawn: on one line, no control characters, not endless."""
    plain = str(text)
    if not plain.isprintable():
        plain = "".join(char if char.isprintable() else " " for char in plain)
    plain = " ".join(plain.split())
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"
