"""`excitations --input-channels`: an SE gate on the colours of the image, learnt before a network, image by image."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from senet_bench.core.files import file_name, kind_of_path
from senet_bench.core.progress import Progress, Steps, retold
from senet_bench.core.results import Facts
from senet_bench.core.specs import Conditions, ModelSpec
from senet_bench.core.store import Store
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.gates.excitations import Excitations, viewing
from senet_bench.gates.rows import (
    COLOUR_NAMES,
    ColourConditions,
    ColourFacts,
    ColourRow,
    Colours,
    ColourSummary,
    Picture,
)
from senet_bench.run.cases import check_switched, label, listed_name, spec_of
from senet_bench.run.record import Record, header

if TYPE_CHECKING:
    from senet_bench.data.augment import Pixels
    from senet_bench.data.sets import DataSet, LabelArray
    from senet_bench.models.attach import GatedInput
    from senet_bench.training.evaluation import Viewing

EPOCHS, BATCH = 5, 32
PICTURES, PICTURE_SIDE = 6, 64
GATE, START = "gate", 0.5
LEAST_RISE = 1e-4
UNTRAINED = "UNTRAINED: the gate has learnt nothing, it is 1/2 for every image and colour"


@dataclass(frozen=True, slots=True)
class GatedNetwork:
    """A network behind a gate, and images for it: how the gate got its values, after how many epochs of training here.

    `learnt` is whether they were trained at all, here or before.
    """

    network: GatedInput
    spec: ModelSpec
    images: DataSet
    weights: str | None
    epochs: int
    learnt: bool
    notes: tuple[str, ...]


def input_channels(request: Excitations, store: Store) -> Steps[Record[ColourFacts]]:
    """The record of a run with a row for every image shown; progress by epochs.

    The gate starts at 1/2 for every image, is trained together with the network on the training images for
    `epochs` (5 unless given, 0 leaves it untrained and says so), or comes with `weights` that this command made;
    weights of the network alone are a start for the network.
    """
    replace(request, epochs=request.epochs or None).check()
    if request.epochs is not None and request.epochs < 0:
        raise UsageError(f"--epochs must be 0 or more, not {request.epochs}")
    spec = spec_of(request.model, request.changes)
    check_switched(spec, request.changes.attention)
    from senet_bench.bench.machine import check_conditions
    from senet_bench.data import sets

    check_conditions(Conditions(device=request.device))
    store.check()
    images = sets.load_images(request.dataset, request.folder)
    if images.channels != len(COLOUR_NAMES):
        raise UsageError(f"{images.name} is not in colour (RGB)", "use --dataset folder --data DIR")
    rows = _shown(request, images)
    prepared = _initial(request, spec, images)
    images = prepared.images
    yield Progress(label(prepared.spec), 0, 1)
    total = prepared.epochs + 1
    yield from retold(_training(request, prepared, images), lambda step: Progress(step.what, step.done / total, 1))
    prepared = _kept(request, prepared, images, store)
    network = prepared.network.to(request.device)
    shown = viewing(request, spec, images)
    seen, pictures, skipped = _observed(network, images, shown, rows)
    begun = header("input-channels", _conditions(request, prepared, images, shown))
    summary = _summary(network, images, shown, rows, seen, skipped)
    facts: ColourFacts = Facts(**begun, rows=seen, details=pictures, summary=summary)
    record = Record.begin(store, facts)
    record.change()
    return record


def _shown(request: Excitations, images: DataSet) -> LabelArray:
    """The rows of the images asked for, by class and by number."""
    from senet_bench.gates.watch import chosen_classes, drawn_rows

    rows = drawn_rows(images.test.labels, request.images_per_class, request.seed)
    if not request.classes:
        return rows
    places = [*chosen_classes(request.classes, images).values()]
    return rows[np.isin(images.test.labels[rows], places)]


def _initial(request: Excitations, spec: ModelSpec, images: DataSet) -> GatedNetwork:
    """The network with its gate before training: from the weights of both, or of the network alone, or from none."""
    from senet_bench.models import build_spec
    from senet_bench.models.attach import INPUT_SUFFIX, GatedInput, gated_input
    from senet_bench.training import weights
    from senet_bench.training.start import initialise_by_name
    from senet_bench.training.statedict import contents

    own = request.changes.apply(spec)
    file = Path(request.weights).expanduser() if request.weights else None
    about = contents(file).metadata if file is not None and kind_of_path(file) == "file" else {}
    if file is not None and about.get("model") == f"{own.name}{INPUT_SUFFIX}":
        mean, std = weights.normalisation_in(about, str(file)) or images.normalisation
        gated, images = gated_input(own, mean, std), replace(images, mean=mean, std=std)
        loaded = weights.load_weights(gated, str(file), classes=len(images.classes), in_channels=images.channels)
        note = f"the gate was learnt in {about.get('epochs')} epochs on {about.get('dataset')}"
        assert isinstance(loaded.network, GatedInput)
        learnt = bool(about.get("epochs"))
        return GatedNetwork(loaded.network, gated, images, file.name, 0, learnt, (note if learnt else UNTRAINED,))
    epochs = EPOCHS if request.epochs is None else request.epochs
    notes: tuple[str, ...] = (f"the gate was learnt in {epochs} epochs on this data set, with the network",)
    inner = None
    if request.weights:
        inner, images = weights.load_weights(
            own, request.weights, classes=len(images.classes), average=request.average
        ).on(images)
    gated = gated_input(own, images.mean, images.std)
    network = build_spec(gated, len(images.classes), in_channels=images.channels)
    assert isinstance(network, GatedInput)
    initialise_by_name(network, request.seed)
    network.start_even()
    if inner is not None:
        network.network, notes = inner.network, (*notes, f"the network started from {request.weights}", *inner.notes)
    return GatedNetwork(network, gated, images, None, epochs, bool(epochs), notes if epochs else (UNTRAINED,))


def _training(request: Excitations, prepared: GatedNetwork, images: DataSet) -> Steps[None]:
    """The epochs of training the gate with its network; none for a gate that came with weights."""
    from senet_bench.core import recipes
    from senet_bench.training import loop
    from senet_bench.training.objective import Settings

    if not prepared.epochs:
        return
    if images.train is None:
        raise UsageError(
            f"{images.name} has no training images to learn the gate from",
            "add train/CLASS/IMAGE, give --weights of an earlier run, or show it untrained with --epochs 0",
        )
    recipe = recipes.recipe(recipes.DEFAULTS[request.dataset]).lasting(prepared.epochs)
    recipe = recipe.scaled(min(BATCH, len(images.train)))
    recipe = replace(recipe, lr=request.lr or recipe.lr, size=viewing(request, prepared.spec, images).size)
    settings = Settings(seed=request.seed, device=request.device, evaluate_every=0, skip_corrupt=request.skip_corrupt)
    yield from loop.train(prepared.network, images, recipe, settings)


def _kept(request: Excitations, prepared: GatedNetwork, images: DataSet, store: Store) -> GatedNetwork:
    """The same from its weights on disk, where it was trained here."""
    from senet_bench.models.attach import GatedInput
    from senet_bench.training import weights

    if not prepared.epochs:
        return prepared
    spec = prepared.spec
    file = store.root / "weights" / f"{file_name(spec.name, request.dataset)}.safetensors"
    facts = {"dataset": request.dataset, "epochs": prepared.epochs, "seed": request.seed}
    weights.save(prepared.network, file, spec, **facts, normalisation=images.normalisation)
    loaded = weights.load_weights(spec, str(file), classes=len(images.classes), in_channels=images.channels)
    assert isinstance(loaded.network, GatedInput)
    return replace(prepared, network=loaded.network, weights=file.name)


def _observed(
    network: GatedInput, images: DataSet, shown: Viewing, rows: LabelArray
) -> tuple[list[ColourRow], list[Picture], list[str]]:
    """A row for every image, pictures of some for the figure, and which images could not be read."""
    import torch

    from senet_bench.data.augment import normalised
    from senet_bench.gates.tally import evenly
    from senet_bench.training.evaluation import crops_of

    pictured = {int(rows[index]) for index in evenly(len(rows), PICTURES)}
    seen, pictures, corrupt = list[ColourRow](), list[Picture](), list[Path]()
    network.eval()
    for crops in crops_of(images.test, shown, rows, corrupt):
        with torch.inference_mode():
            pixels = torch.from_numpy(crops.images).to(shown.device)
            gates = network.gates(normalised(pixels, images.mean, images.std)).cpu().tolist()
        for row, image, gate in zip(crops.rows.tolist(), crops.images, gates):
            seen.append(_row(images, row, image, gate))
            if row in pictured:
                pictures.append(Picture(image=seen[-1].image, png=_png(image)))
    if not seen:
        raise MeasurementError(f"{images.name}: not one image could be read", "check the files")
    return _relative(seen), pictures, [str(path) for path in corrupt]


def _row(images: DataSet, row: int, image: Pixels, gate: list[float]) -> ColourRow:
    """An image by its file (or number), its class, the mean of each colour in 0..1, and each colour's gate."""
    from senet_bench.data.sets import Files

    split = images.test
    return ColourRow(
        image="/".join(split.paths[row].parts[-2:]) if isinstance(split, Files) else str(row),
        label=images.classes[int(split.labels[row])],
        mean=_colours(round(float(value), 5) for value in image.reshape(len(COLOUR_NAMES), -1).mean(1) / 255),
        gate=_colours(round(value, 6) for value in gate),
        relative=(1.0, 1.0, 1.0),
        raised=None,
    )


def _colours(values: Iterable[float]) -> Colours:
    red, green, blue = values
    return red, green, blue


def _relative(rows: list[ColourRow]) -> list[ColourRow]:
    """The rows with each gate over that colour's mean gate, and the colour that is raised most over the others.

    `raised` is None where the gates of the image are in the proportions of the mean, as those of an untrained gate.
    """
    usual = [math.fsum(row.gate[colour] for row in rows) / len(rows) for colour in range(len(COLOUR_NAMES))]
    related = []
    for row in rows:
        relative = _colours(gate / mean if mean > 0 else 1.0 for gate, mean in zip(row.gate, usual))
        most, least = max(relative), min(relative)
        raised = COLOUR_NAMES[relative.index(most)] if most - least > LEAST_RISE else None
        related.append(msgspec.structs.replace(row, relative=relative, raised=raised))
    return related


def _png(image: Pixels) -> str:
    """A small picture of an image (3, H, W) as PNG in base64, so that the figure can be drawn from the facts alone."""
    from PIL import Image

    small = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _conditions(request: Excitations, prepared: GatedNetwork, images: DataSet, shown: Viewing) -> ColourConditions:
    return ColourConditions(
        model=listed_name(request.model),
        label=label(spec_of(request.model, request.changes)),
        dataset=request.dataset,
        weights=prepared.weights,
        epochs=prepared.epochs,
        trained=prepared.learnt,
        notes=[*images.notes, *prepared.notes],
        size=shown.size,
        seed=request.seed,
        device=request.device,
        images_per_class=request.images_per_class,
    )


def _summary(
    network: GatedInput,
    images: DataSet,
    shown: Viewing,
    rows: LabelArray,
    seen: Sequence[ColourRow],
    skipped: Sequence[str],
) -> ColourSummary:
    """The mean gate of each colour, how far training moved the gates from 1/2, and the error with the gate fixed."""
    from senet_bench.gates.watch import GateWatch, variants
    from senet_bench.training.evaluation import paired_errors

    watch = GateWatch(network, images, rows, shown, only=GATE)
    for _ in watch.observe():
        pass
    tally = watch.tallies[GATE]
    for _ in watch.hold({name: gates for name, gates in variants(watch.means()).items() if name.startswith(GATE)}):
        pass
    moved = math.sqrt(math.fsum((gate - START) ** 2 for row in seen for gate in row.gate) / (3 * len(seen)))
    return ColourSummary(
        images=len(seen),
        skipped=list(skipped),
        mean_gate=_colours(float(value) for value in tally.mean()),
        moved=moved,
        distance_from_constant=tally.distance_from_constant(),
        between_class_share=tally.between_class_share(),
        error=watch.seen.top1_err,
        error_ci=watch.seen.interval(),
        difference=paired_errors(watch.seen, watch.held[f"{GATE}=1"]),
        difference_at_mean=paired_errors(watch.seen, watch.held[f"{GATE}=mean"]),
    )
