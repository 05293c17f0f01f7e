"""The report of a check for other programs: JUnit XML, GitHub's annotations, pytest-benchmark's JSON."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from senet_bench import __version__
from senet_bench.core.checkout import commit_of
from senet_bench.core.environment import interpreter
from senet_bench.core.results import to_json
from senet_bench.errors import BenchError
from senet_bench.regression.outcome import SCHEMA, LimitRow, Report
from senet_bench.regression.text import MARKER, ordered, plain_markdown, row_cells
from senet_bench.show import writers
from senet_bench.show.tables import Table

MOST_ANNOTATIONS = 10
"""GitHub shows ten of a kind for a step and drops the rest."""
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NUMBERS = ("base", "now", "ratio", "p_worse", "p_ok", "mde80", "rounds", "tau", "control_ratio")


def junit(report: Report) -> str:
    """One test case a limit; a row that could not be decided is skipped, or a failure where it fails the check."""
    rows = ordered(report.rows)
    verdicts = [_outcome(row, strict=report.conditions["inconclusive"] == "fail") for row in rows]
    counts = {kind: verdicts.count(kind) for kind in ("failure", "error", "skipped")}
    counted = f'failures="{counts["failure"]}" errors="{counts["error"]}" skipped="{counts["skipped"]}"'
    created = report.created.removesuffix("Z")
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="senet-bench" tests="{len(rows)}" {counted} timestamp={_quoted(created)}>',
    ]
    for row, kind in zip(rows, verdicts):
        lines += _case(row, kind)
    return "\n".join([*lines, "</testsuite>", ""])


def _outcome(row: LimitRow, *, strict: bool) -> str:
    match row.verdict:
        case "fail":
            return "failure"
        case "error" | "not comparable":
            return "error"
        case "inconclusive":
            return "failure" if strict else "skipped"
    return "passed"


def _case(row: LimitRow, kind: str) -> list[str]:
    name = row.id.removeprefix(f"{row.network}/")  # CI systems show one case of a name
    attributes = f"classname={_quoted(f'senet-bench.{row.network}')} name={_quoted(name)}"
    place = f' file={_quoted(row.file)} line="{row.line}"' if row.file else ""
    lines = [f'<testcase {attributes}{place} time="{row.elapsed_s or 0:.3f}">']
    numbers = [(name, getattr(row, name)) for name in NUMBERS if getattr(row, name) is not None]
    if numbers:
        values = "".join(f"<property name={_quoted(name)} value={_quoted(str(one))}/>" for name, one in numbers)
        lines.append(f"<properties>{values}</properties>")
    if kind != "passed":
        message = row.reason if row.verdict != "inconclusive" else f"inconclusive: {row.reason}"
        label = {"fail": "regression", "not comparable": "not-comparable"}.get(row.verdict, row.verdict)
        attribute = f' type="{label}"' if kind != "skipped" else ""
        text = "" if kind == "skipped" else _text(" | ".join(row_cells(row)))
        lines.append(f"<{kind}{attribute} message={_quoted(message)}>{text}</{kind}>")
    return [*lines, "</testcase>"]


def _text(text: str) -> str:
    return escape(_UNWRITABLE.sub("?", text))


def _quoted(text: str) -> str:
    return quoteattr(_UNWRITABLE.sub("?", text))


def error_lines(report: Report) -> list[str]:
    """At most ten `::error` lines, the gravest row first; the tenth says how many more there are."""
    rows: Sequence[LimitRow] = [
        row for row in ordered(report.rows) if row.verdict in ("fail", "error", "not comparable")
    ]
    file = report.config_file
    fitting = rows if len(rows) <= MOST_ANNOTATIONS else rows[: MOST_ANNOTATIONS - 1]
    lines = [
        _annotation(row.file or file, f"senet-bench {row.metric}", f"{row.network} {row.reason}", row.line or 1)
        for row in fitting
    ]
    if len(rows) > len(fitting):
        lines.append(_annotation(file, "senet-bench", f"and {len(rows) - len(fitting)} more, see the report"))
    return lines


def failure_files(error: BenchError, created: str) -> dict[str, str]:
    """What is written where no report came about, by kind: JUnit, Markdown, a page and JSON that say why."""
    why = str(error)
    case = f'<testcase classname="senet-bench" name="check" time="0.000"><error message={_quoted(why)}/></testcase>'
    suite = f'<testsuite name="senet-bench" tests="1" failures="0" errors="1" timestamp={_quoted(created)}>'
    return {
        "junit": f'<?xml version="1.0" encoding="UTF-8"?>\n{suite}{case}</testsuite>\n',
        "markdown": f"{MARKER}\n### senet-bench: not checked\n\n{plain_markdown(why)}\n",
        "html": writers.html_page([Table("", (), (), (why,))], "senet-bench: not checked"),
        "json": to_json(_failure_document(error, created)),
    }


def _failure_document(error: BenchError, created: str) -> dict[str, Any]:
    """The document of an error, with what is known of the machine without torch, which may be at fault."""
    environment = {"senet_bench": __version__, "commit": commit_of(Path()) or None, **interpreter()}
    about = {"schema": SCHEMA, "version": __version__, "created": f"{created}Z", "environment": environment}
    told = {"verdict": "ERROR", "exit_code": error.exit_code, "error": str(error)}
    return {**about, "conditions": {}, **told, "rows": []}


def failure_line(error: BenchError) -> str:
    """The annotation of an error before any report."""
    return _annotation("", "senet-bench check", str(error))


def _annotation(file: str, title: str, message: str, line: int = 1) -> str:
    where = f"file={_property(file)},line={line}," if file else ""
    return f"::error {where}title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# --- pytest-benchmark ------------------------------------------------------------------------------------------


def exported(report: Report) -> dict[str, Any]:
    """The report's times as a file that `pytest-benchmark compare` reads."""
    hard, head = report.machine.hard, report.baseline.head
    machine = {"node": report.machine.key, "processor": hard.get("cpu"), "machine": hard.get("isa")}
    machine |= {"cpu": {"brand_raw": hard.get("cpu"), "count": hard.get("cores")}, "python_version": ""}
    machine |= {"system": "", "release": "", "python_implementation": "", "python_compiler": ""}
    commit = {"id": head or "unknown", "dirty": head.endswith("+")}
    return {
        "machine_info": machine,
        "commit_info": {**commit, "time": report.created, "branch": "", "project": "senet-bench"},
        "benchmarks": [_benchmark(row) for row in report.rows if row.unit == "s" and isinstance(row.now, float)],
        "datetime": report.created,
        "version": "5.1.0",
    }


def _benchmark(row: LimitRow) -> dict[str, Any]:
    """A row of time; spreads are those between launches, where there were several."""
    now = float(row.now or 0.0)
    times = [now * math.exp(one - statistics.fmean(row.launches)) for one in row.launches] or [now]
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [now, now, now]
    stats = {
        "min": min(times),
        "max": max(times),
        "mean": statistics.fmean(times),
        "stddev": statistics.stdev(times) if len(times) > 1 else 0.0,
        "rounds": row.rounds or 1,
        "median": statistics.median(times),
        "iqr": quartiles[2] - quartiles[0],
        "q1": quartiles[0],
        "q3": quartiles[2],
        "iqr_outliers": 0,
        "stddev_outliers": 0,
        "outliers": "0;0",
        "ld15iqr": min(times),
        "hd15iqr": max(times),
        "ops": 1 / now,
        "total": sum(times),
        "iterations": 1,
    }
    extra = {"verdict": row.verdict, "ratio": row.ratio, "ci": row.ci, "gate": row.gate}
    options = {
        "disable_gc": True,
        "timer": "perf_counter",
        "min_rounds": 1,
        "max_time": 0,
        "min_time": 0,
        "warmup": True,
    }
    names = {"group": row.metric, "name": row.network, "fullname": row.id, "params": None, "param": None}
    return {**names, "extra_info": extra, "options": options, "stats": stats}
