"""Tables of all stored runs together: of one protocol, whatever the history of the folder."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from senet_bench.core import comparisons, union
from senet_bench.core.all_seeds import with_all_seeds
from senet_bench.core.comparisons import lowest, pairs_of
from senet_bench.core.intervals import paired_seeds
from senet_bench.core.results import Accuracy, Row, Run, RunConditions, from_json, to_json
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.store import Store
from senet_bench.core.union import StoredRun
from senet_bench.errors import UsageError
from senet_bench.gallery.ablations import title_of
from senet_bench.gallery.collection import Collection, gather
from senet_bench.gallery.tables import error_tables, time_table
from senet_bench.show.documents import of_run
from senet_bench.show.layout import Layout
from senet_bench.show.measurements import error_table, fronts
from senet_bench.show.networks import pairs_in
from tests.support import stored

SE = AttentionSpec()
ERRORS = {
    None: {0: 0.10, 1: 0.12, 2: 0.11, 3: 0.13, 4: 0.12},
    "se": {0: 0.08, 1: 0.105, 2: 0.085, 3: 0.115, 4: 0.10},
    "eca": {0: 0.09, 1: 0.12, 2: 0.10, 3: 0.12, 4: 0.12},
    "constant": {0: 0.10, 1: 0.11, 2: 0.12, 3: 0.12, 4: 0.13},
}


def sweep(
    seeds: range, blocks: tuple[str, ...] = ("se", "constant"), *, created: int = 0, shift: float = 0.0, **protocol: Any
) -> StoredRun:
    """A stored `compare` that trained the baseline and some blocks with some seeds."""
    asked = replace(stored.PROTOCOL, seeds=len(seeds), **protocol)
    rows = []
    for block in (None, *blocks):
        attention = AttentionSpec(block=block) if block else None
        plain = stored.row(f"+ {block}" if block else "ResNet-20", attention, 0.1)
        errors = {seed: ERRORS[block][seed] + shift for seed in seeds}
        rows.append(replace(plain, accuracy=comparisons.of_seeds(errors, asked)))
    moment = f"2026-11-20T10:{created:02}:00Z"
    conditions = RunConditions(what=["resnet20_cifar"], accuracy=asked)
    run = Run(**stored.made("compare") | {"conditions": conditions, "created": moment}, rows=comparisons.compared(rows))
    return StoredRun(f"runs/aaaaaaaaaaaa/{created:03}-compare.json", run)


def collected(*runs: StoredRun) -> Collection:
    return Collection(tuple(sorted(runs, key=lambda run: run.age)))


def tables(*runs: StoredRun) -> list[tuple[str, Any]]:
    return [(name, table) for name, table in error_tables(collected(*runs))]


def body(*runs: StoredRun) -> list[tuple[tuple[str, ...], ...]]:
    return [table.texts for _, table in tables(*runs)]


def on_machine(run: StoredRun, machine: str) -> StoredRun:
    environment = replace(run.document.environment, machine=machine)
    return StoredRun(run.path.replace("aaaaaaaaaaaa", machine), replace(run.document, environment=environment))


WHOLE = sweep(range(5))
HISTORIES = {
    "repeated": (sweep(range(5)), sweep(range(5), created=1)),
    "partial": (sweep(range(2)), sweep(range(5), created=1)),
    "sharded": (sweep(range(0, 5, 2)), sweep(range(1, 5, 2), created=1)),
    "merged": (sweep(range(3)), on_machine(sweep(range(3, 5), created=1), "bbbbbbbbbbbb")),
    "interrupted": (sweep(range(5)), sweep(range(4), created=1)),
    "blocks apart": (sweep(range(5), ("se",)), sweep(range(5), ("constant",), created=1)),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_whatever_the_history_the_table_is_that_of_the_whole_sweep(history: str) -> None:
    for order in itertools.permutations(HISTORIES[history]):
        assert body(*order) == body(WHOLE)
        moments = [f"2026-11-21T10:{at:02}:00Z" for at in range(len(order))]
        again = [replace(run, document=replace(run.document, created=at)) for run, at in zip(order, moments)]
        assert body(*again) == body(WHOLE)  # nor does it matter which was made first


def test_a_try_out_a_failure_and_a_run_without_an_end_hide_nothing() -> None:
    short = sweep(range(2), created=5, epochs=3)
    empty = sweep(range(2), created=6)
    rows = [replace(row, accuracy=None, missing={"accuracy": "not asked for"}) for row in empty.document.rows]
    interrupted = replace(empty, document=replace(empty.document, rows=rows))
    (first, long), (second, quick) = tables(WHOLE, short, interrupted)
    assert first != second
    assert long.texts == body(WHOLE)[0]
    assert "60 epochs" in long.title
    assert "3 epochs" in quick.title
    assert long.notes[0] == "1 run on digits without any error: not finished"
    assert [row[3] for row in quick.texts] == ["2", "2", "2"]


def of_source(source: str, run: StoredRun) -> StoredRun:
    """The run with a block from outside, whose code has that digest, in the place of SE."""
    rows = [
        replace(row, attention=AttentionSpec(block="mine:Gate"), label="+ mine:Gate", source=source)
        if row.role == "variant"
        else row
        for row in run.document.rows
    ]
    return replace(run, document=replace(run.document, rows=rows))


def test_an_edited_block_is_not_pooled_with_what_it_was() -> None:
    before, after = of_source("aaaa", sweep(range(5))), of_source("bbbb", sweep(range(3), created=1, shift=0.05))
    ((_, table),) = tables(after, before)
    assert table.notes[0] == "joined from 2 runs; left out: 1 row of an older revision of mine:Gate"
    gate = next(row for row in table.texts if row[0] == "+ mine:Gate")
    assert gate[3] == "3"


def untimed(run: StoredRun) -> StoredRun:
    rows = [replace(row, latency=None) for row in run.document.rows]
    return replace(run, document=replace(run.document, rows=rows))


def test_a_time_of_a_block_that_was_edited_since_is_left_out_and_counted() -> None:
    before = of_source("aaaa", timed_sweep("aaaaaaaaaaaa", created=0, ratios={"se": 1.4}))
    alone = of_source("aaaa", timed_sweep("aaaaaaaaaaaa", created=1, ratios={"se": 1.5}, batch_size=8))
    after = of_source("bbbb", untimed(sweep(range(5), ("se",), created=2)))
    for order in itertools.permutations((before, alone, after)):
        one, eight = union.timings(union.entries(order))
        for timed in (one, eight):
            assert [row.label for row in timed.rows] == ["ResNet-20"]
            assert timed.left_out == ("1 time of an older revision of mine:Gate",)
    (timed,) = union.timings(union.entries([before]))
    old, new = before.document.rows[1], after.document.rows[1]
    assert timed.latency_of(old) is not None
    assert timed.latency_of(new) is None


def test_errors_on_other_data_of_one_name_stand_in_tables_of_their_own() -> None:
    places = ({"data": "aa"}, {"data": "aa", "folder": "./a"}, {"data": "bb"}, {"folder": "a"}, {"folder": "b"})
    made = [
        on_data(sweep(range(2), created=at, dataset="cifar10", **where))  # type: ignore[arg-type]
        for at, where in enumerate(places)
    ]
    found = union.errors(union.entries(made))
    assert sorted((table.protocol.data or "", table.protocol.folder or "", len(table.sources)) for table in found) == [
        ("", "a", 1),
        ("", "b", 1),
        ("aa", "", 2),
        ("bb", "", 1),
    ]
    named = tables(*made)
    assert len({name for name, _ in named}) == len({table.title for _, table in named}) == 4
    assert any(table.title.endswith("8x8 px [aa]") for _, table in named)
    assert not any("[" in table.title for _, table in tables(*made[:2]))


def on_data(run: StoredRun) -> StoredRun:
    """The run with its errors on the data set of its protocol."""
    rows = [
        replace(row, accuracy=row.accuracy and replace(row.accuracy, dataset=row.accuracy.protocol.dataset or ""))
        for row in run.document.rows
    ]
    return replace(run, document=replace(run.document, rows=rows))


def test_constant_gates_that_learn_or_are_1_are_networks_of_their_own() -> None:
    def network(**given: Any) -> union.Key:
        return union.identity(stored.row("gates", AttentionSpec("constant", **given), 0.1))

    identity, learned = ("identity", True), ("learned", True)
    options = [(), (identity,), (learned,), (identity, learned)]
    assert len({network(options=option) for option in options}) == 4
    assert network(options=(learned, identity)) == network(options=(identity, learned))
    assert network(reduction=4, squeeze="max", options=(("identity", False),)) == network()


def test_a_row_is_compared_with_the_baseline_and_control_of_its_own_number_of_groups() -> None:
    rows = []
    for groups, base in ((None, 0.5), (16, 0.3)):
        for attention, error in ((None, base), (SE, base - 0.1), (AttentionSpec("constant"), base - 0.05)):
            rows.append(replace(stored.row("a network", attention, error), cardinality=groups))
    found = [row.accuracy for row in comparisons.compared(rows) if row.accuracy]
    assert [one.difference for one in found if one.difference is not None] == [
        pytest.approx(change) for change in (-0.1, -0.05) * 2
    ]
    assert [one.control_difference for one in found if one.control_difference is not None] == [pytest.approx(-0.05)] * 2
    assert [(base.cardinality, variant.cardinality) for base, variant in pairs_in(rows)] == [(None, None)] * 2 + [
        (16, 16)
    ] * 2


def test_ablations_with_other_classes_or_groups_are_ablations_of_their_own() -> None:
    def counted(**sizes: Any) -> StoredRun:
        run = stored.ablation()
        rows = [replace(row, accuracy=None, **sizes) for row in run.rows]
        model = "seresnext50_32x4d" if "cardinality" in sizes else "seresnet20_cifar"
        conditions = RunConditions(model=model, axes={"reduction": "2,4,8"})
        name = "-".join(map(str, sizes.values()))
        return StoredRun(f"runs/a/{name}-ablate.json", replace(run, conditions=conditions, rows=rows))

    runs = [counted(classes=10), counted(classes=100), counted(classes=1000, cardinality=16)]
    runs.append(counted(classes=1000, cardinality=None))
    assert sorted(title_of(one) for one in union.ablation_runs(runs)) == [
        "SE-ResNeXt-50 (16x4d) by reduction, counted",
        "SE-ResNeXt-50 (32x4d) by reduction, counted",
        "SE-ResNet-20 (100 classes) by reduction, counted",
        "SE-ResNet-20 by reduction, counted",
    ]
    assert [len(one.together().rows) for one in union.ablation_runs(runs)] == [5] * 4


def test_an_older_training_arithmetic_is_left_out_and_counted() -> None:
    ((_, table),) = tables(sweep(range(5)), sweep(range(2), created=1, revision=2))
    assert {row[3] for row in table.texts} == {"2"}
    assert table.notes[0] == "left out: 3 rows of an older training arithmetic (revision below 2)"


def test_an_older_schema_and_a_damaged_file_of_each_kind_change_no_table(tmp_path: Path) -> None:
    path = stored.store(tmp_path, WHOLE.document, "20261120T100000Z-compare-1")
    document = json.loads(path.read_text())
    for row in document["rows"]:
        del row["role"]
        for name in ("pairs", "family", "difference_joint_ci", "control_p_value", "control_p_holm"):
            row["accuracy"].pop(name, None)
    path.write_text(json.dumps(document))
    (tmp_path / "runs" / "aaaaaaaaaaaa" / "20261120T100001Z-compare-2.json").write_text("{")
    (tmp_path / "runs" / "aaaaaaaaaaaa" / "20261120T100002Z-ablate-3.json").write_text('{"schema": "x/9"}')
    collection = gather(tmp_path, Store(tmp_path).survey())
    assert [table.texts for _, table in error_tables(collection)] == body(WHOLE)
    assert [left.path.rpartition("-")[2] for left in collection.left_out] == ["2.json", "3.json"]


def test_two_ablations_along_one_axis_are_one_whatever_machine_and_never_pool_times() -> None:
    first, second = stored.ablation(), stored.ablation("bbbbbbbbbbbb")
    wider = replace(second, rows=[*second.rows, stored.row("r16", SE, 0.08, axes={"reduction": 16})])
    runs = [StoredRun("runs/a/1-ablate.json", first), StoredRun("runs/b/2-ablate.json", wider)]
    (joined,) = union.ablations(runs)
    assert [(row.axes or {}).get("reduction") for row in joined.rows] == [None, 2, 4, 8, 16, None]
    assert [timed.machine for timed in union.timings(union.entries(runs))] == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    assert (joined,) == tuple(union.ablations(runs[::-1]))


def test_times_of_two_machines_are_told_apart_by_the_titles_of_their_tables(tmp_path: Path) -> None:
    for machine in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        stored.store(tmp_path, stored.ablation(machine), "20261120T100000Z-ablate-1")
    collection = gather(tmp_path, Store(tmp_path).survey())
    tables = [table for timed in collection.timings if (table := time_table(collection, timed))]
    assert [table.title.rpartition("; ")[2] for table in tables] == [
        "Test CPU, 4 cores (aaaaaaaaaaaa)",
        "Test CPU, 4 cores (bbbbbbbbbbbb)",
    ]


def test_times_of_two_cards_of_one_machine_are_in_two_tables_that_name_them(tmp_path: Path) -> None:
    for number, card in enumerate(("a big one", "a small one")):
        run = stored.ablation()
        rows = [
            replace(
                row,
                latency=row.latency
                and replace(
                    row.latency, hardware=card, conditions=replace(row.latency.conditions, device=f"cuda:{number}")
                ),
            )
            for row in run.rows
        ]
        stored.store(tmp_path, replace(run, rows=rows), f"20261120T10000{number}Z-ablate-{number}")
    collection = gather(tmp_path, Store(tmp_path).survey())
    first, second = [table.title for timed in collection.timings if (table := time_table(collection, timed))]
    assert "cuda:0 (a big one)" in first
    assert "cuda:1 (a small one)" in second


def test_a_time_that_cannot_be_relied_on_hides_none_that_can() -> None:
    good = stored.ablation()
    timed = [
        replace(row, latency=replace(row.latency, reason="too few rounds", ratio=9.0))
        for row in good.rows
        if row.latency
    ]
    bad = replace(good, created="2026-11-21T10:00:00Z", rows=timed)
    (table,) = union.timings(union.entries([StoredRun("runs/a/2.json", bad), StoredRun("runs/a/1.json", good)]))
    assert 9.0 not in {row.latency.ratio for row in table.rows if row.latency}
    assert table.left_out == ("5 other measurements of the same networks",)


def timed_sweep(machine: str, *, created: int, ratios: dict[str, float], **conditions: Any) -> StoredRun:
    """A stored `compare` of the baseline and some blocks on a machine, each timed under some conditions."""
    run = on_machine(sweep(range(5), tuple(ratios), created=created), machine)
    assert isinstance(run.document, Run)
    known = {f"+ {block}": ratio for block, ratio in ratios.items()}
    rows = [replace(row, latency=stored.latency(known.get(row.label), **conditions)) for row in run.document.rows]
    return replace(run, document=replace(run.document, rows=rows))


def test_the_front_of_error_against_latency_is_of_one_machine_and_its_conditions() -> None:
    eager = timed_sweep("aaaaaaaaaaaa", created=0, ratios={"se": 1.4, "eca": 1.2})
    deployed = timed_sweep("bbbbbbbbbbbb", created=1, ratios={"se": 1.01}, runtime="deploy", batch_size=8)
    (_, table), *_ = tables(eager, deployed)
    (front,) = [note for note in table.notes if "against latency" in note]
    where = "Test CPU, 4 cores (aaaaaaaaaaaa), batch 1, cpu, fp32, eager"
    assert front.startswith(f"Pareto front of error against latency ({where}")
    assert front.rpartition(": ")[2] == "ResNet-20, + eca, + se"


def test_times_of_several_baselines_conditions_or_with_a_reservation_rank_no_errors() -> None:
    document = timed_sweep("aaaaaaaaaaaa", created=0, ratios={"se": 1.4}).document
    assert isinstance(document, Run)
    base, se = document.rows
    assert se.latency is not None

    def ranked_by_latency(*rows: Row) -> bool:
        return any("against latency" in note for note in fronts(rows, lambda row: row.label))

    conditions = replace(se.latency.conditions, batch_size=8)
    assert ranked_by_latency(base, se)
    assert not ranked_by_latency(base, replace(se, latency=replace(se.latency, reason="too few rounds")))
    assert not ranked_by_latency(base, replace(se, latency=replace(se.latency, conditions=conditions)))
    assert not ranked_by_latency(base, se, replace(base, model="resnet110_cifar", label="ResNet-110"))


def rows_of(**errors: list[float]) -> list[Row]:
    """A baseline `none` and blocks with these errors by seed."""
    made = []
    for name, values in errors.items():
        attention = None if name == "none" else AttentionSpec(block=name)
        accuracy = comparisons.of_seeds(dict(enumerate(values)), stored.PROTOCOL)
        made.append(replace(stored.row(name, attention, 0.1), accuracy=accuracy))
    return comparisons.compared(made)


NOISE = [0.0, 0.004, -0.003, 0.006, -0.002, 0.001]


def test_attention_is_compared_with_fixed_gates_in_its_own_stages_and_places() -> None:
    attentions: list[tuple[AttentionSpec, float]] = [
        (AttentionSpec("constant", stages=(2,)), 0.5),
        (AttentionSpec("constant"), 0.4),
        (AttentionSpec(stages=(2,)), 0.3),
        (AttentionSpec(), 0.3),
        (AttentionSpec(integration="pre"), 0.3),
    ]
    rows = [stored.row("a network", attention, error) for attention, error in attentions]
    found = [one.accuracy.control_difference for one in comparisons.compared(rows) if one.accuracy]
    assert found[2:] == [pytest.approx(-0.2), pytest.approx(-0.1), None]


def test_the_built_in_control_is_in_no_family() -> None:
    shifts = {"none": 0.1, "se": 0.08, "eca": 0.09, "constant": 0.1}
    rows = rows_of(
        **{
            name: [shift + NOISE[(at * (place + 1)) % 6] for at in range(6)]
            for place, (name, shift) in enumerate(shifts.items())
        }
    )
    found: dict[str, Accuracy] = {row.label: row.accuracy for row in rows if row.accuracy}
    assert (found["se"].family, found["eca"].family, found["constant"].family) == (2, 2, None)
    assert found["constant"].p_value is not None
    assert found["constant"].p_holm is None
    smaller = min(found["se"].p_value or 1, found["eca"].p_value or 1)
    assert min(found["se"].p_holm or 1, found["eca"].p_holm or 1) == pytest.approx(min(1, 2 * smaller))
    assert found["se"].control_p_value is not None
    for accuracy in (found["se"], found["eca"]):
        alone, joint = accuracy.difference_ci, accuracy.difference_joint_ci
        assert alone is not None
        assert joint is not None
        assert joint[0] < alone[0] < alone[1] < joint[1]
    table = error_table(rows, lambda row: row.label)
    assert table is not None
    names = [column.name for column in table.columns]
    assert names[4:] == ["difference", "p alone", "joint interval", "p Holm", "over fixed gates", "its p"]


def test_lowest_is_told_from_what_corrected_tests_tell() -> None:
    near = [0.100 + one for one in NOISE]
    rows = rows_of(none=near, se=[0.06 + one / 4 for one in NOISE], eca=[0.061 + one / 3 for one in NOISE[::-1]])
    best = comparisons.lowest(rows)
    assert best is not None
    assert best.row.label == "se"
    assert [row.label for row in best.tied] == ["eca"]
    assert [row.label for row in best.worse] == ["none"]
    table = error_table(rows, lambda row: row.label)
    assert table is not None
    assert (
        "lowest error: se; the data cannot tell it from eca; not the lowest, by tests corrected for 2 other rows: none"
        in table.notes
    )


def test_a_choice_of_rows_decides_nothing_that_all_of_them_leave_open() -> None:
    none, se = [0.11, 0.12, 0.13, 0.15], [0.1, 0.1, 0.115, 0.12]  # p is 0.022
    others = {f"block{place}": [0.11, 0.11, 0.12, 0.13] for place in range(8)}
    rows = rows_of(none=none, se=se, **others)
    alone, chosen = comparisons.lowest(rows[:2]), comparisons.lowest(rows[:2], among=len(rows))
    assert alone is not None
    assert [row.label for row in alone.worse] == ["none"]
    assert chosen is not None
    assert [row.label for row in chosen.tied] == ["none"]
    run = Run(**stored.made("compare") | {"conditions": RunConditions()}, rows=rows)
    errors = of_run(run, layout=Layout(rows=("none", "se"))).wide[-1]
    assert "lowest error: se; the data cannot tell it from none" in errors.notes


def test_errors_on_two_data_sets_are_neither_ranked_nor_paired() -> None:
    rows = rows_of(none=[0.1, 0.12, 0.11, 0.13], se=[0.08, 0.11, 0.085, 0.11])
    others = [
        replace(row, classes=100, label=f"{row.label} 100", accuracy=replace(row.accuracy, dataset="cifar100"))
        for row in rows
        if row.accuracy
    ]
    for together, ranked in ((rows, True), ([*rows, *others], False)):
        table = error_table(together, lambda row: row.label)
        assert table is not None
        assert any(note.startswith("lowest error: ") for note in table.notes) == ranked
        assert any(note.startswith("Pareto front ") for note in table.notes) == ranked
    assert pairs_of(others[1], rows[0]) == ([], [])
    assert len(pairs_of(others[1], others[0])[0]) == 4


def test_lowest_is_by_the_seeds_that_all_rows_have() -> None:
    rows = rows_of(none=[0.10, 0.12, 0.11, 0.30, 0.31], se=[0.11, 0.13, 0.12])
    best = comparisons.lowest(rows)
    assert best is not None
    assert best.row.label == "none"


def test_any_row_can_be_compared_with() -> None:
    rows = rows_of(none=[0.1, 0.12, 0.11, 0.13], se=[0.08, 0.11, 0.085, 0.11], eca=[0.09, 0.1, 0.1, 0.12])
    compared = comparisons.rows_against(rows, comparisons.references(rows, "se"))
    changed = {row.label: row.accuracy.against for row in compared if row.accuracy}
    assert changed["se"] is None
    assert changed["eca"] is not None
    assert changed["eca"].value == pytest.approx((0.01 - 0.01 + 0.015 + 0.01) / 4)
    assert (changed["eca"].row, changed["eca"].pairs, changed["eca"].family) == ("se", 4, 2)
    assert changed["none"] is not None
    assert changed["none"].value == pytest.approx(0.01875)
    with pytest.raises(UsageError, match="no row is called 'cbam'; choose from none, se, eca"):
        comparisons.references(rows, "cbam")
    r = [stored.row(f"r{r}", AttentionSpec(reduction=r), 0.1, axes={"reduction": r}) for r in (4, 8)]
    with pytest.raises(UsageError, match="'se' is the name of 2 rows: reduction=4, reduction=8"):
        comparisons.rows_named(r, "se")
    assert [row.label for row in comparisons.rows_named(r, "reduction=8")] == ["r8"]


def test_a_run_is_shown_with_the_seeds_of_all_runs_of_its_protocol(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stored.store(tmp_path, sweep(range(5)).document, "20261120T100000Z-compare-1")
    stored.store(tmp_path, sweep(range(5), epochs=3, shift=0.2).document, "20261120T100100Z-compare-2")
    last = sweep(range(2), ("se",), created=2).document
    assert isinstance(last, Run)
    stored.store(tmp_path, last, "20261120T100200Z-compare-3")
    whole, notes = with_all_seeds(last, store)
    assert [row.label for row in whole.rows] == ["ResNet-20", "+ se"]
    assert [sorted(row.accuracy.per_seed) for row in whole.rows if row.accuracy] == [list("01234")] * 2
    assert notes == ("joined from 2 runs",)
    document = of_run(whole, notes=notes)
    assert document.wide[-1].notes[0] == "joined from 2 runs"
    assert [record["accuracy_seeds"] for record in document.records] == [5, 5]
    failed = replace(last, rows=[replace(row, accuracy=None, missing={"accuracy": "it crashed"}) for row in last.rows])
    filled, _ = with_all_seeds(failed, store)
    assert [row.accuracy.seeds for row in filled.rows if row.accuracy] == [5, 5]
    assert "+ se: it crashed" in of_run(filled).wide[-1].notes


def test_a_run_that_no_other_adds_to_is_itself(tmp_path: Path) -> None:
    last = sweep(range(5)).document
    assert isinstance(last, Run)
    stored.store(tmp_path, sweep(range(2)).document, "20261120T100000Z-compare-1")
    stored.store(tmp_path, last, "20261120T100200Z-compare-3")
    assert with_all_seeds(last, Store(tmp_path)) == (last, ())
    counted = replace(last, conditions=RunConditions(what=["resnet20_cifar"]))
    assert with_all_seeds(counted, Store(tmp_path)) == (counted, ())


def test_a_run_is_read_at_once_as_it_is_by_way_of_plain_json_and_no_number_is_beyond_what_can_be() -> None:
    text = to_json(stored.ablation())
    slowly = text.replace('   "role": "baseline",\n', "", 1)  # an older file: by way of plain JSON
    assert slowly != text
    assert from_json(text.encode(), "x") == from_json(slowly.encode(), "x") == stored.ablation()
    for number in ("1e300", "1E+300", "-2.5e101", "1" * 101, "1e999"):
        with pytest.raises(UsageError, match="x is"):
            from_json(text.replace('"rounds": 40', f'"rounds": {number}', 1).encode(), "x")
    assert from_json(text.replace('"source": ""', '"source": "4e123"', 1).encode(), "x")


def test_rows_above_another_are_those_that_some_pair_of_them_tells() -> None:
    dice, base = random.Random(5), stored.row("a", SE, 0.1)
    for _ in range(20):
        errors = [(0.1 + dice.choice([0, 0.01, 0.02]), dice.choice([0, 0.002, 0.01])) for _ in range(8)]
        seeds = [range(dice.randint(0, 3), dice.randint(4, 9)) for _ in errors]
        rows = [
            replace(base, accuracy=replace(base.accuracy, per_seed={str(s): mean + dice.gauss(0, sd) for s in own}))
            for (mean, sd), own in zip(errors, seeds)
            if base.accuracy
        ]
        best = lowest(rows)
        assert best is not None
        pairs = {
            id(row): [paired_seeds(*pairs_of(other, row)) for other in rows if pairs_of(other, row)[0]] for row in rows
        }
        told = [row for row in rows if any(p.difference > 0 and (p.p_value or 2) <= 0.1 / 7 for p in pairs[id(row)])]
        assert list(best.worse) == [row for row in told if row is not best.row]
