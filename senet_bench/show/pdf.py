"""A chart as PDF, one page of its own size, its texts in Times, which every reader has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from senet_bench.show.drawing import Area, Chart, DrawnItem, Place, Point, Stroke, Text
from senet_bench.show.style import LIGHT
from senet_bench.show.svg import numbers, outline

_BY_WIDTH = {
    180: "'", 250: " .,", 278: "ijlt:;/", 333: "()[]-fIr", 389: "sJ", 444: "acez", 556: "FPS", 564: "+=<>", 611: "ELTZ",
    667: "BCR", 722: "w", 778: "m", 833: "%", 889: "M", 944: "W",
}  # fmt: skip
CHARACTER_WIDTHS = {char: width for width, chars in _BY_WIDTH.items() for char in chars}
"""Widths of Times in thousandths of its size; capitals are 722 else, other characters 500."""
SAME = str.maketrans({"−": "-", "Δ": "D", "→": "->", "≥": ">=", "≤": "<="})
"""Characters that the font's encoding lacks, and what stands for them."""


def pdf_file(chart: Chart) -> bytes:
    """The chart as a file; the same chart gives the same bytes."""
    stream = "\n".join(_shapes(chart)).encode("cp1252", errors="replace")
    size = " ".join(numbers((chart.width, chart.height)))
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman /Encoding /WinAnsiEncoding >>"
    states = " ".join(f"/A{percent} << /ca {percent / 100} /CA {percent / 100} >>" for percent in _alphas(chart))
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size}] /Contents 4 0 R "
        f"/Resources << /Font << /F {font} >> /ExtGState << {states} >> >> >>".encode(),
        f"<< /Length {len(stream)} >>\nstream\n".encode() + stream + b"\nendstream",
    )
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n"
    return data + f"{end}<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF\n".encode()


def _alphas(chart: Chart) -> list[int]:
    """The opacities that occur, in per cent."""
    items = (item for part in chart.parts for item in part.items)
    return sorted({round(100 * getattr(item, "alpha", 1.0)) for item in items} | {100})


def _shapes(chart: Chart) -> Iterator[str]:
    yield f"1 0 0 -1 0 {chart.height:.2f} cm 1 j"
    for part in chart.parts:
        for item in part.items:
            yield from _shape(item)


def _shape(item: DrawnItem) -> Iterator[str]:
    """The operators of one shape; y grows downwards."""
    yield f"/A{round(100 * getattr(item, 'alpha', 1.0))} gs"
    match item:
        case Stroke():
            dash = " ".join(numbers(item.dash))
            yield f"{_colour(item.colour)} RG {item.width:.2f} w [{dash}] 0 d {_path(item.places)} S"
        case Area():
            yield f"{_colour(item.colour)} rg {_path(item.places)} h f"
        case Point():
            close = "" if item.shape == "bar" else "h"
            paint = "S" if item.fill is None else "B"
            fill = "" if item.fill is None else f"{_colour(item.fill)} rg"
            yield f"{_colour(item.colour)} RG {fill} 1.4 w [] 0 d {_path(outline(item))} {close} {paint}"
        case Text():
            yield _text(item)


def _text(item: Text) -> str:
    from math import cos, radians, sin

    text = item.text.translate(SAME).encode("cp1252", errors="replace").decode("cp1252")
    wide = item.size * sum(CHARACTER_WIDTHS.get(char, 722 if char.isupper() else 500) for char in text) / 1000
    shift = {"start": 0.0, "middle": wide / 2, "end": wide}[item.anchor]
    c, s = cos(radians(item.turn)), sin(radians(item.turn))
    x, y = item.place[0] - shift * c, item.place[1] - shift * s
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    matrix = " ".join(numbers((c, s, s, -c, x, y)))
    return f"BT {_colour(item.colour)} rg /F {item.size:.2f} Tf {matrix} Tm ({escaped}) Tj ET"


def _path(places: tuple[Place, ...]) -> str:
    (x, y), *others = places
    return f"{x:.2f} {y:.2f} m " + " ".join([f"{x:.2f} {y:.2f} l" for x, y in others])


@cache
def _colour(role: str) -> str:
    colour = LIGHT[role]
    return " ".join(numbers(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)))
