"""The command `freeze`."""

from __future__ import annotations

import typer

from senet_bench.api import freezing
from senet_bench.cli.functions import shown_result
from senet_bench.cli.showing import Showing

NOT_SHOWN = 3


def _more(result: freezing.Frozen, showing: Showing) -> None:
    """Where the weights are; exit code 3 where their loss is not shown to be small."""
    if result.file is not None:
        showing.remark(f"weights in {result.file}")
        if not result.shown:
            raise typer.Exit(NOT_SHOWN)


freeze = shown_result(freezing.freeze, _more)
