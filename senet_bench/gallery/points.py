"""Errors beside what they cost: the points of the trade-off, as the paper prints them and as measured here."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from senet_bench.core.catalog import CATALOG
from senet_bench.core.changes import changed
from senet_bench.core.learning import ClassifierRow
from senet_bench.core.metrics import METRICS, Metric, costs
from senet_bench.core.reproduction import find, of_study
from senet_bench.core.results import Accuracy, Latency, Row
from senet_bench.core.specs import AttentionSpec, by_sides
from senet_bench.core.union import Key, Timed, data_words, identity, training_protocol
from senet_bench.gallery.collection import Collection
from senet_bench.show.measurements import mean_interval

PAPER_CELLS: dict[str, tuple[str, ...]] = {
    "imagenet": ("table2", "table3"),
    "cifar10": ("table4",),
    "cifar100": ("table5",),
    "places365": ("table6",),
}
"""Where the paper prints the top-1 errors of a data set; the rows of one table share a recipe."""
DATASET_NAMES = {"imagenet": "ImageNet", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "places365": "Places365"}
Interval = tuple[float, float]
CLASS_COUNTS = {"imagenet": 1000, "cifar10": 10, "cifar100": 100, "places365": 365}


@dataclass(frozen=True, slots=True)
class PointCost:
    """What one metric of a point is, in its unit; `printed` are the paper's digits where it is theirs."""

    value: float
    printed: str = ""
    ratio: float | None = None
    ratio_ci: Interval | None = None


@dataclass(frozen=True, slots=True)
class KnownError:
    """The interval of an error in per cent, and where it comes from."""

    interval: Interval | None
    about: tuple[str, ...]


@dataclass(frozen=True)
class TrainedError:
    """The same of an error that was trained here, made when it is asked for."""

    accuracy: Accuracy

    @cached_property
    def interval(self) -> Interval | None:
        """The interval of the mean error, in per cent."""
        return _percent(mean_interval(self.accuracy))

    @cached_property
    def about(self) -> tuple[str, ...]:
        """The error, its difference to the baseline's, and its recipe."""
        own = self.accuracy
        error = f"{_interval_text(own, self.interval)}, {own.seeds} seed{'s' * (own.seeds != 1)}"
        lines = [f"error measured here: {error}"]
        if own.difference is not None:
            lines.append(f"minus the baseline's: {_signed(own.difference, own.difference_ci)}")
        return *lines, f"recipe {own.protocol.words}"


@dataclass(frozen=True, slots=True)
class PricedError:
    """An error in per cent and its costs; points of one `group` share a recipe, those of one `pair` an arrow.

    `gain` is the interval of its paired difference to the baseline, in points. The interval and the words about a
    point are made where they are asked for, as most points are never drawn.
    """

    label: str
    family: str
    dataset: str
    source: Literal["paper", "here"]
    kind: Literal["baseline", "attention", "control"]
    group: str
    pair: str
    error: float
    costs: Mapping[str, PointCost]
    known: KnownError | TrainedError
    network: Key | None = None
    gain: Interval | None = None

    @property
    def interval(self) -> Interval | None:
        """The interval of the error."""
        return self.known.interval

    @property
    def about(self) -> tuple[str, ...]:
        """Where the error comes from, and what it was measured by."""
        return self.known.about


def points(collection: Collection) -> list[PricedError]:
    """Every known error with what was counted of its network; those of the most seeds come first of each data set."""
    rows = collection.rows()
    trained = [row for errors in collection.errors for row in errors.rows]
    return [*_printed(rows), *_trained(trained), *_evaluated(collection, rows)]


def timed_points(known: Sequence[PricedError], timed: Timed) -> list[PricedError]:
    """The errors of networks that were timed on one machine under one set of conditions, with those times."""
    pairs = ((point, timed.by_network.get(point.network)) for point in known if point.network is not None)
    return [_timed_point(point, latency) for point, latency in pairs if latency is not None]


def _timed_point(point: PricedError, latency: Latency) -> PricedError:
    cost = PointCost(latency.seconds / METRICS["latency"].scale, ratio=latency.ratio, ratio_ci=latency.ci)
    return changed(point, costs={**point.costs, "latency": cost})


@dataclass(frozen=True, slots=True)
class DatasetPoints:
    """The errors on one data set, in their order, and their places by network."""

    points: Sequence[PricedError]
    places: Mapping[Key, Sequence[int]]

    @classmethod
    def of(cls, known: Iterable[PricedError], dataset: str) -> DatasetPoints:
        """Those of a data set."""
        own = [point for point in known if point.dataset == dataset]
        places: dict[Key, list[int]] = {}
        for place, point in enumerate(own):
            if point.network is not None:
                places.setdefault(point.network, []).append(place)
        return cls(own, places)

    def counted(self, metric: str, most: int) -> tuple[list[PricedError], int]:
        """The first of those with a count, and how many there are."""
        own = [point for point in self.points if metric in point.costs]
        return own[:most], len(own)

    def timed(self, timed: Timed, most: int) -> tuple[list[PricedError], int]:
        """The first of those that were timed on one machine under one set of conditions, and how many there are."""
        known = [place for network in timed.by_network for place in self.places.get(network, ())]
        own = [self.points[place] for place in heapq.nsmallest(most, known)]
        return timed_points(own, timed), len(known)


def _printed(rows: Sequence[Row]) -> Iterator[PricedError]:
    counts = _counts()
    for dataset, studies in PAPER_CELLS.items():
        for study in studies:
            for row in of_study(rows, study):
                cell = find(row, study.removeprefix("table"), "top1_err")
                if cell is None or cell.number is None:
                    continue
                about = (f"error as printed in Table {cell.table}: {cell.printed} %", *_unlike(row, dataset))
                yield PricedError(
                    label=row.label,
                    family=row.family,
                    dataset=dataset,
                    source="paper",
                    kind="baseline" if row.attention is None else "attention",
                    group=f"Table {cell.table}",
                    pair=f"{study} {row.baseline or row.model} {row.input_size}",
                    error=cell.number,
                    costs=_costs(row, counts, cell.table),
                    known=KnownError(None, about),
                    network=identity(row),
                )


def _unlike(row: Row, dataset: str) -> tuple[str, ...]:
    """A remark where the costs are those of the network with another number of classes."""
    alike = row.classes == CLASS_COUNTS[dataset]
    return () if alike else (f"cost of the network with {row.classes} classes, not {CLASS_COUNTS[dataset]}",)


def _groups(row: Row) -> str:
    """The number of groups of a network where it is not its own."""
    return f" C={row.cardinality}" if row.cardinality is not None else ""


def _trained(rows: Sequence[Row]) -> Iterator[PricedError]:
    counts, data = _counts(), data_words(training_protocol(row.accuracy) for row in rows if row.accuracy)
    for row in rows:
        accuracy = row.accuracy
        if accuracy is None:
            continue
        group = f"{accuracy.protocol.words}, {_size(row)}{data(training_protocol(accuracy))}"
        yield PricedError(
            label=row.label,
            family=row.family,
            dataset=accuracy.dataset,
            source="here",
            kind=_kind(row.attention),
            group=group,
            pair=f"{group} {row.baseline or row.model}{_groups(row)}",
            error=100 * accuracy.top1_err,
            costs=_costs(row, counts),
            known=TrainedError(accuracy),
            network=identity(row),
            gain=_percent(accuracy.difference_ci),
        )


def _evaluated(collection: Collection, rows: Sequence[Row]) -> Iterator[PricedError]:
    """The newest errors of weights that `evaluate` was given, each with what was counted of that very network."""
    points: dict[Key, PricedError] = {}
    counts = _counts()
    for _, facts in collection.facts("evaluate"):
        for line in facts.rows:
            if not isinstance(line, ClassifierRow):
                continue
            row = next((row for row in rows if _is_of(line, row)), None)
            spec = CATALOG.get(line.model)
            family = row.family if row else spec.family if spec else "other"
            baseline = (row.baseline if row else spec.baseline if spec else None) or line.model
            labels = f", labels of {line.labels}" if line.labels else ""
            group = f"weights evaluated here, {line.size} px{labels}"
            low, high = 100 * line.ci[0], 100 * line.ci[1]
            error = f"error measured here: {100 * line.top1_err:.2f} % ({low:.2f} to {high:.2f})"
            points[_evaluation(line)] = PricedError(
                label=line.label,
                family=family,
                dataset=line.dataset,
                source="here",
                kind="attention" if line.attention else "baseline",
                group=group,
                pair=f"{group} {baseline}",
                error=100 * line.top1_err,
                costs=_costs(row, counts) if row else {},
                known=KnownError((low, high), (f"{error}, {line.images} images", f"weights {line.weights}")),
                network=identity(row) if row else None,
                gain=_percent(line.difference_ci) if line.against == baseline else None,
            )
    yield from points.values()


def _evaluation(line: ClassifierRow) -> Key:
    """What two evaluations have in common of which the later one counts."""
    form = tuple(line.constant_gates or ()), line.runtime, line.taken
    return line.model, line.attention, line.weights, *form, line.dataset, line.labels, line.size


def _is_of(line: ClassifierRow, row: Row) -> bool:
    """Whether a row is of the network that was evaluated; none is of one that was altered."""
    size = len(line.mean), line.size, line.size
    network = line.model, line.attention, size, line.classes, None
    own = row.model, row.attention, row.input_size, row.classes, row.cardinality
    return network == own and not line.altered


def _counts() -> list[Metric]:
    """The metrics that are counted and that errors are set against."""
    return [metric for metric in costs() if metric.quantity == "count"]


def _costs(row: Row, counts: Sequence[Metric], table: str | None = None) -> dict[str, PointCost]:
    """By metric what the paper prints for it in the same table, else what was counted here."""
    found = {}
    for metric in counts:
        value = metric.of(row)
        if value:
            found[metric.key] = PointCost(value / metric.scale)
        for form in metric.forms if table else ():
            cell = find(row, table, form.key)
            if cell is not None and cell.number is not None:
                found[metric.key] = PointCost(cell.number * form.scale / metric.scale, cell.printed)
    return found


def _kind(attention: AttentionSpec | None) -> Literal["baseline", "attention", "control"]:
    return "baseline" if attention is None else "control" if attention.is_constant else "attention"


def _size(row: Row) -> str:
    return f"{row.input_size[1]} px" if len(row.input_size) == 3 else by_sides(row.input_size)


def _percent(interval: Interval | None) -> Interval | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def _interval_text(accuracy: Accuracy, interval: Interval | None) -> str:
    text = f"{100 * accuracy.top1_err:.2f} %"
    return text if interval is None else f"{text} ({interval[0]:.2f} to {interval[1]:.2f})"


def _signed(value: float, interval: Interval | None) -> str:
    between = f" ({100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})" if interval else ""
    return f"{100 * value:+.2f} points{between}"
