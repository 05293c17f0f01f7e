"""Who judges a change: the configuration of its base, and what the change itself would let pass is told in rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from senet_bench.core.results import of_type
from senet_bench.errors import BenchError
from senet_bench.regression.baselines import Baselines, StoredFacts
from senet_bench.regression.config import Allowed, Config, Inconclusive, by_name
from senet_bench.regression.configfile import load_config
from senet_bench.regression.exact import exact_row
from senet_bench.regression.facts import Portable
from senet_bench.regression.limits import Limit, portable_metrics
from senet_bench.regression.outcome import LimitRow, failed
from senet_bench.regression.workers import Checkout

LENIENCE = {"fail": 0, "warn": 1, "pass": 2}


@dataclass(frozen=True, slots=True)
class Policy:
    """The configuration that judges, what this change loosens, and the names of networks that it takes out."""

    config: Config
    rows: tuple[LimitRow, ...] = ()
    vanished: tuple[str, ...] = ()


def policy_of(
    head: Config, base: Checkout, *, by_head: bool, only: str | None, typed: Inconclusive | None = None
) -> Policy:
    """The policy of a check against a commit; the head's own where the base has no configuration to judge by.

    `typed` is what a command line says of undecided rows.
    """
    try:
        path = head.path
        if path is not None and path.is_absolute() and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        inside = base.folder / path if path is not None else None
        before = load_config(inside, base.folder)
    except BenchError as error:
        why = f"the base has no configuration ({error.problem}): this checkout's judges"
        return Policy(head.only(only), (failed("configuration", "judge", why, "info"),))
    names = {network.name for network in head.networks}
    vanished = tuple(one.name for one in before.networks if one.name not in names and only is None)
    rows = tuple(_loosened(before, head))
    if by_head:
        return Policy(head.only(only), tuple(replace(row, verdict="allowed") for row in rows), vanished)
    known = {network.name for network in before.networks}
    kept = tuple(one for one in before.networks if one.name in names)
    new = tuple(one for one in head.networks if one.name not in known)
    ratios = (by_name(head.ratios) | by_name(before.ratios)).values()
    judge = replace(
        before,
        source=head.source,
        path=head.path,
        networks=(*kept, *new),
        ratios=tuple(one for one in ratios if {one.network, one.baseline} <= names),
        predictions=head.predictions,  # its files lie in this checkout
        budget_s=head.budget_s,
        launches=head.launches,
        allocator=head.allocator,
        max_seconds=head.max_seconds,
        inconclusive=typed or before.inconclusive,
    )
    return Policy(judge.only(only), rows, vanished)


def _loosened(base: Config, head: Config) -> Iterator[LimitRow]:
    """A row for everything that this change's configuration would let pass and the base's does not."""
    for metric in base.metrics:
        if metric not in head.metrics:
            yield _row("metric dropped", metric, f"{metric} is judged by the base and no longer by this change")
    for (metric, was, now), names in _looser_limits(base, head).items():
        networks = "all networks" if len(names) == len(base.networks) else ", ".join(names)
        yield _row("gate loosened", metric, f"{metric} of {networks}: {was.text(metric)} -> {now.text(metric)}")
    ratios = by_name(head.ratios)
    for row, (name, ratio) in zip(base.ratio_ids, by_name(base.ratios).items()):
        if name not in ratios:
            why = f"the ratio {row} over {ratio.baseline} is judged by the base and no longer here"
            yield _row("gate dropped", row, why)
        elif _looser(ratio.limit, ratios[name].limit):
            limits = f"{ratio.limit.text(ratio.metric)} -> {ratios[name].limit.text(ratio.metric)}"
            yield _row("gate loosened", row, f"{row}: {limits}")
    yield from _looser_settings(base, head)


def _looser_settings(base: Config, head: Config) -> Iterator[LimitRow]:
    for network in Counter(one.network for one in base.predictions) - Counter(one.network for one in head.predictions):
        yield _row("gate dropped", f"{network}/accuracy", f"predictions of {network} are judged by the base, not here")
    if base.drift and (head.drift is None or _looser(base.drift.limit, head.drift.limit)):
        yield _row("gate loosened", "drift", f"the limit of the drift since {base.drift.since} is wider or gone")
    if head.alpha < base.alpha:
        yield _row("gate loosened", "alpha", f"alpha: {base.alpha:g} -> {head.alpha:g}")
    if LENIENCE[head.inconclusive] > LENIENCE[base.inconclusive]:
        yield _row("gate loosened", "inconclusive", f"inconclusive: {base.inconclusive} -> {head.inconclusive}")
    for allowed in _new_allowances(base.allowed, head.allowed):
        words = f"{allowed.id} until {allowed.until}: {allowed.reason}"
        yield _row("allowed by this change", allowed.id, f"this change would allow {words}")


def _looser_limits(base: Config, head: Config) -> Mapping[tuple[str, Limit, Limit], list[str]]:
    """The networks of every limit that is wider in the head's configuration."""
    wider: dict[tuple[str, Limit, Limit], list[str]] = {}
    there = {network.name for network in head.networks}
    for network in (one for one in base.networks if one.name in there):
        for metric in base.metrics:
            was, now = (config.limit(network.name, metric) for config in (base, head))
            if metric in head.metrics and _looser(was, now):
                wider.setdefault((metric, was, now), []).append(network.name)
    return wider


def _looser(was: Limit, now: Limit) -> bool:
    """Whether a limit lets something pass that another does not."""
    if not (was.judged and now.judged):
        return was.judged and not now.judged
    if (was.relative is None) == (now.relative is None):
        pairs = ((was.relative, now.relative), (was.absolute, now.absolute), (was.min_abs, now.min_abs))
        return any((after or 0) > (before or 0) for before, after in pairs)
    return was != now  # a share and an amount: which is wider depends on the network


def _new_allowances(base: Sequence[Allowed], head: Sequence[Allowed]) -> list[Allowed]:
    return [one for one in head if not any(one.id == old.id and one.until <= old.until for old in base)]


def _row(metric: str, what: str, why: str) -> LimitRow:
    row = failed("configuration", metric, why, "fail")
    return replace(row, id=f"configuration/{metric.replace(' ', '-')}/{what}", kind="config")


# --- accepted by this change --------------------------------------------------------------------------------------


class Acceptance(msgspec.Struct):
    """A line of the history of accepted changes, as far as it is read here."""

    id: str
    who: str = ""
    reason: str = ""


def with_acceptances(
    rows: Sequence[LimitRow], head: Baselines, base: Baselines, facts: Mapping[str, Portable]
) -> list[LimitRow]:
    """The rows; failed ones that the head's baselines accept, and the base's did not yet, as `accepted`.

    `facts` are those measured of the head: what is accepted is what is recorded there, not whatever came since.
    """
    before = base.history()
    fresh = [of_type(line, Acceptance, str(head.history_path)) for line in head.history() if line not in before]
    stored = head.portable() if fresh else None
    if stored is None:
        return list(rows)
    accepted = []
    for row in rows:
        recorded, line = stored.networks.get(row.network), _line_of(row, fresh)
        if row.verdict == "fail" and line is not None and _as_recorded(row, recorded, facts.get(row.network)):
            why = f"{row.reason}; accepted by {line.who or 'somebody'}: {line.reason}"
            accepted.append(replace(row, verdict="accepted", reason=why))
        else:
            accepted.append(row)
    return accepted


def _line_of(row: LimitRow, lines: Sequence[Acceptance]) -> Acceptance | None:
    """The last line that accepts a row."""
    ids = (f"{row.network}:{row.metric}", f"{row.network}:all")
    return next((line for line in reversed(lines) if line.id in ids), None)


def _as_recorded(row: LimitRow, recorded: StoredFacts | None, facts: Portable | None) -> bool:
    """Whether a network is as its accepted facts say; time and memory, which no other machine can say, are."""
    if row.metric == "network":
        return recorded is None
    if row.metric not in portable_metrics():
        return row.metric in ("memory", "latency")
    if recorded is None or facts is None:
        return False
    same = exact_row(row.network, row.metric, recorded.portable(), facts, Limit(absolute=0))
    return same.verdict == "pass" and not same.explain
