"""`freeze`: which gates of a trained network can be held at their means, and the network without those blocks.

The means are of training images, the choice is made on one half of the test images, and what is reported on the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from senet_bench.core.files import check_writable, file_name
from senet_bench.core.intervals import Paired
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.results import Latency
from senet_bench.core.specs import Conditions, ModelSpec
from senet_bench.core.store import Store
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.gates.freezing_rows import FreezeConditions, FreezeFacts, FreezeRow, FreezeSummary, FrozenState
from senet_bench.gates.rows import ErrorChange
from senet_bench.gates.subject import fitted_spec, shown_at, weighted
from senet_bench.run.cases import Changes, label
from senet_bench.run.record import Record, new_facts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from senet_bench.data.sets import DataSet, LabelArray
    from senet_bench.gates.watch import Watch
    from senet_bench.training.evaluation import Predictions, Viewing
    from senet_bench.training.weights import Loaded

AS_IS, FROZEN = "as it is", "frozen"
ConstantGates = dict[str, "Tensor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezing:
    """What `freeze` is asked: a network, its weights, and the images.

    `max_loss` is in points; `images` is the most that the means are taken from; `timing_s` the seconds for the
    latency, None for none. `out` is the file of the frozen weights, by default one in the results folder.
    """

    model: str
    weights: str
    dataset: str = "digits"
    folder: Path | None = None
    max_loss: float = 0.2
    out: Path | None = None
    images: int = 1000
    size: int | None = None
    seed: int = 0
    device: str = "cpu"
    timing_s: float | None = 10.0
    changes: Changes = field(default_factory=Changes)

    def check(self) -> None:
        """Raise `UsageError` on what cannot be frozen."""
        if self.model.lower().endswith(".onnx"):
            raise UsageError(f"{self.model}: ONNX files cannot be frozen", "name a network and its --weights")
        if not 0 < self.max_loss <= 100:
            raise UsageError(f"--max-loss {self.max_loss:g} is no loss in points", "use 0.2")
        if self.out is not None:
            check_writable(self.out)

    def spec(self) -> ModelSpec:
        """The network's row, fitted to the data set."""
        return fitted_spec(self.model, replace(self.changes, img_size=self.size), self.dataset)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A network with weights, the data set, and the rows of its images that each step is shown."""

    loaded: Loaded
    images: DataSet
    learnt: DataSet
    calibration: LabelArray
    decision: LabelArray
    report: LabelArray
    viewing: Viewing

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as the network sees it."""
        side = self.viewing.size or self.images.size
        return (self.images.channels, side, side)

    def watch(self, network: nn.Module, rows: LabelArray, *, learnt: bool = False) -> Watch:
        """Some of the test images, or of those learnt from, to be shown to a network."""
        from senet_bench.gates.watch import Watch

        return Watch(network, self.learnt if learnt else self.images, rows, self.viewing)


def freeze(asked: Freezing, store: Store) -> Steps[Record[FreezeFacts]]:
    """The record of a run with a row for every block; the frozen network's weights are written beside."""
    asked.check()
    spec = asked.spec()
    from senet_bench.bench.machine import check_conditions

    check_conditions(Conditions(device=asked.device))
    store.check()
    yield Progress(f"weights of {label(spec)}", 0, 4)
    subject = _subject(asked, spec)
    network = subject.loaded.network.to(asked.device)
    calibrated = subject.watch(network, subject.calibration, learnt=True)
    if not calibrated.blocks:
        raise UsageError(f"{spec.name} has no gates to freeze", "name a network with attention")
    means, alone = yield from _calibrated(calibrated, len(subject.calibration))
    rows, gates = yield from _chosen(asked, subject, calibrated, means, alone)
    record = Record[FreezeFacts].begin(store, new_facts("freeze", _conditions(asked, subject)))
    summary = yield from _reported(asked, subject, gates, len(means), record)
    record.change(rows=rows, summary=summary)
    return record


def _subject(asked: Freezing, spec: ModelSpec) -> _Subject:
    """The network with its weights; the training images, and the test images in two halves."""
    from senet_bench.gates.watch import drawn_rows

    loaded, images = weighted(spec, asked.weights, asked.dataset, asked.folder, as_trained=True)
    learnt = replace(images, test=images.training())
    viewing = shown_at(spec, images, asked.device, size=asked.size)
    calibration = drawn_rows(learnt.test.labels, max(1, asked.images // len(images.classes)), asked.seed)
    return _Subject(loaded, images, learnt, calibration, *_halves(images.test.labels, asked.seed), viewing)


def _halves(labels: LabelArray, seed: int) -> tuple[LabelArray, LabelArray]:
    """The rows of two halves of a split, drawn by the seed, with as many of each class."""
    import numpy as np

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])


def _calibrated(watch: Watch, images: int) -> Steps[tuple[ConstantGates, dict[str, float]]]:
    """The mean gates of each block, and what holding it alone at them adds to the mean loss."""
    yield from _shown(watch.observe(), "gates", images, 0)
    means = watch.means()
    yield from _shown(watch.hold({name: {name: gate} for name, gate in means.items()}), "gates held", images, 1)
    return means, {name: watch.held[name].loss - watch.seen.loss for name in means}


def _shown(steps: Iterator[int], what: str, images: int, stage: float) -> Iterator[Progress]:
    for done in steps:
        yield Progress(f"{what}: {done} of {images} images", stage + done / (images + 1), 4)


def _chosen(
    asked: Freezing, subject: _Subject, calibrated: Watch, means: ConstantGates, alone: Mapping[str, float]
) -> Steps[tuple[list[FreezeRow], ConstantGates]]:
    """Block by block, the least harmful first: frozen where the loss of all so far stays within the margin.

    Chosen is the last set whose interval ends inside the margin; where none does, all that were frozen.
    """
    watch, margin = subject.watch(subject.loaded.network, subject.decision), asked.max_loss / 100
    yield from _shown(watch.hold({AS_IS: {}}), AS_IS, len(subject.decision), 2)
    rows: list[FreezeRow] = []
    frozen: ConstantGates = {}
    for place, name in enumerate(sorted(means, key=lambda name: alone[name])):
        tried = {**frozen, name: means[name]}
        row = _row(calibrated, subject, name, means[name], alone[name])
        reason = _unfoldable(subject, tried)
        if reason is None:
            held = watch.hold({FROZEN: tried})
            yield from _shown(held, f"block {place + 1} of {len(means)}", len(subject.decision), 2 + place / len(means))
            change = _change(watch.held[AS_IS], watch.held[FROZEN])
            row = replace(row, difference=change, outcome="frozen" if change.value <= margin else "loss")
            frozen = tried if row.outcome == "frozen" else frozen
        rows.append(replace(row, reason=reason))
    last = max((place for place, row in enumerate(rows) if _is_inside(row, margin)), default=len(rows))
    rows = [replace(row, outcome="beyond") if _is_beyond(row, place, last) else row for place, row in enumerate(rows)]
    return rows, {row.block: means[row.block] for row in rows if row.outcome == "frozen"}


def _is_inside(row: FreezeRow, margin: float) -> bool:
    change = row.difference
    return row.outcome == "frozen" and change is not None and change.ci is not None and change.ci[1] < margin


def _is_beyond(row: FreezeRow, place: int, last: int) -> bool:
    return row.outcome == "frozen" and place > last


def _row(calibrated: Watch, subject: _Subject, name: str, gate: Tensor, alone: float) -> FreezeRow:
    return FreezeRow(
        model=subject.loaded.spec.name,
        block=name,
        stage=calibrated.stage(name),
        channels=len(gate),
        mean_gate=float(gate.mean()),
        alone=alone,
        outcome="not folded",
    )


def _unfoldable(subject: _Subject, gates: ConstantGates) -> str | None:
    """Why these gates cannot be folded; None where they can."""
    from senet_bench.models.folding import folded

    try:
        folded(subject.loaded.network, gates, subject.input_size)
    except UsageError as error:
        return error.problem
    return None


def _change(first: Predictions, second: Predictions) -> ErrorChange:
    from senet_bench.training.evaluation import paired_errors

    paired: Paired = paired_errors(first, second)
    assert paired.p_value is not None  # McNemar's test has one for any number of images
    return ErrorChange(value=paired.difference, ci=paired.ci, confidence=paired.confidence, p=paired.p_value)


def _reported(
    asked: Freezing, subject: _Subject, gates: ConstantGates, blocks: int, record: Record[FreezeFacts]
) -> Steps[FreezeSummary]:
    """Both networks on the images that nothing was decided on, what they cost, and the file of the frozen one."""
    from senet_bench.models.folding import folded

    network = subject.loaded.network
    first = subject.watch(network, subject.report)
    yield from _shown(first.hold({AS_IS: {}}), "report", len(subject.report), 3)
    as_is = _state(network, first.held[AS_IS], blocks, subject)
    if not gates:
        return FreezeSummary(as_is=as_is, skipped=list(first.held[AS_IS].skipped))
    plain = folded(network, gates, subject.input_size)
    second = subject.watch(plain, subject.report)
    yield from _shown(second.hold({FROZEN: {}}), "report", len(subject.report), 3.5)
    change = _change(first.held[AS_IS], second.held[FROZEN])
    margin = asked.max_loss / 100
    shown = change.ci is not None and change.ci[1] < margin
    name = file_name(subject.loaded.spec.name, asked.dataset, FROZEN, record.path.stem.rpartition("-")[2])
    path = asked.out or record.store.weights / f"{name}.safetensors"
    file = _written(asked, subject, plain, list(gates), blocks, path)
    latency, missing = yield from _timed(asked, subject, plain)
    return FreezeSummary(
        as_is=as_is,
        frozen=_state(plain, second.held[FROZEN], blocks - len(gates), subject),
        difference=change,
        shown=shown,
        needed=None if shown else _needed(first.held[AS_IS], second.held[FROZEN], margin),
        latency=latency,
        latency_missing=missing,
        file=str(file),
        skipped=list(first.held[AS_IS].skipped),
    )


def _state(network: nn.Module, seen: Predictions, blocks: int, subject: _Subject) -> FrozenState:
    from senet_bench.bench.count import count

    params = sum(parameter.numel() for parameter in network.parameters())
    macs = count(network, subject.input_size).macs
    return FrozenState(blocks=blocks, error=seen.top1_err, ci=seen.interval(), params=params, macs=macs)


def _needed(first: Predictions, second: Predictions, margin: float) -> int:
    """Images that would show no loss beyond the margin, if the networks differ on as many as here and lose nothing."""
    differing = (int((first.wrong != second.wrong).sum()) + 1) / (len(first) + 2)
    return math.ceil(1.96**2 * differing / margin**2)


def _written(
    asked: Freezing, subject: _Subject, plain: nn.Module, frozen: Sequence[str], blocks: int, path: Path
) -> Path:
    """The file of the frozen weights: of the baseline where it has no blocks left, else of the network without some."""
    from senet_bench.training import weights

    spec = subject.loaded.spec
    told = {key: subject.loaded.metadata[key] for key in KEPT_FACTS if key in subject.loaded.metadata}
    left = {} if len(frozen) == blocks and spec.baseline else {"frozen": list(frozen)}
    if not left and spec.baseline:
        spec = replace(spec, name=spec.baseline, attention=None)
    weights.save(plain, path, spec, **{**told, **left, "dataset": asked.dataset, "frozen_from": asked.weights})
    return path


KEPT_FACTS = ("recipe", "epochs", "seed")
"""What frozen weights say of the training of those that they were made from."""


def _timed(asked: Freezing, subject: _Subject, plain: nn.Module) -> Steps[tuple[Latency | None, str | None]]:
    """The latency of the frozen network beside the network as it is, or why there is none."""
    from senet_bench.bench.latency import measure_networks
    from senet_bench.bench.rounds import Plan

    if asked.timing_s is None:
        return None, "not timed (--no-latency)"
    networks = {AS_IS: subject.loaded.network, FROZEN: plain}
    conditions, plan = Conditions(device=asked.device), Plan(budget_s=asked.timing_s, seed=asked.seed)
    try:
        timed = yield from measure_networks(networks, AS_IS, subject.input_size, conditions=conditions, plan=plan)
        return timed.latency(FROZEN), timed.failed.get(FROZEN)
    except MeasurementError as error:
        return None, str(error)


def _conditions(asked: Freezing, subject: _Subject) -> FreezeConditions:
    loaded = subject.loaded
    return FreezeConditions(
        model=loaded.spec.name,
        label=label(loaded.spec),
        attention=loaded.spec.attention,
        dataset=asked.dataset,
        weights=Path(loaded.source).name,
        key=loaded.metadata.get("key"),
        notes=[*subject.images.notes, *loaded.notes],
        max_loss=asked.max_loss / 100,
        calibration=len(subject.calibration),
        decision=len(subject.decision),
        report=len(subject.report),
        size=subject.viewing.size or subject.images.size,
        seed=asked.seed,
        device=asked.device,
    )
