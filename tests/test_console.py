"""Tables in a terminal: in colour, whole at any width, plain where no one looks."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest

from senet_bench.core.progress import Progress, Steps
from senet_bench.core.reproduction import of_study
from senet_bench.core.results import Row, Run, RunConditions
from senet_bench.core.specs import AttentionSpec
from senet_bench.show import terminal as console
from senet_bench.show.documents import of_run
from senet_bench.show.measurements import latency_table
from senet_bench.show.tables import Cell, Column, Document, Table, of_table
from tests.support import stored

STATUSES = ("match", "match†", "near", "differs", "not reproduced", "not measured")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def table(columns: int) -> Document:
    """A line a status, beside many wide numbers."""
    heads = [Column("network", numeric=False), Column("status", numeric=False)]
    heads += [Column("counted", f"metric {place}") for place in range(columns)]
    texts = ["1234.5678"] * columns
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (f"SE-ResNet-{status}", Cell(status, status.rstrip("†")), *texts) for status in STATUSES
    )
    return of_table(Table("Networks", tuple(heads), rows, ("a note of many words " * 9,)))


def printed(monkeypatch: pytest.MonkeyPatch, document: Document, width: int, **environment: str) -> str:
    terminal = Terminal()
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color", "COLUMNS": str(width)} | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", terminal)
    console.show(document)
    return terminal.getvalue()


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()


def test_brackets_are_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "[/red] [b]x[/b]"
    shown = of_table(Table(odd, (Column(odd, odd, numeric=False),), ((odd,),), (odd,)))
    for width in (20, 80):
        assert "".join(plain(printed(monkeypatch, shown, width))).replace(" ", "").count("[/red][b]x[/b]") >= 4
    assert console.run_steps(_odd_steps(odd)) == 1


def _odd_steps(text: str) -> Steps[int]:
    yield Progress(text, 0, 1)
    return 1


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_broken(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    lines = plain(printed(monkeypatch, table(12), width))
    assert max(map(len, lines)) <= width
    assert sum(line.count("1234.5678") for line in lines) == 12 * len(STATUSES)
    parts = sum(line.startswith("Networks") for line in lines)
    assert sum(line.startswith("SE-ResNet-differs") for line in lines) == parts  # each part names its rows
    assert (parts > 1) == (width < 200)
    assert sum("a note of many words" in line for line in lines) >= 1


def test_each_status_has_its_colour_unless_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, table(1), 80)
    for status, code in (("match", 32), ("match†", 32), ("near", 33), ("differs", 31), ("not reproduced", 35)):
        assert re.search(rf"\x1b\[[\d;]*{code}m{status}\s*\x1b", text), status
    without = printed(monkeypatch, table(1), 80, NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*(3\d|9\d)m", without)
    assert plain(without) == plain(text)


def test_a_pipe_gets_plain_text_on_long_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    console.show(table(12))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert sum("1234.5678" in line for line in out.splitlines()) == len(STATUSES)
    assert any(len(line) > 120 for line in out.splitlines())


def test_progress_that_no_terminal_shows_is_lines_under_torchrun_and_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def steps() -> Steps[None]:
        yield Progress("epoch 1/2", 1, 2)
        yield Progress("epoch 2/2", 2, 2)

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(console, "BETWEEN_LINES_S", 0.0)
    said = {}
    for rank in (None, "0", "1"):
        monkeypatch.delenv("RANK", raising=False)
        if rank is not None:
            monkeypatch.setenv("RANK", rank)
        console.run_steps(steps())
        said[rank] = capsys.readouterr().err
    monkeypatch.delenv("RANK")
    console.run_steps(steps(), in_lines=True)
    said["wanted"] = capsys.readouterr().err
    assert said[None] == said["1"] == ""
    for which in ("0", "wanted"):
        assert [line.partition(" s: ")[2] for line in said[which].splitlines()] == [
            "epoch 1/2 (1 of 2)",
            "epoch 2/2 (2 of 2)",
        ]


def test_a_ratio_is_said_to_be_of_the_networks_given_and_medians_that_contradict_it_are_remarked() -> None:
    base = replace(stored.row("A", None, 0.1), latency=replace(stored.latency(None), seconds=0.003))
    variant = stored.row("SE-A", AttentionSpec(), 0.1)  # its interval lies above 1, its median below the baseline's
    table = latency_table([base, variant], name=lambda row: row.label)
    assert table is not None
    assert "SE-A: ms and ratio disagree" in " ".join(table.notes)
    assert any(note.startswith("ratio: SE / baseline") for note in table.notes)
    given = replace(variant, role="plain", attention=None)
    table = latency_table([replace(base, latency=stored.latency(None)), given], name=lambda row: row.label)
    assert table is not None
    assert any(note.startswith("ratio: a network / A in the same rounds") for note in table.notes)
    assert "disagree" not in " ".join(table.notes)


@pytest.mark.parametrize(("mode", "words"), [("infer", "one image of 224 px"), ("train", "a step of 256 images")])
def test_a_column_of_the_papers_times_says_what_they_are_of(mode: str, words: str) -> None:
    about: dict[str, Any] = {"family": "resnet", "input_size": (3, 224, 224), "classes": 1000}
    base = Row(model="resnet50", label="ResNet-50", latency=stored.latency(None, mode=mode), **about)
    (timed,) = of_study([base], "table2")
    table = latency_table([timed], name=lambda row: row.label)
    assert table is not None
    assert table.columns[-1].name == "paper ms"
    (note,) = [note for note in table.notes if note.startswith("paper ms: ")]
    assert words in note
    other = latency_table([base], name=lambda row: row.label)
    assert other is not None
    assert not any(note.startswith("paper ms") for note in other.notes)


def test_networks_of_one_name_are_told_apart_by_classes_and_sizes_in_tables_of_times_and_errors() -> None:
    rows = [replace(stored.row("ResNet-110", None, 0.1), classes=classes) for classes in (10, 100)]
    run = Run(**stored.made("compare") | {"conditions": RunConditions()}, rows=rows)
    for table in of_run(run).wide:
        assert [line[0] for line in table.texts] == ["ResNet-110, 10 classes", "ResNet-110, 100 classes"]
