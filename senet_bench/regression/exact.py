"""Rows of what is exact: no statistics, any change is told by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from senet_bench.regression.config import Ratio
from senet_bench.regression.explanation import by_module, changed_counts, changed_texts, sentence
from senet_bench.regression.facts import Portable
from senet_bench.regression.limits import Gate
from senet_bench.regression.outcome import Row

Changes = list[tuple[str, int | str]]
MACS = ("conv", "linear", "se_excitation", "se_scale")


def exact_row(network: str, metric: str, base: Portable, now: Portable, gate: Gate) -> Row:
    """The row of a portable metric: what changed, by name, and whether the gate lets it pass."""
    match metric:
        case "params":
            changes = changed_counts(base.params, now.params)
            return _counted(network, metric, base.total, now.total, by_module(changes), gate, grown=False)
        case "flops":
            changes = changed_counts(base.flops, now.flops)
            grown = any(kind not in base.flops for kind in now.flops)
            return _counted(network, metric, base.operations, now.operations, changes, gate, grown=grown)
        case "operators":
            changes = changed_counts(base.operators, now.operators)
            grown = any(name not in base.operators for name in now.operators)
            totals = sum(base.operators.values()), sum(now.operators.values())
            return _counted(network, metric, *totals, changes, gate, grown=grown)
        case "outputs":
            texts = changed_texts(_numbered(base.outputs), _numbered(now.outputs))
            return _same(network, metric, "; ".join(base.outputs), "; ".join(now.outputs), texts, gate)
        case _:
            texts = changed_texts(base.state, now.state)
            return _same(network, metric, f"{len(base.state)} keys", f"{len(now.state)} keys", texts, gate)


def _numbered(outputs: Sequence[str]) -> dict[str, str]:
    return {f"output {index}": shape for index, shape in enumerate(outputs)}


def _counted(
    network: str, metric: str, base: int, now: int, changes: Sequence[tuple[str, int]], gate: Gate, *, grown: bool
) -> Row:
    """A count: it fails beyond the gate, and when a kind of operation came that was not there (`grown`)."""
    worse = gate.judged and (gate.exceeded(base, now) or grown)
    explain: Changes = [*changes]
    return Row(
        id=f"{network}/{metric}",
        network=network,
        metric=metric,
        kind="exact",
        verdict="fail" if worse else "pass",
        reason=sentence(metric, explain, now - base) if changes or now != base else "",
        base=base,
        now=now,
        ratio=now / base if base else None,
        gate=gate.document(),
        explain=explain,
        stale=not worse and now < base,
    )


def _same(network: str, metric: str, base: str, now: str, changes: Sequence[tuple[str, str]], gate: Gate) -> Row:
    """A description: it is the same or it fails."""
    explain: Changes = [*changes]
    return Row(
        id=f"{network}/{metric}",
        network=network,
        metric=metric,
        kind="exact",
        verdict="fail" if changes and gate.judged else "pass",
        reason=sentence(metric, explain) if changes else "",
        base=base,
        now=now,
        gate=gate.document() or {"max": "the same"},
        explain=explain,
    )


def memory_row(network: str, base: int, now: int, gate: Gate) -> Row:
    """Peak bytes of a call by torch's allocator, which counts the same every time."""
    row = _counted(network, "memory", base, now, (), gate, grown=False)
    return replace(row, unit="bytes", stale=base - now > gate.margin(base))


def counted_ratio(ratio: Ratio, base: float, now: float) -> Row:
    """A count of a network against its baseline's, both of this checkout."""
    worse = ratio.gate.exceeded(base, now)
    reason = f"{ratio.metric} are {now / base:.4f} of {ratio.baseline}'s" if base else ""
    return Row(
        id=ratio.id,
        network=ratio.network,
        metric=f"{ratio.metric}-ratio",
        kind="ratio",
        verdict="fail" if worse else "pass",
        reason=reason,
        base=base,
        now=now,
        ratio=now / base if base else None,
        gate=ratio.gate.document(),
    )


def total_of(metric: str, facts: Portable) -> int:
    """Parameters, or multiply-adds, of a network."""
    return facts.total if metric == "params" else sum(facts.flops.get(kind, 0) for kind in MACS)
