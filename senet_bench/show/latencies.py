"""The table of latencies: every row under every condition, its ratio, its control, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from senet_bench.core.results import Latency, Row
from senet_bench.show.tables import EMPTY, Column, Table

Entry = tuple[Row, Latency]

NOTES = (
    "ratio: SE / baseline in the same rounds (Hodges-Lehmann), its interval holds over all looks at the data",
    "control: a second copy of the baseline / the first, 1 where timing can be trusted",
)
ALLOCATORS = {
    "as-is": EMPTY,  # not noted: a document from before it was
    "default": "default allocator",
    "tuned": "tuned allocator",
    "environment": "allocator set by the environment",
    "other": "another allocator than glibc's",
}
WIDE_NOTES = (
    "sees: the slowdown these rounds would have shown with 80 % power",
    "CPU ratio: the ratio of CPU times, the sharper one on a busy machine",
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
        f"{row.label}: not timed: {why}" for row in rows for what, why in row.missing.items() if "latency" in what
    )
    return Table(
        f"Latency: {constant}",
        tuple(column for column, _ in columns),
        body,
        (*reasons, *missing, *NOTES, *(() if narrow else WIDE_NOTES)),
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
        "allocator": ALLOCATORS,
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
    entries: Sequence[Entry], varying: Sequence[str], name: Callable[[Row], str], narrow: bool
) -> Iterator[tuple[Column, Callable[[Row, Latency], str]]]:
    yield Column("network", numeric=False), lambda row, _: name(row)
    for condition in varying:
        yield _condition_column(condition)
    yield Column("ms"), lambda _, latency: f"{1e3 * latency.seconds:.4g}"
    yield Column("ratio"), lambda _, latency: _number(latency.ratio, "{:.3f}")
    yield Column("95 % interval" if _all_95(entries) else "interval"), lambda _, latency: _interval(latency)
    yield Column("control"), lambda _, latency: _number(latency.control_ratio, "{:.3f}")
    if not narrow:
        yield Column("sees"), lambda _, latency: _number(latency.mde, "{:.1%}")
        yield Column("CPU ratio"), lambda _, latency: _number(latency.cpu_ratio, "{:.3f}")
        yield Column("rounds"), lambda _, latency: str(latency.rounds)
        yield Column("images/s"), lambda _, latency: _number(latency.images_per_second, "{:.4g}")
        if any(latency.peak_bytes for _, latency in entries):
            yield Column("peak MiB"), lambda _, latency: _number(latency.peak_bytes, "{:.1f}", 2**-20)
    if any(_paper(row, latency) for row, latency in entries):
        yield Column("paper ms"), _paper


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


def _all_95(entries: Sequence[Entry]) -> bool:
    found = {latency.confidence for _, latency in entries if latency.confidence is not None}
    return found == {0.95}


def _interval(latency: Latency) -> str:
    if latency.ci is None:
        return EMPTY
    odd = "" if latency.confidence is None or latency.confidence == 0.95 else f" ({latency.confidence:.0%})"
    return f"{latency.ci[0]:.3f}–{latency.ci[1]:.3f}{odd}"


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return EMPTY if value is None else form.format(value * scale)
