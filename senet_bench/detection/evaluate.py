"""The part of `evaluate` that is for detectors: average precision on a set of COCO's form."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import structs

from senet_bench.core.files import write_atomically
from senet_bench.core.learning import DetectorRow, EvaluationRow
from senet_bench.core.learning import Evaluation as Document
from senet_bench.core.paper import CellStatus, compare_cell, protocol_name
from senet_bench.core.progress import Steps
from senet_bench.core.reproduction import paper_cells
from senet_bench.core.specs import ModelSpec
from senet_bench.core.store import Store
from senet_bench.detection.average_precision import AveragePrecision, check_installed
from senet_bench.errors import UsageError
from senet_bench.run.cases import label
from senet_bench.run.evaluate import EvaluationRequest, begun, checked, names_of, settings_that_differ
from senet_bench.run.record import Record

if TYPE_CHECKING:
    from senet_bench.core.recipes import Scaling
    from senet_bench.detection.coco import DetectionSet


def evaluate(request: EvaluationRequest, store: Store) -> Steps[Record[Document]]:
    """The record of all average precisions and, of several detectors, each difference to the first."""
    from senet_bench.detection import coco

    specs = checked(request, store)
    _check(request, specs)
    images = coco.load_detection(request.dataset, request.folder)
    record, classes = begun(request, images, store), dict[str, AveragePrecision]()
    for spec, name, source in zip(specs, names_of(specs), request.weights):
        row, classes[name] = evaluated(request, images, spec, name, source)
        record.add(detector_against(record.document.rows, row))
        yield record.progress(row.label, len(classes), len(specs))
    if request.per_class is not None:
        write_atomically(request.per_class, by_class(images, classes))
    return record


def _check(request: EvaluationRequest, specs: Sequence[ModelSpec]) -> None:
    """Raise `UsageError` on what detectors cannot be asked."""
    other = next((spec for spec in specs if spec.task != "detection"), None)
    if other is not None:
        raise UsageError(f"{other.name} is no detector, as others here are", "evaluate it by itself")
    if request.cache is not None or request.fidelity == "fast":
        raise UsageError("detectors see whole images, not crops", "leave out --cache and --fast")
    if request.size is not None and request.size < 1:
        raise UsageError(f"--img-size must be a positive integer, not {request.size}")
    if request.batch_size is not None and request.batch_size < 1:
        raise UsageError(f"--batch-size must be a positive integer, not {request.batch_size}")
    check_installed()


def evaluated(
    request: EvaluationRequest, images: DetectionSet, spec: ModelSpec, name: str, source: str
) -> tuple[DetectorRow, AveragePrecision]:
    """The row of one detector, which files call `name`, and its average precision."""
    from senet_bench.core import recipes
    from senet_bench.detection.objective import Looking, detect
    from senet_bench.training import weights

    loaded = weights.load_weights(spec, source, classes=len(images.classes), as_trained=True, average=request.average)
    usual = recipes.Scaling()
    longest = usual.longest if request.size is None else round(request.size * usual.longest / usual.shorter)
    scaling = recipes.Scaling(request.size or usual.shorter, longest)
    looking = Looking(
        scaling=scaling,
        batch=request.batch_size or 1,
        precision=request.precision,
        device=request.device,
        skip_corrupt=request.skip_corrupt,
    )
    seen = detect(loaded.network.to(request.device), images, images.test, looking)
    if request.predictions is not None:
        seen.save(request.predictions / f"{name}-{request.dataset}.json")
    precision = seen.judged()
    as_printed = not seen.skipped and is_as_printed(loaded.metadata, scaling)
    row = DetectorRow(
        model=spec.name,
        label=label(loaded.spec),
        attention=loaded.spec.attention,
        weights=loaded.source,
        notes=list(loaded.notes),
        dataset=images.name,
        size=scaling.shorter,
        longest=scaling.longest,
        precision=request.precision,
        images=len(seen),
        skipped=list(seen.skipped),
        detections=len(seen.found),
        ap=precision.ap,
        ap50=precision.ap50,
        ap75=precision.ap75,
        ap_small=precision.ap_small,
        ap_medium=precision.ap_medium,
        ap_large=precision.ap_large,
        ar100=precision.ar100,
        paper=detector_beside_paper(images, loaded.spec, precision if as_printed else None),
        recipe=loaded.metadata.get("recipe"),
        epochs=loaded.metadata.get("epochs"),
    )
    return row, precision


def is_as_printed(metadata: Mapping[str, Any], scaling: Scaling) -> bool:
    """Whether images are of Table 7's size, and weights say that its recipe trained them, from a trunk's weights."""
    from senet_bench.core import recipes

    recipe = recipes.recipe("coco")
    settings = ("epochs", "batch_size", "lr")
    by_recipe = metadata.get("recipe") == recipe.name and bool(metadata.get("trunk_weights"))
    return (
        scaling == recipe.scaling
        and by_recipe
        and all(metadata.get(name) == getattr(recipe, name) for name in settings)
    )


def detector_beside_paper(
    images: DetectionSet, spec: ModelSpec, precision: AveragePrecision | None
) -> list[CellStatus]:
    """The paper's AP and AP50 of a detector of Table 7, on the whole of COCO only.

    They are compared with a `precision` that was measured as the table's; None where it was otherwise.
    """
    if not images.is_whole:
        return []
    values = {"ap": precision.ap, "ap50": precision.ap50} if precision else {}
    return [
        compare_cell(cell, {} if value is None else {protocol_name(cell): value})
        for cell in paper_cells(spec, "table7")
        for value in (values.get(cell.metric),)
    ]


def detector_against(rows: Sequence[EvaluationRow], row: DetectorRow) -> DetectorRow:
    """The row with its difference in AP to the first detector, and what makes the comparison unfair."""
    if not rows:
        return row
    first = rows[0]
    base = first.ap if isinstance(first, DetectorRow) else None
    difference = None if base is None or row.ap is None else row.ap - base
    differing = settings_that_differ(first, row)
    return structs.replace(row, against=first.model, difference=difference, differs_in=differing)


def by_class(images: DetectionSet, precisions: Mapping[str, AveragePrecision]) -> str:
    """A line a class: the objects in the test split, and each detector's AP; empty where there is no object."""
    names = {category.id: category.name for category in images.test.listing.categories}
    objects = dict.fromkeys(images.classes, 0)
    for one in images.test.listing.annotations:
        objects[names[one.category_id]] += not one.iscrowd
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "objects", *(f"{model}_ap" for model in precisions)])
    for name, count in objects.items():
        writer.writerow([name, count, *(one.by_class.get(name) for one in precisions.values())])
    return text.getvalue()
