"""The files of charts, and the names and texts that they and pages have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from senet_bench.show import pdf, svg
from senet_bench.show.drawing import Chart

LONGEST = 60


def files_of(charts: Iterable[Chart], drawn: Mapping[str, str] | None = None) -> Iterator[tuple[str, bytes]]:
    """Charts as SVG and PDF by their paths below the results folder; `drawn` has their elements of a page by name."""
    for chart in charts:
        yield f"plots/{chart.name}.svg", svg.svg_file(chart, (drawn or {}).get(chart.name))
        yield f"plots/{chart.name}.pdf", pdf.pdf_file(chart)


def name_of(text: str) -> str:
    """Text as a name of files and ids: what cannot stand there is replaced, and a digest tells such names apart."""
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "_" for char in text)[:100]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:6]}"


def shown(text: object, longest: int = LONGEST) -> str:
    """Text that can be drawn: on one line, no control characters, not endless."""
    plain = "".join(char if char.isprintable() else " " for char in str(text))
    plain = " ".join(plain.split())
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"
