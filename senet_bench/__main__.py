"""The entry point: `senet-bench`, `python -m senet_bench`; Ctrl-C ends it in one line from the first import on."""

from __future__ import annotations

import sys

from senet_bench import start


def main() -> None:
    """Carry out the command line."""
    start.answer_by(start.end)
    from senet_bench.core.supervision import finish, supervise

    supervise(sys.argv[1:])
    from senet_bench.cli import main as command
    from senet_bench.core.foreign import Interruption, stay

    start.answer_by(Interruption())
    stay()
    try:
        command()
    except SystemExit as ended:
        finish(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
        raise
    except KeyboardInterrupt:  # outside of what the commands catch
        start.end()
    except Exception:  # outside of what the commands catch
        finish(5)
        raise


if __name__ == "__main__":
    main()
