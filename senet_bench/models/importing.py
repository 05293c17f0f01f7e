"""What an import string `package.module:name` names, every failure a one-line `UsageError`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from senet_bench.errors import UsageError, nearest

FORM = "write it as package.module:Name"


def imported(path: str, what: str) -> Any:
    """The object called `path`, `package.module:name`; `what` it is meant to be is said when it is not there.

    Modules of the current folder are found too, after the installed ones.
    """
    module, _, attribute = path.partition(":")
    if not (attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise UsageError(f"{what} {path!r} is no import string", FORM)
    found = _module(module, path, what)
    if not hasattr(found, attribute):
        hint = nearest(attribute, [name for name in vars(found) if not name.startswith("_")])
        raise UsageError(f"{what} {path!r}: module {module} has no {attribute}", hint or FORM)
    return getattr(found, attribute)


def _module(name: str, path: str, what: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{what} {path!r}: there is no module {error.name}", "install it, or run in the folder that holds it"
        ) from error
    except Exception as error:
        raise UsageError(
            f"{what} {path!r}: importing {name} raises {type(error).__name__} ({first_line(error)})",
            "correct the module",
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
