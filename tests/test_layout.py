"""Tables as their readers want them: rows, columns, names, and what is compared with what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from senet_bench.api.tables import TableOptions
from senet_bench.core.reproduction import of_study
from senet_bench.core.results import Row, Run, RunConditions
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.store import Store
from senet_bench.core.studies import STUDIES, Study
from senet_bench.errors import UsageError
from senet_bench.gallery.report import read_gallery
from senet_bench.overhead.fitting import fitting_rows
from senet_bench.overhead.tables import with_verdicts
from senet_bench.show import documents
from senet_bench.show.layout import AS_IS, Layout, labels
from senet_bench.show.tables import Document
from senet_bench.show.writers import csv, render
from tests.conftest import Run as Command
from tests.support import stored

SE = AttentionSpec()


def of_run(run: Run, studies: Sequence[Study] = (), layout: Layout = AS_IS) -> Document:
    """A run with the rows and columns that a layout asks for."""
    return documents.laid(documents.of_run(run, studies, layout), layout)


def test_rows_columns_and_names_are_those_asked_for_in_every_format() -> None:
    layout = Layout(
        rows=("none", "reduction=4", "constant"), columns=("error %", "params, M"), labels={"reduction=4": "Ours"}
    )
    document = of_run(stored.ablation(), layout=layout)
    counts, errors = document.wide
    assert [row[0] for row in counts.texts] == ["ResNet-20", "Ours", "gates fixed at 0.5"]
    assert [f"{column.group} {column.name}" for column in counts.columns[1:]] == ["params, M counted", "params, M +%"]
    assert [column.name for column in errors.columns] == ["network", "error %"]
    assert "| Ours " in render(document, "md")
    assert "Ours" in render(document, "latex")
    assert '"label":"SE-ResNet-20 (reduction=4)"' in render(document, "json").replace('": ', '":')


def test_a_row_is_named_as_its_table_names_it_and_notes_are_those_of_the_columns_shown() -> None:
    run = stored.ablation()
    control = replace(run.rows[-1], label="SE-ResNet-20, gates fixed at 0.5", axes={"block": "constant"})
    run = replace(run, rows=[*run.rows[:-1], control])
    layout = Layout(rows=("none", "Gates fixed at 0.5"), columns=("error %", "p Holm"))
    (errors,) = of_run(run, layout=layout).wide
    assert [row[0] for row in errors.texts] == ["ResNet-20", "gates fixed at 0.5"]
    assert any(note.startswith("difference: ") for note in of_run(run).wide[-1].notes)
    assert not any(note.startswith("difference: ") for note in errors.notes)


@pytest.mark.parametrize(("asked", "shown", "error"), [("se", "SE-ResNet-50", "23.29"), ("none", "ResNet-50", "24.80")])
def test_a_row_of_the_papers_pairs_is_shown_without_the_other_one(asked: str, shown: str, error: str) -> None:
    base = Row(model="resnet50", label="ResNet-50", family="resnet", input_size=(3, 224, 224), classes=1000)
    variant = replace(base, model="seresnet50", label="SE-ResNet-50", baseline="resnet50", role="variant", attention=SE)
    rows = of_study([base, variant], "table2")
    run, study = Run(**stored.made("compare") | {"conditions": RunConditions()}, rows=rows), STUDIES["table2"]
    (pairs,) = of_run(run, [study]).wide
    assert [line[0] for line in pairs.texts] == ["ResNet-50"]
    assert {column.group for column in pairs.columns} == {"", "original", "re-implementation", "SENet"}
    (chosen,) = of_run(run, [study], Layout(rows=(asked,))).wide
    assert [line[0] for line in chosen.texts] == [shown]
    assert error in chosen.texts[0]


def test_fields_of_csv_can_be_named() -> None:
    document = of_run(stored.ablation(), layout=Layout(columns=("accuracy_top1_err", "error %")))
    assert render(document, "csv").splitlines()[0] == "label,accuracy_top1_err"
    whole = of_run(stored.ablation()).records[1]
    assert {"latency_ci_low", "latency_ci_high", "accuracy_difference_ci_low", "error_seed_3"} <= whole.keys()
    assert not [value for value in whole.values() if isinstance(value, tuple | dict | list)]


def test_a_column_is_called_by_what_stands_before_its_comma_in_tables_and_in_csv() -> None:
    typed = TableOptions(columns="params,error %,difference").layout()  # as the option's help has it
    document = of_run(stored.ablation(), layout=typed)
    counts, errors = document.wide
    assert [f"{column.group} {column.name}" for column in counts.columns[1:]] == ["params, M counted", "params, M +%"]
    assert [column.name for column in errors.columns] == ["network", "error %", "difference"]
    assert render(document, "csv").splitlines()[0] == "label,params,accuracy_top1_err,accuracy_difference"
    document = of_run(stored.ablation(), layout=replace(typed, against="reduction=2"))
    assert render(document, "csv").splitlines()[0] == "label,params,accuracy_top1_err,against_value"
    for text in ("params", "params, M", "params,M"):
        (counts,) = of_run(stored.ablation(), layout=TableOptions(columns=text).layout()).wide
        assert {column.group for column in counts.columns[1:]} == {"params, M"}


def test_columns_that_change_nothing_in_a_format_are_told(run: Command) -> None:
    typed = TableOptions(columns="accuracy_top1_err,error %,p alone")
    document = of_run(stored.ablation(), layout=typed.layout())
    assert typed.unheeded(document, "table") == "--columns: no table here has accuracy_top1_err, which --format csv has"
    assert typed.unheeded(document, "csv") == ""
    assert typed.unheeded(document, "json") == "--columns is of tables and CSV: JSON has everything"
    assert TableOptions().unheeded(document, "json") == ""
    ended = run("compare", "resnet20_cifar", "--no-latency", "--columns", "params,+%", "--format", "csv")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[0] == "label,params"
    assert "--columns: CSV has no field for +%" in ended.err


def test_a_name_with_a_comma_in_it_is_one_row() -> None:
    made = stored.ablation()
    rows = [
        replace(row, axes={"squeeze": squeeze, "stages": 2}) if row.role == "variant" else row
        for row, squeeze in zip(made.rows, ("", "max", "avg", "none", ""))
    ]
    for text in ("none,squeeze=max, stages=2", "none,squeeze=max,stages=2"):
        layout = TableOptions(rows=text).layout()
        layout.check(rows)
        shown = of_run(replace(made, rows=rows), layout=layout).wide[0]
        assert [line[0] for line in shown.texts] == ["ResNet-20", "squeeze=max, stages=2"]
    named = TableOptions(rows="none,Max, two", label=["squeeze=max, stages=2=Max, two"]).layout()
    assert named.rows == ("none", "squeeze=max, stages=2")
    shown = of_run(replace(made, rows=rows), layout=named).wide[0]
    assert [line[0] for line in shown.texts] == ["ResNet-20", "Max, two"]


def test_a_name_with_a_comma_in_it_is_one_row_of_a_report_too(tmp_path: Path) -> None:
    made = stored.ablation()
    rows = [replace(row, axes={"reduction": 2, "stages": 3}) if row.axes else row for row in made.rows[:2]]
    stored.store(tmp_path, replace(made, rows=rows), "20261120T100000Z-ablate-1")
    read = read_gallery(Store(tmp_path), layout=TableOptions(rows="reduction=2,stages=3").layout())
    assert read.collection.layout.rows == ("reduction=2, stages=3",)


def test_tables_of_what_fits_have_the_rows_columns_and_names_asked_for() -> None:
    run = stored.ablation()
    layout = Layout(rows=("none", "reduction=4"), columns=("budget",), labels={"reduction=4": "Ours"})
    verdicts = fitting_rows(run.rows, {"params": 1.1})
    document = with_verdicts(documents.of_run(run, layout=layout), verdicts, layout, run.rows)
    document = documents.laid(document, layout)
    (table,) = document.wide
    assert [line[:2] for line in table.texts] == [("ResNet-20", "inside"), ("Ours", "inside")]
    assert [column.name for column in table.columns] == ["network", "budget"]
    assert any(
        note.startswith("surely inside: ") and "Ours" in note and "(reduction=8)" in note for note in table.notes
    )
    assert "Ours,inside" in render(document, "csv").splitlines()
    found = json.loads(render(document, "json"))["verdict"][0]["candidates"]
    assert "SE-ResNet-20 (reduction=4)" in [one["label"] for one in found]


def test_an_ablation_is_called_by_its_baseline_whatever_is_shown_of_it() -> None:
    for layout in (Layout(rows=("reduction=2", "reduction=8")), Layout(labels={"none": "Plain"})):
        assert of_run(stored.ablation(), layout=layout).wide[0].title == "ResNet-20 by reduction"


def test_differences_are_to_the_row_asked_for() -> None:
    document = of_run(stored.ablation(), layout=Layout(against="reduction=2", spread="interval", decimals=1))
    counts, _, errors = document.wide
    assert [column.name for column in counts.columns] == ["network", "counted", "+% to reduction=2"] * 1 + [
        "counted",
        "+% to reduction=2",
    ]
    names = [column.name for column in errors.columns]
    assert names[1] == "error %"
    assert errors.texts[0][1] == "10.6 [9.8, 11.4]"
    difference = names.index("minus SE-ResNet-20 (reduction=2)")
    assert [row[difference] for row in errors.texts] == ["+1.0", "", "-0.5", "-0.2", "+0.5"]
    found = render(document, "json")
    assert '"against"' in found


def test_a_name_that_is_none_is_one_line() -> None:
    for layout, message in (
        (Layout(against="cbam"), "no row is called 'cbam'; choose from ResNet-20, reduction=2"),
        (Layout(rows=("reduction=3",)), "no row is called 'reduction=3'; did you mean"),
        (Layout(labels={"x": "y"}), "no row is called 'x'"),
    ):
        with pytest.raises(UsageError) as error:
            layout.check(stored.ablation().rows)
        assert message in str(error.value)
    with pytest.raises(UsageError, match="no table has a column 'eror'; did you mean"):
        of_run(stored.ablation(), layout=Layout(columns=("eror",)))
    assert labels(["mine:SimAM/lam=0.01=SimAM"]) == {"mine:SimAM/lam=0.01": "SimAM"}
    typed = TableOptions(rows="none,Ours", against="ours", label=["reduction=2=Ours", "reduction=4=Other"])
    assert (typed.layout().rows, typed.layout().against) == (("none", "reduction=2"), "reduction=2")
    assert [row[0] for row in of_run(stored.ablation(), layout=typed.layout()).wide[0].texts] == ["ResNet-20", "Ours"]
    assert "+% to Ours" in [column.name for column in of_run(stored.ablation(), layout=typed.layout()).wide[0].columns]
    of_run(stored.ablation(), layout=Layout(against="reduction=2", rows=("none", "reduction=4")))  # it is not kept
    with pytest.raises(UsageError, match="--label 'x' is not KEY=TEXT"):
        labels(["x"])


def test_a_cell_of_csv_is_a_plain_value() -> None:
    record = {"part": "scale", "share": {"value": 0.5, "ci": (0.25, 0.75)}, "input_size": [3, 8, 8], "stages": (2, 3)}
    lines = csv([record, {"part": "all", "share": None}]).splitlines()
    assert lines[0] == "part,share_value,share_ci_low,share_ci_high,input_size,stages,share"
    assert lines[1] == "scale,0.5,0.25,0.75,3x8x8,2/3,"
    assert lines[2] == "all,,,,,,"
