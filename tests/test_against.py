"""What stands in tables beside the row that `--against` names: differences, times and counts, each only where true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from senet_bench.core.reproduction import of_study
from senet_bench.core.results import Latency, Row, Run, RunConditions
from senet_bench.core.specs import AttentionSpec, Conditions
from senet_bench.core.store import Store
from senet_bench.core.studies import STUDIES
from senet_bench.gallery.collection import gather
from senet_bench.gallery.page.times import latencies
from senet_bench.gallery.tables import error_tables
from senet_bench.show.documents import of_run
from senet_bench.show.layout import Layout
from senet_bench.show.tables import Table
from tests.support import stored

SE = AttentionSpec()


def compared(*rows: Row) -> Run:
    return Run(**stored.made("compare") | {"conditions": RunConditions()}, rows=list(rows))


def pair(name: str, ratio: float) -> list[Row]:
    """A baseline and its SE network that takes this part of its time."""
    return stored.by_runtime(name, {("eager", 1): ratio})


def trained(name: str, error: float, *, size: int = 8) -> list[Row]:
    """A baseline and its SE network with errors."""
    base, variant = stored.row(name, None, error), stored.row(f"SE-{name}", SE, error - 0.01)
    base = replace(base, model=name.lower(), input_size=(1, size, size))
    return [base, replace(variant, model=f"se{name.lower()}", baseline=base.model, input_size=base.input_size)]


def column(table: Table, name: str) -> dict[str, str]:
    """The cells of a column by the first of their lines."""
    place = [column.name for column in table.columns].index(name)
    return {line[0]: line[place] for line in table.texts}


def test_a_time_is_over_that_of_a_network_of_the_same_baseline_and_sizes_alone() -> None:
    rows = [*pair("ResNet-50", 1.25), *pair("ResNet-101", 1.2)]
    small = [replace(row, label=f"{row.label}, small", input_size=(3, 64, 64)) for row in rows[:2]]
    grouped = [replace(row, label=f"{row.label}, grouped", cardinality=16) for row in rows[:2]]
    run = compared(*rows, *small, *grouped)
    cells = column(of_run(run, layout=Layout(against="SE-ResNet-50")).wide[-1], "over SE-ResNet-50")
    assert cells.pop("ResNet-50") == "0.800 [0.787, 0.806]"
    assert set(cells.values()) == {""}
    assert len(cells) == 7


def test_networks_that_were_timed_alone_and_those_without_a_ratio_are_over_nothing() -> None:
    base, variant = pair("ResNet-50", 1.25)
    alone = replace(variant, baseline=None, role="baseline", latency=Latency(seconds=1))
    assert column(of_run(compared(base, alone), layout=Layout(against="resnet-50")).wide[-1], "over resnet-50") == {
        "ResNet-50": "",
        "SE-ResNet-50": "",
    }
    unsure = replace(alone, baseline=base.model, role="variant")
    table = of_run(compared(base, unsure), layout=Layout(against="resnet-50")).wide[-1]
    assert column(table, "over resnet-50") == {"ResNet-50": "", "SE-ResNet-50": ""}


def test_a_named_row_that_was_not_timed_leaves_its_column_empty() -> None:
    run = stored.ablation()
    rows = [replace(row, latency=None) if (row.axes or {}).get("reduction") == 2 else row for row in run.rows]
    _, times, _ = of_run(replace(run, rows=rows), layout=Layout(against="reduction=2")).wide
    assert set(column(times, "over reduction=2").values()) == {""}
    batch = Conditions(batch_size=8)
    rows = [
        replace(row, more_latency=[stored.latency(1.1, batch_size=8)]) if row.axes else row for row in run.rows[1:3]
    ]
    rows[0] = replace(rows[0], more_latency=[])
    assert rows[1].latencies[1].conditions == batch
    _, times, _ = of_run(replace(run, rows=rows), layout=Layout(against="reduction=2")).wide
    assert column(times, "over reduction=2")["reduction=4"] == ""  # of batch 8, the last of its two lines


def test_networks_of_other_tables_are_compared_with_a_row_of_a_printed_one_and_a_printed_one_with_any() -> None:
    base = Row(model="resnet50", label="ResNet-50", family="resnet", input_size=(3, 224, 224), classes=1000, params=900)
    variant = replace(base, model="seresnet50", label="SE-ResNet-50", baseline="resnet50", role="variant", attention=SE)
    printed = of_study([base, replace(variant, params=1000)], "table2")
    run = compared(*printed, *pair("ResNet-18", 1.1))
    _, others, times = of_run(run, [STUDIES["table2"]], Layout(against="seresnet50")).wide
    assert [column.name for column in others.columns][2::2] == ["+% to seresnet50"] * 2
    assert [line[2::2] for line in others.texts] == [("+0.00", "")] * 2  # no FLOPs of the named row are known
    assert set(column(times, "over seresnet50").values()) == {""}
    small = replace(base, model="resnet110_cifar", label="ResNet-110", input_size=(3, 32, 32), classes=10)
    gated = replace(small, model="seresnet110_cifar", label="SE-ResNet-110", baseline=small.model, role="variant")
    rows = of_study([small, replace(gated, attention=SE, params=1000)], "table4")
    (table, *_) = of_run(compared(*rows), [STUDIES["table4"]], Layout(against="se")).wide
    assert column(table, "+% to se") == {"ResNet-110": "-10.00", "SE-ResNet-110": ""}


def test_names_of_rows_that_were_not_measured_after_all_are_told_beside_the_others() -> None:
    """A bare axis leaves out what a network cannot take: the names in the command were refused after everything ran."""
    layout = Layout(against="placement=3x3", labels={"placement=3x3": "ours"})
    counts, _, errors = of_run(stored.ablation(), layout=layout).wide
    assert counts.notes[0] == "not measured, and so neither shown nor compared with: placement=3x3"
    assert "difference" in [column.name for column in errors.columns]
    assert len(of_run(stored.ablation(), layout=Layout(rows=("placement=3x3",))).wide[0].rows) == 5
    assert len(of_run(stored.ablation(), layout=Layout(rows=("placement=3x3", "reduction=2"))).wide[0].rows) == 1


def test_headings_name_the_one_row_that_is_meant_else_what_was_asked_for_or_the_name_given() -> None:
    run = compared(*trained("ResNet-20", 0.1), *trained("ResNet-110", 0.08))
    errors = of_run(run, layout=Layout(against="se")).wide[-1]
    assert column(errors, "minus se")["ResNet-110"].startswith("+1.00")
    assert any(note.startswith("minus se: ") for note in errors.notes)
    assert "minus SE-ResNet-20" in [
        column.name for column in of_run(run, layout=Layout(against="seresnet-20")).wide[-1].columns
    ]
    for against, labels, name in (
        ("se", {"se": "Gate"}, "Gate"),
        ("se", {"seresnet-20": "Gate"}, "se"),
        ("seresnet-20", {"seresnet-20": "Gate"}, "Gate"),
    ):
        counts, times, errors = of_run(run, layout=Layout(against=against, labels=labels)).wide
        headings = {column.name for table in (counts, times, errors) for column in table.columns}
        assert {f"+% to {name}", f"over {name}", f"minus {name}"} <= headings
        assert not headings & {"minus SE-ResNet-20", "+% to SE-ResNet-20"}


def test_in_a_report_a_row_that_is_renamed_or_not_shown_is_compared_with_all_the_same(tmp_path: Path) -> None:
    stored.store(tmp_path, stored.ablation(), "20261120T100000Z-ablate-1")
    layout = Layout(against="reduction=2", rows=("none", "reduction=4"), labels={"reduction=2": "Ours"})
    collection = replace(gather(tmp_path, Store(tmp_path).survey()), layout=layout)
    ((_, errors),) = error_tables(collection)
    assert column(errors, "minus Ours")["ResNet-20"].startswith("+1.00")
    (leaf,) = latencies(collection, collection.timings)
    assert leaf.table is not None
    assert list(column(leaf.table, "over Ours").values()) == ["0.909 [0.901, 0.917]", "0.955 [0.937, 0.972]"]
