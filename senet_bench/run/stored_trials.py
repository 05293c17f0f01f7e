"""The results of trials that are stored already, each read once in a run."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from senet_bench.core.learning import TrialResult
from senet_bench.core.store import TrialStore, result_in
from senet_bench.errors import BenchError

if TYPE_CHECKING:
    from senet_bench.core.trial import Trial
    from senet_bench.training.identity import Former


@dataclass(frozen=True, slots=True)
class StoredTrials:
    """The trials in a store, and those of earlier versions that are trials of the same.

    Of those that are trained `anew` only what this machine stores from then on counts.
    """

    kept: TrialStore
    before: Former
    read: dict[str, TrialResult] = field(default_factory=dict)
    anew: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, kept: TrialStore) -> Self:
        """Those of a store, all read at once; one that is damaged is told of where it is asked for by its key."""
        from senet_bench.training.identity import former, may_be_former

        read, earlier = dict[str, TrialResult](), list[tuple[Path, bytes]]()
        for path, text in kept.texts():
            if may_be_former(text):
                earlier.append((path, text))
            elif path.stem not in read or path.parent == kept.folder:
                with contextlib.suppress(BenchError):
                    read[path.stem] = result_in(text, path)
        return cls(kept, former(earlier), read)

    def train_anew(self, key: str) -> None:
        """Let no earlier result of a trial count."""
        self.read.pop(key, None)
        self.anew.add(key)

    def result(self, trial: Trial, key: str) -> TrialResult | None:
        """The result of a trial by its key; None where there is none, which is looked for again the next time."""
        if key not in self.read:
            if key in self.anew:
                result = replace(self.kept, runs=None).get(key)
            else:
                result = self.kept.get(key) or self.before.result(trial)
            if result is None:
                return None
            self.read[key] = result
        return self.read[key]
