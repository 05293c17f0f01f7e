"""The error of a run's rows: every network trained with the same seeds, each trial a stored fact of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from senet_bench.core.blocks import learns
from senet_bench.core.datasets import DATASETS, EACH_OF_THE_PAPER, EMBEDDED
from senet_bench.core.files import kind_of_path
from senet_bench.core.identity import REVISION, Data
from senet_bench.core.learning import TrialResult
from senet_bench.core.progress import Steps
from senet_bench.core.results import Run, RunConditions, Seeding, TrainingProtocol
from senet_bench.core.sequential import Stopping
from senet_bench.core.specs import ModelSpec, Precision
from senet_bench.core.store import Store, key_of
from senet_bench.core.studies import STUDIES, Study
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.run.apart import all_answered, answer
from senet_bench.run.cases import Case, Changes
from senet_bench.run.claims import Claimed, InProgress, watched
from senet_bench.run.engines import Engine, Failure, Left
from senet_bench.run.moments import listed_moments, moments_of
from senet_bench.run.outcomes import Outcomes, enough_seeds, error_pairs, with_errors
from senet_bench.run.record import Record, environment, header
from senet_bench.run.seen_data import check_unchanged
from senet_bench.run.slurm_queue import withdrawn
from senet_bench.run.sources import with_sources
from senet_bench.run.stored_trials import StoredTrials
from senet_bench.run.trial_job import run_trial

if TYPE_CHECKING:
    from senet_bench.core.recipes import Recipe
    from senet_bench.core.trial import Trial


def root_name(case: Case) -> str:
    """The network without attention that a case belongs to; those of one root are compared, and trained alike."""
    return (case.baseline or case.spec).name


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What every network is trained and tested on: `seeds` runs each, or the share `shard` (i of n) of them all.

    With `keep_weights` every trained network is left in a file; what is stored is taken unless it is to be `fresh`.
    `processes` train each trial together. Networks start from `weights` where there are any, and train their
    attention blocks alone in the `blocks_first` epochs. With `stopping` seeds are added until the differences are
    known, `seeds` at most; then `stops` says after how many a case has enough, and seeds below `begun` belong to an
    earlier look.
    """

    engine: Engine
    dataset: str = "digits"
    folder: Path | None = None
    recipe: str | None = None
    epochs: int | None = None
    lr: float | None = None
    seeds: int = 8
    precision: Precision = "fp32"
    device: str = "cpu"
    shard: tuple[int, int] = (1, 1)
    keep_weights: bool = False
    fresh: bool = False
    processes: int = 1
    weights: str | None = None
    blocks_first: int = 0
    stopping: Stopping | None = None
    stops: Mapping[int, int] = field(default_factory=dict)
    begun: int = 0

    def check(self, cases: Sequence[Case]) -> None:
        """Raise `UsageError` on a data set, recipe, network or number that cannot be trained with.

        What a data set holds is read anew for each sweep: a session of Python may have changed it since the last.
        """
        from senet_bench.training.identity import data_of

        data_of.cache_clear()
        detector = next((case.spec.name for case in cases if case.spec.task == "detection"), None)
        if detector:
            raise UsageError(
                f"{detector} is a detector, which is not trained over many seeds here",
                f"leave out --dataset, and use `train {detector} --dataset coco`, then `evaluate`",
            )
        if self.seeds < 1:
            raise UsageError(f"--seeds must be a positive integer, not {self.seeds}", "use 8")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(f"--shard {self.shard[0]}/{self.shard[1]} is no share", "use 1/4 to 4/4")
        if self.stopping is not None and self.shard != (1, 1):
            raise UsageError("--seeds auto decides by the trials of all shares", "leave out --shard, or give a number")
        lessons = self.asked(cases)
        self._check_finetuning(cases, lessons)
        self.engine.check(self.device)
        for dataset in dict.fromkeys(dataset for dataset, _ in lessons):
            batches = (recipe.batch_size for name, recipe in lessons if name == dataset and self.processes > 1)
            answer(check_images, dataset, self.folder, tuple(dict.fromkeys(batches)), self.processes)

    def _check_finetuning(self, cases: Sequence[Case], lessons: Sequence[tuple[str, Recipe]]) -> None:
        """Raise `UsageError` on weights without a recipe for them or the reverse, and on weights that do not fit."""
        from senet_bench.core.recipes import is_finetune
        from senet_bench.run.training import check_blocks_first

        if not lessons:
            return
        recipe = lessons[0][1]
        if is_finetune(recipe.name) and self.weights is None:
            raise UsageError("--recipe finetune starts from trained weights, and none are given", "add --weights FILE")
        if self.weights is not None and not is_finetune(recipe.name):
            raise UsageError(f"--recipe {recipe.name} is not for networks that are trained already", "use finetune")
        check_blocks_first(
            self.blocks_first, recipe.epochs, [case.spec for case in cases], finetunes=self.weights is not None
        )
        if self.weights is None:
            return
        for case, (name, _) in zip(cases, lessons):
            answer(check_start, case.spec, name, self.folder, self._weights_of(case.spec), self.seeds)

    def _weights_of(self, spec: ModelSpec) -> str | None:
        """The weights that a network starts from, a file by its whole path; None where it starts from none."""
        if self.weights is None:
            return None
        file = Path(self.weights).expanduser()
        return str(file.absolute()) if kind_of_path(file) == "file" else answer(named_weights, spec, self.weights)

    def lessons(self, cases: Sequence[Case]) -> list[tuple[str, Recipe]]:
        """The data set of each case and the recipe that it is trained by there, at a batch that the images fill."""
        data = self._data(cases)
        return [(name, self._rated(recipe.filled(data[name].train))) for name, recipe in self.asked(cases)]

    def asked(self, cases: Sequence[Case]) -> list[tuple[str, Recipe]]:
        """The data set and the recipe of each case: those asked for, else those of its row in the paper's table.

        A case that no table of this data set names, nor one of its relatives, has the data set's own recipe.
        """
        from senet_bench.core import recipes

        own = dict[tuple[str, int], Study]()
        for case in cases:
            for study in filter(None, (STUDIES.get(name or "") for name in case.studies)):
                if self.dataset in (study.dataset, EACH_OF_THE_PAPER):
                    own.setdefault((root_name(case), case.spec.classes), study)
        lessons = []
        for case in cases:
            table = own.get((root_name(case), case.spec.classes))
            if table is not None:
                lessons.append((table.dataset, self._resolved(table.recipe_of(root_name(case)))))
            elif self.dataset == EACH_OF_THE_PAPER:
                raise UsageError(f"--dataset {EACH_OF_THE_PAPER} is for the paper's tables", "name table4, table5, ...")
            else:
                lessons.append((self.dataset, self._resolved(recipes.DEFAULTS.get(self.dataset, "cifar"))))
        return lessons

    def protocols(self, cases: Sequence[Case]) -> list[TrainingProtocol]:
        """What decides whether the errors of two cases may be compared."""
        protocols = [self.protocol(lesson) for lesson in self.lessons(cases)]
        return [replace(one, seeds=self.stops.get(place, self.seeds)) for place, one in enumerate(protocols)]

    def _resolved(self, own: str) -> Recipe:
        """A recipe with its epochs and learning rate as asked; `own` where none is."""
        from senet_bench.core import recipes

        recipe = recipes.recipe(self.recipe or (own if self.weights is None else recipes.FINETUNE), own)
        recipe = recipe.lasting(self.epochs)
        if self.lr is not None and not 0 < self.lr < 100:
            raise UsageError(f"a learning rate of {self.lr:g} cannot be trained with", "use 0.1")
        return self._rated(recipe)

    def _rated(self, recipe: Recipe) -> Recipe:
        """The recipe with the learning rate that was asked for, if one was."""
        return recipe if self.lr is None else replace(recipe, lr=self.lr)

    def fitted(self, changes: Changes) -> Changes:
        """The changes with the data set's image size, channels and classes; `UsageError` where others were asked."""
        if changes.input_size is not None:
            raise UsageError("--input-size is for counts and times", "leave it out with --dataset, or use --img-size")
        row = DATASETS.get(self.dataset)  # what is unknown, or for another task, is refused by `check`
        own = {"img_size": row.side, "in_channels": row.channels, "classes": row.classes} if row else {}
        fixed: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        for name, value in fixed.items():
            if getattr(changes, name) not in (None, value):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} is {value} on {self.dataset}, not {getattr(changes, name)}", "leave it out")
        return replace(changes, **fixed, pretrained=self.weights)

    def described(self, conditions: RunConditions, cases: Sequence[Case]) -> RunConditions:
        """What the run was asked, with the plan of its trainings."""
        from senet_bench.core.recipes import smaller_batch

        lessons = self.lessons(cases)
        both = zip(lessons, self.asked(cases))
        smaller = [f"{name}: {said}" for (name, used), (_, asked) in both for said in smaller_batch(asked, used)]
        told = list(dict.fromkeys(smaller)) or None
        return structs.replace(conditions, accuracy=self.protocol(*lessons), smaller_batches=told)

    def protocol(self, *lessons: tuple[str, Recipe]) -> TrainingProtocol:
        """What decides whether two errors may be compared; of several lessons what all of them have."""
        sets, recipes = {dataset for dataset, _ in lessons}, [recipe for _, recipe in lessons]
        dataset = sets.pop() if len(sets) == 1 else self.dataset
        shared = {
            name: getattr(recipes[0], name) if len({getattr(recipe, name) for recipe in recipes}) == 1 else None
            for name in ("epochs", "lr", "batch_size")
        }
        return TrainingProtocol(
            dataset=dataset,
            folder=self._place,
            data=None if dataset in (EACH_OF_THE_PAPER, *EMBEDDED) else self._data_of(dataset).digest,
            recipe=recipes[0].name + self._from if len({recipe.name for recipe in recipes}) == 1 else None,
            seeds=self.seeds,
            precision=self.precision,
            revision=REVISION,
            **shared,
        )

    @property
    def _from(self) -> str:
        """What stands behind a recipe's name where networks start from weights: errors from others are others."""
        if self.weights is None:
            return ""
        from senet_bench.training.identity import named_start

        first = f"-blocks-first-{self.blocks_first}" if self.blocks_first else ""
        return f"{first}-from-{named_start(self.weights)}"

    @property
    def _place(self) -> str | None:
        return str(self.folder) if self.folder else None

    def plan(self, cases: Sequence[Case]) -> list[Trial]:
        """Every case with every seed, seed by seed; the arm of a trial is the place of its case."""
        from senet_bench.core.trial import Trial

        arms = [
            partial(
                Trial,
                arm=str(place),
                spec=case.spec,
                recipe=recipe,
                dataset=dataset,
                folder=self._place,
                precision=self.precision,
                device=self.device,
                processes=self.processes,
                pretrained=self._weights_of(case.spec),
                blocks_first=self.blocks_first if learns(case.spec.attention) else 0,
            )
            for place, (case, (dataset, recipe)) in enumerate(zip(cases, self.lessons(cases)))
        ]
        stops = [self.stops.get(place, self.seeds) for place in range(len(cases))]
        return [arm(seed=seed) for seed in range(self.seeds) for arm, stop in zip(arms, stops) if seed < stop]

    def share(self, cases: Sequence[Case]) -> list[Trial]:
        """The trials that are in this share."""
        return self._shared(self.plan(cases))

    def _shared(self, planned: list[Trial]) -> list[Trial]:
        return planned[self.shard[0] - 1 :: self.shard[1]]

    def steps(self, cases: Sequence[Case]) -> int:
        """How many trials that makes."""
        return len(cases) * self.seeds

    def run(self, cases: Sequence[Case], record: Record[Run]) -> Steps[None]:
        """Fill in the rows' errors as trials end; what is stored is not run again."""
        stored = StoredTrials.of(record.store.trials(answer(environment).machine))
        if self.stopping is None:
            yield from self._run(cases, record, stored)
            return
        known: dict[int, Seeding] = {}
        sweep, outcomes = self, Outcomes()
        for look, seeds in enumerate(self.stopping.looks):
            sweep = replace(sweep, seeds=seeds, begun=sweep.seeds if look else 0)
            outcomes = yield from sweep._run(cases, record, stored, outcomes.failed)
            rows = record.document.rows
            known = self.stopping.judged(look, error_pairs(rows), known)
            record.change(rows=[replace(row, seeding=known.get(place)) for place, row in enumerate(rows)])
            sweep = replace(sweep, stops=enough_seeds(rows, known, outcomes, seeds))
            if outcomes.left or len(sweep.stops) == len(rows):
                break

    def _run(
        self,
        cases: Sequence[Case],
        record: Record[Run],
        stored: StoredTrials,
        failed_before: Mapping[int, str] | None = None,
    ) -> Steps[Outcomes]:
        """One look: the trials that it adds; those that failed at an earlier one are not run again, nor told again."""
        about = {key: value for key, value in header("trial", {}).items() if key != "schema"}
        kept = stored.kept
        for data in self._data(cases).values():
            check_unchanged(kept, self.folder, data, fresh=self.fresh)
        rows, planned = record.document.rows, self.plan(cases)
        total = len(planned)
        failures = failed_before or {}
        outcomes = Outcomes(total=total, failed=dict(failures))
        todo = self._todo(cases, planned, record.store, stored, outcomes)
        if self.fresh:
            kept = replace(kept, runs=None)  # what another machine has of them is not taken either
            withdrawn(filter(None, [kept.forget(claimed.key) for claimed in todo]))
            for claimed in todo:
                stored.train_anew(claimed.key)
        function = with_sources(self.engine, run_trial, (claimed.trial.spec for claimed in todo))
        if self.engine.remote:
            all_answered()
        yield from self._trained(watched(self.engine, kept, function, todo, about), record, outcomes, total - len(todo))
        record.failures += [f"{rows[arm].label}: {why}" for arm, why in outcomes.failed.items() if arm not in failures]
        record.failures += [
            f"{rows[arm].label}: no weights of seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}, "
            "stored before without them; --fresh trains again"
            for arm, seeds in outcomes.unkept.items()
        ]
        record.change(rows=with_errors(rows, outcomes, self.protocols(cases)))
        if todo and stored.before.left_out:
            conditions = structs.replace(record.document.conditions, trials_left_out=stored.before.left_out)
            record.change(conditions=conditions)
        yield record.progress("done", total, total)
        return outcomes

    def _trained(
        self,
        moments: Iterator[tuple[Trial, TrialResult | Failure | Left] | InProgress[Trial]],
        record: Record[Run],
        outcomes: Outcomes,
        done: int,
    ) -> Steps[None]:
        """Take down how trials end, `done` of which have before; what ends all of them says how many are stored."""
        rows, total, failed, at_once = record.document.rows, outcomes.total, 0, self.engine.at_a_time() or 1
        try:
            for moment in moments:
                if isinstance(moment, InProgress):
                    now = moments_of(moment.trials)
                    what = moment.busy.text(listed_moments(now, rows)) + (f", {failed} failed" if failed else "")
                    yield record.progress(what, done + sum(one.done for one in now.values()), total)
                    continue
                trial, outcome = moment
                outcomes.add(trial, outcome)
                if isinstance(outcome, Left):
                    continue
                if isinstance(outcome, TrialResult) and trial.weights is not None and not trial.weights.is_file():
                    unseen = f"{trial.weights} is not here: who trained seed {trial.seed} does not share this folder"
                    record.failures.append(f"{rows[int(trial.arm)].label}: {unseen}")
                done, failed = done + 1, failed + isinstance(outcome, Failure)
                trained = f"seed {trial.seed} of {rows[int(trial.arm)].label}"
                state = f"{min(at_once, total - done)} running" + (f", {failed} failed" if failed else "")
                yield record.progress(f"{trained}; {state}", done, total)
        except MeasurementError as error:
            raise MeasurementError(
                f"{error.problem}; {done - failed} of {total} trials are stored", error.remedy
            ) from error

    def _todo(
        self, cases: Sequence[Case], planned: list[Trial], store: Store, stored: StoredTrials, outcomes: Outcomes
    ) -> list[Claimed[Trial]]:
        """The trials of this share that are to be run; the outcomes of those that are stored are taken down."""
        mine = {id(trial) for trial in self._shared(planned)}
        todo: list[Claimed[Trial]] = []
        definition = partial(trial_definition, data=self._data(cases))
        for trial in planned:
            key = key_of(definition(trial))
            to_run = id(trial) in mine and trial.seed >= self.begun
            name = trial.spec.name, trial.dataset, trial.recipe.name, key
            weights = store.trained_weights(*name).absolute() if self.keep_weights else None
            if not (self.fresh and to_run) and (result := stored.result(trial, key)) is not None:
                outcomes.add(trial, result)
                if weights is not None and to_run and not weights.is_file():
                    outcomes.unkept.setdefault(int(trial.arm), []).append(trial.seed)
            elif to_run:
                folder = str(self.folder.expanduser().absolute()) if self.folder else None
                own = replace(trial, folder=folder, checkpoint=stored.kept.checkpoint(key).absolute(), weights=weights)
                todo.append(Claimed(key, own, definition))
        return todo

    def _data(self, cases: Sequence[Case]) -> dict[str, Data]:
        """What is in each data set."""
        return {dataset: self._data_of(dataset) for dataset, _ in self.asked(cases)}

    def _data_of(self, dataset: str) -> Data:
        """What is in a data set."""
        from senet_bench.training.identity import data_of

        return answer(data_of, dataset, self._place)


def check_start(spec: ModelSpec, dataset: str, folder: Path | None, weights: str | None, seeds: int) -> None:
    """Raise `UsageError` on weights that a network cannot start its training from, with one of so many seeds."""
    from senet_bench.data import sets
    from senet_bench.training.start import start_of_training
    from senet_bench.training.weights import check_draw

    if weights is not None:
        check_draw(weights, dataset, range(seeds))
    start_of_training(spec, sets.load_images(dataset, folder).seen_at(spec.input_size[1]), 0, weights)


def named_weights(spec: ModelSpec, weights: str) -> str:
    """Weights of a library by the name that they have there; `UsageError` where they are another network's."""
    from senet_bench.training.start import own_weights

    return own_weights(spec, weights)


def check_images(dataset: str, folder: Path | None, batches: Sequence[int], processes: int) -> None:
    """Raise `UsageError` on data that cannot be read, or batches that so many processes cannot share."""
    from senet_bench.data import sets
    from senet_bench.data.batches import check_shared

    images = sets.load_images(dataset, folder)
    for batch in batches:
        check_shared(min(batch, len(images.training())), processes)


def trial_definition(trial: Trial, data: Mapping[str, Data] | None = None) -> dict[str, Any]:
    """What decides a trial's result, and so its key; data sets that are not given by name are read."""
    from senet_bench.training.identity import definition_of

    return definition_of(trial, (data or {}).get(trial.dataset))
