"""Ctrl-C while a command starts ends it in one line; loaded before anything whose import takes a while."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself imports for some milliseconds
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def end(*_: object) -> None:
    """End at once: an exception would be raised inside an import, which may take it for a failure of its own."""
    try:  # noqa: SIM105 - contextlib takes a while to import
        os.write(2, b"senet-bench: interrupted; nothing was begun\n")
    except OSError:  # nobody reads it any more
        pass
    supervision = sys.modules.get("senet_bench.core.supervision")
    getattr(supervision, "finish", lambda _: None)(130)  # which may be half imported
    os._exit(130)


def answer_by(handler: Callable[..., None]) -> None:
    """Make a function the answer to Ctrl-C, where Ctrl-C ends a process: not where the shell has it ignored."""
    if _signal.getsignal(_signal.SIGINT) in (_signal.default_int_handler, end):
        _signal.signal(_signal.SIGINT, handler)


def is_command() -> bool:
    """Whether this process is `senet-bench` or `python -m senet_bench`, whose modules are still being looked for."""
    if sys.argv[:1] == ["-m"]:  # which it is only until Python has found the module
        return sys.orig_argv[-len(sys.argv)] in ("senet_bench", "-msenet_bench")
    return bool(sys.argv) and os.path.basename(sys.argv[0]) in ("senet-bench", "senet-bench.exe")
