"""The tables of a profile: what attention's parts take, and what each stage does."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from senet_bench.breakdown.rows import (
    DeviceCall,
    DevicePart,
    Estimate,
    Limits,
    PartRow,
    ProfileFacts,
    Unread,
)
from senet_bench.show.figures import significant
from senet_bench.show.tables import EMPTY, Column, Document, Table

DEVICE_COLUMNS = ["device ms", "device left out %", "kernels", "device bound"]
DEVICE_NOTES = (
    "device: the same in the GPU's own time, by events around queued calls; what ms has beyond it is launches",
    "bound of the device: traffic, the same kernels on one pixel, arithmetic",
)
PROFILE_NOTES = (
    "left out: the share of a call that goes when the part is left out, same shapes, paired rounds, with its interval",
    "marks: time between marks around the part in place; profiler: its operators' share of all operators' time",
    "bound: the least time of the traffic at this machine's bandwidth, of its operators' launches, of its arithmetic",
)


def profile_document(facts: ProfileFacts) -> Document:
    """A profile as two tables."""
    conditions, seconds = facts.summary.conditions, facts.summary.seconds
    call = EMPTY if seconds is None else f", {significant(seconds, scale=1e3)} ms a call"
    card = f" ({facts.summary.hardware})" if facts.summary.hardware else EMPTY
    where = f"{conditions.device}{card}, {conditions.precision}, {conditions.runtime}, batch {conditions.batch_size}"
    title = f"{facts.conditions.label} on {where}, {conditions.threads} thread(s){call}"
    wide, narrow = (
        (*([_parts(title, facts, narrow=short)] if facts.rows else []), _stages(title, facts, narrow=short))
        for short in (False, True)
    )
    return Document(facts, wide, narrow, tuple(map(msgspec.to_builtins, facts.rows)))


def _parts(title: str, facts: ProfileFacts, *, narrow: bool) -> Table:
    on_device = any(row.on_device for row in facts.rows)
    columns = (
        ["part", "ms", "left out %", "marks %"]
        + ([] if narrow else ["profiler %", "MB", "operators"])
        + ["bound"]
        + (DEVICE_COLUMNS if on_device else [])
    )
    lines = []
    for row in facts.rows:
        line = [row.part, _milliseconds(row.seconds), _estimate(row.share), _value(row.marked_share)]
        if not narrow:
            line += [_percent(row.profiler_share), _megabytes(row.bytes), _plain(row.operators)]
        lines.append((*line, _verdict(row.limits), *(_on_device(row.on_device) if on_device else ())))
    return Table(
        f"Attention in {title}",
        tuple(Column(name, numeric=name not in ("part", "bound", "device bound")) for name in columns),
        tuple(lines),
        (*_arithmetic(facts.rows), *_remarks(facts), *PROFILE_NOTES, *(DEVICE_NOTES if on_device else ())),
    )


def _on_device(part: DevicePart | None) -> tuple[str, ...]:
    """The cells of a part in the device's own time."""
    part = part or DevicePart()
    return _milliseconds(part.seconds), _estimate(part.share), _plain(part.kernels), _verdict(part.limits)


def _verdict(limits: Limits | None) -> str:
    return (limits and limits.verdict) or EMPTY


def _stages(title: str, facts: ProfileFacts, *, narrow: bool) -> Table:
    on_device = facts.summary.on_device is not None
    columns = ["stage", "output", "ms", "share %", "attention %", *["device attention %"] * on_device]
    columns += [] if narrow else ["marks %", "profiler %", "blocks"]
    lines = []
    for row in facts.details:
        size = "x".join(map(str, row.output_size))
        line = [row.stage, size, _milliseconds(row.seconds), _value(row.share), _estimate(row.attention_share)]
        line += [_estimate(row.attention_device_share)] if on_device else []
        if not narrow:
            line += [_value(row.marked_attention_share), _percent(row.profiler_attention_share), str(row.blocks)]
        lines.append(tuple(line))
    side = facts.conditions.guessed_side
    notes = (f"{side} px images: nothing says which it is made for; choose with --img-size",) if side else ()
    heads = tuple(Column(name, numeric=name != "stage") for name in columns)
    return Table(f"Stages of {title}", heads, tuple(lines), notes)


def _arithmetic(rows: Sequence[PartRow]) -> list[str]:
    limits: list[tuple[str, Limits | None]] = [(row.part, row.limits) for row in rows]
    limits += [(f"{row.part} on the device", row.on_device.limits) for row in rows if row.on_device]
    return [f"{part}: {bounds.arithmetic}" for part, bounds in limits if bounds and bounds.arithmetic]


def _remarks(facts: ProfileFacts) -> list[str]:
    summary, asked = facts.summary, facts.conditions.batch_size
    ran = summary.conditions.batch_size
    remarks = [] if ran == asked else [f"out of memory: ran with batch {ran}, not {asked}"]
    remarks += [f"{name} missing: {why}" for name, why in summary.missing.items()]
    whole = dict.fromkeys(row.missing["share"] for row in facts.rows if "share" in row.missing)
    remarks += [f"squeeze, excitation and scale missing: {why}" for why in whole]
    remarks += [summary.reason] if summary.reason else []
    if summary.unread:
        remarks.append(_unread(summary.unread))
    if summary.on_device and summary.seconds:
        remarks.append(_waiting(summary.on_device, summary.seconds))
    if summary.control:
        remarks.append(f"A/A control {100 * summary.control.value:+.2f} %, {summary.rounds} rounds")
    return remarks


def _waiting(call: DeviceCall, seconds: float) -> str:
    kernels = f", {call.kernels} kernels" if call.kernels else ""
    waits = max(0.0, 1 - call.seconds / seconds)
    works = f"the device works {significant(call.seconds, scale=1e3)} ms of a call{kernels}"
    return f"{works}; {100 * waits:.0f} % of it is the host's"


def _unread(unread: Unread) -> str:
    forms = {"with early gates": unread.early, "without attention": unread.without}
    others = ", ".join(f"{100 * share:.1f} % {form}" for form, share in forms.items() if share is not None)
    beside = f" ({others})" if others else ""
    return f"never read: {100 * unread.network:.1f} % of the multiply-adds{beside}, which deploy does not compute"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return EMPTY
    bounds = f" [{100 * estimate.ci[0]:.2f}, {100 * estimate.ci[1]:.2f}]" if estimate.ci else EMPTY
    return f"{100 * estimate.value:.2f}{bounds}"


def _value(estimate: Estimate | None) -> str:
    return EMPTY if estimate is None else f"{100 * estimate.value:.2f}"


def _percent(value: float | None) -> str:
    return EMPTY if value is None else f"{100 * value:.2f}"


def _milliseconds(value: float | None) -> str:
    return significant(value, 3, 1e3)


def _megabytes(value: float | None) -> str:
    return EMPTY if value is None else f"{value / 1e6:.1f}"


def _plain(value: object) -> str:
    return EMPTY if value is None else str(value)
