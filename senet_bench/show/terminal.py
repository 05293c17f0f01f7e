"""The terminal: tables and progress by Rich. Progress and remarks go to stderr, results to stdout."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from senet_bench.core.foreign import streams_kept
from senet_bench.core.progress import Progress, Result, Steps
from senet_bench.errors import InterruptedRunError
from senet_bench.show.tables import Cell, Document, Table, in_parts

STYLES = {"match": "green", "near": "yellow", "differs": "red", "not reproduced": "magenta", "not measured": "dim"}
STYLES |= {
    "pass": "green",
    "fail": "bold red",
    "error": "bold red",
    "inconclusive": "yellow",
    "not comparable": "yellow",
}
PIPED_WIDTH = 1000
BETWEEN_DRAWINGS_S = 0.2
BETWEEN_LINES_S = 15


def show(document: Document) -> None:
    """Print a document's tables with their notes, each in its narrow form where the wide one does not fit.

    What does not fit even then is printed in parts, some columns after the other, beside the first column.
    """
    terminal = sys.stdout.isatty()
    console = _Console(highlight=False, emoji=False, width=None if terminal else piped_width())
    if terminal:
        _show(document, console)
        return
    with console.capture() as captured:
        _show(document, console, wrapped=console.width < PIPED_WIDTH)
    print_text("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def piped_width() -> int:
    """How wide a table may be that no terminal shows: as `COLUMNS` says, else without end."""
    typed = os.environ.get("COLUMNS", "")
    return int(typed) if typed.isascii() and typed.isdigit() and 0 < int(typed) < PIPED_WIDTH else PIPED_WIDTH


def _show(document: Document, console: Console, *, wrapped: bool = True) -> None:
    """Print the tables of a document; notes are `wrapped`, or each a line of its own where nothing says how wide."""
    unlimited = console.options.update(width=PIPED_WIDTH)
    for wide, narrow in zip(document.wide, document.narrow):
        table, whole = wide, _rich(wide)
        if Measurement.get(console, unlimited, whole).maximum <= console.width:
            console.print(whole)
        else:
            table = narrow
            for part in in_parts(narrow, partial(_fits, narrow, console)):
                console.print(_rich(part))
        for note in table.notes:
            if wrapped:
                console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))
            else:
                console.print(f"  {note}", soft_wrap=True, markup=False)
        console.print()


def remark(text: str, *, quiet: bool = False) -> None:
    """Print one remark to stderr."""
    if not quiet:
        Console(stderr=True, highlight=False).print(Text(text, style="dim"), soft_wrap=True)


def is_first_process() -> bool:
    """Whether this process speaks for its torchrun job; True outside one."""
    return os.environ.get("RANK", "0") == "0"


def print_text(text: str) -> None:
    """Print a machine format to stdout as it is."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _say_no_more()


def _say_no_more() -> None:
    """Let what is still printed go nowhere: who reads the standard output has read enough, as `head` does."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class _Console(Console):
    """A console whose reader may leave, which changes no exit code."""

    def on_broken_pipe(self) -> None:
        """Print nothing more."""
        self.quiet = True
        _say_no_more()


def run_steps(steps: Steps[Result], *, quiet: bool = False, in_lines: bool = False) -> Result:
    """Draw the progress of a command to its end, and return its result; nothing is drawn when `quiet`.

    Where stderr is no terminal, progress is a line every 15 seconds in a CI (its variable `CI` is set), under torchrun,
    and where it is wanted `in_lines`. Ctrl-C becomes an `InterruptedRunError` that says what is saved.
    """
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    last: Progress | None = None
    drawn = not quiet and sys.stderr.isatty() and is_first_process()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False, emoji=False, quiet=not drawn)
    try:
        with Bar(*columns, console=console, transient=True, auto_refresh=False, disable=not drawn) as bar:
            task, shown = bar.add_task("starting", total=None), 0.0  # no thread beside a timing
            in_lines = in_lines or bool(os.environ.get("CI") or os.environ.get("RANK"))
            plain = _Plain() if in_lines and is_first_process() and not (quiet or drawn) else None
            while True:
                try:
                    with streams_kept():
                        last = next(steps)
                except StopIteration as end:
                    result: Result = end.value
                    return result
                if plain:
                    plain.tell(last)
                bar.update(task, total=last.total, completed=last.done, description=last.what)
                if time.monotonic() - shown > BETWEEN_DRAWINGS_S:
                    bar.refresh()
                    shown = time.monotonic()
    except KeyboardInterrupt as error:
        reason = f"{error}; " if str(error) else ""
        raise InterruptedRunError(f"interrupted; {reason}{_saved(last)}", last.remedy if last else "") from error


class _Plain:
    """Progress in lines for a log: what begins with a new word at once, else every 15 seconds."""

    def __init__(self) -> None:
        self.began = self.told = time.monotonic()

    def tell(self, moment: Progress) -> None:
        """Print a line where one is due."""
        now = time.monotonic()
        if now - self.told < BETWEEN_LINES_S and not moment.forecast:
            return
        self.told = now
        done = f" ({moment.done:.3g} of {moment.total:.3g})" if not moment.forecast else ""
        sys.stderr.write(f"senet-bench: {now - self.began:.0f} s: {moment.what}{done}\n")
        sys.stderr.flush()


def _saved(last: Progress | None) -> str:
    if last is None or last.path is None:
        return "nothing was judged or stored" if last else "nothing was finished"
    return f"{int(last.done)} of {int(last.total)} steps are saved in {last.path}"


def _fits(table: Table, console: Console, chosen: Sequence[int]) -> bool:
    """Whether some columns of a table fit, by their places."""
    return _least(table.of_columns(chosen), console) <= console.width


def _least(table: Table, console: Console) -> int:
    """The width below which a number or a word of a table would be broken."""
    return Measurement.get(console, console.options.update(width=PIPED_WIDTH), _rich(table)).minimum


def _rich(table: Table) -> RichTable:
    rich = RichTable(
        title=Text(table.title, style="bold"), title_justify="left", box=None, pad_edge=False, padding=(0, 1)
    )
    for index, column in enumerate(table.columns):
        heading = f"{column.group}\n{column.name}" if any(c.group for c in table.columns) else column.name
        previous = table.columns[index - 1].group if index else None
        if column.group and column.group == previous:
            heading = f"\n{column.name}"
        whole = index == 0 or column.numeric
        rich.add_column(
            Text(heading),
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=whole,
            min_width=_unbroken([heading, *(row[index] for row in table.texts)], whole),
            style=STYLES.get(column.status, ""),
        )
    for row in table.rows:
        rich.add_row(*map(_styled, row))
    return rich


def _unbroken(cells: Iterable[str], whole: bool) -> int:
    """The width of the longest line of some cells, or of the longest word where they may be broken."""
    parts = (part for cell in cells for part in (cell.splitlines() if whole else cell.split()))
    return max(map(cell_len, parts), default=0)


def _styled(cell: str | Cell) -> Text:
    return Text(str(cell), style=STYLES.get(cell.status, "") if isinstance(cell, Cell) else "")
