"""Commands that are a function of Python and no more: its options, then how what it returns is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from senet_bench.api import comparison, evaluation, probing, profiling, training
from senet_bench.api.result import Result
from senet_bench.api.tables import TableOptions
from senet_bench.cli.showing import Showing
from senet_bench.errors import MeasurementError

OUR_PARAMETERS = ("results", "watch")
"""Parameters of a function that the options of showing fill."""


def shown_result(
    function: Callable[..., Result], more: Callable[[Any, Showing], None] | None = None
) -> Callable[..., None]:
    """The command of a function; what could not be measured ends it with exit code 5, after the rest is shown.

    `more` says what is to be said beside the tables, and may end the command.
    """

    def command(*, showing: Showing, **options: Any) -> None:
        from senet_bench.show import terminal

        showing.check()
        result = function(**options, results=showing.results, watch=showing)
        if not terminal.is_first_process():  # of a torchrun job
            return
        showing.emit(result.document)
        tables = options.get("tables")
        if isinstance(tables, TableOptions) and (said := tables.unheeded(result.document, showing.format)):
            showing.remark(said)
        if result.path:
            showing.stored(result.path)
        if more is not None:
            more(result, showing)
        if result.failures:
            others = f", and {len(result.failures) - 1} more" * (len(result.failures) > 1)
            raise MeasurementError(f"not measured: {result.failures[0]}{others}")

    hints = get_type_hints(function, include_extras=True)
    own = [one for name, one in inspect.signature(function).parameters.items() if name not in OUR_PARAMETERS]
    keyed = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    showing = inspect.Parameter("showing", inspect.Parameter.KEYWORD_ONLY, default=Showing())
    command.__signature__ = inspect.Signature([*keyed, showing])  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: hints[one.name] for one in own} | {"showing": Showing}
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    return command


compare = shown_result(comparison.compare)
ablate = shown_result(comparison.ablate)
train = shown_result(training.train)
evaluate = shown_result(evaluation.evaluate)
probe = shown_result(probing.probe)
profile = shown_result(profiling.profile)
