"""Options as dataclasses: a command takes groups, its command line is their fields."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from senet_bench.cli.parameters import Command, choice, flat


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
