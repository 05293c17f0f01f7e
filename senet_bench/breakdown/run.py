"""`profile`: where the time of one network goes, stored whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from senet_bench.bench.rounds import Plan
from senet_bench.bench.session import settled
from senet_bench.breakdown.profile import profile_network
from senet_bench.core.progress import Steps
from senet_bench.core.results import AnyFacts
from senet_bench.core.specs import Conditions
from senet_bench.core.store import Store
from senet_bench.errors import UsageError
from senet_bench.models import build_spec
from senet_bench.run.cases import Changes, spec_of
from senet_bench.run.record import Record, new_facts


def run(
    model: str, store: Store, *, conditions: Conditions, budget_s: float, seed: int, changes: Changes
) -> Steps[Record[AnyFacts]]:
    """The record of a profile: the parts of attention as rows, the stages as details; yields the budget's use."""
    store.check()
    if not 0 < budget_s <= 3600:
        raise UsageError(f"a budget of {budget_s:g} s measures nothing or too much", "give some seconds, such as 30")
    spec, conditions = spec_of(model, changes), settled(conditions)
    if spec.trunk is not None:
        raise UsageError(f"{spec.name} is a detector, of which SE's share is not taken apart", f"profile {spec.trunk}")
    described = {"model": spec.name, "label": spec.label, "budget_s": budget_s, **asdict(conditions)}
    record = Record.begin(store, new_facts("profile", described))
    built = build_spec(spec)
    plan = Plan(budget_s=budget_s, seed=seed)
    profile = yield from profile_network(built, spec.input_size, conditions=conditions, plan=plan)
    document: dict[str, Any] = msgspec.to_builtins(profile)
    rows, details = document.pop("parts"), document.pop("stages")
    record.change(rows=rows, details=details, summary=document)
    return record
