"""The machine and the software that a document was made with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What makes times comparable; stable fields only: no frequencies, load, host name or kernel build."""

    cpu: str | None = None
    isa: str | None = None
    cores: int | None = None
    virtual: bool | None = None
    gpu: str | None = None
    gpu_count: int = 0
    sm: str | float | None = None
    gpu_memory_gib: float | None = None
    torch: str | None = None
    cuda: str | None = None
    cudnn: int | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorState:
    """Whether this process's allocator can be tuned, and the variables that set it."""

    can_be_tuned: bool | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Hardware, software and load of a machine; `machine` is the key of its `hard`, None is what is not known.

    `commit` is that of the folder where the command was typed, with `+` where files differed from it.
    """

    machine: str = "unknown"
    hard: Hardware = field(default_factory=Hardware)
    senet_bench: str | None = None
    python: str | None = None
    platform: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    memory_bytes: int | None = None
    load_1min: float | None = None
    allocator: AllocatorState = field(default_factory=AllocatorState)
    cpu_governor: str | None = None
    cpu_turbo_off: str | None = None


def interpreter() -> dict[str, str]:
    """Python and the platform: what of an environment is known without torch."""
    return {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
