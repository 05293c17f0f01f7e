"""What an ablation would run: its settings, what is stored already, and how long the rest is likely to take."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from senet_bench.core.catalog import resolve
from senet_bench.core.results import AnyFacts, header
from senet_bench.core.store import Store, TrialStore, key_of, read
from senet_bench.errors import BenchError
from senet_bench.run.cases import Changes, Subject, check, grid, label, with_controls
from senet_bench.run.engines import workers_of
from senet_bench.run.error import Sweep, definition, stored
from senet_bench.run.record import new_facts

if TYPE_CHECKING:
    from senet_bench.train.trials import Trial

COMPANY = 3
"""Trials that are timed side by side: each takes as long as in a larger company, up to a twentieth."""
NOT_ASKED_OF_TIME = ("seed", "version", "code", "folder")
"""What a trial's definition has that its duration does not depend on much."""


def forecast(
    model: str, axes: Mapping[str, str | None], store: Store, changes: Changes, sweep: Sweep | None, timing_s: float = 0
) -> AnyFacts:
    """A row for each setting, and the whole in the summary; trains two steps where nothing like it is stored.

    Nothing is stored. `timing_s` is what latency takes. Impossible combinations raise as they would in the run.
    """
    subjects: Sequence[Subject] = grid(resolve(model), axes)
    if sweep is not None:
        sweep.check()
        changes, subjects = sweep.fitted(changes), with_controls(subjects)
    check(subjects, changes)
    asked = {"model": resolve(model).name, "axes": {name: text or "paper" for name, text in axes.items()}}
    facts = new_facts("forecast", asked | ({"accuracy": sweep.described()} if sweep else {}))
    kept = store.trials(facts.environment["machine"])
    rows: list[dict[str, Any]] = [
        {"setting": label(changes.apply(one.spec)), "axes": dict(one.axes or {})} for one in subjects
    ]
    if sweep is not None:
        rows = [{**row, **found} for row, found in zip(rows, _trials(sweep, subjects, changes, kept))]
    left = sum(row.get("to_run", 0) for row in rows)
    seconds = [row["seconds"] * row["to_run"] for row in rows if row.get("to_run") and row["seconds"] is not None]
    at_once = max(1, min(workers_of(sweep.engine) or 1, left)) if sweep else 1
    summary = {
        "networks": len(rows),
        "trials": sum(row.get("trials", 0) for row in rows),
        "stored": sum(row.get("stored", 0) for row in rows),
        "to_run": left,
        "at_once": at_once,
        "latency_seconds": timing_s,
        "seconds": timing_s + sum(seconds) / at_once,
    }
    return replace(facts, rows=rows, summary=summary)


def _trials(sweep: Sweep, subjects: Sequence[Subject], changes: Changes, kept: TrialStore) -> Iterator[dict[str, Any]]:
    """For each subject its trials in this share, how many are stored, and the likely seconds of one."""
    known = _durations(kept)
    by_place: dict[int, list[Trial]] = {}
    for index, (place, trial) in enumerate(sweep.plan(subjects, changes)):
        if sweep.mine(index):
            by_place.setdefault(place, []).append(trial)
    for place in range(len(subjects)):
        planned = by_place.get(place, [])
        done = sum(stored(kept, key_of(definition(trial))) is not None for trial in planned)
        found: dict[str, Any] = {"trials": len(planned), "stored": done, "to_run": len(planned) - done}
        if planned:
            found |= _duration(planned[0], known, left=len(planned) - done)
        yield {"seconds": None, "from": None, **found}


def _duration(trial: Trial, known: Mapping[str, list[float]], *, left: int) -> dict[str, Any]:
    """The seconds a trial is likely to take, and how that is known; null where training fails at once."""
    before = known.get(_likeness(definition(trial)), [])
    if before:
        return {"seconds": sum(before) / len(before), "from": f"{len(before)} stored"}
    if not left:
        return {"seconds": None, "from": None}
    try:
        return {"seconds": _from_two_steps(trial, left), "from": "two steps"}
    except BenchError as error:
        return {"seconds": None, "from": f"fails: {error}"}


def _durations(kept: TrialStore) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for path in sorted(kept.folder.glob("*.json")):
        document = header(read(path), str(path))
        seconds = (stored(kept, path.stem) or {}).get("seconds")
        if isinstance(seconds, int | float):
            found.setdefault(_likeness(document.get("definition", {})), []).append(float(seconds))
    return found


def _likeness(defined: Mapping[str, Any]) -> str:
    """What trials of equal duration have in common."""
    return json.dumps({name: one for name, one in defined.items() if name not in NOT_ASKED_OF_TIME}, sort_keys=True)


def _from_two_steps(trial: Trial, left: int) -> float:
    """Two training steps after a first one, times the steps; an image tested is taken for a third of one trained.

    Where such trials are trained side by side, that is each one's share of the steps of up to three.
    """
    import torch

    from senet_bench.data.batches import Batches
    from senet_bench.train.events import Progress, Settings
    from senet_bench.train.loop import train
    from senet_bench.train.trials import beside, start, together

    side_by_side, recipe = beside(trial), trial.recipe
    count = min(left, COMPANY) if side_by_side else 1
    trials = [replace(trial, seed=trial.seed + more) for more in range(max(2, count) if side_by_side else 1)]
    sets, networks = zip(*map(start, trials))
    images = sets[0]
    network, shown = together(trials, sets, networks) if side_by_side else (networks[0], images)
    steps = Batches(
        images.training(), recipe.batch_size, 0, recipe.augmentation, images.size, max_steps=recipe.max_steps
    ).steps
    settings = Settings(precision=trial.precision, evaluate_every=0, progress_every=0)
    short = replace(recipe.lasting(1), max_steps=min(3, steps))
    torch.set_num_threads(trial.threads)
    events = (event for event in train(network, shown, short, settings) if isinstance(event, Progress))
    ends = [time.perf_counter(), *(time.perf_counter() for _ in events)]
    step = min(later - earlier for earlier, later in itertools.pairwise(ends)) / count
    tested = len(images.test) / min(recipe.batch_size, len(images.training())) / 3
    return step * (steps * recipe.epochs + tested)
