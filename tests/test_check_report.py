"""The report in every form: what it says first, and the limits of the places where it is shown."""

import csv
import io
import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from senet_bench.core.environment import Environment
from senet_bench.core.results import to_json
from senet_bench.regression.ci import error_lines, junit
from senet_bench.regression.limits import StoredLimit
from senet_bench.regression.outcome import (
    SCHEMA,
    VERDICT_TITLES,
    Base,
    Control,
    Family,
    LimitRow,
    Machine,
    Report,
    State,
    exit_code,
)
from senet_bench.regression.text import MARKER, job_summary, report_document, report_markdown, report_page, verdict_line
from senet_bench.show import writers

NASTY = "a|b`c<script>&@team *x* \x00\n%25"


def row(network: str, metric: str, verdict: Any, **fields: Any) -> LimitRow:
    kind = fields.pop("kind", "exact")
    return LimitRow(id=f"{network}/{metric}", network=network, metric=metric, kind=kind, verdict=verdict, **fields)


def report(rows: list[LimitRow]) -> Report:
    code = exit_code(rows, "warn")
    return Report(
        schema=SCHEMA,
        version="1",
        created="2026-11-21T04:00:00Z",
        verdict=VERDICT_TITLES[code],
        exit_code=code,
        environment=Environment(packages={"torch": "2.15.0"}),
        conditions={"config": "senet-bench.toml", "inconclusive": "warn"},
        baseline=Base(path="results/baselines/portable.json", commit="3f2c1a9", created="2026-09-18"),
        machine=Machine(key="9b1d77c0a4e2", hard={"cpu": "X"}),
        family=Family(alpha=0.01, comparisons=1),
        control=Control(ratio=1.001, ci=(0.994, 1.008), row="n/latency", ok=True),
        health=State(elapsed_s=6.1, load_1min=1.0, steal=0.003, involuntary_switches=10),
        rows=rows,
        reproduce="senet-bench check --seed 0",
        accept='senet-bench baseline accept n/params --reason "..."',
    )


MIXED = [
    row("n", "params", "pass", base=1, now=1, ratio=1.0),
    row("n", "flops", "fail", base=10, now=20, ratio=2.0, reason="flops +10: max_pool"),
    row("n", "latency", "fail", kind="statistical", base=4.12e-3, now=4.35e-3, unit="s", ratio=1.056, ci=(1.047, 1.064),
        gate=StoredLimit(max_ratio=1.02, min_abs=2e-5), mde80=0.009, reason="+5.6 %"),
    row("m", "latency", "inconclusive", kind="statistical", reason="could only see 4.1 %"),
    row("m", "memory", "error", reason="crashed"),
]  # fmt: skip


def test_the_verdict_comes_first_then_what_is_open_then_the_rest_folded() -> None:
    text = report_markdown(report(MIXED))
    mark, first = text.splitlines()[:2]
    assert mark == MARKER
    assert first == (
        "### senet-bench: FAIL, 2 failed, 1 error, 1 inconclusive of 5 gates"
        " (base 3f2c1a9 2026-09-18, machine 9b1d77c0a4e2)"
    )
    places = [
        text.index(what) for what in ("flops +10", "crashed", "could only see", "1 passed", "How sure", "Accept:")
    ]
    assert places == sorted(places)
    assert "| n | latency | 4.12 ms | 4.35 ms | +5.60 % | +4.70 % .. +6.40 % | +2.00 % and 20 us |" in text
    assert "A/A control +0.10 % (-0.60 % .. +0.80 %)" in text


def test_a_pass_says_so() -> None:
    assert verdict_line(report(MIXED[:1])).startswith("PASS, all 1 gate passed (")


def test_the_json_is_the_source_and_says_its_schema() -> None:
    found = json.loads(to_json(report(MIXED)))
    assert found["schema"] == "senet-bench.check/1"
    assert (found["verdict"], found["exit_code"]) == ("FAIL", 1)
    assert {"version", "environment", "conditions", "rows", "baseline", "machine", "missing", "new"} <= found.keys()
    assert found["rows"][2]["ci"] == [1.047, 1.064]


def many(count: int) -> Report:
    return report([row(f"network{i}", "params", "fail", ratio=1 + i, reason="x" * 5000) for i in range(count)])


@pytest.mark.parametrize("count", [1, 500, 20_000])
def test_markdown_stays_within_its_limits(count: int) -> None:
    text = report_markdown(many(count))
    assert len(text) < 65_536
    assert "Reproduce" in text
    assert len(job_summary(many(count)).encode()) < 1 << 20
    assert f"network{count - 1} " in text, "the largest change is shown"
    assert ("more rows" in text) == (count > 1)


def test_names_are_shown_as_they_are() -> None:
    nasty = report([row(NASTY, "params", "fail", reason=NASTY, ratio=1.1)])
    line = next(one for one in report_markdown(nasty).splitlines() if "script" in one)
    assert "<script>" not in line
    assert "@team" not in line
    linked = report_markdown(report([row("[x](https://evil.it)", "#12 www.evil.it", "fail", reason="![a](b)")]))
    for link in (r"\[x\](", r"\!\[a\](b)", "https:\u200b//evil", "www\u200b.evil", "&#35;12"):
        assert link in linked
    assert line.replace("\\|", "").count("|") == 10
    assert "<script>" not in report_page(nasty)
    assert len(ET.fromstring(junit(nasty))) == 1


def test_junit_has_a_case_a_gate() -> None:
    suite = ET.fromstring(junit(report(MIXED)))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "5",
        "2",
        "1",
        "1",
    )
    cases = {(case.get("classname"), case.get("name")): case for case in suite}
    assert cases["senet-bench.n", "latency"].find("failure") is not None
    assert cases["senet-bench.m", "latency"].find("skipped") is not None
    strict = ET.fromstring(junit(replace(report(MIXED), conditions={"inconclusive": "fail"})))
    assert strict.get("failures") == "3"


def test_junit_names_rows_of_one_metric_apart() -> None:
    rows = [replace(row("n", "latency-ratio", "pass"), id=f"n/latency-ratio/{one}") for one in ("a", "b")]
    assert [case.get("name") for case in ET.fromstring(junit(report(rows)))] == ["latency-ratio/a", "latency-ratio/b"]


def test_at_most_ten_annotations_the_worst_first_and_escaped() -> None:
    lines = error_lines(many(30))
    assert len(lines) == 10
    assert "network29 " in lines[0]
    assert "and 21 more" in lines[-1]
    (line,) = error_lines(
        replace(report([row("a:b,c", "la:t,ency", "fail", reason="+5 %\nnext")]), config_file="senet-bench.toml")
    )
    assert line == ("::error file=senet-bench.toml,line=1,title=senet-bench la%3At%2Cency::a:b,c +5 %25%0Anext")
    placed = row("n", "params", "fail", file="src/a b.py", line=12)
    assert error_lines(report([placed]))[0].startswith("::error file=src/a b.py,line=12,title=senet-bench params::")
    assert ET.fromstring(junit(report([placed])))[0].attrib["file"] == "src/a b.py"
    assert len(error_lines(many(10))) == 10
    assert "more" not in error_lines(many(10))[-1]


def test_the_page_and_the_tables() -> None:
    text = report_page(report(MIXED))
    assert text.index("flops +10") < text.index("<details>") < text.index("How sure")
    rows = [row("n", "r", "pass", reason="of resnet101"), row("n", "r", "fail", reason="of resnet50")]
    shown_first = report_page(report(rows)).partition("<details>")[0]
    assert ("of resnet50" in shown_first, "of resnet101" in shown_first) == (True, False)
    shown = report_document(report(MIXED))
    assert len(shown.wide[0].rows) == 5
    assert len(shown.narrow[0].rows) == 4
    assert shown.records[0]["verdict"] == "fail"


def test_csv_has_the_bounds_of_each_interval() -> None:
    lines = list(csv.DictReader(io.StringIO(writers.csv(report_document(report(MIXED)).records))))
    bounds = {(one["network"], one["metric"]): (one["ci_low"], one["ci_high"]) for one in lines}
    assert bounds["n", "latency"] == ("1.047", "1.064")
    assert bounds["n", "params"] == ("", "")
    assert {"control_ci_low", "control_ci_high"} <= lines[0].keys()
    assert "ci" not in lines[0]
