"""`train`: one network by a recipe, resumable at any moment, alone or as one process of a torchrun job."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_bench.core.files import check_folder
from senet_bench.core.learning import EpochRow, TrainSummary
from senet_bench.core.learning import Training as Document
from senet_bench.core.progress import Progress, Steps, retold
from senet_bench.core.recipes import smaller_batch
from senet_bench.core.store import Store
from senet_bench.errors import UsageError
from senet_bench.run import reuse
from senet_bench.run.record import Record, new_facts
from senet_bench.run.seen_data import check_unchanged
from senet_bench.run.training import TrainingRequest

if TYPE_CHECKING:
    from senet_bench.training.distributed import World
    from senet_bench.training.objective import Aim
    from senet_bench.training.start import Start


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a task brings to training: how its images are read, its objective, and how its network is made ready.

    `count` says how many of the images are trained on. `prepare` changes the network in place, before its first step,
    and gives what a reader must know of that.
    """

    read: Callable[[TrainingRequest], Any]
    count: Callable[[Any], int]
    objective: Aim
    prepare: Callable[[TrainingRequest, Any], tuple[str, ...]]


def classification() -> Lesson:
    """The lesson of classifiers."""
    from senet_bench.training.objective import Classifying

    return Lesson(TrainingRequest.read, lambda images: len(images.training()), Classifying, lambda *_: ())


def train(request: TrainingRequest, store: Store, lesson: Lesson) -> Steps[Record[Document]]:
    """The record of a training run, its weights beside it; progress about once a second and every epoch.

    What is stored with its weights is not trained again. Under torchrun every process trains, and the first alone
    writes.
    """
    from senet_bench.bench.machine import check_conditions, environment
    from senet_bench.core.specs import Conditions
    from senet_bench.training import loop, weights
    from senet_bench.training.distributed import gathered, joined, own

    check_conditions(Conditions(device=request.device, precision=request.precision))
    request.check()
    store.check()
    request = request.prepared()
    tracker = _tracker(request.track)
    images = lesson.read(request)
    asked, request = request.resolved(), request.filled(lesson.count(images))
    identity = request.identity(images)
    check_unchanged(store.trials(environment().machine), request.folder, identity.data, fresh=request.fresh)
    out = _out(request, store, identity.key)
    with joined(request.device) as world:
        before = reuse.before(store, request, identity.key, out)
        if all(gathered(before.complete and not request.fresh, world)):
            return before.record(request, store, out, world.size)
        request = replace(request, resume=request.resume and not before.left_out)
        begun = _begun(request, images)
        network, images = begun.network, begun.images
        normalised = {} if request.spec.task == "detection" else {"normalisation": images.normalisation}
        notes = [*images.notes, *smaller_batch(asked, request.resolved()), *begun.notes]
        notes += [*lesson.prepare(request, network), *before.notes(), *_error_before(request, begun, world)]
        notes += request.about_processes(world.size)
        conditions = request.conditions(notes, world.size)
        record: Record[Document] = Record.begin(store, new_facts("train", conditions, TrainSummary()))
        checkpoint = out.with_suffix(".checkpoint")
        settings, resumed = request.settings(checkpoint), request.resume and checkpoint.is_file()
        settings = replace(settings, device=own(request.device, world), identity={**identity.parts(), **normalised})

        def ended(row: EpochRow) -> None:
            _put(record, world, rows=[*record.document.rows, row])
            _track(tracker, row)

        steps = loop.train(network, images, request.resolved(), settings, world, lesson.objective, ended)
        yield from retold(steps, lambda step: _moment(record, step, settings.checkpoint))
        if world.is_main:
            weights.save(network, out, request.spec, **request.described(), **normalised, key=identity.key)
            reuse.keep(request, record, images, identity, resumed=resumed)
        last = _last(record.document.rows) or before.errors()
        _put(record, world, summary=TrainSummary(weights=str(out), checkpoint=str(settings.checkpoint), **last))
    return record


def _out(request: TrainingRequest, store: Store, key: str) -> Path:
    """Where the weights go; raises where they cannot, or where those of another training lie."""
    from senet_bench.training import weights

    out = request.out or store.trained_weights(request.spec.name, request.dataset, request.resolved().name, key)
    if out.exists() and not out.is_file():
        kind = "a folder" if out.is_dir() else "no regular file"
        raise UsageError(f"--out {out} is {kind}", "name a file")
    check_folder(out.parent)
    weights.check_key(out, key)
    return out


def _moment(record: Record[Document], step: Progress, checkpoint: Path | None) -> Progress:
    """A moment of the training, which says how to go on from here where that is possible."""
    moment = record.progress(step.what, step.done, step.total)
    return replace(moment, remedy="go on with --resume") if checkpoint and checkpoint.is_file() else moment


def _put(record: Record[Document], world: World, **fields: Any) -> None:
    """Put fields of the document in place, stored by the first process alone."""
    if world.is_main:
        record.change(**fields)
    else:
        record.document = replace(record.document, **fields)


def _begun(request: TrainingRequest, images: Any) -> Start:
    import torch

    from senet_bench.models import build_spec
    from senet_bench.training import weights
    from senet_bench.training.start import Start, start_of_training

    spec = request.spec
    if request.is_trial:
        return start_of_training(spec, images, request.seed, request.weights)
    torch.manual_seed(request.seed)
    if request.weights is None:
        network = build_spec(spec, len(images.classes), in_channels=images.channels)
        notes = weights.load_trunk(network, spec, request.trunk_weights) if request.trunk_weights else ()
        return Start(images, network, notes)
    loaded = weights.load_weights(
        spec,
        request.weights,
        classes=len(images.classes),
        in_channels=images.channels,
        average=request.average,
        head="new",
    )
    loaded, images = loaded.on(images)
    return Start(images, loaded.network, loaded.notes)


def _error_before(request: TrainingRequest, begun: Start, world: World) -> tuple[str, ...]:
    """What a network that is trained already errs before the first step."""
    if not request.is_trial or request.weights is None:
        return ()
    from senet_bench.training.objective import Classifying

    aim = Classifying(begun.images, request.resolved(), request.settings(Path()), world)
    tested = aim.tested(begun.network.to(aim.device))
    return (f"before the first step its top-1 error is {100 * (tested['top1_err'] or 0):.2f} %",)


def _last(rows: Sequence[EpochRow]) -> dict[str, Any]:
    """The errors, or average precisions, of the last epoch that was evaluated."""
    tested = [row for row in rows if row.top1_err is not None or row.ap is not None]
    names = ("epoch", "top1_err", "top5_err", "test_loss", "ap", "ap50")
    return {name: getattr(tested[-1], name) for name in names} if tested else {}


def _tracker(folder: Path | None) -> Any:
    """A writer of TensorBoard event files, None when not asked for."""
    if folder is None:
        return None
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise UsageError("TensorBoard is not installed", "run: python -m pip install 'senet-bench[track]'") from error
    return module.SummaryWriter(str(folder))


def _track(tracker: Any, row: EpochRow) -> None:
    if tracker is None:
        return
    for name, value in asdict(row).items():
        if name not in ("epoch", "epochs") and value is not None:
            tracker.add_scalar(name, value, row.epoch)
    tracker.flush()
