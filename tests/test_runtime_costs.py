"""What attention costs by runtime, from stored times: the right numbers, machines apart, nothing where none is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import get_args

import pytest

from senet_bench.core.results import Row, Run, RunConditions, TimingPlan
from senet_bench.core.specs import AttentionSpec, Conditions, Runtime
from senet_bench.core.store import Store
from senet_bench.gallery import report
from senet_bench.gallery.collection import gather, main_timing
from senet_bench.gallery.page.content import content
from senet_bench.gallery.page.leaves import Leaf
from senet_bench.gallery.page.times import fastest, latencies
from senet_bench.show.drawing import Box, Chart, Mark, Stroke, Text, overlap, width_of
from senet_bench.show.layout import Layout
from tests.support import stored

RATIOS: dict[tuple[Runtime, int], float] = {
    ("eager", 1): 1.08,
    ("eager", 8): 1.04,
    ("openvino", 1): 1.02,
    ("openvino", 8): 1.03,
    ("deploy:openvino", 1): 1.01,
}


def run(rows: Sequence[Row], machine: str = "aaaaaaaaaaaa") -> Run:
    return Run(**stored.made("compare", machine) | {"conditions": RunConditions()}, rows=list(rows))


def shown(root: Path) -> tuple[Leaf, ...]:
    return content(gather(root, Store(root).survey())).runtimes


def written(root: Path) -> set[str]:
    """The names of the files that a report writes."""
    return {path.name for path in report.write_gallery(report.read_gallery(Store(root)), root)}


def chart_of(leaf: Leaf) -> Chart:
    (inner,) = leaf.leaves
    assert inner.chart is not None
    return inner.chart


def lines(leaf: Leaf) -> list[dict[str, str]]:
    assert leaf.table is not None
    return [dict(zip((column.name for column in leaf.table.columns), cells)) for cells in leaf.table.texts]


def texts(chart: Chart) -> list[Text]:
    return [item for part in chart.parts for item in part.items if isinstance(item, Text)]


def test_every_ratio_stands_at_its_place_of_the_scale_in_the_panel_of_its_batch(tmp_path: Path) -> None:
    stored.store(tmp_path, run(stored.by_runtime("ResNet", RATIOS)), "20261120T100000Z-compare-1")
    (leaf,) = shown(tmp_path)
    chart = chart_of(leaf)
    assert len(chart.marks) == len(RATIOS)
    heads = [text.place[0] for text in texts(chart) if text.text.startswith("batch ")]
    ones, more = ([text.place[0] for text in texts(chart) if text.text == tick] for tick in ("1", "1.08"))
    assert len(heads) == len(ones) == len(more) == 2
    found = {}
    for mark in chart.marks:
        (runtime, batch) = mark.text[1].split(", batch ")
        panel = 0 if mark.x < more[0] + (ones[1] - more[0]) / 2 else 1
        assert batch == ("1", "8")[panel]
        unit = (more[panel] - ones[panel]) / 0.08
        found[runtime, int(batch)] = 1 + (mark.x - ones[panel]) / unit
        bar = next(item for item in items(chart, mark) if isinstance(item, Stroke))
        edges = [1 + (x - ones[panel]) / unit for x, _ in bar.places]
        assert edges == pytest.approx([RATIOS[runtime, int(batch)] + by for by in (-0.01, 0.02)])  # type: ignore[index]
    assert found == pytest.approx(RATIOS)


def items(chart: Chart, mark: Mark) -> Sequence[object]:
    return next(part.items for part in chart.parts if part.mark is mark)


def test_the_table_has_every_number_the_fastest_runtime_first(tmp_path: Path) -> None:
    stored.store(tmp_path, run(stored.by_runtime("ResNet", RATIOS)), "20261120T100000Z-compare-1")
    (leaf,) = shown(tmp_path)
    assert leaf.table_name == "se_cost"
    first, *others = lines(leaf)
    assert [first[name] for name in ("network", "runtime", "batch", "with / without")] == [
        *("SE-ResNet", "deploy:openvino", "1", "1.010"),
    ]
    assert (first["95 % interval"], first["quartiles"]) == ("1.000 to 1.030", "0.990 to 1.040")
    assert first["control"] == "0.990 (0.980 to 1.020)"
    assert first["of own eager"] == f"{0.04 * 1.01 / (0.1 * 1.08):.3f}"
    assert first["floor"] == f"{1 + 400 / 1e6 / 0.04:.3f}"  # beside the fastest baseline of that batch size
    assert (first["baseline ms"], first["ms"]) == ("40", "40.4")
    assert [line["runtime"] for line in others] == ["openvino", "eager", "openvino", "eager"]
    assert others[-1]["floor"] == f"{1 + 400 / 1e6 / 0.4:.3f}"
    assert [mark.row for mark in chart_of(leaf).marks] == [leaf.row_ids[place] for place in (2, 1, 0, 4, 3)]


def test_a_network_s_part_of_its_own_eager_time_is_of_one_run(tmp_path: Path) -> None:
    """A run of torch.compile met a slower machine; its eager times stood under those of every other run."""
    stored.store(tmp_path, run(stored.by_runtime("ResNet", RATIOS)), "20261120T100000Z-compare-1")
    slower: dict[tuple[Runtime, int], float] = {("eager", 1): 1.62, ("compile", 1): 1.5}
    stored.store(tmp_path, run(stored.by_runtime("ResNet", slower)), "20261121T100000Z-compare-2")
    alone: dict[tuple[Runtime, int], float] = {("onnxruntime", 1): 1.1}
    stored.store(tmp_path, run(stored.by_runtime("ResNet", alone)), "20261122T100000Z-compare-3")
    (leaf,) = shown(tmp_path)
    parts = [(line["runtime"], line["of own eager"]) for line in lines(leaf) if line["batch"] == "1"]
    assert parts == [
        ("deploy:openvino", f"{0.04 * 1.01 / (0.1 * 1.08):.3f}"),
        ("openvino", f"{0.05 * 1.02 / (0.1 * 1.08):.3f}"),
        ("compile", f"{1.5 / 1.62:.3f}"),
        ("eager", "1.000"),
        ("onnxruntime", ""),
    ]


def test_the_caption_tells_machine_conditions_versions_and_control(tmp_path: Path) -> None:
    whole = run(stored.by_runtime("ResNet", RATIOS, threads=2))
    packages = {"torch": "2.15.0", "openvino": "2026.4.1", "onnxruntime": "1.32.0"}
    stored.store(
        tmp_path, replace(whole, environment=replace(whole.environment, packages=packages)), "20261120T1-compare-1"
    )
    (leaf,) = shown(tmp_path)
    title = chart_of(leaf).title
    assert "Test CPU, 4 cores: cpu, fp32, 2 threads, batch 1 and 8; torch 2.15.0, openvino 2026.4.1;" in title
    assert "took 0.990 to 1.010 of the first; load 0.5 when begun" in title


def test_machines_and_conditions_stand_apart(tmp_path: Path) -> None:
    slower = {place: ratio + 0.1 for place, ratio in RATIOS.items()}
    stored.store(tmp_path, run(stored.by_runtime("ResNet", RATIOS)), "20261120T100000Z-compare-1")
    stored.store(tmp_path, run(stored.by_runtime("ResNet", slower), "bbbbbbbbbbbb"), "20261120T100001Z-compare-2")
    first, second = shown(tmp_path)
    assert [line["with / without"] for line in lines(first)] == ["1.010", "1.020", "1.080", "1.030", "1.040"]
    assert [line["with / without"] for line in lines(second)] == ["1.110", "1.120", "1.180", "1.130", "1.140"]
    assert first.table_name != second.table_name
    reduced = {("eager", 1): 1.2, ("deploy", 1): 1.1}
    stored.store(tmp_path, run(stored.by_runtime("ResNet", reduced, precision="bf16")), "20261120T100002Z-compare-3")  # type: ignore[arg-type]
    first, _ = shown(tmp_path)
    assert [leaf.name for leaf in first.leaves] == ["cpu, fp32, 1 thread", "cpu, bf16, 1 thread"]
    assert [len(leaf.chart.marks) for leaf in first.leaves if leaf.chart] == [5, 2]


def test_the_newest_ratio_of_a_runtime_counts_and_one_with_a_reservation_is_hollow(tmp_path: Path) -> None:
    stored.store(tmp_path, run(stored.by_runtime("ResNet", RATIOS)), "20261120T100000Z-compare-1")
    later = stored.by_runtime("ResNet", {("eager", 1): 1.5, ("openvino", 1): 1.6})
    doubted = [replace(one, reason="the control moved") for one in later[1].more_latency]
    later[1] = replace(later[1], more_latency=doubted)
    later_run = replace(run(later), created="2026-11-21T10:00:00Z")
    stored.store(tmp_path, later_run, "20261121T100000Z-compare-2")
    (leaf,) = shown(tmp_path)
    ratios = {(line["runtime"], line["batch"]): line["with / without"] for line in lines(leaf)}
    assert ratios["eager", "1"] == "1.500"
    assert ratios["openvino", "1"] == "1.020"  # the one with a reservation does not take the place of the other
    only = tmp_path / "only"
    stored.store(only, later_run, "20261121T100000Z-compare-2")
    (leaf,) = shown(only)
    assert {line["reservation"] for line in lines(leaf)} == {"", "the control moved"}
    assert any(text.text.startswith("hollow") for text in texts(chart_of(leaf)))


def test_what_was_not_timed_is_named_with_its_reason(tmp_path: Path) -> None:
    rows = stored.by_runtime("ResNet", RATIOS)
    rows[1] = replace(rows[1], missing={"further latency": "onnxruntime failed: no such operator"})
    stored.store(tmp_path, run(rows), "20261120T100000Z-compare-1")
    (leaf,) = shown(tmp_path)
    assert leaf.table is not None
    reason = "left out: SE-ResNet: onnxruntime failed: no such operator"
    assert reason in leaf.table.notes
    places = [*RATIOS, ("onnxruntime", 1)]
    asked = [Conditions(runtime=runtime, batch_size=batch) for runtime, batch in places]
    conditions = RunConditions(latency=TimingPlan(budget_s=10, seed=0, conditions=asked))
    stored.store(tmp_path, replace(run(rows), conditions=conditions), "20261120T100000Z-compare-1")
    (leaf,) = shown(tmp_path)
    assert reason in leaf.table.notes  # type: ignore[union-attr]
    later = stored.by_runtime("ResNet", {("onnxruntime", 1): 1.1})
    stored.store(tmp_path, run(later), "20261120T110000Z-compare-2")
    (leaf,) = shown(tmp_path)
    assert reason not in leaf.table.notes  # type: ignore[union-attr]


@pytest.mark.parametrize("ratios", [{}, {("eager", 1): 1.1, ("eager", 8): 1.05}], ids=["untimed", "one runtime"])
def test_nothing_is_shown_of_one_runtime_or_none(ratios: dict[tuple[Runtime, int], float], tmp_path: Path) -> None:
    rows = stored.by_runtime("ResNet", ratios or RATIOS)
    if not ratios:
        rows = [replace(row, latency=None, more_latency=[]) for row in rows]
    stored.store(tmp_path, run(stored.by_runtime("ResNet", RATIOS)), "20261120T100000Z-compare-1")
    written(tmp_path)
    stale = tmp_path / "tables" / "se_cost.md"
    assert stale.exists()
    stored.store(tmp_path, run(rows), "20261120T100000Z-compare-1")
    assert shown(tmp_path) == ()
    written(tmp_path)
    assert "runtimes" not in (tmp_path / "index.html").read_text().partition("<main")[2]
    assert not stale.exists()


def test_times_in_several_runtimes_are_over_those_of_the_row_named_under_the_same_conditions(tmp_path: Path) -> None:
    slow: dict[tuple[Runtime, int], float] = {("eager", 1): 1.2, ("openvino", 1): 1.1, ("eager", 8): 1.4}
    fast: dict[tuple[Runtime, int], float] = {("eager", 1): 1.08, ("openvino", 1): 1.045, ("eager", 8): 1.05}
    (_, other) = stored.by_runtime("ResNet", fast)
    other = replace(other, label="ECA-ResNet", attention=AttentionSpec(block="eca"))
    stored.store(tmp_path, run([*stored.by_runtime("ResNet", slow), other]), "20261120T100000Z-compare-1")
    collection = replace(gather(tmp_path, Store(tmp_path).survey()), layout=Layout(against="se"))
    (leaf,) = latencies(collection, collection.timings)
    assert leaf.table is not None
    place = [column.name for column in leaf.table.columns].index("over se")
    over = {line[:3]: line[place].partition(" ")[0] for line in leaf.table.texts}
    assert {line[1:]: value for line, value in over.items() if line[0] == "ECA-ResNet"} == {
        ("eager", "1"): "0.900",
        ("openvino", "1"): "0.950",
        ("eager", "8"): "0.750",
    }
    assert {value for line, value in over.items() if line[0] == "SE-ResNet"} == {""}


def test_the_first_words_are_about_the_usual_conditions_where_all_have_as_many_networks(tmp_path: Path) -> None:
    ratios = {(runtime, batch): 1.1 for runtime in ("deploy", "openvino", "eager") for batch in (8, 1)}
    stored.store(tmp_path, run(stored.by_runtime("ResNet", ratios)), "20261120T100000Z-compare-1")  # type: ignore[arg-type]
    main = main_timing(gather(tmp_path, Store(tmp_path).survey()).timings)
    assert main is not None
    assert main.conditions == Conditions()


def test_the_times_of_a_printed_table_are_of_the_conditions_of_most_of_its_networks(tmp_path: Path) -> None:
    """The newest run stood there, whatever its conditions: MobileNet in bf16 beside ShuffleNet in fp32."""

    def pair(depth: int, ratios: dict[tuple[Runtime, int], float]) -> list[Row]:
        base, variant = stored.by_runtime("ResNet", ratios)
        base = replace(base, model=f"resnet{depth}", label=f"ResNet-{depth}")
        return [base, replace(variant, model=f"se{base.model}", label=f"SE-ResNet-{depth}", baseline=base.model)]

    usual: dict[tuple[Runtime, int], float] = {("eager", 1): 1.08}
    other: dict[tuple[Runtime, int], float] = {("eager", 8): 1.3, ("deploy", 1): 1.2}
    both = [*pair(50, usual), *pair(101, usual)]
    stored.store(tmp_path, run(both), "20261120T100000Z-compare-1")
    stored.store(tmp_path, run(pair(50, other)), "20261121T100000Z-compare-2")
    written(tmp_path)
    _, _, times = (tmp_path / "tables" / "table2.md").read_text().partition("### Latency: ")
    assert times.startswith("inference, batch 1, cpu, fp32, eager, 1 thread")
    assert [line.split("|")[1].strip() for line in times.splitlines() if line.startswith("| SE-")] == [
        *("SE-ResNet-50", "SE-ResNet-101"),
    ]
    assert "1.3" not in times


def test_the_page_has_the_chart_before_everything_but_its_headline(tmp_path: Path) -> None:
    stored.store(tmp_path, run(stored.by_runtime("ResNet", RATIOS)), "20261120T100000Z-compare-1")
    assert {"se_cost.md", "se_cost.csv", "se_cost.svg", "se_cost.pdf"} <= written(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert page.index('id="runtimes"') < page.index('id="cost"')
    assert 'data-tip="SE-ResNet&#10;deploy:openvino, batch 1&#10;1.010 (1.000 to 1.030) times its baseline' in page


def test_names_lie_over_nothing_with_seven_networks_in_every_runtime(tmp_path: Path) -> None:
    runtimes = [name for name in get_args(Runtime) if name != "fastest"]
    ratios = {(name, batch): 1 + 0.01 * place for place, name in enumerate(runtimes) for batch in (1, 8, 32)}
    names = [f"{'Very-Long-Network-Name-' * (place % 3)}{place}" for place in range(7)]
    rows = [row for name in names for row in stored.by_runtime(name, ratios)]
    stored.store(tmp_path, run(rows), "20261120T100000Z-compare-1")
    (leaf,) = shown(tmp_path)
    chart = chart_of(leaf)
    assert len(chart.marks) == 7 * 3 * len(runtimes)
    for one, other in combinations(map(box, texts(chart)), 2):
        assert not overlap(one, other)
    left = min(
        stroke.places[0][0]
        for part in chart.parts
        for stroke in part.items
        if isinstance(stroke, Stroke) and stroke.width == 0.5
    )
    beside = [box(text) for text in texts(chart) if text.text in runtimes or "Network" in text.text]
    assert all(edges[0] >= 0 and edges[2] <= left for edges in beside)
    assert all(left <= mark.x <= chart.width and mark.y <= chart.height for mark in chart.marks)


def box(text: Text) -> Box:
    """The ground of a text, its size above its line."""
    wide = width_of(text.text, text.size)
    left = text.place[0] - {"start": 0, "middle": wide / 2, "end": wide}[text.anchor]
    return left, text.place[1] - text.size, left + wide, text.place[1] + 2


def test_times_that_differ_in_runtime_and_batch_size_alone_are_one_table(tmp_path: Path) -> None:
    stored.store(tmp_path, run(stored.by_runtime("ResNet", RATIOS)), "20261120T100000Z-compare-1")
    reduced = {("eager", 1): 1.2, ("eager", 8): 1.1}
    stored.store(tmp_path, run(stored.by_runtime("ResNet", reduced, precision="bf16")), "20261120T100002Z-compare-2")  # type: ignore[arg-type]
    shown = content(gather(tmp_path, Store(tmp_path).survey()))
    leaves = {leaf.name.partition(": ")[2]: leaf for leaf in shown.latency}
    machine = shown.latency[0].table_name.split("-")[1]
    assert {name: leaf.table_name for name, leaf in leaves.items()} == {
        "cpu, fp32, 1 thread": f"latency-{machine}-cpu-fp32-t1",
        "batch 1, cpu, bf16, eager, 1 thread": f"latency-{machine}-cpu-bf16-t1-eager-b1",
        "batch 8, cpu, bf16, eager, 1 thread": f"latency-{machine}-cpu-bf16-t1-eager-b8",
    }
    together = leaves["cpu, fp32, 1 thread"].table
    assert together
    headers = [column.name for column in together.columns]
    places = [(line[headers.index("batch size")], line[headers.index("runtime")]) for line in together.texts]
    assert list(dict.fromkeys(places)) == [
        *(("1", runtime) for runtime in ("eager", "openvino", "deploy:openvino")),
        *(("8", runtime) for runtime in ("eager", "openvino")),
    ]


def test_an_error_is_set_beside_the_time_of_the_fastest_runtime_of_each_batch_size(tmp_path: Path) -> None:
    stored.store(tmp_path, run(stored.by_runtime("ResNet", RATIOS)), "20261120T100000Z-compare-1")
    timings = gather(tmp_path, Store(tmp_path).survey()).timings
    shown = fastest(timings)
    for timed in shown:
        alike = [one for one in timings if one.conditions.batch_size == timed.conditions.batch_size]
        most = max(len(one.rows) for one in alike)
        assert len(timed.rows) == most
        assert timed.rows[-1].latencies[0].seconds == min(
            one.rows[-1].latencies[0].seconds for one in alike if len(one.rows) == most
        )
    assert sorted(timed.conditions.batch_size for timed in shown) == [1, 8]


def test_the_fastest_runtime_is_told_by_its_part_of_eager_not_by_seconds_of_another_run(tmp_path: Path) -> None:
    def times(ratios: dict[tuple[Runtime, int], float], slowness: float) -> Run:
        rows = stored.by_runtime("ResNet", ratios)
        known = [[replace(one, seconds=slowness * one.seconds) for one in row.latencies] for row in rows]
        return run([replace(row, latency=own[0], more_latency=own[1:]) for row, own in zip(rows, known)])

    slow, fast = (
        times({("eager", 1): 1.1, ("deploy:openvino", 1): 1.1}, 3),
        times({("eager", 1): 1.1, ("openvino", 1): 1.1}, 1),
    )
    stored.store(tmp_path, replace(slow, created="2026-11-20T10:00:00Z"), "20261120T100000Z-compare-1")
    stored.store(tmp_path, replace(fast, created="2026-11-20T11:00:00Z"), "20261120T110000Z-compare-2")
    (timed,) = fastest(gather(tmp_path, Store(tmp_path).survey()).timings)
    assert timed.conditions.runtime == "deploy:openvino"  # 0.4 of its eager time, in 0.12 s; openvino 0.5, in 0.05 s
