"""Classes and instances that Python code hands over in the place of an import string, each under such a string."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable
from typing import Any

MODULE = "given_in_python"
"""The module that what no module holds is put into."""


def import_string(thing: Any) -> str:
    """The import string of a class, a function or an instance; a text is one already.

    What its own module holds by name is called by that. Anything else (an instance, a class of a function) is kept in
    a module of this process, `given_in_python`, so its name means something here alone.
    """
    if isinstance(thing, str):
        return thing
    name = getattr(thing, "__qualname__", "")
    module = sys.modules.get(getattr(thing, "__module__", "") or "")
    if name.isidentifier() and getattr(module, name, None) is thing:
        return f"{thing.__module__}:{name}"
    return f"{MODULE}:{_kept(thing, name.rpartition('.')[2] or type(thing).__name__)}"


def block_string(thing: Any) -> str:
    """The import string of an attention block: a class, a function (channels, **options), or an instance to copy."""
    if isinstance(thing, str | type) or not hasattr(thing, "named_modules"):
        return import_string(thing)
    return f"{MODULE}:{_kept(_copies(thing), type(thing).__name__)}"


def _copies(block: Any) -> Callable[..., Any]:
    """A function that gives a copy of a block, whatever the number of channels."""

    def made(channels: int) -> Any:
        return copy.deepcopy(block)

    return made


def _kept(thing: Any, name: str) -> str:
    """The name under which a thing is kept, that of an equal one before it."""
    module = sys.modules.setdefault(MODULE, types.ModuleType(MODULE))
    known = next((key for key, value in vars(module).items() if value is thing), None)
    if known is not None:
        return known
    free = name if not hasattr(module, name) else f"{name}_{len(vars(module))}"
    setattr(module, free, thing)
    return free
