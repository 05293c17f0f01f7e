"""The pages of `senet_bench/docs` and the README: their blocks, the commands in them, and what is generated in them.

A comment on the line before a block says what it is for: `<!-- file: NAME -->` is written to that file before the
commands that follow it, `<!-- apply -->` is a patch to the folder, `<!-- varies -->` has outputs that no second run
repeats. A page with `<!-- clone -->` is run in a copy of the repository. `<!-- options: COMMAND -->`, `<!-- tasks -->`,
`<!-- runs -->` and `<!-- timings -->` to `<!-- end -->` are generated.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import typer.main
from typer.models import OptionInfo

from senet_bench.api.parameters import flat
from senet_bench.cli import COMMANDS, app, command_at, completed
from senet_bench.probing.tasks import TASKS, ProbeTask

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "senet_bench" / "docs"
README = ROOT / "README.md"
TOOL = "senet-bench"
SPECIAL = {"baseline": "check", "doctor": "models"}
"""Commands that share the page of another."""
MARK = re.compile(r"<!-- (\w+)(?:: (.+?))? -->")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`(senet-bench [^`]+)`")
VARYING = (
    (re.compile(r"results/runs/\S+\.json"), "results/runs/MACHINE/RUN.json"),
    (re.compile(r"results/baselines/[0-9a-f]{12}\.json"), "results/baselines/MACHINE.json"),
    (re.compile(r"machine [0-9a-f]{12}"), "machine KEY"),
    (re.compile(r"took \d.*\s.*\binvoluntary\s+switches"), "took SO LONG"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?"), "DATE"),
)
"""What no two runs share: the names of stored runs, machines, days, the state of the machine."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a block as typed after `$ `, and the output below it."""

    text: str
    output: str

    def arguments(self) -> list[str] | None:
        """What senet-bench is given when the line is that command alone, else None."""
        words = shlex.split(self.text, comments=True)
        lone = words[:1] == [TOOL] and not {"|", ">", "&&", ";", "<"} & set(words)
        return words[1:] if lone else None


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its mark, and the lines `first` to before `last` of the page."""

    kind: str
    mark: str
    about: str
    first: int
    last: int
    text: str

    def commands(self) -> list[Command]:
        """The commands of a console block with their outputs."""
        found: list[list[str]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append([line[2:]])
            elif line.startswith("> ") and len(found[-1]) == 1 and found[-1][0].endswith("\\"):
                found[-1][0] = f"{found[-1][0]}\n{line[2:]}"
            else:
                found[-1].append(line)
        return [Command(typed, "\n".join(output)) for typed, *output in found]


def pages() -> dict[str, Path]:
    """Every page by its name, the README first."""
    return {"README": README, **{path.stem: path for path in sorted(DOCS.glob("*.md"))}}


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    lines, found, opened = text.splitlines(), list[Block](), None
    for number, line in enumerate(lines):
        if opened is None and line.startswith("```"):
            opened = number
        elif opened is not None and line.startswith("```"):
            mark = MARK.fullmatch(lines[opened - 1]) if opened else None
            name, about = (mark[1], mark[2] or "") if mark else ("", "")
            body = "".join(f"{one}\n" for one in lines[opened + 1 : number])
            found.append(Block(lines[opened][3:].strip(), name, about, opened + 1, number, body))
            opened = None
    return found


def command_lines(text: str) -> Iterator[str]:
    """Every line of a page that runs senet-bench: in console and sh blocks, and in single backticks."""
    fenced = set[int]()
    for block in blocks(text):
        fenced |= set(range(block.first, block.last))
        if block.kind == "console":
            yield from (command.text for command in block.commands())
        elif block.kind == "sh":
            yield from block.text.replace("\\\n", " ").splitlines()
    prose = "\n".join(line for number, line in enumerate(text.splitlines()) if number not in fenced)
    yield from INLINE.findall(prose)


def typed(line: str) -> Iterator[list[str]]:
    """The arguments of every senet-bench in a shell line."""
    words = shlex.split(line.replace("\\\n", " "), comments=True)
    for start, word in enumerate(words):
        if word.rpartition("/")[2] == TOOL and (start == 0 or words[start - 1] in ("&&", "|", ";", "&", "||")):
            rest = words[start + 1 :]
            end = next((i for i, one in enumerate(rest) if re.fullmatch(r"\|\|?|&&?|;|>>?|2>|<", one)), len(rest))
            yield rest[:end]


def complaint(arguments: list[str]) -> str:
    """Why senet-bench would not understand these arguments, empty where it would; nothing is run."""
    command: Any = typer.main.get_command(app)
    name, rest = TOOL, completed(arguments)
    try:
        while True:
            context = command.make_context(name, list(rest), resilient_parsing="--help" in rest or "--version" in rest)
            if not hasattr(command, "resolve_command") or "--help" in rest or "--version" in rest:
                return ""
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    except Exception as error:
        told = getattr(error, "format_message", None)
        if told is None:
            raise
        return str(told())


def leaves() -> dict[str, Callable[..., None]]:
    """The function of every command by its full name, `baseline record` for one in a group."""
    functions: dict[str, Callable[..., None]] = {}
    for name, (place, _) in COMMANDS.items():
        command = command_at(place)
        if isinstance(command, typer.Typer):
            functions |= {f"{name} {one.name}": one.callback for one in command.registered_commands if one.callback}
        else:
            functions[name] = flat(command)
    return functions


def option_table(command: str) -> str:
    """The arguments and options of a command as a Markdown table."""
    function = leaves()[command]
    hints = get_type_hints(function, include_extras=True)
    lines = ["| option | takes | default | what |", "|---|---|---|---|"]
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name])
        usual = parameter.default
        shown = "on" if usual is True else "" if usual in (None, False, "", parameter.empty) else f"`{usual}`"
        cells = (_spelt(name, info), _values(info) or _takes(kind), shown, info.help or "")
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines)


def _spelt(name: str, info: Any) -> str:
    """An option as it is typed; an argument in capitals."""
    if not isinstance(info, OptionInfo):
        return f"`{name.upper()}`"
    declared = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
    return ", ".join(f"`{one}`" for one in declared or [f"--{name.replace('_', '-')}"])


def _values(info: Any) -> str:
    """The values that an option's metavar lists, empty where it lists none."""
    listed = (info.metavar or "").strip("<>").split("|")
    return " ".join(f"`{value}`" for value in listed) if len(listed) > 1 else ""


def _takes(kind: Any) -> str:
    """What an option of this type is given, in a word."""
    inner = [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) is list:
        return f"{_takes(inner[0])}, repeatable"
    if inner:
        return _takes(inner[0])
    if issubclass(kind, StrEnum):
        return " ".join(f"`{one.value}`" for one in kind)
    return {bool: "", int: "integer", float: "number", Path: "path"}.get(kind, "text")


def task_sections() -> str:
    """A section for each task of `probe`: what it shows, what it needs, why a network without that fails, its knob."""
    return "\n\n".join("\n\n".join(_section(task)) for task in TASKS.values())


def _section(task: ProbeTask) -> Iterator[str]:
    levels = ", ".join(f"**{level:g}**" if level == task.usual else f"{level:g}" for level in task.levels)
    yield f"### {task.name}: {task.title}"
    images = " ".join((task.make.__doc__ or "").split())
    yield f"`{task.make.__name__}`: {images} The knob is its {task.knob}: {levels}."
    yield f"*It needs* {task.needs}."
    yield f"*Without it*: {task.bound}."


def page_of(command: str) -> str:
    """The page that a command is told on."""
    first = command.partition(" ")[0]
    return SPECIAL.get(first, first)


def comparable(output: str) -> str:
    """An output without what no two runs share."""
    for pattern, word in VARYING:
        output = pattern.sub(word, output)
    return "\n".join(line.rstrip() for line in output.strip("\n").splitlines())


def dead_links(path: Path, text: str) -> list[str]:
    """Relative links of a page to files or headings that are not there."""
    found = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (path.parent / name).resolve()
        if not file.exists() or (heading and heading not in headings(file.read_text() if name else text)):
            found.append(target)
    return found


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}
