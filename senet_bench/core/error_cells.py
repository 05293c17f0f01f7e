"""The errors of the paper's tables, and the gains that are its claim, judged against stored errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from msgspec import structs

from senet_bench.core.intervals import paired_seeds
from senet_bench.core.paper import (
    NEEDS_TRAINING,
    CellStatus,
    PrintedCell,
    Status,
    cells,
    not_measured,
    protocol_name,
)
from senet_bench.core.protocols import Protocol, command_of, protocol_of, training_operations
from senet_bench.core.specs import ModelSpec
from senet_bench.core.stored_errors import ErrorGroup, StoredError, StoredErrors
from senet_bench.core.studies import STUDIES

ERRORS = ("top1_err", "top5_err")
GAINS = {"top1_gain": "top1_err", "top5_gain": "top5_err"}
REPEATS = "the paper repeats this number from another one, whose training it does not describe"
BASES = {"2": "reimplementation", "3": "reimplementation", "4": "original", "5": "original"}
"""The column that holds the baseline of the same row, by table."""
BASE_ROWS = {"6": ("6", "ResNet-152 (ours)"), **{str(number): ("10", "r=original") for number in range(10, 17)}}
"""The table and the row that hold the baseline's errors where they are not in the same row."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A network whose cells are judged: its row, the stored errors, and whether those of other protocols are shown.

    `macs` is what a forward pass of it counts.
    """

    spec: ModelSpec
    errors: StoredErrors
    any_protocol: bool = False
    macs: int | None = None

    @property
    def root(self) -> str:
        """The network without attention."""
        return self.spec.baseline or self.spec.name

    def groups(self, *, base: bool = False) -> list[ErrorGroup]:
        """The stored errors of the network, or of its baseline."""
        return self.errors.of((self.root, None if base else self.spec.attention, self.spec.classes))


def error_cell(cell: PrintedCell, wanted: Asked) -> CellStatus:
    """The judgement of a printed error: `match` where the print lies inside the interval of what was measured."""
    protocol = protocol_of(cell, wanted.root)
    if protocol is None:
        return not_measured(cell, REPEATS)
    if cell.number is None:
        return not_measured(cell, "the paper leaves this cell empty")
    groups = [group for group in wanted.groups() if group.mean(cell.metric) is not None]
    exact = [group for group in groups if not protocol.differences(group.origin)]
    if exact:
        return _judged(cell, max(exact, key=lambda group: len(group.errors)))
    released = _released(cell, protocol, groups)
    if released is not None:
        return _beside(cell, released, "released weights", protocol)
    costs = {
        "command": command_of(cell, wanted.spec),
        "training_operations": training_operations(protocol, wanted.macs),
    }
    if not groups:
        return structs.replace(not_measured(cell, NEEDS_TRAINING), **costs)
    nearest = min(groups, key=lambda group: protocol.distance(group.origin))
    differing = protocol.differences(nearest.origin)
    if wanted.any_protocol and nearest.origin.dataset == protocol.dataset:
        return structs.replace(_beside(cell, nearest, "other protocol", protocol), **costs)
    why = f"measured by another protocol: {', '.join(differing)}"
    return structs.replace(not_measured(cell, why), differs_in=differing, **costs)


def _released(cell: PrintedCell, protocol: Protocol, groups: Sequence[ErrorGroup]) -> ErrorGroup | None:
    """The authors' own network evaluated at the cell's crop, in a comparison."""
    if STUDIES[f"table{cell.table}"].kind != "comparison":
        return None
    fitting = (
        group
        for group in groups
        if group.origin.released
        and not group.origin.labels
        and (group.origin.dataset, group.origin.size) == (protocol.dataset, protocol.size)
    )
    return max(fitting, key=lambda group: group.origin.test_images, default=None)


def _measured(cell: PrintedCell, group: ErrorGroup) -> CellStatus:
    """The cell with what was measured beside it, its status yet to be said."""
    mean, interval = group.mean(cell.metric), group.interval(cell.metric)
    assert mean is not None
    assert cell.value is not None
    measured = 100 * mean
    return CellStatus(
        *cell.place,
        measured,
        measured / cell.value - 1 if cell.value else None,
        "match",
        protocol_name(cell),
        "",
        ci=None if interval is None else (100 * interval[0], 100 * interval[1]),
        ci_over="seeds" if group.over_seeds(cell.metric) else "images",
        seeds=len(group.errors),
    )


def _judged(cell: PrintedCell, group: ErrorGroup) -> CellStatus:
    status = _measured(cell, group)
    assert cell.value is not None
    inside = status.ci is not None and status.ci[0] <= cell.value <= status.ci[1]
    if inside:
        return structs.replace(status, explanation=f"the print lies inside the 95 % interval {_over(status)}")
    return structs.replace(status, status="differs", explanation=_apart(cell, status))


def _beside(cell: PrintedCell, group: ErrorGroup, status: Status, protocol: Protocol) -> CellStatus:
    """What was measured by another protocol than the cell's, with what differs."""
    differing = protocol.differences(group.origin)
    measured = _measured(cell, group)
    return structs.replace(
        measured,
        status=status,
        convention=group.origin.weights if status == "released weights" else group.origin.recipe,
        explanation=", ".join(differing),
        differs_in=differing,
    )


def _over(status: CellStatus) -> str:
    return f"over {status.seeds} seeds" if status.ci_over == "seeds" else "over images (Wilson)"


def _apart(cell: PrintedCell, status: CellStatus) -> str:
    """How far a measured error is from the printed one, with the interval of that."""
    assert status.measured is not None
    assert cell.value is not None
    around = "" if status.ci is None else f" ({status.ci[0] - cell.value:+.2f} to {status.ci[1] - cell.value:+.2f})"
    return f"{status.measured - cell.value:+.2f} points{around} from the print, 95 % {_over(status)}"


def gain_cells(printed: Sequence[PrintedCell], wanted: Asked) -> Iterator[CellStatus]:
    """What attention gains in each table of a network's cells, beside the printed gain or the difference of two prints.

    A difference that the paper does not print itself is told only where it was measured.
    """
    if wanted.spec.attention is None:
        return
    for cell in printed:
        if cell.metric != "top1_err" or (gain := printed_gain(cell)) is None:
            continue
        protocol = protocol_of(cell, wanted.root)
        found = None if protocol is None else _paired(protocol, wanted)
        own = next((known for known in cells(cell.table, cell.row, cell.column) if known.metric == "top1_gain"), None)
        if found is not None:
            yield _gain(gain, found, derived=own is None)
        elif own is not None:
            yield structs.replace(not_measured(own, NEEDS_TRAINING), command=command_of(cell, wanted.spec))


def printed_gain(cell: PrintedCell) -> PrintedCell | None:
    """The gain that the paper prints beside a cell, else its baseline's error minus its own; None for neither."""
    own = next((known for known in cells(cell.table, cell.row, cell.column) if known.metric == "top1_gain"), None)
    if own is not None:
        return own
    table, row = BASE_ROWS.get(cell.table, (cell.table, cell.row))
    column = BASES.get(cell.table, "reported")
    base = next((known for known in cells(table, row, column) if known.metric == "top1_err"), None)
    if base is None or base == cell or base.number is None or cell.number is None:
        return None
    return replace(cell, metric="top1_gain", printed=str(base.number - cell.number), unit="pp")


@dataclass(frozen=True, slots=True)
class PairedGain:
    """The mean gain in points with its 95 % interval, over the pairs that it was found from."""

    value: float
    ci: tuple[float, float] | None
    over: Literal["seeds", "images"]
    pairs: int


def _paired(protocol: Protocol, wanted: Asked) -> PairedGain | None:
    """The gain over the baseline by the protocol, None where there are no pairs.

    Paired over the most seeds that both have by one origin; where those are fewer than two, by image if it was.
    """
    own, base = (
        [group for group in wanted.groups(base=is_base) if not protocol.differences(group.origin)]
        for is_base in (False, True)
    )
    pairs = (_on_shared_seeds(ours, theirs) for ours in own for theirs in base)
    shared = max(pairs, key=lambda both: len(both[0]), default=([], []))
    by_image = next(((error, group) for group in own for error in group.errors if error.gain is not None), None)
    if by_image is not None and len(shared[0]) < 2:
        return _over_images(by_image[0], by_image[1].origin.test_images)
    if not shared[0]:
        return None
    paired = paired_seeds(*shared)
    return PairedGain(paired.difference, paired.ci, "seeds", len(shared[0]))


def _on_shared_seeds(ours: ErrorGroup, theirs: ErrorGroup) -> tuple[list[float], list[float]]:
    """The errors of two networks in points over the seeds that both have; none where the data were others."""
    if (ours.origin.data, ours.origin.weights) != (theirs.origin.data, theirs.origin.weights):
        return [], []
    own, others = ours.by_seed(), theirs.by_seed()
    shared = sorted(own.keys() & others.keys())
    return [100 * own[seed] for seed in shared], [100 * others[seed] for seed in shared]


def _over_images(error: StoredError, images: int) -> PairedGain:
    """The gain that was found on the same images, so many of them."""
    low, high = error.gain_ci or (0.0, 0.0)
    return PairedGain(100 * (error.gain or 0.0), (100 * low, 100 * high) if error.gain_ci else None, "images", images)


def _gain(cell: PrintedCell, gain: PairedGain, *, derived: bool) -> CellStatus:
    """The judgement of a gain: its sign by the interval, and whether the printed gain lies inside that."""
    printed = float(cell.printed)
    status: Status = "not shown"
    if gain.ci is not None and not gain.ci[0] <= 0 <= gain.ci[1]:
        same = (gain.ci[0] > 0) == (printed > 0)
        inside = gain.ci[0] <= printed <= gain.ci[1]
        status = ("same sign and inside" if inside else "same sign") if same else "opposite"
    origin = "the difference of two printed errors" if derived else "printed as a gain"
    return CellStatus(
        *cell.place,
        gain.value,
        gain.value / printed - 1 if printed else None,
        status,
        protocol_name(cell),
        f"the baseline's error minus its own, paired over {gain.pairs:,} {gain.over}; {origin}",
        ci=gain.ci,
        ci_over=gain.over,
        seeds=gain.pairs if gain.over == "seeds" else None,
    )
