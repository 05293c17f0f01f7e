"""The command line: parse, call one workflow, show. The only place that catches `BenchError`.

A command's file is loaded when the command is run or asked for help: listing them loads none.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Annotated, Any

import typer
import typer.core

from senet_bench import __version__
from senet_bench.core.foreign import CALL_TIMEOUT, CALL_TIMEOUT_S, place_of, staying, tell_of_thread, tell_unraisable
from senet_bench.errors import BenchError, one_line

LONGEST_CALL_S = 7 * 24 * 3600.0


COMMANDS: dict[str, tuple[str, str]] = {
    "compare": ("functions:compare", "Networks with and without attention, beside the paper."),
    "ablate": ("functions:ablate", "One network with its attention varied along axes."),
    "train": ("functions:train", "Train a network by a recipe of the paper."),
    "evaluate": ("functions:evaluate", "Errors of networks with weights, AP of detectors."),
    "excitations": ("excitations:excitations", "What the gates do, by class and depth."),
    "freeze": ("freeze:freeze", "Which gates are constants, folded away."),
    "probe": ("functions:probe", "What a block can do: its errors on small generated tasks."),
    "profile": ("functions:profile", "Where the time of a network goes, and attention's share."),
    "selftest": ("selftest:selftest", "How far timing can be trusted on this machine."),
    "check": ("check:check", "Is a network bigger, slower or another than in the base?"),
    "report": ("report:report", "Tables, plots and the page of all that is stored."),
    "models": ("listing:models", "The networks there are."),
    "doctor": ("listing:doctor", "What this machine offers, and how to get what is missing."),
    "baseline": ("check:baseline", "What `check` compares with."),
}
"""Every command: where it lies in this room, and its line in `--help`."""


def command_at(place: str) -> Any:
    """What a command is written as: a function that takes groups of options, or a `typer.Typer` of several."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"senet_bench.cli.{module}"), name)


class _Commands(MutableMapping[str, Any]):
    """The commands by name, each built when it is first asked for."""

    def __init__(self) -> None:
        self.built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self.built:
            self.built[name] = _built(name, *COMMANDS[name])
        return self.built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self.built[name] = command

    def __delitem__(self, name: str) -> None:
        del self.built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _built(name: str, place: str, line: str) -> Any:
    from senet_bench.api.parameters import Command, flat

    command = command_at(place)
    if isinstance(command, typer.Typer):
        return typer.main.get_command(command)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name, cls=Command, short_help=line)(flat(command))
    return typer.main.get_command(alone)


class _Group(typer.core.TyperGroup):
    """Ends a command that raised `BenchError` with its one line and its exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each with its line, none of them loaded."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def make_context(self, *arguments: Any, **given: Any) -> Any:
        """As ever; Ctrl-C while options are read is told too, and what is wrong with them in one line."""
        try:
            return super().make_context(*arguments, **given)
        except KeyboardInterrupt as error:
            raise _interrupted() from error
        except Exception as error:
            raise (_misused(error) or error) from error

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            self._trace(ctx)
            _tell(f"{error}")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            raise _interrupted() from error
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except BaseException as error:
            if misused := _misused(error):
                raise misused from error
            self._trace(ctx)
            _tell(_blame(error))
            raise typer.Exit(5) from error

    @staticmethod
    def _trace(ctx: Any) -> None:
        """The traceback of the error at hand, where `--debug` asks for it."""
        if ctx.params.get("debug"):
            with contextlib.suppress(OSError, ValueError):
                traceback.print_exc()


def _tell(text: str) -> None:
    """Say a line on stderr; where that cannot be written the exit code alone tells."""
    with contextlib.suppress(OSError, ValueError):
        typer.echo(f"senet-bench: {text}", err=True)


def _interrupted() -> typer.Exit:
    """How a command ends on Ctrl-C, which is told."""
    _tell("interrupted")
    return typer.Exit(130)


def _misused(error: BaseException) -> typer.Exit | None:
    """How a command ends on a usage error of the vendored click, which is told in one line; None for other errors."""
    describe = getattr(error, "format_message", None)
    if describe is None or type(error).__name__ == "NoArgsIsHelpError":  # whose message is the whole help
        return None
    _tell(f"{' '.join(describe().split()).rstrip('.')}; see `senet-bench --help`")
    return typer.Exit(2)


def _blame(error: BaseException) -> str:
    """An unforeseen error in one line: with its place where the code is the user's, else as a fault of ours."""
    if place := place_of(error):
        return f"{one_line(error)}{place}; mend it there, or see the whole traceback with --debug"
    if isinstance(error, SystemExit):
        return f"a library ended the command ({one_line(error)}); see where with --debug"
    if isinstance(error, OSError):  # a full disk, a closed terminal
        return f"{one_line(error)}; free some space, or check where it is written"
    return f"internal error: {one_line(error)}; run it with --debug and report it"


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out `senet-bench ARGUMENTS`; ends by `SystemExit`."""
    _open_streams()
    sys.unraisablehook, threading.excepthook = tell_unraisable, tell_of_thread
    with staying():
        app(args=completed(sys.argv[1:] if arguments is None else arguments), prog_name="senet-bench")


def _open_streams() -> None:
    """Give a closed stdout or stderr a place to write to; a character that a terminal lacks is printed as `?`."""
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    if not isinstance(sys.stderr, _Remarks):
        said: Any = _Remarks(sys.stderr)
        sys.stderr = said


class _Remarks:
    """Standard error that changes no result and no exit code where its reader has left, or its disk is full."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, where that is possible."""
        with self._unhurt():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, where that is possible."""
        with self._unhurt():
            self._stream.flush()

    @contextlib.contextmanager
    def _unhurt(self) -> Iterator[None]:
        """Once nothing can be written any more, let all of it go nowhere, what is still held back too."""
        try:
            yield
        except OSError:
            with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


def completed(arguments: Sequence[str]) -> list[str]:
    """The arguments with those of all commands first, and `paper` after every axis of `ablate` that has no value."""
    rest, complete = _common_first(arguments)
    if rest[:1] != ["ablate"]:
        return [*complete, *rest]
    from senet_bench.api.options import PAPER_VALUE
    from senet_bench.core.axes import AXES

    axes = {f"--{name}" for name in AXES}
    for argument, following in zip(rest, [*rest[1:], "-"]):
        complete.append(argument)
        if argument in axes and following.startswith("-"):
            complete.append(PAPER_VALUE)
    return complete


def _common_first(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of the command, and those of every command (`--debug`, `--call-timeout S`), wherever they stood."""
    rest, common, waiting = list[str](), list[str](), False
    for argument in arguments:
        ours = waiting or argument in ("--debug", "--call-timeout") or argument.startswith("--call-timeout=")
        (common if ours else rest).append(argument)
        waiting = argument == "--call-timeout"
    return rest, common


app = typer.Typer(
    name="senet-bench",
    cls=_Group,
    help="What channel attention costs and what it buys: Squeeze-and-Excitation networks beside the paper's tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    call_timeout: Annotated[
        float,
        typer.Option(
            "--call-timeout",
            min=0.1,
            max=LONGEST_CALL_S,
            envvar=CALL_TIMEOUT,
            help="Seconds that a call of a network from outside may take.",
        ),
    ] = CALL_TIMEOUT_S,
) -> None:
    os.environ[CALL_TIMEOUT] = str(call_timeout)
