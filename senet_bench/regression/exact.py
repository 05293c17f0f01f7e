"""Rows of what is exact: no statistics, any change is told by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from senet_bench.core.fingerprint import Function, function_difference, tolerance
from senet_bench.regression.config import Ratio
from senet_bench.regression.facts import Portable
from senet_bench.regression.limits import Limit
from senet_bench.regression.outcome import GateVerdict, LimitRow, failed

FactChanges = list[tuple[str, int | str]]
NOT_RECORDED = "recorded by an earlier version, `senet-bench baseline record` adds what they compute"
UNLISTED = "whether that was so is not recorded, `senet-bench baseline record` adds it"
FREE_WEIGHTS = "judged by their shapes alone: the gate of state_dict lets names and shapes of weights change"
MACS = ("conv", "linear", "se_excitation", "se_scale", "formulas")


@dataclass(frozen=True, slots=True)
class Totals:
    """A count of base and head, which names changed by how much, and whether a name came that was not there."""

    base: int
    now: int
    changes: Sequence[tuple[str, int]] = ()
    grown: bool = False

    @staticmethod
    def of_names(base: Mapping[str, int], now: Mapping[str, int]) -> Totals:
        """The count over all names."""
        grown = any(name not in base for name in now)
        return Totals(sum(base.values()), sum(now.values()), changed_counts(base, now), grown)


def exact_row(
    network: str, metric: str, base: Portable, now: Portable, limit: Limit, *, weights_free: bool = False
) -> LimitRow:
    """The row of a portable metric: what changed, by name, and whether the limit lets it pass.

    Where `weights_free` lets names and shapes of weights change, and they do, no function can be compared.
    """
    match metric:
        case "params":
            changes = by_module(changed_counts(base.params, now.params))
            return _counted(network, metric, Totals(base.total, now.total, changes), limit)
        case "flops":
            return _flops_row(network, base, now, limit)
        case "operators":
            return _operators_row(network, base, now, limit)
        case "outputs":
            if weights_free and base.state != now.state:
                row = _shapes_row(network, metric, base, now, limit)
                return replace(row, reason="; ".join(filter(None, (row.reason, FREE_WEIGHTS))))
            return _function_row(network, base, now, limit)
        case "shapes":
            return _shapes_row(network, metric, base, now, limit)
        case "state_dict":
            texts = changed_texts(base.state, now.state)
            return _same(network, metric, (f"{len(base.state)} keys", f"{len(now.state)} keys"), texts, limit)
        case _:
            return _by_function(network, metric, base, now, limit)


def _flops_row(network: str, base: Portable, now: Portable, limit: Limit) -> LimitRow:
    """The row of the operations; it fails too where other operators than before are in no count."""
    row = _counted(network, "flops", Totals.of_names(base.flops, now.flops), limit)
    was, listed = base.uncounted, now.uncounted or []
    if was is None and listed:
        why = f"not counted: {', '.join(listed)}; {UNLISTED}"
        return replace(row, reason="; ".join(filter(None, (row.reason, why))))
    if was is None or set(was) == set(listed):
        return row
    changes = [(name, "is not counted") for name in listed if name not in was]
    changes += [(name, "is not among the uncounted any more") for name in was if name not in listed]
    reason = "; ".join(filter(None, (row.reason, change_sentence("operators", changes))))
    verdict: GateVerdict = "fail" if limit.judged else row.verdict
    return replace(row, verdict=verdict, reason=reason, explain=[*row.explain, *changes], stale=False)


def _operators_row(network: str, base: Portable, now: Portable, limit: Limit) -> LimitRow:
    """The row of the operators, one by one: what another is called less often makes up for nothing."""
    totals = Totals.of_names(base.operators, now.operators)
    row = _counted(network, "operators", totals, limit)
    margin = limit.margin(totals.base)
    if limit.judged and any(change > margin for _, change in totals.changes):
        return replace(row, verdict="fail", stale=False)
    return row


def across_torch(row: LimitRow, recorded: str, here: str, remedy: str) -> LimitRow:
    """The row; failed operators are not comparable with those that another version of torch called."""
    if row.verdict != "fail" or row.metric not in ("operators", "operators-drift") or recorded == here:
        return row
    why = f"{row.reason}; recorded with torch {recorded or '(unknown)'}, here is {here}: {remedy}"
    return replace(row, verdict="not comparable", reason=why)


def _shapes_row(network: str, metric: str, base: Portable, now: Portable, limit: Limit) -> LimitRow:
    """The row of the shapes of the outputs."""
    texts = changed_texts(_numbered(base.shapes), _numbered(now.shapes))
    return _same(network, metric, ("; ".join(base.shapes), "; ".join(now.shapes)), texts, limit)


def _function_row(network: str, base: Portable, now: Portable, limit: Limit) -> LimitRow:
    """The row of what a network computes; by the shapes alone where base or head could not be run."""
    row = _shapes_row(network, "outputs", base, now, limit)
    if base.function is None or now.function is None:
        return _by_shapes_alone(row, base, now)
    if row.verdict == "fail":
        return row
    first, second = (msgspec.convert(facts.function, Function) for facts in (base, now))
    return judged_function(
        row, function_difference(first, second), tolerance(first, second), limit, base.state != now.state
    )


def _by_shapes_alone(row: LimitRow, base: Portable, now: Portable) -> LimitRow:
    """The row, with why the function is not compared; a network that no longer runs is worse, whatever it returned."""
    if now.function is None:
        why = f"it cannot be run on seeded images ({now.failures.get('outputs', 'unknown')})"
        if base.function is not None:
            return replace(row, verdict="fail", reason=f"outputs: {why}")
    else:
        known = base.failures.get("outputs")
        why = f"the base cannot be run on seeded images ({known})" if known else NOT_RECORDED
    return replace(row, reason="; ".join(filter(None, (row.reason, f"judged by their shapes alone: {why}"))))


def judged_function(row: LimitRow, apart: float, most: float, limit: Limit, renamed: bool) -> LimitRow:
    """The row of outputs that differ by `apart` of the largest, where `most` is no difference."""
    row = replace(row, difference=apart if math.isfinite(apart) else None)
    if apart <= most:
        return row
    amount = f"by {apart:.2g} of the largest" if math.isfinite(apart) else "in where they are finite"
    why = f"outputs: the function changed, they differ {amount} (tolerance {most:g})"
    why += "; weights are filled by name, and names or shapes changed too" if renamed else ""
    return replace(row, verdict="fail" if limit.judged else row.verdict, reason=why)


def _by_function(network: str, metric: str, base: Portable, now: Portable, limit: Limit) -> LimitRow:
    """The row of a metric that a function counts; one that the base was not counted by is new, and never fails."""
    if metric not in now.counts:
        return failed(network, metric, f"{metric} cannot be counted: {now.failures.get(metric, 'no function')}")
    if metric not in base.counts:
        row = failed(network, metric, f"no {metric} of {network} in the base", "new")
        return replace(row, now=now.counts[metric], gate=limit.stored())
    return _counted(network, metric, Totals(base.counts[metric], now.counts[metric]), limit)


def _numbered(outputs: Sequence[str]) -> dict[str, str]:
    return {f"output {index}": shape for index, shape in enumerate(outputs)}


def _counted(network: str, metric: str, count: Totals, limit: Limit) -> LimitRow:
    """A count: it fails beyond the limit, and when a kind of operation came that was not there."""
    base, now = count.base, count.now
    worse = limit.judged and (limit.exceeded(base, now) or count.grown)
    explain: FactChanges = [*count.changes]
    return LimitRow(
        id=f"{network}/{metric}",
        network=network,
        metric=metric,
        kind="exact",
        verdict="fail" if worse else "pass",
        reason=change_sentence(metric, explain, now - base) if explain or now != base else "",
        base=base,
        now=now,
        ratio=now / base if base else None,
        gate=limit.stored(),
        explain=explain,
        stale=not worse and now < base,
    )


def _same(
    network: str, metric: str, values: tuple[str, str], changes: Sequence[tuple[str, str]], limit: Limit
) -> LimitRow:
    """A description: it is the same or it fails."""
    explain: FactChanges = [*changes]
    return LimitRow(
        id=f"{network}/{metric}",
        network=network,
        metric=metric,
        kind="exact",
        verdict="fail" if changes and limit.judged else "pass",
        reason=change_sentence(metric, explain) if changes else "",
        base=values[0],
        now=values[1],
        gate=limit.stored(),
        explain=explain,
    )


def memory_row(network: str, base: int, now: int, limit: Limit) -> LimitRow:
    """Peak bytes of a call by torch's allocator, which counts the same every time."""
    row = _counted(network, "memory", Totals(base, now), limit)
    return replace(row, unit="bytes", stale=base - now > limit.margin(base))


def counted_ratio(ratio: Ratio, base: float, now: float) -> LimitRow:
    """A count of a network against its baseline's, both of this checkout."""
    worse = ratio.limit.exceeded(base, now)
    reason = f"{ratio.metric} are {now / base:.4f} of {ratio.baseline}'s" if base else ""
    return LimitRow(
        id=ratio.id,
        network=ratio.network,
        metric=f"{ratio.metric}-ratio",
        kind="ratio",
        verdict="fail" if worse else "pass",
        reason=reason,
        base=base,
        now=now,
        ratio=now / base if base else None,
        gate=ratio.limit.stored(),
    )


def total_of(metric: str, facts: Portable) -> int:
    """Parameters, or multiply-adds, of a network."""
    return facts.total if metric == "params" else sum(facts.flops.get(kind, 0) for kind in MACS)


# --- what changed, by name: `params +12,288: layer3.0.se.fc1` ----------------------------------------------------

SHOWN_OPERATORS = 6
"""So many names are written out in a sentence."""


def changed_counts(base: Mapping[str, int], now: Mapping[str, int]) -> list[tuple[str, int]]:
    """Names whose count differs with the difference, the largest first."""
    names = dict.fromkeys((*now, *base))
    changes = [(name, now.get(name, 0) - base.get(name, 0)) for name in names]
    return sorted((one for one in changes if one[1]), key=lambda one: -abs(one[1]))


def by_module(changes: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Changes of tensors added up over the module that holds them, the largest first."""
    sums: Counter[str] = Counter()
    for name, change in changes:
        sums[name.rpartition(".")[0] or name] += change
    return sorted(((name, change) for name, change in sums.items() if change), key=lambda one: -abs(one[1]))


def changed_texts(base: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str]]:
    """Keys that came, went or have another value, each with what happened to it."""
    changes = [(key, f"new, {now[key]}") for key in now if key not in base]
    changes += [(key, "gone") for key in base if key not in now]
    changes += [(key, f"{base[key]} -> {now[key]}") for key in now if key in base and base[key] != now[key]]
    return changes


def change_sentence(what: str, changes: Sequence[tuple[str, int | str]], total: int | None = None) -> str:
    """One line: the total, then the names with their changes, the rest as a number."""
    shown = [
        _shown(name, change, alone=len(changes) == 1 and total == change) for name, change in changes[:SHOWN_OPERATORS]
    ]
    rest = f", and {len(changes) - SHOWN_OPERATORS} more" if len(changes) > SHOWN_OPERATORS else ""
    amount = "" if total is None else f" {total:+,}"
    return f"{what}{amount}: {', '.join(shown)}{rest}" if shown else f"{what}{amount}"


def _shown(name: str, change: int | str, *, alone: bool) -> str:
    if isinstance(change, str):
        return f"{name} {change}"
    return name if alone else f"{name} {change:+,}"
