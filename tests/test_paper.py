from __future__ import annotations

import pytest

from senet_bench.core.paper import NOT_REPRODUCED, TABLES, UNITS, PrintedCell, cells, compare_cell, protocol_name
from senet_bench.errors import UsageError

CELLS_PER_TABLE = {
    "1": 9,
    "2": 80,
    "3": 26,
    "4": 8,
    "5": 8,
    "6": 6,
    "7": 8,
    "8": 44,
    "9": 24,
    "10": 18,
    "11": 4,
    "12": 6,
    "13": 20,
    "14": 8,
    "15": 8,
    "16": 12,
    "text": 34,
    "recipe": 20,
    "readme": 29,
    "third-party": 2,
}


def one(table: str, row: str, metric: str, column: str | None = None) -> PrintedCell:
    (found,) = (cell for cell in cells(table, row, column) if cell.metric == metric)
    return found


def gflops(printed: str, row: str = "ResNet-50") -> PrintedCell:
    return PrintedCell("2", row, "reimplementation", "gflops", printed, "GFLOPs")


def test_every_cell_of_the_paper_is_there() -> None:
    assert {number: len(table.cells) for number, table in TABLES.items()} == CELLS_PER_TABLE
    assert sum(CELLS_PER_TABLE.values()) == 374


def test_no_place_is_printed_twice() -> None:
    everything = [cell for table in TABLES.values() for cell in table.cells]
    assert len({(cell.table, cell.row, cell.column, cell.metric) for cell in everything}) == len(everything)


@pytest.mark.parametrize("number", [str(n) for n in range(1, 17)])
def test_every_numbered_table_has_a_title_a_protocol_and_known_metrics(number: str) -> None:
    table = TABLES[number]
    assert table.title
    assert table.protocol.endswith(".")
    assert {cell.metric for cell in table.cells} <= {*UNITS, "definition", "extra_data"}


def test_thirty_flop_cells_are_printed_in_tables() -> None:
    counted = [cell for table in TABLES.values() for cell in table.cells if cell.metric in ("gflops", "mflops")]
    assert {number: sum(cell.table == number for cell in counted) for number in ("2", "3", "13", "15", "16")} == {
        "2": 16,
        "3": 4,
        "13": 5,
        "15": 2,
        "16": 3,
    }


@pytest.mark.parametrize(
    ("table", "row", "column", "metric", "printed"),
    [
        ("2", "ResNet-50", "reimplementation", "top1_err", "24.80"),
        ("2", "ResNet-152", "reimplementation", "gflops", "11.30"),
        ("2", "ResNeXt-101", "senet", "gflops", "8.00"),
        ("2", "VGG-16", "original", "top1_err", "-"),
        ("2", "SE-ResNet-50", "senet", "top1_err", None),
        ("3", "ShuffleNet", "senet", "params_m", "2.4"),
        ("5", "Shake-Even 29 2x4x64d + Cutout", "senet", "top1_err", "15.41"),
        ("7", "SE-ResNet-101", "reported", "ap50", "62.7"),
        ("8", "SENet-154", "320/299", "top1_err", "17.28"),
        ("10", "r=8", "reported", "top5_err", "5.99"),
        ("14", "SE-Identity", "reported", "top1_err", "22.20"),
        ("text", "SE-ResNet-50", "footnote 2", "top1_err", "22.20"),
        ("text", "SE-ResNet-50", "sec 4", "cpu_ms", "167"),
        ("readme", "SE-ResNet-50", "released", "top1_err", "22.37"),
        ("third-party", "SENet-154", "320", "top5_err", "3.78"),
    ],
)
def test_numbers_stand_as_printed(table: str, row: str, column: str, metric: str, printed: str | None) -> None:
    found = [cell.printed for cell in cells(table, row, column) if cell.metric == metric]
    assert found == ([] if printed is None else [printed])


def test_the_three_top1_errors_of_resnet50_are_kept_apart() -> None:
    assert one("2", "ResNet-50", "top1_err", "reimplementation").printed == "24.80"
    assert one("16", "ResNet-50", "top1_err").printed == "23.30"
    assert one("text", "ResNet-50", "top1_err").printed == "23.21"


@pytest.mark.parametrize(
    ("printed", "value", "digits"),
    [
        ("11.30", 11.3, 2),
        ("569", 569.0, 0),
        ("-", None, 0),
        ("~2.5", None, 0),
        ("4e-05", None, 0),
        ("[16, 256]", None, 0),
    ],
)
def test_a_cell_knows_its_value_and_its_printed_digits(printed: str, value: float | None, digits: int) -> None:
    cell = gflops(printed)
    assert (cell.value, cell.digits) == (value, digits)


def test_an_unknown_table_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no table '17'; choose from 1, 2, 3"):
        cells("17")


@pytest.mark.parametrize(
    ("macs", "bn_inclusive", "status", "convention"),
    [
        (3_855_000_000, 0, "match", "macs"),  # half rounds up
        (3_864_999_999, 0, "match", "macs"),
        (3_854_999_999, 0, "near", "macs"),
        (3_865_000_000, 0, "near", "macs"),
        (3_850_000_000, 3_869_999_999, "match", "bn-inclusive"),  # truncated, not rounded
        (3_850_000_000, 3_860_000_000, "match", "bn-inclusive"),
        (3_850_000_000, 3_859_999_999, "near", "macs"),
        (3_850_000_000, 3_870_000_000, "near", "macs"),
        (3_860_000_000, 3_860_000_000, "match", "macs"),  # both reach the digits
        (3_840_700_000, 0, "near", "macs"),  # 0.5 % below is 3.8407
        (3_840_699_999, 0, "differs", "macs"),
        (3_879_300_000, 0, "near", "macs"),
        (3_879_300_001, 0, "differs", "macs"),
    ],
)
def test_flops_match_by_rounded_macs_or_truncated_bn_inclusive(
    macs: int, bn_inclusive: int, status: str, convention: str
) -> None:
    judged = compare_cell(gflops("3.86"), {"macs": macs, "bn-inclusive": bn_inclusive})
    assert (judged.status, judged.convention) == (status, convention)
    counted = macs if convention == "macs" else bn_inclusive
    assert judged.measured == counted / 1e9
    assert judged.delta == pytest.approx(counted / 3.86e9 - 1)


def test_a_binary_float_does_not_flip_a_digit() -> None:
    assert round(2.675, 2) == 2.67
    assert compare_cell(gflops("2.68"), {"macs": 2_675_000_000}).status == "match"


@pytest.mark.parametrize(("column", "counted"), [("reimplementation", 13_155_800_000), ("senet", 13_175_800_000)])
def test_inception_resnet_v2_is_not_reproduced_and_shows_its_delta(column: str, counted: int) -> None:
    cell = one("2", "Inception-ResNet-v2", "gflops", column)
    judged = compare_cell(cell, {"macs": counted, "bn-inclusive": counted + 16_700_000})
    assert (judged.status, judged.convention) == ("not reproduced", "macs")
    assert judged.delta == pytest.approx(0.12, abs=0.001)
    assert "no public definition" in judged.explanation


def test_a_known_disagreement_that_agrees_is_a_match() -> None:
    cell = one("2", "Inception-ResNet-v2", "gflops", "senet")
    assert compare_cell(cell, {"macs": 11_760_000_000}).status == "match"


def test_known_disagreements_name_printed_cells() -> None:
    for table, row, metric in NOT_REPRODUCED:
        assert any(cell.metric == metric for cell in cells(table, row))


def test_only_shufflenet_has_two_percent() -> None:
    shuffle, mobile = one("3", "ShuffleNet", "mflops", "senet"), one("3", "MobileNet", "mflops", "senet")
    assert compare_cell(shuffle, {"macs": 139_160_000}).status == "near"
    assert compare_cell(shuffle, {"macs": 139_159_999}).status == "differs"
    assert compare_cell(mobile, {"macs": 568_000_000}).status == "differs"


@pytest.mark.parametrize(
    ("table", "row", "counted", "status"),
    [
        ("10", "r=2", 45_699_000, "match"),
        ("10", "r=8", 30_604_000, "near"),
        ("10", "r=8", 30_600_000, "near"),
        ("10", "r=8", 30_599_999, "differs"),
        ("10", "r=32", 26_830_000, "near"),
        ("10", "r=original", 25_557_032, "match"),
        ("13", "SE All", 28_088_024, "match"),
    ],
)
def test_parameters_are_trainable_millions_rounded_plainly(table: str, row: str, counted: int, status: str) -> None:
    judged = compare_cell(one(table, row, "params_m"), {"trainable": counted, "macs": 1})
    assert (judged.status, judged.convention, judged.measured) == (status, "trainable", counted / 1e6)


def test_errors_are_not_measured_without_the_tables_own_protocol() -> None:
    cell = one("2", "ResNet-50", "top1_err", "senet")
    for measured in (None, {}, {"digits": 0.2329}, {"table10": 0.2329}):
        judged = compare_cell(cell, measured)
        assert (judged.status, judged.measured, judged.delta, judged.convention) == ("not measured", None, None, None)
        assert "protocol" in judged.explanation


def test_errors_of_the_tables_own_protocol_are_compared_in_percent() -> None:
    cell = one("2", "ResNet-50", "top1_err", "senet")
    assert protocol_name(cell) == "table2"
    assert compare_cell(cell, {"table2": 0.23294}).status == "match"
    judged = compare_cell(cell, {"table2": 0.2401})
    assert (judged.status, judged.measured) == ("differs", 24.01)
    assert judged.delta == pytest.approx(0.0309, abs=1e-4)


def test_times_of_other_hardware_are_not_measured() -> None:
    judged = compare_cell(one("text", "ResNet-50", "cpu_ms"), {"macs": 1})
    assert judged.status == "not measured"
    assert "ratio" in judged.explanation


def test_what_was_not_counted_says_so() -> None:
    assert compare_cell(gflops("3.86")).explanation == "was not counted"


@pytest.mark.parametrize("printed", ["-", "~25"])
def test_what_is_no_number_is_not_compared(printed: str) -> None:
    judged = compare_cell(gflops(printed), {"macs": 25_000_000_000})
    assert (judged.printed, judged.status, judged.measured, judged.delta) == (printed, "not measured", None, None)
