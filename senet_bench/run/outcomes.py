"""What became of trials, and what their errors make of rows: means, paired differences, seeds that are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from senet_bench.core.comparisons import References, compared, of_seeds, pairs_of
from senet_bench.core.learning import TrialResult
from senet_bench.core.results import Row, Seeding, TrainingProtocol
from senet_bench.run.engines import Failure, Left

if TYPE_CHECKING:
    from senet_bench.core.trial import Trial


@dataclass(slots=True)
class Outcomes:
    """What became of trials: of each arm errors by seed, device and torch, remarks, why trials failed, jobs left.

    `unkept` are the seeds that were stored without the weights that are asked for now.
    """

    errors: dict[int, dict[int, float]] = field(default_factory=dict)
    places: dict[int, set[tuple[str, str]]] = field(default_factory=dict)
    remarks: dict[int, dict[str, None]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    left: dict[int, list[str]] = field(default_factory=dict)
    unkept: dict[int, list[int]] = field(default_factory=dict)
    total: int = 0

    def add(self, trial: Trial, outcome: TrialResult | Failure | Left) -> None:
        """Take down how a trial ended, or with which job it is left."""
        if isinstance(outcome, Left):
            self.left.setdefault(int(trial.arm), []).append(outcome.submitted.id)
        elif isinstance(outcome, Failure):
            self.failed[int(trial.arm)] = f"seed {trial.seed}: {outcome.reason}"
        else:
            self.errors.setdefault(int(trial.arm), {})[trial.seed] = outcome.top1_err
            self.places.setdefault(int(trial.arm), set()).add((outcome.trained_on, outcome.torch))
            self.remarks.setdefault(int(trial.arm), {}).update(dict.fromkeys(outcome.remarks))

    def trained_on(self, arm: int) -> list[str]:
        """The devices that an arm was trained on, with torch's version where those of all arms differ."""
        several = len({torch for places in self.places.values() for _, torch in places if torch}) > 1
        places = self.places.get(arm, set())
        return sorted({f"{device} with torch {torch}" if several and torch else device for device, torch in places})


def error_pairs(rows: Sequence[Row]) -> dict[int, tuple[list[float], list[float]]]:
    """Of each row that has attention, by its place, its errors and its baseline's over the seeds that both have."""
    pairs, known = {}, References(rows)
    for place, row in enumerate(rows):
        other = known.baseline_of(row)
        if row.role == "variant" and row.accuracy and other is not None and other.accuracy:
            ours, theirs = pairs_of(row, other)
            if len(ours) > 1:
                pairs[place] = ours, theirs
    return pairs


def enough_seeds(rows: Sequence[Row], known: Mapping[int, Seeding], outcomes: Outcomes, seeds: int) -> dict[int, int]:
    """After how many seeds a row has enough: known, or failed; what others are compared with goes on with them."""
    going = {place for place, seeding in known.items() if seeding.verdict == "open" and place not in outcomes.failed}
    others = References(rows)
    beside = {id(one) for place in going for one in (others.baseline_of(rows[place]), others.control_of(rows[place]))}
    return {
        place: known[place].seeds if place in known else seeds
        for place, row in enumerate(rows)
        if place not in going and id(row) not in beside
    }


def with_errors(rows: Sequence[Row], outcomes: Outcomes, protocols: Sequence[TrainingProtocol]) -> list[Row]:
    """The rows with mean error, sd, and paired differences to the baseline and to the constant gate."""
    changed = []
    for place, (row, protocol) in enumerate(zip(rows, protocols)):
        seeds = protocol.seeds or 0
        own = outcomes.errors.get(place, {})
        missing = {name: why for name, why in row.missing.items() if name != "accuracy"}
        if len(own) < seeds:
            why = outcomes.failed.get(place) or _left(outcomes.left.get(place)) or "not run here (another shard?)"
            missing["accuracy"] = f"{seeds - len(own)} of {seeds} seeds: {why}"
        remarks = [*outcomes.remarks.get(place, ())]
        accuracy = of_seeds(own, protocol, outcomes.trained_on(place), remarks) if own else None
        elsewhere = 0 if place in outcomes.failed else seeds - len(own)
        changed.append(replace(row, accuracy=accuracy, missing=missing, seeds_elsewhere=max(0, elsewhere)))
    return compared(changed)


def _left(numbers: Sequence[str] | None) -> str:
    """What is said of jobs that are left; empty where none are."""
    if not numbers:
        return ""
    return f"left with Slurm (job {', '.join(numbers)}); the same command takes them up"
