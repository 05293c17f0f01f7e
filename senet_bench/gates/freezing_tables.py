"""What was frozen, as two tables: the blocks in the order they were tried, the network as it is and frozen."""

from __future__ import annotations

from senet_bench.gates.freezing_rows import FreezeFacts, FreezeRow, FreezeSummary, FrozenState, GateOutcome
from senet_bench.show.tables import EMPTY, Column, Document, Field, Table, number, points_text, table_of, unreadable

OUTCOMES: dict[GateOutcome, str] = {
    "frozen": "frozen",
    "loss": "kept: the loss",
    "not folded": "kept: cannot be folded",
    "beyond": "kept: loss not shown inside",
}


def _points(row: FreezeRow) -> str:
    return points_text(row.difference.value, row.difference.ci) if row.difference else EMPTY


BLOCK_FIELDS: tuple[Field[FreezeRow], ...] = (
    (Column("block", numeric=False), lambda row: row.block),
    (Column("stage"), lambda row: row.stage),
    (Column("channels"), lambda row: str(row.channels)),
    (Column("mean gate"), lambda row: number(row.mean_gate, ".3f")),
    (Column("alone, nats"), lambda row: number(row.alone, "+.4f")),
    (Column("loss so far, points"), _points),
    (Column("outcome", numeric=False), lambda row: OUTCOMES[row.outcome]),
)


def freeze_document(facts: FreezeFacts) -> Document:
    """The network first, then its blocks."""
    about = facts.conditions
    title = f"Gates of {about.label} frozen, on {about.report} images of {about.dataset}"
    notes = [verdict(facts), f"weights {about.weights}", *about.notes, *unreadable(facts.summary.skipped)]
    network = Table(title, STATE_COLUMNS, tuple(_states(facts.summary)), tuple(notes))
    reasons = dict.fromkeys(row.reason for row in facts.rows if row.reason)
    how = (
        f"means of {about.calibration} training images, the loss of holding each block alone from the same; "
        f"loss so far: error of all frozen until then, on {about.decision} test images, minus the error as it is"
    )
    blocks = table_of("The blocks, in the order they were tried", BLOCK_FIELDS, facts.rows, (how, *reasons))
    return Document(facts, (network, blocks), (network, blocks), tuple(map(_record, facts.rows)))


def verdict(facts: FreezeFacts) -> str:
    """What came out, in a sentence."""
    summary, margin = facts.summary, f"{100 * facts.conditions.max_loss:g} points"
    if summary.frozen is None:
        return f"none: no gate can be frozen with a loss of at most {margin}"
    if summary.shown:
        return f"the loss is shown to be inside {margin}: its 95 % interval ends below"
    needed = f"; about {summary.needed:,} images would show it if nothing is lost" if summary.needed else ""
    return f"no loss is shown to be inside {margin} by {facts.conditions.report} images{needed}"


STATE_COLUMNS = (
    Column("network", numeric=False),
    Column("blocks"),
    Column("error %"),
    Column("loss, points"),
    Column("p"),
    Column("params"),
    Column("MACs"),
    Column("latency ratio"),
)


def _states(summary: FreezeSummary) -> list[tuple[str, ...]]:
    lines = [(*_state("as it is", summary.as_is), EMPTY, EMPTY, *_costs(summary.as_is), EMPTY)]
    if summary.frozen is not None:
        change = summary.difference
        loss, p = (points_text(change.value, change.ci), f"{change.p:.2g}") if change else (EMPTY, EMPTY)
        lines.append((*_state("frozen", summary.frozen), loss, p, *_costs(summary.frozen), _ratio(summary)))
    return lines


def _state(name: str, state: FrozenState) -> tuple[str, ...]:
    low, high = state.ci
    return name, str(state.blocks), f"{100 * state.error:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def _costs(state: FrozenState) -> tuple[str, str]:
    return f"{state.params:,}", f"{state.macs:,}"


def _ratio(summary: FreezeSummary) -> str:
    latency = summary.latency
    if latency is None or latency.ratio is None:
        return EMPTY
    low, high = latency.ci or (None, None)
    interval = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
    return f"{latency.ratio:.3f}{interval}"


def _record(row: FreezeRow) -> dict[str, object]:
    """A block's numbers, flat."""
    change = row.difference
    low, high = (change and change.ci) or (None, None)
    numbers: dict[str, object] = {
        name: getattr(row, name)
        for name in ("model", "block", "stage", "channels", "mean_gate", "alone", "outcome", "reason")
    }
    return numbers | {"difference": change and change.value, "difference_low": low, "difference_high": high}
