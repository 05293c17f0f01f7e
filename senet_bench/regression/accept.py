"""`baseline accept`: replace what is recorded by what there is now, for a reason that is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from senet_bench.core.catalog import normalise
from senet_bench.core.progress import Steps
from senet_bench.errors import NotComparableError, UsageError
from senet_bench.regression import measurement
from senet_bench.regression.baselines import (
    Baselines,
    MachineBaseline,
    MachineFacts,
    PortableBaseline,
    StoredFacts,
    commit_of,
    stored,
    updated,
)
from senet_bench.regression.config import Config
from senet_bench.regression.limits import counted_metrics, portable_metrics
from senet_bench.regression.record import MACHINE_METRICS, Recorded, latencies, machine_file, torch_here

FIELDS = {"params": "params", "flops": "flops", "outputs": "outputs", "state_dict": "state", "operators": "operators"}
"""The field of the stored facts that a metric stands for."""
WHOLE = "all"
Note = tuple[str, object, object]
"""What was accepted, its old and its new value."""


def accept(
    config: Config, baselines: Baselines, ids: Sequence[str], reason: str, *, every: bool = False, seed: int = 0
) -> Steps[Recorded]:
    """Replace the rows named, `network` or `network:metric`, by what this checkout has; a line of history for each.

    A network that is no longer checked is taken out. Raises `UsageError` without a reason and for an unknown row,
    `NotComparableError` without a baseline.
    """
    if not reason.strip():
        raise UsageError("a change is accepted for a reason", 'add --reason "..."')
    portable = baselines.portable()
    if portable is None:
        raise NotComparableError(f"no baseline in {baselines.folder}", "record it with `senet-bench baseline record`")
    chosen, commit = _chosen(config, portable, ids, every), commit_of(Path())
    kept, notes = _accepted_everywhere(config, portable, chosen)
    machine = machine_file(baselines)
    facts = {name: one for name, one in machine.networks.items() if name in kept or (name, WHOLE) not in chosen}
    measured = yield from _measured_here(config, machine, chosen, seed)
    for name, here in measured.items():
        was = facts.get(name, MachineFacts())
        facts[name] = MachineFacts(
            peak_bytes=was.peak_bytes if here.peak_bytes is None else here.peak_bytes,
            latency=here.latency or was.latency,
        )
        notes += [(f"{name}:memory", was.peak_bytes, here.peak_bytes)] if here.peak_bytes is not None else []
        notes += [(f"{name}:latency", was.latency, here.latency)] if here.latency is not None else []
    if kept != portable.networks:
        operators = any(metric in ("operators", WHOLE) for _, metric in chosen)
        torch = torch_here() if operators else portable.torch
        baselines.write(replace(updated(portable, {}, commit, torch=torch), networks=kept))
    if facts != machine.networks:
        baselines.write(replace(updated(machine, {}, commit), networks=facts))
    for what, old, new in notes:
        baselines.note(what, old, new, reason, commit)
    changed = tuple(dict.fromkeys(what for what, _, _ in notes))
    return Recorded(changed, (baselines.portable_path, baselines.machine_path(machine.machine)))


def _accepted_everywhere(
    config: Config, portable: PortableBaseline, chosen: Sequence[tuple[str, str]]
) -> tuple[dict[str, StoredFacts], list[Note]]:
    """The portable facts after the change, and what changed; networks no longer checked are gone."""
    _check_torch(portable, chosen)
    notes: list[Note] = []
    kept, found = dict(portable.networks), dict[str, StoredFacts]()
    sizes = {one.name: one.input_size for one in config.networks}
    for name, metric in chosen:
        if name not in sizes:
            notes.append((f"{name}:{WHOLE}", kept.pop(name, None), None))
        elif metric in portable_metrics() or metric == WHOLE:
            if name not in found:
                found[name] = stored(measurement.facts(name, sizes[name]))
            old, kept[name] = kept.get(name), _replaced(kept.get(name), found[name], metric)
            if old != kept[name]:
                notes.append((f"{name}:{metric}", _part(old, metric), _part(found[name], metric)))
    return kept, notes


def _chosen(config: Config, portable: PortableBaseline, ids: Sequence[str], every: bool) -> list[tuple[str, str]]:
    """The rows named, as (network, metric), `all` for a whole network."""
    if every == bool(ids):
        raise UsageError("name the rows to accept, or all of them", "use seresnet50:params, seresnet50, or --all")
    names = list(dict.fromkeys([*(one.name for one in config.networks), *portable.networks]))
    if every:
        return [(name, WHOLE) for name in names]
    known = {normalise(name): name for name in names}
    found = []
    for text in ids:
        name, metric = _split(text, known)
        known_metrics = (*portable_metrics(), *MACHINE_METRICS)
        if metric not in (WHOLE, *known_metrics):
            raise UsageError(f"{text!r}: {metric} is not stored", f"choose from {', '.join(known_metrics)}")
        found.append((name, metric))
    return list(dict.fromkeys(found))


def _split(text: str, known: Mapping[str, str]) -> tuple[str, str]:
    """The network and the metric of an id; a network's own name may have a colon."""
    if normalise(text) in known:
        return known[normalise(text)], WHOLE
    for mark in (":", "/"):
        name, _, metric = text.rpartition(mark)
        if normalise(name) in known:
            return known[normalise(name)], metric
    raise UsageError(f"{text!r} is no row of the baseline", f"the networks are {', '.join(known.values())}")


def _check_torch(portable: PortableBaseline, chosen: Sequence[tuple[str, str]]) -> None:
    """Raise where operators of some networks would be accepted under another torch than the others'."""
    renewed = torch_here()
    whole = {name for name, metric in chosen if metric in ("operators", WHOLE)}
    left = [name for name in portable.networks if name not in whole]
    if renewed != portable.torch and left:
        raise NotComparableError(
            f"recorded with torch {portable.torch}, here is {renewed}", f"accept {left[0]}:operators too, or use --all"
        )


def _replaced(old: StoredFacts | None, new: StoredFacts, metric: str) -> StoredFacts:
    if old is None or metric == WHOLE:
        return new
    if old.input_size != new.input_size:
        raise UsageError("the image size of the network has changed", "accept the whole network, without a metric")
    if metric in dict(counted_metrics()):
        return replace(old, counts={**old.counts, metric: new.counts[metric]})
    return replace(old, **{FIELDS[metric]: getattr(new, FIELDS[metric])})


def _part(facts: StoredFacts | None, metric: str) -> object:
    if facts is None or metric == WHOLE:
        return facts
    return facts.counts.get(metric) if metric in facts.counts else getattr(facts, FIELDS.get(metric, ""), None)


def _measured_here(
    config: Config, machine: MachineBaseline, chosen: Sequence[tuple[str, str]], seed: int
) -> Steps[dict[str, MachineFacts]]:
    """The new memory and latency of the rows chosen, where they differ from what is recorded."""
    measured: dict[str, MachineFacts] = {}
    for network in config.networks:
        was = machine.networks.get(network.name, MachineFacts())
        whole = (network.name, WHOLE) in chosen and was.peak_bytes is not None
        if (network.name, "memory") in chosen or whole:
            peak = measurement.peak(network.name, network.input_size, config)
            if peak != was.peak_bytes:
                measured[network.name] = MachineFacts(peak_bytes=peak)
    timed = [network for network in config.networks if (network.name, "latency") in chosen]
    if timed:
        for name, latency in (yield from latencies(config, timed, seed)).items():
            measured[name] = replace(measured.get(name, MachineFacts()), latency=latency)
    return measured
