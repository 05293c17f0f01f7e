"""The benchmarking and ablation toolkit for Squeeze-and-Excitation networks.

compare(*what, ...)     networks with and without attention side by side
ablate(model, ...)      one network with its attention varied along axes
train(model, ...)       one network by a recipe
evaluate(*model, ...)   errors of networks with weights
probe(*blocks, ...)     what blocks can do, on small tasks
profile(model, ...)     where the time of a network goes
excitations(model, ...) what the gates of a network do
freeze(model, ...)      gates of a trained network that can be constants
check(...)              this checkout against a base
report(*folders, ...)   every table, plot and the page of what is stored
load(results)           what a results folder holds, all runs together
build(name, ...)        a network as an `nn.Module`
deploy(network)         the same function, fast in inference
attach(network, ...)    attention put into a network from outside

Options have the names of the command line; `help(senet_bench.compare)` lists them.
"""

from __future__ import annotations

import importlib

from senet_bench import start

TYPE_CHECKING = False  # that of typing, whose import takes long enough for a Ctrl-C

if TYPE_CHECKING:
    from typing import Any

    from senet_bench.api.commands import (
        ablate,
        check,
        compare,
        evaluate,
        excitations,
        freeze,
        load,
        probe,
        profile,
        report,
        train,
    )
    from senet_bench.deployment import deploy
    from senet_bench.models import build
    from senet_bench.models.attach import attach

if start.is_command():
    start.answer_by(start.end)

__version__ = "0.1.0"
__all__ = [
    "ablate",
    "attach",
    "build",
    "check",
    "compare",
    "deploy",
    "evaluate",
    "excitations",
    "freeze",
    "load",
    "probe",
    "profile",
    "report",
    "train",
]

_HOMES = {
    **dict.fromkeys(
        (
            *("ablate", "check", "compare", "evaluate", "excitations", "freeze"),
            *("load", "probe", "profile", "report", "train"),
        ),
        "senet_bench.api.commands",
    ),
    "attach": "senet_bench.models.attach",
    "build": "senet_bench.models",
    "deploy": "senet_bench.deployment",
}


def __getattr__(name: str) -> Any:
    """What lies at the top, imported when it is first asked for: most of it needs torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Everything at the top."""
    return [*globals(), *_HOMES]
