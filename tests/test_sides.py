"""Machines, versions and folders beside each other, what to say of them in a paper, and what `report` prints."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import replace
from pathlib import Path

import pytest

import senet_bench
from senet_bench.core.results import Row
from senet_bench.core.specs import Conditions
from senet_bench.errors import BenchError
from senet_bench.show.layout import Layout
from senet_bench.show.measurements import latency_table
from tests.conftest import Run
from tests.support import stored


def slower(row: Row, by: float) -> Row:
    if row.latency is None or row.latency.ratio is None:
        return row
    ratio = row.latency.ratio + by
    return replace(row, latency=replace(row.latency, ratio=ratio, ci=(ratio - 0.01, ratio + 0.01)))


@pytest.fixture
def two(tmp_path: Path) -> None:
    """Results of one ablation on two machines; r = 2 is slower on the second."""
    second = stored.ablation("bbbbbbbbbbbb")
    rows = [slower(row, 0.1 if row.axes == {"reduction": 2} else 0.005) for row in second.rows]
    stored.store(tmp_path / "a", stored.ablation(), "20261120T100000Z-ablate-1")
    stored.store(tmp_path / "b", replace(second, rows=rows), "20261120T100001Z-ablate-2")


@pytest.mark.usefixtures("two")
def test_folders_and_machines_stand_side_by_side_and_differ_where_intervals_say_so(run: Run, tmp_path: Path) -> None:
    ended = run("report", "a", "b", "--format", "json")
    assert ended.code == 0, ended.err
    assert '"sides":["a","b"]' in ended.out.replace(" ", "").replace("\n", "")
    lines = run("report", "a", "b").out.splitlines()
    assert lines[0].startswith("Time over the baseline's: batch 1")
    two = next(line for line in lines if "reduction=2" in line)
    assert two.split()[-1] == "differs"
    four = next(line for line in lines if "reduction=4" in line)
    assert "1.050 [1.040, 1.060]" in four
    assert "1.055 [1.045, 1.065]" in four
    assert not four.endswith("differs")
    assert all(line == line.rstrip() for line in lines)
    by = run("report", "a", "b", "--by", "machine")
    assert "Test CPU, 4 cores (aaaaaaaaaaaa)" in by.out
    assert not (tmp_path / "a" / "index.html").exists()


def test_times_of_two_machines_are_columns_of_their_own_where_versions_of_torch_stand_side_by_side(
    run: Run, tmp_path: Path
) -> None:
    for place, (machine, torch, by) in enumerate(
        (("a" * 12, "2.11.0", 0.0), ("b" * 12, "2.15.0", 0.2), ("c" * 12, "2.15.0", 0.3))
    ):
        stored_run = stored.ablation(machine)
        environment = replace(stored_run.environment, packages={"torch": torch})
        rows = [slower(row, by) for row in stored_run.rows]
        stored.store(
            tmp_path / "results",
            replace(stored_run, environment=environment, rows=rows),
            f"20261120T10000{place}Z-ablate-1",
        )
    head, line = next(
        (table.splitlines()[1], next(one for one in table.splitlines() if one.startswith("SE-ResNet-20 (reduction=4)")))
        for table in run("report", "--by", "torch").out.split("\n\n")
        if table.startswith("Time over")
    )
    assert [f"torch 2.15.0, Test CPU, 4 cores ({letter * 12})" in head for letter in "abc"] == [False, True, True]
    assert [f"{ratio} [" in line for ratio in ("1.050", "1.250", "1.350")] == [True] * 3


def test_the_same_network_by_images_of_two_sizes_is_told_apart(run: Run, tmp_path: Path) -> None:
    small = stored.ablation()
    large = [
        replace(row, input_size=(3, 32, 32), latency=replace(row.latency, seconds=10 * row.latency.seconds))
        for row in small.rows
        if row.latency
    ]
    stored.store(tmp_path / "results", small, "20261120T100000Z-ablate-0")
    stored.store(tmp_path / "results", replace(small, rows=large), "20261120T100001Z-ablate-1")
    assert run("report").code == 0
    (written,) = (tmp_path / "results/tables").glob("latency-*.md")
    text = written.read_text(encoding="utf-8")
    names = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(names) == len(set(names)) == 10
    assert {"ResNet-20, 1x8x8", "ResNet-20, 3x32x32"} <= set(names)
    assert "disagree" not in text  # each is compared with the baseline of its own size
    beside = run("report", "results", "results/../results").out
    assert beside.count("ResNet-20, 3x32x32") > 1
    assert "lr 0.1), 8x8 px" in beside
    assert "lr 0.1), 32x32 px" in beside


@pytest.mark.parametrize(("content", "code"), [("{", 2), ('{"schema": "senet-bench.compare/99", "rows": []}', 4)])
def test_files_are_named_where_none_of_a_folder_can_be_read(run: Run, tmp_path: Path, content: str, code: int) -> None:
    stored.store(tmp_path / "a", stored.ablation(), "20261120T100000Z-ablate-1")
    broken = [
        stored.store(tmp_path / "b", stored.ablation(), f"20261120T10000{place}Z-compare-{place}") for place in range(2)
    ]
    for path in broken:
        path.write_text(content, encoding="utf-8")
    for call in (("a", "b"), ("b", "--by", "machine"), ("b", "--cite")):
        ended = run("report", *call)
        assert (ended.code, ended.err.count("\n")) == (code, 1), ended.err
        assert all(path.name in ended.err for path in broken)
    with pytest.raises(BenchError, match=r"compare-0.*compare-1") as caught:
        senet_bench.load(tmp_path / "b")
    assert caught.value.exit_code == code


@pytest.mark.usefixtures("two")
def test_what_stands_side_by_side_is_numbers_for_machines(run: Run) -> None:
    times, errors, params, macs = json.loads(run("report", "a", "b", "--format", "json").out)["rows"]
    of_two = next(line for line in times["lines"] if "reduction=2)" in line["network"])
    here, there = (of_two[name] for name in of_two if name not in ("network", "differs"))
    assert (here["ratio"], there["ratio"]) == pytest.approx((1.1, 1.2), abs=0.01)
    assert there["ci"] == pytest.approx([there["ratio"] - 0.01, there["ratio"] + 0.01])
    assert of_two["differs"] is True
    assert {line["differs"] for line in times["lines"] if line is not of_two} == {False}
    row = stored.ablation().rows[0]
    assert row.accuracy is not None
    assert errors["lines"][0]["a"]["top1_err"] == row.accuracy.top1_err
    assert (params["lines"][0]["a"], macs["lines"][0]["b"]) == (row.params, row.flops["macs"])
    heads = run("report", "a", "b", "--format", "csv").out.splitlines()[0]
    assert all(head in heads for head in ("_ratio", "_ci_low", "a_top1_err", "b_top1_err", "differs"))


@pytest.mark.usefixtures("two")
def test_what_is_said_in_a_paper_is_true_of_the_rows(run: Run) -> None:
    times, errors = run("report", "a", "--cite").out.splitlines()
    assert "senet-bench 0.1.0 on Test CPU, 4 cores (torch 2.15.0)" in times
    assert "in the same 40 rounds" in times
    assert "on digits (digits, 60 epochs, lr 0.1) as means over 4 seeds" in errors
    assert "Holm's method over the 3 rows compared" in errors
    both = run("report", "a", "b", "--cite").out.splitlines()
    assert both[:2] == [f"a: {times}", f"a: {errors}"]
    assert both[2].startswith("b: Times were")
    for unused in (("--format", "json"), ("-o", "x"), ("--by", "torch"), ("--against", "se"), ("--any-protocol",)):
        refused = run("report", "a", "--cite", *unused)
        assert (refused.code, refused.err.count("\n")) == (2, 1)


@pytest.mark.usefixtures("two")
def test_a_report_asks_for_no_folder_to_be_written_but_the_one_it_writes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "results").touch()  # nothing could be written there
    for what in (("a", "b"), ("a", "--cite"), ("a", "b", "--by", "machine"), ("a",)):
        ended = run("report", *what)
        assert ended.code == 0, ended.err
    ended = run("report")
    assert (ended.code, "results cannot be made" in ended.err) == (2, True)


@pytest.mark.usefixtures("two")
def test_a_damaged_file_of_a_side_is_named(run: Run, tmp_path: Path) -> None:
    whole = run("report", "a", "b")
    damaged = tmp_path / "b" / "runs" / ("b" * 12) / "20261120T110000Z-compare-9.json"
    damaged.write_bytes(b"{")
    ended = run("report", "a", "b")
    assert (ended.code, ended.out) == (2, whole.out)
    assert [damaged.name in line for line in ended.err.splitlines()] == [True, True]


def test_sides_that_are_none_are_one_line(run: Run, tmp_path: Path) -> None:
    stored.store(tmp_path / "a", stored.ablation(), "20261120T100000Z-ablate-1")
    alone = run("report", "a", "--by", "torch")
    assert (alone.code, alone.err) == (
        2,
        "senet-bench: there is only torch 2.15.0 to show; name two results folders or more\n",
    )
    against = run("report", "a", "a", "--against", "se")
    assert (against.code, against.err.count("\n")) == (2, 1)
    nothing = run("report", "a", "empty")
    assert (nothing.code, nothing.err.count("\n")) == (2, 1)


def test_paths_are_one_line_unless_all_are_wanted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.store(tmp_path / "results", stored.evaluated(), "20261120T100000Z-evaluate-1")
    ended = run("report")
    assert ended.err.splitlines()[0].endswith(" files in results: tables, plots and index.html")
    assert len(ended.err.splitlines()) == 1
    assert len(run("report", "-v").err.splitlines()) > 5
    document = json.loads(run("report", "--format", "json").out)
    assert (document["schema"], document["rows"][0]["title"]) == ("senet-bench.report/1", "What is not there yet")
    monkeypatch.setenv("COLUMNS", "60")
    narrow = run("report").out.splitlines()
    assert max(map(len, narrow)) <= 60
    assert all(line == line.rstrip() for line in narrow)


def test_a_report_in_a_format_of_machines_is_written_in_quiet_too_and_says_when_where_and_what_was_asked(
    run: Run, tmp_path: Path
) -> None:
    stored.store(tmp_path / "results", stored.ablation(), "20261120T100000Z-ablate-1")
    document = json.loads(run("report", "-q", "--format", "json", "--rows", "none,constant").out)
    assert list(document) == ["schema", "version", "created", "environment", "conditions", "rows"]
    assert document["environment"]["python"] == platform.python_version()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["created"])
    asked = document["conditions"]
    assert (asked["folders"], asked["rows"], asked["by"]) == (["results"], "none,constant", None)
    assert document["rows"]
    stored.store(tmp_path / "a", stored.ablation("bbbbbbbbbbbb"), "20261120T100000Z-ablate-1")
    beside = json.loads(run("report", "results", "a", "-q", "--format", "json").out)
    assert (beside["sides"], beside["conditions"]["folders"]) == (["results", "a"], ["results", "a"])
    assert run("report", "-q", "-o", "short.md").out == ""
    assert (tmp_path / "short.md").read_text(encoding="utf-8").startswith("### What is not there yet")


def test_times_and_errors_are_compared_with_any_row_in_tables_and_on_the_page(run: Run, tmp_path: Path) -> None:
    made, batch = stored.ablation(), Conditions(batch_size=8)
    stored.store(tmp_path / "results", made, "20261120T100000Z-ablate-1")
    asked = Layout(against="reduction=2")
    table = latency_table(made.rows, name=lambda row: row.label, against=asked.yardstick_of(made.rows))
    assert table is not None
    place = [column.name for column in table.columns].index("over reduction=2")
    assert [row[place] for row in table.texts[:3]] == ["0.909 [0.901, 0.917]", "", "0.955 [0.937, 0.972]"]
    twice = [replace(row, more_latency=[replace(row.latency, conditions=batch)]) for row in made.rows if row.latency]
    table = latency_table(twice, name=lambda row: row.label, against=asked.yardstick_of(twice))
    assert table is not None
    place = [column.name for column in table.columns].index("over reduction=2")
    assert [row[place] for row in table.texts[:4]] == ["0.909 [0.901, 0.917]"] * 2 + [""] * 2
    assert any(note.startswith("over reduction=2: ") and "90 %" in note for note in table.notes)
    ended = run("report", "--against", "reduction=2", "-q")
    assert ended.code == 0, ended.err
    page = (tmp_path / "results" / "index.html").read_text()
    assert "minus reduction=2" in page
    assert "against reduction=2" in page
    assert "over reduction=2" in page
    errors = next((tmp_path / "results" / "tables").glob("errors-*.md")).read_text()
    assert "minus SE-ResNet-20 (reduction=2)" in errors
    unknown = run("report", "--against", "cbam")
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)
    assert "no row is called 'cbam'" in unknown.err


@pytest.mark.usefixtures("two")
def test_a_report_lays_its_tables_out_as_asked(run: Run, tmp_path: Path) -> None:
    usual = run("report", "a")
    whole = {path.name: path.read_text() for path in (tmp_path / "a" / "tables").glob("*.csv")}
    wanted = ("--label", "reduction=2=Ours", "--rows", "none,Ours", "--spread", "sd", "--decimals", "1")
    ended = run("report", "a", *wanted)
    assert (usual.code, ended.code) == (0, 0), ended.err
    (errors,) = (path for path in (tmp_path / "a" / "tables").glob("errors-*.md"))
    lines = [line for line in errors.read_text().splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["ResNet-20", "Ours"]
    assert "±" in lines[3]
    (times,) = (path for path in (tmp_path / "a" / "tables").glob("latency-*.md"))
    assert "Ours" in times.read_text()
    assert "reduction=4" not in times.read_text()
    chosen = run("report", "a", "--columns", "seeds")
    assert chosen.code == 0, chosen.err
    assert "| network" in errors.read_text()
    assert "error %" not in errors.read_text().partition("\n\n")[2].partition("\n\n")[0]
    run("report", "a")
    assert {path.name: path.read_text() for path in (tmp_path / "a" / "tables").glob("*.csv")} == whole
    for option in (("--rows", "nope"), ("--label", "nope=x"), ("--columns", "nope")):
        refused = run("report", "a", *option)
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert run("report", "a", "b", "--decimals", "1").code == 2
