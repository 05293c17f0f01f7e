"""`baseline record` and `show`: what checks compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from senet_bench import __version__
from senet_bench.core.progress import Steps
from senet_bench.core.results import schema_of
from senet_bench.errors import NotComparableError, UsageError
from senet_bench.regression import measurement
from senet_bench.regression.baselines import (
    Baselines,
    MachineBaseline,
    MachineFacts,
    PortableBaseline,
    StoredFacts,
    StoredLatency,
    commit_of,
    stored,
    updated,
)
from senet_bench.regression.config import Checked, Config
from senet_bench.regression.launches import Launches
from senet_bench.regression.limits import portable_metrics
from senet_bench.regression.text import value
from senet_bench.show.documents import Document
from senet_bench.show.tables import Column, Table

MACHINE_METRICS = ("memory", "latency")
COLUMNS = ("network", "images", "params", "operations", "operators", "memory", "latency")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was written: the ids, and the files."""

    ids: tuple[str, ...]
    paths: tuple[Path, ...]


def record(config: Config, baselines: Baselines, *, only: str | None = None, seed: int = 0) -> Steps[Recorded]:
    """Store what is not stored yet. Raises `UsageError` where something stored has changed: that is to be accepted."""
    config = config.only(only)
    machine, kept = machine_file(baselines), baselines.portable()
    portable = kept or PortableBaseline(torch=torch_here())
    now = {one.name: stored(measurement.facts(one.name, one.input_size)) for one in config.networks}
    known = portable.networks
    changed = [name for name, facts in now.items() if name in known and not _agree(known[name], facts)]
    if changed:
        raise UsageError(
            f"{', '.join(changed)} differs from what is recorded",
            f'see `senet-bench check`, then `senet-bench baseline accept {changed[0]} --reason "..."`',
        )
    ids = [f"{name}:{metric}" for name, facts in now.items() for metric in _lacking(known.get(name), facts)]
    fresh = {name: facts for name, facts in now.items() if _lacking(known.get(name), facts)}
    if any(name not in known for name in fresh) and portable.torch != torch_here():
        raise NotComparableError(f"recorded with torch {portable.torch}, here is {torch_here()}", "accept --all first")
    ids += yield from _add_machine_facts(config, baselines, machine, seed)
    if fresh or kept is None:
        baselines.write(updated(portable, fresh, commit_of(Path())))
    return Recorded(tuple(ids), (baselines.portable_path, baselines.machine_path(machine.machine)))


def _agree(old: StoredFacts, now: StoredFacts) -> bool:
    """Whether what is recorded is as it is now; a count that was not recorded yet is no change."""
    return old == replace(now, counts={key: now.counts.get(key, count) for key, count in old.counts.items()})


def _lacking(old: StoredFacts | None, now: StoredFacts) -> list[str]:
    """The portable metrics that are not recorded yet."""
    counts = {} if old is None else old.counts
    return [key for key in portable_metrics() if (key not in counts if key in now.counts else old is None)]


def _lacks(machine: MachineBaseline, name: str, metric: str) -> bool:
    facts = machine.networks.get(name, MachineFacts())
    return (facts.peak_bytes if metric == "memory" else facts.latency) is None


def _add_machine_facts(config: Config, baselines: Baselines, machine: MachineBaseline, seed: int) -> Steps[list[str]]:
    """Measure and store the memory and latency that a machine's file lacks; the ids of what was stored."""
    facts, ids = dict(machine.networks), []
    for network in config.networks if "memory" in config.metrics else ():
        if _lacks(machine, network.name, "memory"):
            peak = measurement.peak(network.name, network.input_size, config)
            facts[network.name] = replace(facts.get(network.name, MachineFacts()), peak_bytes=peak)
            ids.append(f"{network.name}:memory")
    timed = [network for network in config.networks if _lacks(machine, network.name, "latency")]
    if timed and "latency" in config.metrics:
        for name, latency in (yield from latencies(config, timed, seed)).items():
            facts[name] = replace(facts.get(name, MachineFacts()), latency=latency)
            ids.append(f"{name}:latency")
    if facts != machine.networks:
        baselines.write(updated(machine, facts, commit_of(Path())))
    return ids


def latencies(config: Config, networks: Sequence[Checked], seed: int) -> Steps[dict[str, StoredLatency]]:
    """The latency of networks of this checkout, over the config's launches."""
    schedule = Launches(launches=config.launches, budget_s=config.budget_s, seed=seed)
    return measurement.latencies(measurement.work_of(config, networks), Path(), schedule)


def machine_file(baselines: Baselines) -> MachineBaseline:
    """The facts of this machine, an empty file where none are recorded."""
    from senet_bench.bench.machine import environment

    about = environment()
    return baselines.machine(about["machine"]) or MachineBaseline(machine=about["machine"], hard=about["hard"])


def torch_here() -> str:
    """The minor version of torch."""
    from senet_bench.bench.machine import environment

    return ".".join(str(environment()["packages"]["torch"]).split(".")[:2])


# --- what is recorded, shown --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is recorded of a network; memory and seconds are of this machine."""

    network: str
    input_size: list[int] | None
    params: int | None
    operations: int | None
    operators: int | None
    outputs: list[str] | None
    peak_bytes: int | None
    seconds: float | None


def entries(baselines: Baselines) -> list[Entry]:
    """What is recorded, network by network; raises where nothing is recorded."""
    portable, machine = baselines.portable(), machine_file(baselines)
    if portable is None and not machine.networks:
        raise NotComparableError(f"no baseline in {baselines.folder}", "record it with `senet-bench baseline record`")
    facts = portable.networks if portable else {}
    names = dict.fromkeys([*facts, *machine.networks])
    return [_entry(name, facts.get(name), machine.networks.get(name, MachineFacts())) for name in names]


def _entry(name: str, own: StoredFacts | None, here: MachineFacts) -> Entry:
    facts = own.portable() if own else None
    return Entry(
        network=name,
        input_size=list(facts.input_size) if facts else None,
        params=facts.total if facts else None,
        operations=facts.operations if facts else None,
        operators=sum(facts.operators.values()) if facts else None,
        outputs=facts.outputs if facts else None,
        peak_bytes=here.peak_bytes,
        seconds=here.latency.floor if here.latency else None,
    )


def shown(baselines: Baselines) -> Document:
    """The recorded facts, a line a network, and the history of accepted changes."""
    recorded, history = entries(baselines), baselines.history()
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


def _line(entry: Entry) -> tuple[str, ...]:
    counts = (value(number, "") for number in (entry.params, entry.operations, entry.operators))
    images = "x".join(map(str, entry.input_size or ()))
    return (entry.network, images, *counts, value(entry.peak_bytes, "bytes"), value(entry.seconds, "s"))
