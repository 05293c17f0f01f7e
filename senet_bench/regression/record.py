"""`baseline record` and `show`: what checks compare with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from senet_bench.errors import NotComparableError, UsageError
from senet_bench.regression import measurement
from senet_bench.regression.baselines import (
    Baselines,
    MachineBaseline,
    MachineFacts,
    PortableBaseline,
    StoredLatency,
    commit_of,
    stored,
    updated,
)
from senet_bench.regression.config import Config, Network
from senet_bench.regression.limits import PORTABLE
from senet_bench.regression.workers import Progress

MACHINE_METRICS = ("memory", "latency")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was written: the ids, and the files."""

    ids: tuple[str, ...]
    paths: tuple[Path, ...]


def record(
    config: Config, baselines: Baselines, *, only: str | None = None, seed: int = 0
) -> Iterator[Progress | Recorded]:
    """Store what is not stored yet. Raises `UsageError` where something stored has changed: that is to be accepted."""
    config = config.only(only)
    machine, kept = machine_file(baselines), baselines.portable()
    portable = kept or PortableBaseline(torch=torch_here())
    found = {one.name: stored(measurement.facts(one.name, one.input_size)) for one in config.networks}
    changed = [name for name, facts in found.items() if kept and name in kept.networks and kept.networks[name] != facts]
    if changed:
        raise UsageError(
            f"{', '.join(changed)} differs from what is recorded",
            f'see `senet-bench check`, then `senet-bench baseline accept {changed[0]} --reason "..."`',
        )
    fresh = {name: facts for name, facts in found.items() if name not in portable.networks}
    if fresh and portable.torch != torch_here():
        raise NotComparableError(f"recorded with torch {portable.torch}, here is {torch_here()}", "accept --all first")
    ids = [f"{name}:{metric}" for name in fresh for metric in PORTABLE]
    asked = [one for one in config.networks for metric in MACHINE_METRICS if _lacks(machine, one.name, metric)]
    yield from _add_machine_facts(config, baselines, list(dict.fromkeys(asked)), seed, ids)
    if fresh or kept is None:
        baselines.write(updated(portable, fresh, commit_of(Path())))
    yield Recorded(tuple(ids), (baselines.portable_path, baselines.machine_path(machine.machine)))


def _lacks(machine: MachineBaseline, name: str, metric: str) -> bool:
    facts = machine.networks.get(name, MachineFacts())
    return (facts.peak_bytes if metric == "memory" else facts.latency) is None


def _add_machine_facts(
    config: Config, baselines: Baselines, networks: Sequence[Network], seed: int, ids: list[str]
) -> Iterator[Progress]:
    """Measure and store the memory and latency that a machine's file lacks; the ids are appended."""
    machine = machine_file(baselines)
    facts = dict(machine.networks)
    for one in networks:
        if "memory" in config.metrics and _lacks(machine, one.name, "memory"):
            peak = measurement.peak(one.name, one.input_size, config)
            facts[one.name] = replace(facts.get(one.name, MachineFacts()), peak_bytes=peak)
            ids.append(f"{one.name}:memory")
    timed = [one for one in networks if _lacks(machine, one.name, "latency")] if "latency" in config.metrics else []
    for step in latencies(config, timed, seed) if timed else ():
        if isinstance(step, Progress):
            yield step
            continue
        for name, latency in step.items():
            facts[name] = replace(facts.get(name, MachineFacts()), latency=latency)
            ids.append(f"{name}:latency")
    if facts != machine.networks:
        baselines.write(updated(machine, facts, commit_of(Path())))


def latencies(config: Config, networks: Sequence[Network], seed: int) -> Iterator[Progress | dict[str, StoredLatency]]:
    """The latency of networks of this checkout, over the config's launches; the last item has it."""
    return measurement.latency_now(
        measurement.asked_of(config, networks), Path(), config.launches, config.budget_s, seed
    )


def machine_file(baselines: Baselines) -> MachineBaseline:
    """The facts of this machine, an empty file where none are recorded."""
    from senet_bench.bench.machine import environment

    about = environment()
    return baselines.machine(about["machine"]) or MachineBaseline(machine=about["machine"], hard=about["hard"])


def torch_here() -> str:
    """The minor version of torch."""
    from senet_bench.bench.machine import environment

    return ".".join(str(environment()["packages"]["torch"]).split(".")[:2])


def show(baselines: Baselines) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is recorded, a row a network, and the history, oldest first; raises where nothing is recorded."""
    portable, machine = baselines.portable(), machine_file(baselines)
    if portable is None and not machine.networks:
        raise NotComparableError(f"no baseline in {baselines.folder}", "record it with `senet-bench baseline record`")
    facts = portable.networks if portable else {}
    rows = []
    for name in dict.fromkeys([*facts, *machine.networks]):
        own, here = facts.get(name), machine.networks.get(name, MachineFacts())
        told = own.portable() if own else None
        row: dict[str, Any] = {
            "network": name,
            "input_size": list(told.input_size) if told else None,
            "params": told.total if told else None,
            "operations": told.operations if told else None,
            "operators": sum(told.operators.values()) if told else None,
            "outputs": told.outputs if told else None,
            "peak_bytes": here.peak_bytes,
            "seconds": here.latency.floor if here.latency else None,
        }
        rows.append(row)
    return rows, baselines.history()
