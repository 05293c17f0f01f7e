from __future__ import annotations

from dataclasses import replace

import pytest

from senet_bench.core.axes import AXES
from senet_bench.core.catalog import CATALOG, resolve
from senet_bench.core.paper import cells, compare_cell
from senet_bench.core.reproduction import paper_cells
from senet_bench.core.specs import AttentionSpec, AxisValue
from senet_bench.core.studies import STUDIES, Subject, find_study
from senet_bench.errors import UsageError

SE = AttentionSpec()
SUBJECTS = [(study, subject) for study in STUDIES.values() for subject in study.subjects]

# Printed FLOP cells once for each network: counts of `macs` and `bn-inclusive` in units of 100,000,
# from the reference table of the paper's counting conventions.
COUNTS = {
    ("resnet50", None): (38_580, 38_695),
    ("seresnet50", SE): (38_660, 38_775),
    ("resnet101", None): (75_702, 75_868),
    ("seresnet101", SE): (75_839, 76_005),
    ("resnet152", None): (112_824, 113_053),
    ("seresnet152", SE): (113_021, 113_251),
    ("resnext50_32x4d", None): (42_305, 42_458),
    ("seresnext50_32x4d", SE): (42_385, 42_538),
    ("resnext101_32x4d", None): (79_700, 79_921),
    ("seresnext101_32x4d", SE): (79_837, 80_058),
    ("vgg16_bn", None): (154_703, 154_899),
    ("sevgg16_bn", SE): (154_840, 155_037),
    ("bninception", None): (20_326, 20_382),
    ("sebninception", SE): (20_344, 20_400),
    ("inception_resnet_v2", None): (131_558, 131_725),
    ("seinception_resnet_v2", SE): (131_758, 131_925),
    ("mobilenet_v1", None): (5_687, 5_738),
    ("semobilenet_v1", SE): (5_719, 5_770),
    ("shufflenet_v1_g3", None): (1_375, 1_408),
    ("seshufflenet_v1_g3", SE): (1_394, 1_427),
    ("seresnet50", replace(SE, stages=(2,))): (38_604, 38_720),
    ("seresnet50", replace(SE, stages=(3,))): (38_597, 38_710),
    ("seresnet50", replace(SE, stages=(4,))): (38_600, 38_720),
    ("seresnet50", replace(SE, placement="3x3")): (38_595, 38_710),
    ("seresnet50", replace(SE, squeeze="none")): (42_745, 42_860),
}


def printed(study: str, subject: Subject) -> dict[str, str]:
    return {cell.metric: cell.printed for cell in cells(STUDIES[study].table, subject.row, subject.column)}


def test_every_table_that_can_be_run_is_a_study() -> None:
    assert {name: len(study.subjects) for name, study in STUDIES.items()} == {
        "table2": 16,
        "table3": 4,
        "table4": 8,
        "table5": 8,
        "table6": 2,
        "table7": 4,
        "table8": 4,
        "table10": 6,
        "table11": 2,
        "table12": 3,
        "table13": 5,
        "table14": 4,
        "table15": 2,
        "table16": 3,
    }


@pytest.mark.parametrize(("study", "subject"), [(study.id, subject) for study, subject in SUBJECTS])
def test_every_subject_stands_in_a_printed_row(study: str, subject: Subject) -> None:
    assert {"top1_err", "ap"} & set(printed(study, subject))


@pytest.mark.parametrize("model", sorted({subject.model for _, subject in SUBJECTS}))
def test_every_subject_is_in_the_catalog(model: str) -> None:
    attentions = {subject.attention is None for _, subject in SUBJECTS if subject.model == model}
    assert attentions == {CATALOG[model].attention is None}


@pytest.mark.parametrize("number", ["10", "13", "14", "15", "16", "11", "12"])
def test_an_ablation_has_every_printed_row_in_print_order(number: str) -> None:
    rows = tuple(dict.fromkeys(cell.row for cell in cells(number)))
    study = STUDIES[f"table{number}"]
    assert tuple(subject.row for subject in study.subjects) == rows
    assert study.kind == "ablation"
    assert set(study.models) <= {"resnet50", "seresnet50"}


def test_twenty_three_of_the_25_distinct_flop_cells_match_and_two_are_not_reproduced() -> None:
    judged: dict[tuple[str, AttentionSpec | None], str] = {}
    for study, subject in SUBJECTS:
        for cell in cells(study.table, subject.row, subject.column):
            if cell.metric in ("gflops", "mflops"):
                macs, inclusive = COUNTS[subject.model, subject.attention]
                status = compare_cell(cell, {"macs": macs * 100_000, "bn-inclusive": inclusive * 100_000}).status
                assert judged.setdefault((subject.model, subject.attention), status) == status
    assert len(judged) == 25
    assert judged.pop(("inception_resnet_v2", None)) == "not reproduced"
    assert judged.pop(("seinception_resnet_v2", SE)) == "not reproduced"
    assert set(judged.values()) == {"match"}


@pytest.mark.parametrize("name", ["table2", "Table 2", "2", "TABLE-2", " table_2 "])
def test_a_study_is_found_by_its_number_however_it_is_written(name: str) -> None:
    assert find_study(name).id == "table2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table 9", r"^Table 9 of the paper has nothing to run; choose from table2, table3"),
        ("Table 1", r"^Table 1 of the paper has nothing to run; choose from table1\d"),
        ("table22", r"^unknown study 'table22'; choose from table2"),
        ("readme", r"^unknown study 'readme'; choose from table2, table3"),
        ("", r"^unknown study ''; choose from table2, table3"),
    ],
)
def test_an_unknown_study_is_a_usage_error_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_study(name)


@pytest.mark.parametrize("name", [name for name, axis in AXES.items() if axis.table])
def test_the_papers_values_of_an_axis_are_the_rows_of_its_table(name: str) -> None:
    axis = AXES[name]
    assert axis.table is not None
    rows = [subject.attention for subject in STUDIES[axis.table].subjects if subject.attention is not None]
    assert [axis.apply(SE, value) for value in axis.parse(None)] == rows


@pytest.mark.parametrize(
    ("axis", "text", "values"),
    [
        ("reduction", "2,4,8", (2, 4, 8)),
        ("reduction", "[2, 4]", (2, 4)),
        ("reduction", "16/16/8/4,8", ((16, 16, 8, 4), 8)),
        ("reduction", "8,8", (8,)),
        ("squeeze", "avg,MAX", ("avg", "max")),
        ("excitation", "tanh", ("tanh",)),
        ("integration", "pre, identity", ("pre", "identity")),
        ("placement", "3x3", ("3x3",)),
        ("stages", "2,3,all", (2, 3, "all")),
        ("stages", "3+2,4", ((2, 3), 4)),
        ("no-squeeze", "true,false", (True, False)),
    ],
)
def test_values_are_read_as_typed(axis: str, text: str, values: tuple[AxisValue, ...]) -> None:
    assert AXES[axis].parse(text) == values
    labels = ",".join(AXES[axis].label(value) for value in values)
    assert AXES[axis].parse(labels) == values


@pytest.mark.parametrize(
    ("axis", "text", "bad"),
    [
        ("reduction", "2,x", "'x' is no positive integer"),
        ("reduction", "0", "'0' is no positive integer"),
        ("reduction", "-4", "'-4' is no positive integer"),
        ("reduction", "2.5", "'2.5' is no positive integer"),
        ("reduction", "2,,4", "'' is no positive integer"),
        ("reduction", "16/", "'' is no positive integer"),
        ("reduction", "", "'' is no positive integer"),
        ("reduction", "[]", "'' is no positive integer"),
        ("reduction", "²", "'²' is no positive integer"),
        ("reduction", "9" * 5000, "is no positive integer"),
        ("squeeze", "avg,median", "'median' is none of avg, max, none"),
        ("excitation", "gelu", "'gelu' is none of sigmoid, tanh, relu"),
        ("stages", "2+all", "'all' is no positive integer"),
        ("no-squeeze", "maybe", "'maybe' is none of true, false"),
    ],
)
def test_a_bad_value_is_named_in_one_line(axis: str, text: str, bad: str) -> None:
    with pytest.raises(UsageError) as caught:
        AXES[axis].parse(text)
    assert bad in str(caught.value)
    assert f"--{axis}" in str(caught.value)
    assert "the paper's values are" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_axes_combine_and_no_squeeze_leaves_the_squeeze_alone_when_false() -> None:
    spec = AXES["stages"].apply(AXES["squeeze"].apply(SE, "max"), (2, 3))
    assert AXES["no-squeeze"].apply(spec, False) == replace(SE, squeeze="max", stages=(2, 3))
    assert AXES["no-squeeze"].apply(spec, True).squeeze == "none"
    with pytest.raises(UsageError, match="exclude each other"):
        AXES["placement"].apply(AXES["integration"].apply(SE, "pre"), "3x3")


def test_a_network_stands_beside_its_own_rows_and_the_times_of_the_text() -> None:
    assert [(cell.table, cell.metric, cell.printed) for cell in paper_cells("seresnet50")] == [
        ("2", "top1_err", "23.29"),
        ("2", "top5_err", "6.62"),
        ("2", "gflops", "3.87"),
        ("text", "train_ms", "209"),
        ("text", "cpu_ms", "167"),
    ]
    assert [(cell.table, cell.column, cell.printed) for cell in paper_cells("resnet152")] == [
        ("2", "reimplementation", "22.42"),
        ("2", "reimplementation", "6.34"),
        ("2", "reimplementation", "11.30"),
        ("2", "original", "23.0"),
        ("2", "original", "6.7"),
        ("8", "224", "23.0"),
        ("8", "224", "6.7"),
        ("8", "320/299", "21.3"),
        ("8", "320/299", "5.5"),
    ]


def test_within_a_study_only_its_table_counts() -> None:
    assert [(cell.row, cell.metric, cell.printed) for cell in paper_cells("seresnet50", "table10")] == [
        ("r=16", "top1_err", "22.28"),
        ("r=16", "top5_err", "6.03"),
        ("r=16", "params_m", "28.1"),
    ]
    assert [cell.printed for cell in paper_cells("resnet50", "13")] == ["23.30", "6.55", "3.86", "25.6"]
    assert paper_cells("seresnet101", "table10") == ()


@pytest.mark.parametrize("name", ["resnet50", "seresnet50"])
def test_a_variant_finds_its_row_whichever_name_of_the_network_it_carries(name: str) -> None:
    spec = replace(resolve(name), attention=replace(SE, squeeze="none"))
    assert [cell.printed for cell in paper_cells(spec, "table16")] == ["22.93", "6.39", "4.27", "28.1"]
    assert paper_cells(spec) == ()


def test_two_spellings_of_one_block_are_one() -> None:
    spelled = replace(SE, reduction=(16, 16, 16, 16), stages=(2, 3, 4, 5))
    assert paper_cells(replace(resolve("seresnet50"), attention=spelled)) == paper_cells("seresnet50")


def test_biases_are_left_open_in_ablations_only() -> None:
    spec = replace(resolve("seresnet50"), attention=replace(SE, bias=False))
    assert paper_cells(spec, "table13") == paper_cells("seresnet50", "table13") != ()
    assert paper_cells(spec, "table2") == ()


@pytest.mark.parametrize("change", [{"input_size": (3, 320, 320)}, {"classes": 10}, {"options": {}}])
def test_counts_of_another_network_than_the_papers_are_not_put_beside_it(change: dict[str, object]) -> None:
    spec = replace(resolve("seresnet50"), **change)  # type: ignore[arg-type]
    assert "gflops" not in {cell.metric for cell in paper_cells(spec, "table2")}
