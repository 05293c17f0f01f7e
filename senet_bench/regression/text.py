"""The report of a check as text: Markdown for a job summary or a comment, an HTML page, tables for a terminal.

Everything is written from the document `senet-bench.check/1`. The order is always the verdict, what failed or could
not be decided, what passed, how sure this is, where it comes from, and what to type next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
from msgspec import UNSET

from senet_bench.regression.limits import ANY
from senet_bench.regression.outcome import EXITS, Control, LimitRow, Report
from senet_bench.show import writers
from senet_bench.show.figures import significant
from senet_bench.show.tables import Cell, Column, Document, Table

COMMENT_CHARACTERS = 65_000
"""A pull request's comment holds 65,536 characters."""
SUMMARY_BYTES = 1_000_000
"""A job summary of more than 1 MiB is thrown away as a whole."""
LONGEST_REASON = 400
CHECK_HEADINGS = ("network", "metric", "base", "now", "change", "interval", "gate", "verdict", "why")
INTERVALS = ("ci", "control_ci")
GRAVITY = [*EXITS, "new", "allowed", "accepted", "info", "pass"]
MARKER = "<!-- senet-bench check -->"
"""The first line of a comment, by which it is found again."""
ESCAPED = {"\\": "\\\\", "&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "`": "'", "#": "&#35;"}
ESCAPED |= {mark: f"\\{mark}" for mark in "|*_[]!~$"}
LINKS = ("://", ":\u200b//"), ("www.", "www\u200b.")
"""Addresses that GitHub would make links of."""
TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
SIZES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))


def verdict_line(report: Report) -> str:
    """PASS, FAIL, INCONCLUSIVE, NOT COMPARABLE or ERROR, how many gates, against what."""
    judged = [row for row in report.rows if row.verdict not in ("info", "new") and row.gate.max != ANY]
    counts = [(name, sum(row.verdict == name for row in judged)) for name in EXITS]
    counted = ", ".join(f"{n} {'failed' if name == 'fail' else name}" for name, n in counts if n)
    beside = [(name, sum(row.verdict == name for row in judged)) for name in ("allowed", "accepted")]
    beside.append(("skipped", sum(row.gate.max == ANY or row.verdict == "info" for row in report.rows)))
    others = "".join(f", {n} {name}" for name, n in beside if n)
    known = (report.baseline.commit, report.baseline.created[:10])
    base = " ".join(["base", *filter(None, known)]) if any(known) else "no base"
    plural = "gate" if len(judged) == 1 else "gates"
    passed = sum(row.verdict == "pass" for row in judged)
    number = f"{counted} of {len(judged)} {plural}" if counted else f"{passed} of {len(judged)} {plural} passed"
    if passed == len(judged):
        number = f"all {passed} {plural} passed"
    if wider := sum(row.wider for row in judged):
        number += f", {wider} to a wider bound"
    judge = ", judged by this checkout's configuration" if report.judge == "head" else ""
    return f"{report.verdict}, {number}{others}{judge} ({base}, machine {report.machine.key})"


def ordered(rows: Sequence[LimitRow]) -> list[LimitRow]:
    """The rows: what this change would let pass, then the gravest, within a verdict the largest change first."""
    return sorted(rows, key=lambda row: (row.kind != "config", GRAVITY.index(row.verdict), -(row.ratio or 1.0)))


def row_cells(row: LimitRow) -> tuple[str, ...]:
    """A row as text, under `CHECK_HEADINGS`."""
    interval = "" if row.ci is None else f"{_percent(row.ci[0])} .. {_percent(row.ci[1])}"
    verdict = f"{row.verdict}, baseline is stale" if row.stale else row.verdict
    why = row.reason if len(row.reason) <= LONGEST_REASON else f"{row.reason[:LONGEST_REASON]}..."
    change = _percent(row.ratio) if row.ratio is not None else ""
    return (
        row.network,
        row.metric,
        value(row.base, row.unit),
        value(row.now, row.unit),
        change,
        interval,
        _gate(row),
        verdict,
        why,
    )


def value(number: float | str | None, unit: str) -> str:
    """A value with its unit, as people write it."""
    if number is None or isinstance(number, str):
        return _clipped(number or "")
    if unit == "top-1 error":
        return f"{100 * number:.2f} %"
    scales = {"s": TIMES, "bytes": SIZES}.get(unit)
    if scales is None:
        return f"{number:,.0f}" if float(number).is_integer() else significant(number)
    scale, name = next(((s, n) for s, n in scales if abs(number) >= s), (scales[-1] if unit == "s" else (1.0, "B")))
    return f"{significant(number, 3, 1 / scale)} {name}" if name != "B" else f"{number:,.0f} B"


def _clipped(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _percent(ratio: float) -> str:
    change = 100 * (ratio - 1)
    return "0 %" if change == 0 else f"{change:+.2f} %" if abs(change) < 10 else f"{change:+.1f} %"


def _gate(row: LimitRow) -> str:
    gate = row.gate
    if gate.max is not UNSET:
        return gate.max
    parts = [] if gate.max_ratio is UNSET else [_percent(gate.max_ratio)]
    if gate.max_increase is not UNSET:
        points = row.metric == "accuracy"
        parts.append(f"+{100 * gate.max_increase:g} pt" if points else f"+{value(gate.max_increase, row.unit)}")
    parts += [] if gate.min_abs is UNSET else [value(gate.min_abs, row.unit)]
    return " and ".join(parts)


# --- Markdown -----------------------------------------------------------------------------------------------------


def report_markdown(report: Report, *, characters: int = COMMENT_CHARACTERS) -> str:
    """GitHub's Markdown of at most so many characters: what does not fit is counted, the gravest rows come first."""
    rows = ordered(report.rows)
    head = f"{MARKER}\n### senet-bench: {plain_markdown(verdict_line(report))}\n"
    tail = _sure(report) + _provenance(report)
    room = characters - len(head) - len(tail) - 500
    opened = _table([row for row in rows if row.open], room)
    stale = [row.id for row in rows if row.stale]
    better = f"\nBetter than the baseline, which is stale: {plain_markdown(', '.join(stale))[:2000]}\n" if stale else ""
    rest = [row for row in rows if not row.open]
    room -= len(opened) + len(better) + 100
    folded = f"\n<details><summary>{_kinds(rest)}</summary>\n\n{_table(rest, room)}\n</details>\n" if rest else ""
    return f"{head}{opened}{better}{folded}{tail}"


def job_summary(report: Report) -> str:
    """Markdown for a job summary, within its limit of bytes."""
    text = report_markdown(report, characters=SUMMARY_BYTES)
    return text if len(text.encode()) <= SUMMARY_BYTES else report_markdown(report, characters=SUMMARY_BYTES // 4)


def _kinds(rows: Sequence[LimitRow]) -> str:
    counts = {name: sum(row.verdict == name for row in rows) for name in ("pass", "allowed", "accepted", "new", "info")}
    words = {"pass": "passed", "info": "for information"}
    return ", ".join(f"{n} {words.get(name, name)}" for name, n in counts.items() if n)


def _table(rows: Sequence[LimitRow], room: int) -> str:
    if not rows:
        return ""
    lines = [f"| {' | '.join(CHECK_HEADINGS)} |", "|---|---|--:|--:|--:|---|--:|---|---|"]
    used = sum(map(len, lines))
    for shown, row in enumerate(rows):
        texts = [plain_markdown(cell) for cell in row_cells(row)]
        texts[7] = f"**{texts[7].upper()}**" if row.verdict in ("fail", "error") else texts[7]
        line = f"| {' | '.join(texts)} |"
        used += len(line) + 1
        if used > room:
            return "\n".join([*lines, "", f"and {len(rows) - shown} more rows, which are in the JSON"]) + "\n"
        lines.append(line)
    return "\n".join(lines) + "\n"


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no tables, tags, links or mentions come of it."""
    plain = " ".join(text.split())
    for mark, instead in (*ESCAPED.items(), *LINKS):
        plain = plain.replace(mark, instead)
    return plain


def sureness(report: Report) -> list[str]:
    """How sure this is: control, smallest visible change, the machine's state."""
    sentences = _control(report.control)
    visible = [row.mde80 for row in report.rows if row.mde80 is not None]
    if visible:
        sentences.append(
            f"these runs see what lies {100 * min(visible):.2g} to {100 * max(visible):.2g} % from its gate"
        )
    state, family = report.health, report.family
    parts = [f"took {state.elapsed_s:.1f} s"]
    parts += [f"load {state.load_1min:.1f}"] if state.load_1min is not None else []
    parts += [f"steal {100 * state.steal:.1f} %", f"{state.involuntary_switches:,} involuntary switches"]
    sentences.append(", ".join(parts))
    if family.comparisons:
        sentences.append(f"{family.comparisons} timed comparisons at alpha {family.alpha:g} ({family.method})")
    return sentences


def _control(control: Control) -> list[str]:
    """What the control says, nothing where there was none."""
    if control.ratio is UNSET:
        return []
    between = f" ({_percent(control.ci[0])} .. {_percent(control.ci[1])})" if control.ci else ""
    return [f"A/A control {_percent(control.ratio)}{between}{'' if control.ok else ', which is too much'}"]


def _sure(report: Report) -> str:
    words = sureness(report)
    return (
        f"\n<details><summary>How sure is this</summary>\n\n{plain_markdown('; '.join(words))}\n</details>\n"
        if words
        else ""
    )


def _provenance(report: Report) -> str:
    lines = [f"\nBase {plain_markdown(base_text(report))}; {plain_markdown(software(report))}.\n"]
    lines += [f"Reproduce: `{_code(report.reproduce)}`\n"] if report.reproduce else []
    lines += [f"Accept: `{_code(report.accept)}`\n"] if report.accept else []
    return "\n".join(lines)


def _code(text: str) -> str:
    """A command between backticks; a very long list of rows is not a command to copy."""
    return " ".join(text.replace("`", "'").split())[:2000]


def base_text(report: Report) -> str:
    """Where the base comes from."""
    base = report.baseline
    named = base.ref or base.path or "none"
    return f"{named} at {base.commit or 'an unknown commit'}, head {base.head or 'not in git'}"


def software(report: Report) -> str:
    """The versions that measured."""
    packages = report.environment.packages
    return f"senet-bench {report.version}, torch {packages.get('torch', '?')}"


# --- terminal, page and the other formats ----------------------------------------------------------------------


def report_document(report: Report) -> Document:
    """The report for a terminal and for the formats that tables are written in."""
    rows = ordered(report.rows)
    columns = tuple(Column(name, numeric=name in ("base", "now", "change", "gate")) for name in CHECK_HEADINGS)
    notes = [*sureness(report), f"base {base_text(report)}", f"reproduce: {report.reproduce}"]
    notes += [f"accept: {report.accept}"] if report.accept else []
    wide = Table(verdict_line(report), columns, tuple(_coloured(row) for row in rows), tuple(notes))
    short = (0, 1, 4, 7, 8)
    brief = [row for row in rows if row.open] or rows
    narrow = Table(
        verdict_line(report),
        tuple(columns[i] for i in short),
        tuple(tuple(_coloured(row)[i] for i in short) for row in brief),
        tuple(notes),
    )
    return Document(report, (wide,), (narrow,), tuple(map(_record, rows)))


def report_page(report: Report) -> str:
    """A page to look at: what failed or could not be decided, the rest on a click, how sure it is, what to type."""
    whole = report_document(report).wide[0]
    lines = list(zip(ordered(report.rows), whole.rows))
    opened = tuple(line for row, line in lines if row.open)
    rest = [row for row, _ in lines if not row.open]
    tables = [Table("", whole.columns, opened)] if opened else []
    folded = tuple(line for row, line in lines if not row.open)
    tables += [Table(_kinds(rest), whole.columns, folded, folded=True)] if rest else []
    tables.append(Table("How sure is this", (), (), whole.notes))
    return writers.html_page(tables, f"senet-bench: {verdict_line(report)}")


def _coloured(row: LimitRow) -> tuple[str | Cell, ...]:
    """A row under `CHECK_HEADINGS`, its verdict with the colour it has."""
    return tuple(
        Cell(text, row.verdict) if name == "verdict" else text for name, text in zip(CHECK_HEADINGS, row_cells(row))
    )


def _record(row: LimitRow) -> dict[str, Any]:
    """A row as one flat line; an interval is its two bounds."""
    flat: dict[str, Any] = {}
    for key, one in asdict(row).items():
        if key in INTERVALS:
            flat |= dict(zip((f"{key}_low", f"{key}_high"), one or (None, None)))
        elif not isinstance(one, dict | list):
            flat[key] = one
    return flat | {f"gate_{key}": one for key, one in msgspec.to_builtins(row.gate).items()}
