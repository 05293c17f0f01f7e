"""Rows of a run as tables of text: in the paper's own layout, or one network a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from senet_bench.core import comparisons
from senet_bench.core.metrics import METRICS, Form, Metric, counts
from senet_bench.core.paper import CellStatus
from senet_bench.core.protocols import LARGE_CROPS
from senet_bench.core.reproduction import find
from senet_bench.core.results import UNTIMED, Row, RuntimeStanding
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.yardstick import Yardstick
from senet_bench.show.tables import EMPTY, Cell, Column, Field, Table, table_of

RowPair = tuple[Row, Row]
"""A baseline and its variant."""


def pairs_in(rows: Sequence[Row]) -> list[RowPair]:
    """Every baseline with each of its variants, where both are there."""
    return [
        (base, variant)
        for base in rows
        if base.baseline is None
        for variant in rows
        if (variant.baseline, variant.input_size, variant.classes, variant.cardinality)
        == (base.model, base.input_size, base.classes, base.cardinality)
    ]


def paper_table(title: str, number: str, rows: Sequence[Row]) -> Table:
    """Tables 2 and 3 as the paper lays them out: a line is a pair, its groups original, re-implementation, SENet."""
    flops = "mflops" if any(cell.metric == "mflops" for row in rows for cell in row.paper) else "gflops"
    metrics = [flops] + ["params_m"] * any(c.metric == "params_m" and c.table == number for r in rows for c in r.paper)
    fields: list[Field[RowPair]] = [(Column("network", numeric=False), lambda pair: pair[0].label)]
    errors = ("top1_err", "top5_err")
    fields += [(Column(HEADINGS[error], "original"), _of(0, number, "original", error)) for error in errors]
    for column, group in (("reimplementation", "re-implementation"), ("senet", "SENet")):
        side = partial(_of, int(column == "senet"))
        gain = ["top1_gain"] * (column == "senet" and _is_measured(rows, number, "top1_gain"))
        for error in (*errors, *gain):
            fields.append((Column(HEADINGS[error], group), side(number, column, error)))
            if _is_measured(rows, number, error):
                fields.append((Column("measured", group), side(number, column, error, measured_text)))
                fields.append((Column("status", group, numeric=False), side(number, column, error, error_status)))
        for metric in metrics:
            fields.append((Column(HEADINGS[metric], group), side(number, column, metric)))
            fields.append((Column("counted", group), side(number, column, metric, counted)))
            fields.append((Column("Δ", group), side(number, column, metric, delta)))
            fields.append((Column("status", group, numeric=False), side(number, column, metric, status)))
        for more in counts(rows):
            if not more.forms:  # the paper prints the others, or has no place for them here
                fields.append((Column(more.title, group), _count_of(more, int(column == "senet"))))
    return table_of(title, fields, pairs_in(rows), notes(rows, number))


def _count_of(metric: Metric, side: int) -> Callable[[RowPair], str]:
    return lambda pair: metric.shown(metric.of(pair[side]))


def network_table(
    title: str,
    rows: Sequence[Row],
    number: str | None = None,
    *,
    narrow: bool = False,
    name: Callable[[Row], str] = lambda row: row.label,
    against: Yardstick | None = None,
) -> Table:
    """One network a line: counted and measured, beside the cells of table `number` (else of the row's own).

    `narrow` leaves out what does not fit 80 columns; increases are over the row of `against`, else the baseline.
    """
    others = map(against.of if against else comparisons.References(rows).baseline_of, rows)
    bases = {id(row): other for row, other in zip(rows, others) if other is not None}
    named = against.name if against else None
    fields: list[Field[Row]] = [(Column("network", numeric=False), name)]
    for metric in counts(rows):
        printed_forms = [form for form in metric.forms if _has(rows, number, form.key)]
        for form in printed_forms or [metric.form_for(rows)]:
            fields += _counted(metric, form, _Around(bases, number, bool(printed_forms), narrow, named))
    printed = ("top1_err", "ap") if narrow else ("top1_err", "top5_err", "top1_gain", "ap", "ap50")
    for error in printed:
        if _has(rows, number, error) and (error != "top1_gain" or _is_measured(rows, number, error)):
            fields += _printed(error, number, measured=_is_measured(rows, number, error))
    return table_of(title, fields, rows, notes(rows, number))


DAGGER = "† by the convention bn-inclusive, else by macs"


def _printed(metric: str, number: str | None, *, measured: bool) -> list[Field[Row]]:
    """The columns of an error: printed, and what was measured with its status where anything was."""
    fields: list[Field[Row]] = []
    for column in CROPS if number == "8" else (None,):
        heading = HEADINGS[metric] if column is None else f"{HEADINGS[metric]} at {column} px"
        cell = partial(find, number=number, metric=metric, column=column)
        if not measured:
            fields.append((Column(heading, "paper"), lambda row, cell=cell: printed_text(cell(row))))  # type: ignore[misc]
            continue
        fields.append((Column("paper", heading), lambda row, cell=cell: printed_text(cell(row))))  # type: ignore[misc]
        fields.append((Column("measured", heading), lambda row, cell=cell: measured_text(cell(row))))  # type: ignore[misc]
        status_column = Column("status", heading, numeric=False)
        fields.append((status_column, lambda row, cell=cell: error_status(cell(row))))  # type: ignore[misc]
    return fields


CROPS = ("224", LARGE_CROPS)
"""The columns of Table 8."""


def _is_measured(rows: Sequence[Row], number: str | None, metric: str) -> bool:
    """Whether anything stands beside a printed error, or is said of what was stored; detectors are shown elsewhere."""
    cells = (cell for row in rows for cell in row.paper if cell.metric == metric and number in (None, cell.table))
    return metric in MEASURED and any(cell.status != "not measured" or cell.differs_in for cell in cells)


MEASURED = ("top1_err", "top5_err", "top1_gain")
"""The metrics of a classifier's training."""


def measured_text(cell: CellStatus | None) -> str:
    """What was measured, with its 95 % interval."""
    if cell is None or cell.measured is None:
        return EMPTY
    return f"{cell.measured:.2f}" + (f" ({cell.ci[0]:.2f} to {cell.ci[1]:.2f})" if cell.ci else EMPTY)


def error_status(cell: CellStatus | None) -> str | Cell:
    """The status of an error or a gain; what differs in the protocol where nothing else is said."""
    if cell is None:
        return EMPTY
    words = ", ".join(cell.differs_in) if cell.status in ("not measured", "other protocol") else EMPTY
    text = words if cell.status == "not measured" and words else f"{cell.status}: {words}" if words else cell.status
    return Cell(text, cell.status)


@dataclass(frozen=True, slots=True)
class _Around:
    """What the columns of a count depend on.

    The row that each is compared with (by its id), the printed table, whether it has that count, the width, and what
    the row compared with is called where it is not the baseline.
    """

    bases: Mapping[int, Row]
    number: str | None
    printed: bool
    narrow: bool
    against: str | None = None


def _counted(metric: Metric, form: Form, around: _Around) -> list[Field[Row]]:
    """The columns of one count: counted here, how much more than the baseline, printed, and their difference."""
    group, number, narrow = form.heading, around.number, around.narrow

    def cell(row: Row) -> CellStatus | None:
        return find(row, number, form.key)

    fields: list[Field[Row]] = [(Column("counted", group), lambda row: counted(cell(row)) or form.text(metric.of(row)))]
    if around.bases and not (narrow and number):
        heading = f"+% to {around.against}" if around.against else "+%"
        fields.append((Column(heading, group), lambda row: increase(row, around.bases.get(id(row)), metric)))
    if around.printed:
        fields.append((Column("paper", group), lambda row: printed_text(cell(row))))
        if not narrow:
            fields.append((Column("Δ", group), lambda row: delta(cell(row))))
        show = short_status if narrow else status
        fields.append((Column("status", group, numeric=False), lambda row: show(cell(row))))
    return fields


HEADINGS = {form.key: form.heading for metric in METRICS.values() for form in metric.forms} | {
    "top1_err": "top-1 err %",
    "top5_err": "top-5 err %",
    "top1_gain": "gain, points",
    "ap": "AP",
    "ap50": "AP50",
    "cpu_ms": "CPU ms",
    "train_ms": "train ms",
}
"""What the paper's metrics are called above a column."""


def printed_text(cell: CellStatus | None) -> str:
    """The cell as the paper prints it."""
    return cell.printed if cell else EMPTY


def counted(cell: CellStatus | None) -> str:
    """What was counted, to one digit more than the paper prints."""
    if cell is None or cell.measured is None:
        return EMPTY
    return f"{cell.measured:.{_decimals(cell.printed) + 1}f}"


def delta(cell: CellStatus | None) -> str:
    """The relative difference to the printed value."""
    return EMPTY if cell is None or cell.delta is None else f"{100 * cell.delta:+.2f} %"


def status(cell: CellStatus | None) -> str | Cell:
    """The status and the convention it holds under."""
    if cell is None:
        return EMPTY
    convention = f" ({cell.convention})" if cell.status == "match" and cell.convention else EMPTY
    return Cell(f"{cell.status}{convention}", cell.status)


def short_status(cell: CellStatus | None) -> str | Cell:
    """The status, marked by a dagger where it holds under the second convention."""
    if cell is None:
        return EMPTY
    second = cell.convention == "bn-inclusive"
    return Cell(f"{cell.status}†", cell.status, DAGGER) if second else Cell(cell.status, cell.status)


def increase(row: Row, base: Row | None, metric: Metric) -> str:
    """How much more than the row that it is compared with, in per cent."""
    ours, theirs = metric.of(row), metric.of(base) if base else None
    return f"{100 * (ours / theirs - 1):+.2f}" if ours and theirs else EMPTY


def notes(rows: Sequence[Row], number: str | None) -> tuple[str, ...]:
    """What explains the cells of a table, each explanation once, and every number that is missing with its reason."""
    remarks: dict[str, list[str]] = {}
    metrics = {cell.metric for row in rows for cell in row.paper if number in (None, cell.table)}
    for row in rows:
        for cell in row.paper:
            if number in (None, cell.table) and cell.explanation and cell.status not in UNEXPLAINED:
                remarks.setdefault(f"{cell.status}: {cell.explanation}", []).append(row.label)
        for what, why in row.missing.items():
            if what in (*UNTIMED, "accuracy"):
                continue  # said beside the latencies and the errors
            remarks.setdefault(f"{what} missing: {why}", []).append(row.label)
        for remark in (*row.remarks, *to_ship(row.standings)):
            remarks.setdefault(remark, []).append(row.label)
        if row.uncounted:
            remarks.setdefault(f"not counted: {', '.join(row.uncounted)}", []).append(row.label)
        if row.formulas:
            own = ", ".join(f"{name} {amount:,}" for name, amount in row.formulas.items())
            remarks.setdefault(f"counted by formulas of your own: {own}", []).append(row.label)
    known = [metric for metric in MEASURED if _is_measured(rows, number, metric)]
    general = [CONVENTIONS] * bool(metrics & {"gflops", "mflops"})
    general += [*_about_errors(rows, number, known)] if known else [PRINTED_ERRORS] * ("top1_err" in metrics)
    general += [DETECTORS] * any(row.family == "detection" for row in rows)
    general += [f"{PRINTED_AP} {why}" for why in dict.fromkeys(_why_no_ap(rows, number))]
    return (*(f"{_joined(labels, len(rows))}{text}" for text, labels in remarks.items()), *general)


def to_ship(standings: Sequence[RuntimeStanding]) -> Iterator[str]:
    """Which runtime to ship at each batch size, by what margin and what it needs, and what was not there."""
    for batch in dict.fromkeys(standing.batch_size for standing in standings):
        first, *others = (s for s in standings if s.batch_size == batch and s.seconds)
        extra = RUNTIMES[first.runtime].extra  # type: ignore[index]
        needs = f"; it needs senet-bench[{extra.name}]" if extra else "; it needs torch alone"
        text = f"ship {first.runtime} for batch {batch}: {first.ratio:.2f} of eager's time{_within(first.ci)}"
        if others and first.behind:
            text += f", {others[0].runtime} takes {first.behind:.2f} of its time{_within(first.behind_ci)}"
            text += _undecided(first.behind_ci)
        yield text + needs
        for other in standings:
            if other.batch_size == batch and other.reason:
                yield f"not in the search: {other.runtime} ({other.reason})"


def _within(bounds: tuple[float, float] | None) -> str:
    return f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else ""


def _undecided(bounds: tuple[float, float] | None) -> str:
    return "" if bounds and bounds[0] > 1 else ", which these rounds cannot tell apart"


CONVENTIONS = (
    "macs: multiply-adds of convolutions and linear layers, one operation per element scaled by SE, compared rounded; "
    "bn-inclusive: macs and one per BatchNorm output, max-pool input and final-pool input, compared truncated "
    "(fitted to the paper's tables, its authors do not document it)"
)
UNEXPLAINED = frozenset(
    ("match", "not measured", "other protocol", "same sign and inside", "same sign", "not shown", "opposite")
)
"""The statuses that say it all, or whose explanation stands in the cell."""


def _about_errors(rows: Sequence[Row], number: str | None, known: Sequence[str]) -> Iterator[str]:
    """How measured errors are judged, and what brings those that are missing, at about which cost."""
    cells = [cell for row in rows for cell in row.paper if number in (None, cell.table) and cell.metric in MEASURED]
    over = {cell.ci_over: cell.seeds for cell in cells if cell.metric != "top1_gain" and cell.ci_over}
    kinds = [f"over {over.get('seeds')} seeds (t)"] * ("seeds" in over) + ["over images (Wilson's)"] * (
        "images" in over
    )
    yield f"{INTERVALS} {' or '.join(kinds) or 'over seeds, else over images'}"
    if "top1_gain" in known:
        yield GAIN_COLUMNS
    missing = {cell.command: cell.training_operations for cell in cells if cell.command and cell.metric == "top1_err"}
    for command, operations in missing.items():
        cost = f" (about {operations:.1e} floating-point operations a seed)" if operations else EMPTY
        yield f"to measure: {command}{cost}"


INTERVALS = "match: the print lies inside the 95 % interval of what was measured by the table's own protocol,"
GAIN_COLUMNS = (
    "gain: the baseline's error minus its own, paired, in points; the same sign where its 95 % interval leaves out 0, "
    "inside where the printed gain lies in it, not shown where 0 does"
)
PRINTED_ERRORS = (
    "errors are the paper's, as printed: reaching them takes the training that the table's protocol describes"
)


DETECTORS = (
    "a detector is counted whole, for one image of the size given (800x1216 px unless set) with 1,000 proposals: "
    "trunk, pyramid, proposal head and box head; anchors, NMS and RoIAlign count nothing; a frozen BatchNorm has no "
    "parameters"
)
PRINTED_AP = "AP and AP50 are the paper's, as printed, and not measured:"


def _why_no_ap(rows: Sequence[Row], number: str | None) -> Iterator[str]:
    for row in rows:
        cell = find(row, number, "ap")
        if cell is not None and cell.status == "not measured":
            yield cell.explanation


def _joined(labels: Iterable[str], total: int) -> str:
    labels = list(dict.fromkeys(labels))
    return "" if len(labels) == total else f"{', '.join(labels)}: "


def _has(rows: Sequence[Row], number: str | None, metric: str) -> bool:
    return any(find(row, number, metric) for row in rows)


def _decimals(printed: str) -> int:
    return len(printed.partition(".")[2])


def _of(
    side: int, number: str, column: str, metric: str, show: Callable[[CellStatus | None], str | Cell] = printed_text
) -> Callable[[RowPair], str | Cell]:
    """How the baseline (side 0) or the variant (side 1) of a pair fills a column."""
    return lambda pair: show(find(pair[side], number, metric, column))
