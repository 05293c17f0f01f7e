"""The tables of what was measured: latencies under every condition, and errors over seeds with their differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from senet_bench.core.results import UNTIMED, Accuracy, Latency, Row
from senet_bench.show.tables import EMPTY, Column, Table, interval_text, number, points_text

Anything = TypeVar("Anything")
TimedRow = tuple[Row, Latency]

TIME_NOTES = (
    "ms: the fastest call of each block, its median over the rounds: what the network can do, not a throughput",
    "ratio: SE / baseline in the same rounds (Hodges-Lehmann), its interval holds over all looks at the data",
    "control: a second copy of the baseline / the first, 1 where timing can be trusted",
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


def latency_table(rows: Sequence[Row], *, narrow: bool = False, name: Callable[[Row], str]) -> Table | None:
    """One line for each row and condition; None when nothing was timed."""
    entries = [(row, latency) for row in rows for latency in _latencies(row)]
    if not entries:
        return None
    constant, varying = _conditions([latency for _, latency in entries])
    columns = list(_columns(entries, varying, name, narrow))
    body = tuple(tuple(text(row, latency) for _, text in columns) for row, latency in entries)
    reasons = dict.fromkeys(f"{row.label}: {latency.reason}" for row, latency in entries if latency.reason)
    missing = dict.fromkeys(
        f"{row.label}: not timed: {why}" for row in rows for what, why in row.missing.items() if what in UNTIMED
    )
    return Table(
        f"Latency: {constant}",
        tuple(column for column, _ in columns),
        body,
        (*reasons, *missing, *TIME_NOTES, *(WIDE_TIME_NOTES if not narrow and _has_means(entries) else ())),
    )


def _latencies(row: Row) -> Iterator[Latency]:
    if row.latency is not None:
        yield row.latency
    yield from row.more_latency


def _conditions(latencies: Sequence[Latency]) -> tuple[str, tuple[str, ...]]:
    """What all latencies share, in words, and the names of the conditions that vary."""
    described = [asdict(latency.conditions) for latency in latencies]
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
    shared = [(name, described[0][name]) for name in order if name not in varying]
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
    yield Column("ms"), lambda _, latency: number(latency.seconds, ".4g", 1e3)
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
            yield rate, lambda _, latency: number(_since_means(latency, latency.images_per_second), ".4g")
        if any(latency.weight_bytes for _, latency in entries):
            yield Column("weights MiB"), lambda _, latency: number(latency.weight_bytes, ".1f", 2**-20)
        if any(latency.peak_bytes for _, latency in entries):
            yield Column("a call's MiB"), lambda _, latency: number(latency.peak_bytes, ".1f", 2**-20)
        if any(_total_bytes(latency) for _, latency in entries):
            yield Column("total MiB"), lambda _, latency: number(_total_bytes(latency), ".1f", 2**-20)
    if any(_paper(row, latency) for row, latency in entries):
        yield Column("paper ms"), _paper


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
    """The paper's time of the same kind: one image on a CPU, or a training step (of 256 images, on 8 GPUs)."""
    conditions = latency.conditions
    metric = "train_ms" if conditions.mode == "train" else None
    if (conditions.mode, conditions.batch_size, conditions.device) == ("infer", 1, "cpu"):
        metric = "cpu_ms"
    return next((cell.printed for cell in row.paper if cell.metric == metric), EMPTY)


def _all_95(entries: Sequence[TimedRow]) -> bool:
    found = {latency.confidence for _, latency in entries if latency.confidence is not None}
    return found == {0.95}


def _interval(latency: Latency) -> str:
    odd = latency.ci is not None and latency.confidence not in (None, 0.95)
    return interval_text(latency.ci, ".3f", between="–") + (f" ({latency.confidence:.0%})" if odd else EMPTY)


ERROR_NOTES = (
    "difference: minus the baseline's error over the same seeds and data order, in points, with its 95 % interval",
    "p: two-sided, by Holm over all rows",
    "over fixed gates: minus the error of the network with gates fixed at 0.5: what attention itself brings",
)


def error_table(rows: Sequence[Row], name: Callable[[Row], str], *, narrow: bool = False) -> Table | None:
    """One line a network that was trained; None when none was."""
    trained = [(row, row.accuracy) for row in rows if row.accuracy is not None]
    if not trained:
        return None
    columns: list[tuple[Column, Callable[[Row, Accuracy], str]]] = [
        (Column("network", numeric=False), lambda row, _: name(row)),
        (Column("error %"), lambda _, found: number(found.top1_err, ".2f", 100)),
        (Column("sd"), lambda _, found: number(found.sd, ".2f", 100)),
        (Column("difference"), lambda _, found: points_text(found.difference, found.difference_ci)),
        (Column("p"), lambda _, found: number(found.p_holm, ".2g")),
    ]
    if not narrow:
        columns.insert(3, (Column("seeds"), lambda _, found: str(found.seeds)))
    if any(found.control_difference is not None for _, found in trained):
        columns.append(
            (
                Column("over fixed gates"),
                lambda _, found: points_text(found.control_difference, found.control_difference_ci),
            )
        )
    recipes = list(dict.fromkeys(found.protocol.words for _, found in trained))
    if len(recipes) > 1:
        columns.append((Column("recipe", numeric=False), lambda _, found: found.protocol.words))
    body = tuple(tuple(text(row, found) for _, text in columns) for row, found in trained)
    missing = tuple(f"{name(row)}: {row.missing['accuracy']}" for row in rows if "accuracy" in row.missing)
    how = recipes[0] if len(recipes) == 1 else "each by its own recipe"
    title = f"Top-1 error on {trained[0][1].dataset} ({how})"
    return Table(
        title,
        tuple(column for column, _ in columns),
        body,
        (*missing, *_places(trained, name), *(fronts(rows, name) if len(recipes) == 1 else ()), *ERROR_NOTES),
    )


def _places(trained: Sequence[tuple[Row, Accuracy]], name: Callable[[Row], str]) -> tuple[str, ...]:
    """Where the rows were trained, unless all of them were on the CPU; in a line for each row where they differ."""
    places = [", ".join(accuracy.trained_on) for _, accuracy in trained]
    if set(places) <= {"", "cpu"}:
        return ()
    if len(set(places)) == 1:
        return (f"trained on {places[0]}",)
    return tuple(f"{name(row)}: trained on {place or 'cpu'}" for (row, _), place in zip(trained, places))


def fronts(rows: Sequence[Row], name: Callable[[Row], str]) -> tuple[str, ...]:
    """The Pareto front of error against each cost, and which settings the data cannot tell from the best."""
    settings = [row for row in rows if row.accuracy is not None and not _is_control(row)]
    if len(settings) < 2:
        return ()
    costs: dict[str, Callable[[Row], float | None]] = {
        "FLOPs": lambda row: row.flops.get("macs"),
        "parameters": lambda row: row.params,
        "latency": _relative_latency,
    }
    lines = []
    for cost, of in costs.items():
        if all(of(row) is not None for row in settings):
            lines.append(f"Pareto front of error against {cost}: {', '.join(name(row) for row in front(settings, of))}")
    best = min(settings, key=_error)
    tied = [name(row) for row in settings if row is not best and not _told_apart(row, best)]
    lines.append(
        f"lowest error: {name(best)}"
        + (f"; the data cannot tell it from {', '.join(tied)}" if tied else "; the data tell it from all others")
    )
    return tuple(lines)


def front(rows: Sequence[Row], cost: Callable[[Row], float | None]) -> list[Row]:
    """The rows on the Pareto front of error against a cost, by rising cost."""
    return pareto(rows, lambda row: cost(row) or 0.0, _error)


def pareto(
    items: Iterable[Anything], cost: Callable[[Anything], float], loss: Callable[[Anything], float]
) -> list[Anything]:
    """The items that no other beats in one of cost and loss without losing in the other, by rising cost; ties stay."""
    kept: list[Anything] = []
    for item in sorted(items, key=lambda item: (cost(item), loss(item))):
        if not kept or loss(item) < loss(kept[-1]) or (cost(item), loss(item)) == (cost(kept[-1]), loss(kept[-1])):
            kept.append(item)
    return kept


def _told_apart(row: Row, best: Row) -> bool:
    """Whether the 95 % t interval of the paired difference leaves out zero."""
    from senet_bench.core.intervals import paired_seeds

    ours, theirs = (one.accuracy.per_seed if one.accuracy else {} for one in (row, best))
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) < 2:
        return False
    interval_text = paired_seeds([theirs[seed] for seed in shared], [ours[seed] for seed in shared]).ci
    return interval_text is not None and not interval_text[0] <= 0 <= interval_text[1]


def _error(row: Row) -> float:
    return row.accuracy.top1_err if row.accuracy else 1.0


def _is_control(row: Row) -> bool:
    return row.role == "control"


def _relative_latency(row: Row) -> float | None:
    if row.latency is None:
        return None
    return 1.0 if row.baseline is None else row.latency.ratio
