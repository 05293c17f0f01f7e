"""The machine and the software a measurement runs on, what it offers, and the state of torch while it lasts."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import psutil
import torch

from senet_bench import __version__
from senet_bench.bench.device import Device, installed, present
from senet_bench.bench.process import (
    allocator_variables,
    applied_allocator,
    check_allocator,
    cores,
    tuning_obstacle,
)
from senet_bench.core import specs
from senet_bench.core.checkout import commit_of
from senet_bench.core.environment import AllocatorState, Environment, Hardware
from senet_bench.core.runtimes import RUNTIMES, check_extra, check_known
from senet_bench.core.specs import Conditions
from senet_bench.errors import UsageError

READ_BYTES = 1 << 28
"""What is read to see how fast memory is: more than caches hold."""
PACKAGES = ("torch", "torchvision", "numpy", "fvcore", "timm", "onnxruntime", "openvino", "triton")


@functools.cache
def environment() -> Environment:
    """Hardware, software and load of this machine. `hard` is what makes times comparable, `machine` its key."""
    hard = _hard()
    return Environment(
        machine=machine_key(hard),
        hard=hard,
        senet_bench=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages={name: version for name in PACKAGES if (version := version_of(name))},
        commit=commit_of(Path()) or None,
        memory_bytes=psutil.virtual_memory().total,
        load_1min=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        allocator=AllocatorState(can_be_tuned=not tuning_obstacle(), variables=allocator_variables()),
        cpu_governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        cpu_turbo_off=_read("/sys/devices/system/cpu/intel_pstate/no_turbo"),
    )


def machine_key(hard: Hardware) -> str:
    """Twelve hexadecimal digits that stay the same while hardware, driver and torch's minor version do."""
    text = "\n".join(f"{name}={value}" for name, value in sorted(asdict(hard).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hard() -> Hardware:
    return Hardware(
        cpu=cpu_model(),
        isa=torch.backends.cpu.get_cpu_capability(),
        cores=cores(),
        virtual="hypervisor" in (_read("/proc/cpuinfo") or ""),
        torch=".".join(torch.__version__.split(".")[:2]),
        **next((device.hardware() for _, device in installed()), {}),
    )


def cpu_model() -> str:
    """The processor's name: from the kernel, which is quick, else by py-cpuinfo."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    import cpuinfo

    return str(cpuinfo.get_cpu_info().get("brand_raw", platform.processor()))


def version_of(package: str) -> str | None:
    """The version of an installed package, None where it is not."""
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


def check_conditions(conditions: Conditions) -> None:
    """Raise `UsageError`, with a remedy, on conditions that this machine cannot offer."""
    check_known(conditions.runtime)
    for name, choices in (("precision", specs.Precision), ("mode", specs.Mode)):
        if getattr(conditions, name) not in get_args(choices):
            raise UsageError(
                f"{name} {getattr(conditions, name)!r} is unknown", f"choose from {', '.join(get_args(choices))}"
            )
    if min(conditions.batch_size, conditions.threads) < 1:
        raise UsageError("batch size and threads must be at least 1")
    check_allocator(conditions.allocator)
    device = present(conditions.device)
    if device.lacks(conditions.precision):
        raise UsageError(f"device {conditions.device} has no {conditions.precision}", "use --precision fp32")
    _check_runtime(conditions, device)


def settled(conditions: Conditions) -> Conditions:
    """The checked conditions with the allocator that this process has from now on, tuned where they ask for it."""
    check_conditions(conditions)
    return replace(conditions, allocator=applied_allocator(conditions.allocator))


def _check_runtime(conditions: Conditions, device: Device) -> None:
    facts = RUNTIMES[conditions.runtime]
    cuda_only = facts.graphs or conditions.timing == "device" or conditions.cache == "cold"
    if cuda_only and not device.captures:
        raise UsageError("CUDA graphs, device timing and a cold cache need a CUDA device", "use --device cuda")
    if conditions.cache == "cold" and conditions.timing != "device":
        raise UsageError("a cold cache is timed by device events only", "use device timing")
    if facts.extra:
        check_runtime(conditions)
    check_extra(facts)


def reading_speed() -> float:
    """Bytes a second at which the threads of a session read memory beyond the caches, the best of five times."""
    values, best = torch.ones(READ_BYTES // 4), 0.0
    for _ in range(5):
        begun = time.perf_counter()
        values.sum()
        best = max(best, READ_BYTES / (time.perf_counter() - begun))
    return round(best)


@contextlib.contextmanager
def session(conditions: Conditions) -> Iterator[None]:
    """Threads and arithmetic of the conditions for as long as this lasts: fp32 is IEEE, TF32 only when asked."""
    benchmark = torch.backends.cudnn.benchmark
    with arithmetic(tf32=conditions.precision == "tf32"), on_threads(conditions.threads):
        try:
            torch.backends.cudnn.benchmark = True
            yield
        finally:
            torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def on_threads(count: int) -> Iterator[None]:
    """So many threads of torch, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def arithmetic(tf32: bool) -> Iterator[None]:
    """TF32 on or off for products and convolutions, by both of torch's interfaces.

    The older flags are set because torch's compiler and exporter read them, and raise where they and the newer
    `fp32_precision` disagree; the newer ones are put back as they were.
    """
    backends: Any = torch.backends
    newer = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
    older = (backends.cuda.matmul, backends.cudnn)
    precisions, allowed = [flag.fp32_precision for flag in newer], [_allows_tf32(flag) for flag in older]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for flag in older:
            flag.allow_tf32 = tf32
        for flag in newer[3:]:
            flag.fp32_precision = "ieee"
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for flag, value in zip(older, allowed):
                if value is not None:
                    flag.allow_tf32 = value
            for flag, precision in zip(newer, precisions):
                flag.fp32_precision = precision


def _allows_tf32(flag: Any) -> bool | None:
    try:
        return bool(flag.allow_tf32)
    except RuntimeError:  # the newer interface was used: there is no older value to restore
        return None


def check_runtime(conditions: Conditions) -> None:
    """Raise `UsageError` on what these runtimes do not do here."""
    precisions = ("fp32", "bf16")[: 1 + RUNTIMES[conditions.runtime].bf16]
    if conditions.mode != "infer" or conditions.precision not in precisions or conditions.channels_last:
        raise UsageError(
            f"{conditions.runtime} runs inference in {' or '.join(precisions)} with contiguous images only",
            "leave the other options out",
        )
    if conditions.device != "cpu":
        raise UsageError(f"{conditions.runtime} runs on the CPU here", "use --device cpu")
