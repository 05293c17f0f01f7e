"""What a probe shows: a table of verdicts, blocks by tasks, one of the controls, and what it says of each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from senet_bench.core.files import file_name
from senet_bench.probing.rows import ProbeFacts, ProbeRow
from senet_bench.probing.tasks import TASKS
from senet_bench.show.tables import EMPTY, Cell, Column, Document, Table, number, points_text

DIAGNOSIS = (
    "a diagnosis, not an accuracy: small generated tasks that each need one ability; they do not say what a block "
    "gains on photographs"
)
STATUS = {"solves": "match", "helps": "near", "harms": "differs"}
"""How a verdict is coloured."""
VERDICT_SIGNS = {"solves": "++", "helps": "+", "as the control": "=", "harms": "-", "cannot tell": "?"}
"""A verdict in the narrow table."""
KEY = (
    "solves: better than every control, and the interval of its error is below the task's mark; helps: better than "
    "every control; as the control: within {margin:g} points of one; harms: worse than every control"
)


def columns_of(facts: ProbeFacts) -> list[tuple[str, float]]:
    """The tasks with their difficulties, in the order they were asked for."""
    return list(dict.fromkeys((row.task, row.difficulty) for row in facts.rows))


def heading(facts: ProbeFacts, task: str, difficulty: float) -> str:
    """A task's name, with its difficulty where it is not the usual one."""
    curve = facts.conditions.curve or facts.conditions.difficulty is not None
    return f"{task} {difficulty:g}" if curve else task


def lines_of(facts: ProbeFacts, block: bool) -> dict[str, dict[tuple[str, float], ProbeRow]]:
    """The rows of the blocks, or of the controls, by label and task."""
    lines: dict[str, dict[tuple[str, float], ProbeRow]] = {}
    for row in facts.rows:
        if (row.role == "block") == block:
            lines.setdefault(row.label, {})[row.task, row.difficulty] = row
    return lines


def probe_document(facts: ProbeFacts) -> Document:
    """Errors with verdicts, the controls, what it says of each block, and the blocks against each other."""
    wide = (_errors(facts), _verdicts(facts), _pairs(facts))
    narrow = (_signs(facts), _verdicts(facts))
    return Document(facts, wide, narrow, tuple(map(_record, facts.rows)))


def _errors(facts: ProbeFacts) -> Table:
    """A line a network, controls first; a column a task: the error in %, and the verdict."""
    keys = columns_of(facts)
    columns = (Column("network", numeric=False), Column("params"), *(Column(heading(facts, *key)) for key in keys))
    rows: list[tuple[str | Cell, ...]] = []
    for label, line in {**lines_of(facts, block=False), **lines_of(facts, block=True)}.items():
        params = next((row.params for row in line.values()), None)
        rows.append((label, number(params, "d"), *(_cell(line.get(key), facts.conditions.seeds) for key in keys)))
    return Table(_title(facts), columns, tuple(rows), tuple(_notes(facts)))


def _cell(row: ProbeRow | None, seeds: int) -> Cell:
    if row is None or (row.error is None and not row.reason):
        return Cell(EMPTY)
    if row.error is None:
        return Cell("failed", "differs")
    text = number(row.error, ".1f", 100)
    text = f"{text} {row.verdict}" if row.verdict else text
    return Cell(text + _some_of(row, seeds), STATUS.get(row.verdict or "", ""))


def _some_of(row: ProbeRow, seeds: int) -> str:
    """How many of the seeds an error is of, where it is not of all."""
    return f" ({len(row.per_seed)} of {seeds} seeds)" if 0 < len(row.per_seed) < seeds else ""


def _signs(facts: ProbeFacts) -> Table:
    """The same for a narrow terminal: a line a task, a sign for each block."""
    blocks = lines_of(facts, block=True)
    columns = (Column("task", numeric=False), Column("none %"), *(Column(label.rpartition(":")[2]) for label in blocks))
    plain, seeds = next(iter(lines_of(facts, block=False).values()), {}), facts.conditions.seeds
    rows: list[tuple[str | Cell, ...]] = []
    for key in columns_of(facts):
        cells = [_sign(line.get(key), seeds) for line in blocks.values()]
        none = plain.get(key)
        rows.append((heading(facts, *key), number(none.error if none else None, ".1f", 100), *cells))
    signs = ", ".join(f"{sign} {verdict}" for verdict, sign in VERDICT_SIGNS.items())
    return Table(_title(facts), columns, tuple(rows), (signs, *_notes(facts)))


def _sign(row: ProbeRow | None, seeds: int) -> Cell:
    if row is None or row.verdict is None:
        return _cell(row, seeds)
    text = f"{number(row.error, '.1f', 100)} {VERDICT_SIGNS[row.verdict]}{_some_of(row, seeds)}"
    return Cell(text, STATUS.get(row.verdict, ""))


def _title(facts: ProbeFacts) -> str:
    return f"Error in % on generated tasks, mean of {facts.conditions.seeds} seeds"


def _notes(facts: ProbeFacts) -> Iterator[str]:
    conditions, summary = facts.conditions, facts.summary
    yield from _failures(facts)
    yield DIAGNOSIS
    yield KEY.format(margin=100 * conditions.margin)
    yield f"p: of paired seeds (t), the largest over the controls, by Holm over all cells, at {conditions.level:g}"
    yield f"{summary.trials} trials, {summary.ran} run now ({summary.cpu_seconds:.0f} CPU s), {summary.failed} failed"


def _failures(facts: ProbeFacts) -> Iterator[str]:
    """Why networks failed, a line a network and reason, with the tasks where it did at some seeds or at all."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for row in facts.rows:
        if row.reason:
            tasks.setdefault((row.label, row.reason), []).append(heading(facts, row.task, row.difficulty))
    for (label, reason), failed in tasks.items():
        yield f"{label} failed on {', '.join(failed)}: {reason}"


def _verdicts(facts: ProbeFacts) -> Table:
    """What the probe says of each block, a line each."""
    lines, seeds = lines_of(facts, block=True), facts.conditions.seeds
    rows = tuple((label, verdict_sentence(list(line.values()), seeds)) for label, line in lines.items())
    return Table("What this says", (Column("block", numeric=False), Column("it", numeric=False)), rows)


VERDICT_WORDS: tuple[tuple[str, str], ...] = (
    ("solves", "solves"),
    ("helps", "helps on"),
    ("as the control", "is as a control on"),
    ("harms", "harms on"),
    ("cannot tell", "cannot be told from a control on"),
)


def verdict_sentence(rows: Sequence[ProbeRow], seeds: int) -> str:
    """What the rows of one block say together, and where they lack some of the seeds."""
    parts = []
    for verdict, words in VERDICT_WORDS:
        tasks = dict.fromkeys(f"{row.task}{_some_of(row, seeds)}" for row in rows if row.verdict == verdict)
        parts += [f"{words} {', '.join(tasks)}"] if tasks else []
    failed = dict.fromkeys(row.task for row in rows if row.error is None and row.reason)
    parts += [f"failed on {', '.join(failed)}"] if failed else []
    return "; ".join(parts) or "nothing was measured"


def _pairs(facts: ProbeFacts) -> Table:
    """The blocks that are told apart, a line a pair and task."""
    apart = [pair for pair in facts.details if pair.verdict != "cannot tell"]
    names = ("task", "errs less", "than", "by points", "p (Holm)")
    rows = []
    for pair in apart:
        less = pair.gap.difference < 0
        first, second = (pair.first, pair.second) if less else (pair.second, pair.first)
        sign = 1 if less else -1
        ends = pair.gap.ci and sorted(sign * end for end in pair.gap.ci)
        text = points_text(sign * pair.gap.difference, ends, "+.1f")
        rows.append((heading(facts, pair.task, pair.difficulty), first, second, text, number(pair.p_holm, ".1g")))
    note = f"{len(facts.details) - len(apart)} of {len(facts.details)} pairs cannot be told apart"
    columns = tuple(Column(name, numeric=name in ("by points", "p (Holm)")) for name in names)
    return Table("Blocks against each other", columns, tuple(rows), (note,), folded=True)


PROBE_COLUMNS: tuple[tuple[str, Callable[[ProbeRow], object]], ...] = (
    ("task", lambda row: row.task),
    ("knob", lambda row: TASKS[row.task].knob if row.task in TASKS else None),
    ("difficulty", lambda row: row.difficulty),
    ("network", lambda row: row.label),
    ("role", lambda row: row.role),
    ("width", lambda row: row.width),
    ("params", lambda row: row.params),
    ("error", lambda row: row.error),
    ("error_low", lambda row: row.ci and row.ci[0]),
    ("error_high", lambda row: row.ci and row.ci[1]),
    ("seeds", lambda row: len(row.per_seed)),
    ("verdict", lambda row: row.verdict),
    ("p", lambda row: row.p),
    ("p_holm", lambda row: row.p_holm),
    ("reason", lambda row: row.reason or None),
)


def _record(row: ProbeRow) -> dict[str, object]:
    """A row's numbers, flat."""
    record = {name: value(row) for name, value in PROBE_COLUMNS}
    for role, gap in row.gaps.items():
        low, high = gap.ci or (None, None)
        record |= {f"against_{role}": gap.difference, f"against_{role}_low": low, f"against_{role}_high": high}
        record |= {f"against_{role}_p": gap.p}
    return record


def probe_stem(facts: ProbeFacts) -> str:
    """What the names of a probe's files begin with."""
    conditions = facts.conditions
    return file_name("probe", *(["curve"] if conditions.curve else []))
