"""`probe`: every block and every control trained on every task with the same seeds, each trial a stored fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from senet_bench.core.learning import TrialResult
from senet_bench.core.progress import Steps
from senet_bench.core.results import AnyFacts
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.store import Store, key_of
from senet_bench.probing import arms as networks
from senet_bench.probing.comparison import MARGIN, PROBE_LEVEL, judged, pairs
from senet_bench.probing.rows import ProbeConditions, ProbeFacts, ProbeRow, ProbeSummary
from senet_bench.probing.tasks import TASKS, ProbeTask, find_task
from senet_bench.probing.trials import LESSON, PROBE_REVISION, ProbeTrial, probe_definition, run_probe_trial
from senet_bench.run.claims import Claimed, carried_out
from senet_bench.run.engines import Engine, Failure
from senet_bench.run.record import Record, header, new_facts
from senet_bench.run.slurm_queue import withdrawn
from senet_bench.run.sources import with_sources

USUAL_SECONDS = 0.6
"""What a trial takes on a core where none is stored yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is asked: blocks, tasks with their difficulties, seeds, and where the trials run."""

    engine: Engine
    blocks: tuple[AttentionSpec, ...]
    tasks: tuple[tuple[ProbeTask, float], ...]
    difficulty: str | None = None
    reduction: int | None = None
    seeds: int = 8
    device: str = "cpu"
    fresh: bool = False

    @classmethod
    def of(
        cls,
        engine: Engine,
        blocks: Sequence[str] = (),
        tasks: Sequence[str] = (),
        *,
        difficulty: str | None = None,
        reduction: int | None = None,
        **settings: Any,
    ) -> Probe:
        """What names ask for; none means every built-in block, or every task. `UsageError` for a name that is none."""
        chosen = list(dict.fromkeys(map(find_task, tasks))) or [*TASKS.values()]
        return cls(
            engine=engine,
            blocks=networks.blocks_of(blocks or networks.DEFAULT_BLOCKS, reduction),
            tasks=tuple(networks.chosen_tasks(chosen, difficulty)),
            difficulty=difficulty,
            reduction=reduction,
            **settings,
        )

    def conditions(self) -> ProbeConditions:
        """What a document says of it."""
        curve = self.difficulty == "curve"
        return ProbeConditions(
            blocks=[block.block for block in self.blocks],
            tasks=list(dict.fromkeys(task.name for task, _ in self.tasks)),
            difficulty=None if curve or self.difficulty is None else float(self.difficulty),
            curve=curve,
            reduction=self.reduction,
            seeds=self.seeds,
            steps=LESSON.steps,
            batch=LESSON.batch,
            lr=LESSON.lr,
            revision=PROBE_REVISION,
            level=PROBE_LEVEL,
            margin=MARGIN,
            device=self.device,
        )

    def plan(self) -> tuple[list[ProbeRow], list[ProbeTrial]]:
        """The rows, and their trials task by task and seed by seed; the arm of a trial is the place of its row."""
        both = list(networks.rows_of(networks.arms_of(self.blocks), self.tasks))
        trials = [
            ProbeTrial(
                arm=str(place),
                spec=arm.spec,
                task=row.task,
                difficulty=row.difficulty,
                seed=seed,
                device=self.device,
            )
            for task, difficulty in self.tasks
            for seed in range(self.seeds)
            for place, (arm, row) in enumerate(both)
            if (row.task, row.difficulty) == (task.name, difficulty)
        ]
        return [row for _, row in both], trials


@dataclass(slots=True)
class _Errors:
    """The errors by seed of each row, why trials failed, and what those that were run took."""

    by_row: dict[int, dict[str, float]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    ran: int = 0
    failed: int = 0
    cpu_seconds: float = 0.0

    def add(self, trial: ProbeTrial, outcome: TrialResult | Failure) -> None:
        place = int(trial.arm)
        if isinstance(outcome, Failure):
            self.reasons.setdefault(place, outcome.reason)
            self.failed += 1
        else:
            self.by_row.setdefault(place, {})[str(trial.seed)] = outcome.top1_err

    def of(self, rows: Sequence[ProbeRow]) -> list[ProbeRow]:
        """The rows with their errors; one that lacks a seed has the reason."""
        return [
            replace(row, per_seed=self.by_row.get(place, {}), reason=self.reasons.get(place, ""))
            for place, row in enumerate(rows)
        ]


def probe(request: Probe, store: Store) -> Steps[Record[ProbeFacts]]:
    """Train what is not stored, and give the record with all rows judged; a block that fails is a row with its reason.

    The record is stored anew after each task, and where it is interrupted, with what can be said by then.
    """
    request.engine.check(request.device)
    rows, planned = request.plan()
    record: Record[ProbeFacts] = Record.begin(store, new_facts("probe", request.conditions(), ProbeSummary()))
    about = {key: value for key, value in header("trial", {}).items() if key != "schema"}
    kept = store.trials(about["environment"].machine)
    errors, todo, total = _Errors(), [], len(planned)
    for trial in planned:
        key = key_of(probe_definition(trial))
        result = None if request.fresh else kept.get(key)
        if result is None:
            todo.append(Claimed(key, trial, probe_definition))
        else:
            errors.add(trial, result)
    if request.fresh:
        kept = replace(kept, runs=None)  # what another machine has of them is not taken either
        withdrawn(filter(None, [kept.forget(claimed.key) for claimed in todo]))
    record.change(rows=judged(errors.of(rows), request.seeds))
    done, task = total - len(todo), ""
    function = with_sources(request.engine, run_probe_trial, (claimed.trial.spec for claimed in todo))
    try:
        for trial, outcome in carried_out(request.engine, kept, function, todo, about):
            errors.add(trial, outcome)
            errors.ran += 1
            errors.cpu_seconds += 0.0 if isinstance(outcome, Failure) else outcome.cpu_seconds or 0.0
            done += 1
            if trial.task != task:
                task = trial.task
                record.change(rows=judged(errors.of(rows), request.seeds))
            yield record.progress(f"{trial.task}: seed {trial.seed} of {rows[int(trial.arm)].label}", done, total)
    finally:
        finished = judged(errors.of(rows), request.seeds)
        record.change(rows=finished)
    summary = ProbeSummary(trials=total, ran=errors.ran, failed=errors.failed, cpu_seconds=round(errors.cpu_seconds, 3))
    record.change(details=pairs(finished, request.seeds), summary=summary)
    yield record.progress("done", total, total)
    return record


def forecast_probe(request: Probe, store: Store) -> AnyFacts:
    """What would run, a row a task; nothing is trained or stored."""
    _, planned = request.plan()
    facts = new_facts("forecast", request.conditions())
    kept = store.trials(facts.environment.machine)
    stored = {trial: None if request.fresh else kept.get(key_of(probe_definition(trial))) for trial in planned}
    known = [result.seconds for result in stored.values() if result is not None and result.seconds]
    each = sum(known) / len(known) if known else USUAL_SECONDS
    rows = [
        _forecast_row(task, level, stored, each, f"{len(known)} stored" if known else "usual")
        for task, level in request.tasks
    ]
    left = sum(row["to_run"] for row in rows)
    at_once = max(1, min(request.engine.at_a_time() or 1, left))
    summary = {
        "networks": len(planned) // request.seeds,
        "trials": len(planned),
        "stored": len(planned) - left,
        "to_run": left,
        "at_once": at_once,
        "device_seconds": left * each,
        "seconds": left * each / at_once,
    }
    return replace(facts, rows=rows, summary=summary)


def _forecast_row(
    task: ProbeTask, level: float, stored: Mapping[ProbeTrial, TrialResult | None], each: float, known: str
) -> dict[str, Any]:
    own = [result for trial, result in stored.items() if (trial.task, trial.difficulty) == (task.name, level)]
    done = sum(result is not None for result in own)
    setting = f"{task.name}, {task.knob} {level:g}"
    counts = {"trials": len(own), "stored": done, "to_run": len(own) - done}
    return {"setting": setting, "axes": {task.knob: level}, **counts, "seconds": each, "from": known}
