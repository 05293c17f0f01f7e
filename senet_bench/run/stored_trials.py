"""The results of trials that are stored already, each read once in a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from senet_bench.core.learning import TrialResult
from senet_bench.core.store import TrialStore

if TYPE_CHECKING:
    from senet_bench.core.trial import Trial
    from senet_bench.training.identity import Former


@dataclass(frozen=True, slots=True)
class StoredTrials:
    """The trials in a store, and those of earlier versions that are trials of the same."""

    kept: TrialStore
    before: Former
    read: dict[str, TrialResult] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: TrialStore) -> Self:
        """Those of a store."""
        from senet_bench.training.identity import former

        return cls(kept, former(kept))

    def result(self, trial: Trial, key: str) -> TrialResult | None:
        """The result of a trial by its key; None where there is none, which is looked for again the next time."""
        if key not in self.read:
            result = self.kept.get(key) or self.before.result(trial)
            if result is None:
                return None
            self.read[key] = result
        return self.read[key]
