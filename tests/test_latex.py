"""Tables as LaTeX: names escaped, notes inside the float, no wider than the text; compiled by a pdflatex."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from senet_bench.gallery import report
from senet_bench.show import siunitx
from senet_bench.show.documents import of_run
from senet_bench.show.latex import PREAMBLE, TWO_COLUMNS, escaped, fitting, latex, width
from senet_bench.show.layout import Layout
from senet_bench.show.tables import Cell, Column, Table
from tests.support import folders, stored

NASTY = Table(
    "A & B_c #1 {x} 50 %",
    (Column("network", numeric=False), Column("error %", "here"), Column("Δ", "here"), Column("status", numeric=False)),
    (("my_blk:Gate/lam=0.01", "9.1 ± 0.3", "−0.2", Cell("match†", "match")), (stored.HOSTILE, "1", "2", "~^<>|")),
    ("† by another convention", "see package.module_of:Name \\input{x}"),
)


def test_names_are_escaped_notes_stand_in_the_float_and_a_label_is_there() -> None:
    text = latex([NASTY])
    assert text.startswith(f"% {PREAMBLE}")
    assert r"\caption{A \& B\_c \#1 \{x\} 50 \%}" in text
    assert r"\label{tab:a-b-c-1-x-50}" in text
    inside = text[text.index(r"\begin{threeparttable}") : text.index(r"\end{threeparttable}")]
    assert r"\item $\dagger$ by another convention" in inside
    assert r"match$\dagger$" in inside
    assert r"\multicolumn{2}{c}{here}" in inside
    assert r"\cmidrule(lr){2-3}" in inside
    assert r"\input" not in text
    assert escaped("é") == "é"
    assert escaped("漢") == "?"
    numbers = (
        ("9.13 ± 0.31", "10.2 ± 1.2", ""),
        ("+0.5", "−12.25", "1"),
        ("2e-05", "0.3", ""),
        ("1 [0, 2]", "1", "2"),
        ("", ""),
    )
    kinds = [siunitx.column(texts) for texts in numbers]
    assert kinds[0] == "S[table-format=2.2(2),separate-uncertainty=true]"
    assert kinds[1:] == ["S[table-format=+2.2]", "S[table-format=1.1e-2]", None, None]
    assert siunitx.cell("−9.1 ± 0.3") == r"-9.1 \pm 0.3"


def test_what_latex_would_join_or_take_for_its_own_is_kept_apart() -> None:
    assert escaped("add --dataset, or ---x; a – b") == "add -{}-dataset, or -{}-{}-x; a -- b"
    assert escaped("``why?`''") == "`{}`why?{}`'{}'"
    columns = (Column("network", numeric=False), Column("ms"))
    text = latex([Table("T", columns, (("*", "1"), ("[1, 2]", "2"), ("net", "3")), ("[a note",))])
    assert r"\item {}[a note" in text
    lines = text.splitlines()
    assert [line for line in lines if line.endswith(r"\\") and "{}" in line] == [r"{}* & 1 \\", r"{}[1, 2] & 2 \\"]
    stacked = latex([Table("T", (Column("twelve signs [px]", numeric=False),), (("a",),))])
    assert r"\\ {}[px]" in stacked


def test_what_is_too_wide_is_split_into_parts_that_fit() -> None:
    columns = (Column("network", numeric=False), *(Column(f"number {place}") for place in range(30)))
    table = Table("Wide", columns, (("a network", *["12.34 [1.00, 2.00]"] * 30),), ("a note",))
    parts = list(fitting(table, TWO_COLUMNS))
    assert len(parts) > 2
    assert all(width(part) <= TWO_COLUMNS and part.columns[0].name == "network" for part in parts)
    assert sum(len(part.columns) - 1 for part in parts) == 30
    text = latex([table])
    assert f"(part 1 of {len(parts)})" in text
    assert text.count(r"\item a note") == 1
    small = latex([Table("Small", columns[:2], (("a", "1"),))])
    assert r"\begin{table}" in small
    assert r"\begin{table*}" in text


@pytest.mark.slow
def test_every_kind_of_table_compiles_and_fits(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here: install one (Debian: texlive-latex-extra)")
    folders.drawn(tmp_path, 3)
    for path in sorted((stored.COMMITTED / "runs").glob("*/*-compare-*.json"))[:2]:
        copy = tmp_path / path.relative_to(stored.COMMITTED)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    from senet_bench.core.store import Store

    found = [data for place, data in report.read_gallery(Store(tmp_path)).files if place.endswith(".tex")]
    texts = [data for data in found if isinstance(data, str)]
    document = of_run(stored.ablation(), layout=Layout(against="reduction=2", spread="sd"))
    aligned = shutil.which("kpsewhich") and not subprocess.run(["kpsewhich", "siunitx.sty"], check=False).returncode
    texts += [latex([NASTY]), latex(document.wide, document.narrow)]
    texts += [latex(document.wide, document.narrow, aligned=True)] * bool(aligned)
    assert len(texts) > 8
    for kind in ("article", "twocolumn"):
        options = "" if kind == "article" else "[twocolumn]"
        body = "\n\\clearpage\n".join(texts)
        packages = PREAMBLE + siunitx.USE_PACKAGE * bool(aligned)
        source = f"\\documentclass{options}{{article}}{packages}\\begin{{document}}\n{body}\n\\end{{document}}\n"
        (tmp_path / f"{kind}.tex").write_text(source, encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{kind}.tex"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert ended.returncode == 0, ended.stdout[-2000:]
        wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", ended.stdout)]
        assert [points for points in wide if points > 2] == []
