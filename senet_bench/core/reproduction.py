"""The printed cells that stand beside a row, each judged against what was counted: made here once, shown by others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from senet_bench.core.catalog import CATALOG, resolve
from senet_bench.core.error_cells import ERRORS, Asked, error_cell, gain_cells
from senet_bench.core.paper import RULES, CellStatus, PrintedCell, cells, compare_cell
from senet_bench.core.protocols import LARGE_CROPS
from senet_bench.core.results import Row
from senet_bench.core.specs import AttentionSpec, ModelSpec, is_outside
from senet_bench.core.stored_errors import StoredErrors
from senet_bench.core.studies import SE, STUDIES, Study, StudyKind, Subject, find_study
from senet_bench.errors import UsageError

_OWN_ROWS = ("table2", "table3", "table4", "table5", "table7", "table8")
BESIDE = {
    ("2", "reimplementation"): ("original",),
    ("3", "reimplementation"): ("original",),
    ("8", "224"): (LARGE_CROPS,),
}
"""The columns of a table that are of the same network as another one."""
_SHOWN = frozenset({"gflops", "mflops", "params_m", "top1_err", "top5_err", "cpu_ms", "train_ms", "ap", "ap50"})


@lru_cache(maxsize=8192)
def paper_cells(model: ModelSpec | str, study: str | None = None) -> tuple[PrintedCell, ...]:
    """The printed cells that stand beside a network with its attention: a row is compared with its own table only.

    With a study, that table's cells (with Table 2 also the times that the text gives). Without one, the network's
    rows in Tables 2 to 5, 7 and 8, and those times. A network or an attention that the paper did not print has none;
    one with another input size, number of classes or option than the catalog's has no counts.
    """
    spec = resolve(model) if isinstance(model, str) else model
    studies = [find_study(study)] if study else [STUDIES[name] for name in _OWN_ROWS]
    found = [cell for each in studies for subject in each.subjects for cell in _beside(spec, each, subject)]
    if study in (None, "table2") and spec.name in ("resnet50", "seresnet50"):
        row = {None: "ResNet-50", SE: "SE-ResNet-50"}.get(_plainly(spec, "comparison"), "")
        found += (cell for cell in cells("text", row) if cell.metric in ("cpu_ms", "train_ms"))
    as_printed = _as_catalogued(spec)
    return tuple(cell for cell in found if cell.metric in _SHOWN and (as_printed or cell.metric not in RULES))


def _beside(spec: ModelSpec, study: Study, subject: Subject) -> tuple[PrintedCell, ...]:
    """The cells of a subject when it is this network with this attention, else none."""
    known_as = (spec.name, spec.baseline, f"se{spec.name}")
    same = subject.model in known_as and _plainly(spec, study.kind) == subject.attention
    columns = (subject.column, *BESIDE.get((study.table, subject.column), ()))
    return tuple(cell for column in columns if same for cell in cells(study.table, subject.row, column))


def _as_catalogued(spec: ModelSpec) -> bool:
    """Whether everything but the attention is as in the catalog, and so as the paper counts it."""
    row = CATALOG.get(spec.name, spec)
    own = (row.input_size, row.classes, row.cardinality, row.options)
    return (spec.input_size, spec.classes, spec.cardinality, spec.options) == own


def _plainly(spec: ModelSpec, kind: StudyKind) -> AttentionSpec | None:
    """The attention with two spellings of one block made one; an ablation's FC biases are left open by the paper."""
    attention = spec.attention
    if attention is None:
        return None
    ratios = set(attention.reductions)
    stages = attention.stages
    return replace(
        attention,
        reduction=ratios.pop() if len(ratios) == 1 else attention.reduction,
        stages=None if stages is not None and set(stages) >= set(spec.stages) else stages,
        bias=attention.bias or kind == "ablation",
    )


def cells_of(
    row: Row, studies: Iterable[str | None], stored: StoredErrors | None = None, *, any_protocol: bool = False
) -> list[CellStatus]:
    """The paper's cells of a row in some studies (None: the network's own rows), beside what was counted and stored.

    Errors that are `stored` are judged where they are of a cell's own protocol; those of another one are shown with
    `any_protocol`. Empty for a network from outside or one that this version does not know, and where image size,
    channels, classes or cardinality are not those of the table.
    """
    if row.outside or (row.attention is not None and is_outside(row.attention.block)):
        return []
    try:
        known = resolve(row.model)
    except UsageError:
        return []
    if (row.input_size, row.cardinality) != (known.input_size, None):
        return []
    spec = replace(known, attention=row.attention)
    measured = {**row.flops, **({} if row.params is None else {"trainable": row.params})}
    printed = dict.fromkeys(cell for study in studies for cell in paper_cells(spec, study))
    classes = {study.table: study.classes for study in STUDIES.values()}
    meant = [cell for cell in printed if row.classes == (classes.get(cell.table) or spec.classes)]
    if not meant:
        return []
    wanted = Asked(replace(spec, classes=row.classes), stored or StoredErrors(), any_protocol, row.flops.get("macs"))
    judged = [error_cell(cell, wanted) if is_error(cell) else compare_cell(cell, measured) for cell in meant]
    return [*judged, *gain_cells(meant, wanted)]


def is_error(cell: PrintedCell | CellStatus) -> bool:
    """Whether a cell is a classifier's error."""
    return cell.metric in ERRORS


def of_study(
    rows: Iterable[Row], study: str, stored: StoredErrors | None = None, *, any_protocol: bool = False
) -> list[Row]:
    """The rows, each with its cells of one study alone."""
    statuses = ((row, cells_of(row, [study], stored, any_protocol=any_protocol)) for row in rows)
    return [replace(row, paper=cells) if cells or row.paper else row for row, cells in statuses]


def find(row: Row, number: str | None, metric: str, column: str | None = None) -> CellStatus | None:
    """The paper's cell of a row; without a column the re-implementation's is preferred to the original's."""
    known = [
        cell
        for cell in row.paper
        if cell.metric == metric and number in (None, cell.table) and column in (None, cell.column)
    ]
    return next((cell for cell in known if cell.column != "original"), known[0] if known else None)


def stands_in(row: Row, study: Study) -> bool:
    """Whether a row has cells in the study's printed table."""
    return any(cell.table == study.table for cell in row.paper)
