"""What to say in a paper of how the stored numbers were measured: sentences that are true of these rows."""

from __future__ import annotations

from collections.abc import Iterable

from senet_bench.core.union import Timed
from senet_bench.errors import UsageError
from senet_bench.gallery.collection import Collection


def citation(collection: Collection) -> str:
    """A sentence on times and one on errors, each where there are any; `UsageError` where there are neither."""
    sentences = [*_times(collection), *_errors(collection)]
    if not sentences:
        raise UsageError("neither times nor errors are stored", "run `senet-bench compare` first")
    return "\n".join(sentences) + "\n"


def _times(collection: Collection) -> Iterable[str]:
    timed = [(table, row.latency) for table in collection.timings for row in table.rows if row.latency]
    paired = [(table, latency) for table, latency in timed if latency.ratio is not None]
    if not paired:
        return
    places = dict.fromkeys(_place(collection, table) for table, _ in paired)
    rounds = _range(latency.rounds for _, latency in paired)
    kept = sum(not latency.reason for _, latency in paired)
    unsure = f"; {len(paired) - kept} of {len(paired)} ratios carry a reservation" if kept < len(paired) else ""
    yield (
        f"Times were measured by senet-bench {_versions(collection)} on {_listed(places)}: each network and its "
        f"baseline in the same {rounds} rounds in random order, their ratio the Hodges-Lehmann estimate with a 95 % "
        f"interval over all looks at the data, beside a second copy of the baseline as control{unsure}."
    )


def _place(collection: Collection, table: Timed) -> str:
    return collection.name_of(table.machine) + (f" (torch {table.torch})" if table.torch else "")


def _errors(collection: Collection) -> Iterable[str]:
    rows = [row.accuracy for errors in collection.errors for row in errors.rows if row.accuracy]
    if not rows:
        return
    protocols = dict.fromkeys(f"{row.dataset} ({row.protocol.words})" for row in rows)
    compared = [row for row in rows if row.p_holm is not None]
    families = _range(row.family or 1 for row in compared)
    tests = (
        "; differences are paired by seed, with t intervals and two-sided p adjusted by Holm's method over the "
        f"{families} rows compared with a baseline in each table, the control with fixed gates not among them"
        if compared
        else ""
    )
    yield (
        f"Top-1 errors were measured by senet-bench {_versions(collection)} on {_listed(protocols)} as means over "
        f"{_range(row.seeds for row in rows)} seeds{tests}."
    )


def _versions(collection: Collection) -> str:
    return _listed(dict.fromkeys(source.document.version for source in collection.sources))


def _range(values: Iterable[int]) -> str:
    known = sorted(set(values))
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}" if known else "no"


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
