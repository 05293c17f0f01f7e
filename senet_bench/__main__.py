"""The entry point: `senet-bench`, `python -m senet_bench`; Ctrl-C ends it in one line from the first import on."""

from __future__ import annotations

import os
import signal
import sys

from senet_bench.core.supervision import finish, supervise


def _end(*_: object) -> None:
    """End at once: an exception would be raised inside an import, which may take it for a failure of its own."""
    os.write(2, b"senet-bench: interrupted; nothing was begun\n")
    finish(130)
    os._exit(130)


def main() -> None:
    """Carry out the command line."""
    supervise(sys.argv[1:])
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where the shell ignores it
    if usual:
        signal.signal(signal.SIGINT, _end)
    from senet_bench.cli import main as command
    from senet_bench.core.foreign import interrupt, stay

    if usual:
        signal.signal(signal.SIGINT, interrupt)
    stay()
    try:
        command()
    except SystemExit as ended:
        finish(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
        raise
    except Exception:  # of --debug
        finish(1)
        raise


if __name__ == "__main__":
    main()
