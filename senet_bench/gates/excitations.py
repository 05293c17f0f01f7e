"""`excitations`: what the gates of a network do by class and depth (the paper's section 7.2), and what they bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from senet_bench.core.datasets import DATASETS, check_side
from senet_bench.core.files import file_name, kind_of_path
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.results import Facts
from senet_bench.core.specs import ATTACH, Conditions, ModelSpec
from senet_bench.core.statistics import holm
from senet_bench.core.store import Store, key_of
from senet_bench.errors import UsageError
from senet_bench.gates.rows import ErrorChange, GateConditions, GateFacts, GateRow, GateSummary
from senet_bench.gates.subject import fitted_spec, shown_at, trained_subject
from senet_bench.run.cases import Changes, check_switched, label, pair_of
from senet_bench.run.error import trial_definition
from senet_bench.run.record import Record, header

if TYPE_CHECKING:
    from torch import nn

    from senet_bench.core.trial import Trial
    from senet_bench.data.sets import DataSet
    from senet_bench.gates.watch import GateWatch
    from senet_bench.training.evaluation import Viewing

NOT_MEASURED = "not measured (--no-removal, or the run ended before)"
TRAINED_HERE = tuple(key for key, row in DATASETS.items() if row.embedded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Excitations:
    """What `excitations` is asked: a network, its weights, and the images its gates are observed on.

    Without `weights` a network is trained here, on the digits only, as `compare --dataset digits` trains it with this
    seed; `average` chooses between the raw weights of a file and their average. `classes` names those whose gates
    are kept one by one; `images_per_class` draws as many by the seed, the paper's 50 for example. At most
    `channels` of a block's channels are kept, uniformly spaced as in Figure 6.
    """

    model: str
    dataset: str = "digits"
    folder: Path | None = None
    weights: str | None = None
    average: bool | None = None
    classes: tuple[str, ...] = ()
    images_per_class: int | None = None
    channels: int = 64
    near: float = 0.05
    removal: bool = True
    epochs: int | None = None
    lr: float | None = None
    seed: int = 0
    size: int | None = None
    batch_size: int | None = None
    device: str = "cpu"
    skip_corrupt: bool = False
    changes: Changes = field(default_factory=Changes)

    def check(self) -> None:
        """Raise `UsageError` on a number that makes no sense, or where there is nothing to get weights from."""
        for name in ("images_per_class", "channels", "epochs", "batch_size", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be a positive integer, not {value}")
        check_side(self.dataset, self.size)
        if self.lr is not None and not 0 < self.lr < 100:
            raise UsageError(f"a learning rate of {self.lr:g} cannot be trained with", "use 0.1")
        if not 0 < self.near < 0.5:
            raise UsageError(f"--near {self.near:g} is no distance from 0 and 1", "use 0.05")

    def spec(self) -> ModelSpec:
        """The network's row, fitted to the data set; `UsageError` where it has no attention."""
        row = fitted_spec(self.model, self.changes, self.dataset)
        if row.attention is None and not row.outside:
            raise UsageError(f"{row.name} has no attention to observe", f"name {_with_attention(row)}")
        check_switched(row, self.changes.attention)
        return row


def _with_attention(row: ModelSpec) -> str:
    """The name of the network with attention that belongs to a row without any."""
    return f"{row.name}{ATTACH}" if row.outside else pair_of(row)[1].name


@dataclass(frozen=True, slots=True)
class Observation:
    """A network with weights on some images: where the weights come from, and what a reader must know."""

    network: nn.Module
    spec: ModelSpec
    images: DataSet
    weights: str
    notes: tuple[str, ...]


def excitations(request: Excitations, store: Store) -> Steps[Record[GateFacts]]:
    """The record of a run with a row for every block; progress by images shown.

    What the gates do is stored before the first block is taken out.
    """
    request.check()
    spec = request.spec()
    from senet_bench.bench.machine import check_conditions
    from senet_bench.gates.watch import GateWatch, chosen_classes, drawn_rows, variants

    check_conditions(Conditions(device=request.device))
    store.check()
    stages = 1 + request.removal
    yield Progress(f"weights of {label(spec)}", 0, stages)
    subject = _subject(request, spec, store)
    chosen = chosen_classes(request.classes, subject.images)
    rows = drawn_rows(subject.images.test.labels, request.images_per_class, request.seed)
    shown = viewing(request, subject.spec, subject.images)
    watch = GateWatch(subject.network.to(request.device), subject.images, rows, shown, request.near)
    if not watch.blocks:
        raise UsageError(f"{spec.name} has no gates to observe", "put attention into it: --attach")
    for done in watch.observe():
        yield Progress(f"{done} of {len(rows)} images", done / (len(rows) + 1), stages)
    conditions = _conditions(request, subject, chosen, len(rows))
    blocks = [_row(watch, name, subject.spec.name, chosen, request.channels) for name in watch.tallies]
    facts: GateFacts = Facts(**header("excitations", conditions), rows=blocks, summary=_summary(watch))
    record = Record.begin(store, facts)
    record.change()
    if request.removal:
        for done in watch.hold(variants(watch.means())):
            yield record.progress(f"{done} of {len(rows)} images, blocks out", 1 + done / (len(rows) + 1), stages)
        record.change(rows=_with_errors(facts.rows, watch), summary=_with_all_changed(facts.summary, watch))
    return record


def _subject(request: Excitations, spec: ModelSpec, store: Store) -> Observation:
    """The network with weights that were given, or are trained here; the images that it was not trained on."""
    if request.weights is None:
        return _trained_here(request, spec, store)
    as_trained = not request.changes.attention  # else the switches that were given must be those of the weights
    loaded, images = trained_subject(
        spec, request.weights, request.dataset, request.folder, average=request.average, as_trained=as_trained
    )
    return Observation(loaded.network, loaded.spec, images, Path(loaded.source).name, (*images.notes, *loaded.notes))


def _trained_here(request: Excitations, spec: ModelSpec, store: Store) -> Observation:
    """The network of a trial of `compare --dataset digits`, from its weights on disk, trained where there are none."""
    from senet_bench.core import recipes
    from senet_bench.core.trial import Trial
    from senet_bench.data import sets
    from senet_bench.gates.watch import chosen_classes
    from senet_bench.training import weights

    if request.dataset not in TRAINED_HERE:
        if request.dataset not in DATASETS:
            sets.load_images(request.dataset, request.folder)  # raises, with the name that is meant
        raise UsageError(
            f"no weights given, and on {request.dataset} no network is trained here",
            "give --weights FILE or a name such as timm:legacy_seresnet50 (make a file with `senet-bench train`)",
        )
    recipe = recipes.recipe(recipes.DEFAULTS[request.dataset]).lasting(request.epochs)
    recipe = recipe if request.lr is None else replace(recipe, lr=request.lr)
    trial = Trial(arm="0", spec=spec, recipe=recipe, seed=request.seed, dataset=request.dataset, device=request.device)
    name = file_name(spec.name, request.dataset, key_of(trial_definition(trial)))
    file = store.root / "weights" / f"{name}.safetensors"
    images = sets.load_images(request.dataset, draw=request.seed)
    chosen_classes(request.classes, images)  # raises before anything is trained
    if kind_of_path(file) != "file":
        _train(trial, file, store)
    loaded = weights.load_weights(spec, str(file), classes=len(images.classes), in_channels=images.channels)
    how = f"trained here: recipe {recipe.name}, {recipe.epochs} epochs, seed {trial.seed}"
    return Observation(loaded.network, spec, images, file.name, (how,))


def _train(trial: Trial, file: Path, store: Store) -> None:
    """Carry out a trial, its weights in `file`, and store its result where `paired_errors` looks for it."""
    from senet_bench.training import trials

    result = trials.trained_result(replace(trial, weights=file))
    about = {key: value for key, value in header("trial", {}).items() if key != "schema"}
    definition = trial_definition(trial)
    store.trials(about["environment"].machine).put(key_of(definition), definition, result, about)


def viewing(request: Excitations, spec: ModelSpec, images: DataSet) -> Viewing:
    """How the images are shown, as asked."""
    return shown_at(
        spec, images, request.device, size=request.size, batch=request.batch_size, skip_corrupt=request.skip_corrupt
    )


def _conditions(request: Excitations, subject: Observation, chosen: Mapping[str, int], images: int) -> GateConditions:
    spec = subject.spec
    return GateConditions(
        model=spec.name,
        label=label(spec),
        attention=spec.attention,
        dataset=request.dataset,
        weights=subject.weights,
        notes=list(subject.notes),
        images=images,
        images_per_class=request.images_per_class,
        classes=list(chosen),
        class_count=len(subject.images.classes),
        near=request.near,
        size=viewing(request, spec, subject.images).size,
        seed=request.seed,
        device=request.device,
    )


def _row(watch: GateWatch, name: str, model: str, chosen: Mapping[str, int], channels: int) -> GateRow:
    """A block: where it is, its gates by class, and the numbers of section 7.2's words."""
    from senet_bench.gates.tally import evenly, rounded

    tally, stages = watch.tallies[name], {block: watch.stage(block) for block in watch.tallies}
    depth = [block for block in watch.tallies if stages[block] == stages[name]].index(name) + 1
    kept, means, sds = evenly(len(tally.shift), channels), tally.class_mean(), tally.class_sd()
    images = watch.images(name)
    low, high = tally.saturated()
    return GateRow(
        model=model,
        block=name,
        label=f"SE_{stages[name]}_{depth}",
        stage=stages[name],
        channels=len(tally.shift),
        shown=kept,
        images=int(images.sum()),
        class_images={label: int(images[place]) for label, place in chosen.items()},
        classes={label: rounded(means[place][kept]) for label, place in chosen.items()},
        class_sd={label: rounded(sds[place][kept]) for label, place in chosen.items()},
        mean=rounded(tally.mean()[kept]),
        sd=rounded(tally.sd()[kept]),
        mean_gate=tally.mean_gate(),
        between_class_share=tally.between_class_share(),
        share_by_chance=tally.share_by_chance(),
        scale_share=tally.scale_share(),
        saturated_low=low,
        saturated_high=high,
        distance_from_identity=tally.distance_from_identity(),
        distance_from_constant=tally.distance_from_constant(),
        error=watch.seen.top1_err,
        error_ci=watch.seen.interval(),
        missing={"difference": NOT_MEASURED},
    )


def _summary(watch: GateWatch) -> GateSummary:
    """The error of the network as it is, and what could not be read."""
    seen = watch.seen
    return GateSummary(error=seen.top1_err, error_ci=seen.interval(), images=len(seen), skipped=list(seen.skipped))


def _with_errors(rows: Sequence[GateRow], watch: GateWatch) -> list[GateRow]:
    """The rows with the error without each block and its difference, Holm's p over the blocks of each kind."""
    without, at_mean = ([_change(watch, f"{row.block}={kind}") for row in rows] for kind in ("1", "mean"))
    return [
        replace(
            row,
            missing={},
            error_without=watch.held[f"{row.block}=1"].top1_err,
            difference=one,
            error_at_mean=watch.held[f"{row.block}=mean"].top1_err,
            difference_at_mean=mean,
        )
        for row, one, mean in zip(rows, _adjusted(without), _adjusted(at_mean))
    ]


def _adjusted(changes: Sequence[ErrorChange]) -> list[ErrorChange]:
    adjusted = holm([change.p for change in changes])
    return [replace(change, p_holm=p) for change, p in zip(changes, adjusted)]


def _with_all_changed(summary: GateSummary, watch: GateWatch) -> GateSummary:
    """The summary with the error of the network with every block at 1, and with every block at its mean."""
    return replace(
        summary,
        all_error_without=watch.held["*=1"].top1_err,
        all_difference=_change(watch, "*=1"),
        all_error_at_mean=watch.held["*=mean"].top1_err,
        all_difference_at_mean=_change(watch, "*=mean"),
    )


def _change(watch: GateWatch, variant: str) -> ErrorChange:
    """The error of a variant less that of the network as it is, on the same images."""
    from senet_bench.training.evaluation import paired_errors

    paired = paired_errors(watch.seen, watch.held[variant])
    assert paired.p_value is not None  # McNemar's test has one for any number of images
    return ErrorChange(value=paired.difference, ci=paired.ci, confidence=paired.confidence, p=paired.p_value)
