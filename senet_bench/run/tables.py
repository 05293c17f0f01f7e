"""What `selftest`, `train`, `evaluate` and `--dry-run` have to say, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from senet_bench.core.learning import (
    ClassifierRow,
    DetectorRow,
    Evaluation,
    EvaluationConditions,
    EvaluationRow,
    Training,
)
from senet_bench.core.results import AnyFacts, Latency
from senet_bench.show.figures import significant
from senet_bench.show.tables import EMPTY, Column, Document, Table, interval_text, number, unreadable

if TYPE_CHECKING:
    from senet_bench.run.selftest import SelftestFacts

PRECISIONS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "small",
    "ap_medium": "medium",
    "ap_large": "large",
}
PRECISION_NOTE = (
    "AP: COCO's average precision in points, over IoU 0.50 to 0.95 (AP50, AP75: at one), by pycocotools; small is "
    "below 32^2 px, large above 96^2 px; empty where there is no such object"
)

WITHOUT_TOP5 = "no top-5 error: the data set has fewer than five classes"


def selftest_document(facts: SelftestFacts) -> Document:
    """The rules side by side, and what the paired rule could see."""
    rules = Table(
        "Decision rules on this machine: identical sides, and +5 % of real work",
        (
            Column("rule", numeric=False),
            Column("false alarms", "identical"),
            Column("median s", "identical"),
            Column("found", "+5 %"),
            Column("median s", "+5 %"),
        ),
        tuple(
            (
                row.rule,
                f"{row.false_alarms} of {row.same}",
                number(row.seconds_same),
                f"{row.found} of {row.slower}",
                number(row.seconds_slower),
            )
            for row in facts.rows
        ),
    )
    lines = tuple((name.replace("_", " "), _shown(value)) for name, value in msgspec.to_builtins(facts.summary).items())
    summary = Table("What the paired rule sees", (Column("what", numeric=False), Column("figure")), lines)
    tables = (rules, summary)
    return Document(facts, tables, tables, tuple(map(asdict, facts.rows)))


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return " of ".join(map(str, value))
    return significant(value) if isinstance(value, float) else str(value)


def training_document(facts: Training) -> Document:
    """The epochs of a training run; on a narrow terminal or a long run the last ten."""
    detects = any(row.ap50 is not None for row in facts.rows)
    tested = ("AP", "AP50") if detects else ("top-1 err %", "top-5 err %")
    columns = ("epoch", "loss", "lr", *(() if detects else ("test loss",)), *tested, "images/s")
    lines = tuple(
        (
            str(row.epoch),
            f"{row.train_loss:.4f}",
            f"{row.lr:.4g}",
            *(() if detects else (number(row.test_loss, ".4f"),)),
            *(number(value, ".2f", 100) for value in ((row.ap, row.ap50) if detects else (row.top1_err, row.top5_err))),
            f"{row.images_per_second:.0f}",
        )
        for row in facts.rows
    )
    training = facts.conditions
    trained = f"{training.recipe}, batch {training.batch_size}, lr {training.lr:g}"
    title = f"{training.model} on {training.dataset}: {trained}"
    departs = (f"recipe {training.recipe}: {'; '.join(training.deviations)}",) if training.deviations else ()
    lacking = any(row.top1_err is not None and row.top5_err is None for row in facts.rows)
    kept = facts.summary.weights
    ended = f"weights in {kept}" if kept else "it did not end: there are no weights of it"
    notes = (*training.notes, *departs, *([WITHOUT_TOP5] if lacking else []), ended)
    table = Table(title, tuple(Column(name) for name in columns), lines, notes)
    records = tuple(map(asdict, facts.rows))
    return Document(facts, (table,), (replace(table, rows=lines[-10:]),), records)


def evaluation(facts: Evaluation) -> Document:
    """The errors of networks on one data set, or the AP of detectors, and their differences to the first."""
    detectors = [row for row in facts.rows if isinstance(row, DetectorRow)]
    classifiers = [row for row in facts.rows if isinstance(row, ClassifierRow)]
    table = _precisions(facts.conditions, detectors) if detectors else _errors(facts.conditions, classifiers)
    return Document(facts, (table,), (table,), tuple(map(msgspec.to_builtins, facts.rows)))


def _errors(conditions: EvaluationConditions, rows: Sequence[ClassifierRow]) -> Table:
    """One line a network; of several, the difference to the first."""
    columns = ["network", "images", "top-1 err %", "95 % interval", "top-5 err %"]
    several = len(rows) > 1
    columns += ["difference", "McNemar p"] if several else []
    timed = [row.latency for row in rows if row.latency]
    columns += ["ms a batch", *(["ratio"] if several else [])] if timed else []
    beside = [(cell.table, cell.column) for row in rows for cell in row.paper if cell.metric == "top1_err"]
    places = list(dict.fromkeys(beside))
    columns += [heading for table, column in places for heading in (f"Table {table}, {column}", "status")]
    lines = tuple(
        (
            row.label,
            str(row.images),
            number(row.top1_err, ".2f", 100),
            interval_text(row.ci, ".2f", 100),
            number(row.top5_err, ".2f", 100),
            *((_difference(row), number(row.mcnemar_p, ".2g")) if several else ()),
            *(_latency(row.latency, several=several) if timed else ()),
            *(text for place in places for text in _printed_error(row, *place)),
        )
        for row in rows
    )
    sizes = ", ".join(dict.fromkeys(f"{row.size} px" for row in rows))
    lacking = [WITHOUT_TOP5] if any(row.top5_err is None for row in rows) else []
    return Table(
        f"Single centre crop on {conditions.dataset} ({sizes})",
        tuple(Column(name, numeric=name != "network") for name in columns),
        lines,
        (*conditions.notes, *_remarks(rows), *lacking, *_timing_notes(timed)),
    )


def _latency(latency: Latency | None, *, several: bool) -> tuple[str, ...]:
    """Milliseconds of a batch and, of several networks, the ratio to the first."""
    if latency is None:
        return (EMPTY, EMPTY) if several else (EMPTY,)
    ratio = "1" if latency.ratio is None else f"{latency.ratio:.3f} ({interval_text(latency.ci, '.3f')})"
    return (number(latency.seconds, ".3f", 1000), *((ratio,) if several else ()))


def _timing_notes(timed: Sequence[Latency]) -> tuple[str, ...]:
    """What the times are of."""
    conditions = timed[0].conditions if timed else None
    if conditions is None:
        return ()
    note = (
        f"times: {conditions.batch_size} seeded images a batch, torch threads {conditions.threads}, in the same rounds"
    )
    reasons = dict.fromkeys(latency.reason for latency in timed if latency.reason)
    return (note, *reasons)


def _precisions(conditions: EvaluationConditions, rows: Sequence[DetectorRow]) -> Table:
    """One line a detector; of several, the difference in AP to the first."""
    several = len(rows) > 1
    printed = [metric for metric in ("ap", "ap50") if any(_printed(row, metric) for row in rows)]
    columns = ["network", "images", *PRECISIONS.values(), *(["difference"] if several else [])]
    columns += [f"paper's {PRECISIONS[metric]}" for metric in printed]
    lines = tuple(
        (
            row.label,
            str(row.images),
            *(number(getattr(row, name), ".1f", 100) for name in PRECISIONS),
            *((number(row.difference, "+.1f", 100),) if several else ()),
            *(_printed(row, metric) for metric in printed),
        )
        for row in rows
    )
    sizes = dict.fromkeys(f"shorter side {row.size} px, longer at most {row.longest}" for row in rows)
    return Table(
        f"Detection on {conditions.dataset} ({'; '.join(sizes)})",
        tuple(Column(name, numeric=name != "network") for name in columns),
        lines,
        (*conditions.notes, *_remarks(rows), PRECISION_NOTE),
    )


def _difference(row: ClassifierRow) -> str:
    if row.difference is None:
        return EMPTY
    around = f" [{interval_text(row.difference_ci, '.2f', 100)}]" if row.difference_ci else EMPTY
    return number(row.difference, "+.2f", 100) + around


def _remarks(rows: Sequence[EvaluationRow]) -> tuple[str, ...]:
    """What is to be known of evaluated networks: of their weights, of images left out, of what makes them unlike."""
    notes = [f"{row.label}: {note}" for row in rows for note in row.notes]
    notes += [f"{row.label}: {note}" for row in rows for note in unreadable(row.skipped)]
    notes += [f"not like for like: {what}" for row in rows for what in row.differs_in or ()]
    return tuple(notes)


def _printed_error(row: ClassifierRow, table: str, column: str) -> tuple[str, str]:
    """A printed top-1 error beside an evaluated network, and its status."""
    for cell in row.paper:
        if (cell.table, cell.column, cell.metric) == (table, column, "top1_err"):
            return cell.printed, ", ".join(cell.differs_in) if cell.status == "not measured" else cell.status
    return EMPTY, EMPTY


def _printed(row: DetectorRow, metric: str) -> str:
    """The paper's cell with its status, empty where it has none for this detector and these images."""
    cell = next((cell for cell in row.paper if cell.metric == metric), None)
    return f"{cell.printed} ({cell.status})" if cell else EMPTY


LONG_S = 60.0
"""From how many seconds on a forecast says when it would end."""


def forecast_document(facts: AnyFacts) -> Document:
    """What would run, a line a setting, how long in total, and when it would end if it began now."""
    names = ("setting", "stored", "to run", "seconds each", "known from")
    lines = tuple(
        (
            str(row["setting"]),
            str(row.get("stored", EMPTY)),
            str(row.get("to_run", EMPTY)),
            number(row.get("seconds")),
            str(row.get("from") or EMPTY),
        )
        for row in facts.rows
    )
    total = facts.summary
    share = f"{total['to_run']} of {total['trials']} trials to run, {total['at_once']} at once"
    end = datetime.now(UTC).astimezone() + timedelta(seconds=total["seconds"])
    hours = total["device_seconds"] / 3600
    note = f"{share}: about {total['seconds']:.0f} s"
    if total["seconds"] >= LONG_S:
        note += f", {hours:.1f} device-hours, until {end:%Y-%m-%d %H:%M}"
    columns = tuple(Column(name, numeric=name not in ("setting", "known from")) for name in names)
    table = Table("What would run", columns, lines, (note, "nothing was stored"))
    return Document(facts, (table,), (table,), tuple(facts.rows))
