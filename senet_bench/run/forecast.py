"""What an ablation would run: its settings, what is stored already, and how long the rest is likely to take."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from senet_bench.core.files import read_file
from senet_bench.core.results import AnyFacts, json_object
from senet_bench.core.store import Store, TrialStore, key_of
from senet_bench.errors import BenchError
from senet_bench.run.cases import TABLES_2_AND_3, Case, Changes, label, listed_name, select, with_controls
from senet_bench.run.compare import Measure, check_measures, settings
from senet_bench.run.count import Count
from senet_bench.run.error import Sweep, trial_definition
from senet_bench.run.latency import Timing
from senet_bench.run.record import new_facts
from senet_bench.run.stored_trials import StoredTrials

if TYPE_CHECKING:
    from senet_bench.core.trial import Trial

LONG_S, LONG_STEPS = 40.0, 2
"""From how many seconds and timings on a command tells how long they take."""
NOT_ASKED_OF_TIME = ("seed", "revision")
"""What a trial's definition has that its duration does not depend on much."""


def forecast(
    model: str,
    axes: Mapping[str, str | None],
    store: Store,
    changes: Changes | None = None,
    count: Count | None = None,
    measures: Mapping[str, Measure] | None = None,
) -> AnyFacts:
    """A row for each setting that `ablate` would run, and the whole in the summary.

    Trains two steps where nothing like a trial is stored; nothing is stored. Raises as the run would.
    """
    measures = measures or {}
    cases, left_out = settings(model, axes, changes, count or Count(), controls=has_errors(measures))
    typed = {name: text or "paper" for name, text in axes.items()}
    about: dict[str, Any] = {"model": listed_name(model), "axes": typed}
    about |= {"left_out": left_out} if left_out else {}
    return _of_cases(cases, about, store, measures)


def of_comparison(
    what: Sequence[str], store: Store, changes: Changes | None = None, measures: Mapping[str, Measure] | None = None
) -> AnyFacts:
    """The same for what `compare` would run: a row for each network."""
    measures, cases = measures or {}, select(what, changes)
    cases = with_controls(cases) if has_errors(measures) else cases
    return _of_cases(cases, {"what": list(what) or list(TABLES_2_AND_3)}, store, measures)


def of_timing(cases: Sequence[Case], measures: Mapping[str, Measure]) -> str:
    """How long the timing of some cases is likely to take, in words; empty where that is not worth a word.

    Raises `UsageError` where they cannot be timed here.
    """
    timing = next((measure for measure in measures.values() if isinstance(measure, Timing)), None)
    if timing is None:
        return ""
    seconds, count = timing.lasts_s(cases), timing.steps(cases)
    if count < LONG_STEPS or seconds < LONG_S:
        return ""
    timing.check(cases)
    bound = "" if timing.most_s else "; --max-seconds bounds it"
    return f"{count} timings take about {seconds:.0f} s, and what building and warming up takes{bound}"


def has_errors(measures: Mapping[str, Measure]) -> bool:
    """Whether errors are among the measures."""
    return any(isinstance(measure, Sweep) for measure in measures.values())


def _of_cases(
    cases: Sequence[Case], about: Mapping[str, Any], store: Store, measures: Mapping[str, Measure]
) -> AnyFacts:
    """A row for each case, and the whole: seconds until the end, and those of all devices together."""
    sweep = next((measure for measure in measures.values() if isinstance(measure, Sweep)), None)
    timing = next((measure for measure in measures.values() if isinstance(measure, Timing)), None)
    check_measures(cases, measures)
    facts = new_facts("forecast", dict(about) | ({"accuracy": sweep.protocol(*sweep.lessons(cases))} if sweep else {}))
    kept = store.trials(facts.environment.machine)
    rows: list[dict[str, Any]] = [{"setting": label(case.spec), "axes": dict(case.axes or {})} for case in cases]
    if sweep is not None:
        rows = [{**row, **trials} for row, trials in zip(rows, _trials(sweep, cases, kept))]
    left = sum(row.get("to_run", 0) for row in rows)
    seconds = [row["seconds"] * row["to_run"] for row in rows if row.get("to_run") and row["seconds"] is not None]
    at_once = max(1, min(sweep.engine.at_a_time() or 1, left)) if sweep else 1
    timing_s = timing.lasts_s(cases) if timing else 0.0
    summary = {
        "networks": len(rows),
        "trials": sum(row.get("trials", 0) for row in rows),
        "stored": sum(row.get("stored", 0) for row in rows),
        "to_run": left,
        "at_once": at_once,
        "latency_seconds": timing_s,
        "device_seconds": timing_s + sum(seconds),
        "seconds": timing_s + sum(seconds) / at_once,
    }
    return replace(facts, rows=rows, summary=summary)


def _trials(sweep: Sweep, cases: Sequence[Case], kept: TrialStore) -> Iterator[dict[str, Any]]:
    """For each case its trials in this share, how many are stored, and the likely seconds of one."""
    known, stored = _durations(kept), StoredTrials.of(kept)
    by_place: dict[int, list[Trial]] = {}
    for trial in sweep.share(cases):
        by_place.setdefault(int(trial.arm), []).append(trial)
    for place in range(len(cases)):
        planned = by_place.get(place, [])
        done = sum(stored.result(trial, key_of(trial_definition(trial))) is not None for trial in planned)
        left = len(planned) if sweep.fresh else len(planned) - done
        row: dict[str, Any] = {"trials": len(planned), "stored": done, "to_run": left}
        if planned:
            row |= _duration(planned[0], known, left=left)
        yield {"seconds": None, "from": None, **row}


def _duration(trial: Trial, known: Mapping[tuple[str, str], list[float]], *, left: int) -> dict[str, Any]:
    """The seconds a trial is likely to take, and how that is known; null where training fails at once."""
    before = known.get((_likeness(trial_definition(trial)), _kind(trial.device)), [])
    if before:
        return {"seconds": sum(before) / len(before), "from": f"{len(before)} stored"}
    if not left:
        return {"seconds": None, "from": None}
    try:
        return {"seconds": _from_two_steps(trial), "from": "two steps"}
    except BenchError as error:
        return {"seconds": None, "from": f"fails: {error}"}


def _kind(device: str) -> str:
    """The kind of a device; trials of earlier versions ran on the CPU and name none."""
    return device.partition(":")[0] or "cpu"


def _durations(kept: TrialStore) -> dict[tuple[str, str], list[float]]:
    """The seconds of stored trials, by what they have in common and the kind of device they ran on."""
    durations: dict[tuple[str, str], list[float]] = {}
    for path in sorted(kept.folder.glob("*.json")):
        document = json_object(read_file(path), str(path))
        result = kept.get(path.stem)
        if result is not None and result.seconds is not None:
            durations.setdefault((_likeness(document.get("definition", {})), _kind(result.device)), []).append(
                result.seconds
            )
    return durations


def _likeness(defined: Mapping[str, Any]) -> str:
    """What trials of equal duration have in common."""
    return json.dumps({name: one for name, one in defined.items() if name not in NOT_ASKED_OF_TIME}, sort_keys=True)


def _from_two_steps(trial: Trial) -> float:
    """Two training steps after a first one, times the steps; an image tested is taken for a third of one trained."""
    from senet_bench.bench.machine import on_threads
    from senet_bench.data.batches import Batches
    from senet_bench.training.loop import train
    from senet_bench.training.objective import Settings
    from senet_bench.training.trials import start

    recipe, begun = trial.recipe, start(trial)
    images, network = begun.images, begun.network
    steps = Batches(
        images.training(), recipe.batch_size, 0, recipe.augmentation, images.size, max_steps=recipe.max_steps
    ).steps
    settings = Settings(device=trial.device, precision=trial.precision, evaluate_every=0, progress_every=0)
    short = replace(recipe.lasting(1), max_steps=min(3, steps))
    with on_threads(trial.threads):
        ends = [time.perf_counter(), *(time.perf_counter() for _ in train(network, images, short, settings))]
    del ends[-1]  # that of the epoch
    step = min(later - earlier for earlier, later in itertools.pairwise(ends))
    tested = len(images.test) / min(recipe.batch_size, len(images.training())) / 3
    return step * (steps * recipe.epochs + tested)
