"""What `doctor` finds: the machine, the packages, and on request every branch of measuring on a device."""

from __future__ import annotations

from senet_bench.bench.machine import checks, environment
from senet_bench.bench.selfcheck import self_check
from senet_bench.bench.session import check_conditions
from senet_bench.core.results import Finding
from senet_bench.core.specs import Conditions

__all__ = ["diagnose", "environment"]


def diagnose(device: str | None = None) -> tuple[list[Finding], int]:
    """All checks, and how many branches of measuring failed on `device` (None: not tried)."""
    found = checks()
    if device is None:
        return found, 0
    check_conditions(Conditions(device=device))
    branches = list(self_check(device))
    found += [Finding(f"{device}: {one.name}", one.detail if one.ok else f"failed: {one.detail}") for one in branches]
    return found, sum(not one.ok for one in branches)
