"""The benchmarking and ablation toolkit for Squeeze-and-Excitation networks."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`senet_bench.deploy`, imported when it is first asked for: it needs torch."""
    if name == "deploy":
        from senet_bench.deployment import deploy

        return deploy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
