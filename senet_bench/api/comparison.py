"""`compare` and `ablate`: networks side by side, and one network with its attention varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet_bench.api.measuring import AxisTiming, Counting, Fitting, Overhead, Running, TimingOptions
from senet_bench.api.networks import Axes, Partners, Sizes, Switches
from senet_bench.api.parameters import options_typed
from senet_bench.api.reading import RESULTS, Results
from senet_bench.api.result import UNWATCHED, Result, Watch
from senet_bench.api.tables import TableOptions
from senet_bench.api.trials import Trials
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from senet_bench.core.results import Run
    from senet_bench.core.store import Store
    from senet_bench.overhead.answer import Budget
    from senet_bench.run.compare import Measure
    from senet_bench.run.record import Record

What = Annotated[
    list[str] | None,
    typer.Argument(help="Model ids, families, or table2, table3, ...; default: Tables 2 and 3.", show_default=False),
]


def compare(
    what: What = None,
    switches: Switches = Switches(),
    sizes: Sizes = Sizes(),
    partners: Partners = Partners(),
    counting: Counting = Counting(),
    timing: TimingOptions = TimingOptions(),
    running: Running = Running(),
    trials: Trials = Trials(),
    overhead: Overhead = Overhead(),
    tables: TableOptions = TableOptions(),
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Result:
    """Networks with and without SE side by side, each beside what the paper prints."""
    named, typed, conditions = switches.named(what), switches.typed(), running.conditions()
    sweep, limits = trials.sweep(running.precision, running.device, results), overhead.limits()
    reference = partners.reference()
    if limits and sweep is None:
        running.check_single(limits)
        names, plan = replace(switches, attach=False, replace=False), Trials(dry_run=trials.dry_run)
        _refuse_unheeded(names, sizes, partners, counting, TimingOptions(energy=timing.energy), plan, tables)
    from senet_bench.run import cases

    cases.check_names(named)
    layout = tables.layout()
    from senet_bench.core.all_seeds import with_all_seeds
    from senet_bench.core.store import Store
    from senet_bench.overhead import answer
    from senet_bench.overhead.tables import with_verdicts
    from senet_bench.run import count, forecast
    from senet_bench.run import tables as run_tables
    from senet_bench.run.apart import apart
    from senet_bench.run.compare import compare, trains_elsewhere
    from senet_bench.show import documents

    store = Store(results)
    bought = answer.Budget(limits, conditions[0]) if limits else None
    if bought is not None and sweep is None:
        return _answer(named, bought, timing.measures(conditions[:1], typed=True), store, watch)
    changes = replace(sizes.changes(typed), against=reference, only=partners.only)
    measures = timing.measures(conditions, typed=running.runtime is not None)
    if sweep is not None:
        measures["accuracy"], changes = sweep, sweep.fitted(changes)
    with apart(wanted=trains_elsewhere(measures) and not trials.dry_run):
        selected = cases.select(named, changes)
        layout.check(count.uncounted(cases.with_controls(selected) if sweep is not None else selected))
        if trials.dry_run:
            return Result.of(run_tables.forecast_document(forecast.of_comparison(named, store, changes, measures)))
        if expected := forecast.of_timing(selected, measures):
            watch.remark(expected)
        steps = compare(named, store, changes, counting.count(), measures, bought.plain if bought else None)
        record = watch.follow(steps, in_lines=trials.on_cluster)
    shown, notes = with_all_seeds(record.document, store)
    document = documents.of_run(shown, cases.selected_studies(what or ()), layout, notes)
    if bought is not None:
        document = with_verdicts(document, answer.budget_verdicts(named, store, bought), layout, shown.rows)
    return Result.of(documents.laid(document, layout), record)


def _refuse_unheeded(*groups: Any) -> None:
    """Raise `UsageError` on options that an answer from stored and printed errors does not heed."""
    if typed := options_typed(*groups):
        answered = "a budget without --dataset is answered from what is stored and printed"
        raise UsageError(f"{answered}, without {', '.join(typed)}", "add --dataset, or leave it out")


def _answer(what: Sequence[str], budget: Budget, timing: dict[str, Measure], store: Store, watch: Watch) -> Result:
    """What is known of an overhead from stored and printed errors; latencies that are missing are measured."""
    from senet_bench.overhead import answer, tables
    from senet_bench.show.tables import Document

    missing = answer.untimed(what, store, budget) if timing else []
    records: list[Record[Run]] = []
    if missing:
        count = sum(len(cases) - 1 for cases in missing)
        text = f"timing {count} networks that no latency is stored of; --no-latency answers without"
        watch.remark(text)
        records = watch.follow(answer.time_missing(missing, store, budget, timing))
    run, verdicts = answer.answer(what, store, budget)
    document = tables.with_verdicts(Document(run, (), (), ()), verdicts)
    failures = tuple(failure for record in records for failure in record.failures)
    return replace(Result.of(document), failures=failures)


def ablate(
    model: Annotated[str, typer.Option("-m", "--model", help="The network to vary.")] = "seresnet50",
    axes: Axes = Axes(),
    sizes: Sizes = Sizes(),
    counting: Counting = Counting(),
    timing: AxisTiming = AxisTiming(),
    running: Running = Running(),
    trials: Trials = Trials(),
    fitting: Fitting = Fitting(),
    tables: TableOptions = TableOptions(),
    results: Results = RESULTS,
    watch: Watch = UNWATCHED,
) -> Result:
    """Vary SE along one axis or several; an axis without a value takes the paper's."""
    model, chosen, conditions = axes.named(model), axes.chosen(), running.conditions()
    sweep, limits = trials.sweep(running.precision, running.device, results), fitting.limits()
    from senet_bench.run import cases

    cases.check_names([model])
    layout = tables.layout()
    from senet_bench.core.all_seeds import with_all_seeds
    from senet_bench.core.store import Store
    from senet_bench.overhead import fitting as fits
    from senet_bench.overhead.tables import with_verdicts
    from senet_bench.run import count, forecast
    from senet_bench.run import tables as run_tables
    from senet_bench.run.apart import apart
    from senet_bench.run.compare import ablate, trains_elsewhere
    from senet_bench.show import documents

    store = Store(results)
    changes = sizes.changes() if sweep is None else sweep.fitted(sizes.changes())
    needed, typed = "latency" in limits, running.runtime is not None
    measures = timing.measures(conditions, needed=needed, typed=typed)
    measures |= {} if sweep is None else {"accuracy": sweep}
    with apart(wanted=trains_elsewhere(measures) and not trials.dry_run):
        settings, _ = cases.grid_cases(model, chosen, changes)
        layout.check(count.uncounted(cases.with_controls(settings) if sweep is not None else settings))
        if trials.dry_run:
            facts = forecast.forecast(model, chosen, store, changes, counting.count(), measures)
            return Result.of(run_tables.forecast_document(facts))
        if expected := forecast.of_timing(settings, measures):
            watch.remark(expected)
        steps = ablate(model, chosen, store, changes, counting.count(), measures)
        record = watch.follow(steps, in_lines=trials.on_cluster)
    shown, notes = with_all_seeds(record.document, store)
    document = documents.of_run(shown, layout=layout, notes=notes)
    verdicts = fits.fitting_rows(shown.rows, limits) if limits else []
    document = with_verdicts(document, verdicts, layout, shown.rows)
    return Result.of(documents.laid(document, layout), record)
