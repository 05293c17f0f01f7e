"""`baseline record`, `accept` and `show`: what checks compare with is stored, replaced for a reason, and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from senet_bench import __version__
from senet_bench.core.catalog import normalise
from senet_bench.core.checkout import commit_of
from senet_bench.core.fingerprint import same
from senet_bench.core.progress import Steps
from senet_bench.core.schemas import schema_of
from senet_bench.errors import NotComparableError, UsageError
from senet_bench.regression import measurement
from senet_bench.regression.baselines import (
    Baselines,
    MachineBaseline,
    MachineFacts,
    Note,
    PortableBaseline,
    StoredFacts,
    StoredLatency,
    facts_stored,
    torch_here,
    updated,
)
from senet_bench.regression.config import CheckedNetwork, Config
from senet_bench.regression.launches import Launches
from senet_bench.regression.limits import counted_metrics, portable_metrics
from senet_bench.regression.text import value
from senet_bench.show.tables import Column, Document, Table

MACHINE_METRICS = ("memory", "latency")
FIELDS = {
    "params": ("params",),
    "flops": ("flops", "uncounted"),
    "outputs": ("outputs", "shapes"),
    "shapes": ("shapes",),
    "state_dict": ("state",),
    "operators": ("operators",),
}
"""The fields of the stored facts that a metric stands for, its value first."""
WHOLE = "all"
Row = tuple[str, str]
"""A network and a metric, `all` for the whole network."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was written: the ids, and the files."""

    ids: tuple[str, ...]
    paths: tuple[Path, ...]


def record_facts(config: Config, baselines: Baselines, *, only: str | None = None, seed: int = 0) -> Steps[Recorded]:
    """Store what is not stored yet, as it is found.

    Raises `UsageError` where something stored has changed: that is to be accepted.
    """
    config, machine = config.only(only), baselines.here()
    ids = _add_portable_facts(config, baselines)
    ids += yield from _add_machine_facts(config, baselines, machine, seed)
    return Recorded(tuple(ids), (baselines.portable_path, baselines.machine_path(machine.machine)))


def _add_portable_facts(config: Config, baselines: Baselines) -> list[str]:
    """Store the portable facts that are not stored yet, network by network; the ids of what was stored."""
    portable = baselines.portable() or PortableBaseline(torch=torch_here())
    if portable.torch != torch_here() and any(one.name not in portable.networks for one in config.networks):
        raise NotComparableError(f"recorded with torch {portable.torch}, here is {torch_here()}", "accept --all first")
    ids, changed, commit = list[str](), list[str](), commit_of(Path())
    for network in config.networks:
        name, known = network.name, portable.networks.get(network.name)
        now = facts_stored(measurement.facts_here(network))
        if known is not None and not _agree(known, now):
            changed.append(name)
        elif lacking := _lacking(known, now):
            portable = updated(portable, {name: now}, commit)
            baselines.write(portable)
            ids += [f"{name}:{metric}" for metric in lacking]
    if changed:
        raise UsageError(
            f"{', '.join(changed)} differs from what is recorded",
            f'see `senet-bench check`, then `senet-bench baseline accept {changed[0]} --reason "..."`',
        )
    return ids


def _agree(old: StoredFacts, now: StoredFacts) -> bool:
    """Whether what is recorded is as it is now; a count that was not recorded yet is no change."""
    recorded, here = old.function, now.function
    if old.portable().shapes != now.shapes or (recorded and here and not same(recorded, here)):
        return False
    counts = {key: now.counts.get(key, count) for key, count in old.counts.items()}
    uncounted = None if old.uncounted is None else now.uncounted
    compared = replace(now, outputs=None, shapes=[], counts=counts, uncounted=uncounted)
    return replace(old, outputs=None, shapes=[]) == compared


def _lacking(old: StoredFacts | None, now: StoredFacts) -> list[str]:
    """The portable metrics that are not recorded yet."""
    if old is None:
        return list(portable_metrics())
    counts = [key for key in portable_metrics() if key in now.counts and key not in old.counts]
    counts += ["flops"] * (old.uncounted is None)
    return counts + ["outputs"] * (old.function is None and now.function is not None)


def _lacks(machine: MachineBaseline, name: str, metric: str) -> bool:
    facts = machine.facts(name)
    return (facts.peak_bytes if metric == "memory" else facts.latency) is None


def _add_machine_facts(config: Config, baselines: Baselines, machine: MachineBaseline, seed: int) -> Steps[list[str]]:
    """Measure and store the memory and latency that a machine's file lacks; the ids of what was stored."""
    ids, commit = [], commit_of(Path())
    for network in config.networks if "memory" in config.metrics else ():
        if _lacks(machine, network.name, "memory"):
            facts = _with_memory(machine.facts(network.name), network, config)
            machine = updated(machine, {network.name: facts}, commit)
            baselines.write(machine)
            ids.append(f"{network.name}:memory")
    timed = [network for network in config.networks if _lacks(machine, network.name, "latency")]
    if timed and "latency" in config.metrics:
        latencies = yield from latencies_of(config, timed, seed)
        machine = updated(machine, _with_latencies(machine, latencies), commit)
        baselines.write(machine)
        ids += [f"{name}:latency" for name in latencies]
    return ids


def _with_memory(facts: MachineFacts, network: CheckedNetwork, config: Config) -> MachineFacts:
    """Facts of a network with the peak memory that it has now."""
    peak = measurement.peak(network, config)
    return replace(facts, peak_bytes=peak, batch_size=config.batch_size, input_size=network.input_size)


def _with_latencies(machine: MachineBaseline, latencies: Mapping[str, StoredLatency]) -> dict[str, MachineFacts]:
    """Facts of the networks that were timed, with these latencies."""
    return {name: replace(machine.facts(name), latency=latency) for name, latency in latencies.items()}


def latencies_of(config: Config, networks: Sequence[CheckedNetwork], seed: int) -> Steps[dict[str, StoredLatency]]:
    """The latency of networks of this checkout, over the config's launches."""
    schedule = Launches(launches=config.launches, budget_s=config.budget_s, seed=seed)
    return measurement.latencies(measurement.work_of(config, networks), Path(), schedule)


# --- changes accepted ----------------------------------------------------------------------------------------


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
    baselines.history()  # a damaged one is found before anything is replaced
    chosen, machine = _chosen(config, portable, ids, every), baselines.here()
    notes = _accept_everywhere(config, baselines, portable, chosen, reason)
    notes += yield from _accept_here(config, baselines, machine, chosen, reason, seed)
    changed = tuple(dict.fromkeys(what for what, _, _ in notes))
    files = (baselines.portable_path, baselines.machine_path(machine.machine), baselines.history_path)
    return Recorded(changed, files)


def _accept_everywhere(
    config: Config, baselines: Baselines, portable: PortableBaseline, chosen: Sequence[Row], reason: str
) -> list[Note]:
    """Replace the portable facts of the rows chosen; what changed."""
    kept, notes = _accepted_everywhere(config, portable, chosen)
    operators = any(metric in ("operators", WHOLE) for _, metric in chosen)
    torch = torch_here() if operators else portable.torch
    if (kept, torch) != (portable.networks, portable.torch):
        renewed = updated(portable, {}, commit_of(Path()), torch=torch)
        baselines.accept(replace(renewed, networks=kept), notes, reason)
    return notes


def _accepted_everywhere(
    config: Config, portable: PortableBaseline, chosen: Sequence[Row]
) -> tuple[dict[str, StoredFacts], list[Note]]:
    """The portable facts after the change, and what changed; networks no longer checked are gone."""
    _check_torch(portable, chosen)
    notes: list[Note] = []
    kept, facts = dict(portable.networks), dict[str, StoredFacts]()
    checked = {one.name: one for one in config.networks}
    for name, metric in chosen:
        if name not in checked:
            notes.append((f"{name}:{WHOLE}", kept.pop(name, None), None))
        elif metric in portable_metrics() or metric == WHOLE:
            if name not in facts:
                facts[name] = facts_stored(measurement.facts_here(checked[name]))
            old, kept[name] = kept.get(name), _replaced(kept.get(name), facts[name], metric)
            if old != kept[name]:
                notes.append((f"{name}:{metric}", _part(old, metric), _part(facts[name], metric)))
    return kept, notes


def _chosen(config: Config, portable: PortableBaseline, ids: Sequence[str], every: bool) -> list[Row]:
    """The rows named."""
    if every == bool(ids):
        raise UsageError("name the rows to accept, or all of them", "use seresnet50:params, seresnet50, or --all")
    names = list(dict.fromkeys([*(one.name for one in config.networks), *portable.networks]))
    if every:
        return [(name, WHOLE) for name in names]
    known = {normalise(name): name for name in names}
    chosen = []
    for text in ids:
        name, metric = _split(text, known)
        known_metrics = (*portable_metrics(), *MACHINE_METRICS)
        if metric not in (WHOLE, *known_metrics):
            raise UsageError(f"{text!r}: {metric} is not stored", f"choose from {', '.join(known_metrics)}")
        chosen.append((name, metric))
    return list(dict.fromkeys(chosen))


def _split(text: str, known: Mapping[str, str]) -> tuple[str, str]:
    """The network and the metric of an id; a network's own name may have a colon."""
    if normalise(text) in known:
        return known[normalise(text)], WHOLE
    for mark in (":", "/"):
        name, _, metric = text.rpartition(mark)
        if normalise(name) in known:
            return known[normalise(name)], metric
    raise UsageError(f"{text!r} is no row of the baseline", f"the networks are {', '.join(known.values())}")


def _check_torch(portable: PortableBaseline, chosen: Sequence[Row]) -> None:
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
    return replace(old, **{field: getattr(new, field) for field in FIELDS[metric]})


def _part(facts: StoredFacts | None, metric: str) -> object:
    if facts is None or metric == WHOLE:
        return facts
    return facts.counts.get(metric) if metric in facts.counts else getattr(facts, FIELDS.get(metric, ("",))[0], None)


def _accept_here(
    config: Config, baselines: Baselines, machine: MachineBaseline, chosen: Sequence[Row], reason: str, seed: int
) -> Steps[list[Note]]:
    """Replace the memory, then the latency, of the rows chosen; what changed. Networks no longer checked are gone."""
    checked, commit = {one.name for one in config.networks}, commit_of(Path())
    facts = {name: one for name, one in machine.networks.items() if name in checked or (name, WHOLE) not in chosen}
    notes: list[Note] = []
    for network in _renewed(config, machine, chosen, "memory"):
        name, was = network.name, machine.facts(network.name)
        facts[name] = _with_memory(was, network, config)
        notes += [(f"{name}:memory", was.peak_bytes, facts[name].peak_bytes)] * (facts[name] != was)
    if facts != machine.networks:
        machine = replace(updated(machine, {}, commit), networks=facts)
        baselines.accept(machine, notes, reason)
    timed = _renewed(config, machine, chosen, "latency")
    if not timed:
        return notes
    latencies = yield from latencies_of(config, timed, seed)
    times: list[Note] = [(f"{name}:latency", machine.facts(name).latency, now) for name, now in latencies.items()]
    baselines.accept(updated(machine, _with_latencies(machine, latencies), commit), times, reason)
    return notes + times


def _renewed(config: Config, machine: MachineBaseline, chosen: Sequence[Row], metric: str) -> list[CheckedNetwork]:
    """The networks whose memory or latency is chosen; of whole networks those that have it recorded on this machine."""
    whole = {name for name, which in chosen if which == WHOLE and not _lacks(machine, name, metric)}
    return [network for network in config.networks if network.name in whole or (network.name, metric) in chosen]


# --- what is recorded, shown --------------------------------------------------------------------------------

COLUMNS = ("network", "images", "params", "operations", "operators", "memory", "latency")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedNetwork:
    """What is recorded of a network; memory and seconds are of this machine."""

    network: str
    input_size: list[int] | None
    params: int | None
    operations: int | None
    operators: int | None
    shapes: list[str] | None
    peak_bytes: int | None
    seconds: float | None


def recorded_networks(baselines: Baselines) -> list[RecordedNetwork]:
    """What is recorded, network by network; raises where nothing is recorded."""
    portable, machine = baselines.portable(), baselines.here()
    if portable is None and not machine.networks:
        raise NotComparableError(f"no baseline in {baselines.folder}", "record it with `senet-bench baseline record`")
    facts = portable.networks if portable else {}
    names = dict.fromkeys([*facts, *machine.networks])
    return [_entry(name, facts.get(name), machine.facts(name)) for name in names]


def _entry(name: str, own: StoredFacts | None, here: MachineFacts) -> RecordedNetwork:
    facts = own.portable() if own else None
    return RecordedNetwork(
        network=name,
        input_size=list(facts.input_size) if facts else None,
        params=facts.total if facts else None,
        operations=facts.operations if facts else None,
        operators=sum(facts.operators.values()) if facts else None,
        shapes=facts.shapes if facts else None,
        peak_bytes=here.peak_bytes,
        seconds=here.latency.floor if here.latency else None,
    )


def recorded_document(baselines: Baselines) -> Document:
    """The recorded facts, a line a network, and the history of accepted changes."""
    recorded, history = recorded_networks(baselines), baselines.history()
    facts = Table(
        "Recorded facts (memory and latency: of this machine)",
        tuple(Column(name, numeric=name not in ("network", "images")) for name in COLUMNS),
        tuple(_line(entry) for entry in recorded),
    )
    tables = (facts, _changes(history)) if history else (facts,)
    rows = [asdict(entry) for entry in recorded]
    document = {
        "schema": schema_of("baselines"),
        "version": __version__,
        "environment": {},
        "conditions": {},
        "rows": rows,
        "history": list(history),
    }
    return Document(document, tables, tables, tuple(rows))


def _changes(history: Sequence[Mapping[str, Any]]) -> Table:
    names = ("when", "who", "commit", "id", "reason")
    lines = tuple(tuple(str(line.get(name, "")) for name in names) for line in history)
    return Table("Accepted changes", tuple(Column(name, numeric=False) for name in names), lines)


def _line(entry: RecordedNetwork) -> tuple[str, ...]:
    counts = (value(number, "") for number in (entry.params, entry.operations, entry.operators))
    images = "x".join(map(str, entry.input_size or ()))
    return (entry.network, images, *counts, value(entry.peak_bytes, "bytes"), value(entry.seconds, "s"))
