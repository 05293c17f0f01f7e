"""How quiet the machine was while something was measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the machine when a measurement began."""

    began: float
    stolen: float
    switches: int

    @staticmethod
    def begin() -> Health:
        """The state now."""
        from senet_bench.bench.clock import stolen_seconds

        return Health(time.perf_counter(), stolen_seconds(), _switches())

    def ended(self) -> dict[str, Any]:
        """What happened since: seconds, load, the share stolen by other guests, involuntary switches."""
        from senet_bench.bench.clock import cores, stolen_seconds

        lasted = time.perf_counter() - self.began
        return {
            "elapsed_s": lasted,
            "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "steal": (stolen_seconds() - self.stolen) / max(lasted * cores(), 1e-9),
            "involuntary_switches": _switches() - self.switches,
        }


def _switches() -> int:
    """Times that this process and its finished children were put aside."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return sum(resource.getrusage(who).ru_nivcsw for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
