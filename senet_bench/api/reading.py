"""Options of what is read from stored results, loaded without any others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("results")
Results = Annotated[Path, typer.Option("--results", help="The results folder.")]
Against = Annotated[
    str | None,
    typer.Option("--against", help="The row that errors, times and counts are compared with: se, a label, a network."),
]
AnyProtocol = Annotated[
    bool,
    typer.Option("--any-protocol", help="Errors measured by another protocol beside the paper's too, marked so."),
]
