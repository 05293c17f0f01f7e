"""The page as text: jinja2 puts the sections together, every value escaped, nothing loaded from elsewhere."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_bench.core.union import StoredRun
from senet_bench.gallery.collection import Collection, machine_label, main_timing
from senet_bench.gallery.page.content import Content
from senet_bench.gallery.page.headline import SIGNS, headline, tally
from senet_bench.show.style import digest, stylesheet
from senet_bench.show.svg import inline
from senet_bench.show.tables import Table

if TYPE_CHECKING:
    from markupsafe import Markup


PAGE_FOLDER = Path(__file__).parent
LINES_SHOWN, LETTERS_SHOWN = 50, 800
"""Lines of one table on the page, and letters of one of its notes; its files have all of them."""
HARDWARE = ("cpu", "isa", "cores", "gpu", "gpu_count", "sm", "gpu_memory_gib", "cuda", "cudnn")


def build_page(collection: Collection, content: Content, drawn: Mapping[str, str] | None = None) -> str:
    """The whole page; `drawn` has the charts that are drawn already by name. The same facts give the same text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, code = stylesheet(), (PAGE_FOLDER / "page.js").read_text(encoding="utf-8")
    counts = {status: count for status, count in tally(content.grids).items() if count}
    text = environment.get_template("page.html.j2").render(
        content=content,
        headline=headline(collection, main_timing(collection.timings)),
        tally=counts,
        signs=SIGNS,
        machines=_machines(collection),
        left_out=[(one.path, str(one.error)) for one in collection.left_out],
        policy=f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(code)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 - files of this package
        script=Markup(code),  # noqa: S704
        inline=lambda chart: Markup((drawn or {}).get(chart.name) or inline(chart)),  # noqa: S704 - escaped where it is written
        heads=heads,
        coded=coded,
        shortened=shortened,
        lines=lines,
        lines_shown=LINES_SHOWN,
    )
    unseen = {ord(char): " " for char in set(text) if char != "\n" and unicodedata.category(char)[0] == "C"}
    return text.lstrip().translate(unseen) if unseen else text.lstrip()


def coded(text: str) -> Markup:
    """Text with what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in text.split("`")]
    odd = len(parts) % 2 == 0  # a backtick without its other
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 and not (odd and place == len(parts) - 1) else part
        for place, part in enumerate(parts)
    )


def lines(table: Table, ids: Sequence[str] = ()) -> Markup:
    """The first lines of a table, led by the ids of what they are the numbers of."""
    from markupsafe import Markup, escape

    columns = []
    for place, (column, cells) in enumerate(zip(table.columns, zip(*table.texts[:LINES_SHOWN]))):
        kind = ("th" if place == 0 else "td"), ' scope="row"' if place == 0 else ' class="num"' * column.numeric
        whole = "\n".join(cells)
        apart = whole.count("\n") == len(cells) - 1  # all at once, where a line is a cell
        escaped = str(escape(whole)).split("\n") if apart else [str(escape(cell)) for cell in cells]
        columns.append([f"<{kind[0]}{kind[1]}>{cell}</{kind[0]}>" for cell in escaped])
    starts = [f'<tr data-row="{escape(one)}">' for one in ids] or ["<tr>"] * len(table.rows[:LINES_SHOWN])
    return Markup("".join(f"{start}{''.join(cells)}</tr>\n" for start, *cells in zip(starts, *columns)))  # noqa: S704 - escaped above


def shortened(note: str, link: str) -> str:
    """A note of a table, cut behind a comma where it is very long and the table has files of its own."""
    if not link or len(note) <= LETTERS_SHOWN:
        return note
    return f"{note[:LETTERS_SHOWN].rpartition(',')[0]}, … (whole in the table's files)"


def heads(groups: Sequence[str]) -> list[tuple[str, int]]:
    """Neighbouring columns of one group as one heading with how many columns it spans; empty without groups."""
    spans = [(group, len(list(same))) for group, same in itertools.groupby(groups)]
    return spans if any(groups) else []


def _machines(collection: Collection) -> list[Mapping[str, Any]]:
    """Each machine with its hardware, its versions and what was stored on it."""
    machines: list[Mapping[str, Any]] = []
    for key, newest in collection.machines().items():
        own = [source for source in collection.sources if source.machine == key]
        hard = asdict(newest.hard)
        facts = {name.replace("_", " "): hard[name] for name in HARDWARE if hard[name]}
        facts |= {"virtual": "yes"} if newest.hard.virtual else {}
        facts |= {"platform": newest.platform} if newest.platform else {}
        facts |= {"python": newest.python} if newest.python else {}
        facts |= newest.packages
        if newest.memory_bytes:
            facts["memory"] = f"{newest.memory_bytes / 2**30:.1f} GiB"
        machines.append(
            {"key": key, "label": machine_label(newest), "facts": facts, "runs": [_run(one) for one in own]}
        )
    return machines


def _run(source: StoredRun) -> Mapping[str, Any]:
    document = source.document
    load = document.environment.load_1min
    return {
        "path": source.path,
        "name": source.path.rpartition("/")[2],
        "command": source.command,
        "created": document.created,
        "version": document.version,
        "rows": len(document.rows),
        "about": _about(source.asked),
        "load": f"{load:.2f}" if load is not None else "",
    }


def _about(conditions: Mapping[str, object]) -> str:
    """What was asked for, in a few words."""
    words = []
    for name, value in conditions.items():
        said = value
        if isinstance(value, dict):
            said = ", ".join(f"{key} {one}" for key, one in value.items() if isinstance(one, int | float | str))
        elif isinstance(value, list):
            said = " ".join(str(one) for one in value if isinstance(one, int | float | str))
        if said not in ("", None, False):
            words.append(f"{name.replace('_', ' ')}: {said}")
    text = "; ".join(words)
    return text if len(text) <= 300 else f"{text[:299]}…"
