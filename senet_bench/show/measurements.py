"""The tables of what was measured: latencies under every condition, and errors over seeds with their differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from senet_bench.core.blocks import constant_words
from senet_bench.core.comparisons import lowest, ranked
from senet_bench.core.results import UNTIMED, Accuracy, Difference, Energy, Latency, Row
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.time_ratios import TimedRow, over
from senet_bench.core.yardstick import Yardstick
from senet_bench.show.figures import significant
from senet_bench.show.layout import AS_IS, Layout
from senet_bench.show.tables import EMPTY, Column, Field, Table, bracketed, interval_text, number, points_text, table_of

Anything = TypeVar("Anything")
Trained = tuple[Row, Accuracy]

TIME_NOTES = (
    "ms: the fastest call of each block, its median over the rounds: what the network can do, not a throughput",
    "ratio: SE / baseline in the same rounds (Hodges-Lehmann), its interval holds over all looks at the data",
    "control: a second copy of the baseline / the first, 1 where timing can be trusted",
)
OVER_NOTE = (
    "over {row}: the ratio to the baseline over that of {row}, of networks of one baseline; its interval is made of "
    "both, and holds at 90 % or more"
)
ALLOCATOR_NAMES = {
    "as-is": EMPTY,  # not noted: a document from before it was
    "default": "default allocator",
    "tuned": "tuned allocator",
    "environment": "allocator set by the environment",
    "other": "another allocator than glibc's",
}
WIDE_TIME_NOTES = (
    "sees: the slowdown that as many rounds show in 8 of 10 runs; its interval is then above 1",
    "images/s: over all calls, slow ones too",
    "MiB: weights are parameters and buffers, a call's what it holds at most beyond them and the images",
)


PAPER_TIMES = {
    "cpu_ms": "paper ms: one image of 224 px on the authors' CPU: its ratio to the baseline's can be compared",
    "train_ms": "paper ms: a step of 256 images on 8 NVIDIA Titan X, whatever the batch and the device are here",
}
ENERGY_NOTES = (
    "J: of the whole board or package, at rest too; its ratio is over rounds of blocks of a second",
    "its control: other blocks of the baseline",
)


def latency_table(
    rows: Sequence[Row], *, narrow: bool = False, name: Callable[[Row], str], against: Yardstick | None = None
) -> Table | None:
    """One line for each row and condition, also over the row of `against`; None when nothing was timed."""
    entries = [(row, latency) for row in rows for latency in row.latencies]
    if not entries:
        return None
    constant, varying = _conditions([latency for _, latency in entries])
    columns = list(_columns(entries, varying, name, narrow))
    if against is not None:
        columns.insert(4 + len(varying), _over(against))
    body = tuple(zip(*([text(row, latency) for row, latency in entries] for _, text in columns)))
    reasons = dict.fromkeys(f"{name(row)}: {latency.reason}" for row, latency in entries if latency.reason)
    missing = dict.fromkeys(
        f"{name(row)}: not timed: {why}" for row in rows for what, why in row.missing.items() if what in UNTIMED
    )
    return Table(
        f"Latency: {constant}",
        tuple(column for column, _ in columns),
        body,
        (
            *reasons,
            *missing,
            *dict.fromkeys(latency.energy_missing for _, latency in entries if latency.energy_missing),
            *_contradictions(entries, name),
            *([OVER_NOTE.format(row=against.name)] if against is not None else []),
            *_time_notes(rows),
            *(ENERGY_NOTES if any(latency.energy for _, latency in entries) else ()),
            *(WIDE_TIME_NOTES if not narrow and _has_means(entries) else ()),
            *dict.fromkeys(PAPER_TIMES[_printed_time(one) or ""] for row, one in entries if _paper(row, one)),
        ),
    )


def _over(against: Yardstick) -> tuple[Column, Callable[[Row, Latency], str]]:
    """The column of times over those of the row that is named."""

    def text(row: Row, latency: Latency) -> str:
        one = over((row, latency), against)
        if one is None:
            return EMPTY
        return f"{one.value:.3f}{bracketed(one.ci, '.3f')}"

    return Column(f"over {against.name}"), text


def _time_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """What the columns are; of networks that were given, not SE and its baseline, what their ratios are of."""
    given = {row.role for row in rows} <= {"baseline", "plain"}
    first = next((row.label for row in rows if row.baseline is None), "the baseline") if given else ""
    return tuple(note.replace("SE / baseline", f"a network / {first}") if given else note for note in TIME_NOTES)


def _contradictions(entries: Sequence[TimedRow], name: Callable[[Row], str]) -> Iterator[str]:
    """Where two medians say faster and the ratio of their rounds is surely slower, or the other way round."""
    bases = {(row.model, _shared(row, latency)): latency for row, latency in entries if row.baseline is None}
    for row, latency in entries:
        base = bases.get((row.baseline or "", _shared(row, latency)))
        if base is None or latency.ci is None or latency.ci[0] <= 1 <= latency.ci[1]:
            continue
        if (latency.seconds < base.seconds) == (latency.ci[0] > 1):
            yield f"{name(row)}: ms and ratio disagree, as on a busy machine: the ratio is of calls in the same rounds"


def _shared(row: Row, latency: Latency) -> tuple[object, ...]:
    """What the times of two networks share that are set against each other."""
    return row.input_size, row.classes, row.cardinality, latency.conditions


def _conditions(latencies: Sequence[Latency]) -> tuple[str, tuple[str, ...]]:
    """What all latencies share, in words, and the names of the conditions that vary."""
    described = [
        {**asdict(conditions), "device": f"{conditions.device} ({card})" if card else conditions.device}
        for conditions, card in dict.fromkeys((latency.conditions, latency.hardware) for latency in latencies)
    ]
    varying = tuple(name for name in described[0] if len({one[name] for one in described}) > 1)
    words: dict[str, dict[Any, str]] = {
        "mode": {"infer": "inference", "train": "training step"},
        "threads": {threads: f"{threads} thread{'s' * (threads != 1)}" for threads in range(1, 1025)},
        "channels_last": {True: "channels last", False: EMPTY},
        "cache": {"warm": EMPTY, "cold": "cold cache"},
        "allocator": ALLOCATOR_NAMES,
    }
    order = (
        "mode",
        "batch_size",
        "device",
        "precision",
        "runtime",
        "channels_last",
        "threads",
        "timing",
        "cache",
        "allocator",
    )
    int8 = any(RUNTIMES[one["runtime"]].int8 for one in described if one["runtime"] in RUNTIMES)
    unsaid = {*varying, *(("precision",) if int8 else ())}  # the runtime says it
    shared = [(name, described[0][name]) for name in order if name not in unsaid]
    texts = [
        f"batch {value}" if name == "batch_size" else words.get(name, {}).get(value, str(value))
        for name, value in shared
    ]
    return ", ".join(filter(None, texts)), varying


def _columns(
    entries: Sequence[TimedRow], varying: Sequence[str], name: Callable[[Row], str], narrow: bool
) -> Iterator[tuple[Column, Callable[[Row, Latency], str]]]:
    yield Column("network", numeric=False), lambda row, _: name(row)
    for condition in varying:
        yield _condition_column(condition)
    yield Column("ms"), lambda _, latency: significant(latency.seconds, scale=1e3)
    yield Column("ratio"), lambda _, latency: number(latency.ratio, ".3f")
    yield Column("95 % interval" if _all_95(entries) else "interval"), lambda _, latency: _interval(latency)
    yield Column("control"), lambda _, latency: number(latency.control_ratio, ".3f")
    if not narrow:
        if _has_means(entries):
            yield Column("sees"), lambda _, latency: number(_since_means(latency, latency.mde), ".1%")
        yield Column("CPU ratio"), lambda _, latency: number(latency.cpu_ratio, ".3f")
        yield Column("rounds"), lambda _, latency: str(latency.rounds)
        if _has_means(entries):
            rate = Column("images/s")
            yield rate, lambda _, latency: significant(_since_means(latency, latency.images_per_second))
        if any(latency.weight_bytes for _, latency in entries):
            yield Column("weights MiB"), lambda _, latency: number(latency.weight_bytes, ".1f", 2**-20)
        if any(latency.peak_bytes for _, latency in entries):
            yield Column("a call's MiB"), lambda _, latency: number(latency.peak_bytes, ".1f", 2**-20)
        if any(_total_bytes(latency) for _, latency in entries):
            yield Column("total MiB"), lambda _, latency: number(_total_bytes(latency), ".1f", 2**-20)
    if any(latency.energy for _, latency in entries):
        yield from _energy_columns(narrow)
    if any(_paper(row, latency) for row, latency in entries):
        yield Column("paper ms"), _paper


def _energy_columns(narrow: bool) -> Iterator[tuple[Column, Callable[[Row, Latency], str]]]:
    """Joules an image and their ratio; where there is room its interval, the control's and the power."""

    def of(value: Callable[[Energy], str]) -> Callable[[Row, Latency], str]:
        return lambda _, latency: value(latency.energy) if latency.energy else EMPTY

    yield Column("J an image"), of(lambda energy: significant(energy.joules, 3))
    yield Column("J ratio"), of(lambda energy: number(energy.ratio, ".3f"))
    if not narrow:
        yield Column("its 95 % interval"), of(lambda energy: interval_text(energy.ci, ".3f", between="–"))
        yield Column("its control"), of(lambda energy: number(energy.control_ratio, ".3f"))
        yield Column("W"), of(lambda energy: significant(energy.watts, 3))


def _has_means(entries: Sequence[TimedRow]) -> bool:
    return any(latency.mean_seconds is not None for _, latency in entries)


def _since_means(latency: Latency, value: float | None) -> float | None:
    """The value, None where it was stored before the mean of all calls was: it had another meaning then."""
    return value if latency.mean_seconds is not None else None


def _total_bytes(latency: Latency) -> int | None:
    """What a network takes: its weights, and what a call holds at most beyond them and the images."""
    if latency.weight_bytes is None or latency.peak_bytes is None:
        return None
    return latency.weight_bytes + latency.peak_bytes


def _condition_column(condition: str) -> tuple[Column, Callable[[Row, Latency], str]]:
    column = Column(condition.replace("_", " "), numeric=condition in ("threads", "batch_size"))
    return column, lambda _, latency: str(getattr(latency.conditions, condition))


def _paper(row: Row, latency: Latency) -> str:
    """The paper's time of the same kind: one image on a CPU, or a training step."""
    metric = _printed_time(latency)
    return next((cell.printed for cell in row.paper if cell.metric == metric), EMPTY)


def _printed_time(latency: Latency) -> str | None:
    """The paper's metric of the same kind, None where it prints none."""
    conditions = latency.conditions
    if conditions.mode == "train":
        return "train_ms"
    return "cpu_ms" if (conditions.batch_size, conditions.device) == (1, "cpu") else None


def _all_95(entries: Sequence[TimedRow]) -> bool:
    levels = {latency.confidence for _, latency in entries if latency.confidence is not None}
    return levels == {0.95}


def _interval(latency: Latency) -> str:
    odd = latency.ci is not None and latency.confidence not in (None, 0.95)
    return interval_text(latency.ci, ".3f", between="–") + (f" ({latency.confidence:.0%})" if odd else EMPTY)


DIFFERENCE_NOTE = "difference: minus the baseline's error over the same seeds and data order, in points"
AGAINST_NOTE = "minus {row}: the difference of errors over the same seeds and data order, in points"
INTERVAL_NOTE = (
    "in brackets the 95 % interval of that difference alone, to which p alone belongs; p Holm is adjusted over the "
    "{family}, the joint intervals hold together over them (Bonferroni)"
)
CONTROL_NOTE = (
    "over fixed gates: minus the error of the network with {gates}: what attention itself brings; its p by "
    "Holm over the rows that have one"
)
PAIRS_NOTE = "pairs: seeds that both networks of a difference have"


def error_table(
    rows: Sequence[Row],
    name: Callable[[Row], str],
    *,
    narrow: bool = False,
    layout: Layout = AS_IS,
    among: int = 0,
    where: str = "",
) -> Table | None:
    """One line a network that was trained; None when none was. `among` is how many the rows were chosen from.

    `where` names the machine and the conditions of their latencies, where nothing else in sight does.
    """
    trained = [(row, row.accuracy) for row in rows if row.accuracy is not None]
    if not trained:
        return None
    fields: list[Field[Trained]] = [(Column("network", numeric=False), lambda entry: name(entry[0]))]
    fields += [*error_fields(trained, narrow, layout), *_difference_fields(trained, narrow, layout)]
    fields += _control_fields(trained, narrow, layout)
    missing = (f"{name(row)}: {row.missing['accuracy']}" for row in rows if "accuracy" in row.missing)
    recipes = list(dict.fromkeys(accuracy.protocol.words for _, accuracy in trained))
    if len(recipes) > 1:
        fields.append((Column("recipe", numeric=False), lambda entry: entry[1].protocol.words))
    sets = list(dict.fromkeys(accuracy.dataset for _, accuracy in trained))
    best = fronts(rows, name, among, where) if len(recipes) == len(sets) == 1 else ()
    notes = (*missing, *_seedings(rows, name), *_places(trained, name), *_remarks(trained, name))
    notes += (*best, *_error_notes(trained, narrow, layout))
    how = recipes[0] if len(recipes) == 1 else "each by its own recipe"
    if len(sets) > 1:
        fields.insert(1, (Column("data", numeric=False), lambda entry: entry[1].dataset))
    title = f"Top-1 error on {' and '.join(sets)} ({how})"
    return table_of(title, fields, trained, notes)


def error_fields(trained: Sequence[Trained], narrow: bool, layout: Layout) -> Iterator[Field[Trained]]:
    """The columns of a network's errors: the mean with its spread as asked, and of how many seeds unless `narrow`."""
    form = f".{layout.decimals}f"
    if layout.spread == "columns":
        yield Column("error %"), lambda entry: number(entry[1].top1_err, form, 100)
        yield Column("sd"), lambda entry: number(entry[1].sd, form, 100)
    elif layout.spread == "sd":
        yield Column("error %"), lambda entry: _beside(entry[1], form, f" ± {number(entry[1].sd, form, 100)}")
    else:
        yield (
            Column("error %"),
            lambda entry: _beside(entry[1], form, f" [{interval_text(mean_interval(entry[1]), form, 100, ', ')}]"),
        )
    if not narrow:
        yield Column("seeds"), lambda entry: str(entry[1].seeds)
    if any(accuracy.pairs not in (None, accuracy.seeds) for _, accuracy in trained):
        yield Column("pairs"), lambda entry: number(entry[1].pairs, "d")


def _beside(accuracy: Accuracy, form: str, spread: str) -> str:
    """The mean error with its spread behind it, alone where it is of one seed."""
    return number(accuracy.top1_err, form, 100) + (spread if accuracy.seeds > 1 or accuracy.ci else EMPTY)


def mean_interval(accuracy: Accuracy) -> tuple[float, float] | None:
    """The 95 % t interval of the mean error over seeds, within 0 and 1, else the interval that is stored."""
    from senet_bench.core.intervals import interval_of_mean

    values = list(accuracy.per_seed.values())
    bounds = accuracy.ci if len(values) < 2 else interval_of_mean(values)
    return None if bounds is None else (max(0.0, bounds[0]), min(1.0, bounds[1]))


def _difference_fields(trained: Sequence[Trained], narrow: bool, layout: Layout) -> Iterator[Field[Trained]]:
    """The differences to the baseline, or to the row that was asked for."""
    form = f"+.{layout.decimals}f"
    heading = f"minus {layout.yardstick.title}" if layout.yardstick else "difference"
    known = {id(accuracy): _difference(accuracy, layout) for _, accuracy in trained}

    def of(entry: Trained) -> Difference | None:
        return known[id(entry[1])]

    def points_of(entry: Trained) -> str:
        difference = of(entry)
        return points_text(difference.value, difference.ci, form) if difference else EMPTY

    def joint_of(entry: Trained) -> str:
        difference = of(entry)
        return interval_text(difference.joint_ci, form, 100) if difference else EMPTY

    yield Column(heading), points_of
    if not narrow:
        yield Column("p alone"), lambda entry: number(one.p_value if (one := of(entry)) else None, ".2g")
        yield Column("joint interval"), joint_of
    yield Column("p Holm"), lambda entry: number(one.p_holm if (one := of(entry)) else None, ".2g")


def _difference(accuracy: Accuracy, layout: Layout) -> Difference | None:
    """The difference to the row that was asked for where one was, else to the baseline."""
    return accuracy.against if layout.yardstick else to_baseline(accuracy)


def to_baseline(accuracy: Accuracy) -> Difference | None:
    """The difference to the baseline as one thing, None where there is none."""
    if accuracy.difference is None:
        return None
    return Difference(
        row="the baseline",
        value=accuracy.difference,
        pairs=accuracy.pairs or accuracy.seeds,
        ci=accuracy.difference_ci,
        joint_ci=accuracy.difference_joint_ci,
        p_value=accuracy.p_value,
        p_holm=accuracy.p_holm,
        family=accuracy.family or 1,
    )


def _control_fields(trained: Sequence[Trained], narrow: bool, layout: Layout) -> Iterator[Field[Trained]]:
    if not any(accuracy.control_difference is not None for _, accuracy in trained):
        return
    yield (
        Column("over fixed gates"),
        lambda entry: points_text(entry[1].control_difference, entry[1].control_difference_ci, f"+.{layout.decimals}f"),
    )
    if not narrow:
        yield Column("its p"), lambda entry: number(entry[1].control_p_holm, ".2g")


def _error_notes(trained: Sequence[Trained], narrow: bool, layout: Layout) -> Iterator[str]:
    """What the columns are."""
    compared = [one for _, accuracy in trained if (one := _difference(accuracy, layout))]
    if compared:
        yield AGAINST_NOTE.format(row=layout.yardstick.title) if layout.yardstick else DIFFERENCE_NOTE
    family = max((one.family for one in compared), default=1)
    if any(one.p_holm is not None for one in compared):
        yield INTERVAL_NOTE.format(family=f"{family} rows compared" if family > 1 else "one row compared")
    if any(accuracy.pairs not in (None, accuracy.seeds) for _, accuracy in trained):
        yield PAIRS_NOTE
    if any(accuracy.control_difference is not None for _, accuracy in trained):
        controls = (row.attention for row, _ in trained if row.attention is not None and row.attention.is_constant)
        note = CONTROL_NOTE.format(gates=constant_words(next(controls, AttentionSpec("constant"))))
        if any(row.role == "variant" and accuracy.control_difference is None for row, accuracy in trained):
            note += "; none where its stages or places are others"
        yield note if not narrow else note.partition(";")[0]


SEEDING_NOTE = (
    "these hold together over all looks and rows at {:.0%}; p and intervals of the columns take the seeds as if their "
    "number had been fixed"
)


def _seedings(rows: Sequence[Row], name: Callable[[Row], str]) -> Iterator[str]:
    """What is known of each row where seeds were added until it was, and what is needed yet."""
    confidence = None
    for row in rows:
        seeding = row.seeding
        if seeding is None:
            continue
        confidence, points = seeding.confidence, f"{100 * seeding.width:g} points"
        more = f"; about {seeding.needed} more would tell" if seeding.needed else ""
        yield {
            "lower": f"{name(row)} errs less than its baseline: known after {seeding.seeds} seeds",
            "higher": f"{name(row)} errs more than its baseline: known after {seeding.seeds} seeds",
            "same": f"{name(row)} differs from its baseline by at most {points}: known after {seeding.seeds} seeds",
            "open": f"{name(row)}: not known to {points} after {seeding.seeds} seeds{more}",
        }[seeding.verdict]
    if confidence is not None:
        yield SEEDING_NOTE.format(confidence)


def _places(trained: Sequence[tuple[Row, Accuracy]], name: Callable[[Row], str]) -> tuple[str, ...]:
    """Where the rows were trained, unless all of them were on the CPU; in a line for each row where they differ."""
    places = [", ".join(accuracy.trained_on) for _, accuracy in trained]
    if set(places) <= {"", "cpu"}:
        return ()
    if len(set(places)) == 1:
        return (f"trained on {places[0]}",)
    return tuple(f"{name(row)}: trained on {place or 'cpu'}" for (row, _), place in zip(trained, places))


def _remarks(trained: Sequence[Trained], name: Callable[[Row], str]) -> Iterator[str]:
    """What was said of how the rows' trainings began; with the rows' names where it is not of all."""
    rows: dict[str, list[str]] = {}
    for row, accuracy in trained:
        for remark in accuracy.remarks:
            rows.setdefault(remark, []).append(name(row))
    for remark, names in rows.items():
        yield remark if len(names) == len(trained) else f"{', '.join(names)}: {remark}"


def fronts(rows: Sequence[Row], name: Callable[[Row], str], among: int = 0, where: str = "") -> tuple[str, ...]:
    """The Pareto front of error against each cost, and which settings are told not to err least; not of a part.

    `among` is how many rows these were chosen from, for which tests are corrected; `where` names what the latencies
    were measured by.
    """
    if any(row.seeds_elsewhere for row in rows):
        return ("a part of the trials, and so no verdict: the others are of another share, or are left with a cluster",)
    settings = ranked(rows)
    best = lowest(rows, among)
    if best is None:
        return ()
    costs: dict[str, Callable[[Row], float | None]] = {
        "FLOPs": lambda row: row.flops.get("macs"),
        "parameters": lambda row: row.params,
    }
    if _comparable_times(settings):
        costs[f"latency ({where})" if where else "latency"] = _relative_latency
    lines = []
    for cost, of in costs.items():
        if all(of(row) is not None for row in settings):
            lines.append(f"Pareto front of error against {cost}: {', '.join(name(row) for row in front(settings, of))}")
    sentences = []
    if best.tied:
        sentences.append(f"the data cannot tell it from {', '.join(map(name, best.tied))}")
    if best.worse:
        others = max(len(settings), among) - 1
        sentences.append(
            f"not the lowest, by tests corrected for {others} other row{'s' * (others != 1)}: "
            f"{', '.join(map(name, best.worse))}"
        )
    return (*lines, "; ".join((f"lowest error: {name(best.row)}", *sentences)))


def front(rows: Sequence[Row], cost: Callable[[Row], float | None]) -> list[Row]:
    """The rows on the Pareto front of error against a cost, by rising cost."""
    return pareto(rows, lambda row: cost(row) or 0.0, _error)


def pareto(
    items: Iterable[Anything], cost: Callable[[Anything], float], loss: Callable[[Anything], float]
) -> list[Anything]:
    """The items that no other beats in one of cost and loss without losing in the other, by rising cost; ties stay."""
    known = list(items)
    priced = sorted((cost(item), loss(item), place) for place, item in enumerate(known))
    kept: list[tuple[float, float, int]] = []
    for one in priced:
        if not kept or one[1] < kept[-1][1] or one[:2] == kept[-1][:2]:
            kept.append(one)
    return [known[place] for _, _, place in kept]


def _error(row: Row) -> float:
    return row.accuracy.top1_err if row.accuracy else 1.0


def _comparable_times(rows: Sequence[Row]) -> bool:
    """Whether the rows were timed beside one baseline under the same conditions, each without a reservation."""
    latencies = [(row.baseline or row.model, row.latency) for row in rows if row.latency and not row.latency.reason]
    shared = {(base, latency.conditions, latency.hardware) for base, latency in latencies}
    return len(latencies) == len(rows) and len(shared) == 1


def _relative_latency(row: Row) -> float | None:
    if row.latency is None:
        return None
    return 1.0 if row.baseline is None else row.latency.ratio
