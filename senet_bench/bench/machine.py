"""The machine and the software a measurement ran on, and the key under which comparable results are kept."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib import metadata
from typing import Any

import psutil
import torch

from senet_bench import __version__
from senet_bench.bench import allocator
from senet_bench.bench.clock import cores
from senet_bench.bench.device import DEVICES, installed
from senet_bench.core.results import Finding

PACKAGES = ("torch", "torchvision", "numpy", "fvcore", "timm", "onnxruntime", "openvino", "triton")
EXTRAS: dict[str, str | None] = {
    "torch": None,
    "torchvision": None,
    "fvcore": None,
    "pandas": None,
    "timm": "timm",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "nvidia-ml-py": "nvidia",
    "huggingface_hub": "hub",
    "tensorboard": "track",
}
"""Packages the toolkit uses, and the extra that brings each; None for what every installation has."""

ABSENT = {
    "cuda": "latency on a GPU needs an NVIDIA GPU and torch with CUDA",
    "mps": "only on Apple silicon",
}
"""What is said of a kind of device that is not there."""


@functools.cache
def environment() -> dict[str, Any]:
    """Hardware, software and load of this machine. `hard` is what makes times comparable, `machine` its key."""
    hard = _hard()
    return {
        "machine": machine_key(hard),
        "hard": hard,
        "senet_bench": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "memory_bytes": psutil.virtual_memory().total,
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "allocator": {"can_be_tuned": not allocator.obstacle(), "variables": allocator.variables()},
        "cpu_governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cpu_turbo_off": _read("/sys/devices/system/cpu/intel_pstate/no_turbo"),
    }


def checks() -> list[Finding]:
    """What this machine offers for measuring, and what is missing with how to get it."""
    packages = environment()["packages"]
    found = [
        Finding("senet-bench", __version__),
        Finding("python", platform.python_version()),
        Finding("cpu", f"{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}"),
        Finding("cores / threads", f"{cores()} / {torch.get_num_threads()}"),
        Finding("memory", f"{psutil.virtual_memory().total / 2**30:.1f} GiB"),
        _allocator(),
        Finding("machine key", str(environment()["machine"])),
    ]
    for kind, make in DEVICES.items():
        if kind != "cpu":
            number = make(torch.device(kind)).count()
            found += [Finding(_numbered(kind, i), make(torch.device(kind, i)).name()) for i in range(number)]
            found += [Finding(kind, "none", ABSENT.get(kind, ""))] if not number else []
    for package, extra in EXTRAS.items():
        version = packages.get(package) or _version(package)
        remedy = "" if version or extra is None else f"pip install 'senet-bench[{extra}]'"
        found.append(Finding(package, version or "missing", remedy))
    return found


def _numbered(kind: str, index: int) -> str:
    return kind if kind == "mps" else f"{kind}:{index}"


def _allocator() -> Finding:
    """What this process allocates with, and what can be done about it."""
    what = {"default": "glibc's default", "environment": "glibc, set by the environment", "other": "not glibc's"}
    found, obstacle = allocator.setting(), allocator.obstacle()
    set_by = ", ".join(f"{name}={value}" for name, value in allocator.variables().items())
    told = what.get(found, found) + (f" ({set_by})" if set_by else "")
    return Finding(
        "allocator", told, f"cannot be tuned: {obstacle}" if obstacle else "--allocator tuned keeps freed memory"
    )


def machine_key(hard: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that stay the same while hardware, driver and torch's minor version do."""
    text = "\n".join(f"{name}={value}" for name, value in sorted(hard.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hard() -> dict[str, Any]:
    """Stable fields only: no frequencies, load, host name or kernel build."""
    gpu = {"gpu": None, "gpu_count": 0, "sm": None, "gpu_memory_gib": None, "cuda": None, "cudnn": None}
    gpu |= next((device.hardware() for _, device in installed()), {})
    libraries = ("cuda", "cudnn")
    return {
        "cpu": _cpu_model(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "virtual": "hypervisor" in (_read("/proc/cpuinfo") or ""),
        **{name: value for name, value in gpu.items() if name not in libraries},
        "torch": ".".join(torch.__version__.split(".")[:2]),
        **{name: gpu[name] for name in libraries},
    }


def _cpu_model() -> str:
    """The processor's name: from the kernel, which is quick, else by py-cpuinfo."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    import cpuinfo

    return str(cpuinfo.get_cpu_info().get("brand_raw", platform.processor()))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None
