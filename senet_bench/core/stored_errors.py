"""The errors that are stored of networks, of trials and of evaluations alike, each with what it was measured by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from senet_bench.core.catalog import CATALOG, root_of
from senet_bench.core.datasets import EMBEDDED
from senet_bench.core.files import read_file
from senet_bench.core.identity import TEXTS
from senet_bench.core.intervals import interval_of_mean, wilson
from senet_bench.core.learning import ClassifierRow, TrialResult
from senet_bench.core.results import Facts, StoredDocument, json_object, of_type
from senet_bench.core.specs import AttentionSpec, ModelSpec, Precision
from senet_bench.core.store import TRIAL, Store
from senet_bench.errors import BenchError

RELEASED = {
    name: f"timm:legacy_{name}"
    for name in ("seresnet50", "seresnet101", "seresnet152", "seresnext50_32x4d", "seresnext101_32x4d", "senet154")
}
"""timm's copies of the weights that the authors released, by our name of the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOrigin:
    """What an error was measured by; of two equal ones the errors differ by their seeds alone.

    `facts` is what the recipe trains by, None where that is not known; `size` the side of the centre crop in pixels.
    `weights` names what was evaluated: nothing for a trial or the weights that it left, whose seed tells them apart.
    `data` is a digest of what was trained on, empty where that is not stored or comes with this toolkit.
    """

    dataset: str
    size: int
    train_images: int | None
    test_images: int
    recipe: str | None
    facts: Mapping[str, Any] | None = field(default=None, hash=False)
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    precision: Precision | str = "fp32"
    start: str = ""
    averaged: bool = False
    weights: str = ""
    labels: str = ""
    data: str = ""

    @property
    def released(self) -> bool:
        """Whether it is of the weights that the authors released."""
        return self.weights.partition(".")[0] in RELEASED.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredError:
    """The errors of one network on one seed, as fractions; `gain` those of a baseline on the same images minus its own.

    `gain_ci` is the 95 % interval of that.
    """

    origin: StoredOrigin
    seed: int | None
    top1_err: float
    top5_err: float | None
    gain: float | None = None
    gain_ci: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """The errors of one network by one origin, by seed."""

    origin: StoredOrigin
    errors: tuple[StoredError, ...]

    def mean(self, metric: str) -> float | None:
        """The mean of `top1_err` or `top5_err`, None where a seed has none."""
        values = self._values(metric)
        return sum(values) / len(values) if values else None

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Its 95 % interval: of the mean over seeds where there are several that differ, else Wilson's over images."""
        values = self._values(metric)
        if not values:
            return None
        over_seeds = interval_of_mean(values)
        images = self.origin.test_images
        return over_seeds or wilson(round(values[0] * images), images)

    def over_seeds(self, metric: str) -> bool:
        """Whether the interval is one over seeds."""
        return interval_of_mean(self._values(metric)) is not None

    def by_seed(self) -> dict[int, float]:
        """The top-1 error of every seed."""
        return {error.seed: error.top1_err for error in self.errors if error.seed is not None}

    def _values(self, metric: str) -> list[float]:
        values = [getattr(error, metric) for error in self.errors]
        return [] if None in values else values


NetworkKey: TypeAlias = tuple[str, AttentionSpec | None, int]
"""What makes two networks one: the name of the one without attention, the attention, the number of classes."""


class StoredErrors:
    """The stored errors by network; later ones of equal origin and seed win. `left_out` are trials that are damaged."""

    def __init__(
        self, errors: Iterable[tuple[NetworkKey, StoredError]] = (), left_out: Iterable[tuple[Path, BenchError]] = ()
    ) -> None:
        self.left_out = tuple(left_out)
        by_origin: dict[NetworkKey, dict[str, dict[int | None, StoredError]]] = {}
        for network, error in errors:
            by_origin.setdefault(network, {}).setdefault(repr(error.origin), {})[error.seed] = error
        self.groups = {network: [_group(by_seed) for by_seed in known.values()] for network, known in by_origin.items()}

    def of(self, network: NetworkKey) -> list[ErrorGroup]:
        """The errors of one network, a group for each origin."""
        return self.groups.get(network, [])


def _group(by_seed: Mapping[int | None, StoredError]) -> ErrorGroup:
    errors = tuple(by_seed.values())
    return ErrorGroup(errors[-1].origin, errors)


def stored_errors(store: Store, documents: Iterable[StoredDocument] | None = None) -> StoredErrors:
    """Every error of a results folder; documents that cannot be read are left out, and named where they are asked for.

    An evaluation of weights that were trained here has the origin of that trial, at its own crop. `documents` are
    those of the folder where they have been read already.
    """
    read = list(_read_trials(store))
    trials = _newest(read)
    if documents is None:
        documents = (document for _, document in store.survey() if not isinstance(document, BenchError))
    left_out = ((path, trial) for path, trial in read if isinstance(trial, BenchError))
    return StoredErrors([*trials.values(), *_evaluations(documents, trials)], left_out)


def trial_errors(store: Store) -> dict[str, tuple[NetworkKey, StoredError]]:
    """The errors of every machine's trials, by their keys."""
    return _newest(_read_trials(store))


StoredTrial: TypeAlias = tuple[str, tuple[NetworkKey, StoredError]]
"""When a trial was stored, and its error."""


def _newest(read: Iterable[tuple[Path, StoredTrial | BenchError]]) -> dict[str, tuple[NetworkKey, StoredError]]:
    """The errors by the keys of their trials, of one that several machines have the newest."""
    trials = [(path.stem, trial) for path, trial in read if not isinstance(trial, BenchError)]
    return {key: error for key, (_, error) in sorted(trials, key=lambda one: one[1][0])}


def _read_trials(store: Store) -> Iterator[tuple[Path, StoredTrial | BenchError]]:
    """The trials of every machine, in place of a damaged one the error that names it."""
    for path in sorted((store.root / "runs").glob("*/trials/*.json")):
        try:
            document = json_object(read_file(path), str(path))
            if document.get("schema") != TRIAL:
                continue
            result: TrialResult = of_type(document.get("result"), TrialResult, str(path))
        except BenchError as damage:
            yield path, damage
            continue
        definition = document.get("definition")
        if not isinstance(definition, dict) or not result.model:
            continue
        data = definition.get("data")
        data = data if isinstance(data, dict) else {}
        row = CATALOG.get(result.model)
        if row is not None and not _has_own_groups(definition.get("network"), row):
            continue
        classes = data.get("classes") or (row.classes if row else 0)
        network = (root_of(result.model), result.attention, classes)
        error = StoredError(
            origin=_of_trial(definition, data, result),
            seed=result.seed,
            top1_err=result.top1_err,
            top5_err=result.top5_err,
        )
        yield path, (str(document.get("created", "")), (network, error))


def _has_own_groups(network: object, row: ModelSpec) -> bool:
    """Whether the network of a trial has as many groups as its row; earlier versions did not store it."""
    options = network.get("options") if isinstance(network, dict) else None
    name = "cardinality"
    return not isinstance(options, dict) or name not in options or options[name] == row.options.get(name)


def _of_trial(definition: Mapping[str, Any], data: Mapping[str, Any], result: TrialResult) -> StoredOrigin:
    """What a trial was measured by; earlier versions did not store all of it."""
    recipe, former = definition.get("recipe"), "code" in definition
    row = CATALOG.get(result.model)
    return StoredOrigin(
        dataset=result.dataset,
        size=data.get("size") or (row.input_size[1] if row else 0),
        train_images=data.get("train"),
        test_images=result.images or data.get("test") or 0,
        recipe=result.recipe,
        facts=None if former or not isinstance(recipe, dict) else _without_texts(recipe),
        epochs=result.epochs,
        lr=result.lr,
        batch_size=definition.get("batch"),
        precision=result.precision,
        start=str(definition.get("start", "")),
        averaged=definition.get("ema") is not None,
        data="" if result.dataset in EMBEDDED else f"{data.get('labels', '')}{data.get('images', '')}",
    )


def _without_texts(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recipe.items() if name not in TEXTS}


def _evaluations(
    documents: Iterable[StoredDocument], trials: Mapping[str, tuple[NetworkKey, StoredError]]
) -> Iterator[tuple[NetworkKey, StoredError]]:
    for document in documents:
        if not isinstance(document, Facts):
            continue
        for row in document.rows:
            if isinstance(row, ClassifierRow) and not row.altered:
                yield of_evaluation(row, trials)


def _state(row: ClassifierRow, trained: StoredOrigin) -> str:
    """How a trial's weights were evaluated, in words; empty where it was as the trial itself tests them."""
    return " ".join(filter(None, (row.taken, row.precision if row.precision != trained.precision else None)))


def of_evaluation(
    row: ClassifierRow, trials: Mapping[str, tuple[NetworkKey, StoredError]] | None = None
) -> tuple[NetworkKey, StoredError]:
    """The network and the error of an evaluated row."""
    known = (trials or {}).get(row.trial or "")
    seed = known[1].seed if known else None
    trained = known[1].origin if known else None
    tested: dict[str, Any] = {"dataset": row.dataset, "size": row.size, "test_images": row.images}
    tested["labels"] = row.labels or ""
    if trained is None:
        how: dict[str, Any] = {"recipe": row.recipe, "epochs": row.epochs, "precision": row.precision}
        origin = StoredOrigin(**tested, **how, train_images=None, weights=row.origin or row.weights)
    else:
        origin = replace(trained, **tested, weights=_state(row, trained))
    paired = row.against is not None and root_of(row.model) == row.against and row.difference is not None
    return (root_of(row.model), row.attention, row.classes or 1000), StoredError(
        origin=origin,
        seed=seed,
        top1_err=row.top1_err,
        top5_err=row.top5_err,
        gain=-row.difference if paired and row.difference is not None else None,
        gain_ci=(-row.difference_ci[1], -row.difference_ci[0]) if paired and row.difference_ci else None,
    )
