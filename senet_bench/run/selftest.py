"""`selftest`: how far timing can be trusted on this machine, stored trial by trial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

from senet_bench.bench.allocator import applied
from senet_bench.bench.selftest import Selftest, selftest
from senet_bench.core.results import AnyFacts
from senet_bench.core.specs import Allocator
from senet_bench.core.store import Store
from senet_bench.run.record import Event, new_facts


def run(
    store: Store, *, null: int, slower: int, visible: int, peers: int, seed: int, allocator: Allocator = "as-is"
) -> Iterator[Event[AnyFacts]]:
    """An event a trial; the last has the counts. `null` is the number of A/A comparisons."""
    store.check()
    counts = {"null": null, "slower": slower, "visible": visible, "peers": peers}
    found = new_facts("selftest", {**counts, "seed": seed, "allocator": applied(allocator)})
    path, total = store.new_path(found), null + slower + 2 * visible + 2 * peers
    for step in selftest(same=null, slower=slower, visible=visible, peers=peers, seed=seed):
        if isinstance(step, Selftest):
            summary = {name: value for name, value in asdict(step).items() if name not in ("rules", "trials")}
            found = replace(found, rows=[asdict(row) for row in step.rules], summary=summary)
        else:
            found = replace(found, details=[*found.details, asdict(step)])
        store.write(found, path)
        yield Event(len(found.details), total, "comparing", found, path)
