"""Rows as flat lines: CSV and pandas have every number that was measured, whatever is missing of some rows."""

from __future__ import annotations

from dataclasses import replace

from senet_bench.core.results import Energy, Row
from senet_bench.core.specs import AttentionSpec
from senet_bench.show.documents import of_run
from senet_bench.show.records import fields_of, records
from senet_bench.show.writers import csv
from tests.support import stored

SE = AttentionSpec()
ENERGY = Energy(joules=0.5, watts=20.0, ratio=1.1, ci=(1.0, 1.2), control_ratio=1.0, rounds=5, method="RAPL")


def timed_twice() -> Row:
    row = stored.row("SE-ResNet-20", SE, 0.1, axes={"reduction": 16, "stages": (2, 3)})
    later = [stored.latency(1.2, batch_size=8, runtime="openvino")]
    assert row.latency is not None
    first = replace(row.latency, energy=ENERGY)
    return replace(row, latency=first, more_latency=later, missing={"further latency": "too few rounds"})


def test_each_latency_of_a_row_is_a_line_with_its_conditions_and_its_energy() -> None:
    first, second = records(timed_twice())
    conditions = [(one["latency_conditions_batch_size"], one["latency_conditions_runtime"]) for one in (first, second)]
    assert conditions == [(1, "eager"), (8, "openvino")]
    assert (first["latency_energy_joules"], first["latency_energy_ci_low"]) == (0.5, 1.0)
    assert "latency_energy_joules" not in second
    assert second["latency_ratio"] == 1.2
    same = [name for name in second if not name.startswith("latency_")]
    assert [first[name] for name in same] == [second[name] for name in same]
    (untimed,) = records(replace(timed_twice(), latency=None, more_latency=[]))
    assert untimed["accuracy_top1_err"] == first["accuracy_top1_err"]
    run = replace(stored.ablation(), rows=[timed_twice()])
    assert len(of_run(run).records) == 2


def test_an_interval_is_two_columns_where_it_is_missing_too_and_nothing_is_a_column_beside_them() -> None:
    lines = [*records(stored.row("ResNet-20", None, 0.1)), *records(timed_twice())]
    names = {name for line in lines for name in line}
    for name in ("latency_ci", "latency_control_ci", "accuracy_ci", "accuracy_difference_ci", "accuracy_against"):
        assert name not in names
    assert lines[0]["latency_ci_low"] is None
    assert lines[1]["latency_ci_low"] is not None
    assert {"accuracy_ci_low", "accuracy_ci_high", "latency_quartiles_low"} <= names
    header = csv(lines).splitlines()[0].split(",")
    assert header[:5] == ["model", "label", "baseline", "family", "input_size"]
    assert header[5:8] == ["params", "flops_macs", "flops_bn-inclusive"]


def test_what_a_row_is_and_lacks_stands_there_too() -> None:
    line = records(timed_twice())[0]
    assert (line["role"], line["classes"], line["cardinality"]) == ("variant", 10, None)
    assert (line["axes_reduction"], line["axes_stages"]) == (16, "2/3")
    assert line["missing_further_latency"] == "too few rounds"
    assert line["accuracy_protocol_recipe"] == "digits"
    assert not [value for value in line.values() if isinstance(value, tuple | dict | list)]


def test_columns_of_tables_are_fields_by_the_names_they_have_there() -> None:
    lines = records(timed_twice())
    assert fields_of(lines, "params, M") == ["params"]
    assert fields_of(lines, "Accuracy SD") == ["accuracy_sd"]
    assert fields_of(lines, "95 % interval") == ["latency_ci_low", "latency_ci_high"]
    assert fields_of(lines, "batch size") == ["latency_conditions_batch_size"]
    assert fields_of(lines, "minus se") == fields_of(lines, "difference") == ["accuracy_difference"]
    assert fields_of(lines, "status") == fields_of(lines, "minus se, ms") == []
