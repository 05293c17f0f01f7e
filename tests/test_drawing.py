"""Charts as SVG and PDF: well-formed, the same each time, with texts that lie over nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from senet_bench.show import pdf, svg
from senet_bench.show.curves import Line, Panel, Series, curves
from senet_bench.show.drawing import (
    Chart,
    DrawnPart,
    Scale,
    Text,
    cut,
    named_ticks,
    scale_around,
    width_of,
    wrapped_lines,
)
from tests.support import stored


def chart(**panel: object) -> Chart:
    """Two panels over three settings, one with intervals that reach below nothing."""
    line = Line("here", (4.0, 2.0, 3.0), ((3.0, 5.0), (-4.0, 8.0), (2.0, 4.0)))
    panels = (
        Panel("top-1 error, %", (line,), (("baseline", 3.5),), "error", (0.0, 100.0)),
        Panel("MFLOPs", (Line("here", (1.0, 2.0, 4.0)),), (), "FLOPs"),
    )
    made = curves(Series("some", "Some title & <more>", ("a", "b", "c"), panels, ordered=False, axis="setting"))
    assert made is not None
    return made


def test_a_file_is_well_formed_and_says_its_axes_and_units() -> None:
    root = ElementTree.fromstring(svg.svg_file(chart()))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"top-1 error, %", "MFLOPs", "baseline"} <= set(texts)
    assert texts.count("setting") == 2
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    numbers = [float(text.replace("−", "-")) for text in texts if text and re.fullmatch(r"−?[\d.]+", text)]
    assert min(numbers) >= 0  # an error's axis ends at nothing


def test_a_pdf_has_one_page_and_finds_its_objects() -> None:
    data = pdf.pdf_file(chart())
    assert data == pdf.pdf_file(chart())
    table = int(data.rsplit(b"startxref\n", 1)[1].split()[0])
    assert data[table : table + 4] == b"xref"
    offsets = [int(line[:10]) for line in data[table:].splitlines() if line.endswith(b" n ")]
    assert [data[at : at + 7] for at in offsets] == [f"{place} 0 obj".encode() for place in range(1, 5)]
    assert b"/BaseFont /Times-Roman" in data
    assert b"(top-1 error, %) Tj" in data
    hostile = Chart("x", stored.HOSTILE, 10, 10, (DrawnPart((Text((1, 1), f"(a) \\ {stored.HOSTILE}"),)),))
    assert rb"(\(a\) \\ " in pdf.pdf_file(hostile)
    ElementTree.fromstring(svg.svg_file(hostile))


def test_inside_a_page_colours_are_the_pages_and_marks_speak() -> None:
    text = svg.inline(chart())
    assert "var(--here)" in text
    assert "#" not in re.sub(r"url\(#[^)]*\)|&#10;", "", text)
    assert 'data-tip="b&#10;top-1 error, %&#10;here: 2 (-4 to 8)"' in text
    ElementTree.fromstring(text)


@pytest.mark.parametrize(
    ("scale", "texts"),
    [
        (Scale(0, 10), ["0", "2", "4", "6", "8", "10"]),
        (Scale(0.9, 60, log=True), ["1", "2", "5", "10", "20", "50"]),
        (Scale(1.01, 1.3, log=True), ["1.1", "1.2", "1.3"]),
        (Scale(-1e-3, 1e-3), ["−0.001", "−0.0005", "0", "0.0005", "0.001"]),
        (Scale(1000000, 1000004), ["1000000", "1000001", "1000002", "1000003", "1000004"]),
    ],
)
def test_ticks_are_round_numbers_that_are_told_apart(scale: Scale, texts: list[str]) -> None:
    assert [text for _, text in named_ticks(scale.ticks())] == texts


def test_scales_have_room_and_keep_to_what_can_be() -> None:
    assert scale_around([5, 5]).low < 5 < scale_around([5, 5]).high
    assert (scale_around([0, 99], bounds=(0, 100)).low, scale_around([0, 99], bounds=(0, 100)).high) == (0, 100)
    assert wrapped_lines("one two three", width_of("one two")) == ["one two", "three"]
    assert cut("a long name", width_of("a long")) == "a lo…"


def test_drawing_loads_no_matplotlib() -> None:
    code = "import sys, senet_bench.gallery.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
