"""The page and the files beside it as text: complete, escaped, the same each time, and honest about what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from senet_bench.core.metrics import METRICS, Metric
from senet_bench.core.paper import TABLES
from senet_bench.core.results import RunConditions
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.store import Store
from senet_bench.core.union import StoredRun, ablations
from senet_bench.gallery import report
from senet_bench.gallery.ablations import of_ablation, of_studies
from senet_bench.gallery.collection import Collection, gather
from senet_bench.gallery.here import own_tables
from senet_bench.gallery.page.content import content
from senet_bench.gallery.page.headline import COMPARED, grids, headline
from senet_bench.gallery.plots import tradeoff
from senet_bench.gallery.points import points, timed_points
from senet_bench.show.chart import name_of, shown
from senet_bench.show.curves import curves
from senet_bench.show.documents import of_run
from senet_bench.show.drawing import Area, Chart, Point, Text, width_of
from senet_bench.show.style import ROLE_COLOURS
from tests.conftest import Run
from tests.support import stored

TAGS = """
    html head meta link title style body a header nav button main section p h1 h2 h3 dl dt dd div strong span em small
    fieldset legend label input figure figcaption details summary table thead tbody tr th td ul li code article time
    footer cite script i svg g path defs use text circle rect clippath
"""
ALLOWED = set(TAGS.split())


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def build(root: Path) -> str:
    """Write the whole report, return its page."""
    for _ in report.write_gallery(report.read_gallery(Store(root)), root):
        pass
    return (root / "index.html").read_text(encoding="utf-8")


def collection_of(root: Path) -> Collection:
    """What is stored, without drawing it."""
    return gather(root, Store(root).survey())


def files(root: Path) -> dict[str, bytes]:
    """Everything that a report wrote, by name."""
    written = [path for path in root.rglob("*") if path.is_file() and "runs" not in path.parts]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in written}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built report of small facts of every kind, with names that try to be HTML, mathematics and terminal codes."""
    root = tmp_path_factory.mktemp("results")
    stored.store(root, stored.ablation(), "20261120T100000Z-ablate-1")
    nasty = stored.ablation("bbbbbbbbbbbb")
    rows = [replace(row, label=f"{row.label}{stored.HOSTILE}", family=stored.HOSTILE) for row in nasty.rows]
    conditions = structs.replace(nasty.conditions, model=stored.HOSTILE)
    stored.store(root, replace(nasty, rows=rows, conditions=conditions), "20261120T100001Z-ablate-2")
    stored.store(root, stored.evaluated(stored.HOSTILE), "20261120T100002Z-evaluate-3")
    stored.store(root, stored.gates(stored.HOSTILE, stored.HOSTILE), "20261120T100003Z-excitations-4")
    build(root)
    return root


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built report of the committed facts."""
    root = tmp_path_factory.mktemp("results")
    shutil.copytree(stored.COMMITTED / "runs", root / "runs")
    build(root)
    return root


def test_the_same_facts_give_the_same_bytes_in_any_order_zone_and_hash_seed(
    everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    for path in sorted((everything / "runs").rglob("*.json"), reverse=True):  # written in another order
        copy = again / path.relative_to(everything)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    code = f"import sys\nfrom senet_bench.cli import main\nmain(['report', '-q', '--results', {str(again)!r}])"
    elsewhere = {"PYTHONHASHSEED": "77", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "MPLCONFIGDIR": str(tmp_path)}
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nsvg.fonttype: path\n")
    elsewhere["MATPLOTLIBRC"] = str(tmp_path / "matplotlibrc")
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **elsewhere}, check=True, capture_output=True)
    assert files(again).keys() == files(everything).keys()
    assert [name for name, data in files(again).items() if data != files(everything)[name]] == []

    real = Path.glob

    def shuffled(self: Path, pattern: str) -> list[Path]:
        found = sorted(real(self, pattern))
        random.Random(3).shuffle(found)
        return found

    monkeypatch.setattr(Path, "glob", shuffled)
    assert build(again).encode() == files(everything)["index.html"]


def test_no_name_becomes_markup(everything: Path) -> None:
    text = (everything / "index.html").read_text(encoding="utf-8")
    tags = Tags(text).found
    assert {tag for tag, _ in tags} <= ALLOWED
    assert Counter(tag for tag, _ in tags)["script"] == 1
    attributes = {name for _, given in tags for name in given}
    assert not {name for name in attributes if name.startswith("on") or name == "style"}
    assert "&lt;/script&gt;&lt;img src=x" in text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    for path in (everything / "tables").glob("*.html"):
        assert {tag for tag, _ in Tags(path.read_text()).found} <= ALLOWED


def test_only_its_own_style_and_script_are_let_in_and_nothing_is_loaded(everything: Path) -> None:
    text = (everything / "index.html").read_text(encoding="utf-8")
    tags = Tags(text).found
    policy = next(given["content"] or "" for tag, given in tags if tag == "meta" and "http-equiv" in given)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for name in ("style", "script"):
        (inside,) = re.findall(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    loaded = [given.get("src") or given.get("href") for tag, given in tags if tag in ("link", "script", "img", "use")]
    assert all(address is None or address.startswith(("#", "data:")) for address in loaded)
    assert set(re.findall("https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, no address


def test_every_id_is_one_and_every_link_leads_somewhere(everything: Path, committed: Path) -> None:
    for root in (everything, committed):
        tags = Tags((root / "index.html").read_text(encoding="utf-8")).found
        ids = Counter(given["id"] for _, given in tags if "id" in given)
        assert [name for name, count in ids.items() if count > 1] == []
        links = {given["href"] for tag, given in tags if tag in ("a", "use") and given.get("href")}
        links |= {f"#{given[name]}" for _, given in tags for name in ("aria-controls",) if name in given}
        for link in links:
            assert link is not None
            assert link[1:] in ids if link.startswith("#") else (root / link).is_file(), link


def test_every_printed_cell_is_there_with_its_status(committed: Path) -> None:
    tags = Tags((committed / "index.html").read_text(encoding="utf-8")).found
    cells = [given for tag, given in tags if tag == "td" and "data-tip" in given]
    assert len(cells) == sum(len(TABLES[number].cells) for number in COMPARED)
    assert all(given.get("tabindex") == "0" for given in cells)
    status = Counter((given["class"] or "").removeprefix("num cell ") for given in cells)
    assert (status["match"], status["near"], status["differs"], status["not-reproduced"]) == (42, 6, 0, 2)
    assert any("no public definition of Inception-ResNet-v2" in (given["data-tip"] or "") for given in cells)


def test_the_page_of_the_committed_facts_is_small_and_leads_with_their_medians(committed: Path) -> None:
    page = (committed / "index.html").read_bytes()
    assert len(page) < 1_500_000
    first = headline(collection_of(committed), None)
    # Table 2's gains as printed: 1.51 0.79 0.85 1.01 0.48 1.80 1.15 0.57
    assert first.title.startswith(
        "In the paper SE takes 0.93 points off the top\u20111 error, for 0.17\u00a0% more multiply\u2011adds"
    )
    assert [figure.value for figure in first.figures] == ["−0.93 points", "+0.17 %", "+10.4 %"]
    assert first.figures[0].origin.startswith("−1.80 to −0.48")


def test_what_is_missing_is_said_with_its_command(run: Run, tmp_path: Path) -> None:
    stored.store(tmp_path / "results", stored.gates(), "20261120T100003Z-excitations-4")
    quiet = run("report", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    ended = run("report")
    assert ended.code == 0
    page = (tmp_path / "results" / "index.html").read_text()
    for command in (
        "senet-bench compare --no-latency",
        "senet-bench compare table10",
        "senet-bench compare resnet20_cifar --dataset digits",
        "senet-bench ablate -m seresnet20_cifar --reduction --dataset digits --seeds 5",
        "senet-bench selftest",
    ):
        assert f"<code>{command}</code>" in page
        assert command in ended.out or "table10" in command
    assert "excitations seresnet20_cifar" not in page
    assert "Mean gate of every channel by class: SE-ResNet-20 on digits" in page


def test_without_gates_the_command_for_them_is_named(run: Run, tmp_path: Path) -> None:
    stored.store(tmp_path / "results", stored.evaluated(), "20261120T100003Z-evaluate-4")
    assert run("report", "-q").code == 0
    page = (tmp_path / "results" / "index.html").read_text(encoding="utf-8")
    assert "<code>senet-bench excitations seresnet20_cifar --dataset digits</code>" in page


def test_a_damaged_trial_is_named_and_the_tables_are_those_without_it(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "results"
    stored.store(root, stored.ablation(), "20261120T100000Z-ablate-1")
    assert run("report", "-q").code == 0
    before = {path.name: path.read_bytes() for path in (root / "tables").iterdir()}
    trial = root / "runs" / "aaaaaaaaaaaa" / "trials" / "0123456789abcdef.json"
    trial.parent.mkdir()
    trial.write_text('{"schema": "senet-bench.trial/1", "definition": {}, "result": {"model": 5}}', encoding="utf-8")
    ended = run("report", "-q")
    assert ended.code == 2
    assert [trial.name in line for line in ended.err.splitlines()] == [True, True]
    assert {path.name: path.read_bytes() for path in (root / "tables").iterdir()} == before


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", 2),
        (b"\xff\xfe", 2),
        (b'{"schema": "senet-bench.compare/99", "rows": []}', 4),
        (json.dumps(stored.header("selftest") | {"rows": [{"rule": 1}]}).encode(), 2),
        (json.dumps(stored.header("excitations") | {"rows": [{"block": "a", "mean": ["x"]}]}).encode(), 2),
        (json.dumps(stored.header("evaluate") | {"rows": [{}]}).encode(), 2),
        (json.dumps(stored.header("train") | {"rows": [3]}).encode(), 2),
        (json.dumps(stored.header("compare") | {"environment": {"hard": "fast"}}).encode(), 2),
        (json.dumps(stored.header("compare") | {"environment": None, "rows": []}).encode(), 2),
        (json.dumps({"schema": "senet-bench.compare/1", "version": "0", "created": "", "rows": []}).encode(), 2),
        (json.dumps(stored.header("ablate", axes=["reduction"])).encode(), 2),
        (json.dumps(stored.header("evaluate", dataset="digits") | {"details": 7}).encode(), 2),
    ],
    ids=[
        "cut",
        "not-utf8",
        "foreign",
        "selftest",
        "excitations",
        "evaluate",
        "train",
        "environment",
        "environment-null",
        "environment-missing",
        "conditions",
        "details",
    ],
)
def test_a_file_that_cannot_be_read_is_left_out_and_named(run: Run, tmp_path: Path, content: bytes, code: int) -> None:
    root = tmp_path / "results"
    stored.store(root, stored.ablation(), "20261120T100000Z-ablate-1")
    broken = root / "runs" / "aaaaaaaaaaaa" / "20261120T110000Z-broken-9.json"
    broken.write_bytes(content)
    ended = run("report", "-q")
    assert ended.code == code
    assert ended.out == ""
    assert [broken.name in line for line in ended.err.splitlines()] == [True, True]
    assert "Traceback" not in ended.err
    page = (root / "index.html").read_text()
    assert f"<code>runs/aaaaaaaaaaaa/{broken.name}</code>" in page
    assert "SE-ResNet-20 by reduction" in page


def test_machines_are_never_mixed(everything: Path) -> None:
    collection = collection_of(everything)
    assert [timed.machine for timed in collection.timings] == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    assert collection.name_of("aaaaaaaaaaaa") == "Test CPU, 4 cores (aaaaaaaaaaaa)"
    for timed in collection.timings:
        known = [point for point in timed_points(points(collection), timed) if "latency" in point.costs]
        assert known
        own = {1e3 * row.latency.seconds for row in timed.rows if row.latency}
        assert {point.costs["latency"].value for point in known} <= own


def test_the_newest_row_of_a_network_counts_but_no_run_takes_a_latency_away(tmp_path: Path) -> None:
    first = stored.ablation()
    stored.store(tmp_path, replace(first, schema="senet-bench.compare/1"), "20261120T100000Z-compare-1")
    untimed = [replace(row, latency=None, params=1) for row in first.rows]
    stored.store(tmp_path, replace(first, schema="senet-bench.compare/1", rows=untimed), "20261120T110000Z-compare-2")
    collection = collection_of(tmp_path)
    assert {row.params for row in collection.rows()} == {1}
    assert len(collection.timings[0].rows) == len(first.rows)


def test_points_tell_the_papers_errors_from_ours(everything: Path, committed: Path) -> None:
    ours = points(collection_of(everything))
    digits = [point for point in ours if point.dataset == "digits"]
    assert {point.source for point in digits} == {"here"}
    assert {point.kind for point in digits} == {"baseline", "attention", "control"}
    assert all(point.interval and point.interval[0] < point.error < point.interval[1] for point in digits)
    theirs = [point for point in points(collection_of(committed)) if point.dataset == "imagenet"]
    assert {point.source for point in theirs} == {"paper"}
    fifty = next(point for point in theirs if point.label == "SE-ResNet-50")
    assert (fifty.error, fifty.costs["flops"].printed, fifty.interval) == (23.29, "3.87", None)
    assert fifty.costs["params"].printed == ""  # Table 2 prints no parameters: counted here
    assert fifty.costs["params"].value == pytest.approx(28.088024)


def test_the_numbers_of_a_plot_stand_in_the_unit_of_its_axis(tmp_path: Path) -> None:
    stored.store(tmp_path, stored.ablation(), "20261120T100000Z-ablate-0")
    (digits,) = (leaf for leaf in content(gather(tmp_path, Store(tmp_path).survey())).cost if leaf.name == "digits")
    (flops,) = (leaf for leaf in digits.leaves if leaf.name == "FLOPs")
    assert flops.chart is not None
    assert flops.table is not None
    assert flops.chart.title.endswith("MFLOPs")
    assert (flops.table.columns[4].name, flops.table.texts[0][4]) == ("MFLOPs", "2.5")


def test_arrows_carry_the_interval_of_the_gain_and_the_papers_errors_are_in_outline_beside_ours(
    committed: Path,
) -> None:
    known = [point for point in points(collection_of(committed)) if point.dataset == "imagenet"]
    alone = tradeoff(known, "imagenet", METRICS["flops"], "alone")
    pair = [
        replace(point, source="here", group="mine", gain=(-2.0, -0.5) if point.kind == "attention" else None)
        for point in known
        if point.label in ("ResNet-50", "SE-ResNet-50")
    ]
    beside = tradeoff([*known, *pair], "imagenet", METRICS["flops"], "beside")
    assert alone is not None
    assert beside is not None
    assert not fans(alone)
    (fan,) = fans(beside)
    assert fan.places[1][0] == fan.places[2][0] != fan.places[0][0]
    faces = {
        (item.colour, item.fill)
        for part in beside.parts
        for item in part.items
        if isinstance(item, Point) and item.shape == "diamond"
    }
    assert faces == {("paper", None)}
    texts = [item.text for part in beside.parts for item in part.items if isinstance(item, Text)]
    assert "the gain's 95 % interval" in texts


def fans(chart: Chart) -> list[Area]:
    """The areas of a chart that are zoomed with its lines."""
    return [item for part in chart.parts if part.kind == "line" for item in part.items if isinstance(item, Area)]


def test_an_ablation_has_a_panel_a_number_with_intervals_and_references() -> None:
    series = of_ablation(ablations([StoredRun("runs/a/b.json", stored.ablation())])[0], [])
    assert series.settings == ("2", "4", "8")
    assert series.ordered
    error = series.panels[0]
    assert error.title == "top-1 error on digits, %"
    (flops,) = (panel for panel in series.panels if panel.name == "FLOPs")
    assert flops.title == "MFLOPs"  # the unit of the tables
    assert flops.lines[0].values[0] == pytest.approx(2.52)
    assert dict(error.references) == pytest.approx({"baseline": 10.6, "gates fixed at 0.5": 10.1})
    assert [round(value or 0, 2) for value in error.lines[0].values] == [9.6, 9.1, 9.4]
    low, high = error.lines[0].intervals[0] or (0, 0)
    # seeds at +0, +.4, +.8, +1.2 points: sd 0.5164, t(3, .975) = 3.1824, half width 0.8217
    assert (high - low) / 2 == pytest.approx(0.8217, abs=1e-4)


@pytest.mark.parametrize("many", [4, 12, 30])
def test_names_of_many_settings_lie_over_no_other_and_stay_inside(many: int) -> None:
    made = stored.ablation()
    names = [f"my_blocks:Block{place}" for place in range(many)]
    rows = [replace(made.rows[1], axes={"attention": name}, attention=AttentionSpec(block=name)) for name in names]
    rows = [replace(row, params=270_000 + place) for place, row in enumerate(rows)]
    asked = structs.replace(made.conditions, axes={"attention": ",".join(names)})
    run = replace(made, rows=[made.rows[0], *rows], conditions=asked)
    chart = curves(of_ablation(ablations([StoredRun("runs/a/b.json", run)])[0], []))
    assert chart is not None
    texts = [item for part in chart.parts for item in part.items if isinstance(item, Text)]
    shown_names = [item for item in texts if item.text.startswith("my_blocks")]
    assert len(shown_names) == many
    for one, other in pairwise(shown_names):
        apart = other.place[0] - one.place[0]
        assert apart * math.sin(math.radians(-one.turn)) >= one.size or (one.turn == 0 and apart > width_of(one.text))
    assert all(one.place[0] >= math.cos(math.radians(one.turn)) * width_of(one.text, one.size) for one in shown_names)


def test_a_row_of_the_table_of_metrics_is_a_column_a_panel_and_an_axis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reads = Metric(key="reads", title="reads, k", quantity="count", name="reads", scale=1e3, digits=1, axis="reads")
    monkeypatch.setitem(METRICS, "reads", reads)
    run = stored.ablation()
    run = replace(run, rows=[replace(row, counts={"reads": 1000 * (at + 1)}) for at, row in enumerate(run.rows)])
    document = of_run(run)
    for table in (document.wide[0], document.narrow[0]):
        at = [column.group for column in table.columns].index("reads, k")
        assert [row[at] for row in table.texts] == ["1.0", "2.0", "3.0", "4.0", "5.0"]
        assert [row[at + 1] for row in table.texts][:2] == ["", "+100.00"]
    assert [line["reads"] for line in document.records] == [1000, 2000, 3000, 4000, 5000]
    panels = {panel.name: panel for panel in of_ablation(ablations([StoredRun("runs/a/b.json", run)])[0], []).panels}
    assert panels["reads"].lines[0].values == (2.0, 3.0, 4.0)
    compared = replace(run, schema="senet-bench.compare/1", conditions=RunConditions())
    stored.store(tmp_path, compared, "20261120T100000Z-compare-1")
    (digits,) = (leaf for leaf in content(collection_of(tmp_path)).cost if leaf.name == "digits")
    assert "Reads" in [leaf.name for leaf in digits.leaves]


def test_the_papers_reduction_ratios_stand_beside_ours(committed: Path) -> None:
    series = {one.name: one for one in of_studies(collection_of(committed), None)}
    table10 = series["ablation-table10"]
    assert table10.settings == ("r=2", "r=4", "r=8", "r=16", "r=32")
    error, params = table10.panels[:2]
    assert error.lines[0].values == (22.29, 22.25, 22.26, 22.28, 22.72)
    assert error.references == (("ResNet-50", 23.30),)
    assert {line.source for line in params.lines} == {"paper", "here"}
    assert "parameters" in series["ablation-table11"].title  # no squeeze changes them


def test_a_table_that_nothing_was_counted_for_says_so() -> None:
    for grid in grids(Collection(())):
        assert {status for status, _ in grid.counts} == {"not measured"}
        assert bool(grid.command) == (grid.id != "table9")


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours as WCAG 2 defines it, 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("role", [role for role in ROLE_COLOURS if role not in ("rule", "ground", "surface")])
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_of_text_has_enough_contrast(role: str, scheme: int) -> None:
    for under in ("ground", "surface"):
        assert contrast(ROLE_COLOURS[role][scheme], ROLE_COLOURS[under][scheme]) >= 4.5


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_names_of_files_are_safe_and_told_apart() -> None:
    assert name_of("error-vs-flops") == "error-vs-flops"
    hostile = [name_of(text) for text in ("../../etc", "a b", "a_b", "a/b", stored.HOSTILE, "x" * 500)]
    assert len(set(hostile)) == 6
    assert all(re.fullmatch(r"[\w-]{1,120}", name, re.ASCII) for name in hostile)
    assert shown("a\x00\n b" + "c" * 99) == "a b" + "c" * 56 + "…"


def test_the_terminal_has_the_page_in_short(run: Run, tmp_path: Path) -> None:
    counted = min((stored.COMMITTED / "runs").glob("*/*-compare-*.json"), key=lambda path: path.name)
    copy = tmp_path / "results" / counted.relative_to(stored.COMMITTED)
    copy.parent.mkdir(parents=True)
    shutil.copy(counted, copy)
    ended = run("report")
    assert ended.code == 0
    assert "−0.93 points" in ended.out
    assert re.search(r"Table 2 +14 +2 +64", ended.out)
    assert "senet-bench ablate -m seresnet20_cifar" in ended.out
    assert "index.html" in ended.err
    assert "\x1b" not in ended.out + ended.err


@pytest.mark.parametrize("change", [{"mean": [0.5]}, {"classes": {"0": [0.5, 0.6]}}, {"sd": [float("nan")] * 16}])
def test_gates_of_other_lengths_or_values_are_no_facts(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a gate of block|other lengths"):
        replace(stored.gates().rows[0], **change)


def test_the_headline_says_what_its_own_table_decided_with_its_interval(tmp_path: Path) -> None:
    run = stored.ablation()
    better = {str(seed): 0.05 + 0.001 * seed for seed in range(4)}
    rows = [
        replace(row, label="ResNet-20 + mine:Gate", source="abc", accuracy=replace(row.accuracy, per_seed=better))
        if row.axes == {"reduction": 4} and row.accuracy
        else row
        for row in run.rows
    ]
    stored.store(tmp_path, replace(run, rows=rows), "20261120T100000Z-ablate-1")
    collection = collection_of(tmp_path)
    first = headline(collection, None)
    assert first.title.startswith("ResNet\u201120 + mine:Gate takes 5.45 points off the top\u20111 error on digits (")
    assert "of 3 rows compared with a baseline 1 is told from it: ResNet-20 + mine:Gate" in first.sentences[0]
    (table,) = own_tables(collection)
    names = [column.name for column in table.columns]
    assert names[-2:] == ["minus the baseline", "decided"]
    assert [row[-1].partition(" (")[0] for row in table.texts][1:4] == ["not decided", "lower", "not decided"]


def test_a_single_pair_or_an_unreliable_time_is_no_headline(tmp_path: Path) -> None:
    counted = min((stored.COMMITTED / "runs").glob("*/*-compare-*.json"), key=lambda path: path.name)
    document = json.loads(counted.read_text())
    document["rows"] = [row for row in document["rows"] if row["model"] in ("resnet50", "seresnet50")]
    path = tmp_path / "runs" / "aaaaaaaaaaaa" / counted.name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    found = headline(collection_of(tmp_path), None)
    assert (found.title, found.figures, found.sentences) == ("What Squeeze-and-Excitation costs and buys", (), ())


def test_what_was_written_of_runs_that_are_no_more_is_removed(tmp_path: Path) -> None:
    gone = stored.store(tmp_path, stored.ablation("bbbbbbbbbbbb"), "20261120T100000Z-ablate-1")
    stored.store(tmp_path, stored.ablation(), "20261120T100001Z-ablate-2")
    own = tmp_path / "tables" / "latency-notes.md"
    own.parent.mkdir()
    own.write_text("kept")
    build(tmp_path)
    before = files(tmp_path)
    assert set((tmp_path / "files.txt").read_text().splitlines()) == before.keys() - {
        "files.txt",
        "tables/latency-notes.md",
    }
    gone.unlink()
    build(tmp_path)
    after = files(tmp_path)
    assert any("bbbbbbbbbbbb" in name for name in before)
    assert not any("bbbbbbbbbbbb" in name for name in after)
    assert len(after) < len(before)
    assert own.read_text() == "kept"


def test_what_was_written_of_a_damaged_run_stays_until_the_run_is_no_more(tmp_path: Path) -> None:
    damaged = stored.store(tmp_path, stored.ablation("bbbbbbbbbbbb"), "20261120T100000Z-ablate-1")
    stored.store(tmp_path, stored.ablation(), "20261120T100001Z-ablate-2")
    build(tmp_path)
    damaged.write_text("{")
    build(tmp_path)
    assert any("bbbbbbbbbbbb" in name for name in files(tmp_path))
    damaged.unlink()
    build(tmp_path)
    assert not any("bbbbbbbbbbbb" in name for name in files(tmp_path))


def test_a_list_of_files_removes_nothing_outside_of_tables_and_plots(tmp_path: Path) -> None:
    stored.store(tmp_path, stored.ablation(), "20261120T100000Z-ablate-1")
    outside = tmp_path / "mine.md"
    outside.write_text("kept")
    (tmp_path / "tables").mkdir()
    (tmp_path / "files.txt").write_text("tables/../mine.md\nmine.md\n\ntables/..\n/etc/hostname\nruns\n")
    build(tmp_path)
    assert outside.read_text() == "kept"
