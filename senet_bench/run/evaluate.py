"""`evaluate`: the error of networks with weights on a data set, and the difference of two on the same images."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import structs

from senet_bench.core.catalog import resolve
from senet_bench.core.datasets import check_side
from senet_bench.core.error_cells import Asked, error_cell, gain_cells
from senet_bench.core.files import check_folder, check_writable, write_atomically
from senet_bench.core.learning import ClassifierRow, EvaluationConditions, EvaluationRow
from senet_bench.core.learning import Evaluation as Document
from senet_bench.core.paper import CellStatus
from senet_bench.core.progress import Steps
from senet_bench.core.reproduction import is_error, paper_cells
from senet_bench.core.results import Latency
from senet_bench.core.runtimes import RUNTIMES, check_known
from senet_bench.core.specs import ATTACH, Conditions, ModelSpec, Precision, Runtime, is_outside
from senet_bench.core.store import Store
from senet_bench.core.stored_errors import NetworkKey, StoredError, StoredErrors, of_evaluation, trial_errors
from senet_bench.core.studies import STUDIES
from senet_bench.errors import UsageError
from senet_bench.run.cases import Changes, label, spec_of
from senet_bench.run.record import Record, new_facts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from senet_bench.bench.clock import Call
    from senet_bench.data.labels import Labels
    from senet_bench.data.sets import DataSet, Split
    from senet_bench.training.evaluation import Predictions, Viewing
    from senet_bench.training.weights import Loaded

COMPARABLE = ("dataset", "images", "size", "precision", "recipe", "epochs")
"""What two evaluations must have in common."""
USUAL_BATCH = 64
CALIBRATION_IMAGES = 512
"""Training images, at most, by which a network is quantised."""
V2 = "ImageNetV2"
"""What images are called that have labels of their own."""


class DataFacts(Protocol):
    """What an evaluation says of its data set, whatever the networks do with it."""

    @property
    def test(self) -> Sized:
        """The images looked at."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What `evaluate` is asked: networks with their weights, and the images they are shown.

    `size` is the side of the single centre crop in pixels, by default the network's own (the shorter edge is first
    scaled to 256 for 224, to 352 for 299 and 320); for a detector, which sees whole images, their shorter side, by
    default 800. `batch_size` is 64 unless given, for a detector 1. `fidelity="fast"` may differ by one grey level from
    PIL's resize. `labels` are those of ImageNetV2, with its images, or ImageNet-Real's in a file. `average`
    chooses between the raw weights of a file and their average (EMA). Every network is shown them in each of
    `runtimes`; those in INT8 are calibrated by training images. `timing_s` are the seconds for their latency, a batch
    each, None for none.
    """

    models: tuple[str, ...]
    weights: tuple[str, ...]
    dataset: str
    folder: Path | None = None
    size: int | None = None
    batch_size: int | None = None
    device: str = "cpu"
    precision: Precision = "fp32"
    fidelity: Literal["exact", "fast"] = "exact"
    cache: Path | None = None
    per_class: Path | None = None
    predictions: Path | None = None
    skip_corrupt: bool = False
    labels: str | None = None
    notes: tuple[str, ...] = ()
    average: bool | None = None
    runtimes: tuple[Runtime, ...] = ("eager",)
    timing_s: float | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` unless there are weights for every network."""
        if not self.models or len(self.weights) != len(self.models):
            raise UsageError(
                f"{len(self.models)} networks and {len(self.weights)} weights given",
                "give one --weights for each network",
            )
        for runtime in self.runtimes:
            check_known(runtime)
            if runtime != "eager" and not RUNTIMES[runtime].int8:
                exact = ", ".join(name for name, facts in RUNTIMES.items() if facts.int8)
                raise UsageError(f"{runtime} gives the outputs of eager", f"choose from eager, {exact}")

    def specs(self) -> list[ModelSpec]:
        """The networks; those from outside at the size of the images that they are shown.

        What is attached to them is the attention that their weights were trained with.
        """
        return [self._spec(model, weights) for model, weights in zip(self.models, self.weights)]

    def _spec(self, model: str, weights: str) -> ModelSpec:
        changes = Changes(img_size=self.size if is_outside(model) else None)
        if not (is_outside(model) and model.endswith(ATTACH)):
            return spec_of(model, changes)
        from senet_bench.models import outside
        from senet_bench.training.weights import attention_in

        return outside.attached(spec_of(model.removesuffix(ATTACH), changes), attention_in(weights))


def evaluate(request: EvaluationRequest, store: Store) -> Steps[Record[Document]]:
    """The record of all errors of classifiers and, of several, each difference to the first."""
    specs = checked(request, store)
    images, labels = _labelled(request)
    record, seen, trials = begun(request, images, store), list[Any](), trial_errors(store)
    names, networks = names_of(specs), list[Any]()
    total = len(specs) * len(request.runtimes)
    for spec, name, source in zip(specs, names, request.weights):
        for runtime in request.runtimes:
            row, predictions, network = _evaluated(
                request, images, labels, spec, _file_name(name, runtime), source, runtime
            )
            seen.append(predictions)
            networks += [network] if request.timing_s is not None else []
            row = _against(record.document.rows, seen, row)
            record.add(structs.replace(row, paper=beside_paper(row, trials)))
            yield record.progress(row.label, len(seen), total)
    if request.per_class is not None:
        files = [_file_name(name, runtime) for name in names for runtime in request.runtimes]
        write_atomically(request.per_class, _by_class(images, files, seen))
    if request.timing_s is not None:
        latencies = yield from _timed(request, networks, (images.channels, row.size, row.size))
        for place, latency in enumerate(latencies):
            record.put(place, structs.replace(record.document.rows[place], latency=latency))
    return record


def _file_name(name: str, runtime: Runtime) -> str:
    return name if runtime == "eager" else f"{name}-{runtime.replace(':', '-')}"


def _labelled(request: EvaluationRequest) -> tuple[DataSet, Labels | None]:
    """The images, and other labels for them where those are asked for."""
    from senet_bench.data import labels, sets
    from senet_bench.training.weights import draw_in

    if request.labels is None:
        draws = sorted({draw_in(source, request.dataset) for source in request.weights})
        if len(draws) > 1:
            seeds = " and ".join(map(str, draws))
            raise UsageError(
                f"the weights of seeds {seeds} were trained on other draws of {request.dataset}: "
                "no test images are new to all of them",
                "evaluate them one by one, or train on digits-full",
            )
        return sets.load_images(request.dataset, request.folder, draw=draws[0]), None
    if request.dataset != "imagenet":
        raise UsageError(f"--labels are for ImageNet, not {request.dataset}", "use --dataset imagenet")
    if request.labels.lower() in labels.OF_V2:
        return labels.images_of_v2(request.folder), None
    images = sets.load_images(request.dataset, request.folder)
    return images, labels.real_labels(Path(request.labels), images)


def checked(request: EvaluationRequest, store: Store) -> list[ModelSpec]:
    """The networks that are to be evaluated; raises on what could not be carried out or stored."""
    from senet_bench.bench.machine import check_conditions
    from senet_bench.core.specs import Conditions

    for runtime in request.runtimes:
        check_conditions(Conditions(device=request.device, precision=request.precision, runtime=runtime))
    check_side(request.dataset, request.size)
    store.check()
    if request.per_class is not None:
        check_writable(request.per_class)
    if request.predictions is not None:
        check_folder(request.predictions)
    return request.specs()


def begun(request: EvaluationRequest, images: DataFacts, store: Store) -> Record[Document]:
    """The record of an evaluation on these images, without a row yet."""
    notes = [*images.notes, *request.notes]
    conditions = EvaluationConditions(dataset=request.dataset, images=len(images.test), notes=notes)
    return Record.begin(store, new_facts("evaluate", conditions))


def names_of(specs: Sequence[ModelSpec]) -> list[str]:
    """What files call the networks; one that comes again, with other weights, is numbered."""
    models = [spec.name for spec in specs]
    before = [models[:place].count(model) for place, model in enumerate(models)]
    return [f"{model}-{count + 1}" if count else model for model, count in zip(models, before)]


def _evaluated(
    request: EvaluationRequest,
    images: DataSet,
    labels: Labels | None,
    spec: ModelSpec,
    name: str,
    source: str,
    runtime: Runtime,
) -> tuple[ClassifierRow, Predictions, nn.Module]:
    """The row of a network in a runtime, what it answers, and itself as it was shown the images."""
    from senet_bench.data.sets import Files
    from senet_bench.training import weights
    from senet_bench.training.evaluation import Viewing, predict

    loaded = weights.load_weights(
        spec,
        source,
        classes=len(images.classes),
        in_channels=images.channels,
        as_trained=True,
        average=request.average,
        head=images.classes,
    )
    loaded.check_whole()
    loaded, images = loaded.on(images)
    network = loaded.network.to(request.device)
    files = isinstance(images.test, Files)
    viewing = Viewing(
        size=request.size or (spec.input_size[1] if files else images.size),
        batch=request.batch_size or USUAL_BATCH,
        precision=request.precision,
        device=request.device,
        fidelity=request.fidelity,
        skip_corrupt=request.skip_corrupt,
    )
    if runtime != "eager":
        network = _in_int8(network, images, viewing, runtime)
    seen = predict(network, images, _shown(request, images.test, viewing), viewing)
    if request.predictions is not None:
        seen.save(request.predictions / f"{name}-{request.dataset}.npz")
    row = _row(loaded, viewing, images, seen if labels is None else seen.relabelled(labels.right))
    if runtime != "eager":
        calibrated = f"calibrated by {CALIBRATION_IMAGES} training images at most"
        row = structs.replace(
            row, runtime=runtime, label=f"{row.label}, {runtime}", trial=None, notes=[*row.notes, calibrated]
        )
    if labels is None:
        return structs.replace(row, labels=images.name if images.name == V2 else None), seen, network
    left_out = [f"{len(seen) - row.images:,} of {len(seen):,} images have no label in {labels.name}"]
    row = structs.replace(row, labels=labels.name, loss=None, notes=[*row.notes, *left_out])
    return row, seen.relabelled(labels.right), network


def _timed(
    request: EvaluationRequest, networks: Sequence[nn.Module], input_size: tuple[int, int, int]
) -> Steps[list[Latency]]:
    """The latency of each for a batch of seeded images, in the same rounds, and its ratio to the first one's.

    The arithmetic is that in which they were shown the images.
    """
    import torch

    from senet_bench.bench.device import device_of
    from senet_bench.bench.machine import session
    from senet_bench.bench.rounds import Plan, measure_latency
    from senet_bench.bench.runtimes import example
    from senet_bench.training.optimisation import autocast

    assert request.timing_s is not None
    batch, threads = request.batch_size or USUAL_BATCH, torch.get_num_threads()  # those of sessions that stand already
    conditions = Conditions(device=request.device, precision=request.precision, batch_size=batch, threads=threads)
    images = example(input_size, batch).to(request.device)
    calls = {str(place): _call(network.eval(), images) for place, network in enumerate(networks)}
    with session(conditions), autocast(torch.device(request.device), request.precision):
        compared = yield from measure_latency(
            {name: functools.partial(_itself, call) for name, call in calls.items()},
            "0",
            plan=Plan(budget_s=request.timing_s),
            clock=device_of(request.device).clock(conditions),
        )
    found = [compared.latency(name) for name in calls]
    runtimes = [runtime for _ in request.models for runtime in request.runtimes]
    return [replace(one, conditions=replace(conditions, runtime=name)) for one, name in zip(found, runtimes)]


def _itself(call: Call) -> Call:
    """The same call for every epoch: a session of INT8 is made once."""
    return call


def _call(network: nn.Module, images: Tensor) -> Call:
    import torch

    def call() -> object:
        with torch.inference_mode():
            return network(images)

    return call


def _in_int8(network: nn.Module, images: DataSet, viewing: Viewing, runtime: Runtime) -> nn.Module:
    """The network quantised, calibrated by training images that are drawn by a seed."""
    import numpy as np
    import torch

    from senet_bench.core.foreign import contained
    from senet_bench.data.augment import normalised
    from senet_bench.deployment.quantised import Quantised
    from senet_bench.training.evaluation import crops_of

    split = images.training()
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:CALIBRATION_IMAGES])
    batches = [
        normalised(torch.from_numpy(crops.images), images.mean, images.std).contiguous()
        for crops in crops_of(split, viewing, rows, [])
    ]
    whole = [batch for batch in batches if len(batch) == viewing.batch] or batches[:1]
    with contained(f"{type(network).__name__} in {runtime}", limited=False):
        return Quantised(RUNTIMES[runtime], network.eval(), whole)


def _shown(request: EvaluationRequest, split: Split, viewing: Viewing) -> Split:
    """The split, from the cache of its crops where one is asked for."""
    from senet_bench.data.images import cached, centre_crop
    from senet_bench.data.sets import Files

    if request.cache is None or not isinstance(split, Files) or viewing.size is None:
        return split
    skips = request.skip_corrupt
    return cached(split, centre_crop(viewing.size), request.cache, fidelity=request.fidelity, skip_corrupt=skips)


def _row(loaded: Loaded, viewing: Viewing, images: DataSet, seen: Predictions) -> ClassifierRow:
    constant = list(loaded.metadata.get("frozen", ()))
    return ClassifierRow(
        model=loaded.spec.name,
        label=label(loaded.spec) + (f", {len(constant)} gates constant" if constant else ""),
        cardinality=loaded.metadata.get("cardinality"),
        constant_gates=constant or None,
        attention=loaded.spec.attention,
        weights=loaded.source,
        notes=list(loaded.notes),
        taken=loaded.taken,
        dataset=images.name,
        size=viewing.size or images.size,
        precision=viewing.precision,
        mean=list(images.mean),
        std=list(images.std),
        images=len(seen),
        skipped=list(seen.skipped),
        top1_err=seen.top1_err,
        ci=seen.interval(),
        top5_err=seen.top5_err,
        loss=seen.loss,
        recipe=loaded.metadata.get("recipe"),
        epochs=loaded.metadata.get("epochs"),
        classes=len(images.classes),
        origin=loaded.origin,
        trial=loaded.metadata.get("key"),
    )


def beside_paper(row: ClassifierRow, trials: Mapping[str, tuple[NetworkKey, StoredError]]) -> list[CellStatus]:
    """The paper's cells that an error stands beside; where it stands beside none, those of its network with the reason.

    Of a network of our own the trial tells what it was trained by.
    """
    if is_outside(row.model) or row.altered:
        return []
    spec = replace(resolve(row.model), attention=row.attention, classes=row.classes or resolve(row.model).classes)
    network, error = of_evaluation(row, trials)
    wanted = Asked(spec, StoredErrors([(network, error)]))
    studies = [study for study in STUDIES.values() if (study.classes or resolve(row.model).classes) == spec.classes]
    printed = list(dict.fromkeys(cell for study in studies for cell in paper_cells(spec, study.id)))
    judged = [error_cell(cell, wanted) for cell in printed if is_error(cell)]
    judged += gain_cells(printed, wanted)
    return [cell for cell in judged if cell.status != "not measured"] or [cell for cell in judged if cell.differs_in]


def _against(rows: Sequence[EvaluationRow], seen: Sequence[Predictions], row: ClassifierRow) -> ClassifierRow:
    """The row with its difference to the first network on the same images, and what makes the comparison unfair."""
    from senet_bench.training.evaluation import paired_errors

    if not rows:
        return row
    paired = paired_errors(seen[0], seen[-1])
    return structs.replace(
        row,
        against=rows[0].model,
        difference=paired.difference,
        difference_ci=paired.ci,
        mcnemar_p=paired.p_value,
        differs_in=settings_that_differ(rows[0], row),
    )


def settings_that_differ(first: EvaluationRow, second: EvaluationRow) -> list[str]:
    """What forbids comparing two errors, in words, one for each differing field; empty when they agree."""
    pairs = {name: (getattr(first, name), getattr(second, name)) for name in COMPARABLE}
    return [f"{name}: {ours!r} against {theirs!r}" for name, (ours, theirs) in pairs.items() if ours != theirs]


def _by_class(images: DataSet, models: Sequence[str], seen: Sequence[Predictions]) -> str:
    """A line a class: images, and how many each network got wrong."""
    columns = [predictions.by_class(images.classes) for predictions in seen]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "images", *(f"{model}_wrong" for model in models)])
    for lines in zip(*columns):
        writer.writerow([lines[0][0], lines[0][1], *(wrong for _, _, wrong in lines)])
    return text.getvalue()
