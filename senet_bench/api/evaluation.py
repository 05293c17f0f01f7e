"""`evaluate`: the errors of networks with weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import typer

from senet_bench.api import options as o
from senet_bench.api.networks import Switches, attached_name
from senet_bench.api.parameters import read_by, within
from senet_bench.api.reading import RESULTS, Results
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.api.trials import fetch_data
from senet_bench.core.datasets import CHOICES
from senet_bench.core.progress import Steps
from senet_bench.core.runtimes import RUNTIMES, check_listed
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.core.learning import Evaluation as Document
    from senet_bench.core.specs import Runtime
    from senet_bench.core.store import Store
    from senet_bench.run.evaluate import EvaluationRequest
    from senet_bench.run.record import Record

INT8 = tuple(name for name, facts in RUNTIMES.items() if facts.int8)
Models = Annotated[list[str], typer.Argument(help="One network, several to be compared on the same images, or table2.")]


@dataclass(frozen=True, slots=True)
class TestImages:
    """The images that networks are shown, and how."""

    PANEL: ClassVar[str] = "What is shown to the networks"
    dataset: Annotated[str, o.dataset_option(CHOICES)] = "imagenet"
    data: o.DataFolder = None
    download: o.Download = False
    img_size: o.ImageSide = None
    batch_size: Annotated[int | None, o.batch_option("Images a forward pass; default: 64, of a detector 1.")] = None
    fast: Annotated[bool, typer.Option("--fast", help="Faster resizing, within one grey level of PIL's.")] = False
    cache: Annotated[Path | None, typer.Option("--cache", help="Keep the crops (uint8) in this folder.")] = None
    skip_corrupt: o.SkipCorrupt = False
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", help="v2: --data holds ImageNetV2; or ImageNet-Real's real.json for the validation images."
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class PerImage:
    """What is kept of each image and class."""

    PANEL: ClassVar[str] = "How it is shown and kept"
    per_class: Annotated[Path | None, typer.Option("--per-class", help="Write the errors of every class (CSV).")] = None
    keep_predictions: Annotated[
        Path | None, typer.Option("--keep-predictions", help="Keep each image's prediction in this folder (.npz).")
    ] = None


@dataclass(frozen=True, slots=True)
class Runtimes:
    """What the networks run in, and whether they are timed there."""

    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            help=f"eager, or in INT8, calibrated by training images: {', '.join(INT8)}; several: eager,{INT8[0]}.",
            **read_by(check_listed),
        ),
    ] = "eager"
    latency: Annotated[
        bool, typer.Option("--latency", help="Time them too, in the same rounds: error and time in one table.")
    ] = False
    budget: Annotated[
        float, typer.Option("--budget", help="Seconds of that timing.", **within(0, o.LONGEST_BUDGET_S))
    ] = 10.0

    def timing_s(self) -> float | None:
        """The seconds of timing, None for none."""
        return self.budget if self.latency else None

    def names(self) -> tuple[Runtime, ...]:
        """The runtimes in their order; what is none is refused where networks are evaluated."""
        return tuple(cast("Runtime", name.strip()) for name in self.runtime.split(","))


def evaluate(
    model: Models,
    weights: Annotated[
        list[str],
        typer.Option(
            "--weights",
            help="A file, a key or a name in results/weights, or of timm: or torchvision:; one a network. "
            "released: the authors' own.",
        ),
    ],
    average: o.EmaWeights = None,
    shown: TestImages = TestImages(),
    place: o.Where = o.Where(),
    kept: PerImage = PerImage(),
    attach: Annotated[
        bool,
        typer.Option("--attach", help="Networks from outside with attention in.", rich_help_panel=Switches.PANEL),
    ] = False,
    replace: o.Replace = False,
    runtimes: Runtimes = Runtimes(),
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Result:
    """Top-1 and top-5 error of networks with weights, AP of detectors; of several, the difference to the first."""
    if shown.download:
        fetch_data(shown.dataset, shown.data)
    from senet_bench.core.store import Store
    from senet_bench.run import evaluate, tables
    from senet_bench.run.released import weighted

    store = Store(results)
    chosen = weighted(model, weights, shown.dataset, shown.img_size)
    request = evaluate.EvaluationRequest(
        models=tuple(attached_name(name, attach=attach, replace=replace) for name in chosen.models),
        weights=tuple(map(store.named_weights, chosen.weights)),
        average=average,
        dataset=shown.dataset,
        folder=shown.data,
        size=shown.img_size,
        batch_size=shown.batch_size,
        device=place.device,
        precision=place.precision,
        fidelity="fast" if shown.fast else "exact",
        cache=shown.cache,
        per_class=kept.per_class,
        predictions=kept.keep_predictions,
        skip_corrupt=shown.skip_corrupt,
        labels=shown.labels,
        notes=chosen.notes,
        runtimes=runtimes.names(),
        timing_s=runtimes.timing_s(),
    )
    record = watch.follow(_evaluating(request, store))
    return Result.of(tables.evaluation(record.document), record)


def _evaluating(request: EvaluationRequest, store: Store) -> Steps[Record[Document]]:
    """The evaluation of detectors where one of the networks is one, else that of classifiers."""
    if any(spec.task == "detection" for spec in request.specs()):
        from senet_bench.detection.evaluate import evaluate

        if request.runtimes != ("eager",):
            raise UsageError("detectors are evaluated in eager torch alone", "leave out --runtime")
        if request.timing_s is not None:
            raise UsageError("detectors are not timed while they are evaluated", "leave out --latency, or use compare")
        return evaluate(request, store)
    from senet_bench.run.evaluate import evaluate

    return evaluate(request, store)
