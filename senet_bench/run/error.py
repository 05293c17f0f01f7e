"""The error of a run's rows: every network trained with the same seeds, each trial a stored fact of its own."""

from __future__ import annotations

import functools
import hashlib
import heapq
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_bench import __version__
from senet_bench.core.results import Accuracy, Row
from senet_bench.core.specs import Precision
from senet_bench.core.statistics import holm
from senet_bench.core.store import Store, TrialStore, key_of
from senet_bench.errors import UsageError
from senet_bench.run.cases import Changes, Subject
from senet_bench.run.engines import Engine, Failure, workers_of
from senet_bench.run.record import Step, header

if TYPE_CHECKING:
    from filelock import FileLock

    from senet_bench.core.recipes import Recipe
    from senet_bench.train.trials import Company, Trial

SIZES: dict[str, tuple[int | None, int | None, int | None]] = {
    "digits": (8, 1, 10),
    "digits-full": (8, 1, 10),
    "cifar10": (32, 3, 10),
    "cifar100": (32, 3, 100),
    "imagenet": (None, None, 1000),
    "places365": (None, None, 365),
}
"""Image side, channels and classes of the data sets that have their own; None where the network's are taken."""
ELSEWHERE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What every network is trained and tested on: `seeds` runs each, or the share `shard` (i of n) of them all."""

    engine: Engine
    dataset: str = "digits"
    folder: Path | None = None
    recipe: str | None = None
    epochs: int | None = None
    lr: float | None = None
    seeds: int = 8
    precision: Precision = "fp32"
    shard: tuple[int, int] = (1, 1)

    def check(self) -> None:
        """Raise `UsageError` on a data set, recipe or number that does not exist, before anything runs."""
        from senet_bench.data import sets

        if self.seeds < 1:
            raise UsageError(f"--seeds must be a positive integer, not {self.seeds}", "use 8")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(f"--shard {self.shard[0]}/{self.shard[1]} is no share", "use 1/4 to 4/4")
        self.resolved()
        sets.load(self.dataset, self.folder)

    def resolved(self) -> Recipe:
        """The recipe with its epochs and learning rate as asked."""
        from senet_bench.core import recipes

        found = recipes.recipe(self.recipe or recipes.DEFAULTS.get(self.dataset, "cifar")).lasting(self.epochs)
        if self.lr is not None and not 0 < self.lr < 100:
            raise UsageError(f"a learning rate of {self.lr:g} cannot be trained with", "use 0.1")
        return found if self.lr is None else replace(found, lr=self.lr)

    def fitted(self, changes: Changes) -> Changes:
        """The changes with the data set's image size, channels and classes; `UsageError` where others were asked."""
        own = zip(("img_size", "in_channels", "classes"), SIZES.get(self.dataset, ()))
        fixed: dict[str, Any] = {name: value for name, value in own if value is not None}
        for name, value in fixed.items():
            if getattr(changes, name) not in (None, value):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} is {value} on {self.dataset}, not {getattr(changes, name)}", "leave it out")
        return replace(changes, **fixed)

    def described(self) -> dict[str, Any]:
        """The plan as it is stored; what decides whether two errors may be compared."""
        recipe = self.resolved()
        folder = str(self.folder) if self.folder else None
        return {
            "dataset": self.dataset,
            "folder": folder,
            "recipe": recipe.name,
            "epochs": recipe.epochs,
            "lr": recipe.lr,
            "batch_size": recipe.batch_size,
            "seeds": self.seeds,
            "precision": self.precision,
        }

    def plan(self, subjects: Sequence[Subject], changes: Changes) -> list[tuple[int, Trial]]:
        """Every network with every seed of this share, seed by seed, with the place of its row."""
        from senet_bench.train.trials import Trial

        recipe, planned = self.resolved(), []
        for seed in range(self.seeds):
            for place, subject in enumerate(subjects):
                spec = changes.apply(subject.spec)
                if changes.cardinality is not None:
                    spec = replace(spec, options={**spec.options, "cardinality": changes.cardinality})
                trial = Trial(
                    arm=str(place),
                    spec=spec,
                    recipe=recipe,
                    seed=seed,
                    dataset=self.dataset,
                    folder=str(self.folder) if self.folder else None,
                    precision=self.precision,
                )
                planned.append((place, trial))
        return planned

    def measure(
        self, subjects: Sequence[Subject], changes: Changes, rows: Sequence[Row], store: Store
    ) -> Iterator[Step]:
        """The rows with their errors, filled in as trials end; what is stored is not run again."""
        about = {key: value for key, value in header("trial", {}).items() if key != "schema"}
        kept = store.trials(about["environment"]["machine"])
        planned = self.plan(subjects, changes)
        results: dict[str, dict[int, dict[str, Any]]] = {}
        failed: dict[str, str] = {}
        todo = []
        for index, (place, trial) in enumerate(planned):
            key = key_of(definition(trial))
            if (result := stored(kept, key)) is not None:
                results.setdefault(str(place), {})[trial.seed] = result
            elif self.mine(index):
                todo.append((key, trial))
        done = len(planned) - len(todo)
        for trial, outcome in _carried_out(self.engine, kept, todo, about):
            done += 1
            if isinstance(outcome, Failure):
                failed[trial.arm] = f"seed {trial.seed}: {outcome.reason}"
            else:
                results.setdefault(trial.arm, {})[trial.seed] = outcome
            yield Step(done, f"seed {trial.seed} of {rows[int(trial.arm)].label}", list(rows), finished=False)
        found = _with_errors(rows, results, failed, self.described(), self.seeds)
        failures = tuple(f"{rows[int(arm)].label}: {why}" for arm, why in failed.items())
        yield Step(len(planned), "done", found, finished=True, failures=failures)

    def steps(self, subjects: Sequence[Subject]) -> int:
        """How many trials that makes."""
        return len(subjects) * self.seeds

    def mine(self, index: int) -> bool:
        """Whether the trial at that place of the plan is in this share."""
        return index % self.shard[1] == self.shard[0] - 1


def stored(kept: TrialStore, key: str) -> dict[str, Any] | None:
    """The stored result of a trial, None when there is none; raises on one without an error rate."""
    result = kept.get(key)
    error = 0.0 if result is None else result.get("top1_err")
    if not isinstance(error, int | float) or not 0 <= error <= 1:
        raise UsageError(f"{kept.folder / key}.json is damaged (top1_err is {error!r})", "move it away or restore it")
    return result


def definition(trial: Trial) -> dict[str, Any]:
    """What defines a trial, and so its key: network, attention, recipe, data, seed, conditions, code."""
    return {
        "model": trial.spec.name,
        "builder": trial.spec.builder,
        "options": {name: repr(value) for name, value in trial.spec.options.items()},
        "attention": asdict(trial.spec.attention) if trial.spec.attention else None,
        "recipe": trial.recipe.as_dict(),
        "dataset": trial.dataset,
        "folder": trial.folder,
        "seed": trial.seed,
        "precision": trial.precision,
        "threads": trial.threads,
        "torch": metadata.version("torch").partition("+")[0],
        "version": __version__,
        "code": code_digest(),
    }


@functools.cache
def code_digest() -> str:
    """Twelve hexadecimal digits of the source that decides a trial's result: networks, training, specs."""
    root = Path(__file__).parent.parent
    rooms = ("models", "data", "train")
    files = sorted([*(path for room in rooms for path in root.glob(f"{room}/*.py")), root / "core" / "specs.py"])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


class _Claims:
    """Trials to run, handed out by companies unless another process has them; those are left in `elsewhere`."""

    def __init__(self, kept: TrialStore, planned: Iterable[tuple[Sequence[tuple[str, Trial]], bool]]) -> None:
        self.kept, self.planned = kept, planned
        self.held: dict[Trial, tuple[str, FileLock]] = {}
        self.elsewhere: list[tuple[str, Trial]] = []

    def __iter__(self) -> Iterator[Company]:
        from senet_bench.train.trials import Company

        for planned, side_by_side in self.planned:
            claimed = tuple(trial for key, trial in planned if self._claim(key, trial))
            if claimed:
                yield Company(claimed, side_by_side)

    def _claim(self, key: str, trial: Trial) -> bool:
        lock = self.kept.claim(key)
        if lock is not None and stored(self.kept, key) is None:
            self.held[trial] = (key, lock)
            return True
        if lock is not None:  # finished since it was planned
            lock.release()
        self.elsewhere.append((key, trial))
        return False

    def give_up(self, trial: Trial) -> str:
        """Give up the claim of a trial without an outcome; its key."""
        key, lock = self.held.pop(trial)
        lock.release()
        return key

    def settle(self, trial: Trial, outcome: dict[str, Any] | Failure, about: Mapping[str, Any]) -> None:
        """Store the outcome of a trial and give up its claim."""
        key, lock = self.held.pop(trial)
        if not isinstance(outcome, Failure):
            self.kept.put(key, definition(trial), outcome, about)
        lock.release()


def _companies(
    todo: Sequence[tuple[str, Trial]], at_once: int, alone: AbstractSet[str]
) -> Iterator[tuple[Sequence[tuple[str, Trial]], bool]]:
    """The trials in the companies they are trained in, and whether side by side; lower seeds first, some `alone`."""
    from senet_bench.train.trials import beside

    arms: dict[str, list[tuple[str, Trial]]] = {}
    for one in todo:
        arms.setdefault(one[1].arm, []).append(one)
    most = company_size([len(arm) for arm in arms.values()], at_once)
    sizes = {name: math.ceil(len(arm) / math.ceil(len(arm) / most)) for name, arm in arms.items()}
    side_by_side: dict[str, bool] = {}
    while arms:
        for name, arm in list(arms.items()):
            if name not in side_by_side:  # found out while the first are trained
                side_by_side[name] = beside(arm[0][1])
            size = sizes[name] if side_by_side[name] and alone.isdisjoint(key for key, _ in arm) else 1
            yield arm[:size], side_by_side[name]
            arms[name] = arm[size:]
        arms = {name: arm for name, arm in arms.items() if arm}


def company_size(arms: Sequence[int], at_once: int) -> int:
    """The largest company that lets so many workers end soonest, for arms of so many trials.

    A company takes a third of a trial longer than its trials do in a large one.
    """
    from senet_bench.train.side_by_side import LARGEST

    def seconds(most: int) -> float:
        busy, sizes = [0.0] * at_once, list[float]()
        for count in arms:
            parts = math.ceil(count / most)
            sizes += [count / parts] * parts
        for size in sorted(sizes, reverse=True):
            heapq.heapreplace(busy, busy[0] + size + 1 / 3)
        return max(busy)

    return min(range(2, LARGEST + 1), key=lambda most: (seconds(most), -most))


def _carried_out(
    engine: Engine, kept: TrialStore, todo: Sequence[tuple[str, Trial]], about: Mapping[str, Any]
) -> Iterator[tuple[Trial, dict[str, Any] | Failure]]:
    """Each trial with its outcome, stored.

    One that another process runs is waited for, and run if that one dies. Where a company fails, each of its trials is
    tried without the others.
    """
    from senet_bench.train.trials import run_company

    alone = set[str]()
    while todo:
        again: list[tuple[str, Trial]] = []
        claims = _Claims(kept, _companies(todo, workers_of(engine) or len(todo), alone))
        for company, outcomes in engine.run(run_company, iter(claims)):
            if isinstance(outcomes, Failure) and len(company.trials) > 1:
                again += [(claims.give_up(trial), trial) for trial in company.trials]
                continue
            each: Sequence[dict[str, Any] | Failure] = [outcomes] if isinstance(outcomes, Failure) else outcomes
            ended = list(zip(company.trials, each))
            for trial, outcome in ended:
                claims.settle(trial, outcome, about)
            yield from ended
        alone |= {key for key, _ in again}
        results = [(key, trial, stored(kept, key)) for key, trial in claims.elsewhere]
        yield from ((trial, result) for _, trial, result in results if result is not None)
        waiting = [(key, trial) for key, trial, result in results if result is None]
        todo = [*again, *waiting]
        if waiting and not again:
            time.sleep(ELSEWHERE_S)


def _with_errors(
    rows: Sequence[Row],
    results: Mapping[str, Mapping[int, Mapping[str, Any]]],
    failed: Mapping[str, str],
    protocol: Mapping[str, Any],
    seeds: int,
) -> list[Row]:
    """The rows with mean error, sd, and paired differences to the baseline and to the constant gate."""
    errors = {
        int(arm): {seed: float(one["top1_err"]) for seed, one in by_seed.items()} for arm, by_seed in results.items()
    }
    found = []
    for place, row in enumerate(rows):
        own = errors.get(place, {})
        missing = {name: why for name, why in row.missing.items() if name != "accuracy"}
        if len(own) < seeds:
            why = failed.get(str(place), "not run here (another shard?)")
            missing["accuracy"] = f"{seeds - len(own)} of {seeds} seeds: {why}"
        base = _place(rows, row.baseline, row)
        control = _control(rows, row)
        accuracy = _accuracy(own, errors.get(base, {}), errors.get(control, {}), protocol) if own else None
        found.append(replace(row, accuracy=accuracy, missing=missing))
    return _holm(found)


def _place(rows: Sequence[Row], model: str | None, like: Row) -> int:
    """The place of a baseline among the rows, -1 when there is none."""
    return next(
        (
            p
            for p, row in enumerate(rows)
            if row.model == model and row.attention is None and row.classes == like.classes and row is not like
        ),
        -1,
    )


def _control(rows: Sequence[Row], row: Row) -> int:
    """The place of the constant-gate control with the same baseline, -1 for a control itself."""
    if row.role != "variant":
        return -1
    controls = (p for p, other in enumerate(rows) if other.role == "control" and other.baseline == row.baseline)
    return next(controls, -1)


def _accuracy(
    own: Mapping[int, float], base: Mapping[int, float], control: Mapping[int, float], protocol: Mapping[str, Any]
) -> Accuracy:
    from senet_bench.core.intervals import paired_seeds, sd

    values = list(own.values())
    against: dict[str, Any] = {}
    for other, name in ((base, "difference"), (control, "control_difference")):
        shared = sorted(own.keys() & other.keys())
        if shared:
            paired = paired_seeds([other[seed] for seed in shared], [own[seed] for seed in shared])
            against |= {name: paired.difference, f"{name}_ci": paired.ci}
            if name == "difference":
                against["p_value"] = paired.p_value
    return Accuracy(
        dataset=str(protocol["dataset"]),
        top1_err=sum(values) / len(values),
        sd=sd(values) if len(values) > 1 else None,
        seeds=len(values),
        protocol=dict(protocol),
        per_seed={str(seed): value for seed, value in sorted(own.items())},
        **against,
    )


def _holm(rows: list[Row]) -> list[Row]:
    """The rows with p adjusted over all of them."""
    judged = [p for p, row in enumerate(rows) if row.accuracy is not None and row.accuracy.p_value is not None]
    adjusted = holm([rows[p].accuracy.p_value or 0.0 for p in judged])  # type: ignore[union-attr]
    for place, p in zip(judged, adjusted):
        accuracy = rows[place].accuracy
        if accuracy is not None:
            rows[place] = replace(rows[place], accuracy=replace(accuracy, p_holm=p))
    return rows
