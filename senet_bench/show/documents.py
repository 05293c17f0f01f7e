"""What a command hands to the writers: its JSON, its tables in two widths, and its flat records."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from senet_bench import __version__
from senet_bench.core.catalog import CATALOG, normalise, resolve
from senet_bench.core.paper import TABLES, CellStatus, compare_cell
from senet_bench.core.results import AnyFacts, Check, Row, Run, schema_of
from senet_bench.core.studies import AXES, STUDIES, Study, paper_cells, setting_label
from senet_bench.detection.tables import precision_table, remarks
from senet_bench.errors import UsageError
from senet_bench.show.errors import error_table
from senet_bench.show.latencies import latency_table
from senet_bench.show.tables import EMPTY, HEADINGS, Column, Table, network_table, paper_table, record


@dataclass(frozen=True, slots=True)
class Document:
    """`narrow` is for a terminal on which a table of `wide` does not fit."""

    json: object
    wide: tuple[Table, ...]
    narrow: tuple[Table, ...]
    records: tuple[Mapping[str, Any], ...]


def of_run(run: Run, studies: Sequence[Study] = ()) -> Document:
    """A run: a table for each of `studies` that its rows stand in, and one for the other rows."""
    if run.schema == schema_of("ablate"):
        return _of_ablation(run)
    wide, narrow = [], []
    for study in studies:
        rows = _as_printed([row for row in run.rows if stands_in(row, study)], study)
        if not rows:
            continue
        lines = partial(network_table, _title(study), rows, study.table, name=partial(_row_name, study))
        narrow.append(lines(narrow=True))
        wide.append(paper_table(_title(study), study.table, rows) if study.id in ("table2", "table3") else lines())
        for tables in (wide, narrow):
            tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, *_beside(study)))
    rest = [row for row in run.rows if not any(stands_in(row, study) for study in studies)]
    if rest:
        title = "Other networks" if studies else "Networks"
        wide.append(network_table(title, rest))
        narrow.append(network_table(title, rest, narrow=True))
    _add_measured(wide, narrow, run, lambda row: row.label)
    return Document(run, tuple(wide), tuple(narrow), tuple(map(record, run.rows)))


def _beside(study: Study) -> Iterator[str]:
    """What else the paper says of a comparison with networks or images of its own: other rows, the protocol."""
    if study.kind == "ablation" or study.id in ("table2", "table3"):
        return
    ours = {subject.row for subject in study.subjects}
    others: dict[str, list[str]] = {}
    for cell in TABLES[study.table].cells:
        if cell.row not in ours and cell.value is not None and cell.metric in HEADINGS:
            others.setdefault(cell.row, []).append(f"{HEADINGS[cell.metric]} {cell.printed}")
    for row, figures in others.items():
        yield f"also printed: {row}: {', '.join(figures)}"
    yield f"protocol: {TABLES[study.table].protocol}"


def _as_printed(rows: Sequence[Row], study: Study) -> list[Row]:
    """Rows in the order the paper prints them."""
    order = [(subject.row, subject.column) for subject in study.subjects]

    def position(row: Row) -> int:
        places = [(cell.row, cell.column) for cell in row.paper if cell.table == study.table]
        return min(order.index(place) for place in places if place in order)

    return sorted(rows, key=position)


def _of_ablation(run: Run) -> Document:
    """All rows of an ablation in one table, beside the printed one where a single axis has it."""
    axes = list(run.conditions.get("axes", {}))
    table = AXES[axes[0]].table if len(axes) == 1 and axes[0] in AXES else None
    study = STUDIES[table] if table and any(stands_in(row, STUDIES[table]) for row in run.rows) else None
    title = _title(study) if study else f"{run.rows[0].label} by {' x '.join(axes)}"
    lines = partial(network_table, title, run.rows, study.table if study else None, name=setting_of)
    left_out = tuple(f"left out: {name}: {why}" for name, why in run.conditions.get("left_out", {}).items())
    wide, narrow = ([replace(one, notes=(*left_out, *one.notes))] for one in (lines(), lines(narrow=True)))
    _add_measured(wide, narrow, run, setting_of)
    return Document(run, tuple(wide), tuple(narrow), tuple(map(record, run.rows)))


def _add_measured(wide: list[Table], narrow: list[Table], run: Run, name: Callable[[Row], str]) -> None:
    """Append latencies and errors, where there are any, to the tables in both widths."""
    for make in (latency_table, error_table):
        table, small = (make(run.rows, narrow=is_narrow, name=name) for is_narrow in (False, True))
        if table and small:
            wide.append(table)
            narrow.append(small)


def _title(study: Study) -> str:
    return f"Table {study.table}. {TABLES[study.table].title}"


def setting_of(row: Row) -> str:
    """A row of an ablation by its setting; the baseline by its name."""
    if row.role == "control":
        return "gates fixed at 0.5"
    return setting_label(row.axes) if row.axes else row.label


def _row_name(study: Study, row: Row) -> str:
    """An ablation's row as it is printed, a network of a comparison by its name."""
    cell = next(cell for cell in row.paper if cell.table == study.table)
    return cell.row if study.kind == "ablation" else row.label


def judge(row: Row, studies: Iterable[str | None]) -> list[CellStatus]:
    """The paper's cells of a row in some studies (None: the network's own rows), each beside what was counted.

    Empty for a network whose image size, channels, classes or cardinality are not those of the table.
    """
    if row.outside:  # a network from outside is in no table of the paper
        return []
    spec = replace(resolve(row.model), attention=row.attention)
    if (row.input_size, row.cardinality) != (spec.input_size, None):
        return []
    measured = {**row.flops, **({} if row.params is None else {"trainable": row.params})}
    cells = dict.fromkeys(cell for study in studies for cell in paper_cells(spec, study))
    classes = {study.table: study.classes for study in STUDIES.values()}
    return [compare_cell(cell, measured) for cell in cells if row.classes == (classes.get(cell.table) or spec.classes)]


def stands_in(row: Row, study: Study) -> bool:
    """Whether a row has cells in the study's printed table."""
    return any(cell.table == study.table for cell in row.paper)


def of_catalog(families: Sequence[str]) -> Document:
    """The networks of the catalog, or of some families; `UsageError` for an unknown family."""
    known = {normalise(spec.family): spec.family for spec in CATALOG.values()}
    unknown = [family for family in families if normalise(family) not in known]
    if unknown:
        raise UsageError(f"unknown family {unknown[0]!r}", f"choose from {', '.join(known.values())}")
    chosen = {normalise(family) for family in families} or set(known)
    rows: list[dict[str, Any]] = [
        {
            "model": spec.name,
            "label": spec.label,
            "family": spec.family,
            "task": spec.task,
            "baseline": spec.baseline,
            "params": spec.params,
            "input_size": list(spec.input_size),
            "classes": spec.classes,
            "stages": list(spec.stages),
            "tables": [study.table for study in STUDIES.values() if spec.name in study.models],
            "layout": spec.layout,
        }
        for spec in CATALOG.values()
        if normalise(spec.family) in chosen
    ]
    columns = ("model", "family", "params, M", "px", "tables", "layout")
    table = Table(
        "Networks",
        tuple(Column(name, numeric=name in ("params, M", "px")) for name in columns),
        tuple(
            (
                r["model"],
                r["family"],
                f"{r['params'] / 1e6:.3f}",
                str(r["input_size"][1]),
                " ".join(r["tables"]),
                r["layout"],
            )
            for r in rows
        ),
    )
    return Document(_document("models", rows, _light_environment()), (table,), (table,), tuple(rows))


def of_checks(checks: Sequence[Check], environment: Mapping[str, Any]) -> Document:
    """What `doctor` found."""
    table = Table(
        "This machine",
        (Column("what", numeric=False), Column("found", numeric=False), Column("what to do", numeric=False)),
        tuple((check.name, check.found, check.remedy) for check in checks),
    )
    rows = tuple(asdict(check) for check in checks)
    return Document(_document("doctor", rows, environment), (table,), (table,), rows)


def of_selftest(facts: AnyFacts) -> Document:
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
                str(row["rule"]),
                f"{row['false_alarms']} of {row['same']}",
                _seconds(row["seconds_same"]),
                f"{row['found']} of {row['slower']}",
                _seconds(row["seconds_slower"]),
            )
            for row in facts.rows
        ),
    )
    lines = tuple((name.replace("_", " "), _shown(value)) for name, value in facts.summary.items())
    summary = Table("What the paired rule sees", (Column("what", numeric=False), Column("figure")), lines)
    tables = (rules, summary)
    return Document(facts, tables, tables, tuple(facts.rows))


def of_training(facts: AnyFacts) -> Document:
    """The epochs of a training run; on a narrow terminal or a long run the last ten."""
    detects = any(row.get("ap50") is not None for row in facts.rows)
    tested = {"ap": "AP", "ap50": "AP50"} if detects else {"top1_err": "top-1 %", "top5_err": "top-5 %"}
    columns = ("epoch", "loss", "lr", *(() if detects else ("test loss",)), *tested.values(), "images/s")
    lines = tuple(
        (
            str(row["epoch"]),
            f"{row['train_loss']:.4f}",
            f"{row['lr']:.4g}",
            *(() if detects else (_figure(row.get("test_loss"), "{:.4f}"),)),
            *(_figure(row.get(name), "{:.2f}", 100) for name in tested),
            f"{row['images_per_second']:.0f}",
        )
        for row in facts.rows
    )
    asked = facts.conditions
    title = (
        f"{asked['model']} on {asked['dataset']}: {asked['recipe']}, batch {asked['batch_size']}, lr {asked['lr']:g}"
    )
    notes = (*asked.get("notes", ()), *_without_top5(facts.rows), f"weights in {facts.summary.get('weights')}")
    table = Table(title, tuple(Column(name) for name in columns), lines, notes)
    return Document(facts, (table,), (replace(table, rows=lines[-10:]),), tuple(facts.rows))


def of_evaluation(facts: AnyFacts) -> Document:
    """The errors of networks on one data set, or the AP of detectors, and their differences to the first."""
    if any("ap" in row for row in facts.rows):
        table = precision_table(facts)
        return Document(facts, (table,), (table,), tuple(facts.rows))
    columns = ["network", "images", "top-1 %", "95 % interval", "top-5 %"]
    several = len(facts.rows) > 1
    columns += ["difference", "McNemar p"] if several else []
    lines = tuple(
        (
            str(row["label"]),
            str(row["images"]),
            _figure(row["top1_err"], "{:.2f}", 100),
            _interval(row["ci"]),
            _figure(row["top5_err"], "{:.2f}", 100),
            *((_difference(row), _figure(row.get("mcnemar_p"), "{:.2g}")) if several else ()),
        )
        for row in facts.rows
    )
    sizes = ", ".join(dict.fromkeys(f"{row['size']} px" for row in facts.rows))
    table = Table(
        f"Single centre crop on {facts.conditions['dataset']} ({sizes})",
        tuple(Column(name, numeric=name != "network") for name in columns),
        lines,
        (*facts.conditions.get("notes", ()), *remarks(facts.rows), *_without_top5(facts.rows)),
    )
    return Document(facts, (table,), (table,), tuple(facts.rows))


def _without_top5(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why there is no top-5 error, where there is a top-1 error."""
    lacking = any(row.get("top1_err") is not None and row["top5_err"] is None for row in rows)
    return ["no top-5 error: the data set has fewer than five classes"] if lacking else []


def _difference(row: Mapping[str, Any]) -> str:
    if row.get("difference") is None:
        return ""
    return f"{100 * row['difference']:+.2f}" + (f" [{_interval(row['difference_ci'])}]" if row["difference_ci"] else "")


def _interval(bounds: Sequence[float]) -> str:
    return f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}"


def _figure(value: float | None, form: str, scale: float = 1) -> str:
    return "" if value is None else form.format(scale * value)


def of_forecast(facts: AnyFacts) -> Document:
    """What an ablation would run, a line a setting, and how long in total."""
    names = ("setting", "stored", "to run", "seconds each", "known from")
    lines = tuple(
        (
            str(row["setting"]),
            str(row.get("stored", EMPTY)),
            str(row.get("to_run", EMPTY)),
            _seconds(row.get("seconds")) or EMPTY,
            str(row.get("from") or EMPTY),
        )
        for row in facts.rows
    )
    total = facts.summary
    share = f"{total['to_run']} of {total['trials']} trials to run, {total['at_once']} at once"
    note = f"{share}: about {total['seconds']:.0f} s"
    columns = tuple(Column(name, numeric=name not in ("setting", "known from")) for name in names)
    table = Table("What would run", columns, lines, (note, "nothing was stored"))
    return Document(facts, (table,), (table,), tuple(facts.rows))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return " of ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _light_environment() -> dict[str, Any]:
    """The part of the environment that is known without torch."""
    return {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}


def of_table(table: Table) -> Document:
    """One table by itself; its records are its lines under their headings."""
    names = [f"{column.group} {column.name}".strip() for column in table.columns]
    records = tuple(dict(zip(names, row)) for row in table.rows)
    return Document({"title": table.title, "rows": records, "notes": table.notes}, (table,), (table,), records)


def _document(command: str, rows: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": schema_of(command),
        "version": __version__,
        "environment": environment,
        "conditions": {},
        "rows": list(rows),
    }
