"""The command `excitations`."""

from __future__ import annotations

from senet_bench.api import excitation
from senet_bench.cli.functions import shown_result
from senet_bench.cli.showing import Showing


def _more(result: excitation.Observed, showing: Showing) -> None:
    """Which tables and plots were written."""
    for path in result.written:
        showing.remark(str(path))


excitations = shown_result(excitation.excitations, _more)
