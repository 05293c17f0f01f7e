"""`freeze`: which gates of a trained network can be held at their means, and the network without those blocks.

The means are of training images, the choice is made on one half of the test images, and what is reported on the other.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from senet_bench.core.files import file_name
from senet_bench.core.intervals import Paired
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.specs import Conditions
from senet_bench.core.store import Store
from senet_bench.errors import UsageError
from senet_bench.gates.freezing_rows import FreezeConditions, FreezeFacts, FreezeRow, FreezeSummary, FrozenState
from senet_bench.gates.rows import ErrorChange
from senet_bench.gates.subject import fitted_spec
from senet_bench.gates.trained import FixedGates, Freezing, TimedOrReason, TrainedSubject
from senet_bench.run.cases import label
from senet_bench.run.record import Record, new_facts

if TYPE_CHECKING:
    from senet_bench.core.statistics import Floats
    from senet_bench.training.evaluation import Predictions

AS_IS, FROZEN = "as it is", "frozen"
Value = TypeVar("Value")


def freeze(request: Freezing, store: Store) -> Steps[Record[FreezeFacts]]:
    """The record of a run with a row for every block; the frozen network is written beside."""
    request.check()
    trained = yield from _trained(request, store)
    calibration = len(trained.parts["calibration"])
    gates = yield from _shown(trained.means(), "gates", calibration, 0)
    if not gates:
        raise UsageError(f"{trained.about.model} has no gates to freeze", "name a network with attention")
    rows, chosen = yield from _chosen(request, trained, gates)
    record = Record[FreezeFacts].begin(store, new_facts("freeze", _conditions(request, trained)))
    summary = yield from _reported(request, trained, chosen, len(gates), record)
    record.change(rows=rows, summary=summary)
    return record


def _trained(request: Freezing, store: Store) -> Steps[TrainedSubject]:
    """The network with its weights, or the file of ONNX, and its images."""
    if request.of_onnx:
        store.check()
        yield Progress(request.model, 0, 4)
        from senet_bench.gates.trained_graph import trained_graph

        return trained_graph(request)
    spec = fitted_spec(request.model, replace(request.changes, img_size=request.size), request.dataset)
    from senet_bench.bench.machine import check_conditions
    from senet_bench.gates.trained_network import trained_network

    check_conditions(Conditions(device=request.device))
    store.check()
    yield Progress(f"weights of {label(spec)}", 0, 4)
    return trained_network(request, spec)


def _shown(steps: Generator[int, None, Value], what: str, images: int, stage: float) -> Steps[Value]:
    """What some steps over images give, with a bar of how many were shown."""
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            value: Value = end.value
            return value
        yield Progress(f"{what}: {done} of {images} images", stage + done / (images + 1), 4)


def _chosen(request: Freezing, trained: TrainedSubject, gates: FixedGates) -> Steps[tuple[list[FreezeRow], FixedGates]]:
    """Block by block, the least harmful first: frozen where the loss of all so far stays within the margin.

    Chosen is the last set whose interval ends inside the margin; where none does, all that were frozen.
    """
    margin, images = request.max_loss / 100, len(trained.parts["decision"])
    alone = yield from _alone(trained, gates)
    answers = yield from _shown(trained.errors("decision", {AS_IS: {}}), AS_IS, images, 2)
    rows: list[FreezeRow] = []
    frozen: dict[str, Floats] = {}
    for place, name in enumerate(sorted(gates, key=lambda name: alone[name])):
        tried = {**frozen, name: gates[name]}
        row = _row(trained, name, gates, alone[name])
        obstacle = trained.obstacle(tried)
        if obstacle is None:
            held = trained.errors("decision", {FROZEN: tried})
            shown = yield from _shown(held, f"block {place + 1} of {len(gates)}", images, 2 + place / len(gates))
            change = _change(answers[AS_IS], shown[FROZEN])
            row = replace(row, difference=change, outcome="frozen" if change.value <= margin else "loss")
            frozen = tried if row.outcome == "frozen" else frozen
        rows.append(replace(row, reason=obstacle))
    last = max((place for place, row in enumerate(rows) if _is_inside(row, margin)), default=len(rows))
    rows = [replace(row, outcome="beyond") if _is_beyond(row, place, last) else row for place, row in enumerate(rows)]
    chosen = {row.block: gates[row.block] for row in rows if row.outcome == "frozen"}
    return [replace(row, reason=row.reason or _remark(trained, chosen, row.block)) for row in rows], chosen


def _remark(trained: TrainedSubject, chosen: FixedGates, block: str) -> str | None:
    return trained.remark(chosen, block) if block in chosen else None


def _alone(trained: TrainedSubject, gates: FixedGates) -> Steps[dict[str, float]]:
    """What holding each block alone adds to the mean loss on the calibration images."""
    variants: dict[str, FixedGates] = {AS_IS: {}, **{name: {name: gate} for name, gate in gates.items()}}
    images = len(trained.parts["calibration"])
    answers = yield from _shown(trained.errors("calibration", variants), "gates held", images, 1)
    return {name: answers[name].loss - answers[AS_IS].loss for name in gates}


def _is_inside(row: FreezeRow, margin: float) -> bool:
    change = row.difference
    return row.outcome == "frozen" and change is not None and change.ci is not None and change.ci[1] < margin


def _is_beyond(row: FreezeRow, place: int, last: int) -> bool:
    return row.outcome == "frozen" and place > last


def _row(trained: TrainedSubject, name: str, gates: FixedGates, alone: float) -> FreezeRow:
    return FreezeRow(
        model=trained.about.model,
        block=name,
        stage=trained.stage(name),
        channels=len(gates[name]),
        mean_gate=float(gates[name].mean()),
        alone=alone,
        outcome="not folded",
    )


def _change(first: Predictions, second: Predictions) -> ErrorChange:
    from senet_bench.training.evaluation import paired_errors

    paired: Paired = paired_errors(first, second)
    assert paired.p_value is not None  # McNemar's test has one for any number of images
    return ErrorChange(value=paired.difference, ci=paired.ci, confidence=paired.confidence, p=paired.p_value)


def _reported(
    request: Freezing, trained: TrainedSubject, gates: FixedGates, blocks: int, record: Record[FreezeFacts]
) -> Steps[FreezeSummary]:
    """Both networks on the images that nothing was decided on, what they cost, and the file of the frozen one."""
    images = len(trained.parts["report"])
    first = (yield from _shown(trained.errors("report", {AS_IS: {}}), "report", images, 3))[AS_IS]
    as_is = _state(trained, first, blocks)
    if not gates:
        return FreezeSummary(as_is=as_is, skipped=list(first.skipped))
    plain = trained.without(gates)
    second = (yield from _shown(plain.errors("report", {FROZEN: {}}), "report", images, 3.5))[FROZEN]
    change = _change(first, second)
    margin = request.max_loss / 100
    shown = change.ci is not None and change.ci[1] < margin
    name = file_name(trained.about.model, request.dataset, FROZEN, record.path.stem.rpartition("-")[2])
    file = trained.write(request.out, plain, list(gates), (record.store.weights, name))
    timed: TimedOrReason = (None, "not timed (--no-latency)")
    if request.timing_s is not None:
        timed = yield from trained.timed(plain, request.timing_s, request.seed)
    return FreezeSummary(
        as_is=as_is,
        frozen=_state(plain, second, blocks - len(gates)),
        difference=change,
        shown=shown,
        needed=None if shown else _needed(first, second, margin),
        latency=timed[0],
        latency_missing=timed[1],
        file=str(file),
        skipped=list(first.skipped),
    )


def _state(trained: TrainedSubject, seen: Predictions, blocks: int) -> FrozenState:
    params, macs = trained.costs()
    return FrozenState(blocks=blocks, error=seen.top1_err, ci=seen.interval(), params=params, macs=macs)


def _needed(first: Predictions, second: Predictions, margin: float) -> int | None:
    """Images that would show no loss beyond the margin, if the networks differ on as many as here and lose nothing.

    None where these images were enough for that: then it is the loss seen that is in the way.
    """
    from senet_bench.core.intervals import images_for

    images = images_for(int((first.wrong != second.wrong).sum()), len(first), margin)
    return images if images > len(first) else None


def _conditions(request: Freezing, trained: TrainedSubject) -> FreezeConditions:
    about, images = trained.about, {part: len(rows) for part, rows in trained.parts.items()}
    return FreezeConditions(
        model=about.model,
        label=about.label,
        attention=about.attention,
        dataset=request.dataset,
        weights=about.weights,
        key=about.key,
        notes=list(about.notes),
        max_loss=request.max_loss / 100,
        calibration=images["calibration"],
        decision=images["decision"],
        report=images["report"],
        size=trained.side,
        seed=request.seed,
        device=request.device,
    )
