r"""Tables as LaTeX that fits its columns: booktabs rules, notes inside the float, parts of a table that is too wide.

What a file needs stands in its first line; `table*` spans both columns of a page that has two.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from senet_bench.core.files import file_name
from senet_bench.show import siunitx
from senet_bench.show.tables import Table, in_parts

PREAMBLE = r"\usepackage[T1]{fontenc}\usepackage{array,booktabs,threeparttable}"
ONE_COLUMN, TWO_COLUMNS = 240.0, 340.0
"""Widths in points that a table may take: a column of two, and the text of LaTeX's article, the narrowest of pages."""
LETTER, BETWEEN = 4.45, 6.0
"""How wide a letter is in footnotesize, on average and a little more, and the room between columns."""
BREAK, APART = "\u200b", "\u200c"
LONG = 24
LONG_WORD = re.compile(rf"\S{{{LONG},}}")
NAME, HEADING = 30, 12
"""Letters of a line of a name, and of a heading whose column has shorter cells."""
_ESCAPES = {char: f"\\{char}" for char in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_ESCAPES |= {"\\": r"\textbackslash{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_ESCAPES |= {
    '"': r"\textquotedbl{}",
    "Δ": r"$\Delta$",
    "→": r"$\to$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "†": r"$\dagger$",
    BREAK: r"\allowbreak{}",
    APART: "{}",
}
_ESCAPES |= {
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "·": r"$\cdot$",
}
_ESCAPES |= {"’": "'", "‘": "`", "“": "``", "”": "''", "✓": r"$\surd$", "✗": r"$\times$", "²": "$^2$"}


class _Commands(dict[int, str]):
    """What LaTeX sets for each character, by its code; filled as characters come."""

    def __missing__(self, code: int) -> str:
        """A character that is in no table: itself, or a question mark where the font has none."""
        char = chr(code)
        self[code] = char if char == "\n" or (char.isprintable() and code < 256) else "?"
        return self[code]


_COMMANDS = _Commands({ord(char): command for char, command in _ESCAPES.items()})
_BREAKS = {
    mark: (re.compile(rf"(?<=\w){re.escape(mark)}(?=[A-Za-z\\])"), f"{mark}\\allowbreak{{}}".replace("\\", r"\\"))
    for mark in (r"\_", "/", ":", ".")
}
"""What a long name may be broken behind, where that is, and what stands there then."""
_JOINED = re.compile(r"([-`',])(?=\1)|[?!](?=`)")
"""Characters that LaTeX joins with the next one into another."""
_NUMBERS = re.compile(r"[0-9 +,.()\[\]e-]*")
"""Cells that LaTeX sets as they are."""


def latex(tables: Sequence[Table], narrow: Sequence[Table] = (), *, aligned: bool = False) -> str:
    """One float or more for each table, in its narrow form where the wide one does not fit the text.

    With `aligned` columns of numbers are those of siunitx.
    """
    parts = [f"% {PREAMBLE}{siunitx.USE_PACKAGE * aligned}\n"]
    for place, table in enumerate(tables):
        small = narrow[place] if len(narrow) == len(tables) and width(table) > TWO_COLUMNS else table
        pieces = list(fitting(small, TWO_COLUMNS))
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            label = f"tab:{file_name(table.title)}" + (f"-{number + 1}" if number else "")
            more = f" (part {number + 1} of {len(pieces)})" if len(pieces) > 1 else ""
            parts.append("\n".join(_float(piece, f"{piece.title}{more}", label, last, aligned)) + "\n")
    return "\n".join(parts)


def escaped(text: str) -> str:
    """Text as LaTeX sets it; a character outside Latin-1 that has no command is a question mark.

    What LaTeX would join is kept apart: two hyphens of an option are no dash.
    """
    return _JOINED.sub(_apart, text).translate(_COMMANDS)


def _apart(match: re.Match[str]) -> str:
    return f"{match[0]}{APART}"


def width(table: Table, chosen: Sequence[int] | None = None) -> float:
    """About how wide a table is set, in points, or some of its columns by their places."""
    places = range(len(table.columns)) if chosen is None else chosen
    return sum(BETWEEN + LETTER * letters for letters in _letters(table, places))


def _letters(table: Table, chosen: Sequence[int]) -> list[int]:
    """The longest cell of columns, in letters; a group is spread over its columns."""
    longest = []
    for place in chosen:
        column, cells = table.columns[place], table.longest[place]
        most = NAME if not column.numeric else cells
        longest.append(max(min(cells, most), min(len(column.name), HEADING), 1))
    at = 0
    for group, same in groupby(table.columns[place].group for place in chosen):
        count = len(list(same))
        lacking = len(group) - sum(longest[at : at + count]) - count
        if lacking > 0:
            longest[at] += lacking
        at += count
    return longest


def fitting(table: Table, room: float) -> Iterator[Table]:
    """The table, or as many of its columns at a time as there is room for, each time behind the first one."""
    return in_parts(table, lambda chosen: width(table, chosen) <= room)


def _float(table: Table, title: str, label: str, notes: bool, aligned: bool) -> Iterator[str]:
    kind = "table" if width(table) <= ONE_COLUMN else "table*"
    numbers = [siunitx.column(texts) if aligned else None for texts in table.texts_of_columns]
    yield rf"\begin{{{kind}}}"
    yield r"\centering\footnotesize\setlength{\tabcolsep}{3pt}"
    yield r"\begin{threeparttable}"
    yield rf"\caption{{{escaped(title)}}}"
    yield rf"\label{{{label}}}"
    yield rf"\begin{{tabular}}{{{''.join(_kinds(table, numbers))}}}"
    yield r"\toprule"
    yield from _headings(table, numbers)
    yield r"\midrule"
    for row in zip(*map(_cells, table.texts_of_columns, table.longest, numbers)):
        yield _begun(" & ".join(row)) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    if notes and table.notes:
        yield r"\begin{tablenotes}\footnotesize"
        yield from (rf"\item {_begun(_breakable(escaped(note)))}" for note in table.notes)
        yield r"\end{tablenotes}"
    yield r"\end{threeparttable}"
    yield rf"\end{{{kind}}}"


def _cells(texts: Sequence[str], longest: int, numbers: str | None) -> Iterable[str]:
    """The cells of a column as LaTeX sets them, or as siunitx does."""
    if numbers is not None:
        return map(siunitx.cell, texts)
    return texts if longest < LONG and _NUMBERS.fullmatch("".join(texts)) else map(_cell, texts)


@lru_cache(maxsize=8192)
def _cell(text: str) -> str:
    text = text.replace("\n", "\0")
    return _breakable(escaped(LONG_WORD.sub(_parted, text) if len(text) >= LONG else text))


def _kinds(table: Table, numbers: Sequence[str | None]) -> Iterator[str]:
    """How each column is set; long names in lines."""
    for place, column in enumerate(table.columns):
        long = table.longest[place] > NAME
        lines = rf">{{\raggedright\arraybackslash\hangindent=1em}}p{{{LETTER * NAME:.0f}pt}}"
        yield numbers[place] or ("r" if column.numeric else lines if long else "l")


def _headings(table: Table, numbers: Sequence[str | None]) -> Iterator[str]:
    """The groups of columns with a rule below each, then the columns."""
    spans = [(group, len(list(same))) for group, same in groupby(column.group for column in table.columns)]
    if any(group for group, _ in spans):
        cells = (_spanned(escaped(group), count) for group, count in spans)
        yield " & ".join(cells) + r" \\"
        ends = [sum(count for _, count in spans[: at + 1]) for at in range(len(spans))]
        rules = (rf"\cmidrule(lr){{{end - count + 1}-{end}}}" for (group, count), end in zip(spans, ends) if group)
        yield "".join(rules)
    letters = _letters(table, range(len(table.columns)))
    names = [_stacked(column.name, room) for column, room in zip(table.columns, letters)]
    yield " & ".join(f"{{{name}}}" if kind else name for name, kind in zip(names, numbers)) + r" \\"


def _stacked(name: str, letters: int) -> str:
    """A heading in lines of some letters."""
    lines = textwrap.wrap(name, max(letters, 1), break_on_hyphens=False) or [""]
    stacked = r" \\ ".join(map(_begun, map(escaped, lines)))
    return stacked if len(lines) == 1 else rf"\shortstack{{{stacked}}}"


def _begun(line: str) -> str:
    r"""A line that begins with no star or bracket, which the `\\` or the `\item` before it would take for its own."""
    return f"{{}}{line}" if line.lstrip().startswith(("*", "[")) else line


def _spanned(group: str, count: int) -> str:
    """A group above its columns; columns without one have empty cells."""
    return rf"\multicolumn{{{count}}}{{c}}{{{group}}}" if group else " & ".join([""] * count)


def _parted(word: re.Match[str]) -> str:
    """A long word with places where it may be broken."""
    return BREAK.join(textwrap.wrap(word[0], 12, break_on_hyphens=False))


def _breakable(text: str) -> str:
    """Text whose long names may be broken behind a slash, a dot, a colon or an underscore, numbers never."""
    for mark, (pattern, breakable) in _BREAKS.items():
        if mark in text:
            text = pattern.sub(breakable, text)
    return text
