"""Options as dataclasses: a command takes groups, its command line is their fields."""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from senet_bench.api.parameters import Command, choice, flat
from senet_bench.cli import app as application
from senet_bench.cli import completed
from senet_bench.errors import UsageError
from senet_bench.regression.configfile import load_config
from senet_bench.show import terminal


@dataclass(frozen=True)
class Place:
    PANEL: ClassVar[str] = "Where it runs"
    threads: Annotated[int, typer.Option(min=1, max=8, help="Threads.")] = 1
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(**choice("fp32", "bf16"))] = "fp32"


@dataclass(frozen=True)
class Timing:
    budget: Annotated[float, typer.Option(help="Seconds.")] = 10.0


SEEN: list[object] = []
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(cls=Command)
@flat
def measure(
    what: Annotated[str, typer.Argument(help="What.")], place: Place = Place(), timing: Timing = Timing(30.0)
) -> None:
    SEEN[:] = [what, place, timing]


def test_the_fields_of_all_groups_are_options_with_the_defaults_that_the_command_gives() -> None:
    assert CliRunner().invoke(app, ["net"]).exit_code == 0
    assert ["net", Place(), Timing(30.0)] == SEEN


def test_what_is_typed_reaches_its_group() -> None:
    assert CliRunner().invoke(app, ["net", "--precision", "bf16", "--budget", "2", "--threads", "4"]).exit_code == 0
    assert ["net", Place(4, "bf16"), Timing(2.0)] == SEEN


@pytest.mark.parametrize("arguments", [["--precision", "fp7"], ["--threads", "0"], ["--threads", "9"]], ids=" ".join)
def test_a_value_outside_its_bounds_is_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["net", *arguments]).exit_code == 2


def test_help_heads_options_with_their_panel() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    assert text.index("Arguments:") < text.index("Where it runs:") < text.index("--threads")
    assert "--budget" in text


BAD = (
    *("-1", "1e999", "nan", "inf", "-inf", "9" * 20, "9" * 400, "9" * 5000, "\u00b2", "\u0663", "1.5", "a=b", "[/red]"),
    *("1,", "", "x" * 300, "x/" * 2500, "\udcff", "/dev/null/x", "[1, 2]"),
)
CLOSED = ("--runtime", "--device", "--dataset", "--shard", "--shape", "--mean", "--std")
"""Options that take texts of a form, or names of a list; none of the bad values is one."""
ARGUMENTS = {"train": "seresnet20_cifar", "evaluate": "seresnet20_cifar --weights w", "profile": "seresnet20_cifar"}
ARGUMENTS |= {"excitations": "seresnet20_cifar", "compare": "seresnet20_cifar"}


class BegunError(Exception):
    """A command has taken its options, and would measure."""


def ended(command: Any, arguments: list[str]) -> tuple[int | None, str]:
    """The exit code of a command and what it said to stderr; None for the code where it would have measured."""
    error = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
            command.main(completed(arguments), prog_name="senet-bench")
    except SystemExit as end:
        text = error.getvalue().strip()
        return (None, "") if "Begun" in text else (int(end.code or 0), text)
    raise AssertionError("a command ends by SystemExit")


def commands(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield from commands(command, (*names, name)) if hasattr(command, "commands") else [((*names, name), command)]


def test_no_value_of_any_option_ends_in_more_than_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: object, **__: object) -> None:
        raise BegunError

    for function in ("run_steps", "show", "print_text", "remark"):
        monkeypatch.setattr(terminal, function, begin)
    monkeypatch.chdir(tmp_path)
    group: Any = typer.main.get_command(application)
    wrong, seen = [], set()
    for names, command in commands(group):
        given = [*names, *ARGUMENTS.get(names[0], "").split()]
        for option in command.params:
            described = tuple[str, ...](option.get_help_record(typer.Context(command)) or ())
            if option.param_type_name != "option" or option.is_flag or described in seen:
                continue  # what several commands share is tried in the first
            seen.add(described)
            closed = re.search(r"\b(INTEGER|INT|FLOAT)\b", described[0].upper()) or option.opts[-1] in CLOSED
            for value in BAD:
                code, text = ended(group, [*given, option.opts[-1], value])
                allowed = (2,) if closed and value != "1.5" else (0, 2, 4, None)
                if code not in allowed or len(text.splitlines()) > 1 or "internal error" in text:
                    wrong.append(f"{' '.join(names)} {option.opts[-1]} {value[:20]!r}: {code} {text[-150:]!a}")
    assert not wrong, "\n".join(wrong)


def test_a_number_of_thousands_of_digits_in_a_config_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "senet-bench.toml"
    path.write_text(f"launches = {'9' * 5000}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is no TOML"):
        load_config(path)
