"""`profile`: where the time of one network goes, stored whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import msgspec

from senet_bench.bench.plan import Plan, Round
from senet_bench.bench.session import settled
from senet_bench.breakdown.profile import Profile, Step, profile_network
from senet_bench.core.results import AnyFacts
from senet_bench.core.specs import Conditions
from senet_bench.core.store import Store
from senet_bench.errors import UsageError
from senet_bench.run.cases import Changes, network, row_of
from senet_bench.run.record import Event, new_facts


def run(
    model: str, store: Store, *, conditions: Conditions, budget_s: float, seed: int, changes: Changes
) -> Iterator[Event[AnyFacts]]:
    """Progress within the budget; the last event has the parts of attention as rows and the stages as details."""
    store.check()
    if not 0 < budget_s <= 3600:
        raise UsageError(f"a budget of {budget_s:g} s measures nothing or too much", "give some seconds, such as 30")
    spec, conditions = changes.apply(row_of(model)), settled(conditions)
    if spec.trunk is not None:
        raise UsageError(f"{spec.name} is a detector, of which SE's share is not taken apart", f"profile {spec.trunk}")
    found = new_facts("profile", {"model": spec.name, "label": spec.label, "budget_s": budget_s, **asdict(conditions)})
    path, what = store.new_path(found), "preparing"
    built = network(spec, changes, device="cpu")
    plan = Plan(budget_s=budget_s, seed=seed)
    for event in profile_network(built, spec.input_size, conditions=conditions, plan=plan):
        if isinstance(event, Step):
            what = event.name
            yield Event(0.0, 1.0, what, found, path)
        elif isinstance(event, Round):
            yield Event(min(1.0, event.elapsed_s / event.budget_s), 1.0, what, found, path)
        elif isinstance(event, Profile):
            found = _with(found, event)
    store.write(found, path)
    yield Event(1.0, 1.0, "done", found, path)


def _with(found: AnyFacts, profile: Profile) -> AnyFacts:
    document: dict[str, Any] = msgspec.to_builtins(profile)
    rows, details = document.pop("parts"), document.pop("stages")
    return replace(found, rows=rows, details=details, summary=document)
