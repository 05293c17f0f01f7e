"""The entry point: `senet-bench`, `python -m senet_bench`; Ctrl-C ends it in one line from the first import on."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself imports for some milliseconds
import os
import sys


def _end(*_: object) -> None:
    """End at once: an exception would be raised inside an import, which may take it for a failure of its own."""
    os.write(2, b"senet-bench: interrupted; nothing was begun\n")
    supervision = sys.modules.get("senet_bench.core.supervision")
    getattr(supervision, "finish", lambda _: None)(130)  # which may be half imported
    os._exit(130)


USUAL = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
"""Whether Ctrl-C ends a process: not where the shell has it ignored."""
if USUAL and __name__ == "__main__":
    _signal.signal(_signal.SIGINT, _end)


def main() -> None:
    """Carry out the command line."""
    if USUAL:
        _signal.signal(_signal.SIGINT, _end)
    from senet_bench.core.supervision import finish, supervise

    supervise(sys.argv[1:])
    from senet_bench.cli import main as command
    from senet_bench.core.foreign import interrupt, stay

    if USUAL:
        _signal.signal(_signal.SIGINT, interrupt)
    stay()
    try:
        command()
    except SystemExit as ended:
        finish(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
        raise
    except KeyboardInterrupt:  # outside of what the commands catch
        _end()
    except Exception:  # of --debug
        finish(1)
        raise


if __name__ == "__main__":
    main()
