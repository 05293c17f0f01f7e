"""The sections of the page from the stored facts: charts, tables, and what is missing with the command for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from senet_bench.core.metrics import Metric, costs
from senet_bench.core.union import StoredRun, Timed
from senet_bench.gallery import ablations
from senet_bench.gallery.collection import DOCUMENTS_OF, Collection, main_timing
from senet_bench.gallery.here import own_tables
from senet_bench.gallery.page.headline import Grid, grids
from senet_bench.gallery.page.leaves import Leaf, flat, together, with_tables
from senet_bench.gallery.page.times import fastest, latencies, runtimes, timed_name, where
from senet_bench.gallery.plots import tradeoff, unit_of
from senet_bench.gallery.points import DATASET_NAMES, PAPER_CELLS, DatasetPoints, PricedError, points
from senet_bench.gallery.tables import error_tables
from senet_bench.gates import tables as excitations
from senet_bench.probing import tables as probes
from senet_bench.probing.plots import difficulty_curves, heat_map
from senet_bench.show.chart import name_of
from senet_bench.show.curves import curves
from senet_bench.show.drawing import Chart
from senet_bench.show.figures import significant
from senet_bench.show.layout import Layout
from senet_bench.show.tables import Column, Table, interval_text


@dataclass(frozen=True, slots=True)
class Content:
    """What the page shows; `missing` maps a section to a sentence and the command that brings it."""

    runtimes: tuple[Leaf, ...]
    own: tuple[Table, ...]
    cost: tuple[Leaf, ...]
    families: tuple[tuple[str, str], ...]
    grids: tuple[Grid, ...]
    ablations: tuple[Leaf, ...]
    latency: tuple[Leaf, ...]
    errors: tuple[tuple[str, Table], ...]
    gates: tuple[Leaf, ...]
    probes: tuple[Leaf, ...]
    selftests: tuple[tuple[str, Table], ...]
    others: tuple[tuple[str, Table], ...]
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)

    def charts(self) -> list[Chart]:
        """Every chart, which is a plot on disk too."""
        return [
            leaf.chart
            for leaf in flat((*self.runtimes, *self.cost, *self.ablations, *self.latency, *self.gates, *self.probes))
            if leaf.chart
        ]

    def tables(self) -> list[tuple[str, Table]]:
        """Every table of measured numbers under the name of its files; the paper's have their own."""
        named = [
            (leaf.table_name, leaf.table) for leaf in flat((*self.runtimes, *self.latency, *self.probes)) if leaf.table
        ]
        return [*((name, table) for name, table in named if name), *self.errors, *self.selftests, *self.others]


MOST_POINTS, MOST_CARDS = 100, 10
"""Points of one chart, and ablations that are drawn."""
LEAST_POINTS, MOST_TIMED = 20, 240
"""Points of one chart of times, and of those of all machines and conditions together."""


def content(collection: Collection) -> Content:
    """Everything that the stored facts have to show."""
    timings = collection.timings
    known = points(collection)
    shown = Content(
        runtimes=tuple(runtimes(collection, timings)),
        own=tuple(own_tables(collection)),
        cost=tuple(_costs(collection, timings, known)),
        families=tuple(dict.fromkeys((point.family, name_of(point.family)) for point in known)),
        grids=tuple(grids(collection)),
        ablations=tuple(_ablations(collection, main_timing(timings))),
        latency=tuple(latencies(collection, timings)),
        errors=tuple(error_tables(collection)),
        gates=tuple(_gates(collection)),
        probes=tuple(_probes(collection)),
        selftests=tuple(_tables_of(collection, "selftest")),
        others=tuple(
            one for name in ("evaluate", "freeze", "profile", "train") for one in _tables_of(collection, name)
        ),
        missing=_missing(collection, timings, known),
    )
    return _with_columns(shown, collection.layout)


def _with_columns(shown: Content, layout: Layout) -> Content:
    """The tables of errors and times with the columns asked for; `UsageError` where no table has one of them."""
    if not layout.columns:
        return shown
    layout.of_tables([*shown.own, *(table for _, table in shown.tables())])
    return replace(
        shown,
        own=tuple(map(layout.of_table, shown.own)),
        latency=tuple(with_tables(leaf, layout.of_table) for leaf in shown.latency),
        errors=tuple((name, layout.of_table(table)) for name, table in shown.errors),
    )


def _costs(collection: Collection, timings: Sequence[Timed], plain: Sequence[PricedError]) -> list[Leaf]:
    """A tab a data set, in it one a metric, in a measured one's one for each machine and conditions.

    Of several runtimes it is the fastest one's.
    """
    timings = fastest(timings)
    most = max(LEAST_POINTS, min(MOST_POINTS, MOST_TIMED // max(1, len(timings))))
    leaves = []
    for dataset in dict.fromkeys([*PAPER_CELLS, *(point.dataset for point in plain)]):
        known = DatasetPoints.of(plain, dataset)
        ending = "" if dataset == "imagenet" else f"-{name_of(dataset)}"
        tabs = []
        for metric in sorted(costs(), key=lambda metric: (metric.quantity != "count", metric.key)):  # FLOPs come first
            stem = f"error-vs-{name_of(metric.key)}{ending}"
            if metric.quantity == "count":
                leaf = _cost(*known.counted(metric.key, MOST_POINTS), dataset, metric, stem)
                tabs += [replace(leaf, name=metric.tab)] if leaf else []
                continue
            own = []
            for timed in timings:
                name, place = f"{stem}-{timed_name(timed, timings)}", where(collection, timed)
                leaf = _cost(*known.timed(timed, most), dataset, metric, name, place)
                own += [leaf] if leaf else []
            tabs += together(metric.tab, own)
        if tabs:
            leaves.append(Leaf(DATASET_NAMES.get(dataset, dataset), leaves=tuple(tabs)))
    return leaves


def _cost(
    own: Sequence[PricedError], count: int, dataset: str, metric: Metric, name: str, where: str = ""
) -> Leaf | None:
    """The chart of some of `count` errors, and its numbers."""
    chart = tradeoff(own, dataset, metric, name, where)
    if chart is None:
        return None
    if count > len(own):
        some = f"{len(own)} of {count} errors, the paper's and those of most seeds"
        chart = replace(chart, title=f"{chart.title}; {some}")
    here = "counted here" if metric.quantity == "count" else "timed here"
    unit = unit_of(own, metric)
    columns = ("network", "family", "error of", "recipe", unit.label, "", "top-1 error %", "95 % interval")
    lines = tuple(
        (
            point.label,
            point.family,
            "the paper" if point.source == "paper" else "here",
            point.group,
            cost.printed if cost.printed and len(metric.forms) == 1 else significant(cost.value, scale=unit.factor),
            "printed" if cost.printed else here,
            f"{point.error:.2f}",
            interval_text(point.interval),
        )
        for point, cost in ((point, point.costs[metric.key]) for point in own)
    )
    table = Table(
        chart.title, tuple(Column(one, numeric=one in (unit.label, "top-1 error %")) for one in columns), lines
    )
    rows = tuple(mark.row for mark in chart.marks if mark.row)
    return Leaf(where or metric.tab, chart, table, row_ids=rows)


def _ablations(collection: Collection, timed: Timed | None) -> Iterator[Leaf]:
    """The ablations made here, those of the most seeds drawn and the others named, then the paper's."""
    timings, named = collection.timings, collection.name_of
    runs = iter(collection.ablations)
    own = (ablations.of_ablation(same.together(), timings, named, collection.data_words) for same in runs)
    settled = (series for series in own if series.settings and series.panels)
    for series in (*islice(settled, MOST_CARDS), *ablations.of_studies(collection, timed)):
        if (chart := curves(series)) is not None:
            yield Leaf(series.title, chart)
    yield from (Leaf(ablations.title_of(same, collection.data_words)) for same in runs)


def _gates(collection: Collection) -> list[Leaf]:
    leaves = []
    for facts in collection.observations("excitations"):
        *figures, last = [Leaf(chart.title, chart) for chart in excitations.charts(facts)]
        table = excitations.gates_document(facts).wide[0]
        leaves += [*figures, replace(last, table=table, table_name=excitations.gates_stem(facts))]
    return leaves


def _probes(collection: Collection) -> list[Leaf]:
    """The heat map and the tables of the newest probe, and the curves and the tables of the newest that has them.

    One that was interrupted is shown where none has ended.
    """
    begun = [facts for _, facts in collection.facts("probe") if any(row.error is not None for row in facts.rows)]
    begun.sort(key=lambda facts: facts.summary.trials > 0)  # those that ended last
    newest = {probes.probe_stem(facts): facts for facts in begun}
    leaves = []
    for stem, facts in newest.items():
        errors, verdicts, apart = probes.probe_document(facts).wide
        chart = difficulty_curves(facts) if facts.conditions.curve else heat_map(facts)
        leaves.append(Leaf(chart.title, chart, errors, stem))
        leaves += [Leaf(errors.title, table=verdicts, table_name=f"{stem}-verdicts")]
        leaves += [Leaf(errors.title, table=apart, table_name=f"{stem}-pairs")]
    return leaves


def _tables_of(collection: Collection, command: str) -> list[tuple[str, Table]]:
    """The tables of the newest facts of a command, of each machine and question."""
    newest: dict[str, StoredRun] = {}
    for source, _ in collection.facts(command):
        question = [source.asked.get(name) for name in ("model", "dataset", "recipe", "device", "runtime")]
        newest[repr((source.machine, question))] = source
    found = []
    for source in newest.values():
        tables = DOCUMENTS_OF[command](source.document).wide  # type: ignore[arg-type]  # checked when it was gathered
        stem = source.path.rpartition("/")[2].removesuffix(".json")
        for place, table in enumerate(tables):
            name = f"selftest-{source.machine}" if command == "selftest" else stem
            found.append((name_of(f"{name}-{place + 1}" if len(tables) > 1 else name), table))
    return found


def _missing(
    collection: Collection, timings: Sequence[Timed], known: Sequence[PricedError]
) -> dict[str, tuple[str, str]]:
    """What no stored fact has, and the command that brings it."""
    trained = {point.dataset for point in known if point.source == "here"}
    ablated = [run for _, run in collection.runs("ablate") if any(row.accuracy for row in run.rows)]
    wanted = {
        "counts": (not collection.rows(), "no network was counted", "senet-bench compare --no-latency"),
        "imagenet": (
            "imagenet" not in trained,
            "no error was measured here on ImageNet",
            "senet-bench evaluate resnet50 seresnet50 --dataset imagenet --data DIR --weights FILE --weights FILE",
        ),
        "errors": (
            not trained,
            "no network was trained or evaluated here",
            "senet-bench compare resnet20_cifar --dataset digits",
        ),
        "ablations": (
            not ablated,
            "no ablation was trained here",
            "senet-bench ablate -m seresnet20_cifar --reduction --dataset digits --seeds 5",
        ),
        "latency": (not timings, "nothing was timed", "senet-bench compare"),
        "gates": (
            not collection.of("excitations"),
            "no gates were looked at",
            "senet-bench excitations seresnet20_cifar --dataset digits",
        ),
        "selftest": (not collection.of("selftest"), "timing was not tested", "senet-bench selftest"),
        "profile": (not collection.of("profile"), "no network was taken apart", "senet-bench profile seresnet50"),
    }
    return {name: (what, command) for name, (absent, what, command) in wanted.items() if absent}
