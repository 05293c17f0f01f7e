"""What `train` takes over from before: a stored trial, its weights, and the record that tells of their training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_bench.core.learning import Training as Document
from senet_bench.core.learning import TrainSummary, TrialResult
from senet_bench.core.results import Facts
from senet_bench.core.store import Store
from senet_bench.run.record import Record, header, new_facts

if TYPE_CHECKING:
    from senet_bench.core.identity import Identity
    from senet_bench.run.training import TrainingRequest


@dataclass(frozen=True, slots=True)
class Before:
    """What is there of a training: its trial, whether the file of its weights is, and the record with its epochs.

    `left_out` where one lies there that left images out, which are asked for now: it is not gone on with.
    """

    key: str = ""
    trial: TrialResult | None = None
    weights: bool = False
    told: tuple[Path, Document] | None = None
    left_out: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing is left to train: the weights are there, and what they err."""
        return self.weights and (self.trial is not None or self.told is not None)

    def errors(self) -> dict[str, Any]:
        """The errors of the stored trial, by the names of a summary."""
        names = ("top1_err", "top5_err", "test_loss")
        return {name: getattr(self.trial, name) for name in names} if self.trial else {}

    def notes(self) -> tuple[str, ...]:
        """What is said where it is trained although its trial is stored."""
        if self.trial is None:
            return ()
        why = "with --fresh" if self.weights else "for its weights"
        return (f"{self._stored()}; trained again {why}",)

    def record(self, request: TrainingRequest, store: Store, out: Path, processes: int) -> Record[Document]:
        """The record of the training that was, with its epochs where they were stored."""
        note = f"{self._stored()}; nothing was trained (--fresh trains again)"
        if self.told is not None:
            path, document = self.told
            about = document.conditions
            about = type(about)(**{**_fields(about), "notes": [*about.notes, note]})
            return Record(replace(document, conditions=about), store, path)
        summary = TrainSummary(weights=str(out), **self.errors())
        record: Record[Document] = Record.begin(
            store, new_facts("train", request.conditions([note], processes), summary)
        )
        if processes == 1:
            record.change()
        return record

    def _stored(self) -> str:
        if self.trial is None:
            return "this training has ended before"
        return f"trial {self.key} is stored, top-1 error {100 * self.trial.top1_err:.2f} %"


def before(store: Store, request: TrainingRequest, key: str, out: Path) -> Before:
    """What is there of the training of a key whose weights go to a file; raises on a damaged trial.

    Of what is no trial nothing is taken over unless it is to be resumed, and of a training that left unreadable images
    out nothing unless that is asked for again.
    """
    is_trial = request.is_trial
    if not (is_trial or request.resume):
        return Before()
    from senet_bench.bench.machine import environment
    from senet_bench.training import weights

    trial = store.trials(environment().machine).get(key) if is_trial else None
    known = out.is_file() and weights.key_in(out) == key
    told = next(_records(store, out), None) if known else None
    if told is not None and not request.skip_corrupt and any(row.skipped for row in told[1].rows):
        return Before(key, trial, left_out=True)
    return Before(key, trial, known, told)


def _records(store: Store, out: Path) -> Iterator[tuple[Path, Document]]:
    """The records of trainings whose weights went to a file, the newest first."""
    for path, document in reversed([*store.documents()]):
        if isinstance(document, Facts) and isinstance(document.summary, TrainSummary) and document.rows:
            weights = document.summary.weights
            if weights is not None and Path(weights).absolute() == out.absolute():
                yield path, document


def _fields(conditions: Any) -> dict[str, Any]:
    return {name: getattr(conditions, name) for name in conditions.__struct_fields__}


def keep(request: TrainingRequest, record: Record[Document], images: Any, identity: Identity, *, resumed: bool) -> None:
    """Store a training from no weights as the trial that it is, for `compare` and `ablate` to find.

    One that left unreadable images out is no trial, whose errors are over all of them. One that was `resumed` does not
    say how long it took, as it knows its last part alone.
    """
    from senet_bench.training.trials import trained_place

    rows, recipe, about = record.document.rows, request.resolved(), header("trial", {})
    last = rows[-1] if rows else None
    if not request.is_trial or last is None or last.top1_err is None or last.skipped:
        return
    result = TrialResult(
        model=request.spec.name,
        attention=request.spec.attention,
        dataset=images.name,
        recipe=recipe.name,
        lr=recipe.lr,
        epochs=recipe.epochs,
        seed=request.seed,
        precision=request.precision,
        images=len(images.test),
        top1_err=last.top1_err,
        top5_err=last.top5_err,
        test_loss=last.test_loss,
        seconds=None if resumed else sum(row.seconds for row in rows),
        processes=record.document.conditions.processes,
        **trained_place(request.device),
    )
    del about["schema"]
    record.store.trials(about["environment"].machine).put(identity.key, identity.as_dict(), result, about)
