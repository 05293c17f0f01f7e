"""`selftest`: how far timing can be trusted on this machine, stored trial by trial."""

from __future__ import annotations

from dataclasses import asdict

from senet_bench.bench.process import applied_allocator
from senet_bench.bench.selftest import Amounts, call_seconds, summarise, timing_trials
from senet_bench.core.progress import Steps
from senet_bench.core.results import AnyFacts
from senet_bench.core.specs import Allocator
from senet_bench.core.store import Store
from senet_bench.run.record import Record, new_facts


def run(store: Store, amounts: Amounts, *, allocator: Allocator = "as-is") -> Steps[Record[AnyFacts]]:
    """The record of a self-test: every trial as a detail, the counts of each rule as rows."""
    store.check()
    counts = {"null": amounts.same, "slower": amounts.slower, "visible": amounts.visible, "peers": amounts.peers}
    conditions = {**counts, "seed": amounts.seed, "allocator": applied_allocator(allocator)}
    record, ended = Record.begin(store, new_facts("selftest", conditions)), []
    for trial in timing_trials(amounts):
        ended.append(trial)
        record.change(details=[*record.document.details, asdict(trial)])
        yield record.progress("comparing", trial.index, trial.of)
    outcome = summarise(ended, amounts.visible_s, call_seconds())
    summary = {name: value for name, value in asdict(outcome).items() if name not in ("rules", "trials")}
    record.change(rows=[asdict(row) for row in outcome.rules], summary=summary)
    return record
