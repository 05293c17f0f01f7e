"""What a command or a results folder has to say, for Python and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from senet_bench.core.progress import Steps, result_of

if TYPE_CHECKING:
    import pandas as pd

    from senet_bench.core.results import Row
    from senet_bench.core.union import Ablation, Errors, Timed
    from senet_bench.run.record import Record
    from senet_bench.show.tables import Document, Table

Outcome = TypeVar("Outcome")


class Watch(Protocol):
    """Who is told how far a function is."""

    def follow(self, steps: Steps[Outcome], *, in_lines: bool = False) -> Outcome:
        """The result of some steps, run to their end; told of in lines where no bar can be drawn, if `in_lines`."""

    def remark(self, text: str) -> None:
        """Take what is said beside the result."""


class Unwatched:
    """Tells nobody."""

    def follow(self, steps: Steps[Outcome], *, in_lines: bool = False) -> Outcome:
        """The result, with no progress drawn."""
        return result_of(steps)

    def remark(self, text: str) -> None:
        """Nothing is said."""


UNWATCHED = Unwatched()


@dataclass(frozen=True, slots=True)
class ResultTables:
    """Tables with their flat records."""

    tables: tuple[Table, ...]
    records: tuple[Mapping[str, Any], ...] = field(repr=False)

    def to_pandas(self) -> pd.DataFrame:
        """A line for each row, in plain units: counts, seconds, bytes, errors as fractions.

        A network that was timed under several conditions has a line for each of them.
        """
        import pandas as pd

        return pd.DataFrame(list(self.records))

    def _repr_html_(self) -> str:
        """The tables with their notes, for a notebook."""
        from senet_bench.show.writers import html_tables

        return html_tables(self.tables)

    def __str__(self) -> str:
        """The tables with their notes, as Markdown."""
        from senet_bench.show.writers import markdown

        return markdown(self.tables)


@dataclass(frozen=True, slots=True, repr=False)
class Result(ResultTables):
    """What a command measured.

    `rows` are typed (`senet_bench.core.results.Row` of compare and ablate): counts, seconds, errors as fractions with
    their intervals. `document` is all that the command line prints, `path` where the run is stored, `failures` what
    could not be measured.
    """

    document: Document
    path: Path | None = None
    failures: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: Document, record: Record[Any] | None = None) -> Result:
        """A document, and the run that it shows where one is stored."""
        path, failures = (record.path, tuple(record.failures)) if record else (None, ())
        return cls(document.wide, document.records, document, path, failures)

    @property
    def rows(self) -> Sequence[Any]:
        """The typed rows."""
        json = self.document.json
        return tuple(json.get("rows", ()) if isinstance(json, Mapping) else getattr(json, "rows", ()))

    @property
    def summary(self) -> Any:
        """What is said of all rows together: of `train` the errors at the end and the file of the weights."""
        return getattr(self.document.json, "summary", None)

    @property
    def fits(self) -> Sequence[Mapping[str, Any]]:
        """What fits an overhead that was asked for: the `verdict` of the JSON; nothing where none was asked for."""
        return tuple(self.document.more.get("verdict", ()))

    def __repr__(self) -> str:
        """How many rows there are, and where they are stored."""
        stored = f", stored in {self.path}" if self.path else ""
        return f"<{len(self.rows)} rows{stored}{f', {len(self.failures)} failed' if self.failures else ''}>"


@dataclass(frozen=True, slots=True, repr=False)
class Stored(ResultTables):
    """A results folder: the rows of all runs together.

    `rows` has the newest row of every network, `errors` those of each protocol joined over all runs, `timings` those of
    each machine and conditions, `ablations` those of each network and axes; `left_out` names files that cannot be read.
    """

    rows: tuple[Row, ...]
    errors: tuple[Errors, ...]
    timings: tuple[Timed, ...]
    ablations: tuple[Ablation, ...]
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """How many rows and tables there are."""
        return f"<{len(self.rows)} networks, {len(self.errors)} protocols of errors, {len(self.timings)} of times>"
