"""What the paper prints, as printed, and the judgement of a count against it.

The numbers are in `paper.toml` beside this file, one table after the other. A cell is compared with its own
table only: the same network has other errors under other recipes, which `Table.protocol` tells apart.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from senet_bench.errors import UsageError

Status = Literal[
    "match",
    "near",
    "differs",
    "not reproduced",
    "not measured",
    "other protocol",
    "released weights",
    "same sign and inside",
    "same sign",
    "not shown",
    "opposite",
]
"""What a printed number is beside a measured one; the last four are those of a gain."""

UNITS: Mapping[str, str] = {
    "ap": "%",
    "ap50": "%",
    "blocks": "blocks",
    "caffemodel_mib": "MiB",
    "cardinality": "groups",
    "crop": "px",
    "fc": "fc widths",
    "gflops": "GFLOPs",
    "mflops": "MFLOPs",
    "params_m": "M",
    "top1_err": "%",
    "top1_gain": "pp",
    "top5_err": "%",
    "top5_gain": "pp",
}


def plain_number(printed: str) -> float | None:
    """The number that some digits are, None for `-` and for what is no plain number, such as `~25`."""
    return float(printed) if printed.isascii() and printed.replace(".", "", 1).isdigit() else None


@dataclass(frozen=True, slots=True)
class PrintedCell:
    """One printed number: where it stands and its digits, `-` where the paper leaves the cell empty."""

    table: str
    row: str
    column: str
    metric: str
    printed: str
    unit: str

    @property
    def number(self) -> Decimal | None:
        """The printed number exactly; None for `-` and for what is no plain number, such as `~25`."""
        return Decimal(self.printed) if plain_number(self.printed) is not None else None

    @property
    def value(self) -> float | None:
        """The printed number, in `unit`; None for `-` and for what is no plain number."""
        return plain_number(self.printed)

    @property
    def place(self) -> tuple[str, str, str, str, str]:
        """What every judgement of the cell begins with: table, row, column, metric, the printed digits."""
        return self.table, self.row, self.column, self.metric, self.printed

    @property
    def digits(self) -> int:
        """How many decimals are printed."""
        return 0 if self.number is None else len(self.printed.partition(".")[2])


@dataclass(frozen=True, slots=True)
class PrintedTable:
    """A printed table; `number` is 1 to 16, text, recipe, readme or third-party."""

    number: str
    title: str
    protocol: str
    cells: tuple[PrintedCell, ...]


def _lines(text: str) -> Iterator[list[str]]:
    """The fields of each line of a grid or a list, its header first."""
    for line in text.strip().splitlines():
        yield [part.strip() for part in line.split("|")]


def _grid(table: str, text: str) -> Iterator[PrintedCell]:
    (_, *heads), *rows = _lines(text)
    for row, *printed in rows:
        for head, digits in zip(heads, printed, strict=True):
            column, _, metric = head.partition(".")
            if digits:
                yield PrintedCell(table, row, column, metric, digits, UNITS.get(metric, ""))


def _list(table: str, text: str) -> Iterator[PrintedCell]:
    _, *rows = _lines(text)
    for row, column, metric, unit, printed in rows:
        yield PrintedCell(table, row, column, metric, printed, unit)


def _read() -> dict[str, PrintedTable]:
    document = tomllib.loads(Path(__file__).with_name("paper.toml").read_text(encoding="utf-8"))
    return {
        number: PrintedTable(
            number,
            table["title"],
            table["protocol"],
            (*_grid(number, table.get("grid", "row")), *_list(number, table.get("list", "row"))),
        )
        for number, table in document.items()
    }


TABLES: Mapping[str, PrintedTable] = MappingProxyType(_read())


def cells(table: str, row: str | None = None, column: str | None = None) -> tuple[PrintedCell, ...]:
    """The cells of a table, or of one of its rows or columns, in print order; empty when there is none."""
    if table not in TABLES:
        raise UsageError(f"the paper has no table {table!r}", f"choose from {', '.join(TABLES)}")
    return tuple(cell for cell in TABLES[table].cells if row in (None, cell.row) and column in (None, cell.column))


@dataclass(frozen=True, slots=True)
class Rule:
    """How a kind of number is judged: conventions with their rounding, in order of preference, and what is near.

    `scale` is the unit of the printed number. A difference within `absolute` (in that unit) or within the
    fraction `relative` of the printed number is near; `wider` names the rows with another such fraction.
    `note` says why a right count may miss the printed digits.
    """

    scale: Decimal
    conventions: Mapping[str, str]
    absolute: Decimal = Decimal(0)
    relative: Decimal = Decimal(0)
    wider: Mapping[str, Decimal] = field(default_factory=dict)
    note: str = ""

    def is_near(self, cell: PrintedCell, printed: Decimal, measured: Decimal) -> bool:
        """Whether `measured` is close to the printed number, though its digits are others."""
        return abs(measured - printed) <= max(self.absolute, printed * self.wider.get(cell.row, self.relative))


_FLOPS = {"macs": ROUND_HALF_UP, "bn-inclusive": ROUND_DOWN}
_NEAR, _WIDER = Decimal("0.005"), {"ShuffleNet": Decimal("0.02")}
_FLOPS_NOTE = "no one convention reaches every printed FLOP cell"
_PARAMS_NOTE = (
    "the paper rounds parameters up in Tables 10-16 and truncates them in Table 3, here they are rounded plainly"
)

RULES: Mapping[str, Rule] = {
    "gflops": Rule(Decimal(10**9), _FLOPS, relative=_NEAR, wider=_WIDER, note=_FLOPS_NOTE),
    "mflops": Rule(Decimal(10**6), _FLOPS, relative=_NEAR, wider=_WIDER, note=_FLOPS_NOTE),
    "params_m": Rule(Decimal(10**6), {"trainable": ROUND_HALF_UP}, absolute=Decimal("0.1"), note=_PARAMS_NOTE),
}
"""Metrics that are counted, and so are the same on every machine; all others depend on a protocol."""

NOT_REPRODUCED: Mapping[tuple[str, str, str], str] = {
    ("2", "Inception-ResNet-v2", "gflops"): (
        "no public definition of Inception-ResNet-v2 gives the printed count: tf-slim's and the Inception-v4 "
        "paper's block numbers were tried, at 299 px"
    )
}
"""Cells known to disagree, by table, row and metric, with what is known about them."""

_NEEDS_COCO = (
    "needs this detector trained on COCO by the recipe of this table: `senet-bench train MODEL --dataset coco "
    "--data DIR --trunk-weights FILE`, then `senet-bench evaluate MODEL --dataset coco --data DIR --weights FILE`"
)
_UNMEASURED: Mapping[str, str] = {
    "cpu_ms": "the authors' CPU is not this machine; compare the ratio of SE to its baseline instead",
    "train_ms": "taken on 8 NVIDIA Titan X, which this machine is not; compare the ratio of SE to its baseline instead",
    "ap": _NEEDS_COCO,
    "ap50": _NEEDS_COCO,
}
NEEDS_TRAINING = "needs a network trained by the recipe of this table, see its protocol; `evaluate` takes such weights"
_SCALES: Mapping[str, Decimal] = {"%": Decimal("0.01"), "ms": Decimal("0.001")}


class CellStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """A printed cell beside what was measured; `measured` is in the cell's unit, `delta` a fraction of the printed.

    `convention` names how `measured` was counted, or the protocol of an error; `explanation` says why the status is
    what it is. Of an error, `ci` is the 95 % interval in the cell's unit, over `seeds` where `ci_over` says so, else
    over images; `differs_in` is what its protocol differs in from the cell's. `command` brings what was not measured;
    where it trains, in about `training_operations` floating-point operations.
    """

    table: str
    row: str
    column: str
    metric: str
    printed: str
    measured: float | None
    delta: float | None
    status: Status
    convention: str | None
    explanation: str
    ci: tuple[float, float] | None = None
    ci_over: Literal["seeds", "images"] | None = None
    seeds: int | None = None
    differs_in: tuple[str, ...] = ()
    command: str | None = None
    training_operations: float | None = None

    @property
    def number(self) -> float | None:
        """The printed number; None for `-` and for what is no plain number."""
        return plain_number(self.printed)


def compare_cell(cell: PrintedCell, measured: Mapping[str, float] | None = None) -> CellStatus:
    """The judgement of a printed cell against `measured`, which maps a convention to a count or an observation.

    Measured values are plain: operations, parameters, fractions, seconds. Counts come under `macs` and
    `bn-inclusive` or under `trainable`. Errors and times are compared only when they come under the name of the
    cell's own protocol (`protocol_name(cell)`): anything measured under another one is left out.
    """
    if cell.number is None:
        return not_measured(cell, "the paper leaves this cell empty" if cell.printed == "-" else "no plain number")
    rule = RULES.get(cell.metric) or _protocol_rule(cell)
    given = measured or {}
    values = {name: _decimal(given[name]) / rule.scale for name in rule.conventions if name in given}
    if not values:
        reason = "was not counted" if cell.metric in RULES else _UNMEASURED.get(cell.metric, NEEDS_TRAINING)
        return not_measured(cell, reason)
    for name, value in values.items():
        if value.quantize(Decimal(1).scaleb(-cell.digits), rule.conventions[name]) == cell.number:
            how = "truncated" if rule.conventions[name] == ROUND_DOWN else "rounded"
            return _judged(cell, cell.number, value, "match", name, f"{name}, {how}, reaches the printed digits")
    name, value = next(iter(values.items()))
    if rule.is_near(cell, cell.number, value):
        return _judged(cell, cell.number, value, "near", name, f"within the tolerance: {rule.note}")
    known = NOT_REPRODUCED.get((cell.table, cell.row, cell.metric))
    if known is not None:
        return _judged(cell, cell.number, value, "not reproduced", name, known)
    return _judged(cell, cell.number, value, "differs", name, "outside the tolerance")


def protocol_name(cell: PrintedCell) -> str:
    """The name under which an error or a time measured by the recipe of the cell's own table is handed over."""
    return f"table{cell.table}" if cell.table.isdigit() else cell.table


def _protocol_rule(cell: PrintedCell) -> Rule:
    """The rule for what no machine can count: the cell's own protocol, plain rounding, nothing is near."""
    return Rule(_SCALES.get(cell.unit, Decimal(1)), {protocol_name(cell): ROUND_HALF_UP})


def _decimal(number: float) -> Decimal:
    """An integer exactly, a float by the shortest digits that name it."""
    return Decimal(number) if isinstance(number, int) else Decimal(repr(float(number)))


def _judged(
    cell: PrintedCell, printed: Decimal, measured: Decimal, status: Status, convention: str, explanation: str
) -> CellStatus:
    delta = float((measured - printed) / printed) if printed else None
    return CellStatus(*cell.place, float(measured), delta, status, convention, explanation)


def not_measured(cell: PrintedCell, explanation: str) -> CellStatus:
    """The status of a printed cell that nothing stands beside, and why."""
    return CellStatus(*cell.place, None, None, "not measured", None, explanation)
